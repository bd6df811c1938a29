import numpy as np
import pytest

from gpubp.data import batches, npy, subset
from gpubp.device import device_of, move, to_numpy

X = np.arange(12.0).reshape(6, 2)
ROWS = np.array([5, 0, 2])


class Source:
    shape, ndim, dtype = X.shape, X.ndim, X.dtype

    def __len__(self):
        return len(X)

    def take(self, rows):
        return X[rows]


@pytest.mark.parametrize("where", ["numpy", "array_api_strict", "gpubp.testing.standin"])
def test_rows_of_an_array_in_memory(where):
    whole = move(X, where)
    part = subset(whole, ROWS)
    assert device_of(part) == device_of(whole)
    np.testing.assert_array_equal(to_numpy(part), X[ROWS])


def test_rows_of_what_is_not_in_memory(tmp_path):
    np.save(tmp_path / "x.npy", X)
    for whole in (Source(), npy(tmp_path / "x.npy")):
        part = subset(whole, ROWS)
        assert (len(part), part.shape, part.ndim, part.dtype) == (3, (3, 2), 2, np.float64)
        assert repr(part) == "Subset(shape=(3, 2), dtype=float64)"
        np.testing.assert_array_equal(part.take(np.array([2, 0, 0])), X[[2, 5, 5]])
        np.testing.assert_array_equal(subset(part, [1, 2]).take(np.arange(2)), X[[0, 2]])
        ((x, y),) = batches((part, subset(np.arange(6), ROWS)), 3)
        np.testing.assert_array_equal(x, X[ROWS])
        assert y.tolist() == ROWS.tolist()


@pytest.mark.parametrize("whole", [X, Source()])
def test_rows_that_are_none(whole):
    with pytest.raises(ValueError, match="rows must be from 0 to 5, got -1 to 2"):
        subset(whole, [2, -1])
    with pytest.raises(ValueError, match="rows must be from 0 to 5, got 6 to 6"):
        subset(whole, [6])
    with pytest.raises(TypeError, match=r"got an array of bool of shape \(6,\); np.flatnonzero\(rows\) are these"):
        subset(whole, X[:, 0] > 2)
    with pytest.raises(TypeError, match="rows must be the numbers of rows, got an array of float64"):
        subset(whole, [1.0])
