from importlib.util import find_spec

import numpy as np
import pytest

import gpubp as bp
from gpubp import functions as F
from gpubp.fused import FUSED, load_kernels

rng = np.random.default_rng(0)
NAMES = ["layer_norm", "rms_norm", "group_norm", "batch_norm", "batch_norm_inference"]
IMAGES = rng.normal(size=(3, 4, 5, 6))
GAIN, BIAS = rng.normal(size=6), rng.normal(size=6)
MEAN, VARIANCE = rng.normal(size=6), rng.uniform(0.5, 2, size=6)


def call(name, x, gain=GAIN, bias=BIAS, eps=1e-5):
    """Call a function with all its arguments, in the dtype of x, and give its (first) result."""
    gain, bias, mean, variance = (v.astype(x.dtype) for v in (gain, bias, MEAN, VARIANCE))
    if name == "rms_norm":
        return F.rms_norm(x, gain, eps=eps)
    if name == "batch_norm_inference":
        return F.batch_norm_inference(x, mean, variance, gain, bias, eps=eps)
    out = FUSED[name](x, gain, bias, eps=eps, **({"groups": 2} if name == "group_norm" else {}))
    return out[0] if name == "batch_norm" else out


# -- what they compute


@pytest.mark.parametrize(
    ("f", "axes"),
    [
        (F.layer_norm, -1),
        (lambda x: F.batch_norm(x)[0], (0, 1, 2)),
        (lambda x: F.group_norm(x, groups=1), (1, 2, 3)),
        (lambda x: F.group_norm(x, groups=6), (1, 2)),
    ],
)
def test_mean_zero_and_variance_one(f, axes):
    x = 3 * IMAGES + 2
    y, variance = f(x), x.var(axis=axes)
    np.testing.assert_allclose(y.mean(axis=axes), 0, atol=1e-14)
    np.testing.assert_allclose(y.var(axis=axes), variance / (variance + 1e-5), rtol=1e-13)  # eps is added


def test_the_mean_square_of_rms_norm_is_one():
    np.testing.assert_allclose(np.mean(F.rms_norm(IMAGES, eps=0) ** 2, axis=-1), 1, rtol=1e-14)
    np.testing.assert_allclose(F.rms_norm(7 * IMAGES, eps=0), F.rms_norm(IMAGES, eps=0), rtol=1e-13)


def test_the_statistics_of_a_batch_are_its_mean_and_biased_variance():
    _, mean, variance = F.batch_norm(IMAGES)
    np.testing.assert_allclose(mean, IMAGES.mean(axis=(0, 1, 2)), rtol=1e-13)
    np.testing.assert_allclose(variance, IMAGES.var(axis=(0, 1, 2)), rtol=1e-13)


def test_inference_with_the_statistics_of_the_batch_is_the_training_form():
    y, mean, variance = F.batch_norm(IMAGES, GAIN, BIAS)
    np.testing.assert_allclose(F.batch_norm_inference(IMAGES, mean, variance, GAIN, BIAS), y, rtol=1e-12, atol=1e-13)


def test_a_gain_of_none_is_one_and_a_bias_of_none_zero():
    one, zero = np.ones(6), np.zeros(6)
    for name in NAMES[2:4]:
        options = {"groups": 3} if name == "group_norm" else {}
        for a, b in zip(
            bp.tree.leaves(FUSED[name](IMAGES, **options)),
            bp.tree.leaves(FUSED[name](IMAGES, one, zero, **options)),
            strict=True,
        ):
            np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(F.layer_norm(IMAGES), F.layer_norm(IMAGES, one, zero))
    np.testing.assert_array_equal(F.rms_norm(IMAGES), F.rms_norm(IMAGES, one))


