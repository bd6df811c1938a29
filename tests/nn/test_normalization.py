import copy

import numpy as np
import pytest

import gpubp as bp
from gpubp import functions as F
from gpubp import losses, nn, optim
from gpubp.testing import assert_parity, check_grads
from gpubp.tree import map_distinct

rng = np.random.default_rng(0)
X = rng.normal(size=(4, 3, 2, 6))
WEIGHTS = rng.normal(size=X.shape)
LAYERS = {
    "LayerNorm(6)": lambda **options: nn.LayerNorm(6, **options),
    "RMSNorm(6)": lambda **options: nn.RMSNorm(6, **options),
    "GroupNorm(2, 6)": lambda **options: nn.GroupNorm(2, 6, **options),
    "BatchNorm(6)": lambda **options: nn.BatchNorm(6, **options),
}
each = pytest.mark.parametrize("name", LAYERS)


def drawn(name, **options):
    """Give a layer with a random gain and bias in float64, in training mode."""
    own = {"gain_init": nn.normal(1.0)} | ({"bias_init": nn.normal(1.0)} if name != "RMSNorm(6)" else {})
    return LAYERS[name](seed=0, dtype="float64", **own, **options).train()


def loss(layer, x=X):
    return np.sum(layer(x) * WEIGHTS[: len(x)])


def running(layer):
    return layer.mean.value, layer.variance.value


# -- all of them


@each
def test_gain_and_bias_start_as_one_and_zero(name):
    layer = LAYERS[name](seed=0)
    np.testing.assert_array_equal(layer.gain, np.ones(6, dtype="float32"))
    if name != "RMSNorm(6)":
        np.testing.assert_array_equal(layer.bias, np.zeros(6, dtype="float32"))
    assert repr(layer) == name
    assert list(layer.parameters()) == (["gain"] if name == "RMSNorm(6)" else ["gain", "bias"])


@each
@pytest.mark.parametrize("shape", [(4, 6), (4, 3, 6), (4, 3, 2, 6), (2, 3, 2, 2, 6)])
def test_any_rank_is_normalized(name, shape):
    layer = drawn(name)
    x = rng.normal(size=shape)
    options = {"groups": 2} if name == "GroupNorm(2, 6)" else {}
    affine = [layer.gain] if name == "RMSNorm(6)" else [layer.gain, layer.bias]
    function = {"LayerNorm(6)": F.layer_norm, "RMSNorm(6)": F.rms_norm, "GroupNorm(2, 6)": F.group_norm}
    f = function.get(name, lambda *args: F.batch_norm(*args)[0])
    np.testing.assert_array_equal(layer(x), f(x, *affine, **options))


@each
def test_derivatives_of_first_and_second_order(name):
    layer = drawn(name)
    x = X[:, :2, :1]
    check_grads(lambda net, x: np.sin(net(x)), (layer, x), order=2)
    check_grads(lambda net, x: np.sin(net(x)), (layer.eval(), x), order=2)


@each
def test_a_gradient_penalty(name):
    """The gradient of a gradient, through the hand-written passes' references."""
    net = nn.Sequential(nn.Dense(6, 6), drawn(name), nn.tanh, seed=0, dtype="float64").train()

    def penalty(net):
        return np.sum(bp.grad(lambda x: np.sum(net(x) ** 2))(X) ** 2)

    check_grads(penalty, (net,))


@each
def test_every_library_computes_and_trains_the_same(name):
    net = nn.Sequential(nn.Dense(6, 6), drawn(name), nn.relu, nn.Dense(6, 2), seed=0, dtype="float64").train()
    assert_parity(net, X, backends=["numpy", "standin", "array_api_strict"], steps=3)


@each
def test_a_training_step_reads_nothing_on_the_host(name):
    backend = bp.testing.backends.load("standin")
    net = map_distinct(backend.asarray, drawn(name, **({"momentum": None} if name == "BatchNorm(6)" else {})))
    x = backend.asarray(X)
    with backend.xp.no_host_reads():
        bp.value_and_grad(lambda net: np.sum(net(x) ** 2))(net)


