"""Transforms: structure of gradients, nesting, recomputation, memory, and the errors a user can cause."""

from __future__ import annotations

import gc
import itertools
import threading
import tracemalloc
from typing import NamedTuple

import numpy as np
import pytest

import gpubp as bp
from gpubp.array import Array
from gpubp.tree import Node, leaves

X = np.array([1.0, 2.0, 3.0])


def total(x):
    return bp.array_namespace(x).sum(x)


# -- values and structures


def test_value_and_gradient_are_plain_arrays():
    value, gradient = bp.value_and_grad(lambda x: total(x * x))(X)
    assert not isinstance(value, Array)
    assert value == 14.0
    assert type(gradient) is np.ndarray
    np.testing.assert_array_equal(gradient, 2 * X)


def test_gradients_have_the_structure_of_the_argument():
    class Point(NamedTuple):
        a: object
        b: object

    tree = {"w": [X, (X, 2.0)], "p": Point(X, None), "name": "net", "n": 3}
    gradient = bp.grad(lambda t: total(t["w"][0] * t["w"][1][0] * t["w"][1][1] + t["p"].a))(tree)
    np.testing.assert_array_equal(gradient["w"][0], 2 * X)
    assert gradient["w"][1][1] == total(X * X)
    assert isinstance(gradient["p"], Point)
    np.testing.assert_array_equal(gradient["p"].a, np.ones(3))
    assert gradient["p"].b is None
    assert (gradient["name"], gradient["n"]) == ("net", 3)


def test_argnums_and_aux():
    def f(x, y):
        return total(x * y), {"sum": x + y, "plain": X}

    (value, aux), (dx, dy) = bp.value_and_grad(f, argnums=(0, 1), has_aux=True)(X, 2 * X)
    assert value == 28.0
    np.testing.assert_array_equal(aux["sum"], 3 * X)
    assert type(aux["sum"]) is np.ndarray
    assert aux["plain"] is X
    np.testing.assert_array_equal(dx, 2 * X)
    np.testing.assert_array_equal(dy, X)
    dy, aux = bp.grad(f, argnums=-1, has_aux=True)(X, 2 * X)
    np.testing.assert_array_equal(dy, X)


def test_python_numbers_are_float64_arrays_and_integers_have_no_gradient():
    assert bp.grad(lambda x: x**3)(2.0) == 12.0
    gradient = bp.grad(lambda t: total(t[0] * t[1]))([X, np.arange(3)])
    np.testing.assert_array_equal(gradient[0], np.arange(3))
    assert gradient[1] is None


def test_a_python_number_becomes_an_array_of_the_others_library():
    strict = pytest.importorskip("array_api_strict")
    for arguments in ((2.0, strict.ones(3)), (strict.ones(3), 2.0)):
        gradients = bp.grad(lambda x, y: total(x * y), (0, 1))(*arguments)
        assert {type(g) for g in gradients} == {type(strict.ones(3))}


def test_unused_and_constant_arguments_have_zero_gradients():
    gradient = bp.grad(lambda t: total(t[0]))([X, X.astype(np.float32)])
    np.testing.assert_array_equal(gradient[1], np.zeros(3))
    assert gradient[1].dtype == np.float32
    np.testing.assert_array_equal(bp.grad(lambda x: 3.0)(X), np.zeros(3))


def test_the_same_array_twice_is_two_arguments():
    dx, dy = bp.grad(lambda x, y: total(x * x * y), argnums=(0, 1))(X, X)
    np.testing.assert_array_equal(dx, 2 * X * X)
    np.testing.assert_array_equal(dy, X * X)
    pair = bp.grad(lambda t: total(t[0] * t[0] * t[1]))((X, X))
    np.testing.assert_array_equal(pair[1], X * X)


class Layer(Node):
    def __init__(self, w, tied=None):
        self.w, self.tied, self.scale = w, tied, 2.0


def test_an_array_tied_within_a_layer_has_one_summed_gradient():
    net = Layer(X, {"again": X})
    gradient = bp.grad(lambda net: total(net.w * net.w * net.tied["again"]))(net)
    assert isinstance(gradient, Layer)
    assert gradient is not net
    np.testing.assert_array_equal(gradient.w, 3 * X * X)
    assert gradient.tied["again"] is gradient.w
    assert gradient.scale == 2.0
    assert net.w is X


