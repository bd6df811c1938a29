import copy
import pickle

import numpy as np
import pytest

import gpubp as bp
from gpubp import losses, nn, optim
from gpubp.nn.initializers import generator


def mlp(**kwargs):
    return nn.Sequential(nn.Dense(3, 4), nn.tanh, nn.Dense(4, 2), **kwargs)


x = np.random.default_rng(0).normal(size=(5, 3)).astype("float32")


def test_a_net_computes_what_its_layers_say():
    net = mlp(seed=0)
    first, activation, last = net.layers
    np.testing.assert_array_equal(net(x), last(activation(first(x))))
    assert type(net(x)) is np.ndarray
    assert net(x).dtype == "float32"


def test_parameters_have_paths_and_a_count():
    net = mlp(seed=0)
    assert {path: p.shape for path, p in net.parameters().items()} == {
        "layers[0].W": (3, 4),
        "layers[0].b": (4,),
        "layers[2].W": (4, 2),
        "layers[2].b": (2,),
    }
    assert net.count_parameters() == 26
    assert repr(net) == "Sequential(Dense(3, 4), tanh, Dense(4, 2))"


def test_the_gradient_is_a_tree_like_the_net():
    net = mlp(seed=0)
    grads = bp.grad(lambda net: np.sum(net(x)))(net)
    assert type(grads) is nn.Sequential
    np.testing.assert_allclose(grads.layers[2].b, [5, 5])


@pytest.mark.parametrize("activation", [nn.identity, nn.sigmoid, nn.tanh, nn.relu, nn.leaky_relu, nn.elu, nn.selu])
def test_an_activation_is_computed_with_the_layer_before_it(activation):
    merged = nn.Sequential(nn.Dense(3, 4), activation, nn.Dense(4, 2), nn.Dense(2, 2), seed=0)
    assert [k for k, _ in merged._plan.steps] == [0, 2, 3]
    apart = nn.Sequential(nn.Dense(3, 4), lambda x: activation(x), nn.Dense(4, 2), nn.Dense(2, 2), seed=0)
    assert [k for k, _ in apart._plan.steps] == [0, 1, 2, 3]
    in_layer = nn.Sequential(nn.Dense(3, 4, activation), nn.identity, nn.Dense(4, 2), nn.Dense(2, 2), seed=0)
    for other in (apart, in_layer):
        np.testing.assert_allclose(other(x), merged(x), rtol=1e-6)


def test_functions_that_no_layer_knows_stay_by_themselves():
    net = nn.Sequential(nn.softmax, nn.Dense(3, 4), nn.softmax, nn.tanh, seed=0)
    np.testing.assert_allclose(np.sum(net.layers[2](net.layers[1](nn.softmax(x))), axis=1), 1, rtol=1e-6)
    assert net(x).shape == (5, 4)


# -- seeds


def test_one_seed_one_net():
    a, b, c = mlp(seed=0), mlp(seed=0), mlp(seed=1)
    for p, q, r in zip(*(net.parameters().values() for net in (a, b, c)), strict=True):
        np.testing.assert_array_equal(p, q)
        assert not p.any() or (p != r).any()


def test_a_parameter_depends_on_seed_and_path_alone():
    short, long = mlp(seed=3), nn.Sequential(nn.Dense(3, 4), nn.tanh, nn.Dense(4, 2), nn.Dense(2, 7), seed=3)
    np.testing.assert_array_equal(short.layers[2].W, long.layers[2].W)
    assert (short.layers[0].W[:, :2] != short.layers[2].W[:3]).all()


def test_the_drawn_numbers_never_change():
    np.testing.assert_array_equal(
        generator(0, "layers[0].W").bit_generator.random_raw(2), [11150457973395451816, 7855400755297999411]
    )


def test_a_nested_net_is_drawn_by_its_root():
    net = nn.Sequential(nn.Dense(3, 4), nn.Sequential(nn.tanh, nn.Dense(4, 2)), seed=0)
    assert list(net.parameters()) == ["layers[0].W", "layers[0].b", "layers[1].layers[1].W", "layers[1].layers[1].b"]


