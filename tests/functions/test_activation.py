import numpy as np
import pytest

import gpubp as bp
from gpubp import functions as F


def slope(f, at):
    return float(bp.grad(f)(np.asarray(at, dtype="float64")))


def test_published_values():
    x = np.array([-1.0, 0.0, 2.0])
    np.testing.assert_allclose(F.sigmoid(x), 1 / (1 + np.exp(-x)), rtol=1e-15)
    np.testing.assert_array_equal(F.relu(x), [0, 0, 2])
    np.testing.assert_array_equal(F.leaky_relu(x), [-0.01, 0, 2])
    np.testing.assert_array_equal(F.leaky_relu(x, slope=0.5), [-0.5, 0, 2])
    np.testing.assert_array_equal(F.tanh(x), np.tanh(x))
    assert F.identity(x) is x


@pytest.mark.parametrize("x", [np.zeros(()), np.zeros(3), np.zeros((2, 2))])
def test_the_kinks_have_the_stated_slope(x):
    ones = np.ones_like(x)
    for f, expected in [(F.relu, 0.0), (F.leaky_relu, 0.01), (F.sigmoid, 0.25), (F.tanh, 1.0)]:
        for derivative in (
            bp.vjp(f, x)[1](ones)[0],
            bp.vjp(f.reference if hasattr(f, "reference") else f, x)[1](ones)[0],
        ):
            np.testing.assert_allclose(derivative, expected * ones, rtol=1e-15)


def test_second_derivative_of_the_sigmoid_at_0_is_0():
    assert slope(bp.grad(F.sigmoid), 0.0) == pytest.approx(0.0, abs=1e-16)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("f", [F.sigmoid, F.sigmoid.reference])
def test_sigmoid_neither_overflows_nor_loses_its_small_values(f, dtype):
    x = np.array([-1e4, -80.0, 0.0, 80.0, 1e4], dtype=dtype)
    y = f(x)
    assert y.dtype == dtype
    np.testing.assert_allclose(y, [y[0], np.exp(-80.0), 0.5, 1, 1], rtol=1e-6)
    assert 0 <= y[0] < 1e-37


@pytest.mark.parametrize("f", [F.relu, F.relu.reference, F.leaky_relu, F.sigmoid, F.sigmoid.reference, F.softmax])
def test_not_a_number_stays(f):
    assert np.isnan(f(np.array([np.nan, 1.0]))[0])


def test_softmax_of_huge_values_is_finite():
    np.testing.assert_array_equal(F.softmax(np.array([1e30, 0.0])), [1.0, 0.0])


@pytest.mark.parametrize("f", [F.sigmoid, F.relu, F.leaky_relu, F.softmax])
def test_complex_arrays_have_no_order(f):
    with pytest.raises(TypeError, match="real arrays, got complex128"):
        f(np.ones(3, dtype=complex))


def test_the_input_is_left_alone():
    x = np.array([-1.0, 2.0])
    x.flags.writeable = False
    for f in (F.sigmoid, F.relu, F.leaky_relu, F.softmax, F.tanh):
        bp.vjp(f, x)[1](x)
    np.testing.assert_array_equal(x, [-1.0, 2.0])