def test_an_array_tied_within_a_layer_has_one_direction():
    def cube(net):
        return total(net.w * net.w * net.tied)

    v = np.array([0.5, -1.0, 2.0])
    net, along = Layer(X, X), Layer(v, v)
    assert bp.jvp(cube, (net,), (along,))[1] == total(3 * X * X * v)
    found = bp.hvp(cube, (net,), (along,))[0]
    np.testing.assert_allclose(found.w, 6 * X * v)
    np.testing.assert_allclose(found.tied, 6 * X * v)
    separate = bp.jvp(lambda pair: total(pair[0] * pair[1]), ([X, X],), ([v, 2 * v],))[1]
    assert separate == total(3 * X * v)


def test_a_direction_may_leave_arguments_out():
    v = np.array([0.5, -1.0, 2.0])
    k = np.arange(3)

    def f(x, y, k):
        return total(x * x * y * k)

    assert bp.jvp(f, (X, X, k), (None, v, None))[1] == total(X * X * v * k)
    dx, dy, dk = bp.hvp(f, (X, X, k), (v, None, k))
    np.testing.assert_allclose(dx, 2 * X * v * k)
    np.testing.assert_allclose(dy, 2 * X * v * k)
    assert dk is None


def test_an_array_tied_across_the_nets_of_one_argument_is_one_input():
    pair = (Layer(X), Layer(X))
    gradient = bp.grad(lambda pair: total(pair[0].w * pair[0].w * pair[1].w))(pair)
    np.testing.assert_array_equal(gradient[1].w, 3 * X * X)


def test_a_layer_keeps_its_plain_arrays_after_an_exception():
    net = Layer(X)

    def fails(net):
        total(net.w)
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        bp.grad(fails)(net)
    assert net.w is X
    np.testing.assert_array_equal(bp.grad(lambda net: total(net.w))(net).w, np.ones(3))


def test_inputs_are_never_mutated_and_may_be_read_only_or_strided():
    x = np.arange(12.0).reshape(3, 4)[::2, ::2]
    x.flags.writeable = False

    def f(x):
        x[0, 0] = 5.0
        x *= 2
        return total(x * x)

    gradient = bp.grad(f)(x)
    np.testing.assert_array_equal(gradient, [[0, 16], [64, 80]])
    np.testing.assert_array_equal(x, [[0, 2], [8, 10]])


# -- nesting


def test_perturbations_are_not_confused():
    assert bp.grad(lambda x: x * bp.grad(lambda y: x + y)(1.0))(1.0) == 1.0
    assert bp.grad(lambda x: x * bp.grad(lambda y: x * y)(2.0))(3.0) == 6.0
    # Siskind and Pearlmutter (2005): d/dx (x * d/dy (x + y) at y=x) at 1 is 1, not 2
    assert bp.grad(lambda x: x * bp.jvp(lambda y: x + y, (x,), (1.0,))[1])(1.0) == 1.0
    assert bp.jvp(lambda x: x * bp.grad(lambda y: x * y * y)(x), (2.0,), (1.0,))[1] == 24.0


def test_derivatives_of_any_order():
    f, x = (lambda x: x**5), 2.0
    for expected in (80.0, 160.0, 240.0, 240.0, 120.0, 0.0):
        f = bp.grad(f)
        assert f(x) == pytest.approx(expected)


def test_a_value_of_an_outer_transform_is_a_constant_to_the_inner_one():
    def outer(x):
        inner = bp.grad(lambda y: total(x * y * y))
        return total(inner(x) * X)

    np.testing.assert_allclose(bp.grad(outer)(X), 4 * X * X)


def test_item_assignment_after_capture_does_not_change_what_an_inner_transform_saw():
    def outer(x):
        _, pullback = bp.vjp(lambda y: y * x, X)
        x[0] = 100.0
        return total(pullback(np.ones(3))[0])

    np.testing.assert_array_equal(bp.grad(outer)(X), np.ones(3))