def test_a_layer_alone():
    layer = nn.Dense(3, 2, "relu", bias=False, W_init=nn.constant(2.0), seed=0, dtype="float64")
    np.testing.assert_array_equal(layer(np.ones((1, 3))), [[6, 6]])
    assert repr(layer) == "Dense(3, 2, relu, bias=False)"


def test_a_layer_in_two_places_is_one():
    layer = nn.Dense(3, 3)
    net = nn.Sequential(layer, nn.tanh, layer, seed=0)
    assert net.layers[0].W is net.layers[2].W
    assert net.count_parameters() == 12
    for moved in (net.astype("float64"), net.to("cpu"), copy.deepcopy(net)):
        assert moved.layers[0].W is moved.layers[2].W


def test_a_layer_of_ones_own():
    class Scale(nn.Layer):
        def __init__(self, n):
            self.s = nn.Parameter((n,), nn.constant(3.0))
            self.more = [nn.Dense(n, 1), {"k": nn.Dense(n, 1, bias=False)}]

        def __call__(self, x):
            return x * self.s

    net = Scale(3).build(0)
    assert list(net.parameters()) == ["s", "more[0].W", "more[0].b", "more[1]['k'].W"]
    np.testing.assert_array_equal(net(x), 3 * x)
    assert repr(net) == "Scale(10 parameters)"
    with pytest.raises(NotImplementedError, match="Layer does not say how to compute"):
        nn.Layer()(x)


# -- moving


def test_moving_leaves_the_net_alone():
    net = mlp(seed=0)
    double = net.astype("float64")
    assert double.layers[0].W.dtype == "float64"
    assert net.layers[0].W.dtype == "float32"
    np.testing.assert_allclose(double(x.astype("float64")), net(x), rtol=1e-5, atol=1e-6)


def test_another_library_computes_the_same(backend):
    net = mlp(seed=0)
    there = bp.tree.map_leaves(backend.asarray, net)
    np.testing.assert_allclose(backend.to_numpy(there(backend.asarray(x))), net(x), rtol=1e-5, atol=1e-6)


def test_copies_and_pickles():
    net = nn.Sequential(nn.Dense(3, 2), nn.gelu, seed=0)
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        np.testing.assert_array_equal(other(x), net(x))
        assert other.layers[1] is nn.gelu


# -- errors


def test_a_net_without_parameters_says_so():
    for net in (mlp(), nn.Dense(3, 4)):
        with pytest.raises(RuntimeError, match=r"Dense\(3, 4\) has no parameters yet.*seed"):
            net(x)
        with pytest.raises(RuntimeError, match="no parameters yet.*seed=0"):
            optim.SGD(net, 0.1)
    assert mlp().build(0)(x).shape == (5, 2)


def test_a_shape_that_does_not_fit_names_the_layer_and_both_shapes():
    with pytest.raises(ValueError, match=r"Dense\(3, 4\) expects an input of shape \(..., 3\), got \(5, 2\)") as caught:
        mlp(seed=0)(x[:, :2])
    assert caught.value.__notes__ == ["in layers[0] of Sequential"]
    with pytest.raises(ValueError, match=r"Dense\(4, 5\) expects an input of shape \(..., 4\), got \(5, 2\)") as caught:
        bp.grad(lambda net: np.sum(net(x)))(nn.Sequential(mlp(), nn.Dense(4, 5), seed=0))
    assert caught.value.__notes__ == ["in layers[1] of Sequential"]


@pytest.mark.parametrize("dtype", ["int64", "float64"])
def test_a_dtype_that_does_not_fit_names_both(dtype):
    with pytest.raises(TypeError, match=rf"Dense\(3, 4\).*input of {dtype}, W of float32, b of float32"):
        mlp(seed=0)(x.astype(dtype))
    with pytest.raises(TypeError, match=rf"input of {dtype}, W of float32"):
        bp.grad(lambda net, x: np.sum(net(x)))(mlp(seed=0), x.astype(dtype))