# -- stability


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("run", ["fused", "written", "reference"])
@pytest.mark.parametrize("name", ["layer_norm", "group_norm", "batch_norm"])
def test_a_large_mean_in_float32(name, run, monkeypatch):
    """Mean 1e4, standard deviation 1, so many numbers that their sum in float32 is off: as exact as the input."""
    if run == "written":
        monkeypatch.setattr(FUSED[name], "overrides", {})
        monkeypatch.setattr(FUSED[name], "_chosen", {})
    shape = (4, 6000) if name == "layer_norm" else (4, 64, 64, 6)
    x = (1e4 + rng.normal(size=shape)).astype("float32")
    weights = rng.normal(size=shape)
    f = FUSED[name].reference if run == "reference" else FUSED[name]
    options = {"groups": 2} if name == "group_norm" else {}

    def loss(x, w):
        out = f(x, **options)
        return np.sum(w * (out[0] if type(out) is tuple else out))

    def normalized(x):
        out = f(x, **options)
        return out[0] if type(out) is tuple else out

    np.testing.assert_allclose(normalized(x), normalized(x.astype("float64")), rtol=1e-5, atol=1e-5)
    found, exact = bp.grad(loss)(x, weights.astype("float32")), bp.grad(loss)(x.astype("float64"), weights)
    np.testing.assert_allclose(found, exact, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [0.0, 1e4, -1e15])
def test_constant_input_gives_finite_gradients(name, value):
    x = np.full((3, 4, 6), value, dtype="float32")
    y, g = bp.value_and_grad(lambda x: np.sum(call(name, x) * np.arange(6, dtype="float32")))(x)
    assert np.isfinite(y)
    assert np.all(np.isfinite(g))
    if name in ("layer_norm", "group_norm", "batch_norm"):
        np.testing.assert_allclose(call(name, x), np.broadcast_to(BIAS.astype("float32"), x.shape))


def test_one_example_is_its_own_mean():
    """Its variance is 0, so that nothing of it is left; PyTorch refuses this, and so does `nn.BatchNorm`."""
    x = rng.normal(size=(1, 6))
    np.testing.assert_array_equal(F.batch_norm(x, GAIN, BIAS)[0], BIAS[None])
    np.testing.assert_array_equal(bp.grad(lambda x: np.sum(F.batch_norm(x, GAIN, BIAS)[0] * GAIN))(x), 0 * x)


# -- derivatives


@pytest.mark.parametrize("name", NAMES)
def test_second_derivatives(name):
    x = IMAGES[:2, :2, :1]
    bp.testing.check_grads(lambda x, gain, bias: np.sin(call(name, x, gain, bias)), (x, GAIN, BIAS), order=2)


