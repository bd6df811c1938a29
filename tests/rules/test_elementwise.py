"""Elementwise rules where a formula alone would not do: kinks, ties, zeros, infinities; and all against PyTorch."""

import numpy as np
import pytest

import gpubp as bp
from gpubp.namespace import twin
from gpubp.testing import CATALOGUE
from gpubp.testing.catalogue.elementwise import Sample

xp = twin("numpy")
INF, NAN = np.inf, np.nan

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


def gradients(name, *args, g=None):
    """The cotangents of a function's arrays, by default for a cotangent of ones."""
    traced = [k for k, x in enumerate(args) if isinstance(x, np.ndarray)]

    def f(*values):
        full = list(args)
        for k, v in zip(traced, values, strict=True):
            full[k] = v
        return getattr(xp, name)(*full)

    out, pullback = bp.vjp(f, *(args[k] for k in traced))
    return pullback(np.ones_like(out) if g is None else g)


@pytest.mark.parametrize("name", ["maximum", "minimum"])
def test_a_tie_gives_each_half(name):
    x, y = np.array([1.0, 2.0, 3.0]), np.array([3.0, 2.0, 1.0])
    dx, dy = gradients(name, x, y)
    larger = [0.0, 0.5, 1.0] if name == "maximum" else [1.0, 0.5, 0.0]
    np.testing.assert_array_equal(dx, larger)
    np.testing.assert_array_equal(dy, larger[::-1])
    np.testing.assert_array_equal(gradients(name, np.array([0.0]), 0.0)[0], [0.5])


def test_clip_passes_the_gradient_at_its_bounds():
    x = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
    np.testing.assert_array_equal(gradients("clip", x, -1.0, 1.0)[0], [0, 1, 1, 1, 0])
    dx, low, high = gradients("clip", x, np.array(-1.0), np.array(1.0))
    np.testing.assert_array_equal(dx, [0, 1, 1, 1, 0])
    assert (low, high) == (1, 1)


def test_clip_with_crossed_bounds_is_its_upper_bound():
    dx, low, high = gradients("clip", np.array([-2.0, 0.0, 2.0]), np.array(1.0), np.array(-1.0))
    np.testing.assert_array_equal(dx, [0, 0, 0])
    assert (low, high) == (0, 3)


def test_magnitudes_at_zero():
    zero = np.zeros(2)
    np.testing.assert_array_equal(gradients("abs", np.array([0.0, -0.0]))[0], zero)
    np.testing.assert_array_equal(gradients("abs", np.zeros(2, complex), g=np.ones(2))[0], zero)
    np.testing.assert_array_equal(gradients("sign", np.zeros(2, complex))[0], zero)
    np.testing.assert_array_equal(gradients("copysign", zero, np.array([1.0, -1.0]))[0], zero)
    for d in gradients("hypot", zero, zero):
        np.testing.assert_array_equal(d, zero)


def test_copysign_depends_on_the_sign_of_its_second_argument_not_on_its_size():
    dx, dy = gradients("copysign", np.array([2.0, -2.0, 2.0]), np.array([1.0, 1.0, -1.0]))
    np.testing.assert_array_equal(dx, [1, -1, -1])
    np.testing.assert_array_equal(dy, [0, 0, 0])


def test_sqrt_at_zero_is_infinitely_steep():
    np.testing.assert_array_equal(gradients("sqrt", np.array([0.0, 4.0]))[0], [INF, 0.25])


@pytest.mark.parametrize("as_array", [False, True])
@pytest.mark.parametrize(
    ("exponent", "first", "second"),
    [
        (0.0, [0, 0, 0], [0, 0, 0]),
        (1.0, [1, 1, 1], [0, 0, 0]),
        (2.0, [-4, 0, 4], [2, 2, 2]),
        (3.0, [12, 0, 12], [-12, 0, 12]),
    ],
)
def test_powers_of_zero_and_of_negative_numbers(as_array, exponent, first, second):
    x = np.array([-2.0, 0.0, 2.0])
    power = np.full(3, exponent) if as_array else exponent

    def f(x):
        return xp.sum(x**power)

    np.testing.assert_array_equal(bp.grad(f)(x), first)
    np.testing.assert_array_equal(np.diagonal(bp.hessian(f)(x)), second)


def test_zero_to_a_power_does_not_depend_on_a_positive_power():
    np.testing.assert_array_equal(gradients("pow", 0.0, np.array([0.0, 0.5, 2.0]))[0], [0, 0, 0])
    np.testing.assert_array_equal(gradients("pow", np.zeros(3), np.array([0.0, 1.0, 2.0]))[1], [0, 0, 0])
    assert gradients("pow", 0.0, np.array(-1.0))[0] == -INF


