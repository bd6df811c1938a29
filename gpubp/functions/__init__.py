"""Fused functions: each with its reference and its hand-written backward pass side by side."""

from __future__ import annotations

from .activation import identity, leaky_relu, relu, sigmoid, softmax, tanh
from .convolution import convolution, convolution_transpose
from .dense import dense
from .loss import (
    binary_cross_entropy,
    half_squared_error,
    mean_half_squared_error,
    mse,
    softmax_cross_entropy,
)
from .pooling import adaptive_avg_pool, avg_pool, global_avg_pool, max_pool

__all__ = [
    "adaptive_avg_pool",
    "avg_pool",
    "binary_cross_entropy",
    "convolution",
    "convolution_transpose",
    "dense",
    "global_avg_pool",
    "half_squared_error",
    "identity",
    "leaky_relu",
    "max_pool",
    "mean_half_squared_error",
    "mse",
    "relu",
    "sigmoid",
    "softmax",
    "softmax_cross_entropy",
    "tanh",
]
