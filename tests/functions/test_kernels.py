"""The overrides are optional: without them every function gives the same."""

import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec

import numpy as np
import pytest

import gpubp as bp
from gpubp import losses, nn, optim
from gpubp.device import raw_namespace
from gpubp.functions.update import Store
from gpubp.fused import FUSED, load_kernels
from gpubp.testing.catalogue import CATALOGUE

OVERRIDDEN = str.split(
    "attention avg_pool batch_norm batch_norm_inference convolution convolution_transpose dense elu embedding gelu "
    "group_norm gru half_squared_error layer_norm log_softmax lstm max_pool mean_half_squared_error mse relu rms_norm "
    "rnn rotary selu sigmoid silu softmax softmax_cross_entropy softplus"
)


@pytest.fixture
def without_overrides(monkeypatch):
    load_kernels("numpy")
    for fused in FUSED.values():
        monkeypatch.setattr(fused, "overrides", {})
        monkeypatch.setattr(fused, "_chosen", {})
    monkeypatch.setattr(Store, "of_library", {})


def train(steps=20):
    net = nn.Sequential(nn.Dense(2, 4), nn.sigmoid, nn.Dense(4, 3), nn.relu, nn.Dense(3, 1), seed=0, dtype="float64")
    opt = optim.AdamW(net, 0.05)
    x, y = bp.data.xor("float64")
    for _ in range(steps):
        value, grads = bp.value_and_grad(lambda net: losses.binary_cross_entropy(net(x), y))(net)
        opt.step(grads)
    return net(x), value


LABELS, CLASS_WEIGHTS = np.array([0, 4, 2, 2, 1, 3]), np.array([0.5, 1.0, 2.0, 0.3, 0.7])
WITH = train()


def test_training_gives_the_same_without_overrides(without_overrides):
    for found, expected in zip(train(), WITH, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.skipif(find_spec("gpubp.kernels") is None, reason="the overrides have been taken away")
def test_numpy_has_overrides_to_compare():
    assert {name for name, fused in FUSED.items() if "numpy" in fused.overrides} == set(OVERRIDDEN)
    assert "numpy" in Store.of_library
    assert "gpubp.kernels.numpy" in sys.modules


@pytest.mark.skipif(find_spec("gpubp.kernels") is None, reason="the overrides have been taken away")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", OVERRIDDEN)
def test_an_override_takes_samples_of_the_catalogue(name, dtype):
    """What it declines is compared with nothing, silently."""
    override, taken = FUSED[name].overrides["numpy"], 0
    for sample in CATALOGUE[name].samples(np.random.default_rng(0)):
        args = [x.astype(dtype) if getattr(x, "dtype", None) == "float64" else x for x in sample.args]
        needs = (True,) + (False,) * (len(args) - 1)
        taken += override.forward(raw_namespace(args[0]), needs, *args, **sample.kwargs) is not NotImplemented
    assert taken >= 3


# -- convolution: which way is taken, and how much at a time, depends on sizes that the catalogue's samples do not have

CONVOLUTIONS = {
    "wide, one channel": ((3, 9, 12, 1), (3, 3, 1, 2), {"padding": 1}),
    "wide, with stride": ((3, 9, 21, 1), (2, 2, 1, 2), {"stride": (1, 2), "padding": ((0, 1), (2, 0))}),
    "long, dilated": ((3, 30, 2), (3, 2, 4), {"dilation": 3, "padding": "same"}),
    "narrow, few channels": ((3, 7, 8, 3), (3, 3, 3, 5), {"padding": 1}),
    "narrow, strided and dilated": ((3, 9, 9, 2), (2, 3, 2, 5), {"stride": 2, "dilation": (1, 2), "padding": (0, 2)}),
    "narrow, three axes": ((2, 4, 3, 5, 2), (2, 2, 2, 2, 3), {"stride": (2, 1, 1), "padding": 1}),
    "many channels": ((3, 6, 5, 10), (3, 3, 10, 9), {"padding": "same"}),
    "many channels, stride": ((3, 6, 5, 10), (3, 3, 10, 9), {"padding": "same", "stride": (2, 1)}),
    "more padding than window": ((2, 6, 4, 9), (2, 1, 9, 10), {"padding": ((2, 3), (1, 1))}),
    "one by one": ((3, 5, 4, 9), (1, 1, 9, 10), {}),
    "one by one, stride": ((3, 5, 4, 9), (1, 1, 9, 10), {"stride": 2}),
    "depthwise": ((3, 9, 6, 4), (3, 3, 1, 4), {"groups": 4, "padding": 1}),
    "depthwise, stride": ((3, 9, 7, 4), (3, 3, 1, 4), {"groups": 4, "padding": ((1, 0), (0, 2)), "stride": (2, 3)}),
    "depthwise, dilated": ((3, 9, 9, 4), (3, 2, 1, 4), {"groups": 4, "dilation": 2, "stride": (1, 2)}),
    "depthwise, one axis": ((3, 9, 4), (3, 1, 4), {"groups": 4, "padding": "same", "stride": 2}),
    "depthwise, three axes": ((3, 4, 4, 3, 4), (2, 2, 2, 1, 4), {"groups": 4, "stride": (2, 1, 2), "padding": 1}),
    "depthwise, two outputs each": ((3, 6, 6, 3), (3, 3, 1, 6), {"groups": 3, "padding": 1}),
    "groups": ((3, 6, 6, 6), (3, 3, 2, 9), {"groups": 3, "padding": 1, "stride": 2}),
}


@pytest.mark.parametrize("case", CONVOLUTIONS)
@pytest.mark.parametrize("size", [1, 1000, 4000, None])
@pytest.mark.parametrize("name", ["convolution", "convolution_transpose"])
def test_every_way_to_convolve_is_the_reference(case, size, name, monkeypatch):
    convolution = pytest.importorskip("gpubp.kernels.numpy.convolution")
    if size is not None:
        monkeypatch.setattr(convolution, "BUFFER", size)
        monkeypatch.setattr(convolution, "LINES", size)
    rng = np.random.default_rng(0)
    x, W, options = CONVOLUTIONS[case]
    args = [rng.normal(size=shape) for shape in (x, W, W[-1:])]
    fused = FUSED[name]
    y, pullback = bp.vjp(lambda *args: fused(*args, **options), *args)
    expected, reference = bp.vjp(lambda *args: fused.reference(*args, **options), *args)
    np.testing.assert_allclose(y, expected, rtol=1e-10, atol=1e-12)
    dY = rng.normal(size=y.shape)
    for found, wanted in zip(pullback(dY), reference(dY), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-10, atol=1e-12)


def test_the_ways_to_convolve_are_all_taken(monkeypatch):
    """By the cases above: or a threshold has moved, and one of them is not tested any more."""
    convolution = pytest.importorskip("gpubp.kernels.numpy.convolution")
    taken = set()

    def watched(way, f):
        return lambda *args, **kwargs: taken.add(way) or f(*args, **kwargs)

    for way in ("_columns", "_spread_lines", "_spread_columns", "_spread_depthwise", "_depthwise", "_by_groups"):
        monkeypatch.setattr(convolution, way, watched(way, getattr(convolution, way)))
    by_tap = convolution._by_tap
    monkeypatch.setattr(convolution, "_by_tap", lambda *args: taken.add(("by tap", found := by_tap(*args))) or found)
    for case in CONVOLUTIONS:
        test_every_way_to_convolve_is_the_reference(case, None, "convolution", pytest.MonkeyPatch())
    assert taken == {
        *("_columns", "_spread_lines", "_spread_columns", "_spread_depthwise", "_depthwise", "_by_groups"),
        *(("by tap", True), ("by tap", False)),
    }


def test_buffers_are_not_shared_by_threads():
    rng = np.random.default_rng(0)
    inputs = [rng.normal(size=(8, 12, 12, 6)) for _ in range(4)]
    W = rng.normal(size=(3, 3, 6, 9))

    def f(x):
        return bp.grad(lambda x, W: np.sum(FUSED["max_pool"](FUSED["convolution"](x, W), window=2)), (0, 1))(x, W)

    expected = [f(x) for x in inputs]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            for found, wanted in zip(pool.map(f, inputs), expected, strict=True):
                for a, b in zip(found, wanted, strict=True):
                    np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-11)