def test_jacobian_hessian_hvp_jvp_agree():
    def f(x):
        return x * total(x * x)

    jacobian = bp.jacobian(f)(X)
    np.testing.assert_allclose(jacobian, 14 * np.eye(3) + 2 * np.outer(X, X))
    v = np.array([0.5, -1.0, 2.0])
    np.testing.assert_allclose(bp.jvp(f, (X,), (v,))[1], jacobian @ v)
    np.testing.assert_allclose(bp.vjp(f, X)[1](v)[0], v @ jacobian)

    def cube(x):
        return total(x**3)

    np.testing.assert_allclose(bp.hessian(cube)(X), np.diag(6 * X))
    np.testing.assert_allclose(bp.hvp(cube, (X,), (v,))[0], 6 * X * v)
    np.testing.assert_allclose(bp.jvp(bp.grad(cube), (X,), (v,))[1], 6 * X * v)
    np.testing.assert_allclose(bp.grad(lambda x: total(bp.hessian(cube)(x)))(X), 6 * np.ones(3))


def test_jacobian_of_trees():
    def f(t, y):
        return {"a": t["x"] * y, "b": total(t["x"])}

    found = bp.jacobian(f, argnums=(0, 1))({"x": X, "n": np.arange(2)}, 2 * X)
    np.testing.assert_array_equal(found["a"][0]["x"], np.diag(2 * X))
    np.testing.assert_array_equal(found["a"][1], np.diag(X))
    np.testing.assert_array_equal(found["b"][0]["x"], np.ones(3))
    np.testing.assert_array_equal(found["b"][1], np.zeros(3))
    assert found["a"][0]["n"] is None
    assert bp.jacobian(lambda x: x)(np.zeros((0,))).shape == (0, 0)


def test_a_pullback_may_be_called_again():
    value, pullback = bp.vjp(lambda x, y: (x * y, x), X, 2 * X)
    for _ in range(2):
        dx, dy = pullback((X, np.ones(3)))
        np.testing.assert_array_equal(dx, 2 * X * X + 1)
        np.testing.assert_array_equal(dy, X * X)
    assert all(type(v) is np.ndarray for v in value)


def test_a_cotangent_is_cast_to_the_dtype_of_the_value():
    x = X.astype(np.float32)
    for pullback, cotangent in ((bp.vjp(total, x)[1], 1.0), (bp.vjp(lambda x: x * x, x)[1], np.ones(3, int))):
        assert pullback(cotangent)[0].dtype == np.float32
    assert bp.jvp(lambda x: x * x, (x,), (X,))[1].dtype == np.float32
    with pytest.raises(TypeError, match="a cotangent of complex128 for a value of float64"):
        bp.vjp(lambda x: x * x, X)[1](X * 1j)


def test_jacobian_of_no_array_is_an_error():
    with pytest.raises(TypeError, match="jacobian expects <lambda> to return arrays, got float"):
        bp.jacobian(lambda x: 3.0)(X)


def test_stop_gradient():
    np.testing.assert_array_equal(bp.grad(lambda x: total(x * bp.stop_gradient(x)))(X), X)
    assert bp.stop_gradient(X) is X
    second = bp.grad(lambda x: total(bp.grad(lambda y: total(y * y * bp.stop_gradient(y)))(x)))
    np.testing.assert_array_equal(second(X), 2 * X)


# -- checkpoint


def _block(x, w):
    for _ in range(3):
        x = bp.array_namespace(x).tanh(x * w)
    return x


def test_checkpoint_changes_no_derivative():
    def loss(block):
        return lambda x, w: total(block(block(x, w), w) * x)

    plain, saving = loss(_block), loss(bp.checkpoint(_block))
    both = (0, 1)
    np.testing.assert_array_equal(bp.grad(saving, both)(X, 2 * X), bp.grad(plain, both)(X, 2 * X))
    np.testing.assert_allclose(bp.hessian(saving)(X, 2 * X), bp.hessian(plain)(X, 2 * X), rtol=1e-13)
    nested = loss(bp.checkpoint(lambda x, w: bp.checkpoint(_block)(x, w) + x))
    expected = loss(lambda x, w: _block(x, w) + x)
    np.testing.assert_array_equal(bp.grad(nested)(X, X), bp.grad(expected)(X, X))
    _, pullback = bp.vjp(saving, X, X)
    np.testing.assert_array_equal(pullback(1.0), pullback(1.0))
    assert type(bp.checkpoint(_block)(X, X)) is np.ndarray


