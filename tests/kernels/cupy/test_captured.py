"""Recurrent networks and attention in a captured step: one graph gives what Python gives, dropout included."""

import cupy
import numpy as np
import pytest

import gpubp as bp
from gpubp import losses, nn
from gpubp.tree import leaves

pytestmark = pytest.mark.filterwarnings("error:.*runs as usual", "ignore:matrix products use")
RNG = np.random.default_rng(0)

LAYERS = {
    "rnn": lambda: nn.RNN(4, 5, seed=0),
    "lstm": lambda: nn.LSTM(4, 5, seed=0),
    "gru": lambda: nn.GRU(4, 5, seed=0),
    "transformer": lambda: nn.TransformerBlock(4, 2, causal=True, dropout=0.3, seed=0),
}


@pytest.mark.parametrize("name", LAYERS)
def test_gradients(name):
    def steps(capture):
        net = LAYERS[name]().to(bp.device("cuda:0")).train()
        gradient = bp.value_and_grad(lambda net, x, y: losses.mse(leaves(net(x))[0], y))

        def step(x, y):
            return [g for g in leaves(gradient(net, x, y)) if hasattr(g, "dtype")]

        if capture:
            step = bp.capture(step, required=True)
        found = [[g.get() for g in step((1 + k) * x, y)] for k in range(6)]
        return found, getattr(step, "launches", 0)

    x = cupy.asarray(RNG.normal(size=(3, 6, 4)).astype("float32"))
    y = cupy.asarray(RNG.normal(size=(3, 6, 4 if name == "transformer" else 5)).astype("float32"))
    (expected, _), (found, launches) = steps(False), steps(True)
    assert launches == 3
    for k in range(6):
        for f, e in zip(found[k], expected[k], strict=True):
            np.testing.assert_allclose(f, e, rtol=1e-4, atol=1e-5)
    assert any((a != b).any() for a, b in zip(found[4], found[5], strict=True))
