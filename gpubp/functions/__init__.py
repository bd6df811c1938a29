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
from .normalization import batch_norm, batch_norm_inference, group_norm, layer_norm, rms_norm

__all__ = [
    "batch_norm",
    "batch_norm_inference",
    "binary_cross_entropy",
    "dense",
    "dropout",
    "group_norm",
    "half_squared_error",
    "identity",
    "layer_norm",
    "leaky_relu",
    "mean_half_squared_error",
    "mse",
    "relu",
    "rms_norm",
    "sigmoid",
    "softmax",
    "softmax_cross_entropy",
    "tanh",
]
