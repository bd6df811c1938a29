"""What `fit` costs beside the loop one would write, and beside a plain PyTorch loop, on one thread.

    python -m benchmarks.loop [--seconds 20]

Times are medians in microseconds a step, of whole runs of 1000 steps, taken in turns: of the processor's time that the
one thread has used, so that a busy machine disturbs little. `fit` checks its data, reads its
losses, watches for what is not finite and makes its history; the bare loops do not.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"

import numpy as np  # noqa: E402  (the number of threads is read on import)

import gpubp as bp  # noqa: E402
from benchmarks.timing import Step, medians  # noqa: E402
from gpubp import losses, nn, optim  # noqa: E402

EPOCHS, STEPS, BATCH = 5, 200, 32
SIZES = {"8-16-4": (8, 16, 4), "64-64-10": (64, 64, 10)}


def data_of(sizes: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return random examples, so many that an epoch has `STEPS` steps."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(STEPS * BATCH, sizes[0])).astype("float32"), rng.integers(0, sizes[2], STEPS * BATCH)


def net_of(sizes: tuple[int, int, int]) -> Any:
    """Return the net of gpubp."""
    n_in, hidden, n_out = sizes
    return nn.Sequential(nn.Dense(n_in, hidden), nn.relu, nn.Dense(hidden, n_out), seed=0)


def loss(net: Any, x: Any, y: Any) -> Any:
    """Return the mean cross-entropy of a batch."""
    return losses.softmax_cross_entropy(net(x), y)


def fitted(sizes: tuple[int, int, int], data: Any, **options: Any) -> Step:
    """Return a run of `fit`."""

    def run() -> None:
        net = net_of(sizes)
        bp.fit(net, loss, optim.Adam(net), data, epochs=EPOCHS, batch_size=BATCH, metrics=(), progress=False, **options)

    return run


def bare(sizes: tuple[int, int, int], data: Any, **options: Any) -> Step:
    """Return the loop that the README shows."""

    def run() -> None:
        net = net_of(sizes)
        opt = optim.Adam(net, **options)
        for epoch in range(EPOCHS):
            for x, y in bp.data.batches(data, BATCH, shuffle=True, seed=0, epoch=epoch, device="cpu"):
                _, grads = bp.value_and_grad(loss)(net, x, y)
                opt.step(grads)

    return run


def pytorch(sizes: tuple[int, int, int], data: Any) -> Step:
    """Return the same of PyTorch, which takes its batches from a shuffled tensor."""
    import torch

    torch.set_num_threads(1)
    n_in, hidden, n_out = sizes
    inputs, labels = map(torch.from_numpy, data)

    def run() -> None:
        net = torch.nn.Sequential(torch.nn.Linear(n_in, hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, n_out))
        opt = torch.optim.Adam(net.parameters())
        for _ in range(EPOCHS):
            for rows in torch.randperm(len(inputs)).split(BATCH):
                opt.zero_grad()
                torch.nn.functional.cross_entropy(net(inputs[rows]), labels[rows]).backward()
                opt.step()

    return run


def main() -> None:
    """Print the times of every net, and by what they are larger than those of the bare loop."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=20.0, help="for each net")
    args = parser.parse_args()
    for name, sizes in SIZES.items():
        data = data_of(sizes)
        runs: dict[str, Callable[[], Any]] = {
            "bare loop": bare(sizes, data),
            "bare loop, not finite: stop": bare(sizes, data, nonfinite="stop"),
            "fit": fitted(sizes, data),
        }
        if find_spec("torch"):
            runs["PyTorch's bare loop"] = pytorch(sizes, data)
        times = medians(runs, args.seconds, warm_up=1, clock=time.thread_time)
        print(f"{name}, batches of {BATCH}")
        for run, microseconds in times.items():
            step = microseconds / EPOCHS / STEPS
            print(f"  {run:28} {step:7.1f} us a step   {microseconds / times['bare loop']:5.2f}")


if __name__ == "__main__":
    main()
