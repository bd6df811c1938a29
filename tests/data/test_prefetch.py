import gc
import os
import signal
import threading
import time
import traceback
import weakref

import numpy as np
import pytest

import gpubp as bp
from gpubp import losses, nn, optim
from gpubp.data import batches
from gpubp.data.prefetch import ahead
from gpubp.data.transforms import Compose, Noise, Normalize
from gpubp.tree import leaves


def threads():
    return [t for t in threading.enumerate() if t.name == "gpubp prefetch"]


@pytest.fixture(autouse=True)
def _no_thread_stays():
    assert not threads()
    yield
    assert not threads()


def test_the_same_batches_in_the_same_order():
    data = np.arange(20.0).reshape(10, 2), np.arange(10)
    for n in 1, 2, 100:
        usual, found = (
            list(batches(data, 3, shuffle=True, seed=1, start=1, last="pad", dtype="float32", prefetch=k))
            for k in (0, n)
        )
        assert len(usual) == len(found) == 3
        for a, b in zip(usual, found, strict=True):
            for x, y in zip(a, b, strict=True):
                assert x.tobytes() == y.tobytes()
                assert x.dtype == y.dtype


def test_they_are_made_in_a_thread_and_no_more_than_asked_for_ahead():
    made = []

    def items():
        for k in range(10):
            made.append((k, threading.current_thread().name))
            yield k

    found = ahead(items(), 2)
    assert made == []
    for k, item in enumerate(found):
        time.sleep(0.02)
        assert item == k
        assert len(made) == min(10, k + 3)
    assert {name for _, name in made} == {"gpubp prefetch"}


def test_an_exception_comes_out_in_its_turn_with_its_traceback():
    def fails_on_4(x):
        if 4 in x:
            raise KeyError("four")
        return x

    found = iter(batches((np.arange(9),), 2, transform=fails_on_4, prefetch=5))
    assert [x.tolist() for (x,) in (next(found), next(found))] == [[0, 1], [2, 3]]
    with pytest.raises(KeyError, match="four") as caught:
        next(found)
    assert any(frame.name == "fails_on_4" for frame in traceback.extract_tb(caught.value.__traceback__))


@pytest.mark.parametrize("prefetch", [0, 2])
def test_a_stop_iteration_of_a_transform_is_no_end(prefetch):
    def stops(x):
        raise StopIteration

    with pytest.raises(RuntimeError, match="StopIteration"):
        list(batches((np.arange(4),), 2, transform=stops, prefetch=prefetch))


def test_fit_learns_the_same():
    x, y = np.random.default_rng(0).normal(size=(20, 4)).astype("float32"), np.arange(20) % 3
    weights = []
    for prefetch in 0, 3:
        net = nn.Sequential(nn.Dense(4, 5), nn.relu, nn.Dense(5, 3), seed=0)
        bp.fit(
            net,
            lambda net, x, y: losses.softmax_cross_entropy(net(x), y),
            optim.Adam(net),
            (x, y),
            epochs=2,
            batch_size=6,
            balance=1,
            transform=Compose(Normalize.fit(x), Noise(0.1)),
            prefetch=prefetch,
            progress=False,
        )
        weights.append(b"".join(np.asarray(w).tobytes() for w in leaves(net)))
    assert weights[0] == weights[1]


def endless():
    while True:
        yield np.zeros(3)


def test_leaving_the_loop_ends_the_thread():
    for _ in ahead(endless(), 2):
        break
    assert not threads()


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_an_exception_in_the_loop_ends_the_thread(error):
    def loop():
        for _ in ahead(endless(), 2):
            raise error

    with pytest.raises(error):
        loop()
    assert not threads()


def test_an_interrupt_while_the_loop_waits_ends_the_thread():
    def slow():
        yield 0
        time.sleep(0.2)
        yield 1

    def loop():
        for _ in ahead(slow(), 1):
            threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()

    with pytest.raises(KeyboardInterrupt):
        loop()
    assert not threads()


def test_an_iterator_that_is_forgotten_ends_its_thread():
    found = ahead(endless(), 1)
    next(found)
    assert len(threads()) == 1
    del found
    gc.collect()
    assert not threads()


def test_in_a_cycle_too():
    holder = {}
    holder["self"], holder["found"] = holder, ahead(endless(), 1)
    next(holder["found"])
    del holder
    gc.collect()
    for t in threads():  # the collector may have run in that thread itself
        t.join(5)
    assert not threads()


def test_an_iterator_that_is_not_begun_has_no_thread():
    found = iter(batches((np.arange(4),), 2, prefetch=1))
    assert not threads()
    del found


def test_items_are_not_kept():
    refs = []

    def items():
        for _ in range(5):
            item = np.zeros(1)
            refs.append(weakref.ref(item))
            yield item
            del item

    for item in ahead(items(), 1):
        del item
        time.sleep(0.02)
        assert sum(ref() is not None for ref in refs) <= 2


def test_two_loops_at_once():
    one, two = (batches((np.arange(6),), 2, prefetch=2) for _ in range(2))
    assert [(a.tolist(), b.tolist()) for (a,), (b,) in zip(one, two, strict=True)] == [
        ([k, k + 1], [k, k + 1]) for k in (0, 2, 4)
    ]