@each
def test_a_length_that_the_first_batch_tells(name):
    layer = {"GroupNorm(2, 6)": lambda: nn.GroupNorm(2, None, seed=0)}.get(
        name, lambda: getattr(nn, name[:-3])(None, seed=0)
    )()
    assert "None" in repr(layer)
    layer.build(X.astype("float32"))
    assert repr(layer) == name
    for a, b in zip(layer.state().values(), LAYERS[name](seed=0).state().values(), strict=True):
        np.testing.assert_array_equal(a, b)


@each
def test_inputs_that_do_not_fit(name):
    layer = LAYERS[name](seed=0)
    escaped = name.replace("(", r"\(").replace(")", r"\)")
    for mode in (layer, layer.copy().train()):
        with pytest.raises(ValueError, match=rf"{escaped} expects an input of shape \(\.\.\., 6\), got \(4, 5\)"):
            mode(np.ones((4, 5), dtype="float32"))
        with pytest.raises(TypeError, match=f"{escaped} .* input of float64, gain of float32"):
            mode(X)
        with pytest.raises(TypeError, match=f"{escaped} expects arrays, got None"):
            mode(None)
        with pytest.raises(ValueError, match=rf"{escaped} expects an input of shape \(\.\.\., 6\), got \(\)"):
            mode(np.ones((), dtype="float32"))
    with pytest.raises(RuntimeError, match=f"{escaped} has no parameters yet"):
        LAYERS[name]()(X)
    with pytest.raises(ValueError, match=f"{name[:-3].split('(')[0]} expects eps of at least 0, got -1"):
        LAYERS[name](eps=-1)


@pytest.mark.parametrize("name", ["LayerNorm(6)", "GroupNorm(2, 6)", "BatchNorm(6)"])
def test_without_gain_and_bias(name):
    layer = LAYERS[name](gain=False, bias=False, eps=0.1, seed=0, dtype="float64")
    assert layer.parameters() == {}
    assert repr(layer) == name.replace(")", ", eps=0.1, gain=False, bias=False)")
    np.testing.assert_array_equal(layer(X), LAYERS[name](eps=0.1, seed=0, dtype="float64")(X))
    for mode in (layer, layer.copy().train()):
        with pytest.raises(ValueError, match=r"expects an input of shape \(\.\.\., 6\), got \(4, 5\)"):
            mode(np.ones((4, 5)))
    only = LAYERS[name](bias=False, seed=0)
    assert list(only.parameters()) == ["gain"]
    assert LAYERS[name](gain=False, seed=0).gain is None


def test_groups_must_divide_the_channels():
    with pytest.raises(ValueError, match="GroupNorm expects a number of groups that divides the 6 channels, got 4"):
        nn.GroupNorm(4, 6)
    layer, x = nn.GroupNorm(4, None, seed=0), X.astype("float32")
    with pytest.raises(ValueError, match=r"GroupNorm\(4, None\) expects .* that divides the 6 channels, got 4"):
        layer(x)
    assert layer(x[..., :4]).shape == (*x.shape[:-1], 4)  # the wrong batch has left nothing


# -- batch normalization: modes and running averages


def test_training_normalizes_with_the_batch_and_evaluation_with_the_averages():
    layer = drawn("BatchNorm(6)")
    assert np.all(layer.mean.value == 0)
    assert np.all(layer.variance.value == 1)
    y = layer(X)
    np.testing.assert_array_equal(y, F.batch_norm(X, layer.gain, layer.bias)[0])
    mean, variance = running(layer)
    np.testing.assert_allclose(mean, 0.1 * X.mean(axis=(0, 1, 2)), rtol=1e-13)
    np.testing.assert_allclose(variance, 0.9 + 0.1 * X.var(axis=(0, 1, 2), ddof=1), rtol=1e-13)
    layer.eval()
    expected = (X - mean) / np.sqrt(variance + 1e-5) * layer.gain + layer.bias
    np.testing.assert_allclose(layer(X), expected, rtol=1e-12)
    assert layer.mean.value is mean  # evaluation changes nothing
    for k in range(4):
        np.testing.assert_allclose(layer(X)[k], layer(X[k : k + 1])[0], rtol=1e-12)


