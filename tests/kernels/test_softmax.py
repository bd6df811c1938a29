"""Softmax and its logarithms at sizes of many warps and blocks, along every axis, and in 16 bits."""

import numpy as np
import pytest

from .agreement import DTYPES, assert_agrees

RNG = np.random.default_rng(0)
NAMES = ["softmax", "log_softmax", "logsumexp"]

#: By how many threads a row is shared out: 1, 2, 8, 32 of a warp, 256 and 512 of a block; whole packs and odd ends; and
#: rows too long for shared memory.
ROWS = [(301, 3), (70, 8), (33, 31), (5, 160), (9, 1024), (3, 1153), (2, 4104), (2, 12600)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_rows(backend, name, dtype):
    for shape in ROWS:
        assert_agrees(backend, name, 3 * RNG.normal(size=shape), dtype=dtype, axis=-1)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("shape", "axis"), [((7, 5, 12), 1), ((40, 3), 0), ((70, 5, 64), 1), ((2, 1300, 3), -2)])
def test_other_axes(backend, name, shape, axis, dtype):
    assert_agrees(backend, name, RNG.normal(size=shape), dtype=dtype, axis=axis)


@pytest.mark.parametrize("axis", [None, (0, 1), (-1, -2), (), (0, 2)])
def test_logsumexp_over_several_axes(backend, axis):
    assert_agrees(backend, "logsumexp", RNG.normal(size=(5, 33, 6)), axis=axis)


@pytest.mark.parametrize("name", NAMES)
def test_far_from_zero(backend, name):
    x = RNG.normal(size=(6, 200)) + 1e4 * np.arange(-3, 3)[:, None]
    assert_agrees(backend, name, x, dtype="float64", axis=-1)