def test_checkpoint_differentiates_closures_and_several_results():
    def f(x):
        inner = bp.checkpoint(lambda y: {"a": y * x, "b": (total(y * y * x), y)})
        out = inner(x * 2)
        return total(out["a"]) + out["b"][0] + total(out["b"][1])

    np.testing.assert_allclose(bp.grad(f)(X), 4 * X + 12 * X * X + 2)


def _same_with_and_without_checkpoint(loss):
    np.testing.assert_array_equal(bp.grad(loss(bp.checkpoint))(X), bp.grad(loss(lambda f: f))(X))


def test_checkpoint_remembers_captured_variables():
    def of_a_loop(wrap):
        def f(x):
            for w in (2.0, 3.0):
                x = wrap(lambda z: w * z * z)(x)  # noqa: B023
            return total(x)

        return f

    def with_later_assignment(wrap):
        def f(w):
            h = w * 2
            y = wrap(lambda z: z * h)(w)
            h[0] = 0.0
            return total(y) + total(h)

        return f

    def of_a_later_transform(wrap):
        return lambda w: total(bp.grad(lambda x: total(wrap(lambda w: w * w * x * x)(w)))(X))

    for loss in (of_a_loop, with_later_assignment, of_a_later_transform):
        _same_with_and_without_checkpoint(loss)


def test_a_checkpointed_function_may_assign_to_its_arguments():
    def squares(x):
        x[0] = x[0] * x[0]
        return x * x

    _, pullback = bp.vjp(lambda x: bp.checkpoint(squares)(x * 1.0), X)
    for _ in range(2):
        np.testing.assert_array_equal(pullback(np.ones(3))[0], [4 * X[0] ** 3, 2 * X[1], 2 * X[2]])


def test_checkpoint_refuses_a_value_that_escapes():
    escaped = []

    def f(x):
        y = bp.checkpoint(lambda x: (escaped.append(x * x), x * 3)[1])(x)
        return total(y * escaped[0])

    with pytest.raises(RuntimeError, match="inside gpubp.checkpoint was used outside"):
        bp.grad(f)(X)


def test_checkpoint_lowers_the_peak():
    x = np.ones(100_000)

    def peak(block):
        def loss(x):
            for _ in range(8):
                x = block(x)
            return total(x)

        tracemalloc.start()
        bp.grad(loss)(x)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    def block(x):
        for _ in range(8):
            x = bp.array_namespace(x).sin(x)
        return x

    assert peak(bp.checkpoint(block)) < 0.4 * peak(block)


# -- deep graphs and memory


def test_a_chain_of_100_000_operations():
    def chain(x):
        y = x
        for _ in range(100_000):
            y = y + x
        return y

    assert bp.grad(chain)(1.0) == 100_001
    assert bp.grad(bp.grad(lambda x: chain(x) * x))(1.0) == 200_002


def test_reference_counting_alone_frees_a_graph():
    def f(x):
        for _ in range(5):
            x = bp.array_namespace(x).exp(x * 0.1)
        x[0] = x[1]
        return total(x * x)

    x = np.ones(10)
    transforms = (
        bp.grad(f),
        bp.hessian(f),
        lambda x: bp.vjp(f, x),
        lambda x: bp.jvp(f, (x,), (x,)),
        bp.grad(bp.checkpoint(f)),
    )
    for transform in transforms:
        transform(x)  # builds the twin's functions
    gc.collect()
    gc.disable()
    try:
        for transform in transforms:
            transform(x)
            assert gc.collect() == 0
    finally:
        gc.enable()


def test_memory_falls_as_the_backward_pass_goes():
    peaks = []

    def marker(x):
        return x

    marker = bp.custom_vjp(marker)

    def note(_, g):
        peaks.append(tracemalloc.get_traced_memory()[0])
        return (g,)

    marker.defvjp(lambda x: (x * 1.0, None), note)

    def f(x):
        for _ in range(10):
            x = bp.array_namespace(x).sin(marker(x))
        return total(x)

    tracemalloc.start()
    bp.grad(f)(np.ones(100_000))
    tracemalloc.stop()
    assert all(later < earlier for earlier, later in itertools.pairwise(peaks))


