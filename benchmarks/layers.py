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
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402

import gpubp as bp  # noqa: E402
from benchmarks.timing import Step, medians  # noqa: E402
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
