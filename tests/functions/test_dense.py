import numpy as np
import pytest

import gpubp as bp
from gpubp import functions as F
from gpubp.fused import FUSED

rng = np.random.default_rng(0)
x, W, b = rng.normal(size=(4, 3)), rng.normal(size=(3, 2)), rng.normal(size=2)


def test_it_is_the_activation_of_the_affine_map():
    for name in ("identity", "sigmoid", "tanh", "relu", "leaky_relu", "elu", "selu"):
        np.testing.assert_allclose(F.dense(x, W, b, activation=name), getattr(F, name)(x @ W + b), rtol=1e-14)


@pytest.mark.parametrize("activation", ["identity", "sigmoid", "tanh", "relu", "leaky_relu", "elu", "selu"])
@pytest.mark.parametrize("argnums", [0, 1, 2, (0, 1), (1, 2), (0, 1, 2)])
def test_each_choice_of_arguments_has_the_gradient_of_the_reference(activation, argnums):
    def loss(f):
        return lambda *args: np.sum(f(*args, activation=activation) ** 2)

    expected = bp.grad(loss(F.dense.reference), argnums)(x, W, b)
    found = bp.grad(loss(F.dense), argnums)(x, W, b)
    for e, f in zip(bp.tree.leaves(expected), bp.tree.leaves(found), strict=True):
        np.testing.assert_allclose(f, e, rtol=1e-13, atol=1e-14)


def test_only_what_is_needed_is_computed_and_kept(monkeypatch):
    implementation = FUSED["dense"].written
    y, residuals = implementation.forward(np, (False, True, False), x, W, b)
    assert residuals[1] is None  # W serves dx only
    assert implementation.backward(np, (False, True, False), y, residuals)[0::2] == (None, None)
    y, residuals = implementation.forward(np, (True, False, False), x, W, b)
    assert residuals[0] is None
    assert implementation.backward(np, (True, False, False), y, residuals)[1:] == (None, None)


def test_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match=r"\(4, 2\) and \(3, 2\)"):
        F.dense(x[:, :2], W, b)
    with pytest.raises(ValueError, match=r"b of shape \(2,\).*got \(3,\)"):
        F.dense(x, W, np.ones(3))
    with pytest.raises(ValueError, match=r"b of shape \(2,\).*got \(1,\)"):
        F.dense(x, W, np.ones(1))
    with pytest.raises(ValueError, match=r"\(\) and \(3, 2\)"):
        F.dense(np.asarray(1.0), W)


@pytest.mark.parametrize("other", ["float32", "int64"])
def test_dtypes_that_differ_are_named(other):
    with pytest.raises(TypeError, match=f"x of {other}, W of float64, b of float64"):
        F.dense(x.astype(other), W, b)
    with pytest.raises(TypeError, match=f"b of {other}"):
        F.dense(x, W, b.astype(other))
    with pytest.raises(TypeError, match="one floating-point dtype"):
        bp.grad(lambda W: np.sum(F.dense(x.astype(other), W)))(W)
    with pytest.raises(TypeError, match="one floating-point dtype, got x of int64, W of int64"):
        F.dense(x.astype("int64"), W.astype("int64"))


def test_libraries_that_differ_are_named():
    strict = pytest.importorskip("array_api_strict")
    with pytest.raises(TypeError, match="x of array_api_strict, W of numpy"):
        F.dense(strict.asarray(x), W)


def test_an_unknown_activation():
    with pytest.raises(ValueError, match="leaky_relu, elu, selu, got 'softmax'"):
        F.dense(x, W, activation="softmax")


def test_it_serves_as_a_layer_of_any_rank():
    deep = rng.normal(size=(2, 5, 3))
    np.testing.assert_allclose(F.dense(deep, W, b, activation="tanh")[1], F.dense(deep[1], W, b, activation="tanh"))
