"""float16 and bfloat16 on libraries that have them, in functions of the standard and in their derivatives."""

import sys

import numpy as np
import pytest

import gpubp as bp
from gpubp import nn
from gpubp.boundary import erf, is_complex, is_inexact, one_like
from gpubp.device import is_array, library, move, to_numpy
from gpubp.dtypes import bfloat16, is_half, name_of, named
from gpubp.namespace import twin

BF16 = bfloat16()
HALVES = ("float16", "bfloat16")
halves = pytest.mark.parametrize("half", HALVES)


def having(backend, half):
    if named(backend.xp, half) is None:
        pytest.skip(f"{backend.name} has no {half}")
    return named(np, half)


def test_questions_about_dtypes(backend):
    for name in ("float16", "bfloat16", "float32", "int16", "bool"):
        if (dtype := named(backend.xp, name)) is not None:
            x = backend.xp.zeros(2, dtype=dtype)
            assert is_half(x.dtype) == (name in HALVES)
            assert is_inexact(x.dtype) == ("float" in name)
            assert name_of(x.dtype) == name
            assert not is_complex(x)


@halves
def test_the_standards_questions(backend, half):
    having(backend, half)
    for xp in (backend.xp, twin(backend.xp)):
        dtype = xp.zeros(1, dtype=named(backend.xp, half)).dtype
        for kind in ("real floating", "numeric", ("integral", "real floating"), dtype):
            assert xp.isdtype(dtype, kind), kind
        for kind in ("integral", "bool", "complex floating", backend.xp.float32):
            assert not xp.isdtype(dtype, kind), kind
        assert xp.result_type(dtype, dtype) == dtype
        assert xp.result_type(dtype, 1.0) == dtype
        assert xp.result_type(dtype, xp.float32) == xp.float32
        info = xp.finfo(dtype)
        assert (info.bits, float(info.eps)) == (16, 2.0**-10 if half == "float16" else 2.0**-7)
        assert float(info.max) > 6e4


def test_scalars_of_bfloat16_are_arrays_of_numpy():
    one = BF16.type(1)
    assert is_array(one)
    assert library(one) == "numpy"
    assert one_like(one).dtype == BF16
    value, g = bp.value_and_grad(lambda x: x * x)(BF16.type(3))
    assert (value, g, g.dtype) == (9, 6, BF16)


@halves
def test_arrays_move_between_libraries_bit_by_bit(backend, half):
    host = np.asarray([1.5, -2.0, np.inf, 0.001], dtype=having(backend, half))
    there = backend.asarray(host)
    back = to_numpy(there)
    assert back.dtype == host.dtype
    assert back.tobytes() == host.tobytes()
    assert move(there, "numpy").tobytes() == host.tobytes()


