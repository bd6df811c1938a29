"""Losses at sizes of many warps and blocks, and in 16 bits."""

import numpy as np
import pytest

from .agreement import DTYPES, assert_agrees

RNG = np.random.default_rng(0)
ROWS = [(301, 3), (70, 8), (33, 31), (90, 160), (2, 1153), (3, 4104)]


def labels(shape, dtype="int64"):
    return RNG.integers(0, shape[-1], size=shape[:-1]).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_cross_entropy_of_labels(backend, dtype):
    for shape in ROWS:
        assert_agrees(backend, "softmax_cross_entropy", 3 * RNG.normal(size=shape), labels(shape), dtype=dtype)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_cross_entropy_with_every_option(backend, reduction, dtype):
    for shape, kind in (((301, 3), "int32"), ((70, 8), "int64"), ((2, 45, 160), "uint8")):
        z, t = 3 * RNG.normal(size=shape), labels(shape, kind)
        options = {"label_smoothing": 0.1, "ignore_index": 2, "reduction": reduction}
        assert_agrees(backend, "softmax_cross_entropy", z, t, dtype=dtype, **options)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_cross_entropy_of_probabilities(backend, smoothing, dtype):
    for shape in ROWS:
        targets = RNG.dirichlet(np.ones(shape[-1]), size=shape[:-1])
        options = {"dtype": dtype, "label_smoothing": smoothing}
        assert_agrees(backend, "softmax_cross_entropy", 3 * RNG.normal(size=shape), targets, **options)


@pytest.mark.parametrize("dtype", DTYPES)
def test_kl_divergence(backend, dtype):
    for shape in ROWS:
        targets = RNG.dirichlet(np.ones(shape[-1]), size=shape[:-1])
        assert_agrees(backend, "kl_divergence", 3 * RNG.normal(size=shape), targets, dtype=dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["mse", "mae", "huber", "half_squared_error", "mean_half_squared_error"])
def test_pairs(backend, name, dtype):
    for shape in ((70, 3), (2, 41, 113)):
        y, t = np.sign(RNG.normal(size=(2, *shape))) + 0.25 * RNG.uniform(-1, 1, size=(2, *shape))
        assert_agrees(backend, name, y, t, dtype=dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_binary_cross_entropy(backend, reduction, dtype):
    for shape in ((30, 3), (2, 41, 113)):
        z, t = 3 * RNG.normal(size=shape), RNG.uniform(size=shape)
        options = {"dtype": dtype, "label_smoothing": 0.25, "reduction": reduction}
        assert_agrees(backend, "binary_cross_entropy", z, t, **options)
        assert_agrees(backend, "binary_cross_entropy", z, t > 0.5, None, 2.5, **options)


@pytest.mark.parametrize("dtype", DTYPES)
def test_margins(backend, dtype):
    for shape in ROWS:
        scores = np.argsort(RNG.normal(size=shape)) / 8 + 1 / 32  # no two are alike, nor a margin exactly 1
        assert_agrees(backend, "multiclass_hinge", scores % 8, labels(shape), dtype=dtype)
        y, t = RNG.normal(size=shape), np.sign(RNG.normal(size=shape))
        assert_agrees(backend, "hinge", np.where(abs(y * t - 1) < 0.01, 0.5, y), t, dtype=dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_cosine_embedding(backend, dtype):
    for shape in ROWS:
        assert_agrees(backend, "cosine_embedding", RNG.normal(size=shape), RNG.normal(size=shape), dtype=dtype)
