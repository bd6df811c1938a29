"""Fused functions: each with its reference and its hand-written backward pass side by side."""

from __future__ import annotations

from .activation import identity, leaky_relu, relu, sigmoid, softmax, tanh
from .dense import dense
from .dropout import dropout
from .loss import (
    binary_cross_entropy,
    half_squared_error,
    mean_half_squared_error,
    mse,
    softmax_cross_entropy,
)

__all__ = [
    "binary_cross_entropy",
    "dense",
    "dropout",
    "half_squared_error",
    "identity",
    "leaky_relu",
    "mean_half_squared_error",
    "mse",
    "relu",
    "sigmoid",
    "softmax",
    "softmax_cross_entropy",
    "tanh",
]