@halves
@pytest.mark.parametrize(
    "f",
    [
        lambda xp, x: x * 0.3,
        lambda xp, x: 0.3 * x - 1.0,
        lambda xp, x: 2.0 / x,
        lambda xp, x: x**2.5,
        lambda xp, x: xp.where(x > 1, x, 0.0),
        lambda xp, x: xp.clip(x, 0.5, 2.0),
        lambda xp, x: xp.matmul(x, x),
        lambda xp, x: xp.stack([x, x]) @ xp.stack([x, x]),
        lambda xp, x: xp.vecdot(x, x),
        lambda xp, x: xp.tensordot(x, x, axes=1),
        lambda xp, x: xp.sum(x, axis=0),
        lambda xp, x: xp.mean(x),
        lambda xp, x: xp.var(x, axis=1),
        lambda xp, x: xp.std(x),
        lambda xp, x: xp.prod(x, axis=1),
        lambda xp, x: xp.cumulative_sum(x, axis=0),
        lambda xp, x: xp.log2(x),
        lambda xp, x: erf(xp, x),
        lambda xp, x: xp.logaddexp(x, x),
        lambda xp, x: xp.abs(x),
        lambda xp, x: xp.max(x, axis=0),
        lambda xp, x: xp.sort(x, axis=1),
        lambda xp, x: xp.concat([x, x]),
        lambda xp, x: xp.linalg.vector_norm(x),
        lambda xp, x: x[xp.asarray([0, 0, 1], device=x.device)],
        lambda xp, x: xp.broadcast_to(x, (300, 2, 2)) * 0.01,
    ],
)
def test_what_is_computed_in_16_bits_stays_there(backend, half, f):
    dtype = having(backend, half)
    host = np.asarray([[1.25, 0.5], [1.5, 2.5]], dtype=dtype)
    out, pullback = bp.vjp(lambda x: f(bp.array_namespace(x), x), backend.asarray(host))
    exact, exact_pullback = bp.vjp(lambda x: f(bp.array_namespace(x), x), host.astype("f8"))
    seed = np.asarray(np.random.default_rng(0).uniform(0.5, 1.5, out.shape), dtype=dtype)
    (g,), (expected,) = pullback(backend.asarray(seed)), exact_pullback(seed.astype("f8"))
    for found, wanted in ((out, exact), (g, expected)):
        found = backend.to_numpy(found)
        assert found.dtype == dtype
        tolerance = 4 * (2.0**-11 if half == "float16" else 2.0**-8)
        np.testing.assert_allclose(found.astype("f8"), wanted, rtol=tolerance, atol=tolerance * np.max(np.abs(wanted)))


def test_linear_algebra_is_in_float32():
    for dtype in (np.float16, BF16):
        x = np.asarray([[1.25, 0.5], [1.5, 2.5]], dtype=dtype)
        out, pullback = bp.vjp(lambda x: bp.array_namespace(x).linalg.inv(x), x)
        assert (out.dtype, pullback(out)[0].dtype) == (dtype, dtype)
        np.testing.assert_allclose(out.astype("f8"), np.linalg.inv(x.astype("f8")), rtol=2.0**-8)


@halves
def test_long_sums_are_accumulated_in_float32(backend, half):
    x = backend.asarray(np.ones((5000, 2), dtype=having(backend, half)))
    xp = backend.xp
    for total in (xp.sum(x, axis=0), twin(xp).sum(bp.constant(x), axis=0).data):
        np.testing.assert_allclose(backend.to_numpy(total).astype("f8"), 5000, rtol=2.0**-8)

    def total(x):
        return bp.array_namespace(x).sum(bp.array_namespace(x).astype(x, xp.float32))

    row = backend.asarray(np.ones(2, dtype=having(backend, half)))  # its gradient is a sum over the rows
    g = bp.grad(lambda row: total(x * row))(row)
    np.testing.assert_allclose(backend.to_numpy(g).astype("f8"), 5000, rtol=2.0**-8)


@halves
def test_gradients_of_repeated_items_are_summed_in_float32(backend, half):
    x = backend.asarray(np.ones(2, dtype=having(backend, half)))
    indices = backend.xp.zeros(3000, dtype=backend.xp.int64)
    g = bp.grad(lambda x: bp.array_namespace(x).sum(x[indices]))(x)
    np.testing.assert_allclose(backend.to_numpy(g).astype("f8"), [3000, 0], rtol=2.0**-8)


@halves
def test_second_derivatives(backend, half):
    x = backend.asarray(np.asarray([0.5, 1.5], dtype=having(backend, half)))
    (h,) = bp.hvp(lambda x: bp.array_namespace(x).sum(0.5 * x**3), (x,), (x,))
    assert h.dtype == x.dtype
    np.testing.assert_allclose(backend.to_numpy(h).astype("f8"), [0.75, 6.75], rtol=2.0**-7)


def test_without_ml_dtypes_bfloat16_says_what_brings_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    with pytest.raises(ModuleNotFoundError, match=r"ml_dtypes, which is not installed: pip install 'gpubp\[bf16\]'"):
        nn.Dense(2, 3, seed=0, dtype="bfloat16")
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'gpubp\[bf16\]'"):
        nn.Dense(2, 3, seed=0).astype("bfloat16")
