"""The twins: what they hold, constants, levels, and functions with no derivative."""

from __future__ import annotations

import sys

import array_api_compat.numpy
import numpy as np
import pytest

import gpubp as bp
import gpubp.numpy as twin
from gpubp.array import Array
from gpubp.namespace import Namespace
from gpubp.namespace import twin as make_twin

X = np.array([1.0, 2.0, 3.0])


def total(x):
    return bp.array_namespace(x).sum(x)


def test_a_twin_is_a_module():
    import gpubp.array_api_strict as strict

    assert sys.modules["gpubp.numpy"] is twin is bp.numpy is make_twin("numpy")
    assert isinstance(twin, Namespace)
    assert (twin.__name__, strict.__name__, twin.linalg.__name__) == (
        "gpubp.numpy",
        "gpubp.array_api_strict",
        "gpubp.numpy.linalg",
    )
    assert twin.raw.__name__ == array_api_compat.numpy.__name__
    assert twin.pi == np.pi
    assert twin.float32 is np.float32
    assert {"exp", "sum", "concat"} <= set(dir(twin))
    assert {"inv", "svd"} <= set(dir(twin.linalg))


def test_what_is_not_in_the_standard_is_not_in_the_twin():
    with pytest.raises(AttributeError, match=r"gpubp.numpy has no function 'einsum': it is not in the Array API"):
        twin.einsum  # noqa: B018


def test_plain_arrays_are_only_computed_with():
    assert type(twin.exp(X)) is np.ndarray
    assert type(twin.sum(X)) is np.float64
    assert type(twin.add(X, 1.0)) is np.ndarray


def test_creation_gives_constants_that_meet_any_level():
    zeros = twin.zeros(3)
    assert isinstance(zeros, Array)
    assert zeros.node is None
    np.testing.assert_array_equal(np.asarray(zeros), np.zeros(3))
    assert isinstance(zeros + 1, Array)
    np.testing.assert_array_equal(bp.grad(lambda x: total((x + zeros) * twin.full(3, 2.0)))(X), np.full(3, 2.0))
    np.testing.assert_array_equal(bp.hessian(lambda x: total(x * x * twin.ones(3)))(X), 2 * np.eye(3))
    assert isinstance(bp.constant(X), Array)
    assert bp.constant(X).node is None


def test_zero_derivatives_give_constants():
    def f(x):
        sign = twin.floor(x)
        assert sign.node is None
        assert (x > 1.5).node is None
        return total(x * sign) + total(twin.astype(x > 1.5, twin.float64) * x)

    np.testing.assert_array_equal(bp.grad(f)(X), [1, 3, 4])


def test_a_missing_derivative_is_an_error_only_when_asked_for():
    def f(x):
        return total(twin.nextafter(x, 2 * x))

    assert bp.vjp(f, X)[0] == pytest.approx(6.0)
    with pytest.raises(NotImplementedError, match=rf"nextafter has no derivative: .*{__file__}:\d+\); apply"):
        bp.grad(f)(X)
    assert bp.grad(lambda x: total(x) + total(twin.nextafter(bp.stop_gradient(x), X)))(X).tolist() == [1, 1, 1]


def test_dtypes_promote_and_gradients_return_to_each():
    x, y = np.ones(3, dtype=np.float32), np.ones((2, 3))
    dx, dy = bp.grad(lambda x, y: total(x * y + x), (0, 1))(x, y)
    assert (dx.dtype, dx.shape, dy.dtype, dy.shape) == (np.float32, (3,), np.float64, (2, 3))
    z = bp.grad(lambda x: total(twin.real(x * 1j * x)))(X)
    assert z.dtype == np.float64


def test_a_record_keeps_only_what_its_rule_reads():
    def kept(f):
        tape = []

        def traced(x):
            out = f(x)
            tape.append(out.tape.records[-1][2])
            return total(out)

        bp.grad(traced)(X)
        return [v is not None for v in tape[0]]

    assert kept(lambda x: twin.exp(x)) == [True, False]
    assert kept(lambda x: twin.sin(x)) == [False, True]
    assert kept(lambda x: x + X) == [False, False, False]
    assert kept(lambda x: x * X) == [False, False, True]  # X itself, since x alone is differentiated
    assert kept(lambda x: X * x) == [False, True, False]
    assert kept(lambda x: x * x) == [False, True, True]


def test_array_namespace():
    assert bp.array_namespace(X, None, 1.0) is twin.raw
    seen = []
    bp.grad(lambda x: (seen.append(bp.array_namespace(X, x)), total(x))[1])(X)
    assert seen == [twin]


def test_functions_of_linalg_take_any_mixture_of_values():
    m = np.array([[1.0, 2.0], [3.0, 4.0]])

    def product(x, y):
        xp = bp.array_namespace(x, y)
        return xp.sum(xp.linalg.matmul(x, y))

    expected = np.ones((2, 2)) @ m.T
    np.testing.assert_array_equal(bp.grad(lambda x: product(x, m))(m), expected)  # a plain array
    np.testing.assert_array_equal(bp.grad(product)(m, m), expected)  # a constant
    nested = bp.grad(lambda x: bp.array_namespace(x).sum(bp.grad(product)(m, x)))
    np.testing.assert_array_equal(nested(m), 2 * np.ones((2, 2)))  # two levels


def test_a_traced_keyword_argument_is_not_detached_silently():
    for f in (lambda c: bp.array_namespace(c).var(c * np.arange(3.0), correction=c), _norm_of_any_order):
        with pytest.raises(TypeError, match="has no derivative with respect to (correction|ord), which was given"):
            bp.grad(f)(2.0)
    assert bp.grad(lambda c: _norm_of_any_order(c, bp.stop_gradient(c)))(2.0) == 5.0


def _norm_of_any_order(c, order=None):
    xp = bp.array_namespace(c)
    return xp.linalg.vector_norm(c * np.array([3.0, 4.0]), ord=c if order is None else order)


@pytest.mark.parametrize("exponent", [np.bool_(True), np.array([True, True]), np.array([1, 2], np.int16)])
def test_the_gradient_of_a_power_keeps_the_dtype_of_its_base(exponent):
    x = np.array([2.0, 3.0], np.float32)
    gradient = bp.grad(lambda x: bp.array_namespace(x).sum(x**exponent))(x)
    assert gradient.dtype == np.float32
    np.testing.assert_array_equal(gradient, exponent * x ** (np.asarray(exponent, int) - 1))