def test_libraries_that_differ_are_named():
    strict = pytest.importorskip("array_api_strict")
    with pytest.raises(TypeError, match="input of array_api_strict, W of numpy"):
        mlp(seed=0)(strict.asarray(x))


def test_what_is_no_layer_is_refused():
    with pytest.raises(TypeError, match=r"layers\[1\] is neither a layer nor a function: 'relu'"):
        nn.Sequential(nn.Dense(3, 4), "relu")
    with pytest.raises(ValueError, match="leaky_relu, elu, selu, got 'swish'"):
        nn.Dense(3, 4, "swish")
    with pytest.raises(ValueError, match=r"whole numbers from 0, got \(-1, 4\)"):
        nn.Dense(-1, 4)


def test_summary():
    expected = """\
layer        output shape  parameters
-------------------------------------
input        (5, 3)
Dense(3, 4)  (5, 4)                16
tanh         (5, 4)                 0
Dense(4, 2)  (5, 2)                10
-------------------------------------
total                              26"""
    assert nn.summary(mlp(seed=0), (5, 3)) == expected
    assert nn.summary(mlp(seed=0), x) == expected
    with pytest.raises(ValueError, match="pass an input, not a shape"):
        nn.summary(nn.Sequential(nn.relu), (5, 3))


def test_summary_of_frozen_parameters_and_of_nested_layers():
    inner = nn.Sequential(*[part for _ in range(4) for part in (nn.Dense(3, 3), nn.tanh)])
    net = nn.Sequential(nn.Residual(inner), nn.Dropout(0.5), nn.Dense(3, 2), seed=0).train().freeze("layers[2].W")
    expected = """\
layer                       output shape  parameters
----------------------------------------------------
input                       (5, 3)
Residual(...)               (5, 3)                48
  layer: Sequential(...)                          48
    layers[0]: Dense(3, 3)                        12
    layers[2]: Dense(3, 3)                        12
    layers[4]: Dense(3, 3)                        12
    layers[6]: Dense(3, 3)                        12
Dropout(0.5)                (5, 3)                 0
Dense(3, 2)                 (5, 2)                 8
----------------------------------------------------
frozen                                             6
total                                             56"""
    assert nn.summary(net, x) == expected
    assert net.layers[1].calls.value == 0
    assert net.training


def test_summary_of_a_layer_of_ones_own_with_two_inputs():
    class Own(nn.Layer):
        def __init__(self):
            self.parts = [nn.Dense(3, 4), nn.Dense(3, 4, bias=False)]
            self.scale = nn.Parameter((4,), nn.zeros)

        def __call__(self, x, z):
            return self.scale * (self.parts[0](x) + self.parts[1](z))

    expected = """\
layer                                output shape  parameters
-------------------------------------------------------------
input                                (5, 3)
input                                (5, 3)
Own(...)                             (5, 4)                32
  parts[0]: Dense(3, 4)                                    16
  parts[1]: Dense(3, 4, bias=False)                        12
-------------------------------------------------------------
total                                                      32"""
    assert nn.summary(Own().build(0), x, (5, 3)) == expected


def test_training_a_net_of_another_library(backend):
    net = bp.tree.map_leaves(backend.asarray, nn.Sequential(nn.Dense(3, 4), nn.relu, nn.Dense(4, 2), seed=0))
    opt = optim.Adam(net, 0.01)
    there, labels = backend.asarray(x), backend.asarray(np.array([0, 1, 1, 0, 1]))
    step = bp.value_and_grad(lambda net: losses.softmax_cross_entropy(net(there), labels))
    values = []
    for _ in range(3):
        value, grads = step(net)
        opt.step(grads)
        values.append(float(backend.to_numpy(value)))
    assert values[0] > values[1] > values[2]
