import math

import numpy as np
import pytest

import gpubp as bp
from gpubp import functions as F
from gpubp.testing.backends import load

rng = np.random.default_rng(0)
x = rng.normal(size=(2, 5, 3, 4))

# -- sinusoidal


def test_published_formula():
    table = F.sinusoidal_positions(x, 7, 6)
    assert table.shape == (7, 6)
    for t in range(7):
        for i in range(3):
            angle = t / 10000 ** (2 * i / 6)
            np.testing.assert_allclose(table[t, 2 * i : 2 * i + 2], [math.sin(angle), math.cos(angle)], rtol=1e-13)


def test_sinusoidal_options():
    whole = F.sinusoidal_positions(x, 7, 5, base=50.0)
    np.testing.assert_allclose(F.sinusoidal_positions(x, 3, 5, offset=4, base=50.0), whole[4:], rtol=1e-13)
    np.testing.assert_allclose(whole[:, 2], np.sin(np.arange(7) / 50 ** (2 / 5)), rtol=1e-13)
    assert F.sinusoidal_positions(x.astype("float32"), 0, 4).dtype == "float32"
    with pytest.raises(TypeError, match="floating-point array, got int64"):
        F.sinusoidal_positions(np.ones(1, dtype="int64"), 2, 2)


def test_they_are_constants_of_every_library(backend):
    expected = F.sinusoidal_positions(x, 5, 4)
    found = bp.grad(lambda x: bp.array_namespace(x).sum(x * F.sinusoidal_positions(x, 5, 4)))(
        backend.asarray(np.ones((5, 4)))
    )
    np.testing.assert_allclose(backend.to_numpy(found), expected, rtol=1e-13)


# -- rotary


def turned(x, at, base=10000.0):
    """Turn the pairs by complex numbers."""
    z = x[..., :2] + 1j * x[..., 2:]
    z = z * np.exp(1j * at[..., None, None] * base ** (-np.arange(2) / 2))
    return np.concatenate([z.real, z.imag], axis=-1)


@pytest.mark.parametrize("f", [F.rotary, F.rotary.reference])
def test_pairs_of_the_halves_are_turned(f):
    at = np.arange(5)
    np.testing.assert_allclose(f(x), turned(x, at), rtol=1e-13)
    np.testing.assert_allclose(f(x, offset=9, base=7.0), turned(x, at + 9, 7.0), rtol=1e-13)
    np.testing.assert_allclose(f(x, at[::-1] * 3, offset=1), turned(x, at[::-1] * 3 + 1), rtol=1e-13)
    np.testing.assert_allclose(f(x, np.stack([at, at + 4])), turned(x, np.stack([at, at + 4])), rtol=1e-13)
    np.testing.assert_array_equal(f(x)[:, 0], x[:, 0])


def test_products_depend_on_the_distance_alone():
    q, k = x[:1, :1, :1], x[1:, :1, :1]
    near, far = (np.sum(F.rotary(q, offset=n) * F.rotary(k, offset=n + 3)) for n in (0, 1000))
    assert near == pytest.approx(far, rel=1e-11)


def test_the_gradient_is_turned_back():
    dx = bp.vjp(F.rotary, x)[1](F.rotary(x))[0]
    np.testing.assert_allclose(dx, x, rtol=1e-13)


def test_late_positions_are_exact_in_single_precision():
    found = F.rotary(x.astype("float32"), offset=10**6)
    np.testing.assert_allclose(found, turned(x, np.arange(5) + 10**6), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("f", [F.rotary, F.rotary.reference])
def test_what_cannot_be_turned_is_named(f):
    for bad in (x[..., :3], x[0, 0]):
        with pytest.raises(ValueError, match="an even number of features, got") as caught:
            f(bad)
        assert str(bad.shape) in str(caught.value)
    with pytest.raises(TypeError, match="integer positions, got float64"):
        f(x, np.arange(5.0))
    for bad in (np.arange(4), np.zeros((3, 5), dtype=int), np.asarray(1), np.zeros((1, 2, 5), dtype=int)):
        with pytest.raises(ValueError, match=r"broadcast to \(\.\.\., time\) = \(2, 5\), got shape"):
            f(x, bad)
    with pytest.raises(TypeError, match="real arrays, got complex128"):
        f(x + 0j)
    with pytest.raises(TypeError, match="floating-point array, got int64"):
        f(x.astype("int64"))
    with pytest.raises(TypeError, match="x of numpy, positions of array_api_strict"):
        f(x, load("array_api_strict").asarray(np.arange(5)))
