"""CuPy: kernels of CUDA, each for any floating dtype.

An override takes CuPy's float16, bfloat16, float32 and float64 arrays and declines others.
"""

from . import (
    activation,
    cross_entropy,
    dropout,
    embedding,
    loss,
    normalization,
    positions,
    product,
    random,
    smooth,
    softmax,
    sums,
)

__all__ = [
    "activation",
    "cross_entropy",
    "dropout",
    "embedding",
    "loss",
    "normalization",
    "positions",
    "product",
    "random",
    "smooth",
    "softmax",
    "sums",
]
