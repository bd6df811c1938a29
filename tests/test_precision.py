"""Mixed precision: one cast for each array, float32 results and gradients, loss scales, and training that reaches."""

import numpy as np
import pytest

import gpubp as bp
from gpubp import losses, nn, optim
from gpubp.boundary import is_inexact
from gpubp.data import digits
from gpubp.dtypes import name_of, named

HALVES = ("float16", "bfloat16")
halves = pytest.mark.parametrize("half", HALVES)
rng = np.random.default_rng(0)
X, Y = rng.normal(size=(12, 6, 6, 2)).astype("f4"), rng.normal(size=(12, 3)).astype("f4")


def having(backend, half):
    if named(backend.xp, half) is None:
        pytest.skip(f"{backend.name} has no {half}")


def on(backend, tree):
    return bp.tree.map_distinct(lambda x: backend.asarray(np.asarray(x)), tree)


def mse(net, x, y):
    return losses.mse(net(x), y)


def dense():
    return nn.Sequential(nn.Dense(6, 5), nn.tanh, nn.LayerNorm(5), nn.Dense(5, 3), seed=0), X[:, 0, :, 0]


def conv():
    layers = nn.Conv2d(2, 4, 3, bias=False), nn.BatchNorm(4), nn.relu, nn.MaxPool(2), nn.Flatten(), nn.Dense(None, 3)
    return nn.Sequential(*layers, seed=0).build(X), X


def recurrent():
    return nn.Sequential(nn.LSTM(6, 5), nn.GRU(5, 4, last=True), nn.Dense(4, 3), seed=0), X[..., 0]


def attention():
    net = nn.Sequential(nn.MultiHeadAttention(6, 2, seed=0), nn.RMSNorm(6), nn.GlobalAvgPool(), nn.Dense(6, 3), seed=0)
    return net, X[..., 0]


NETS = pytest.mark.parametrize("make", [dense, conv, recurrent, attention], ids=lambda f: f.__name__)


@halves
@NETS
def test_values_and_gradients_are_near_those_of_float64_and_of_float32_dtype(backend, half, make):
    having(backend, half)
    net, x = make()
    exact = bp.value_and_grad(mse)(net.astype("float64").train(), x.astype("f8"), Y.astype("f8"))
    value, grads = bp.value_and_grad(bp.mixed(mse, half))(
        on(backend, net).train(), backend.asarray(x), backend.asarray(Y)
    )
    tolerance = 30 * (2.0**-11 if half == "float16" else 2.0**-8)
    for found, wanted in zip(bp.tree.leaves((value, grads)), bp.tree.leaves(exact), strict=True):
        assert name_of(found.dtype) == "float32"
        gap = np.linalg.norm(backend.to_numpy(found) - wanted)
        assert gap <= tolerance * np.linalg.norm(wanted) + 1e-6


@halves
@NETS
def test_nets_of_16_bits_compute_and_differentiate_in_them(backend, half, make):
    having(backend, half)
    net, x = make()
    exact = net(x)
    net, x = on(backend, net).astype(half).train(), backend.asarray(x.astype(named(np, half)))
    value, grads = bp.value_and_grad(mse)(net, x, backend.asarray(Y))
    assert name_of(value.dtype) == "float32"
    assert {name_of(g.dtype) for g in bp.tree.leaves(grads)} == {half}
    y = net.eval()(x) if make is not conv else None
    if y is not None:
        assert name_of(y.dtype) == half
        np.testing.assert_allclose(backend.to_numpy(y).astype("f8"), exact, rtol=0.1, atol=0.1)


def test_everything_that_is_given_is_cast_once_and_nothing_else():
    seen = []

    def f(net, x, labels, y, *, weight):
        seen.append((net.first.W, net.second.W, x, labels, y, weight, net.count.value))
        return net.first(x).astype("float32").sum() * 1.0

    class Net(nn.Layer):
        def __init__(self):
            self.first, self.second = nn.Dense(3, 2), nn.Dense(3, 2)
            self.count = nn.State(np.ones(2, "f4"))

    net = Net().build(0).share("second.W", "first.W")
    x, labels = np.ones((4, 3), "f4"), np.arange(4)
    grads = bp.grad(bp.mixed(f, "bfloat16"))(net, x, labels, x, weight=np.ones(2, "f4"))
    first, second, x16, labels, y, weight, count = seen[0]
    assert first is second
    assert [name_of(v.dtype) for v in (first, x16, labels, y, weight, count)] == [
        "bfloat16", "bfloat16", "int64", "float32", "float32", "float32"
    ]  # fmt: skip
    assert grads.first.W is grads.second.W or np.array_equal(grads.first.W, grads.second.W)
    bp.mixed(f, "float16", argnums=(0, 1, 3))(net, x, labels, x, weight=x)
    assert name_of(seen[1][4].dtype) == "float16"


