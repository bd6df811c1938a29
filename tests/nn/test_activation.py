import numpy as np
import pytest

import gpubp as bp
from gpubp import nn

X = np.random.default_rng(0).normal(size=(4, 3))


def test_slopes_start_at_a_quarter():
    for n in (1, 3, None):
        layer = nn.PReLU(n, seed=0, dtype="float64")
        np.testing.assert_array_equal(layer(X), np.where(X > 0, X, 0.25 * X))
        assert repr(layer) == f"PReLU({n or 3})"
    assert layer.slope.shape == (3,)
    np.testing.assert_array_equal(nn.PReLU(slope_init=nn.zeros, seed=0, dtype="float64")(X), np.maximum(X, 0))


def test_slopes_learn():
    layer = nn.PReLU(3, seed=0, dtype="float64")
    gradient = bp.grad(lambda net: np.sum(net(X)))(layer)
    np.testing.assert_allclose(gradient.slope, np.minimum(X, 0).sum(axis=0), rtol=1e-14)
    bp.testing.check_grads(
        lambda net, x: net(x), (nn.Sequential(nn.Dense(3, 2), nn.PReLU(), seed=0).astype("float64"), X)
    )


def test_in_a_net_of_unknown_width():
    net = nn.Sequential(nn.Dense(None, 5), nn.PReLU(None), seed=0, dtype="float64")
    assert net(X).shape == (4, 5)
    assert net.layers[1].slope.shape == (5,)


def test_inputs_that_do_not_fit():
    layer = nn.PReLU(3, seed=0, dtype="float64")
    with pytest.raises(ValueError, match=r"PReLU\(3\) expects an input of shape \(..., 3\), got \(4, 2\)"):
        layer(X[:, :2])
    with pytest.raises(ValueError, match=r"PReLU\(1\) expects an input of shape \(..., n\), got \(\)"):
        nn.PReLU(seed=0, dtype="float64")(X[0, 0] * np.ones(()))
    with pytest.raises(TypeError, match=r"PReLU\(3\) .* input of float32, slope of float64"):
        layer(X.astype("float32"))
    with pytest.raises(RuntimeError, match=r"PReLU\(1\) has no parameters yet"):
        nn.PReLU()(X)
