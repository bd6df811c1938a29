"""NumPy: arithmetic in place, and the calls that cost least for small arrays.

An override takes real float32 and float64 arrays of class ``ndarray`` with at least one axis, and declines others.
"""

from . import (
    activation,
    attention,
    convolution,
    cross_entropy,
    dense,
    embedding,
    loss,
    normalization,
    pooling,
    positions,
    recurrent,
    smooth,
    softmax,
    update,
)

__all__ = [
    "activation",
    "attention",
    "convolution",
    "cross_entropy",
    "dense",
    "embedding",
    "loss",
    "normalization",
    "pooling",
    "positions",
    "recurrent",
    "smooth",
    "softmax",
    "update",
]
