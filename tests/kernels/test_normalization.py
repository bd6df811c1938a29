"""Normalization at sizes of many warps and blocks, far from 0, and in 16 bits."""

import numpy as np
import pytest

from .agreement import DTYPES, assert_agrees

RNG = np.random.default_rng(0)


def affine(n):
    return RNG.uniform(0.5, 2, n), RNG.normal(size=n)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(300, 7), (5, 129), (3, 2051), (2, 3, 64)])
def test_layer_and_rms_norm(backend, shape, dtype):
    gain, bias = affine(shape[-1])
    x = RNG.normal(size=shape)
    assert_agrees(backend, "layer_norm", x, gain, bias, dtype=dtype)
    assert_agrees(backend, "rms_norm", x, gain, dtype=dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "groups"), [((3, 9, 9, 12), 3), ((2, 700, 4), 1), ((2, 33, 6), 6)])
def test_group_norm(backend, shape, groups, dtype):
    assert_agrees(backend, "group_norm", RNG.normal(size=shape), *affine(shape[-1]), dtype=dtype, groups=groups)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(2000, 3), (7, 70), (4, 9, 9, 33), (1500, 40)])
def test_batch_norm(backend, shape, dtype):
    n = shape[-1]
    assert_agrees(backend, "batch_norm", RNG.normal(1, 1, shape), *affine(n), dtype=dtype)
    mean, variance = RNG.normal(size=n), RNG.uniform(0.5, 2, n)
    assert_agrees(backend, "batch_norm_inference", RNG.normal(size=shape), mean, variance, *affine(n), dtype=dtype)


@pytest.mark.parametrize("name", ["layer_norm", "batch_norm"])
def test_far_from_zero(backend, name):
    assert_agrees(backend, name, 1000 + RNG.normal(size=(400, 300)) / 8, *affine(300))
