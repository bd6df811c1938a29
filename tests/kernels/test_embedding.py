"""Embedding at sizes of many warps and blocks."""

import numpy as np
import pytest

from gpubp.fused import load_kernels

from .agreement import DTYPES, assert_agrees

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("integers", ["int64", "int32"])
@pytest.mark.parametrize(("places", "rows", "n"), [(700, 9, 3), (130, 500, 40), (3, 2, 200), (257, 1, 40)])
def test_gradients_of_repeated_rows_add_up(backend, places, rows, n, integers, dtype):
    indices = RNG.integers(0, rows, places).astype(integers)
    assert_agrees(backend, "embedding", indices, RNG.normal(size=(rows, n)), dtype=dtype)


def test_places_are_looked_through_in_slices(backend, monkeypatch):
    if backend.name == "cupy":
        load_kernels("cupy")
        monkeypatch.setattr("gpubp.kernels.cupy.embedding.SLICE", 64)
    assert_agrees(backend, "embedding", RNG.integers(0, 9, (20, 10)), RNG.normal(size=(9, 5)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_rotary(backend, dtype):
    x = RNG.normal(size=(2, 40, 3, 10))
    assert_agrees(backend, "rotary", x, dtype=dtype)
    assert_agrees(backend, "rotary", x, RNG.integers(0, 5000, 40), dtype=dtype, offset=3)
