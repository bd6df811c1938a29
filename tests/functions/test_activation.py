import math
import warnings
from statistics import NormalDist

import numpy as np
import pytest

import gpubp as bp
from gpubp import functions as F

ALPHA, SCALE = 1.6732632423543772, 1.0507009873554805
ELEMENTWISE = {
    **{f.__name__: f for f in (F.sigmoid, F.tanh, F.relu, F.leaky_relu, F.elu, F.selu)},
    **{f.__name__: f for f in (F.gelu, F.silu, F.softplus, F.softsign)},
}
EVERY = {**ELEMENTWISE, "softmax": F.softmax, "log_softmax": F.log_softmax}


def gelu_tanh(x):
    return F.gelu(x, approximate="tanh")


def prelu(x):
    return F.prelu(x, np.full(1, 0.25, x.dtype))


def slope(f, at):
    return float(bp.grad(f)(np.asarray(at, dtype="float64")))


def test_published_values():
    x = np.array([-1.0, 0.0, 2.0])
    np.testing.assert_allclose(F.sigmoid(x), 1 / (1 + np.exp(-x)), rtol=1e-15)
    np.testing.assert_array_equal(F.relu(x), [0, 0, 2])
    np.testing.assert_array_equal(F.leaky_relu(x), [-0.01, 0, 2])
    np.testing.assert_array_equal(F.leaky_relu(x, slope=0.5), [-0.5, 0, 2])
    np.testing.assert_array_equal(F.tanh(x), np.tanh(x))
    assert F.identity(x) is x
    np.testing.assert_allclose(F.elu(x, alpha=2.0), [2 * math.expm1(-1), 0, 2], rtol=1e-15)
    np.testing.assert_allclose(F.selu(x), [SCALE * ALPHA * math.expm1(-1), 0, 2 * SCALE], rtol=1e-15)
    np.testing.assert_allclose(F.silu(x), x / (1 + np.exp(-x)), rtol=1e-15)
    np.testing.assert_allclose(F.softplus(x), np.log1p(np.exp(x)), rtol=1e-15)
    np.testing.assert_array_equal(F.softsign(x), [-0.5, 0, 2 / 3])
    np.testing.assert_allclose(F.gelu(x), [-0.15865525393145707, 0, 1.9544997361036416], rtol=1e-14)
    np.testing.assert_allclose(F.gelu(x, approximate="tanh"), [-0.15880800939172324, 0, 1.9545976940877752], rtol=1e-14)
    np.testing.assert_array_equal(F.prelu(x, np.array([0.5, 9.0, 9.0])), [-0.5, 0, 2])
    np.testing.assert_array_equal(F.prelu(x, np.array([0.25])), [-0.25, 0, 2])
    np.testing.assert_allclose(F.logsumexp(x), math.log(math.exp(-1) + 1 + math.exp(2)), rtol=1e-15)
    np.testing.assert_allclose(F.log_softmax(x), x - F.logsumexp(x), rtol=1e-15)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_fast_normal_distribution_is_exact_to_the_dtype(dtype):
    x = np.linspace(-9, 9, 5001).astype(dtype)
    y, pullback = bp.vjp(F.gelu, x)
    phi = np.array([NormalDist().cdf(float(v)) for v in x])
    density = np.array([NormalDist().pdf(float(v)) for v in x])
    bound = {"float32": 1.5e-7, "float64": 3e-16}[dtype] * np.maximum(1, np.abs(x))
    assert (np.abs(y - x * phi) <= bound).all()
    assert (np.abs(pullback(np.ones_like(x))[0] - (phi + x * density)) <= 2 * bound).all()


@pytest.mark.parametrize("x", [np.zeros(()), np.zeros(3), np.zeros((2, 2))])
def test_the_kinks_have_the_stated_slope(x):
    ones = np.ones_like(x)
    for f, expected in [
        *[(F.relu, 0.0), (F.leaky_relu, 0.01), (F.sigmoid, 0.25), (F.tanh, 1.0), (F.elu, 1.0), (F.softsign, 1.0)],
        *[(F.selu, SCALE * ALPHA), (F.gelu, 0.5), (F.silu, 0.5), (F.softplus, 0.5)],
    ]:
        for derivative in (
            bp.vjp(f, x)[1](ones)[0],
            bp.vjp(f.reference if hasattr(f, "reference") else f, x)[1](ones)[0],
        ):
            np.testing.assert_allclose(derivative, expected * ones, rtol=1e-15)


def test_second_derivative_of_the_sigmoid_at_0_is_0():
    assert slope(bp.grad(F.sigmoid), 0.0) == pytest.approx(0.0, abs=1e-16)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("f", [F.sigmoid, F.sigmoid.reference])
def test_sigmoid_neither_overflows_nor_loses_its_small_values(f, dtype):
    x = np.array([-1e4, -80.0, 0.0, 80.0, 1e4], dtype=dtype)
    y = f(x)
    assert y.dtype == dtype
    np.testing.assert_allclose(y, [y[0], np.exp(-80.0), 0.5, 1, 1], rtol=1e-6)
    assert 0 <= y[0] < 1e-37


@pytest.mark.parametrize("f", [*EVERY.values(), *(f.reference for f in EVERY.values() if f is not F.tanh)])
def test_not_a_number_stays(f):
    assert np.isnan(f(np.array([np.nan, 1.0]))[0])


def test_softmax_of_huge_values_is_finite():
    np.testing.assert_array_equal(F.softmax(np.array([1e30, 0.0])), [1.0, 0.0])


@pytest.mark.parametrize("f", [f for f in EVERY.values() if f is not F.tanh])
def test_complex_arrays_have_no_order(f):
    with pytest.raises(TypeError, match="real arrays, got complex128"):
        f(np.ones(3, dtype=complex))