def test_frozen_parameters_have_no_gradient():
    net = nn.Sequential(nn.Dense(2, 3), nn.Dense(3, 1), seed=0)
    net.freeze("layers[0]")
    grads = bp.grad(bp.mixed(mse, "bfloat16"))(net, np.ones((4, 2), "f4"), np.ones((4, 1), "f4"))
    assert grads.layers[0].W is None
    assert grads.layers[1].W.dtype == np.float32


def test_running_statistics_stay_in_float32(backend):
    having(backend, "float16")
    net, x = conv()
    net = on(backend, net).train()
    bp.value_and_grad(bp.mixed(mse, "float16"))(net, backend.asarray(x), backend.asarray(Y))
    assert name_of(net.layers[1].mean.value.dtype) == "float32"
    assert name_of(net.astype("float16").layers[1].variance.value.dtype) == "float32"
    assert name_of(nn.BatchNorm(3, seed=0, dtype="float16").mean.value.dtype) == "float32"


@halves
def test_outside_of_transforms_it_computes_the_same(backend, half):
    having(backend, half)
    net, x = dense()
    net, x, y = on(backend, net), backend.asarray(x), backend.asarray(Y)

    def f(net, x, y):
        return losses.mse(net(x) * 0.3, y), net(x)

    (value, output), _ = bp.value_and_grad(bp.mixed(f, half), has_aux=True)(net, x, y)
    plain, plain_output = bp.mixed(f, half)(net, x, y)
    assert type(plain) is type(value)
    assert name_of(plain_output.dtype) == name_of(output.dtype) == "float32"
    np.testing.assert_array_equal(backend.to_numpy(plain_output), backend.to_numpy(output))
    np.testing.assert_array_equal(backend.to_numpy(plain), backend.to_numpy(value))


