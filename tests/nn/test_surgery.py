"""Nets taken apart: parameters by name, frozen, shared, copied; state in and out; modes; lengths known from a batch."""

import numpy as np
import pytest

import gpubp as bp
from gpubp import nn, optim
from gpubp.testing import assert_parity, check_grads
from gpubp.tree import map_distinct

rng = np.random.default_rng(0)
X = rng.normal(size=(5, 3)).astype("f4")


class Scaled(nn.Layer):
    """A layer with everything: parameters, one in a list, a cell, a key, a mode."""

    def __init__(self, n, **options):
        self.s = nn.Parameter((n,), nn.constant(2.0))
        self.more = [nn.Parameter((1,), nn.constant(1.0))]
        self.mean = nn.State(nn.Parameter((n,), nn.zeros))
        self.key = nn.Key()
        if options:
            self.build(**options)

    def __call__(self, x):
        if type(self.s) is nn.Parameter:
            self.complete(x)
        if self.training:
            self.mean.value = 0.5 * self.mean.value + 0.5 * np.mean(x, axis=0)
        return (x - self.mean.value) * self.s * self.more[0]


def net_of(**options):
    return nn.Sequential(nn.Dense(3, 4), nn.tanh, Scaled(4), nn.Dense(4, 3), **{"seed": 0, **options})


def loss(net, x=X):
    return np.sum(net(x) ** 2)


def paths_of_none(grads):
    places = net_of().parameters()
    return [path for path in places if path not in grads.parameters()]


# -- freezing


def test_a_frozen_parameter_has_no_gradient_and_the_others_have_theirs():
    net = net_of()
    whole = bp.grad(loss)(net).parameters()
    net.freeze("layers[0].W", "layers[2]")
    grads = bp.grad(loss)(net)
    assert paths_of_none(grads) == ["layers[0].W", "layers[2].s", "layers[2].more[0]"]
    for path, g in grads.parameters().items():
        np.testing.assert_array_equal(g, whole[path])
    assert net.count_parameters() == 36
    assert net.count_parameters(frozen=False) == 36 - 12 - 5
    net.unfreeze("layers[0]")
    assert paths_of_none(bp.grad(loss)(net)) == ["layers[2].s", "layers[2].more[0]"]
    net.unfreeze()
    assert paths_of_none(bp.grad(loss)(net)) == []


def test_freezing_holds_through_nested_transforms_and_moves():
    net = net_of(dtype="float64").freeze("layers[0]")
    check_grads(lambda net: net(X.astype("f8")), (net,))
    moved = net.to("cpu").copy().astype("float32")
    assert paths_of_none(bp.grad(loss)(moved)) == ["layers[0].W", "layers[0].b"]
    assert_parity(net, X.astype("f8"), backends=["numpy", "standin", "array_api_strict"], steps=2, lr=0.01)


def test_a_net_frozen_as_a_whole_has_nothing_to_differentiate():
    with pytest.raises(TypeError, match="nothing to differentiate.*frozen"):
        bp.grad(loss)(net_of().freeze())


@pytest.mark.parametrize("make", [lambda n: optim.SGD(n, 0.1, momentum=0.9, weight_decay=0.1), optim.AdamW])
@pytest.mark.parametrize("size", [4, 200])
def test_an_optimizer_leaves_frozen_parameters_and_what_it_remembers_of_them(make, size, backend):
    net = nn.Sequential(nn.Dense(size, size), nn.tanh, nn.Dense(size, 3), seed=0)
    net = map_distinct(backend.asarray, net)
    x = backend.asarray(rng.normal(size=(5, size)).astype("f4"))
    opt = make(net)
    step = bp.grad(lambda net: bp.losses.mse(net(x), 0 * net(x)))
    opt.step(step(net))
    net.freeze("layers[0].W", "layers[2].b")
    before = {path: backend.to_numpy(p).copy() for path, p in net.parameters().items()}
    opt.step(step(net))
    for path, p in net.parameters().items():
        same = np.array_equal(backend.to_numpy(p), before[path])
        assert same == (path in ("layers[0].W", "layers[2].b")), path
    net.unfreeze()
    fresh = net.copy()
    opt.step(step(net))
    assert all(np.any(backend.to_numpy(p) != before[path]) for path, p in net.parameters().items())
    assert np.array_equal(backend.to_numpy(fresh.layers[0].W), before["layers[0].W"])


def test_what_cannot_be_frozen_is_named():
    with pytest.raises(ValueError, match=r"no parameter at 'layers\[1\]' in this Sequential; there are layers\[0\].W"):
        net_of().freeze("layers[1]")
    with pytest.raises(ValueError, match=r"no parameter at 'layers\[2\].more\[0\]'.*layers\[2\].more,"):
        net_of().freeze("layers[2].more[0]")


# -- sharing