def test_statistics_that_are_used_are_differentiated():
    """All three results, each alone and together; what is not used costs nothing and has no share."""
    x = rng.normal(size=(5, 6))
    u, v, w = rng.normal(size=6), rng.normal(size=6), rng.normal(size=(5, 6))
    parts = [
        lambda y, m, s: np.sum(y * w),
        lambda y, m, s: np.sum(m * u),
        lambda y, m, s: np.sum(s * v),
        lambda y, m, s: np.sum(y * w) + np.sum(m * u) + np.sum(s * v),
    ]
    gradients = [bp.grad(lambda x, g, part=part: part(*F.batch_norm(x, g, BIAS)), (0, 1))(x, GAIN) for part in parts]
    for k in range(2):
        np.testing.assert_allclose(sum(g[k] for g in gradients[:3]), gradients[3][k], rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(gradients[1][0], np.broadcast_to(u / 5, x.shape))
    np.testing.assert_allclose(gradients[2][0], (x - x.mean(axis=0)) * v * 2 / 5)
    np.testing.assert_array_equal(gradients[1][1], 0 * GAIN)


@pytest.mark.parametrize("name", NAMES)
def test_only_what_is_needed_is_computed(name):
    written = FUSED[name].written
    args = (MEAN, VARIANCE) if name == "batch_norm_inference" else ()
    options = {"groups": 2} if name == "group_norm" else {}
    needs = (False,) * (1 + len(args)) + (True,)
    y, residuals = written.forward(np, needs, IMAGES, *args, GAIN, **options)
    cotangent = (y[0], None, None) if name == "batch_norm" else y
    dx, *_, dgain = written.backward(np, needs, cotangent, residuals, **options)[: len(needs)]
    assert dx is None
    assert dgain.shape == GAIN.shape
    if name != "batch_norm":
        y, residuals = written.forward(np, (False,) * len(needs), IMAGES, *args, GAIN, **options)
        assert residuals[0] is None  # nothing of the input's size is kept


@pytest.mark.parametrize("name", NAMES)
def test_the_pullback_may_be_called_twice(name):
    y, pullback = bp.vjp(lambda x, gain: call(name, x, gain), IMAGES, GAIN)
    for a, b in zip(pullback(y), pullback(y), strict=True):
        np.testing.assert_array_equal(a, b)


# -- the kernels of NumPy, in many parts


@pytest.mark.skipif(find_spec("gpubp.kernels") is None, reason="the overrides have been taken away")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(7, 6), (8, 6), (5, 8, 3, 6), (3, 7, 5, 6), (40, 6)])
@pytest.mark.parametrize("far", [slice(0, 0), slice(1, 2), slice(None)])
@pytest.mark.parametrize("name", NAMES)
def test_many_parts_give_what_one_does(name, far, shape, dtype, monkeypatch):
    """Also where some examples, or all, are many standard deviations from 0, so that their mean is subtracted first."""
    load_kernels("numpy")
    from gpubp.kernels.numpy import normalization as kernels

    x, w = (rng.normal(size=shape).astype(dtype) for _ in range(2))
    x[far] += 100
    gain, bias = GAIN.astype(dtype), BIAS.astype(dtype)

    def gradients(*args):
        return bp.value_and_grad(lambda x, gain, bias, w: np.sum(call(name, x, gain, bias) * w), (0, 1, 2))(*args)

    monkeypatch.setattr(FUSED[name], "overrides", {})
    monkeypatch.setattr(FUSED[name], "_chosen", {})
    expected = gradients(*(v.astype("float64") for v in (x, gain, bias, w)))
    monkeypatch.undo()
    for part, wide in [(1, 1), (100, 12), (400, 24), (1 << 18, 512)]:
        monkeypatch.setattr(kernels, "PART", part)
        monkeypatch.setattr(kernels, "WIDE", wide)
        kernels._parts.cache_clear()
        kernels._beside.cache_clear()
        tolerance = 1e-10 if dtype == "float64" else 2e-4
        for a, e in zip(bp.tree.leaves(gradients(x, gain, bias, w)), bp.tree.leaves(expected), strict=True):
            assert a.dtype == dtype
            np.testing.assert_allclose(a, e, rtol=tolerance, atol=10 * tolerance)
    kernels._parts.cache_clear()
    kernels._beside.cache_clear()


# -- PyTorch


def with_torch(f, *arrays):
    """Give the value of a function of tensors, and its gradients for the cotangent cos(y)."""
    torch = pytest.importorskip("torch")
    tensors = [torch.tensor(a, requires_grad=True) for a in arrays]
    y = f(torch, *tensors)
    return [y.detach(), *torch.autograd.grad(y, tensors, torch.cos(y.detach()))]


def with_ours(f, *arrays):
    y, pullback = bp.vjp(f, *arrays)
    return [y, *pullback(np.cos(y))]


def channels_first(f):
    """Give a function of channels-last tensors by one of channels-first tensors."""
    return lambda torch, x, *rest: f(torch, x.movedim(-1, 1), *rest).movedim(1, -1)


def agree(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b.numpy(), rtol=1e-10, atol=1e-10)


SHAPES = [(5, 6), (4, 3, 6), (2, 3, 4, 6), (2, 2, 3, 2, 6)]


@pytest.mark.peers
@pytest.mark.parametrize("shape", SHAPES)
def test_pytorch_layer_and_rms_norm(shape):
    x = rng.normal(size=shape)
    agree(
        with_ours(lambda x, g, b: F.layer_norm(x, g, b, eps=0.01), x, GAIN, BIAS),
        with_torch(lambda torch, x, g, b: torch.nn.functional.layer_norm(x, (6,), g, b, eps=0.01), x, GAIN, BIAS),
    )
    agree(
        with_ours(lambda x, g: F.rms_norm(x, g, eps=0.01), x, GAIN),
        with_torch(lambda torch, x, g: torch.nn.functional.rms_norm(x, (6,), g, eps=0.01), x, GAIN),
    )


@pytest.mark.peers
@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize("shape", SHAPES)
def test_pytorch_group_norm(shape, groups):
    x = rng.normal(size=shape)
    agree(
        with_ours(lambda x, g, b: F.group_norm(x, g, b, groups=groups), x, GAIN, BIAS),
        with_torch(
            channels_first(lambda torch, x, g, b: torch.nn.functional.group_norm(x, groups, g, b)), x, GAIN, BIAS
        ),
    )


