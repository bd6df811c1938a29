"""How fast layers train beside PyTorch on the CPU: forward pass and all gradients, in one run on two threads.

    python -m benchmarks.layers [CASE ...] [--json FILE] [--seconds N]

Both libraries have the same parameters and are first checked to compute the same loss and gradients. Times are medians
in milliseconds, taken in turns. Then memory: what a forward pass keeps, and what `checkpoint` saves.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

THREADS = 2
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = str(THREADS)
for _variable in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):  # which NumPy's BLAS finds out by itself
    os.environ.pop(_variable, None)

import numpy as np  # noqa: E402  (the number of threads is read on import)

try:
    import torch
    import torch.nn.functional as F
except ImportError:
    sys.exit("this compares with PyTorch, which is not installed: pip install -e '.[peers]'")

import gpubp as bp  # noqa: E402
from benchmarks.timing import medians  # noqa: E402
from gpubp import losses, nn, optim  # noqa: E402

rng = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    """Return normal random numbers in float32."""
    return rng.normal(size=shape).astype("float32")


class Sides(NamedTuple):
    """One computation in both libraries: steps that give what is compared, gpubp's arrays and PyTorch's tensors."""

    gpubp: Callable[[], list[np.ndarray]]
    torch: Callable[[], list[torch.Tensor]]


def tensor(x: np.ndarray, needs: bool = True) -> torch.Tensor:
    """Return a tensor of the same values with memory of its own."""
    return torch.tensor(np.ascontiguousarray(x), requires_grad=needs)


def torch_conv(W: np.ndarray) -> np.ndarray:
    """Return a kernel (*window, n_in, n_out) as PyTorch has it, (n_out, n_in, *window)."""
    return np.moveaxis(W, (-1, -2), (0, 1))


# -- the cases


def lenet() -> Sides:
    """Forward pass, gradients and a step of Adam at batch 64 on 28 x 28 pictures."""
    net = nn.Sequential(
        *(nn.Conv2d(1, 6, 5, padding="same"), nn.relu, nn.MaxPool(2), nn.Conv2d(6, 16, 5), nn.relu, nn.MaxPool(2)),
        *(nn.Flatten(), nn.Dense(400, 120), nn.relu, nn.Dense(120, 84), nn.relu, nn.Dense(84, 10)),
        seed=0,
    )
    x, y = normal(64, 28, 28, 1), rng.integers(0, 10, 64)
    W1, b1, W2, b2, W3, b3, W4, b4, W5, b5 = (p.copy() for p in net.parameters().values())
    W3 = W3.reshape(5, 5, 16, 120).transpose(2, 0, 1, 3).reshape(400, 120)  # PyTorch flattens channels first
    theirs = [tensor(p) for p in (torch_conv(W1), b1, torch_conv(W2), b2, W3.T, b3, W4.T, b4, W5.T, b5)]
    opt, their_opt = optim.Adam(net, 1e-3), torch.optim.Adam(theirs, 1e-3)
    step = bp.value_and_grad(lambda net, x, y: losses.softmax_cross_entropy(net(x), y))
    tx, ty = tensor(x.transpose(0, 3, 1, 2), False), torch.tensor(y)

    def ours() -> list[np.ndarray]:
        value, grads = step(net, x, y)
        opt.step(grads)
        return [value]

    def peers() -> list[torch.Tensor]:
        W1, b1, W2, b2, W3, b3, W4, b4, W5, b5 = theirs
        h = F.max_pool2d(F.relu(F.conv2d(tx, W1, b1, padding=2)), 2)
        h = F.max_pool2d(F.relu(F.conv2d(h, W2, b2)), 2).flatten(1)
        h = F.linear(F.relu(F.linear(F.relu(F.linear(h, W3, b3)), W4, b4)), W5, b5)
        value = F.cross_entropy(h, ty)
        their_opt.zero_grad()
        value.backward()
        their_opt.step()
        return [value.detach()]

    return Sides(ours, peers)


def _gradients(f: Callable[..., Any], arrays: list[np.ndarray], g: np.ndarray) -> Callable[[], list[np.ndarray]]:
    """Return a step that computes the gradients of ``sum(f(*arrays) * g)``."""
    grads = bp.grad(lambda *arrays: (f(*arrays) * g).sum(), argnums=tuple(range(len(arrays))))
    return lambda: list(grads(*arrays))


def _peers(f: Callable[..., torch.Tensor], arrays: list[np.ndarray], g: np.ndarray) -> Callable[[], list[torch.Tensor]]:
    tensors, weights = [tensor(x) for x in arrays], tensor(g, False)

    def run() -> list[torch.Tensor]:
        return list(torch.autograd.grad((f(*tensors) * weights).sum(), tensors))

    return run


def convolution() -> Sides:
    """A 3 x 3 convolution of 32 to 64 channels on 32 x 32 pictures at batch 32."""
    x, W, b, g = normal(32, 32, 32, 32), normal(3, 3, 32, 64) / 17, normal(64), normal(32, 32, 32, 64)
    ours = _gradients(lambda x, W, b: bp.functions.convolution(x, W, b, padding="same"), [x, W, b], g)
    theirs = _peers(
        lambda x, W, b: F.conv2d(x, W, b, padding=1),
        [x.transpose(0, 3, 1, 2), torch_conv(W), b],
        g.transpose(0, 3, 1, 2),
    )

    def peers() -> list[torch.Tensor]:
        dx, dW, db = theirs()
        return [dx.permute(0, 2, 3, 1), dW.permute(2, 3, 1, 0), db]

    return Sides(ours, peers)


def batch_norm() -> Sides:
    """Batch normalisation of (32, 32, 32, 64) in training."""
    x, gain, bias, g = normal(32, 32, 32, 64), normal(64), normal(64), normal(32, 32, 32, 64)
    ours = _gradients(lambda *args: bp.functions.batch_norm(*args)[0], [x, gain, bias], g)
    theirs = _peers(
        lambda x, gain, bias: F.batch_norm(x, None, None, gain, bias, training=True),
        [x.transpose(0, 3, 1, 2), gain, bias],
        g.transpose(0, 3, 1, 2),
    )

    def peers() -> list[torch.Tensor]:
        dx, *rest = theirs()
        return [dx.permute(0, 2, 3, 1), *rest]

    return Sides(ours, peers)


def lstm() -> Sides:
    """An LSTM of 128 to 128 features over 64 steps at batch 32."""
    n = 128
    x, W, U, b = normal(32, 64, n), normal(n, 4 * n) / 11, normal(n, 4 * n) / 11, normal(4 * n) / 11
    g = normal(32, 64, n)
    ours = _gradients(lambda *args: bp.functions.lstm(*args)[0], [x, W, U, b], g)
    net = torch.nn.LSTM(n, n, batch_first=True)
    with torch.no_grad():
        for p, value in zip(net.parameters(), (W.T, U.T, b, 0 * b), strict=True):
            p.copy_(torch.tensor(np.ascontiguousarray(value)))
    tx, weights = tensor(x), tensor(g, False)

    def peers() -> list[torch.Tensor]:
        dx, dW, dU, db, _ = torch.autograd.grad((net(tx)[0] * weights).sum(), [tx, *net.parameters()])
        return [dx, dW.T, dU.T, db]

    return Sides(ours, peers)


def transformer_block() -> Sides:
    """A causal pre-norm block with tanh GELU: 256 features, 8 heads, 1024 hidden units, 128 steps at batch 16."""
    n, heads, batch, time = 256, 8, 16, 128
    block = nn.TransformerBlock(n, heads, causal=True, seed=0)
    x, g = normal(batch, time, n), normal(batch, time, n)
    grads = bp.grad(lambda block, x: (block(x) * g).sum(), argnums=(0, 1))
    names = (
        *("norm1.gain", "norm1.bias", "attention.W", "attention.b", "attention.W_out", "attention.b_out"),
        *("norm2.gain", "norm2.bias", "up.W", "up.b", "down.W", "down.b"),
    )
    arrays = [block.parameters()[name] for name in names]
    theirs = [tensor(p.T) for p in arrays]
    tx, weights = tensor(x), tensor(g, False)

    def ours() -> list[np.ndarray]:
        found, dx = grads(block, x)
        there = found.parameters()
        return [dx, *(there[name] for name in names)]

    def forward(x: torch.Tensor) -> torch.Tensor:
        g1, b1, W, b, W_out, b_out, g2, b2, W_up, b_up, W_down, b_down = theirs
        q, k, v = F.linear(F.layer_norm(x, (n,), g1, b1), W, b).view(batch, time, 3, heads, -1).permute(2, 0, 3, 1, 4)
        h = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(batch, time, n)
        x = x + F.linear(h, W_out, b_out)
        h = F.gelu(F.linear(F.layer_norm(x, (n,), g2, b2), W_up, b_up), approximate="tanh")
        return x + F.linear(h, W_down, b_down)

    def peers() -> list[torch.Tensor]:
        dx, *rest = torch.autograd.grad((forward(tx) * weights).sum(), [tx, *theirs])
        return [dx, *(p.T if p.ndim == 2 else p for p in rest)]

    return Sides(ours, peers)


class Case(NamedTuple):
    """What is timed, and how fast it is to be as a share of PyTorch's speed; None where nothing was asked for."""

    make: Callable[[], Sides]
    wanted: float | None


