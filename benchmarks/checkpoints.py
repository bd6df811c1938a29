"""What a checkpoint costs, beside PyTorch's `save` and `load`, in one run.

    python -m benchmarks.checkpoints [--parameters N] [--rounds N]

A net of 10 million parameters and Adam's state, 120 MB, are written to the folder for temporary files and read back;
medians, the sides taken in turns. Ours are synced to the disk and have checksums, which are verified; PyTorch's are
neither, so a second row has its file synced too. Then what a checkpoint after each epoch adds to a step of training.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import gpubp as bp
from gpubp import losses, nn, optim
from gpubp.training import Checkpoints


def ours(folder: Path, width: int) -> dict[str, Callable[[], Any]]:
    net = nn.Sequential(nn.Dense(width, width), nn.relu, nn.Dense(width, width), seed=0)
    opt = optim.Adam(net)
    opt.step(bp.tree.map_leaves(np.ones_like, net))
    parts, kept = {"net": net, "opt": opt}, Checkpoints(folder, keep=1)
    return {
        "write: gpubp": lambda: kept.save(1, parts, settings={}, row={}),
        "read: gpubp": lambda: kept.resume(parts, settings={}),
    }


def torchs(folder: Path, width: int) -> dict[str, Callable[[], Any]]:
    import torch

    linear = torch.nn.Linear
    net = torch.nn.Sequential(linear(width, width), torch.nn.ReLU(), linear(width, width))
    opt = torch.optim.Adam(net.parameters())
    for p in net.parameters():
        p.grad = torch.ones_like(p)
    opt.step()

    def write(sync: bool) -> None:
        with open(folder / "torch.pt", "wb") as stream:
            torch.save({"net": net.state_dict(), "opt": opt.state_dict()}, stream)
            if sync:
                stream.flush()
                os.fsync(stream.fileno())

    def read() -> None:
        found = torch.load(folder / "torch.pt")
        net.load_state_dict(found["net"])
        opt.load_state_dict(found["opt"])

    return {
        "write: PyTorch": lambda: write(False),
        "write: PyTorch, synced": lambda: write(True),
        "read: PyTorch": read,
    }


def epoch(folder: Path | None) -> Callable[[], Any]:
    """A run of three epochs of 1437 digits, 45 steps each, with a checkpoint after each or without any."""
    train, _ = bp.data.digits()

    def run() -> None:
        net = nn.Sequential(nn.Dense(64, 128), nn.relu, nn.Dense(128, 10), seed=0)
        kept = {} if folder is None else {"checkpoint": folder / str(time.perf_counter_ns())}
        bp.fit(net, lambda net, x, y: losses.softmax_cross_entropy(net(x), y), optim.Adam(net), train, epochs=3,
               metrics=(), progress=False, **kept)  # fmt: skip

    return run


def medians(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Seconds, of calls that are made in turns."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for k in range(rounds + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if k:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(found) for name, found in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parameters", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    width = round((args.parameters / 2) ** 0.5)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        calls = ours(folder / "checkpoints", width)
        try:
            calls |= torchs(folder, width)
        except ModuleNotFoundError:
            print("PyTorch is not installed")
        found = medians(dict(sorted(calls.items(), reverse=True)), args.rounds)
        for label, seconds in found.items():
            print(f"{label:24}{seconds * 1e3:8.0f} ms")
        found = medians({"without": epoch(None), "with": epoch(folder)}, args.rounds)
        steps = 3 * -(-len(bp.data.digits().train[0]) // 32)
        added = (found["with"] - found["without"]) / steps
        print(
            f"a step of {found['without'] / steps * 1e6:.0f} µs, and {added * 1e6:.0f} µs for a checkpoint each epoch"
        )


if __name__ == "__main__":
    main()
