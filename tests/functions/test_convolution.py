import itertools

import numpy as np
import pytest

import gpubp as bp
from gpubp import functions as F
from gpubp.fused import FUSED

rng = np.random.default_rng(0)
x, W, b = rng.normal(size=(2, 5, 6, 4)), rng.normal(size=(3, 2, 4, 6)), rng.normal(size=6)


def by_definition(x, W, b, stride=1, dilation=1):
    """Return the sum over the window, output by output, of an image that is padded already."""
    extent = [(k - 1) * dilation + 1 for k in W.shape[:2]]
    height, width = ((n - e) // stride + 1 for n, e in zip(x.shape[1:3], extent, strict=True))
    y = np.zeros((x.shape[0], height, width, W.shape[-1])) + b
    for n, i, j, o, u, v, c in itertools.product(*map(range, y.shape), *map(range, W.shape[:3])):
        y[n, i, j, o] += x[n, i * stride + u * dilation, j * stride + v * dilation, c] * W[u, v, c, o]
    return y


@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 2), (2, 2)])
def test_it_is_the_sum_over_the_window(stride, dilation):
    expected = by_definition(x, W, b, stride, dilation)
    np.testing.assert_allclose(F.convolution(x, W, b, stride=stride, dilation=dilation), expected, rtol=1e-12)


def test_padding_same_gives_size_over_stride_and_the_odd_zero_comes_last():
    for n, stride, window in itertools.product(range(1, 8), range(1, 4), range(1, 5)):
        line, kernel = np.ones((1, n, 1)), np.ones((window, 1, 1))
        y = F.convolution(line, kernel, stride=stride, padding="same")
        assert y.shape == (1, -(-n // stride), 1)
    y = F.convolution(np.ones((1, 4, 1)), np.ones((2, 1, 1)), padding="same")
    np.testing.assert_array_equal(y[0, :, 0], [2, 2, 2, 1])


@pytest.mark.parametrize(
    ("padding", "pairs"),
    [("valid", (0, 0)), (0, (0, 0)), (2, (2, 2)), ((2,), (2, 2)), (((1, 3),), (1, 3)), ([[1, 3]], (1, 3))],
)
def test_ways_to_give_padding(padding, pairs):
    line, kernel = rng.normal(size=(1, 6, 2)), rng.normal(size=(3, 2, 2))
    expected = F.convolution(np.pad(line, ((0, 0), pairs, (0, 0))), kernel)
    np.testing.assert_allclose(F.convolution(line, kernel, padding=padding), expected, rtol=1e-13)


def test_a_group_is_a_convolution_of_its_own():
    W = rng.normal(size=(2, 2, 2, 6))
    y = F.convolution(x, W, groups=2)
    np.testing.assert_allclose(y[..., :3], F.convolution(x[..., :2], W[..., :3]), rtol=1e-12)
    np.testing.assert_allclose(y[..., 3:], F.convolution(x[..., 2:], W[..., 3:]), rtol=1e-12)


@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "relu", "leaky_relu"])
def test_the_activation_is_applied_to_the_output(activation):
    y = F.convolution(x, W, b, padding="same", activation=activation)
    np.testing.assert_allclose(y, getattr(F, activation)(F.convolution(x, W, b, padding="same")), rtol=1e-12)


@pytest.mark.parametrize(
    "options",
    [{}, {"stride": 2, "output_padding": 1}, {"padding": 1, "dilation": 2}, {"stride": 3, "padding": "same"}],
)
def test_the_transpose_is_the_adjoint(options):
    back = {k: v for k, v in options.items() if k != "output_padding"}
    V = rng.normal(size=(2, 2, 3, 4))
    y = F.convolution_transpose(v := rng.normal(size=(2, 4, 5, 3)), V, **options)
    forth = F.convolution(u := rng.normal(size=y.shape), np.swapaxes(V, -1, -2), **back)
    np.testing.assert_allclose(np.sum(u * y), np.sum(forth * v), rtol=1e-12)


def test_same_makes_the_transpose_stride_times_as_large():
    for n, stride, window in itertools.product(range(1, 5), range(1, 4), range(1, 5)):
        y = F.convolution_transpose(np.ones((1, n, 1)), np.ones((window, 1, 1)), stride=stride, padding="same")
        assert y.shape == (1, n * stride, 1)


