import sys

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import gpubp as bp
from gpubp import nn
from gpubp.data import batches, checks, npy
from gpubp.data.transforms import Compose, Crop, Flip, Noise, Normalize
from gpubp.device import device_of, library, move, to_numpy


def rows(*args, **kwargs):
    return [x.tolist() for (x,) in batches((np.arange(7),), *args, **kwargs)]


def flat(batches):
    return [row for batch in batches for row in batch]


def test_every_row_once_in_order():
    assert rows(3) == [[0, 1, 2], [3, 4, 5], [6]]
    assert rows(7) == rows(100) == [[0, 1, 2, 3, 4, 5, 6]]


def test_the_last_batch():
    assert rows(3, last="keep") == [[0, 1, 2], [3, 4, 5], [6]]
    assert rows(3, last="drop") == [[0, 1, 2], [3, 4, 5]]
    assert rows(3, last="pad") == [[0, 1, 2], [3, 4, 5], [6, 0, 1]]
    assert rows(7, last="drop") == rows(7, last="pad") == [list(range(7))]
    assert rows(16, last="pad") == [[*range(7), *range(7), 0, 1]]


def test_start():
    assert rows(3, start=1) == [[3, 4, 5], [6]]
    assert rows(3, start=3) == []
    assert len(batches((np.arange(7),), 3, start=1)) == 2
    assert batches((np.arange(7),), 3, start=1).start == 1


def test_rows_and_count():
    found = batches((np.arange(7) + 10,), 3, start=1, last="pad", shuffle=True, seed=4)
    assert [(found.rows(i) + 10).tolist() for i in (1, 2)] == [x.tolist() for (x,) in found]
    assert [found.count(i) for i in range(3)] == [3, 3, 1]
    for ask in found.rows, found.count:
        with pytest.raises(ValueError, match="a batch must be from 0 to 2, got 3: the epoch has 3 batches"):
            ask(3)


@given(
    n=st.integers(1, 40),
    size=st.integers(1, 50),
    last=st.sampled_from(["keep", "drop", "pad"]),
    shuffle=st.booleans(),
    seed=st.integers(0, 2**64 - 1),
    epoch=st.integers(0, 2**64 - 1),
    data=st.data(),
)
def test_an_epoch(n, size, last, shuffle, seed, epoch, data):
    assume(last != "drop" or size <= n)
    options = {"last": last, "shuffle": shuffle, "seed": seed, "epoch": epoch}
    whole = batches((np.arange(n),), size, **options)
    found = [x.tolist() for (x,) in whole]
    assert found == [whole.rows(i).tolist() for i in range(len(whole))]
    order = flat([x.tolist() for (x,) in batches((np.arange(n),), n, **options)])
    assert sorted(order) == list(range(n))  # each row once
    if last == "keep":
        assert flat(found) == order
        assert all(len(batch) == size for batch in found[:-1])
        assert 0 < len(found[-1]) <= size
    elif last == "drop":
        assert flat(found) == order[: n - n % size]
    else:
        assert all(len(batch) == size for batch in found)
        assert flat([batch[: whole.count(i)] for i, batch in enumerate(found)]) == order
        assert flat(found) == [order[i % n] for i in range(len(found) * size)]
    start = data.draw(st.integers(0, len(whole)))
    tail = batches((np.arange(n),), size, start=start, **options)
    assert [x.tolist() for (x,) in tail] == found[start:]
    assert len(tail) == len(found) - start


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
        ({"batch_size": 8, "last": "drop"}, "last='drop' would drop all 7 rows: batch_size is 8"),
        ({"batch_size": 2, "last": "skip"}, "last must be 'keep', 'drop' or 'pad', got 'skip'"),
        ({"batch_size": 2, "start": 5}, "start must be from 0 to 4, got 5: the epoch has 4 batches"),
        ({"batch_size": 2, "prefetch": -1}, "prefetch must be at least 0, got -1"),
        ({"batch_size": 2, "balance": 1}, "balance must be the labels or the place of an array in data, got 1"),
        (
            {"batch_size": 2, "balance": [1, 2]},
            r"balance wants one label a row, 7 of them, got an array of shape \(2,\)",
        ),
        (
            {"batch_size": 2, "balance": np.arange(7) / 2},
            "balance wants labels of classes, got an array with fractions",
        ),
        ({"batch_size": 2, "start": -1}, "start must be from 0 to 4, got -1"),
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


