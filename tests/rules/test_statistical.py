import numpy as np
import pytest

import gpubp as bp
from gpubp.namespace import twin
from gpubp.testing import check_grads

xp = twin("numpy")
AXES = [None, 0, 1, -1, (0, 1), (0, 2), (-1, 0, 1)]


def gradient(f, x):
    return bp.grad(lambda x: xp.sum(f(x)))(x)


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("name", ["max", "min"])
def test_ties_share_the_gradient_evenly(name, axis, keepdims):
    x = np.random.default_rng(0).integers(0, 3, size=(3, 2, 4)).astype(np.float64)
    extremum = getattr(np, name)(x, axis=axis, keepdims=True)
    expected = (x == extremum) / np.sum(x == extremum, axis=axis, keepdims=True)
    found = gradient(lambda x: getattr(xp, name)(x, axis=axis, keepdims=keepdims), x)
    np.testing.assert_allclose(found, expected, rtol=1e-15)


@pytest.mark.filterwarnings("error")
def test_the_maximum_of_nan_has_no_gradient_and_no_warning():
    np.testing.assert_array_equal(
        gradient(lambda x: xp.max(x, axis=1), np.array([[1.0, np.nan], [1.0, 2.0]])), [[0, 0], [0, 1]]
    )


@pytest.mark.parametrize("zeros", [0, 1, 2, 5])
def test_products_with_zeros_to_the_third_order(zeros):
    x = np.array([1.5, -2.0, 0.7, 1.2, -0.4])
    x[:zeros] = 0.0
    expected = [np.prod(np.delete(x, k)) for k in range(5)]
    np.testing.assert_allclose(bp.grad(xp.prod)(x), expected, rtol=1e-14)
    second = [[0.0 if i == j else np.prod(np.delete(x, [i, j])) for j in range(5)] for i in range(5)]
    np.testing.assert_allclose(bp.hessian(xp.prod)(x), second, rtol=1e-14)
    check_grads(xp.prod, (x,), order=3)
    check_grads(lambda x: xp.cumulative_prod(x, include_initial=True), (x,), order=3)


@pytest.mark.parametrize("n", range(9))
def test_products_of_every_length(n):
    x = np.random.default_rng(n).normal(size=(n, 2))
    np.testing.assert_allclose(
        gradient(lambda x: xp.prod(x, axis=0), x), [np.prod(np.delete(x, k, 0), 0) for k in range(n)] or x
    )
    if n:
        check_grads(lambda x: xp.cumulative_prod(x, axis=0), (x,))


@pytest.mark.filterwarnings("error")
def test_the_spread_of_equal_values_has_the_gradient_zero():
    np.testing.assert_array_equal(gradient(xp.std, np.ones(3)), np.zeros(3))
    np.testing.assert_array_equal(
        gradient(lambda x: xp.std(x, axis=1, correction=1), np.ones((2, 3))), np.zeros((2, 3))
    )


@pytest.mark.parametrize("name", ["sum", "prod", "mean", "var", "std"])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_reductions_of_nothing_have_an_empty_gradient(name):
    assert bp.grad(getattr(xp, name))(np.zeros((0, 2))).shape == (0, 2)
    assert gradient(lambda x: getattr(xp, name)(x, axis=0), np.zeros((0, 2))).shape == (0, 2)


@pytest.mark.parametrize("name", ["sum", "prod", "cumulative_sum", "cumulative_prod"])
def test_the_dtype_of_a_result_may_differ_from_that_of_its_gradient(name):
    x = np.array([0.5, 2.0], dtype=np.float32)
    for dtype in (np.float64, np.complex128):
        found = gradient(lambda x: xp.real(getattr(xp, name)(x, dtype=dtype).astype(np.complex128)), x)  # noqa: B023
        assert found.dtype == np.float32
    y = np.array([3.0, 2.0])
    assert not gradient(lambda x: xp.astype(getattr(xp, name)(x, dtype=np.int64), np.float64) + 0 * x, y).any()


def test_reductions_of_integers_are_constants():
    value, pullback = bp.vjp(lambda x: x * xp.sum(xp.asarray(np.array([1, 2]))), 2.0)
    assert value == 6
    assert pullback(1.0)[0] == 3


def test_variance_of_complex_numbers():
    z = np.random.default_rng(1).normal(size=(3, 2)) + 1j * np.random.default_rng(2).normal(size=(3, 2))
    check_grads(lambda z: xp.var(z, axis=0, correction=1), (z,))
    check_grads(xp.std, (z,))
