"""Batches that are copied to the GPU while it computes, on the stand-in, where copies come only when waited for."""

import gc
import threading
import time

import numpy as np
import pytest

import gpubp as bp
from gpubp import losses, nn, optim
from gpubp.data import batches
from gpubp.data.prefetch import uploader
from gpubp.data.transforms import Normalize
from gpubp.device import cuda_devices, device_of, resolve, to_numpy
from gpubp.tree import leaves

DATA = (
    np.arange(60.0).reshape(20, 3).astype("float32"),
    np.arange(20),
    np.arange(20) % 2 == 0,
    np.arange(20).astype("uint8")[:, None, None],
)


@pytest.fixture(autouse=True)
def cupy(backend):
    if backend.name != "cupy":
        pytest.skip("these copies are to CuPy alone")
    import cupy

    uploader.cache_clear()
    yield cupy
    assert not [t for t in threading.enumerate() if t.name == "gpubp prefetch"]


@pytest.fixture
def copies(cupy):
    """The stand-in's copies, which can be counted; at the end nothing has been forgotten."""
    if not hasattr(cupy, "_read"):
        pytest.skip("a GPU does not say what it has not done yet")
    from tests import fake_copies

    yield fake_copies
    left = fake_copies.waiting()
    fake_copies.forget()
    assert left == 0


def usual(**options):
    return [tuple(map(to_numpy, batch)) for batch in batches(DATA, 3, shuffle=True, seed=1, **options)]


def check(found, **options):
    for batch, expected in zip(found, usual(**options), strict=True):
        for x, y in zip(batch, expected, strict=True):
            assert x.dtype == y.dtype
            assert to_numpy(x).tobytes() == y.tobytes()


@pytest.mark.parametrize("n", [1, 2, 9])
def test_the_same_bits(n):
    for _ in range(3):  # epochs have their pinned memory in common
        check(batches(DATA, 3, shuffle=True, seed=1, device="cuda", prefetch=n))
    where = f"cuda:{len(cuda_devices()) - 1}"
    found = list(batches(DATA, 3, shuffle=True, seed=1, device=where, prefetch=n, dtype="float64", last="pad"))
    assert all(device_of(x) == resolve(where) for batch in found for x in batch)
    check(found, dtype="float64", last="pad")


def test_slow_and_fast_loops():
    for loading, loop in ((0.01, 0), (0, 0.01)):

        def slow(x, loading=loading):
            time.sleep(loading)
            return x

        for batch, expected in zip(
            batches(DATA, 3, shuffle=True, seed=1, device="cuda", prefetch=2, transform=slow), usual(), strict=True
        ):
            time.sleep(loop)
            assert to_numpy(batch[0]).tobytes() == expected[0].tobytes()


def test_the_loop_waits_for_no_copy_on_the_host(copies, cupy):
    with cupy.no_host_reads():
        found = list(batches(DATA, 3, shuffle=True, seed=1, device="cuda", prefetch=2))
    check(found)


def test_on_a_stream_of_the_loops_own(cupy):
    with cupy.cuda.Stream(non_blocking=True):
        check(batches(DATA, 3, shuffle=True, seed=1, device="cuda", prefetch=2))


def test_pinned_memory_is_used_again(cupy, monkeypatch):
    asked = []
    own = cupy.cuda.alloc_pinned_memory
    monkeypatch.setattr(cupy.cuda, "alloc_pinned_memory", lambda size: asked.append(size) or own(size))
    for epoch in range(5):
        for _ in batches(DATA, 3, shuffle=True, seed=1, epoch=epoch, device="cuda", prefetch=2):
            pass
    assert len(asked) <= 4 * len(DATA)


def test_data_on_the_gpu_are_taken_there():
    there = next(iter(batches((DATA[0],), 20, device="cuda")))
    for (x,), (expected, *_) in zip(batches(there, 3, shuffle=True, seed=1, prefetch=2), usual(), strict=True):
        assert to_numpy(x).tobytes() == expected.tobytes()


@pytest.mark.filterwarnings("ignore:matrix products use")
def test_fit_with_captured_steps(cupy):
    weights = []
    for prefetch in 0, 2:
        net = nn.Sequential(nn.Dense(3, 4), nn.relu, nn.Dense(4, 20), seed=0).to("cuda")
        bp.fit(
            net,
            lambda net, x, y: losses.softmax_cross_entropy(net(x), y),
            optim.SGD(net, lr=0.1),
            DATA[:2],
            epochs=3,
            batch_size=4,
            transform=Normalize.fit(DATA[0]),
            prefetch=prefetch,
            capture=True,
            progress=False,
        )
        weights.append(b"".join(to_numpy(w).tobytes() for w in leaves(net)))
    assert weights[0] == weights[1]


# -- without one of the waits, the tests above fail


def nothing(*_):
    return None


def test_without_the_wait_for_the_copy(copies, monkeypatch):
    monkeypatch.setattr(copies.Null, "wait_event", nothing)
    with pytest.raises(AssertionError):
        check(batches(DATA, 3, shuffle=True, seed=1, device="cuda", prefetch=2))
    copies.forget()


def test_without_the_wait_for_the_memory(copies, cupy, monkeypatch):
    monkeypatch.setattr(type(cupy.cuda.Stream()), "wait_event", nothing)
    with pytest.raises(AssertionError, match="a copy did not wait for the stream whose memory it writes"):
        check(batches(DATA, 3, shuffle=True, seed=1, device="cuda", prefetch=2))


@pytest.mark.parametrize("waits", [True, False])
def test_pinned_memory_is_not_written_before_the_copy_from_it(waits, copies, monkeypatch):
    up = uploader(resolve("cuda"))
    sent = up.send(*up.stage((np.full(3, 1.0),)))
    if not waits:
        monkeypatch.setattr(copies.Event, "synchronize", nothing)
    up.stage((np.full(3, 2.0),))
    (found,) = up.receive(sent)
    assert to_numpy(found).tolist() == [1.0 if waits else 2.0] * 3


@pytest.mark.parametrize("waits", [True, False])
def test_a_batch_that_nobody_takes_is_waited_for(waits, copies, monkeypatch):
    up = uploader(resolve("cuda"))
    staged = [up.stage((np.full(3, k),)) for k in range(4)]
    found = up.sent(x for x in staged)
    next(found)
    assert copies.waiting() == 1
    if not waits:
        monkeypatch.setattr(copies.Null, "wait_event", nothing)
    del found
    gc.collect()
    assert copies.waiting() == (0 if waits else 1)
    if not waits:
        with pytest.raises(AssertionError, match="a copy wrote to memory that was freed"):
            up.stream.synchronize()


def test_a_loop_that_is_left_early(copies):
    for batch in batches(DATA, 3, device="cuda", prefetch=2):
        assert to_numpy(batch[1]).tolist() == [0, 1, 2]
        break
    gc.collect()
    assert copies.waiting() == 0