@pytest.mark.parametrize("implementation", ["written", "numpy"])
def test_only_what_is_needed_is_computed_and_kept(implementation):
    fused = FUSED["convolution"]
    F.convolution(x, W)  # loads the overrides
    passes = fused.written if implementation == "written" else fused.overrides["numpy"]
    y, residuals = passes.forward(np, (False, True, False), x, W, b)
    assert not any(r is W for r in residuals)
    assert passes.backward(np, (False, True, False), y, residuals)[0::2] == (None, None)
    y, residuals = passes.forward(np, (True, False, False), x, W, b)
    assert not any(r is x for r in residuals)
    assert passes.backward(np, (True, False, False), y, residuals)[1:] == (None, None)


def test_gradient_penalty_through_a_convolutional_net():
    """The squared norm of the input's gradient, itself differentiated for the weights, against finite differences."""
    image = rng.normal(size=(2, 6, 6, 2))
    weights = [rng.normal(size=(3, 3, 2, 3)) / 4, rng.normal(size=3), rng.normal(size=(2, 2, 3, 2)) / 4]

    def critic(x, W1, b1, W2):
        xp = bp.array_namespace(x, W1)
        h = F.max_pool(F.convolution(x, W1, b1, padding="same", activation="tanh"), window=2)
        h = F.avg_pool(F.sigmoid(F.convolution(h, W2)), window=2)
        return xp.sum(h * h)

    def penalty(*weights):
        g = bp.grad(critic)(image, *weights)
        return bp.array_namespace(g).sum(g * g)

    bp.testing.check_grads(penalty, weights, order=1)
    assert float(np.sum(bp.grad(penalty)(*weights) ** 2)) > 1e-6


# -- PyTorch

OPTIONS = {
    1: [
        {},
        {"stride": 2, "padding": 1},
        {"dilation": 3, "padding": "same"},
        {"groups": 2, "stride": 2},
        {"groups": 4, "padding": (2,)},
    ],
    2: [
        {},
        {"padding": "same"},
        {"stride": (2, 1), "padding": (1, 0)},
        {"dilation": (1, 2), "padding": "same"},
        {"groups": 2, "padding": 1, "stride": 2},
        {"groups": 4, "padding": "same"},
        {"groups": 4, "stride": 2, "padding": 1, "dilation": 2},
    ],
    3: [{}, {"stride": 2, "padding": 1}, {"groups": 2, "padding": "same"}, {"groups": 4, "stride": (1, 2, 1)}],
}


def gradients(f, *args):
    y, pullback = bp.vjp(f, *args)
    return y, pullback(np.cos(np.arange(y.size).reshape(y.shape)))


def torchs_gradients(torch, f, *args):
    args = [torch.tensor(a, requires_grad=True) for a in args]
    y = f(*args)
    grads = torch.autograd.grad(y, args, torch.cos(torch.arange(y.numel()).double()).reshape(y.shape))
    return y.detach().numpy(), [g.numpy() for g in grads]


def agree(found, expected):
    for a, e in zip([found[0], *found[1]], [expected[0], *expected[1]], strict=True):
        np.testing.assert_allclose(a, e, rtol=1e-10, atol=1e-10)


