import numpy as np
import pytest

import gpubp as bp
from gpubp import functions as F
from gpubp import losses, nn, optim
from gpubp.nn.initializers import fans
from gpubp.testing.backends import load

rng = np.random.default_rng(0)
LAYERS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSES = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}


@pytest.mark.parametrize("rank", LAYERS)
def test_a_layer_is_its_function(rank):
    x = rng.normal(size=(2, *(5,) * rank, 4))
    options = {"stride": 2, "padding": 1, "dilation": 1, "groups": 2}
    layer = LAYERS[rank](4, 6, 3, **options, activation=nn.tanh, seed=0, dtype="float64")
    assert layer.W.shape == (*(3,) * rank, 2, 6)
    np.testing.assert_array_equal(layer(x), F.convolution(x, layer.W, layer.b, **options, activation="tanh"))
    layer = TRANSPOSES[rank](4, 6, 3, **options, output_padding=1, seed=0, dtype="float64")
    assert layer.W.shape == (*(3,) * rank, 2, 6)
    np.testing.assert_array_equal(layer(x), F.convolution_transpose(x, layer.W, layer.b, **options, output_padding=1))


def test_the_window_says_how_many_axes_there_are():
    x = rng.normal(size=(2, 5, 6, 3))
    layer, same = (nn.Conv(3, 4, (2, 3), seed=0, dtype="float64"), nn.Conv2d(3, 4, [2, 3], seed=0, dtype="float64"))
    np.testing.assert_array_equal(layer(x), same(x))
    assert nn.ConvTranspose(3, 4, (2,), bias=False, seed=0).b is None


def test_layers_are_shown_with_what_is_not_the_default():
    assert repr(nn.Conv2d(3, 8, 3)) == "Conv2d(3, 8, 3)"
    assert repr(nn.Conv(3, 8, (3, 3))) == "Conv(3, 8, (3, 3))"
    layer = nn.Conv2d(None, 8, (1, 3), stride=2, padding="same", groups=2, activation="relu", bias=False)
    assert repr(layer) == "Conv2d(None, 8, (1, 3), stride=2, padding='same', groups=2, activation='relu', bias=False)"
    layer = nn.ConvTranspose1d(4, 2, 3, dilation=2, output_padding=1)
    assert repr(layer) == "ConvTranspose1d(4, 2, 3, output_padding=1, dilation=2)"


@pytest.mark.parametrize("make", [nn.Conv2d, nn.ConvTranspose2d])
@pytest.mark.parametrize("groups", [1, 2])
def test_the_number_of_input_channels_is_learned_from_the_first_batch(make, groups):
    x = rng.normal(size=(2, 5, 5, 4)).astype("float32")
    later = make(None, 6, 3, groups=groups, seed=0)
    known = make(4, 6, 3, groups=groups, seed=0)
    np.testing.assert_array_equal(later(x), known(x))
    np.testing.assert_array_equal(later.W, known.W)
    assert repr(later) == repr(known)


def test_the_number_of_input_channels_must_suit_the_groups():
    layer = nn.Conv2d(None, 6, 3, groups=3, seed=0)
    with pytest.raises(ValueError, match=r"\(batch, height, width, n divisible by 3\), got \(2, 5, 5, 4\)"):
        layer(np.ones((2, 5, 5, 4), dtype="float32"))
    with pytest.raises(ValueError, match=r"shape \(batch, height, width, n\), got \(2, 5, 4\)"):
        nn.Conv2d(None, 6, 3, seed=0)(np.ones((2, 5, 4), dtype="float32"))


# -- initial values


def test_fans_count_the_window():
    assert fans((3, 5, 4, 8)) == (60, 120)


@pytest.mark.parametrize("groups", [1, 4])
def test_outputs_behind_rectifiers_keep_their_second_moment(groups):
    """Which is what He's initializer is for; with inputs of second moment 1 the variance is 2, of which relu halves."""
    x = rng.normal(size=(4, 20, 20, 32)).astype("float32")
    y = nn.relu(nn.Conv2d(32, 64, 3, groups=groups, seed=0)(x))
    assert np.mean(y**2) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(("window", "stride"), [(4, 2), (2, 2), (3, 1), (2, 3)])
def test_so_do_those_of_a_transposed_convolution_with_stride(window, stride):
    x = rng.normal(size=(2, 20, 20, 32)).astype("float32")
    y = nn.ConvTranspose2d(32, 64, window, stride=stride, seed=0)(x)[:, 4:-4, 4:-4, :]
    reached = min(window / stride, 1) ** 2  # elsewhere there is nothing but zeros
    assert np.mean(nn.relu(y) ** 2) == pytest.approx(reached, rel=0.15)


def test_each_group_is_drawn_as_a_convolution_of_its_own():
    W = nn.Conv2d(64, 64, 3, groups=64, W_init=nn.glorot_uniform, seed=0).W  # fans 9 and 9
    assert np.var(W) == pytest.approx(2 / 18, rel=0.1)
    groups = W.reshape(9, 64)
    assert len(np.unique(groups.round(6), axis=1).T) == 64


