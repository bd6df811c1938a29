import numpy as np
import pytest

import gpubp as bp
from gpubp import functions as F
from gpubp import losses, nn

rng = np.random.default_rng(0)


def test_it_gives_rows_of_its_table():
    layer = nn.Embedding(5, 3, seed=0)
    indices = np.array([[4, 0], [0, 0]])
    np.testing.assert_array_equal(layer(indices), layer.W[indices])
    assert repr(layer) == "Embedding(5, 3)"
    assert nn.Embedding(5, 3, W_init=nn.constant(2.0), seed=0, dtype="float64")(indices).dtype == "float64"


def test_the_default_draws_vectors_of_length_1():
    W = nn.Embedding(400, 100, seed=0).W
    np.testing.assert_allclose(np.linalg.norm(W, axis=1).mean(), 1, atol=0.01)


def test_a_table_that_serves_as_the_output_too_gets_both_gradients():
    class Tied(nn.Layer):
        def __init__(self):
            self.embedding = nn.Embedding(4, 3)

        def __call__(self, indices):
            return bp.array_namespace(self.embedding.W).tanh(self.embedding(indices)) @ self.embedding.W.T

    net = Tied().build(0, "float64")
    indices, labels = np.array([0, 1, 1]), np.array([1, 2, 0])
    W = net.embedding.W
    found = bp.grad(lambda net: losses.softmax_cross_entropy(net(indices), labels))(net).embedding.W
    first, second = bp.grad(
        lambda V, W: losses.softmax_cross_entropy(np.tanh(F.embedding(indices, V)) @ W.T, labels), (0, 1)
    )(W, W)
    np.testing.assert_allclose(found, first + second, rtol=1e-12, atol=1e-15)


def test_indices_that_do_not_fit_name_the_layer():
    layer = nn.Embedding(5, 3, seed=0)
    with pytest.raises(ValueError, match="indices from 0 to 4 with a table of 5 rows") as caught:
        layer(np.array([5]))
    assert caught.value.__notes__ == ["in Embedding(5, 3)"]
    with pytest.raises(TypeError, match="integer indices, got float64") as caught:
        layer(np.ones(2))
    assert caught.value.__notes__ == ["in Embedding(5, 3)"]
    with pytest.raises(RuntimeError, match=r"Embedding\(5, 3\) has no parameters yet"):
        nn.Embedding(5, 3)(np.array([0]))


def test_sinusoidal_positions_are_added():
    x = rng.normal(size=(2, 4, 6))
    np.testing.assert_allclose(nn.SinusoidalPositions()(x), x + F.sinusoidal_positions(x, 4, 6), rtol=1e-14)
    layer = nn.SinusoidalPositions(50.0)
    np.testing.assert_allclose(layer(x[0]), x[0] + F.sinusoidal_positions(x, 4, 6, base=50.0), rtol=1e-14)
    assert (repr(nn.SinusoidalPositions()), repr(layer)) == ("SinusoidalPositions()", "SinusoidalPositions(50)")
    assert layer.count_parameters() == 0
    with pytest.raises(ValueError, match=r"expects an input of shape \(\.\.\., time, features\), got \(3,\)"):
        layer(np.ones(3))
    with pytest.raises(TypeError, match="expects arrays, got list as input"):
        layer([1.0])