def test_checkpoints_and_derivatives_of_derivatives():
    net, x = dense()
    once = bp.grad(bp.mixed(mse, "float16"))(net, x, Y)
    again = bp.grad(bp.mixed(bp.checkpoint(mse), "float16"))(net, x, Y)
    for a, b in zip(bp.tree.leaves(once), bp.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(a, b)
    v = rng.normal(size=x.shape).astype("f4")
    found = bp.hvp(lambda x: bp.mixed(mse, "float16")(net, x, Y), (x,), (v,))[0]
    exact = bp.hvp(lambda x: mse(net, x, Y), (x,), (v,))[0]
    np.testing.assert_allclose(found, exact, atol=0.02 * np.max(np.abs(exact)))


# -- loss scales


def test_the_gradient_is_scaled_and_the_value_is_not(backend):
    having(backend, "float16")
    net, x = dense()
    net, x, y = on(backend, net), backend.asarray(x), backend.asarray(Y)
    opt = optim.SGD(net, lr=0.1, loss_scale=1024.0)
    value, scaled = bp.value_and_grad(bp.mixed(mse, "float16", opt))(net, x, y)
    plain, grads = bp.value_and_grad(bp.mixed(mse, "float16"))(net, x, y)
    assert float(value) == float(plain)
    for a, b in zip(bp.tree.leaves(scaled), bp.tree.leaves(grads), strict=True):
        a, b = backend.to_numpy(a), backend.to_numpy(b)
        np.testing.assert_allclose(a, 1024 * b, rtol=2e-2, atol=1024 * 1e-5)
    before = backend.to_numpy(net.layers[0].W).copy()
    opt.step(scaled)
    step = before - backend.to_numpy(net.layers[0].W)
    np.testing.assert_allclose(step, 0.1 * backend.to_numpy(scaled.layers[0].W) / 1024, rtol=1e-4, atol=1e-7)


def test_small_gradients_come_through_with_a_scale_alone():
    net = nn.Sequential(nn.Dense(4, 4), nn.Dense(4, 4), seed=0)
    x = np.ones((3, 4), "f4")

    def tiny(net, x):
        return losses.half_squared_error(net(x), 0 * x) * 1e-9

    lost = bp.grad(bp.mixed(tiny, "float16"))(net, x)
    assert not np.any(lost.layers[0].W)
    opt = optim.SGD(net, lr=0.1, loss_scale=2.0**24)
    kept = bp.grad(bp.mixed(tiny, "float16", opt))(net, x)
    exact = bp.grad(tiny)(net, x)
    np.testing.assert_allclose(kept.layers[0].W / 2.0**24, exact.layers[0].W, rtol=1e-2)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_after_an_overflow_the_step_is_skipped_and_the_scale_halved(backend):
    having(backend, "float16")
    net, x = dense()
    net, x, y = on(backend, net), backend.asarray(x), backend.asarray(Y)
    opt = optim.Adam(net, lr=0.01, loss_scale=optim.LossScale(2.0**40))
    step = bp.value_and_grad(bp.mixed(mse, "float16", opt))
    before = backend.to_numpy(net.layers[0].W).copy()
    value, grads = step(net, x, y)
    assert np.isfinite(float(value))
    opt.step(grads)
    assert (opt.steps, opt.skipped, float(opt.scale)) == (0, 1, 2.0**39)
    np.testing.assert_array_equal(backend.to_numpy(net.layers[0].W), before)
    for _ in range(40):
        opt.step(step(net, x, y)[1])
    assert opt.steps > 5
    assert np.all(np.isfinite(backend.to_numpy(net.layers[0].W)))
    assert float(step(net, x, y)[0]) < float(value)


def test_a_scale_begun_later_keeps_the_state():
    net, x = dense()
    other = net.copy()
    opts = [optim.Adam(net, lr=0.01), optim.Adam(other, lr=0.01)]
    for n in range(6):
        if n == 3:
            opts[0].guard(loss_scale=256.0)
        for opt, one in zip(opts, (net, other), strict=True):
            f = bp.mixed(mse, "bfloat16", opt)
            opt.step(bp.grad(f)(one, x, Y))
    assert opts[0].steps == opts[1].steps == 6
    for a, b in zip(bp.tree.leaves(net), bp.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


# -- training


def trained(half, epochs, net, loss, train, lr):
    opt = optim.Adam(net, lr=lr)
    rows = bp.fit(net, loss, opt, train, epochs=epochs, batch_size=64, progress=False, metrics=(), precision=half)
    assert {name_of(x.dtype) for x in bp.tree.leaves(net)} == {"float32"}
    assert (opt.scale is not None) == (half == "float16")
    return rows[-1]["loss"], net


def cross_entropy(net, x, y):
    return losses.softmax_cross_entropy(net(x), y)


def digits_net():
    x, y = digits()[0]
    return nn.Sequential(nn.Dense(64, 32), nn.relu, nn.Dense(32, 10), seed=0), cross_entropy, (x, y), 0.01, 8


def xor_net():
    x = np.asarray([[0, 0], [0, 1], [1, 0], [1, 1]], "f4")
    net = nn.Sequential(nn.Dense(2, 8), nn.tanh, nn.Dense(8, 1), seed=1)
    loss = lambda net, x, y: losses.binary_cross_entropy(net(x), y)  # noqa: E731
    return net, loss, (x, (x[:, :1] != x[:, 1:]).astype("f4")), 0.05, 150


def conv_net():
    x, y = digits()[0]
    layers = nn.Conv2d(1, 8, 3), nn.BatchNorm(8), nn.relu, nn.MaxPool(2), nn.Flatten(), nn.Dense(72, 10)
    return nn.Sequential(*layers, seed=0), cross_entropy, (x.reshape(-1, 8, 8, 1)[:600], y[:600]), 0.01, 4


def lstm_net():
    draw = np.random.default_rng(3)
    x = draw.normal(size=(256, 10, 2)).astype("f4")
    y = np.mean(x[..., :1], axis=1)
    return nn.Sequential(nn.LSTM(2, 12, last=True), nn.Dense(12, 1), seed=0), mse, (x, y), 0.02, 15


@pytest.mark.parametrize("make", [digits_net, xor_net, conv_net, lstm_net], ids=lambda f: f.__name__)
def test_training_reaches_the_loss_of_float32(make):
    net, loss, data, lr, epochs = make()
    start = float(loss(net.copy().train(), *data))
    exact, _ = trained(None, epochs, net.copy(), loss, data, lr)
    assert exact < start / 3
    for half in HALVES:
        reached, _ = trained(half, epochs, net.copy(), loss, data, lr)
        assert reached < 1.2 * exact + 0.002, half


def test_evaluation_in_mixed_precision():
    net, loss, data, _, _ = digits_net()
    exact = bp.evaluate(net, loss, data)
    for half in HALVES:
        found = bp.evaluate(net, loss, data, precision=half)
        assert found["loss"] == pytest.approx(exact["loss"], rel=0.01)
        assert found["accuracy"] == pytest.approx(exact["accuracy"], abs=0.02)


@halves
def test_files_keep_16_bits(half, tmp_path):
    net = conv()[0].astype(half)
    bp.save(net, tmp_path / "net.safetensors")
    other = conv()[0].astype(half)
    for p in bp.tree.leaves(other):
        p[...] = 0
    bp.load(tmp_path / "net.safetensors", other)
    for a, b in zip(bp.tree.leaves(net), bp.tree.leaves(other), strict=True):
        assert a.dtype == b.dtype == named(np, half)
        assert a.tobytes() == b.tobytes()
    with pytest.raises(ValueError, match=rf"layers\[0\].W is {half}\[.*expected float32"):
        bp.load(tmp_path / "net.safetensors", conv()[0])


@halves
def test_16_bit_nets_are_trained_with_state_in_float32(backend, half):
    having(backend, half)
    net, x = dense()
    net = on(backend, net).astype(half)
    x, y = backend.asarray(x.astype(named(np, half))), backend.asarray(Y)
    opt = optim.Adam(net, lr=0.02)
    first = float(mse(net, x, y))
    for _ in range(30):
        opt.step(bp.grad(mse)(net, x, y))
    assert {name_of(p.dtype) for p in bp.tree.leaves(net) if is_inexact(p.dtype)} == {half}
    assert float(mse(net, x, y)) < first / 2


# -- errors


def test_wrong_arguments_are_refused():
    net, x = dense()
    with pytest.raises(ValueError, match="mixed precision is in 'float16' or 'bfloat16', got 'float32'"):
        bp.mixed(mse, "float32")
    with pytest.raises(TypeError, match="mixed expects a function, got Array|mixed expects a function, got ndarray"):
        bp.mixed(x, "float16")
    with pytest.raises(TypeError, match="mixed expects an optimizer, whose loss scale it takes, got float"):
        bp.mixed(mse, "float16", 1024.0)
    with pytest.raises(TypeError, match=r"argnums=\[5\], but mixed was called with 3 positional arguments"):
        bp.mixed(mse, "float16", argnums=[5])(net, x, Y)
    with pytest.raises(TypeError, match="opt must be an optimizer, as in .*, got Sequential"):
        bp.fit(net, mse, nn.Sequential(net), (x, Y), epochs=1)
    with pytest.raises(ValueError, match="precision must be 'float16', 'bfloat16' or None, got 'half'"):
        bp.fit(net, mse, optim.SGD(net, lr=0.1), (x, Y), epochs=1, precision="half")
    double = net.astype("float64")
    with pytest.raises(ValueError, match="float32 parameters, got float64: net.astype"):
        bp.fit(double, mse, optim.SGD(double, lr=0.1), (x, Y), epochs=1, precision="float16")


def test_a_library_without_the_dtype_is_named():
    strict = pytest.importorskip("array_api_strict")
    with pytest.raises(ValueError, match="array_api_strict has no float16"):
        bp.mixed(lambda x: x, "float16")(strict.ones(3, dtype=strict.float32))


def test_16_bits_and_float32_are_not_mixed_silently():
    net, x = dense()
    with pytest.raises(TypeError, match="x of float32, W of bfloat16|input of float32"):
        net.astype("bfloat16")(x)