# -- classes equally often


@given(
    labels=st.lists(st.integers(0, 4), min_size=1, max_size=30),
    size=st.integers(1, 40),
    seed=st.integers(0, 99),
    shuffle=st.booleans(),
)
def test_balanced_classes(labels, size, seed, shuffle):
    y = np.array(labels)
    data, options = (np.arange(len(y)), y), {"shuffle": shuffle, "seed": seed}
    found = batches(data, size, balance=1, **options)
    rows = np.concatenate([x for x, _ in found])
    counts, most = np.bincount(y), np.bincount(y).max()
    np.testing.assert_array_equal(np.bincount(y[rows]), most * (counts > 0))
    times = np.bincount(rows, minlength=len(y))
    assert (times - most // counts[y]).min() >= 0  # no row is left out
    assert (times - most // counts[y]).max() <= 1
    again = np.concatenate([x for (x,) in batches(data[:1], len(rows), balance=y, **options)])
    np.testing.assert_array_equal(rows, again)
    start = seed % (len(found) + 1)
    tail = [x for x, _ in batches(data, size, balance=1, start=start, **options)]
    np.testing.assert_array_equal(np.concatenate([*tail, rows[:0]]), rows[start * size :])
    assert (np.diff(rows) >= 0).all() or shuffle


def test_balanced_epochs_repeat_other_rows():
    y = np.array([0] * 10 + [1] * 7)
    epochs = {str(batches((y,), 20, balance=0, seed=1, epoch=e).rows(0).tolist()) for e in range(8)}
    assert len(epochs) > 4


def test_labels_to_balance_may_be_text_a_column_or_a_source():
    x, y = np.arange(3), np.array([1, 0, 1])
    for labels in ["b", "a", "b"], y[:, None], y.astype("float32"), y.astype(bool), move(y, "array_api_strict"):
        assert batches((x,), 4, balance=labels).rows(0).tolist() == [0, 1, 1, 2]
    assert batches((x, Given(y, "int64")), 4, balance=1).rows(0).tolist() == [0, 1, 1, 2]


# -- files and sources


class Squares:
    """A source that makes its rows, and notes what it was asked for."""

    shape, ndim, dtype = (7, 2), 2, np.dtype("float64")

    def __init__(self):
        self.asked = []

    def __len__(self):
        return 7

    def take(self, rows):
        assert rows.dtype == np.int64
        self.asked += rows.tolist()
        return np.stack([rows, rows**2], axis=1).astype("float64")


class Given(Squares):
    """A source of what a test says."""

    def __init__(self, value, dtype="float64"):
        self.value, self.dtype = value, np.dtype(dtype)
        if isinstance(value, np.ndarray):
            self.shape, self.ndim = value.shape, value.ndim

    def __len__(self):
        return self.shape[0]

    def take(self, rows):
        return self.value[rows] if isinstance(self.value, np.ndarray) else self.value


def test_a_source_is_read_batch_by_batch():
    source = Squares()
    found = iter(batches((source, np.arange(7)), 3, shuffle=True, seed=0, dtype="float32"))
    assert source.asked == []
    x, y = next(found)
    assert source.asked == y.tolist() == [0, 2, 1]
    assert x.dtype == np.float32
    np.testing.assert_array_equal(x[:, 1], y**2)
    for x, y in found:
        np.testing.assert_array_equal(x[:, 1], y**2)


def test_a_source_moves_like_an_array():
    for x, y in batches((Squares(), np.arange(7)), 3, device="array_api_strict"):
        assert library(x) == library(y) == "array_api_strict"


@pytest.mark.parametrize("value", [None, [1, 2], np.float64(1)])
def test_what_a_source_gives_is_looked_at(value):
    with pytest.raises(ValueError, match=r"data\[1\], a Given, gave .* for 3 rows; an ndarray of shape \(3,"):
        next(iter(batches((np.arange(7), Given(value)), 3)))


def test_negative_indices_of_a_source_are_found_when_they_come():
    labels = np.zeros((7, 2), int)
    labels[4, 1] = -2
    found = iter(batches((Given(labels, "int64"),), 3))
    next(found)
    with pytest.raises(ValueError, match=r"data\[0\] is an integer array \(int64\) and holds -2 at \(4, 1\)"):
        next(found)


def test_a_mapped_file_is_read_batch_by_batch(tmp_path):
    file = np.memmap(tmp_path / "labels", dtype=np.int64, mode="w+", shape=(7,))
    file[:] = [0, 1, 2, 3, 4, -5, 6]
    found = iter(batches((file,), 3))
    ((first,), error) = next(found), r"data\[0\] is an integer array \(int64\) and holds -5 at \(5,\)"
    assert type(first) is np.ndarray
    first += 1
    assert file[0] == 0
    with pytest.raises(ValueError, match=error):
        next(found)


def test_a_source_alone_is_refused():
    with pytest.raises(TypeError, match=r"data must be a tuple of arrays, got one of shape \(7, 2\); write \(x,\)"):
        batches(Squares(), 2)


def test_a_net_learns_from_sources():
    net = nn.Sequential(nn.Dense(2, 1), seed=0)
    history = bp.fit(
        net,
        lambda net, x, y: bp.losses.mse(net(x), y),
        bp.optim.Adam(net, lr=0.1),
        (Squares(), Given(np.arange(7.0)[:, None])),
        epochs=3,
        metrics=(),
        progress=False,
    )
    assert history[-1]["loss"] < history[0]["loss"]


def test_checks_read_in_chunks(monkeypatch, tmp_path):
    monkeypatch.setattr(checks, "CHUNK", 40)
    file = np.memmap(tmp_path / "values", dtype=np.float64, mode="w+", shape=(7, 2))
    assert [(first, len(part)) for first, part in checks.chunks(file)] == [(0, 2), (2, 2), (4, 2), (6, 1)]
    assert [(first, part.tolist()) for first, part in checks.chunks(Squares())][-1] == (6, [[6, 36]])
    checks.check_finite(file, "inputs")
    file[5, 1] = np.nan
    with pytest.raises(ValueError, match=r"the inputs hold nan at \(5, 1\)"):
        checks.check_finite(file, "inputs")
    with pytest.raises(ValueError, match=r"holds -1 at \(6,\)"):
        checks.check_indices(np.array([0, 1, 2, 3, 4, 5, -1]), 0)


class Endless:
    """More rows than a list of their numbers fits into memory."""

    shape, ndim, dtype = (2**45, 1), 2, np.dtype("float64")

    def __len__(self):
        return self.shape[0]

    def take(self, rows):
        return rows[:, None].astype(float)


@pytest.mark.parametrize("last", ["keep", "pad"])
def test_more_rows_than_memory_has_numbers_for(last):
    source = Endless()
    found = batches((source,), 1000, last=last)
    assert len(found) == -(-(2**45) // 1000)
    (x,) = next(iter(batches((source,), 1000, start=len(found) - 1, last=last)))
    rest = [*range(2**45 - 2**45 % 1000, 2**45)]
    assert x[:, 0].tolist() == rest + [*range(1000 - len(rest))] * (last == "pad")


def test_files_of_another_byte_order(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(3, dtype=">f4"))
    ((x,),) = batches((npy(tmp_path / "x.npy"),), 3)
    assert x.dtype is np.dtype("float32")  # the very object, which kernels ask for
    assert x.tolist() == [0, 1, 2]


def test_a_mapped_file_may_be_removed(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(10.0))
    mapped = npy(tmp_path / "x.npy")
    (tmp_path / "x.npy").unlink()
    assert [batch.tolist() for (batch,) in batches((mapped,), 8)] == [[*range(8)], [8, 9]]


@pytest.mark.parametrize("prefetch", [0, 2])
@pytest.mark.parametrize("start", [1, 3])
def test_an_epoch_goes_on_as_it_was(start, prefetch):
    """Whatever is switched on: order, repeated classes, padding and what is drawn are those of the whole epoch."""
    rng = np.random.default_rng(0)
    data = rng.integers(0, 256, (23, 6, 6, 3)).astype("uint8"), np.arange(23) % 7 % 3
    transform = Compose(Crop(2), Flip(), Normalize.fit(data[0]), Noise(0.1))

    def epoch(**options):
        return list(
            batches(
                data, 8, shuffle=True, seed=3, epoch=2, last="pad", balance=1, transform=(transform, None), **options
            )
        )

    whole, rest = epoch(), epoch(start=start, prefetch=prefetch)
    assert len(whole) == 4
    for expected, got in zip(whole[start:], rest, strict=True):
        for a, b in zip(expected, got, strict=True):
            np.testing.assert_array_equal(a, b)