def test_a_momentum_of_none_averages_all_batches():
    layer = drawn("BatchNorm(6)", momentum=None)
    for part in (X[:2], X[2:], 2 * X[:2]):
        layer(part)
    means = [part.mean(axis=(0, 1, 2)) for part in (X[:2], X[2:], 2 * X[:2])]
    variances = [part.var(axis=(0, 1, 2), ddof=1) for part in (X[:2], X[2:], 2 * X[:2])]
    np.testing.assert_allclose(layer.mean.value, np.mean(means, axis=0), rtol=1e-12)
    np.testing.assert_allclose(layer.variance.value, np.mean(variances, axis=0), rtol=1e-12)
    assert layer.batches.value == 3
    assert repr(layer) == "BatchNorm(6, momentum=None)"


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_averages_keep_dtype_and_library(backend, momentum, dtype):
    layer = map_distinct(backend.asarray, nn.BatchNorm(6, momentum=momentum, seed=0, dtype=dtype).train())
    x = backend.asarray(X.astype(dtype))
    bp.value_and_grad(lambda layer: np.sum(layer(x) ** 2))(layer)
    for array in layer.state().values():
        assert array.dtype == x.dtype
        assert type(array) is type(x) or array.ndim == 0
    rtol, atol = (1e-4, 1e-6) if dtype == "float32" else (1e-12, 1e-14)
    expected = (0.1 if momentum else 1) * X.mean(axis=(0, 1, 2))
    np.testing.assert_allclose(backend.to_numpy(layer.mean.value), expected, rtol=rtol, atol=atol)


def test_transforms_of_any_order_count_a_batch_once():
    for transform in (bp.grad(loss), bp.value_and_grad(loss), lambda net: bp.hvp(loss, (net,), (net,))):
        layer = drawn("BatchNorm(6)")
        transform(layer)
        assert type(layer.mean.value) is np.ndarray
        np.testing.assert_allclose(layer.mean.value, 0.1 * X.mean(axis=(0, 1, 2)), rtol=1e-12)


def test_check_grads_leaves_the_averages_as_they_were():
    layer = drawn("BatchNorm(6)", momentum=None)
    layer(X)
    before = running(layer)
    check_grads(lambda net, x: net(x), (layer, X), order=2)
    assert running(layer)[0] is before[0]
    assert running(layer)[1] is before[1]
    assert layer.batches.value == 1


@pytest.mark.parametrize("momentum", [0.1, None])
def test_checkpoint_gives_the_same_gradients_and_counts_once(momentum):
    def two_steps(wrap):
        def net_loss(net):
            h = wrap(lambda x: net.layers[1](net.layers[0](x)))(X)
            return np.sum(net.layers[2](h) * WEIGHTS)

        net = nn.Sequential(nn.Dense(6, 6), nn.BatchNorm(6, momentum=momentum), nn.tanh, seed=0, dtype="float64")
        return [bp.grad(net_loss)(net.train()) for _ in range(2)][1], net

    (expected, plain), (found, kept) = two_steps(lambda f: f), two_steps(bp.checkpoint)
    for a, e in zip(found.parameters().values(), expected.parameters().values(), strict=True):
        np.testing.assert_array_equal(a, e)
    for a, e in zip(kept.state().values(), plain.state().values(), strict=True):
        np.testing.assert_array_equal(a, e)


def test_state_in_and_out_and_copies():
    layer = drawn("BatchNorm(6)", momentum=None)
    layer(X)
    assert list(layer.state()) == ["gain", "bias", "mean", "variance", "batches"]
    other = nn.BatchNorm(6, momentum=None, seed=1, dtype="float64").load_state(layer.state())
    np.testing.assert_array_equal(other(X), layer.copy().eval()(X))
    deep = copy.deepcopy(layer)
    deep(X)
    assert layer.batches.value == 1
    assert deep.batches.value == 2


def test_a_summary_counts_no_batch():
    net = nn.Sequential(nn.Dense(3, 6), nn.BatchNorm(6), seed=0).train()
    assert "BatchNorm(6)  (2, 6)                12" in nn.summary(net, (2, 3))
    np.testing.assert_array_equal(net.layers[1].mean.value, np.zeros(6))
    assert net.layers[1].training