CASES = {
    "lenet": Case(lenet, 0.5),
    "convolution": Case(convolution, 0.5),
    "lstm": Case(lstm, 0.5),
    "transformer_block": Case(transformer_block, 0.35),
    "batch_norm": Case(batch_norm, 0.25),
}


def check(name: str, sides: Sides) -> None:
    """Refuse to time what does not agree."""
    for k, (a, b) in enumerate(zip(sides.gpubp(), sides.torch(), strict=True)):
        found, expected = np.asarray(a, "float64"), b.numpy().astype("float64")
        error = np.max(np.abs(found - expected)) / np.max(np.abs(expected))
        if not error < 1e-4:
            raise AssertionError(f"{name}: result {k} differs from PyTorch's by {error:.1e} of its largest element")


def time_cases(names: list[str], seconds: float) -> dict[str, Any]:
    """Time the cases, print a line for each, and return the figures."""
    torch.set_num_threads(THREADS)
    found = {}
    print(f"{'':20} {'gpubp ms':>9} {'PyTorch ms':>10} {'ratio':>6}  wanted")
    for name in names:
        sides = CASES[name].make()
        check(name, sides)
        times = medians({"gpubp": sides.gpubp, "torch": sides.torch}, seconds, warm_up=2)
        ratio, wanted = times["torch"] / times["gpubp"], CASES[name].wanted
        found[name] = {"gpubp_ms": times["gpubp"] / 1e3, "torch_ms": times["torch"] / 1e3, "ratio": ratio}
        print(f"{name:20} {times['gpubp'] / 1e3:9.2f} {times['torch'] / 1e3:10.2f} {ratio:6.2f}  {wanted or ''}")
    return found


