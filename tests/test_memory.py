"""Nothing grows: after a thousand steps of training as much memory is in use as after the first ones."""

import gc
import sys
import tracemalloc

import numpy as np
import pytest

import gpubp as bp
from gpubp import losses, nn, optim
from gpubp.tree import map_distinct

FIRST, STEPS = 100, 1000
ON_STANDIN = 8, 40  # where every array that is kept shows in a few steps
#: Bytes that may come to be kept: with Python's those that NumPy keeps of the shapes of small arrays.
SLACK, SLACK_ON_DEVICE = 65536, 4096


def is_standin(backend):
    return backend.name == "cupy" and hasattr(sys.modules["cupy"], "no_host_reads")


def used(backend):
    """The bytes in use: of CuPy's pool on a GPU, of Python (and so NumPy) elsewhere."""
    gc.collect()
    if backend.name == "numpy":
        return tracemalloc.get_traced_memory()[0]
    import cupy

    if not is_standin(backend):
        cupy.cuda.Device().synchronize()
    return cupy.get_default_memory_pool().used_bytes()


def training(backend):
    """Return a step of a net with all that keeps state: running statistics, random numbers, an optimizer."""
    net = nn.Sequential(
        *(nn.Conv2d(1, 2, 3), nn.BatchNorm(2), nn.relu, nn.MaxPool(2), nn.Flatten(), nn.Dropout(0.3)),
        *(nn.Dense(8, 6), nn.LayerNorm(6), nn.gelu, nn.Dense(6, 3)),
        seed=0,
    )
    net = map_distinct(backend.asarray, net).train()
    opt = optim.AdamW(net, 1e-3)
    rng = np.random.default_rng(0)
    x = backend.asarray(rng.normal(size=(4, 6, 6, 1)).astype("float32"))
    y = backend.asarray(rng.integers(0, 3, 4))
    gradient = bp.value_and_grad(lambda net, x, y: losses.softmax_cross_entropy(net(x), y))

    def step(x, y):
        value, grads = gradient(net, x, y)
        opt.step(grads)
        return value

    return step, x, y


def check(step, backend):
    first, steps = ON_STANDIN if is_standin(backend) else (FIRST, STEPS)
    if backend.name == "numpy":
        tracemalloc.start()
    try:
        for _ in range(first):
            step()
        before = used(backend)
        for _ in range(steps):
            step()
        grown = used(backend) - before
    finally:
        tracemalloc.stop()
    slack = SLACK if backend.name == "numpy" else SLACK_ON_DEVICE
    assert grown <= slack, f"{grown} bytes more after {steps} steps"


def only_where_memory_is_known(backend):
    if backend.name not in ("numpy", "cupy"):
        pytest.skip(f"for NumPy and CuPy, whose memory can be seen, not for {backend.name}")


def test_a_thousand_steps_take_no_more_memory(backend):
    only_where_memory_is_known(backend)
    step, x, y = training(backend)
    check(lambda: step(x, y), backend)


def test_a_thousand_captured_steps_take_no_more_memory(backend):
    only_where_memory_is_known(backend)
    step, x, y = training(backend)
    captured = bp.capture(step)
    check(lambda: captured(x, y), backend)


def test_what_grows_is_found(backend):
    only_where_memory_is_known(backend)
    kept = []
    with pytest.raises(AssertionError, match="bytes more after"):
        check(lambda: kept.append(backend.asarray(np.zeros(64))), backend)
