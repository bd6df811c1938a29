"""Attention at sizes of many blocks, in 16 bits, from arrays that lie anyhow, and at its ends."""

import importlib

import numpy as np
import pytest

import gpubp as bp
from gpubp import functions as F
from gpubp.device import to_numpy
from gpubp.fused import FUSED, load_kernels
from gpubp.tree import leaves

from .agreement import assert_agrees

DTYPES = ["float64", "float32", "float16", "bfloat16"]
RNG = np.random.default_rng(0)
RANDOM = {"dropout": 0.3, "key": (5, 2**64 - 6)}
dtypes = pytest.mark.parametrize("dtype", DTYPES)


def sequences(queries, keys, heads=2, features=8, values=8, batch=(2,)):
    shapes = [(queries, heads, features), (keys, heads, features), (keys, heads, values)]
    return [RNG.normal(size=(*batch, *shape)) for shape in shapes]


@pytest.fixture
def small_blocks(backend, monkeypatch):
    """Blocks of few queries of few sequences."""
    if backend.name == "cupy":
        load_kernels("cupy")
        module = importlib.import_module("gpubp.kernels.cupy.attention")
        monkeypatch.setattr(module, "ROWS", 7)
        monkeypatch.setattr(module, "SCORES", 500)


@dtypes
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("size", [(37, 37, 3, 8, 16), (5, 70, 2, 5, 3), (70, 33, 1, 16, 1), (1, 40, 3, 4, 4)])
def test_values_and_gradients(backend, size, causal, dtype):
    assert_agrees(backend, "attention", *sequences(*size), dtype=dtype, causal=causal)


@dtypes
@pytest.mark.parametrize("causal", [False, True])
def test_blocks(backend, small_blocks, causal, dtype):
    assert_agrees(backend, "attention", *sequences(33, 40), dtype=dtype, causal=causal)
    assert_agrees(backend, "attention", *sequences(40, 33), dtype=dtype, causal=causal)


@dtypes
@pytest.mark.parametrize("batch", [(), (2,), (2, 1, 3)])
@pytest.mark.parametrize("causal", [False, True])
def test_masks(backend, small_blocks, batch, causal, dtype):
    args = sequences(9, 21, batch=batch)
    for shape in [(9, 21), (2, 1, 21), (*batch[:1], *[1] * len(batch[1:]), 1, 9, 1), (*batch, 2, 9, 21)]:
        visible = RNG.random(shape) < 0.6
        visible[..., 0] = False
        assert_agrees(backend, "attention", *args, visible, dtype=dtype, causal=causal)
        if dtype == "float64":
            bias = np.where(visible, RNG.normal(size=shape), -np.inf)
            assert_agrees(backend, "attention", *args, bias, dtype=dtype, causal=causal)


