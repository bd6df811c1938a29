"""Fused functions: each with its reference and its hand-written backward pass side by side."""

from __future__ import annotations

from .activation import identity, leaky_relu, relu, sigmoid, softmax, tanh
from .attention import attention, attention_weights
from .dense import dense
from .dropout import dropout
from .embedding import embedding
from .loss import (
    binary_cross_entropy,
    half_squared_error,
    mean_half_squared_error,
    mse,
    softmax_cross_entropy,
)
from .positions import rotary, sinusoidal_positions

__all__ = [
    "attention",
    "attention_weights",
    "binary_cross_entropy",
    "dense",
    "dropout",
    "embedding",
    "half_squared_error",
    "identity",
    "leaky_relu",
    "mean_half_squared_error",
    "mse",
    "relu",
    "rotary",
    "sigmoid",
    "sinusoidal_positions",
    "softmax",
    "softmax_cross_entropy",
    "tanh",
]