@pytest.mark.parametrize("built_first", [True, False])
def test_shared_parameters_are_one(built_first):
    net = nn.Sequential(nn.Dense(3, 3), nn.tanh, nn.Dense(3, 3))
    if built_first:
        net.build(0)
    net.share("layers[2].W", "layers[0].W")
    net.build(0)
    assert net.layers[2].W is net.layers[0].W
    assert net.count_parameters() == 15
    apart = nn.Sequential(nn.Dense(3, 3), nn.tanh, nn.Dense(3, 3), seed=0)
    np.testing.assert_array_equal(net.layers[0].W, apart.layers[0].W)
    apart.layers[2].W = apart.layers[0].W.copy()
    shared, parts = bp.grad(loss)(net), bp.grad(loss)(apart)
    np.testing.assert_allclose(shared.layers[0].W, parts.layers[0].W + parts.layers[2].W, rtol=1e-5)
    net.freeze("layers[0].W")
    assert bp.grad(loss)(net).layers[2].W is None


@pytest.mark.parametrize("frozen", ["layers[0].W", "layers[2].W"])
def test_a_shared_parameter_is_frozen_as_its_source_was(frozen):
    net = nn.Sequential(nn.Dense(3, 3), nn.tanh, nn.Dense(3, 3), seed=0).freeze(frozen)
    grads = bp.grad(loss)(net.share("layers[2].W", "layers[0].W"))
    assert [g.W is None for g in (grads.layers[0], grads.layers[2])] == [frozen == "layers[0].W"] * 2


@pytest.mark.parametrize("options", [{}, {"seed": 0}])
def test_sharing_waits_for_the_lengths(options):
    net = nn.Sequential(nn.Dense(None, 3), nn.tanh, nn.Dense(None, 3), **options)
    message = r"layers\[0\].W cannot stand at layers\[2\].W yet, as its shape is \(None, 3\): the length .*build\(x\)"
    with pytest.raises(RuntimeError, match=message):
        net.share("layers[2].W", "layers[0].W")
    net.build(0).build(X)
    assert net.share("layers[2].W", "layers[0].W").layers[2].W is net.layers[0].W


def test_sharing_what_does_not_fit_is_refused():
    net = net_of()
    with pytest.raises(ValueError, match=r"layers\[0\].W of shape \(3, 4\) cannot stand at layers\[3\].W, of \(4, 3\)"):
        net.share("layers[3].W", "layers[0].W")
    with pytest.raises(ValueError, match=r"no parameter 'layers\[9\].W' in this Sequential"):
        net.share("layers[9].W", "layers[0].W")


# -- copies, state


def test_a_copy_shares_nothing():
    net = net_of()
    other = net.copy()
    other.train()
    other(X)
    other.layers[0].W[...] = 0
    assert net.layers[0].W.any()
    assert not net.layers[2].mean.value.any()
    assert other.layers[2].mean.value.any()
    assert not net.training


def test_state_goes_out_and_in_as_a_flat_dict(backend, tmp_path):
    net = net_of().train()
    net(X)
    state = net.state()
    assert list(state) == [*net.parameters(), "layers[2].mean"]
    other = map_distinct(backend.asarray, net_of(seed=1))
    assert other.load_state(state) is other
    for path, x in other.state().items():
        assert backend.to_numpy(x).tobytes() == np.asarray(state[path]).tobytes()
    bp.save(other, tmp_path / "net.safetensors")
    third = bp.load(tmp_path / "net.safetensors", net_of(seed=2))
    np.testing.assert_array_equal(third.layers[2].mean.value, net.layers[2].mean.value)
    assert third.layers[2].mean.value is not net.layers[2].mean.value
    with pytest.raises(ValueError, match=r"this dict does not fit this Sequential: .*layers\[2\].mean is missing"):
        other.load_state(net.parameters())


def test_a_changed_copy_of_the_state_does_not_change_the_net():
    net, other = net_of(), net_of(seed=1)
    other.load_state(net.state())
    net.layers[0].W[...] = 7
    assert not (other.layers[0].W == 7).any()


# -- modes


def test_modes_reach_every_layer():
    net = nn.Sequential(Scaled(3), {"a": [Scaled(3)]}["a"][0], nn.Residual(Scaled(3)), seed=0)
    assert not net.training
    assert net.train() is net
    assert net.layers[2].layer.training
    assert not net.eval().layers[2].layer.training


def test_fit_trains_in_training_mode_and_measures_in_evaluation_mode():
    modes = []

    class Watch(nn.Layer):
        def __call__(self, x):
            modes.append(self.training)
            return x

    net = nn.Sequential(Watch(), nn.Dense(3, 2), seed=0)
    data = (X, np.array([0, 1, 1, 0, 1]))
    bp.fit(net, lambda n, x, y: bp.losses.softmax_cross_entropy(n(x), y), optim.Adam(net), data, epochs=1,
           batch_size=5, progress=False)  # fmt: skip
    assert modes == [False, True, False]  # a look at the labels, a step, and accuracy
    assert not net.training


