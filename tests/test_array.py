"""`Array`: operators, items, what the host may see, and what nothing may do silently."""

from __future__ import annotations

import copy
import operator
import pickle

import numpy as np
import pytest

import gpubp as bp
import gpubp.numpy as twin
from gpubp.array import Array
from gpubp.device import namespace_by_name

X = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])


def total(x):
    return bp.array_namespace(x).sum(x)


def inside(f, x=X):
    """What `f` returns of a traced `x`, seen from inside the transform."""
    seen = []
    bp.vjp(lambda x: (seen.append(f(x)), total(x))[1], x)
    return seen[0]


BINARY = ("add", "sub", "mul", "truediv", "pow", "floordiv", "mod", "lt", "le", "gt", "ge", "eq", "ne")


@pytest.mark.parametrize("name", BINARY)
@pytest.mark.parametrize("other", [2.0, 3, X + 1, np.array(2.0)], ids=["float", "int", "array", "0-d"])
def test_operators_give_the_plain_values(name, other):
    op = getattr(operator, name)
    np.testing.assert_array_equal(bp.vjp(lambda x: op(x, other), X)[0], op(X, other))
    np.testing.assert_array_equal(bp.vjp(lambda x: op(other, x), X)[0], op(other, X))


def test_divmod():
    for plain, traced in ((divmod(X, 2.0), lambda x: divmod(x, 2.0)), (divmod(7.0, X), lambda x: divmod(7.0, x))):
        for expected, found in zip(plain, bp.vjp(traced, X)[0], strict=True):
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", ["and_", "or_", "xor", "lshift", "rshift"])
def test_bitwise_operators_of_integers(name):
    op, i = getattr(operator, name), np.array([1, 2, 3])
    plain = twin.asarray(i)
    np.testing.assert_array_equal(op(plain, 2), op(i, 2))
    np.testing.assert_array_equal(op(2, plain), op(2, i))
    np.testing.assert_array_equal(~plain, ~i)


def test_unary_operators_and_attributes():
    for op in (operator.neg, operator.pos, operator.abs):
        np.testing.assert_array_equal(bp.vjp(op, -X)[0], op(-X))

    def check(x):
        assert (x.shape, x.ndim, x.size, x.dtype, len(x)) == ((2, 3), 2, 6, np.float64, 2)
        assert x.device == "cpu"
        assert x.mT.shape == x.T.shape == (3, 2)
        assert x.__array_namespace__() is twin
        assert "level=" in repr(x)
        return [row.shape for row in x]

    assert inside(check) == [(3,), (3,)]


def test_matmul_on_both_sides():
    np.testing.assert_array_equal(bp.grad(lambda x: total(x @ np.ones((3, 2))))(X), np.full((2, 3), 2.0))
    np.testing.assert_array_equal(bp.grad(lambda x: total(np.ones((4, 2)) @ x))(X), np.full((2, 3), 4.0))


def test_control_flow_may_look_at_values():
    assert inside(lambda x: (bool(x[0, 0] > 0), int(x[0, 1]), [10, 20, 30][twin.argmax(x[0])])) == (True, 2, 30)
    value, gradient = bp.value_and_grad(lambda x: x * x if x > 0 else -x)(-3.0)
    assert (value, gradient) == (3.0, -1.0)


@pytest.mark.parametrize(
    "convert",
    [float, complex, np.asarray, lambda x: np.array([x]), lambda x: x.item(), lambda x: x.tolist(), np.from_dlpack],
    ids=["float", "complex", "asarray", "array", "item", "tolist", "dlpack"],
)
def test_nothing_detaches_silently(convert):
    with pytest.raises(TypeError, match=r"would lose its gradient; apply gpubp\.stop_gradient"):
        bp.grad(lambda x: (convert(x), x)[1])(2.0)
    inside(lambda x: convert(bp.stop_gradient(x)), np.array(2.0))


def test_a_plain_array_does_not_take_a_traced_value():
    def assign(x):
        np.zeros(3)[:] = x[0]

    def add(x):
        y = np.zeros((2, 3))
        y += x

    def out(x):
        np.add(x, x, out=np.zeros((2, 3)))

    for f, advice in ((assign, "stop_gradient"), (add, "x = x"), (out, "x = x")):
        with pytest.raises(TypeError, match=advice):
            bp.grad(f)(X)


