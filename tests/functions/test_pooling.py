import numpy as np
import pytest

import gpubp as bp
from gpubp import functions as F
from gpubp.fused import FUSED

rng = np.random.default_rng(0)
x = rng.normal(size=(2, 5, 6, 3))


def routed(which, image, **options):
    """Return the maxima and, for cotangents 1, 2, 3 ..., the gradient of an image (height, width)."""
    x = image[None, ..., None]
    if which == "written":
        passes = FUSED["max_pool"].written
        y, residuals = passes.forward(np, (True,), x, **options)
        (dX,) = passes.backward(np, (True,), counted(y), residuals, **options)
    else:
        f = F.max_pool if which == "override" else F.max_pool.reference
        y, pullback = bp.vjp(lambda x: f(x, **options), x)
        (dX,) = pullback(counted(y))
    np.testing.assert_array_equal(F.max_pool(x, **options), y)
    return y[0, ..., 0], dX[0, ..., 0]


def counted(y):
    return np.arange(1.0, y.size + 1).reshape(y.shape)


each_way = pytest.mark.parametrize("which", ["reference", "written", "override"])
NAN, INF = np.nan, np.inf


@each_way
@pytest.mark.parametrize("value", [0.0, -INF, INF, NAN])
def test_the_first_of_equal_elements_takes_the_gradient(which, value):
    y, dX = routed(which, np.full((2, 4), value), window=2)
    np.testing.assert_array_equal(y, [[value, value]])
    np.testing.assert_array_equal(dX, [[1, 0, 2, 0], [0, 0, 0, 0]])


@each_way
@pytest.mark.parametrize("value", [0.0, -INF, INF, NAN])
def test_padding_is_never_the_maximum(which, value):
    y, dX = routed(which, np.full((2, 3), value), window=2, padding=1)
    np.testing.assert_array_equal(y, np.full((2, 2), value))
    np.testing.assert_array_equal(dX, [[1, 2, 0], [3, 4, 0]])


@pytest.mark.parametrize("f", [F.max_pool, F.max_pool.reference], ids=["override", "reference"])
@pytest.mark.parametrize("stride", [1, 2])
def test_an_infinite_cotangent_goes_to_the_maximum_alone(f, stride):
    y, pullback = bp.vjp(lambda x: f(x, window=2, stride=stride), np.arange(4.0)[None, :, None])
    (dX,) = pullback(np.full(y.shape, INF))
    np.testing.assert_array_equal(dX[0, :, 0], [0, INF, INF, INF] if stride == 1 else [0, INF, 0, INF])


@each_way
def test_ties_are_broken_by_rows(which):
    image = np.array([[0.0, 1.0, 5.0, 7.0], [1.0, 0.0, 7.0, 7.0], [3.0, 2.0, 1.0, 1.0], [3.0, 3.0, 2.0, 2.0]])
    y, dX = routed(which, image, window=2)
    np.testing.assert_array_equal(y, [[1, 7], [3, 2]])
    np.testing.assert_array_equal(dX, [[0, 1, 0, 2], [0, 0, 0, 0], [3, 0, 0, 0], [0, 0, 4, 0]])


@each_way
def test_ties_of_overlapping_windows_add_up(which):
    _, dX = routed(which, np.ones((3, 3)), window=2, stride=1)
    np.testing.assert_array_equal(dX, [[1, 2, 0], [3, 4, 0], [0, 0, 0]])


@each_way
@pytest.mark.parametrize(
    ("image", "first"),
    [([[1, NAN], [NAN, 2]], (0, 1)), ([[NAN, 9], [2, NAN]], (0, 0)), ([[1, 2], [INF, NAN]], (1, 1))],
)
def test_the_first_not_a_number_is_the_maximum(which, image, first):
    y, dX = routed(which, np.array(image), window=2)
    assert np.isnan(y).all()
    assert dX[first] == np.sum(dX) == 1


def test_averages():
    y = F.avg_pool(x, window=(2, 3))
    np.testing.assert_allclose(y[:, 1, 1], np.mean(x[:, 2:4, 3:6], axis=(1, 2)), rtol=1e-12)
    np.testing.assert_allclose(F.global_avg_pool(x), np.mean(x, axis=(1, 2)), rtol=1e-12)
    np.testing.assert_allclose(F.adaptive_avg_pool(x, size=1)[:, 0, 0], np.mean(x, axis=(1, 2)), rtol=1e-12)
    np.testing.assert_allclose(F.adaptive_avg_pool(x, size=(5, 6)), x, rtol=1e-12)