@dtypes
@pytest.mark.parametrize("causal", [False, True])
def test_dropout(backend, small_blocks, monkeypatch, causal, dtype):
    """The weights that stay are those of the definition, in whatever blocks it draws them."""
    args = sequences(19, 26)
    for rows in (128, 8):
        monkeypatch.setattr(importlib.import_module("gpubp.functions.attention"), "ROWS", rows)
        assert_agrees(backend, "attention", *args, None, 3, dtype=dtype, causal=causal, **RANDOM)
    step = backend.xp.asarray(7, dtype=backend.xp.int32)
    on = [backend.asarray(x) for x in args]
    found = F.attention(*on, None, step, causal=causal, **RANDOM)
    expected = F.attention(*args, None, 7, causal=causal, **RANDOM)
    np.testing.assert_allclose(to_numpy(found), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("features", [3, 8])
def test_views_of_one_projection(backend, features):
    """As a layer makes them: queries, keys and values side by side, and the cotangent a view, too."""
    xp = backend.xp
    whole = RNG.normal(size=(2, 10, 3, 4, features))
    q, k, v = whole[:, :, 0], whole[:, :, 1], whole[:, :, 2]
    d = RNG.normal(size=(2, 10, 4, 2 * features))[..., ::2]

    def of(x):
        parts = [x[:, :, j, ...] for j in range(3)]
        return F.attention(*parts, causal=True)

    y, pullback = bp.vjp(of, backend.asarray(whole))
    wanted, definition = bp.vjp(lambda *a: F.attention.reference(*a, causal=True), q, k, v)
    cotangent = xp.asarray(backend.asarray(np.repeat(d, 2, axis=-1)))[..., ::2]
    dx = leaves(pullback(cotangent))[0]
    np.testing.assert_allclose(to_numpy(y), wanted, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(to_numpy(dx), np.stack(definition(d), axis=2), rtol=1e-11, atol=1e-13)


def test_each_gradient_alone(backend):
    args = sequences(6, 9)
    d = RNG.normal(size=(2, 6, 2, 8))
    expected = bp.vjp(F.attention.reference, *args)[1](d)
    for k in range(3):
        on = [backend.asarray(x) for x in args]
        others = [bp.constant(x) for x in on]

        def f(x, k=k, others=others):
            return F.attention(*others[:k], x, *others[k + 1 :])

        found = leaves(bp.vjp(f, on[k])[1](backend.asarray(d)))[0]
        np.testing.assert_allclose(to_numpy(found), expected[k], rtol=1e-12, atol=1e-14)


def test_a_pullback_can_be_called_again(backend):
    on = [backend.asarray(x) for x in sequences(6, 9)]
    y, pullback = bp.vjp(lambda *a: F.attention(*a, causal=True), *on)
    first = pullback(y)
    pullback(3 * y)
    for a, e in zip(pullback(y), first, strict=True):
        np.testing.assert_array_equal(to_numpy(a), to_numpy(e))


@pytest.mark.parametrize("dtype", DTYPES[:3])
def test_huge_scores(backend, dtype):
    """Of 16 bits the products of queries and keys would be infinite before they are scaled."""
    if dtype == "float16" and backend.name != "cupy":
        pytest.skip("other libraries' products of 16 bits are their own")
    q, k, v = (x.astype(dtype) for x in sequences(20, 30, features=64))
    y, pullback = bp.vjp(lambda *a: F.attention(*a), *(backend.asarray(x) for x in (50 * q, 50 * k, v)))
    for found in (y, *pullback(y)):
        assert np.isfinite(to_numpy(found).astype("float64")).all()


def test_what_is_not_finite_stays_in_its_row(backend):
    q, k, v = sequences(12, 50)
    q[0, 2, 1, 0], q[1, 3, 0, 0] = np.nan, np.inf
    k[1, :, 0, 0] = np.abs(k[1, :, 0, 0])
    bad = np.isnan(to_numpy(F.attention(*map(backend.asarray, (q, k, v)))))
    assert bad[0, 2, 1].all()
    assert bad[1, 3, 0].all()
    assert bad.sum() == 16


def test_a_query_that_sees_nothing(backend, small_blocks):
    args = sequences(20, 9)
    y, pullback = bp.vjp(lambda *a: F.attention(*a, causal=True), *map(backend.asarray, args))
    dq, dk, dv = (to_numpy(d) for d in pullback(y))
    assert not to_numpy(y)[:, :11].any()
    assert not dq[:, :11].any()
    assert all(np.isfinite(d).all() and d.any() for d in (dq, dk, dv))


def test_the_kernels_take_part(backend, monkeypatch):
    """Two products and a kernel forward, five and a kernel backward."""
    if backend.name != "cupy":
        pytest.skip("kernels of CuPy")
    load_kernels("cupy")
    module = importlib.import_module("gpubp.kernels.cupy.attention")
    counts = {"products": 0, "kernels": 0}
    product, launch = module.product, module._launch

    def counted(name, function):
        def call(*args, **options):
            counts[name] += 1
            return function(*args, **options)

        return call

    monkeypatch.setattr(module, "product", counted("products", product))
    monkeypatch.setattr(module, "_launch", counted("kernels", launch))
    on = [backend.asarray(x) for x in sequences(6, 9)]
    implementation = FUSED["attention"].overrides["cupy"]
    y, residuals = implementation.forward(backend.xp, (True,) * 3, *on, causal=True)
    assert counts == {"products": 2, "kernels": 1}
    implementation.backward(backend.xp, (True,) * 3, y, residuals, causal=True)
    assert counts == {"products": 7, "kernels": 2}