@pytest.mark.skipif(find_spec("gpubp.kernels") is None, reason="the overrides have been taken away")
@pytest.mark.parametrize("block", [1, 7, 40])
@pytest.mark.parametrize(
    "run",
    [
        lambda F, x: F["gelu"](x),
        lambda F, x: F["gelu"](x, approximate="tanh"),
        lambda F, x: F["silu"](x),
        lambda F, x: F["softplus"](x.T),
        lambda F, x: F["softmax"](x),
        lambda F, x: F["log_softmax"](x.T),
        lambda F, x: F["softmax_cross_entropy"](x, LABELS),
        lambda F, x: F["softmax_cross_entropy"](x, LABELS, CLASS_WEIGHTS[LABELS], CLASS_WEIGHTS, label_smoothing=0.2),
        lambda F, x: F["softmax_cross_entropy"](x, LABELS, ignore_index=2, reduction="sum"),
    ],
)
def test_blocks_make_a_whole(run, block, monkeypatch):
    load_kernels("numpy")
    for name in ("smooth", "softmax", "cross_entropy"):
        monkeypatch.setattr(sys.modules[f"gpubp.kernels.numpy.{name}"], "BLOCK", block)
    x = np.random.default_rng(0).normal(size=(6, 5))
    found, pullback = bp.vjp(lambda x: run(FUSED, x), x)
    expected, reference = bp.vjp(lambda x: run({name: f.reference for name, f in FUSED.items()}, x), x)
    np.testing.assert_allclose(found, expected, rtol=1e-13, atol=1e-15)
    g = np.random.default_rng(1).normal(size=found.shape)
    np.testing.assert_allclose(pullback(g)[0], reference(g)[0], rtol=1e-12, atol=1e-14)


@pytest.mark.skipif(find_spec("gpubp.kernels") is None, reason="the overrides have been taken away")
def test_options_of_cross_entropy_have_their_kernel():
    forward = FUSED["softmax_cross_entropy"].overrides["numpy"].forward
    z = np.random.default_rng(0).normal(size=(6, 5))
    for options in ({"label_smoothing": 0.1}, {"ignore_index": 2}, {"reduction": "sum"}):
        assert forward(np, (True, False), z, LABELS, **options) is not NotImplemented
    assert forward(np, (True, False), z, LABELS, label_smoothing=0.1, reduction="none") is NotImplemented
    assert forward(np, (True, False, True), z, LABELS, np.ones(6)) is NotImplemented  # gradients of weights
