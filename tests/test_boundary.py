"""Items as functions: reading, assigning, adding, scattering, on every library."""

import math

import numpy as np
import pytest

import gpubp as bp
from gpubp import boundary
from gpubp.namespace import twin
from gpubp.testing import check_grads
from gpubp.testing.backends import load

RNG = np.random.default_rng(3)
ROWS = np.array([0, 2, 2, -1])
PAIRS = (np.array([0, 2, 2, -1]), np.array([1, 0, 0, 0]))
STANDARD = [
    (1, ...),
    (slice(None, None, 2), slice(1, None)),
    (..., None, 0),
    ROWS,
    (ROWS,),
    PAIRS,
    (ROWS, 1),
    (np.array([[0], [2]]), np.array([1, 0])),
    np.array([], dtype=np.int64),
]
NUMPYS = [
    (slice(None), np.array([1, 1])),
    (np.array([True, False, True]), 1),
    (np.array([True, False, True]), np.array([1, 0])),
    (None, ROWS),
    [0, 0, 1],
    ([2, 0], slice(None)),
    (np.int64(1), np.array([0, 0])),
    True,
    (slice(None, None, -1), 0),
]


def on(backend, key):
    if isinstance(key, tuple):
        return tuple(on(backend, part) for part in key)
    return backend.asarray(key) if isinstance(key, np.ndarray) else key


def added(x, key, value):
    out = x.copy()
    np.add.at(out, key, value)
    return out


@pytest.mark.parametrize("key", STANDARD, ids=repr)
def test_adding_and_scattering_agree_with_numpy(backend, key):
    x = RNG.integers(-9, 9, size=(3, 2)).astype(np.float64)
    value = RNG.integers(-9, 9, size=x[key].shape).astype(np.float64)
    plain, where, what = backend.asarray(x), on(backend, key), backend.asarray(value)
    np.testing.assert_array_equal(backend.to_numpy(boundary.take_at(backend.xp, plain, where)), x[key])
    found = boundary.add_at(backend.xp, plain, where, what)
    np.testing.assert_array_equal(backend.to_numpy(found), added(x, key, value))
    np.testing.assert_array_equal(backend.to_numpy(plain), x)
    found = boundary.scatter(backend.xp, x.shape, where, what)
    np.testing.assert_array_equal(backend.to_numpy(found), added(np.zeros((3, 2)), key, value))
    assert found.device == plain.device


@pytest.mark.parametrize("key", STANDARD, ids=repr)
def test_assigning_agrees_with_numpy(backend, key):
    x = RNG.normal(size=(3, 2))
    for value in (RNG.normal(size=x[key].shape), RNG.normal(size=()), 0.5):
        expected = x.copy()
        expected[key] = value
        what = backend.asarray(value) if isinstance(value, np.ndarray) else value
        plain = backend.asarray(x)
        found = boundary.put(backend.xp, plain, on(backend, key), what)
        np.testing.assert_array_equal(backend.to_numpy(found), expected)
        np.testing.assert_array_equal(backend.to_numpy(plain), x)


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
def test_scattered_rows_add_up_in_every_dtype(backend, dtype):
    rows, value = RNG.integers(0, 5, size=40), RNG.normal(size=(40, 2, 2))
    value = (value + 1j * value[::-1] if "complex" in dtype else value).astype(dtype)
    found = boundary.scatter(backend.xp, (5, 2, 2), (backend.asarray(rows),), backend.asarray(value))
    tolerance = 1e-5 if dtype in ("float32", "complex64") else 1e-13
    expected = added(np.zeros((5, 2, 2), dtype), rows, value)
    assert backend.to_numpy(found).dtype == dtype
    np.testing.assert_allclose(backend.to_numpy(found), expected, rtol=tolerance, atol=tolerance)


def test_what_is_not_finite_stays_where_it_belongs(backend):
    value = np.array([1.0, np.nan, 2.0, np.inf])
    rows = np.array([1, 0, 1, 2])
    found = boundary.scatter(backend.xp, (4,), (backend.asarray(rows),), backend.asarray(value))
    np.testing.assert_array_equal(backend.to_numpy(found), [np.nan, 3, np.inf, 0])


def test_integers_of_any_width_are_indices():
    for dtype in (np.int8, np.uint8, np.int32, np.int64):
        rows = np.array([99, 0, 99], dtype=dtype)
        found = boundary.scatter(np, (100, 100), (rows,), np.ones((3, 100)))
        assert found[99, 50] == 2
        assert found.sum() == 300


def test_columns_in_fortran_order_are_added_to():
    x = np.asfortranarray(RNG.normal(size=(3, 2)))
    np.testing.assert_array_equal(boundary.add_at(np, x, ROWS, 1.0), added(x, ROWS, 1.0))


@pytest.mark.parametrize("key", [*STANDARD, *NUMPYS, np.array([[True, False], [False, True], [True, True]])], ids=repr)
def test_every_way_to_index_is_differentiable_to_the_second_order(key):
    xp = twin("numpy")
    x = RNG.normal(size=(3, 2))
    value = RNG.normal(size=x[key].shape)

    check_grads(lambda x: x[key] ** 3, (x,))
    check_grads(lambda x, v: boundary.add_at(xp, x, key, v) ** 3, (x, value))

    def assigned(x, v):
        x = x * x
        x[key] = v * v
        return x**2

    check_grads(assigned, (x, value))


