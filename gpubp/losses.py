"""Loss functions, each ``loss(output, target)`` with a scalar array as its value."""

from __future__ import annotations

from .functions.loss import (
    binary_cross_entropy,
    half_squared_error,
    mean_half_squared_error,
    mse,
    softmax_cross_entropy,
)

__all__ = [
    "binary_cross_entropy",
    "half_squared_error",
    "mean_half_squared_error",
    "mse",
    "softmax_cross_entropy",
]