@pytest.mark.peers
@pytest.mark.parametrize(("rank", "options"), [(rank, o) for rank, all_of in OPTIONS.items() for o in all_of])
@pytest.mark.parametrize("window", [1, 2, 3])
def test_pytorch_has_the_same_convolution(rank, options, window):
    torch = pytest.importorskip("torch")
    x = rng.normal(size=(2, *(9, 8, 5)[:rank], 4))
    W = rng.normal(size=(*(window,) * rank, 4 // options.get("groups", 1), 8))
    conv = getattr(torch.nn.functional, f"conv{rank}d")

    def theirs(x, W, b):
        return conv(x.movedim(-1, 1), W.permute(-1, -2, *range(rank)), b, **options).movedim(1, -1)

    found = gradients(lambda *args: F.convolution(*args, **options), x, W, b8 := rng.normal(size=8))
    agree(found, torchs_gradients(torch, theirs, x, W, b8))


@pytest.mark.peers
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"stride": 2, "padding": 1, "output_padding": 1},
        {"dilation": 2, "output_padding": 1},
        {"groups": 2, "stride": 3},
        {"groups": 4, "padding": 1},
    ],
)
def test_pytorch_has_the_same_transposed_convolution(rank, options):
    torch = pytest.importorskip("torch")
    groups = options.get("groups", 1)
    x = rng.normal(size=(2, *(4, 3, 3)[:rank], 4))
    W = rng.normal(size=(*(3,) * rank, 4 // groups, 8))
    conv = getattr(torch.nn.functional, f"conv_transpose{rank}d")

    def theirs(x, W, b):
        by_group = W.reshape(*(3,) * rank, 4 // groups, groups, 8 // groups)  # theirs: (n_in, n_out // groups, *window)
        W = by_group.permute(rank + 1, rank, rank + 2, *range(rank)).reshape(4, 8 // groups, *(3,) * rank)
        return conv(x.movedim(-1, 1), W, b, **options).movedim(1, -1)

    found = gradients(lambda *args: F.convolution_transpose(*args, **options), x, W, b8 := rng.normal(size=8))
    agree(found, torchs_gradients(torch, theirs, x, W, b8))


# -- what does not fit


@pytest.mark.parametrize(
    ("args", "options", "message"),
    [
        ((x, W[0, 0]), {}, r"one to three spatial axes, got x of shape \(2, 5, 6, 4\) and W of shape \(4, 6\)"),
        ((x[0], W), {}, r"got x of shape \(5, 6, 4\) and W of shape \(3, 2, 4, 6\)"),
        ((x[..., :3], W), {}, r"with n_in = 3 and n_out divisible by groups=1, got x of shape \(2, 5, 6, 3\)"),
        ((x, W), {"groups": 2}, r"n_in = 4 and n_out divisible by groups=2"),
        ((x, W[..., :2, :5]), {"groups": 2}, r"n_out divisible by groups=2, .* W of shape \(3, 2, 2, 5\)"),
        ((x, W), {"groups": 0}, "groups=0"),
        ((x, W, b[:5]), {}, r"expects b of shape \(6,\) with W of shape \(3, 2, 4, 6\), got \(5,\)"),
        ((x[:, :2], W), {}, r"a window of \(3, 2\) does not fit into an input of spatial shape \(2, 6\)"),
        ((x, W), {"dilation": 9}, r"\(3, 2\) with dilation 9 does not fit"),
        ((x, W), {"stride": 0}, "stride as a whole number from 1, or one for each of 2 spatial axes, got 0"),
        ((x, W), {"stride": (1, 1, 1)}, r"got \(1, 1, 1\)"),
        ((x, W), {"dilation": 1.5}, "dilation .* got 1.5"),
        ((x, W), {"padding": "full"}, "padding 'same', 'valid', a whole number, .* got 'full'"),
        ((x, W), {"padding": -1}, "got -1"),
        ((x, W), {"padding": ((1, 2),)}, r"2 spatial axes, got \(\(1, 2\),\)"),
        ((x, W), {"padding": ((1, 2, 3), 1)}, r"got \(\(1, 2, 3\), 1\)"),
        ((x, W), {"activation": "softmax"}, "leaky_relu, elu, selu, got 'softmax'"),
    ],
)
def test_what_does_not_fit_is_named(args, options, message):
    with pytest.raises(ValueError, match=f"convolution.*{message}"):
        F.convolution(*args, **options)


@pytest.mark.parametrize(
    ("args", "options", "message"),
    [
        ((x[..., :3], W), {}, "n_in = 3"),
        ((x, W), {"output_padding": 1}, r"output_padding below the stride \(1, 1\) or the dilation \(1, 1\), got 1"),
        ((x, W), {"output_padding": -1}, "output_padding as a whole number from 0"),
        ((x, W), {"padding": 4}, r"nothing is left of an output of spatial shape \(-1, -1\)"),
    ],
)
def test_what_does_not_fit_a_transposed_convolution_is_named(args, options, message):
    with pytest.raises(ValueError, match=f"convolution_transpose.*{message}"):
        F.convolution_transpose(*args, **options)


@pytest.mark.parametrize("f", [F.convolution, F.convolution_transpose])
def test_dtypes_and_libraries_that_differ_are_named(f):
    strict = pytest.importorskip("array_api_strict")
    with pytest.raises(TypeError, match="x of float32, W of float64"):
        f(x.astype("float32"), W)
    with pytest.raises(TypeError, match="b of float32"):
        f(x, W, b.astype("float32"))
    with pytest.raises(TypeError, match="x of array_api_strict, W of numpy"):
        f(strict.asarray(x), W)