@pytest.mark.parametrize("key", [(ROWS,), PAIRS, (1, ...), (..., None, 0)], ids=repr)
def test_second_derivatives_of_items_on_every_library(backend, key):
    x = RNG.normal(size=(3, 2))
    xp = twin(backend.xp)
    where = on(backend, key)

    def f(x):
        y = boundary.take_at(xp, x, where) ** 3
        return xp.sum(boundary.add_at(xp, x, where, y) ** 2)

    v = backend.asarray(np.ones((3, 2)))
    (found,) = bp.hvp(f, (backend.asarray(x),), (v,))
    plain = twin("numpy")
    (expected,) = bp.hvp(
        lambda x: plain.sum(boundary.add_at(plain, x, key, x[key] ** 3) ** 2), (x,), (np.ones((3, 2)),)
    )
    np.testing.assert_allclose(backend.to_numpy(found), expected, rtol=1e-12, atol=1e-12)


def test_an_index_used_twice_receives_both_gradients():
    np.testing.assert_array_equal(bp.grad(lambda x: (x[[0, 0, 1]]).sum())(np.ones(3)), [2, 1, 0])


def test_of_values_assigned_to_one_place_only_the_last_counts():
    def f(v):
        x = twin("numpy").zeros(3)
        x[[0, 0, 1]] = v
        return x

    np.testing.assert_array_equal(bp.jacobian(f)(np.ones(3)), [[0, 1, 0], [0, 0, 1], [0, 0, 0]])
    np.testing.assert_array_equal(bp.jacobian(f)(1.0), [1, 1, 0])


def test_zeros_lie_where_their_model_lies(backend):
    x = backend.asarray(np.ones(2, dtype=np.float32))
    zeros = boundary.zeros(backend.xp, x, (3, 1))
    assert (zeros.dtype, zeros.device, tuple(zeros.shape)) == (x.dtype, x.device, (3, 1))


# -- the error function


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_erf_is_exact_to_a_few_units_in_the_last_place(backend, dtype):
    x = np.concatenate([np.linspace(-7, 7, 20001), np.logspace(-30, 0, 301), [0.46875, 4.0, 1e4]]).astype(dtype)
    expected = np.array([math.erf(float(v)) for v in x])
    found = backend.to_numpy(boundary.erf(backend.xp, backend.asarray(x)))
    assert found.dtype == dtype
    assert (np.abs(found - expected) <= 8 * np.spacing(np.abs(expected).astype(dtype))).all()


def test_erf_in_half_precision():
    x = np.linspace(-7, 7, 301).astype("float16")
    expected = np.array([math.erf(float(v)) for v in x])
    found = boundary.erf(load("numpy").xp, x)
    assert found.dtype == "float16"
    assert (np.abs(found - expected) <= np.spacing(np.abs(expected).astype("float16"))).all()


def test_erf_of_what_is_not_finite(backend):
    found = boundary.erf(backend.xp, backend.asarray(np.array([-np.inf, np.inf, np.nan])))
    np.testing.assert_array_equal(backend.to_numpy(found), [-1, 1, np.nan])


def test_erf_is_differentiable_to_the_third_order():
    xp = twin("numpy")
    x = np.linspace(-2, 2, 5)
    second = bp.grad(lambda x: xp.sum(bp.grad(lambda x: xp.sum(boundary.erf(xp, x)))(x)))
    np.testing.assert_allclose(second(x), -4 / math.sqrt(math.pi) * x * np.exp(-x * x), rtol=1e-14)
    check_grads(second, (x,))


# -- random numbers

KEY = (5, 2**63 + 7)


def drawn(backend, keep, step, shape, stream=0):
    like = backend.asarray(np.zeros(3, "f4"))
    return backend.to_numpy(boundary.bernoulli(backend.xp, like, keep, KEY, step, shape, stream))


@pytest.mark.parametrize("shape", [(), (1,), (7,), (3, 5), (2, 4, 2), (0, 3)])
def test_random_bits_are_numpys(backend, shape):
    n = int(np.prod(shape))
    words = np.random.Philox(key=np.array(KEY, "u8"), counter=np.array([0, 3, 2, 0], "u8")).random_raw(n // 2 + 1)
    halves = np.stack([words & 0xFFFFFFFF, words >> 32], axis=-1).reshape(-1)[:n].reshape(shape)
    for step in (3, np.asarray(3), backend.asarray(np.asarray(3))):
        np.testing.assert_array_equal(drawn(backend, 0.3, step, shape, 2), halves < round(0.3 * 2**32))


def test_random_bits_differ_by_step_and_stream_and_have_their_probability(backend):
    a, b, c = drawn(backend, 0.5, 0, (64, 64)), drawn(backend, 0.5, 1, (64, 64)), drawn(backend, 0.5, 0, (64, 64), 1)
    for mask, other in [(a, b), (a, c), (b, c)]:
        assert 0.45 < np.mean(mask) < 0.55
        assert 0.45 < np.mean(mask == other) < 0.55
    assert drawn(backend, 1.0, 0, (50,)).all()
    assert not drawn(backend, 0.0, 0, (50,)).any()


def test_random_bits_read_nothing_on_the_host():
    standin = load("standin")
    step = standin.asarray(np.asarray(3))
    like = standin.asarray(np.zeros(3))
    with standin.xp.no_host_reads():
        boundary.bernoulli(standin.xp, like, 0.5, KEY, step, (5,))
