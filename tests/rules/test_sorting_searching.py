import numpy as np
import pytest

import gpubp as bp
from gpubp.namespace import twin
from gpubp.testing import check_grads

xp = twin("numpy")
X = np.array([[3.0, 1.0, 2.0], [0.5, 2.5, 1.5]])


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_a_sorted_value_hands_its_gradient_to_where_it_came_from(axis, descending):
    weights = np.arange(6.0).reshape(2, 3)
    found = bp.grad(lambda x: xp.sum(weights * xp.sort(x, axis=axis, descending=descending)))(X)
    order = np.argsort(X, axis=axis)
    expected = np.empty_like(X)
    np.put_along_axis(expected, np.flip(order, axis=axis) if descending else order, weights, axis=axis)
    np.testing.assert_array_equal(found, expected)


def test_equal_values_share_the_gradient_of_their_unique_value():
    x = np.array([2.0, 1.0, 2.0, 2.0])
    for name in ("unique_values", "unique_counts", "unique_inverse", "unique_all"):

        def f(x, name=name):
            out = getattr(xp, name)(x)
            values = out if name == "unique_values" else out.values
            return xp.sum(xp.sort(values) * np.array([5.0, 6.0]))

        np.testing.assert_array_equal(bp.grad(f)(x), [2, 5, 2, 2])


def test_the_values_of_unique_all_are_traced_its_indices_are_not():
    def f(x):
        out = xp.unique_all(x)
        assert [xp.isdtype(part.dtype, "integral") for part in out] == [False, True, True, True]
        return out.values[out.inverse_indices] ** 2

    check_grads(f, (X,))


@pytest.mark.parametrize("name", ["argsort", "argmax", "argmin", "nonzero", "count_nonzero", "all", "any"])
def test_indices_counts_and_truths_are_constants(name):
    def f(x):
        out = getattr(xp, name)(xp.astype(x > 1, xp.bool) if name in ("all", "any") else x)
        return xp.sum(x) + xp.sum(xp.astype(out[0] if name == "nonzero" else out, x.dtype))

    np.testing.assert_array_equal(bp.grad(f)(X), np.ones((2, 3)))


def test_searchsorted_and_isin_take_traced_arrays():
    def f(x):
        places = xp.searchsorted(xp.sort(x[0]), x[1])
        found = xp.isin(places, xp.asarray(np.array([0, 2])))
        return xp.sum(xp.where(found, x[1], 0.0))

    np.testing.assert_array_equal(bp.grad(f)(X), [[0, 0, 0], [1, 1, 0]])