# -- threads


def test_threads_do_not_disturb_each_other():
    net = Layer(X)
    wrong = []

    def work(k):
        for _ in range(200):
            got = bp.grad(lambda net: total(net.w * net.w * k))(net).w
            if not np.array_equal(got, 2 * k * X):
                wrong.append(got)

    threads = [threading.Thread(target=work, args=(float(k),)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


# -- custom derivatives


def test_custom_vjp():
    @bp.custom_vjp
    def clipped(tree):
        return {"out": tree["x"] * tree["y"]}

    clipped.defvjp(
        lambda t: ({"out": t["x"] * t["y"]}, t),
        lambda t, g: ({"x": 10 * g["out"] * t["y"], "y": None},),
    )
    dx, dy = bp.grad(lambda x, y: total(clipped({"x": x, "y": y})["out"]), (0, 1))(X, 2 * X)
    np.testing.assert_array_equal(dx, 20 * X)
    np.testing.assert_array_equal(dy, np.zeros(3))
    np.testing.assert_array_equal(clipped({"x": X, "y": X})["out"], X * X)
    twice = bp.grad(lambda x: total(bp.grad(lambda x: total(clipped({"x": x, "y": x * x})["out"]))(x)))
    np.testing.assert_allclose(twice(X), 20 * X)


def test_custom_vjp_says_what_is_missing():
    @bp.custom_vjp
    def f(x):
        return x

    with pytest.raises(TypeError, match=r"f has no derivative yet: call f\.defvjp first"):
        bp.grad(lambda x: total(f(x)))(X)
    f.defvjp(lambda x: (x, None), lambda _, g: g)
    with pytest.raises(TypeError, match="tuple of 1 cotangents"):
        bp.grad(lambda x: total(f(x)))(X)

    def captures(w):
        g = bp.custom_vjp(lambda x: x)
        g.defvjp(lambda x: (x * w, None), lambda _, g: (g,))
        return total(g(w))

    with pytest.raises(TypeError, match="a traced value that is not its argument"):
        bp.grad(captures)(X)

    def captures_a_later_one(w):
        def inner(x):
            g = bp.custom_vjp(lambda w: w)
            g.defvjp(lambda w: (w * x, None), lambda _, g: (g,))
            return total(g(w))

        return total(bp.grad(inner)(X))

    with pytest.raises(TypeError, match="a traced value that is not its argument"):
        bp.grad(captures_a_later_one)(X)


def test_custom_vjp_checks_shapes_and_casts():
    f = bp.custom_vjp(lambda x: x)
    f.defvjp(lambda x: (x, None), lambda _, g: (np.ones(3),))
    assert bp.grad(lambda x: total(f(x)))(X.astype(np.float32)).dtype == np.float32
    with pytest.raises(ValueError, match=r"<lambda> gave a cotangent of shape \(3,\) for an argument of shape \(2,\)"):
        bp.grad(lambda x: total(f(x)))(X[:2])


def test_custom_vjp_of_captured_constants_and_of_integers():
    def f(x, c):
        g = bp.custom_vjp(lambda x: None)
        g.defvjp(lambda x: (x * c, bp.array_namespace(c).argmax(c)), lambda _, g: (g,))
        h = bp.custom_vjp(lambda x: None)
        h.defvjp(lambda x: ((c, bp.array_namespace(x).argmax(x)), None), lambda _, g: (2 * g[0],))
        found, k = h(x)
        return total(g(x)) + found[k], (found, k)

    (value, aux), gradient = bp.value_and_grad(f, has_aux=True)(X, X)
    assert not any(isinstance(x, Array) for x in (value, *aux))
    np.testing.assert_array_equal(gradient, [1, 1, 3])


# -- errors


def test_errors_name_what_was_passed():
    with pytest.raises(
        TypeError, match=r"expected at least one real or complex floating array, got int64 array of shape \(3,\)"
    ):
        bp.grad(total)(np.arange(3))
    with pytest.raises(TypeError, match="floating array, got int"):
        bp.grad(lambda x: x)(3)
    with pytest.raises(TypeError, match=r"real floating scalar, got float64 of shape \(3,\)"):
        bp.grad(lambda x: x * 2)(X)
    with pytest.raises(TypeError, match=r"scalar, got complex128 of shape \(\)"):
        bp.grad(lambda x: total(x * 1j))(X)
    with pytest.raises(TypeError, match="scalar array, got dict"):
        bp.grad(lambda x: {"loss": total(x)})(X)
    with pytest.raises(TypeError, match=r"argnums=1 but <lambda> was called with 1 positional"):
        bp.grad(lambda x: total(x), argnums=1)(X)
    with pytest.raises(TypeError, match=r"pair \(value, aux\), got"):
        bp.grad(lambda x: total(x), has_aux=True)(X)
    with pytest.raises(ValueError, match=r"cotangent of shape \(2,\) for a value of shape \(3,\)"):
        bp.vjp(lambda x: x, X)[1](np.ones(2))
    with pytest.raises(TypeError, match="the cotangent is no tuple of the same structure as the value"):
        bp.vjp(lambda x: (x, x), X)[1](X)
    with pytest.raises(TypeError, match="2 primals and 1 tangents"):
        bp.jvp(lambda x, y: x, (X, X), (X,))
    with pytest.raises(TypeError, match="jacobian of a complex value"):
        bp.jacobian(lambda x: x * 1j)(X)


def test_a_value_used_after_its_transform_ended_raises():
    leaked = []
    bp.grad(lambda x: (leaked.append(x * 2), total(x))[1])(X)
    with pytest.raises(RuntimeError, match="used after the transform that made it had ended"):
        leaked[0] + 1
    with pytest.raises(RuntimeError, match="used after the transform"):
        bp.grad(lambda y: total(y * leaked[0]))(X)


def test_a_value_of_a_transform_that_ended_is_no_result():
    def leak(x):
        leaked = []
        bp.grad(lambda y: (leaked.append(total(y * x)), total(y))[1])(x)
        return leaked[0]

    def leak_into_an_item(x):
        def inner(y):
            x[0] = y[0]
            return total(y)

        bp.grad(inner)(x)
        return x

    for transform in (
        bp.value_and_grad(leak),
        bp.value_and_grad(lambda x: (total(x), leak(x)), has_aux=True),
        lambda x: bp.vjp(leak, x),
        lambda x: bp.vjp(leak_into_an_item, x),
    ):
        with pytest.raises(RuntimeError, match="used after the transform that made it had ended"):
            transform(X)


def test_libraries_are_not_mixed():
    strict = pytest.importorskip("array_api_strict")
    with pytest.raises(
        TypeError, match=r"arrays of several libraries: array_api_strict and numpy|numpy and array_api_strict"
    ):
        bp.grad(lambda x, y: total(x), (0, 1))(X, strict.ones(3))
    with pytest.raises(TypeError, match=r"one transform was given arrays of several libraries: numpy and array_api_s"):
        bp.grad(lambda x, y: total(x))(X, strict.ones(3))
    with pytest.raises(TypeError, match=r"add was given arrays of several libraries: numpy and array_api_strict"):
        bp.grad(lambda x: total(x + strict.ones(3)))(X)
    with pytest.raises(TypeError, match="arrays of several libraries: numpy and array_api_strict"):
        bp.array_namespace(X, strict.ones(3))
    with pytest.raises(TypeError, match="given no array: float, NoneType"):
        bp.array_namespace(1.0, None)


def test_non_finite_values_pass_through():
    gradient = bp.grad(lambda x: total(x * np.array([1.0, np.nan, np.inf])))(X)
    np.testing.assert_array_equal(gradient, [1.0, np.nan, np.inf])


def test_a_gradient_is_never_an_array():
    for tree in (bp.grad(lambda x: total(x * x))(X), bp.hessian(lambda x: total(x**3))(X), bp.vjp(total, X)[1](1.0)):
        assert not any(isinstance(x, Array) for x in leaves(tree))