def test_one_value_a_channel_has_no_variance():
    layer = nn.BatchNorm(6, seed=0, dtype="float64").train()
    for shape in [(1, 6), (1, 1, 1, 6), (6,)]:
        with pytest.raises(ValueError, match=r"BatchNorm\(6\) expects several examples or positions in training, got"):
            layer(np.ones(shape))
    assert np.all(layer.mean.value == 0)
    layer(np.ones((1, 2, 6)))
    np.testing.assert_array_equal(layer.eval()(np.ones(6)).shape, (6,))
    with pytest.raises(ValueError, match=r"mean of no elements with x of shape \(0, 6\)"):
        layer.train()(np.ones((0, 6)))
    assert layer.eval()(np.ones((0, 6))).shape == (0, 6)


def test_options_of_batch_norm():
    for momentum in (-0.1, 1.5):
        with pytest.raises(ValueError, match=f"BatchNorm expects a momentum from 0 to 1, or None, got {momentum}"):
            nn.BatchNorm(6, momentum=momentum)
    layer = nn.BatchNorm(6, momentum=0.01, eps=1e-3, bias=False, seed=0)
    assert repr(layer) == "BatchNorm(6, momentum=0.01, eps=0.001, bias=False)"
    bare = nn.BatchNorm(None, gain=False, bias=False, seed=0).train()
    with pytest.raises(TypeError, match="input of float64, mean of float32"):
        nn.BatchNorm(6, gain=False, bias=False, seed=0).train()(X)
    assert bare.build(X.astype("float32")).mean.value.shape == (6,)


def test_a_net_with_batch_norm_learns():
    data = np.random.default_rng(1)
    x = (100 + data.normal(size=(64, 5))).astype("float32")
    labels = (x[:, 0] > 100).astype("int64")
    net = nn.Sequential(nn.BatchNorm(5), nn.Dense(5, 8), nn.BatchNorm(8), nn.relu, nn.Dense(8, 2), seed=0)
    opt, step = optim.Adam(net, 0.02), bp.value_and_grad(lambda net: losses.softmax_cross_entropy(net(x), labels))
    net.train()
    for _ in range(150):
        opt.step(step(net)[1])
    net.eval()
    assert np.mean(np.argmax(net(x), axis=1) == labels) > 0.95


# -- PyTorch


@pytest.mark.peers
@pytest.mark.parametrize("momentum", [0.1, 0.7, None])
@pytest.mark.parametrize("shape", [(5, 6), (4, 3, 6), (3, 2, 4, 6), (2, 2, 3, 2, 6)])
def test_pytorch_keeps_the_same_averages_and_gradients(shape, momentum):
    torch = pytest.importorskip("torch")
    kind = {2: "BatchNorm1d", 3: "BatchNorm1d", 4: "BatchNorm2d", 5: "BatchNorm3d"}[len(shape)]
    theirs = getattr(torch.nn, kind)(6, momentum=momentum, eps=1e-3, dtype=torch.float64)
    layer = drawn("BatchNorm(6)", momentum=momentum, eps=1e-3)
    with torch.no_grad():
        theirs.weight.copy_(torch.tensor(layer.gain))
        theirs.bias.copy_(torch.tensor(layer.bias))

    def same(ours, tensor):
        np.testing.assert_allclose(ours, tensor.detach().numpy(), rtol=1e-10, atol=1e-10)

    for k in range(4):
        if k == 3:
            layer.eval()
            theirs.eval()
        x = rng.normal(size=shape) + k
        y, pullback = bp.vjp(lambda layer, x: layer(x), layer, x)
        dlayer, dx = pullback(np.cos(y))
        inputs = torch.tensor(x, requires_grad=True)
        out = theirs(inputs.movedim(-1, 1)).movedim(1, -1)
        expected = torch.autograd.grad(out, (inputs, theirs.weight, theirs.bias), torch.cos(out.detach()))
        same(y, out)
        for a, e in zip((dx, dlayer.gain, dlayer.bias), expected, strict=True):
            same(a, e)
        same(layer.mean.value, theirs.running_mean)
        same(layer.variance.value, theirs.running_var)