# -- in a net


def lenet(**options):
    return nn.Sequential(
        nn.Conv2d(None, 4, 3, padding="same"), nn.relu, nn.MaxPool(2), nn.Conv2d(None, 6, 3), nn.tanh, nn.AvgPool(2),
        nn.Flatten(), nn.Dense(None, 10), **options,
    )  # fmt: skip


def test_a_net_learns_its_sizes_and_trains():
    x, y = rng.normal(size=(20, 8, 8, 1)).astype("float32"), rng.integers(0, 10, 20)
    net = lenet(seed=0).build(x[:2])
    assert [p.shape for p in net.parameters().values()] == [(3, 3, 1, 4), (4,), (3, 3, 4, 6), (6,), (6, 10), (10,)]
    opt, step = optim.Adam(net, 0.03), bp.value_and_grad(lambda net: losses.softmax_cross_entropy(net(x), y))
    values = []
    for _ in range(60):
        value, grads = step(net)
        opt.step(grads)
        values.append(float(value))
    assert values[0] > 2 > 0.5 > values[-1]


@pytest.mark.parametrize("activation", [nn.relu, nn.sigmoid, nn.tanh, nn.leaky_relu, nn.softmax])
def test_a_following_activation_is_computed_in_the_same_call(activation, monkeypatch):
    x = rng.normal(size=(2, 6, 6, 3))
    net = nn.Sequential(nn.Conv2d(3, 4, 3), activation, nn.Conv2d(4, 2, 3), seed=0, dtype="float64")
    expected = net.layers[2](activation(net.layers[0](x)))
    calls = []
    before = nn.Conv2d.before
    monkeypatch.setattr(nn.Conv2d, "before", lambda self, x, name: calls.append(name) or before(self, x, name))
    np.testing.assert_allclose(net(x), expected, rtol=1e-13)
    assert calls == ["identity" if activation is nn.softmax else activation.__name__, "identity"]


def test_a_subclass_is_called_as_it_is():
    class Doubled(nn.Conv2d):
        def __call__(self, x):
            return 2 * super().__call__(x)

    x = rng.normal(size=(1, 4, 4, 2))
    net = nn.Sequential(Doubled(2, 3, 2), nn.relu, seed=0, dtype="float64")
    np.testing.assert_array_equal(net(x), nn.relu(net.layers[0](x)))


def test_checkpoint_gives_the_same_gradients():
    x, y = rng.normal(size=(5, 8, 8, 1)), rng.integers(0, 10, 5)
    net = lenet(seed=0, dtype="float64").build(x)
    plain = bp.grad(lambda net: losses.softmax_cross_entropy(net(x), y))(net)
    again = bp.grad(lambda net: losses.softmax_cross_entropy(bp.checkpoint(lambda net, x: net(x))(net, x), y))(net)
    for a, b in zip(plain.parameters().values(), again.parameters().values(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_every_backend_trains_the_same_net(backend):
    x = rng.normal(size=(3, 8, 8, 1))
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding="same"), nn.relu, nn.MaxPool(2), nn.ConvTranspose2d(4, 2, 2, stride=2),
        nn.Conv2d(2, 4, 3, groups=2, stride=2), nn.tanh, nn.AvgPool(2, stride=1, padding=1, count_include_pad=False),
        nn.AdaptiveAvgPool((2, 1)), nn.Flatten(), nn.Dense(8, 3), seed=0, dtype="float64",
    )  # fmt: skip
    report = bp.testing.assert_parity(net, x, backends=["numpy", backend], steps=2)
    assert len(report.differences) == 2 + 3 * 8


def test_a_step_reads_nothing_on_the_host():
    there = load("standin")
    net = bp.tree.map_leaves(there.asarray, lenet(seed=0).build(rng.normal(size=(1, 8, 8, 1)).astype("float32")))
    x, y = there.asarray(rng.normal(size=(4, 8, 8, 1)).astype("float32")), there.asarray(np.array([0, 3, 9, 1]))
    opt = optim.Adam(net)
    step = bp.value_and_grad(lambda net, x, y: losses.softmax_cross_entropy(net(x), y))
    with there.xp.no_host_reads():
        for _ in range(2):
            _, grads = step(net, x, y)
            opt.step(grads)