def test_logaddexp_of_infinities_and_of_large_numbers():
    x = np.array([INF, -INF, 1.0, -INF, INF, 1e9, 0.0])
    y = np.array([1.0, 2.0, -INF, -INF, INF, 1e9, 800.0])
    dx, dy = gradients("logaddexp", x, y)
    np.testing.assert_array_equal(dx, [1, 0, 1, 0.5, 0.5, 0.5, 0])
    np.testing.assert_array_equal(dy, [0, 1, 0, 0.5, 0.5, 0.5, 1])


def test_the_curvature_of_logaddexp_where_its_arguments_are_equal():
    hessian = bp.hessian(lambda v: xp.logaddexp(v[0], v[1]))(np.array([1.0, 1.0]))
    np.testing.assert_allclose(hessian, [[0.25, -0.25], [-0.25, 0.25]], rtol=1e-14)


def test_where_does_not_see_what_it_does_not_select():
    x = np.array([1.0, NAN, 4.0])
    condition = np.array([True, False, True])
    dx, dy = gradients("where", condition, x, np.array([NAN, 2.0, NAN]))[1:]
    np.testing.assert_array_equal(dx, [1, 0, 1])
    np.testing.assert_array_equal(dy, [0, 1, 0])
    inner = bp.grad(lambda x: xp.sum(xp.where(condition, x, 0.0) ** 2))(x)
    np.testing.assert_array_equal(inner, [2, 0, 8])


def test_the_sign_of_a_complex_number_turns_with_its_angle_only():
    z = np.array([3.0 + 4.0j])
    (radial,) = gradients("sign", z, g=z)
    np.testing.assert_allclose(radial, 0, atol=1e-15)
    (tangential,) = gradients("sign", z, g=1j * z)
    np.testing.assert_allclose(tangential, 1j * z / 5, rtol=1e-15)
    np.testing.assert_array_equal(gradients("sign", np.array([-2.0, 0.0, 3.0]))[0], [0, 0, 0])


def test_real_and_imaginary_parts_of_real_numbers():
    for name, expected in (("real", [1.0, 1.0]), ("imag", [0.0, 0.0])):
        (found,) = gradients(name, np.ones(2))
        assert found.dtype == np.float64
        np.testing.assert_array_equal(found, expected)


def test_the_gradient_of_a_holomorphic_function_is_the_conjugate_of_its_derivative():
    z = np.array(0.3 + 0.4j)
    (found,) = gradients("exp", z, g=np.array(1.0 + 0.0j))
    np.testing.assert_allclose(found, np.conj(np.exp(z)), rtol=1e-15)


def test_nextafter_has_no_derivative_and_says_so():
    with pytest.raises(NotImplementedError, match="nextafter has no derivative"):
        gradients("nextafter", np.ones(2), np.zeros(2))


# -- against PyTorch

UNLIKE_TORCH = {"_erf": "erf", "sign": "sgn", "conj": "conj_physical", "pow": "pow", "where": "where", "clip": "clamp"}
ELEMENTWISE = sorted(
    name
    for name, record in CATALOGUE.items()
    if record.samples.__module__.endswith(".elementwise") and record.differentiable
)


def complex_samples(record, rng):
    for sample in record.samples(rng):
        yield Sample(
            *(
                x + 1j * rng.normal(size=x.shape) if isinstance(x, np.ndarray) and x.dtype.kind == "f" else x
                for x in sample.args
            ),
            **sample.kwargs,
        )


@pytest.mark.peers
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_gradients_are_those_of_pytorch(name):
    torch = pytest.importorskip("torch")
    record = CATALOGUE[name]
    rng = np.random.default_rng(5)
    samples = list(record.samples(rng))
    if record.complex and name not in ("conj", "real", "imag"):
        samples += complex_samples(record, rng)
    compared = 0
    for sample in samples:
        arrays = [x for x in sample.args if isinstance(x, np.ndarray)]
        if sample.kwargs or len(arrays) < max(
            len(sample.args), 2 if name == "clip" else 1
        ):  # other ways to write the same
            continue
        tensors = [torch.tensor(x) for x in sample.args]
        wanted = [t.requires_grad_() for t in tensors if t.dtype != torch.bool]
        theirs = getattr(torch, UNLIKE_TORCH.get(name, name))(*tensors)
        g = rng.normal(size=tuple(theirs.shape))
        if theirs.is_complex():
            g = g + 1j * rng.normal(size=g.shape)
        expected = torch.autograd.grad(theirs, wanted, torch.as_tensor(g), allow_unused=True)
        found = [c for c in gradients(name, *sample.args, g=np.asarray(g)) if c is not None]
        for ours, t, e in zip(found, wanted, expected, strict=True):
            e = np.zeros(tuple(t.shape)) if e is None else e.resolve_conj().numpy(force=True)
            np.testing.assert_allclose(ours, e, rtol=1e-10, atol=1e-12, err_msg=f"{name}{sample}")
            compared += 1
    assert compared
