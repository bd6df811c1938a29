"""Loss functions, each ``loss(output, target)`` with a scalar array as its value."""

from __future__ import annotations

from .functions.cross_entropy import binary_cross_entropy, kl_divergence, softmax_cross_entropy
from .functions.loss import (
    cosine_embedding,
    half_squared_error,
    hinge,
    huber,
    mae,
    mean_half_squared_error,
    mse,
    multiclass_hinge,
)

__all__ = [
    "binary_cross_entropy",
    "cosine_embedding",
    "half_squared_error",
    "hinge",
    "huber",
    "kl_divergence",
    "mae",
    "mean_half_squared_error",
    "mse",
    "multiclass_hinge",
    "softmax_cross_entropy",
]
