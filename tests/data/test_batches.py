import sys

import numpy as np
import pytest

from gpubp.data import batches
from gpubp.device import device_of, library, move, to_numpy


def rows(*args, **kwargs):
    return [x.tolist() for (x,) in batches((np.arange(7),), *args, **kwargs)]


def flat(batches):
    return [row for batch in batches for row in batch]


def test_every_row_once_in_order():
    assert rows(3) == [[0, 1, 2], [3, 4, 5], [6]]
    assert rows(7) == rows(100) == [[0, 1, 2, 3, 4, 5, 6]]


def test_drop_last_and_len():
    assert rows(3, drop_last=True) == [[0, 1, 2], [3, 4, 5]]
    for size in range(1, 9):
        assert len(batches((np.arange(7),), size)) == len(rows(size))
    for size in range(1, 8):
        assert len(batches((np.arange(7),), size, drop_last=True)) == len(rows(size, drop_last=True)) == 7 // size


def test_shuffled_order_depends_on_seed_and_epoch_alone():
    # The committed order: a change here changes every training run.
    assert rows(7, shuffle=True, seed=0) == [[0, 2, 1, 5, 4, 3, 6]]
    assert rows(7, shuffle=True, seed=0, epoch=1) == [[5, 3, 2, 4, 1, 0, 6]]
    assert flat(rows(2, shuffle=True, seed=0)) == [0, 2, 1, 5, 4, 3, 6]
    orders = {str(rows(7, shuffle=True, seed=s, epoch=e)) for s in range(4) for e in range(4)}
    assert len(orders) == 16


def test_shuffling_takes_every_row_once():
    assert sorted(flat(rows(2, shuffle=True, seed=3))) == list(range(7))
    assert sorted(flat(rows(2, shuffle=True))) == list(range(7))


def test_without_a_seed_each_order_is_new_but_stays():
    data = (np.arange(1000),)
    one, two = batches(data, 1000, shuffle=True), batches(data, 1000, shuffle=True)
    ((first,),), ((again,),), ((other,),) = one, one, two
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_arrays_stay_together():
    x, y = np.arange(20.0).reshape(10, 2), np.arange(10)
    for a, b in batches((x, y), 3, shuffle=True, seed=1):
        np.testing.assert_array_equal(a[:, 0], 2 * b)


def test_a_batch_is_a_copy():
    x = np.zeros((4, 2))
    ((batch,),) = batches((x,), 4)
    batch += 1
    assert not x.any()


def test_dtype_casts_floating_point_only():
    ((x, y, z),) = batches((np.ones(2), np.ones(2, np.int64), np.ones(2, bool)), 2, dtype="float32")
    assert [a.dtype for a in (x, y, z)] == [np.float32, np.int64, np.bool_]
    assert x.dtype == np.float32


def test_device():
    data = (np.arange(4.0), np.arange(4))
    for x, y in batches(data, 2, device="array_api_strict"):
        assert library(x) == library(y) == "array_api_strict"
    ((x, y),) = batches(data, 4, device="cpu")
    assert library(x) == "numpy"


def test_data_on_a_device_stay_there():
    data = (move(np.arange(4.0), "array_api_strict"), move(np.arange(4), "array_api_strict"))
    for x, y in batches(data, 2, shuffle=True, seed=0, dtype="float32"):
        assert device_of(x) == device_of(data[0])
        assert str(x.dtype).endswith("float32")
        np.testing.assert_array_equal(to_numpy(x), to_numpy(y))


def test_asking_for_cuda_that_is_not_there_fails_at_once(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(RuntimeError, match="CuPy is not installed"):
        batches((np.ones(2),), 1, device="cuda")


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        ((np.ones(3), np.ones(4), np.ones(3)), ValueError, "same length, got lengths 3, 4, 3"),
        ((np.ones((0, 2)),), ValueError, "data has no rows"),
        ((), TypeError, r"data must be a tuple of arrays with one example a row, got \(\)"),
        (([1, 2], np.ones(2)), TypeError, r"got \(list, ndarray\(2,\)\)"),
        ((np.float64(1),), TypeError, r"got \(float64\(\)\)"),
        (np.ones(2), TypeError, r"got one of shape \(2,\); write \(x,\)"),
        (
            (np.ones(3), np.array([0, 2, -1])),
            ValueError,
            r"data\[1\] is an integer array \(int64\) and holds -1 at \(2,\)",
        ),
    ],
)
def test_bad_data(data, error, message):
    with pytest.raises(error, match=message):
        batches(data, 2)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"batch_size": 8, "drop_last": True}, "drop_last=True would drop all 7 rows: batch_size is 8"),
        ({"batch_size": 2, "shuffle": True, "seed": -1}, "seed and epoch must be from 0 .* got seed=-1, epoch=0"),
        ({"batch_size": 2, "shuffle": True, "seed": 2**64}, "seed and epoch must be from 0"),
        ({"batch_size": 2, "shuffle": True, "seed": 0, "epoch": -1}, "got seed=0, epoch=-1"),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        batches((np.arange(7),), **kwargs)


def test_unsigned_and_boolean_arrays_are_taken():
    assert len(batches((np.zeros(3, np.uint8), np.zeros(3, bool)), 2)) == 2