# -- lengths that the first batch tells


def lazy(**options):
    return nn.Sequential(nn.Dense(None, 4), nn.tanh, Scaled(None), nn.Flatten(), nn.Dense(None, 3), **options)


def test_lengths_come_from_the_first_batch():
    known = nn.Sequential(nn.Dense(3, 4), nn.tanh, Scaled(4), nn.Flatten(), nn.Dense(4, 3), seed=5)
    net = lazy(seed=5)
    assert repr(net.layers[0]) == "Dense(None, 4)"
    assert net.build(X) is net
    assert net.layers[2].mean.value.shape == (4,)
    for (path, p), q in zip(net.parameters().items(), known.parameters().values(), strict=True):
        np.testing.assert_array_equal(p, q, path)
    np.testing.assert_array_equal(lazy(seed=5)(X), known(X))  # a call does it too
    with pytest.raises(ValueError, match=r"Dense\(3, 4\) expects an input of shape \(..., 3\), got \(5, 2\)"):
        net(X[:, :2])


def test_building_on_a_batch_leaves_cells_and_mode():
    net = lazy(seed=0).train().build(X)
    assert net.layers[2].training
    assert not net.layers[2].mean.value.any()


def test_parameters_appear_where_the_batch_is(backend):
    net = map_distinct(backend.asarray, lazy(seed=0))
    net.build(backend.asarray(X))
    assert {type(p) for p in net.parameters().values()} == {type(backend.asarray(X))}
    np.testing.assert_allclose(backend.to_numpy(net(backend.asarray(X))), lazy(seed=0)(X), rtol=1e-5, atol=1e-6)


def test_an_unknown_length_is_said_where_it_is_in_the_way():
    net = lazy(seed=0)
    with pytest.raises(RuntimeError, match=r"no parameters yet: the length of its input.*build\(x\)"):
        optim.Adam(net)
    with pytest.raises(RuntimeError, match=r"Dense\(None, 4\) has no parameters yet: the length.*build\(x\)"):
        bp.grad(loss)(net)
    with pytest.raises(RuntimeError, match=r"Dense\(None, 4\) has no parameters yet: give it.*seed"):
        lazy()(X)
    with pytest.raises(ValueError, match="an input with a last axis"):
        net(np.float32(1))
    with pytest.raises(TypeError, match="expects arrays, got list as input"):
        net([1.0])
    unused = nn.Sequential(nn.Dense(3, 4), seed=0)
    unused.other = nn.Dense(None, 4).build(0)
    with pytest.raises(RuntimeError, match="no parameters yet: the length"):
        unused.build(X)


def test_fit_builds_on_its_first_batch():
    data = (X, np.array([0, 1, 1, 0, 1]))
    net = lazy(seed=0)
    history = bp.fit(net, lambda n, x, y: bp.losses.softmax_cross_entropy(n(x), y), lambda n: optim.Adam(n, 0.01), data,
                     epochs=2, batch_size=2, progress=False)  # fmt: skip
    assert history[1]["loss"] < history[0]["loss"]
    with pytest.raises(TypeError, match=r"opt must be an optimizer, .*got NoneType"):
        bp.fit(net, lambda n, x, y: 0, lambda n: None, data, epochs=1)


# -- the layers that join others


def test_residual_adds_and_says_what_does_not_fit():
    net = nn.Residual(nn.Dense(3, 3), seed=0)
    np.testing.assert_array_equal(net(X), X + net.layer(X))
    wider = nn.Residual(nn.Dense(3, 5), nn.Dense(3, 5, bias=False), seed=0)
    np.testing.assert_array_equal(wider(X), wider.shortcut(X) + wider.layer(X))
    with pytest.raises(ValueError, match=r"adds \(5, 3\), from the shortcut, to \(5, 2\), from the layer"):
        nn.Residual(nn.Dense(3, 2), seed=0)(X)
    with pytest.raises(TypeError, match="Residual expects layers or functions, got int"):
        nn.Residual(3)


def test_flatten_and_lambda():
    assert nn.Flatten()(np.ones((2, 3, 4))).shape == (2, 12)
    assert nn.Flatten()(np.ones((0, 3, 4))).shape == (0, 12)
    with pytest.raises(ValueError, match=r"shape \(batch, ...\), got \(\)"):
        nn.Flatten()(np.float32(1))
    twice = nn.Lambda(lambda x: 2 * x, "twice")
    assert repr(nn.Sequential(nn.Flatten(), twice)) == "Sequential(Flatten(), Lambda(twice))"
    np.testing.assert_array_equal(twice(X), 2 * X)
    with pytest.raises(TypeError, match="Lambda expects a function, got int"):
        nn.Lambda(3)