@pytest.mark.peers
@pytest.mark.parametrize("shape", SHAPES)
def test_pytorch_batch_norm(shape):
    x = rng.normal(size=shape)
    agree(
        with_ours(lambda x, g, b: F.batch_norm(x, g, b, eps=0.01)[0], x, GAIN, BIAS),
        with_torch(
            channels_first(
                lambda torch, x, g, b: torch.nn.functional.batch_norm(x, None, None, g, b, training=True, eps=0.01)
            ),
            x, GAIN, BIAS,
        ),
    )  # fmt: skip
    agree(
        with_ours(lambda x, g, b: F.batch_norm_inference(x, MEAN, VARIANCE, g, b, eps=0.01), x, GAIN, BIAS),
        with_torch(
            channels_first(
                lambda torch, x, g, b: torch.nn.functional.batch_norm(
                    x, torch.tensor(MEAN), torch.tensor(VARIANCE), g, b, eps=0.01
                )
            ),
            x, GAIN, BIAS,
        ),
    )  # fmt: skip


# -- errors


@pytest.mark.parametrize("name", NAMES)
def test_arguments_that_do_not_fit(name):
    run = FUSED[name]
    options = {"groups": 2} if name == "group_norm" else {}
    args = (MEAN, VARIANCE) if name == "batch_norm_inference" else ()
    with pytest.raises(
        ValueError, match=rf"{name} expects gain of shape \(6,\) with x of shape \(3, 4, 5, 6\), got \(1,\)"
    ):
        run(IMAGES, *args, np.ones(1), **options)
    with pytest.raises(TypeError, match=f"{name} expects arrays of one floating-point dtype.*gain of float32"):
        run(IMAGES, *args, GAIN.astype("float32"), **options)
    with pytest.raises(TypeError, match=f"{name} expects arrays of one floating-point dtype, got x of int64"):
        run(np.ones((3, 6), dtype="int64"), *(a.astype("int64") for a in args), **options)
    with pytest.raises(TypeError, match=f"{name} is defined for real arrays, got complex128"):
        run(IMAGES + 0j, *(a + 0j for a in args), **options)
    with pytest.raises(ValueError, match=f"{name} expects eps of at least 0, got -1"):
        run(IMAGES, *args, eps=-1, **options)
    with pytest.raises(ValueError, match=rf"{name} expects x of shape .*\.\.\., n\), got \(\)"):
        run(np.asarray(1.0), *args, **options)
    with pytest.raises(TypeError, match=f"{name} expects arrays, got list"):
        run([1.0, 2.0], **options) if not args else run([1.0], [0.0], [1.0])


def test_inference_needs_statistics_of_the_channels():
    with pytest.raises(ValueError, match=r"mean of shape \(6,\).*got \(5,\)"):
        F.batch_norm_inference(IMAGES, MEAN[:5], VARIANCE)
    with pytest.raises(ValueError, match=r"variance of shape \(6,\).*got \(1, 6\)"):
        F.batch_norm_inference(IMAGES, MEAN, VARIANCE[None])


@pytest.mark.parametrize("groups", [0, -2, 4, 2.0, True, None])
def test_groups_that_do_not_divide_the_channels(groups):
    with pytest.raises(
        ValueError, match=f"group_norm expects a number of groups that divides the 6 channels, got {groups}"
    ):
        F.group_norm(IMAGES, groups=groups)


def test_a_mean_of_nothing():
    for f, shape in [
        (F.layer_norm, (3, 0)),
        (F.rms_norm, (3, 0)),
        (F.batch_norm, (0, 6)),
        (lambda x: F.group_norm(x, groups=2), (3, 0, 6)),
    ]:
        with pytest.raises(ValueError, match=rf"mean of no elements with x of shape \({str(shape)[1:-1]}\)"):
            f(np.ones(shape))


def test_a_batch_has_an_axis_of_its_own():
    with pytest.raises(ValueError, match=r"batch_norm expects x of shape \(batch, \.\.\., n\), got \(6,\)"):
        F.batch_norm(GAIN)
    with pytest.raises(ValueError, match=r"group_norm expects x of shape \(batch, \.\.\., n\), got \(6,\)"):
        F.group_norm(GAIN, groups=1)
