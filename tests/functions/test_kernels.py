"""The overrides are optional: without them every function gives the same."""

import sys
from importlib.util import find_spec

import numpy as np
import pytest

import gpubp as bp
from gpubp import losses, nn, optim
from gpubp.functions.update import adam, sgd
from gpubp.fused import FUSED, load_kernels

UPDATES = [sgd, adam]


@pytest.fixture
def without_overrides(monkeypatch):
    load_kernels("numpy")
    for fused in FUSED.values():
        monkeypatch.setattr(fused, "overrides", {})
        monkeypatch.setattr(fused, "_chosen", {})
    for update in UPDATES:
        monkeypatch.setattr(update, "in_place", {})


def train(steps=20):
    net = nn.Sequential(nn.Dense(2, 4), nn.sigmoid, nn.Dense(4, 3), nn.relu, nn.Dense(3, 1), seed=0, dtype="float64")
    opt = optim.AdamW(net, 0.05)
    x, y = bp.data.xor("float64")
    for _ in range(steps):
        value, grads = bp.value_and_grad(lambda net: losses.binary_cross_entropy(net(x), y))(net)
        opt.step(grads)
    return net(x), value


WITH = train()


def test_training_gives_the_same_without_overrides(without_overrides):
    for found, expected in zip(train(), WITH, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.skipif(find_spec("gpubp.kernels") is None, reason="the overrides have been taken away")
def test_numpy_has_overrides_to_compare():
    assert {"dense", "gru", "lstm", "mse", "relu", "rnn", "sigmoid", "softmax_cross_entropy"} <= {
        name for name, fused in FUSED.items() if "numpy" in fused.overrides
    }
    assert all("numpy" in update.in_place for update in UPDATES)
    assert "gpubp.kernels.numpy" in sys.modules
