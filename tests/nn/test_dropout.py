import numpy as np
import pytest

import gpubp as bp
from gpubp import nn
from gpubp.testing import assert_parity, check_grads
from gpubp.tree import map_distinct

X = np.random.default_rng(0).normal(size=(200, 50)).astype("f4")


def test_training_drops_and_scales_and_evaluation_does_not():
    drop = nn.Dropout(0.25, seed=0)
    assert drop(X) is X
    y = drop.train()(X)
    assert abs(np.mean(y == 0) - 0.25) < 0.02
    np.testing.assert_allclose(y[y != 0], X[y != 0] / 0.75, rtol=1e-6)
    assert drop.calls.value == 1
    assert repr(drop) == "Dropout(0.25)"


def test_places_depend_on_seed_path_and_call():
    def zeros(layer):
        return layer.train()(X) == 0

    first = nn.Dropout(0.5, seed=0)
    a, b = zeros(first), zeros(first)
    again = nn.Dropout(0.5, seed=0)
    np.testing.assert_array_equal(a, zeros(again))
    np.testing.assert_array_equal(b, zeros(again))
    net = nn.Sequential(nn.Dropout(0.5), nn.Dropout(0.5), seed=0)
    masks = [a, b, zeros(nn.Dropout(0.5, seed=1)), *(zeros(layer) for layer in net.layers)]
    for k, mask in enumerate(masks):
        for other in masks[:k]:
            assert 0.45 < np.mean(mask == other) < 0.55  # as two independent draws agree


def test_the_same_places_on_every_library(backend):
    drop, there = nn.Dropout(0.5, seed=3).train(), map_distinct(backend.asarray, nn.Dropout(0.5, seed=3).train())
    for _ in range(2):
        np.testing.assert_array_equal(backend.to_numpy(there(backend.asarray(X))), drop(X))


def test_a_counter_on_the_host_serves_data_on_a_device(backend):
    there = nn.Dropout(0.5, seed=3).train()  # not moved
    np.testing.assert_array_equal(backend.to_numpy(there(backend.asarray(X))), nn.Dropout(0.5, seed=3).train()(X))


def test_gradients_pass_where_values_do():
    drop = nn.Dropout(0.5, seed=0).train()
    y, pullback = bp.vjp(drop, X)
    np.testing.assert_array_equal(pullback(np.ones_like(X))[0], np.where(y == 0, 0, np.float32(2)))
    check_grads(lambda net, x: net(x), (nn.Sequential(nn.Dense(5, 4), nn.Dropout(0.5), seed=0, dtype="float64").train(),
                                        X[:3, :5].astype("f8")))  # fmt: skip


def test_checkpoint_drops_the_same_again():
    def loss(net, wrap):
        y = X[:, :5]
        for layer in net.layers:
            y = wrap(layer)(y)
        return np.sum(y**2)

    plain, kept = (nn.Sequential(nn.Dropout(0.5), nn.Dense(5, 4), nn.Dropout(0.5), seed=0).train() for _ in range(2))
    for _ in range(2):
        expected = bp.grad(loss)(plain, lambda f: f)
        found = bp.grad(loss)(kept, bp.checkpoint)
        np.testing.assert_array_equal(found.layers[1].W, expected.layers[1].W)
    assert kept.layers[0].calls.value == 2
    nested = nn.Sequential(nn.Dropout(0.5), nn.Dense(5, 4), nn.Dropout(0.5), seed=0).train()
    first = nn.Sequential(nn.Dropout(0.5), nn.Dense(5, 4), nn.Dropout(0.5), seed=0).train()
    found = bp.grad(bp.checkpoint(loss))(nested, bp.checkpoint)
    np.testing.assert_array_equal(found.layers[1].W, bp.grad(loss)(first, lambda f: f).layers[1].W)
    assert nested.layers[2].calls.value == 1


def test_training_is_the_same_on_every_library():
    net = nn.Sequential(nn.Dense(5, 8), nn.relu, nn.Dropout(0.5), nn.Dense(8, 2), seed=0).train()
    assert_parity(net, X[:6, :5], backends=["numpy", "standin", "array_api_strict"], steps=3)
    assert net.layers[2].calls.value == 0


def test_errors():
    with pytest.raises(ValueError, match="Dropout expects a rate from 0 to below 1, got 1"):
        nn.Dropout(1)
    with pytest.raises(RuntimeError, match=r"Dropout\(0.5\) has no random key yet: give it.* seed"):
        nn.Dropout(0.5).train()(X)
    with pytest.raises(ValueError, match="dropout expects a rate from 0 to below 1, got -0.5"):
        bp.functions.dropout(X, 0, rate=-0.5, key=(0, 0))