def test_the_input_is_left_alone():
    x = np.array([-1.0, 2.0])
    x.flags.writeable = False
    for f in EVERY.values():
        bp.vjp(f, x)[1](x)
    np.testing.assert_array_equal(x, [-1.0, 2.0])


# -- stability

STEEP = {**EVERY, "gelu_tanh": gelu_tanh, "prelu": prelu, "logsumexp": F.logsumexp}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", STEEP)
def test_values_and_two_derivatives_are_finite_far_out(name, dtype, backend):
    x = np.array([-1e4, -300.0, -20.0, -1e-4, 1e-4, 20.0, 300.0, 1e4], dtype=dtype)
    f = STEEP[name] if name != "prelu" else lambda x: F.prelu(x, backend.asarray(np.full(1, 0.25, dtype)))
    y, pullback = bp.vjp(f, backend.asarray(x))
    (first,) = pullback(backend.xp.ones_like(y))
    (second,) = bp.hvp(lambda x: bp.array_namespace(x).sum(f(x)), (backend.asarray(x),), (backend.asarray(x),))
    for found in (y, first, second):
        assert backend.to_numpy(found).dtype == dtype
        assert np.isfinite(backend.to_numpy(found)).all()


def test_far_out_the_smooth_ones_are_their_limits():
    x = np.array([-1e4, 1e4], dtype="float32")
    for f in (F.gelu, gelu_tanh, F.silu, F.softplus):
        np.testing.assert_array_equal(f(x), [0, 1e4])
        np.testing.assert_array_equal(bp.vjp(f, x)[1](np.ones_like(x))[0], [0, 1])


def test_logarithms_of_probability_0():
    x = np.array([[-np.inf, 0.0, 1.0], [-np.inf, -np.inf, -np.inf]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for f in (F.logsumexp, F.logsumexp.reference):
            out, pullback = bp.vjp(lambda x, f=f: f(x, axis=1), x)
            np.testing.assert_allclose(out, [math.log(1 + math.e), -np.inf], rtol=1e-15)
            np.testing.assert_allclose(pullback(np.ones(2))[0], [[0, 1 / (1 + math.e), math.e / (1 + math.e)], [0] * 3])
        np.testing.assert_array_equal(F.log_softmax(x[0])[0], -np.inf)
        assert np.isfinite(bp.vjp(F.log_softmax, x[0])[1](np.array([0.0, 1.0, 0.0]))[0]).all()


def test_an_infinite_cotangent_stops_at_a_dead_unit():
    x, g = np.array([-1.0, 0.0, 2.0, np.nan]), np.array([np.inf, np.nan, np.inf, 3.0])
    for f in (F.relu, F.relu.reference):
        np.testing.assert_array_equal(bp.vjp(f, x)[1](g)[0], [0, 0, np.inf, 3])


# -- what a user may get wrong


def test_options_that_there_are_not():
    x = np.ones((2, 3))
    with pytest.raises(ValueError, match="gelu expects approximate='none' or 'tanh', got True"):
        F.gelu(x, approximate=True)
    with pytest.raises(ValueError, match="elu expects alpha from 0, got -1"):
        F.elu(x, alpha=-1)
    with pytest.raises(ValueError, match=r"slope of shape \(n,\) or \(1,\), got \(2, 3\) and \(2,\)"):
        F.prelu(x, np.ones(2))
    with pytest.raises(TypeError, match="x of float64, slope of float32"):
        F.prelu(x, np.ones(3, "float32"))


# -- PyTorch


@pytest.mark.peers
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (F.elu, "elu"),
        (lambda x: F.elu(x, alpha=0.3), lambda f, x: f.elu(x, alpha=0.3)),
        (F.selu, "selu"),
        (F.gelu, "gelu"),
        (gelu_tanh, lambda f, x: f.gelu(x, approximate="tanh")),
        (F.silu, "silu"),
        (F.softplus, "softplus"),
        (F.softsign, "softsign"),
        (F.log_softmax, lambda f, x: f.log_softmax(x, dim=-1)),
        (lambda x: F.log_softmax(x, axis=0), lambda f, x: f.log_softmax(x, dim=0)),
        (lambda x: F.logsumexp(x, axis=(0, 1)), lambda f, x: x.logsumexp((0, 1))),
        (lambda x: F.logsumexp(x, axis=1, keepdims=True), lambda f, x: x.logsumexp(1, keepdim=True)),
    ],
)
def test_values_and_gradients_are_pytorchs(ours, theirs):
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).normal(size=(5, 7)) * 3
    x[0, 0] = 0.0  # the conventions at kinks, too
    t = torch.tensor(x, requires_grad=True)
    functions = torch.nn.functional
    y = getattr(functions, theirs)(t) if isinstance(theirs, str) else theirs(functions, t)
    g = np.random.default_rng(1).normal(size=y.shape)
    y.backward(torch.tensor(g))
    out, pullback = bp.vjp(ours, x)
    np.testing.assert_allclose(out, y.detach().numpy(), rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(pullback(g)[0], t.grad.numpy(), rtol=1e-10, atol=1e-10)


@pytest.mark.peers
@pytest.mark.parametrize("n", [1, 7])
def test_prelu_is_pytorchs(n):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    x, slope, g = rng.normal(size=(5, 7)), rng.normal(size=n), rng.normal(size=(5, 7))
    x[0, 0] = 0.0
    tx, ts = torch.tensor(x, requires_grad=True), torch.tensor(slope, requires_grad=True)
    y = torch.nn.functional.prelu(tx, ts)
    y.backward(torch.tensor(g))
    out, pullback = bp.vjp(F.prelu, x, slope)
    for ours, theirs in zip((out, *pullback(g)), (y.detach(), tx.grad, ts.grad), strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-10, atol=1e-10)