# -- memory


def peak(f: Callable[[], Any]) -> float:
    """Return the most memory of arrays that was held at once in a call, in MB."""
    f()
    tracemalloc.start()
    f()
    found = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return found / 1e6


def memory() -> dict[str, float]:
    """Print and return the peaks of a Transformer, with `checkpoint` around its blocks and without."""
    blocks = nn.Sequential(*[nn.TransformerBlock(128, 4, causal=True) for _ in range(8)], seed=0)
    x = normal(16, 128, 128)

    def loss(net: nn.Sequential, wrap: Callable[..., Any]) -> Any:
        h = x
        for block in net.layers:
            h = wrap(block)(h)
        return (h * h).sum()

    found = {
        "input": x.nbytes / 1e6,
        "forward pass": peak(lambda: blocks(x)),
        "gradient": peak(lambda: bp.grad(lambda net: loss(net, lambda f: f))(blocks)),
        "gradient with checkpoint": peak(lambda: bp.grad(lambda net: loss(net, bp.checkpoint))(blocks)),
        "its parameters": 4e-6 * blocks.count_parameters(),
    }
    print("\npeak memory of 8 Transformer blocks (128 features, 128 steps, batch 16), in MB")
    for name, megabytes in found.items():
        print(f"  {name:26} {megabytes:7.1f}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("cases", nargs="*", metavar="case", help=f"{', '.join(CASES)}, memory; by default all")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--seconds", type=float, default=10.0, help="for each case")
    args = parser.parse_args()
    if unknown := [name for name in args.cases if name not in CASES and name != "memory"]:
        parser.error(f"no case {unknown[0]}: there are {', '.join(CASES)}, memory")
    versions = {"numpy": np.__version__, "torch": torch.__version__, "python": platform.python_version()}
    figures: dict[str, Any] = {"threads": THREADS, "machine": platform.machine(), **versions}
    names = [name for name in CASES if name in args.cases or not args.cases]
    figures["layers"] = time_cases(names, args.seconds) if names else {}
    if not args.cases or "memory" in args.cases:
        figures["peak_mb"] = memory()
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