def test_zeros_outside_count_or_do_not():
    line = np.ones((1, 4, 1))
    np.testing.assert_allclose(F.avg_pool(line, window=3, padding=1, stride=1)[0, :, 0], [2 / 3, 1, 1, 2 / 3])
    y = F.avg_pool(line, window=3, padding=1, stride=1, count_include_pad=False)
    np.testing.assert_array_equal(y[0, :, 0], [1, 1, 1, 1])


# -- PyTorch


def same_as_pytorch(f, theirs, x):
    torch = pytest.importorskip("torch")
    y, pullback = bp.vjp(f, x)
    dY = np.cos(np.arange(y.size).reshape(y.shape))
    t = torch.tensor(x, requires_grad=True)
    expected = theirs(torch.nn.functional, t.movedim(-1, 1)).movedim(1, -1)
    (grad,) = torch.autograd.grad(expected, t, torch.tensor(dY))
    np.testing.assert_allclose(y, expected.detach().numpy(), rtol=1e-10)
    np.testing.assert_allclose(pullback(dY)[0], grad.numpy(), rtol=1e-10, atol=1e-12)


OPTIONS = [
    {"window": 2},
    {"window": 3, "stride": 2},
    {"window": 3, "stride": 1, "padding": 1},
    {"window": 2, "stride": 3, "padding": 1},
]


@pytest.mark.peers
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("ties", [False, True])
def test_pytorch_has_the_same_maxima(rank, options, ties):
    x = rng.normal(size=(2, *(7, 8, 6)[:rank], 3))
    x = np.round(x) if ties else x
    theirs = {"kernel_size" if k == "window" else k: v for k, v in options.items()}
    same_as_pytorch(lambda x: F.max_pool(x, **options), lambda nn, x: getattr(nn, f"max_pool{rank}d")(x, **theirs), x)


@pytest.mark.peers
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("count", [False, True])
def test_pytorch_has_the_same_averages(rank, options, count):
    x = rng.normal(size=(2, *(7, 8, 6)[:rank], 3))
    theirs = {"kernel_size" if k == "window" else k: v for k, v in options.items()}
    same_as_pytorch(
        lambda x: F.avg_pool(x, **options, count_include_pad=count),
        lambda nn, x: getattr(nn, f"avg_pool{rank}d")(x, **theirs, count_include_pad=count),
        x,
    )


@pytest.mark.peers
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("size", [1, 2, 3, 5, 9])
def test_pytorch_has_the_same_adaptive_averages(rank, size):
    x = rng.normal(size=(2, *(7, 8, 6)[:rank], 3))
    same_as_pytorch(
        lambda x: F.adaptive_avg_pool(x, size=size),
        lambda nn, x: getattr(nn, f"adaptive_avg_pool{rank}d")(x, size),
        x,
    )


# -- what does not fit


@pytest.mark.parametrize("name", ["max_pool", "avg_pool"])
@pytest.mark.parametrize(
    ("x", "options", "message"),
    [
        (x[0, 0], {"window": 2}, r"at least one spatial axis and no empty one, got \(6, 3\)"),
        (x[:, :0], {"window": 1}, r"no empty one, got \(2, 0, 6, 3\)"),
        (x, {"window": 6}, r"a window of 6 does not fit into an input of spatial shape \(5, 6\) with padding \(0, 0\)"),
        (x, {"window": 0}, "window as a whole number from 1, .* got 0"),
        (x, {"window": 2, "padding": 2}, r"padding less than the window \(2, 2\), got 2"),
        (x, {"window": 2, "stride": "two"}, "stride .* got 'two'"),
    ],
)
def test_what_does_not_fit_is_named(name, x, options, message):
    with pytest.raises(ValueError, match=f"{name}.*{message}"):
        getattr(F, name)(x, **options)


def test_what_does_not_fit_other_means_is_named():
    with pytest.raises(ValueError, match=r"global_avg_pool .*got \(2, 3\)"):
        F.global_avg_pool(x[:, 0, 0])
    with pytest.raises(ValueError, match="adaptive_avg_pool expects size as a whole number from 1, .* got 0"):
        F.adaptive_avg_pool(x, size=0)


@pytest.mark.parametrize("f", [F.max_pool, F.avg_pool])
def test_whole_numbers_are_refused(f):
    with pytest.raises(TypeError, match="floating-point dtype, got int64"):
        f(np.ones((1, 4, 1), dtype="int64"), window=2)


def test_a_maximum_of_complex_numbers_does_not_exist():
    with pytest.raises(TypeError, match="real arrays, got complex128"):
        F.max_pool(x * 1j, window=2)