@pytest.mark.peers
def test_pytorch_trains_the_same_net():
    torch = pytest.importorskip("torch")
    X, LABELS = rng.normal(size=(6, 9, 9, 2)), rng.integers(0, 3, 6)
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.relu, nn.MaxPool(2), nn.Conv2d(4, 6, 3, groups=2), nn.tanh, nn.Flatten(),
        nn.Dense(24, 3), seed=0, dtype="float64",
    )  # fmt: skip
    theirs = [torch.tensor(w, requires_grad=True) for w in net.parameters().values()]
    opt, their_opt = optim.Adam(net, 0.01), torch.optim.Adam(theirs, lr=0.01)
    step, f = bp.value_and_grad(lambda net, x, y: losses.softmax_cross_entropy(net(x), y)), torch.nn.functional
    for _ in range(5):
        value, grads = step(net, X, LABELS)
        W1, b1, W2, b2, W3, b3 = theirs
        h = torch.relu(f.conv2d(torch.tensor(X).movedim(-1, 1), W1.permute(3, 2, 0, 1), b1, padding=1))
        h = torch.tanh(f.conv2d(f.max_pool2d(h, 2), W2.permute(3, 2, 0, 1), b2, groups=2))
        their_value = f.cross_entropy(h.movedim(1, -1).flatten(1) @ W3 + b3, torch.tensor(LABELS))
        their_opt.zero_grad()
        their_value.backward()
        np.testing.assert_allclose(value, their_value.item(), rtol=1e-11)
        for ours, w in zip(grads.parameters().values(), theirs, strict=True):
            np.testing.assert_allclose(ours, w.grad.numpy(), rtol=1e-9, atol=1e-13)
        opt.step(grads)
        their_opt.step()


def test_gradient_penalty_of_a_critic():
    """Wasserstein critics are trained with one: the gradient of a gradient's norm, for every parameter."""
    x = rng.normal(size=(3, 8, 8, 1))
    critic = nn.Sequential(
        nn.Conv2d(1, 3, 3, stride=2, padding=1), nn.tanh, nn.Conv2d(3, 4, 3, groups=1), nn.sigmoid, nn.GlobalAvgPool(),
        nn.Dense(4, 1), seed=0, dtype="float64",
    )  # fmt: skip

    def penalty(critic):
        g = bp.grad(lambda x: bp.array_namespace(x).sum(critic(x)))(x)
        xp = bp.array_namespace(g)
        norms = xp.sqrt(xp.sum(g * g, axis=(1, 2, 3)))
        return xp.mean((norms - 1) ** 2)

    bp.testing.check_grads(penalty, (critic,), order=1)
    assert all(np.any(g) for name, g in bp.grad(penalty)(critic).parameters().items() if name != "layers[5].b")


# -- what does not fit


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.Conv(3, 4, 3), "Conv expects window as a tuple with a length for each of one to three .* got 3"),
        (lambda: nn.Conv(3, 4, (1, 1, 1, 1)), r"got \(1, 1, 1, 1\)"),
        (lambda: nn.Conv2d(3, 4, (3,)), r"Conv2d expects window .* 2 spatial axes, got \(3,\)"),
        (lambda: nn.Conv2d(3, 4, 3, stride=0), "Conv2d expects stride .* got 0"),
        (lambda: nn.Conv2d(3, 4, 3, padding="full"), "Conv2d expects padding .* got 'full'"),
        (lambda: nn.Conv2d(3, 4, 3, groups=2), "n_in=3 and n_out=4 divisible by groups=2"),
        (lambda: nn.ConvTranspose2d(4, 3, 3, groups=2), "ConvTranspose2d expects n_in=4 and n_out=3"),
        (lambda: nn.Conv2d(3, 4, 3, activation="gelu"), "Conv2d expects an activation among .* got 'gelu'"),
    ],
)
def test_bad_options_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("name", ["Conv", "ConvTranspose"])
def test_inputs_that_do_not_fit_are_named(name):
    layers = {rank: getattr(nn, f"{name}{rank}d")(4, 6, 2, groups=2, seed=0) for rank in (1, 2, 3)}
    x = np.ones((2, 5, 5, 4), dtype="float32")
    with pytest.raises(
        ValueError, match=rf"{name}2d\(4, 6, 2, groups=2\) .*\(batch, height, width, 4\), got \(2, 5, 4\)"
    ):
        layers[2](x[:, 0])
    with pytest.raises(ValueError, match=r"\(batch, height, width, 4\), got \(2, 5, 5, 3\)"):
        layers[2](x[..., :3])
    with pytest.raises(ValueError, match=r"\(batch, length, 4\), got \(2, 5, 5, 4\)"):
        layers[1](x)
    with pytest.raises(ValueError, match=r"\(batch, depth, height, width, 4\), got \(2, 5, 5, 4\)"):
        layers[3](x)
    with pytest.raises(TypeError, match="input of float64, W of float32"):
        layers[2](x.astype("float64"))
    with pytest.raises(TypeError, match="expects arrays, got None as input"):
        layers[2](None)
    with pytest.raises(RuntimeError, match="has no parameters yet: give it"):
        getattr(nn, f"{name}2d")(4, 6, 2)(x)


def test_an_image_smaller_than_the_window_is_an_error_of_its_layer():
    net = nn.Sequential(nn.Conv2d(1, 2, 5), nn.relu, seed=0)
    with pytest.raises(
        ValueError, match=r"a window of 5 does not fit into an input of spatial shape \(4, 4\)"
    ) as caught:
        net(np.ones((1, 4, 4, 1), dtype="float32"))
    assert caught.value.__notes__ == ["in Conv2d(1, 2, 5)", "in layers[0] of Sequential"]
