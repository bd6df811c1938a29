"""Activations in every dtype, at several blocks, of strided arrays."""

import numpy as np
import pytest

from .agreement import DTYPES, assert_agrees

RNG = np.random.default_rng(0)
NAMES = ["sigmoid", "relu", "leaky_relu", "elu", "selu", "gelu", "silu", "softplus", "softsign"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_activation(backend, name, dtype):
    x = RNG.choice([-1, 1], size=(3, 411)) * RNG.uniform(0.125, 6, size=(3, 411))  # away from the kinks
    assert_agrees(backend, name, x, dtype=dtype)
    assert_agrees(backend, name, x.T, dtype=dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_options(backend, dtype):
    x = RNG.choice([-1, 1], size=(3, 71)) * RNG.uniform(0.125, 6, size=(3, 71))
    assert_agrees(backend, "gelu", x, dtype=dtype, approximate="tanh")
    assert_agrees(backend, "elu", x, dtype=dtype, alpha=0.5)
    assert_agrees(backend, "leaky_relu", x, dtype=dtype, slope=-0.25)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [1, 71])
def test_prelu(backend, n, dtype):
    x = RNG.choice([-1, 1], size=(150, 71)) * RNG.uniform(0.125, 6, size=(150, 71))
    assert_agrees(backend, "prelu", x, RNG.normal(size=n), dtype=dtype)
    assert_agrees(backend, "prelu", x[0], RNG.normal(size=n), dtype=dtype)
