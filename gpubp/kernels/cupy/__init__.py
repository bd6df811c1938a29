"""CuPy: kernels of CUDA, each for any floating dtype.

An override takes CuPy's float16, bfloat16, float32 and float64 arrays and declines others.
"""

from . import activation, attention, embedding, normalization, pooling, positions, product, recurrent, softmax, sums

__all__ = [
    "activation",
    "attention",
    "embedding",
    "normalization",
    "pooling",
    "positions",
    "product",
    "recurrent",
    "softmax",
    "sums",
]