def test_boxes_are_copied_not_pickled():
    def check(x):
        y, z = copy.copy(x), copy.deepcopy(x)
        x[0, 0] = 100.0
        assert float(bp.stop_gradient(y[0, 0])) == float(bp.stop_gradient(z[0, 0])) == 1.0
        with pytest.raises(TypeError, match="cannot be pickled"):
            pickle.dumps(x)

    inside(check)


def test_item_assignment_is_differentiable_in_both():
    def f(x, v):
        y = x * 1
        row = y[0]
        y[0] = v
        return total(y * y) + total(row)

    dx, dv = bp.grad(f, (0, 1))(X, np.array([7.0, 8.0, 9.0]))
    np.testing.assert_array_equal(dx, [[1, 1, 1], [8, 10, 12]])
    np.testing.assert_array_equal(dv, [14, 16, 18])
    hessian = bp.hessian(f, argnums=1)(X, X[0])
    np.testing.assert_array_equal(hessian, 2 * np.eye(3))


def test_item_assignment_of_a_broadcast_scalar_and_in_place_arithmetic():
    def f(x, v):
        x[:, 1] = v
        x[0] += x[1]
        x *= 2
        return total(x)

    dx, dv = bp.grad(f, (0, 1))(X, 3.0)
    np.testing.assert_array_equal(dx, [[2, 0, 2], [4, 0, 4]])
    assert dv == 6


@pytest.mark.parametrize("library", ["numpy", "array_api_strict", "torch", "jax"])
def test_in_place_operators_change_what_they_change_in_plain_arrays(library):
    if library != "numpy":
        pytest.importorskip(library)
    xp = namespace_by_name(library)

    def f(x):
        y = x * 1.0
        z = y
        z += 1
        z *= z
        whole = bp.array_namespace(y).sum(y * z)
        same = whole
        same -= 1.0
        return whole + same

    x = X[0]
    value, gradient = bp.value_and_grad(f)(xp.asarray(x))
    assert float(value) == float(f(xp.asarray(x)))
    expected = 2 * (x + 1) ** 2 + 4 * x * (x + 1) if library == "jax" else 8 * (x + 1) ** 3
    np.testing.assert_allclose(np.asarray(gradient), expected)


def test_in_place_operators_keep_shape_and_dtype():
    def f(x):
        x += np.ones(3)
        assert x.dtype == np.float32
        return total(x * x)

    gradient = bp.grad(f)(X[0].astype(np.float32))
    assert gradient.dtype == np.float32
    np.testing.assert_allclose(gradient, 2 * (X[0] + 1), rtol=1e-6)
    with pytest.raises(ValueError, match=r"__iadd__ would change the shape .*\(3,\) to \(2, 3\)"):
        bp.grad(lambda x: total(operator.iadd(x, X)))(X[0])
    with pytest.raises(TypeError, match="__imul__ would change the dtype .*float64 to complex128"):
        bp.grad(lambda x: total(operator.imul(x, 1j)))(X[0])


def test_a_traced_value_assigned_into_a_constant_becomes_traced():
    def f(x):
        y = twin.zeros(3)
        for k in range(3):
            y[k] = x[0, k] * x[1, k]
        return total(y * y)

    np.testing.assert_array_equal(bp.grad(f)(X)[0], 2 * X[0] * X[1] ** 2)


def test_iteration_and_length_of_a_scalar():
    for f in (len, list):
        with pytest.raises(TypeError, match="0-d array"):
            inside(lambda x, f=f: f(x[0, 0]))


def test_arrays_are_not_hashable():
    with pytest.raises(TypeError, match="unhashable"):
        inside(lambda x: {x})
    assert isinstance(inside(lambda x: x), Array)


def test_a_python_number_does_not_change_under_another_name():
    def f(x):
        y = x
        y += 1
        return x * y

    assert bp.value_and_grad(f)(3.0) == (f(3.0), 7.0)
