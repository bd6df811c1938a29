"""Fused functions: each with its reference and its hand-written backward pass side by side."""

from __future__ import annotations

from .activation import elu, identity, leaky_relu, prelu, relu, selu, sigmoid, tanh
from .dense import dense
from .loss import (
    binary_cross_entropy,
    half_squared_error,
    mean_half_squared_error,
    mse,
    softmax_cross_entropy,
)
from .smooth import gelu, silu, softplus, softsign
from .softmax import log_softmax, logsumexp, softmax

__all__ = [
    "binary_cross_entropy",
    "dense",
    "elu",
    "gelu",
    "half_squared_error",
    "identity",
    "leaky_relu",
    "log_softmax",
    "logsumexp",
    "mean_half_squared_error",
    "mse",
    "prelu",
    "relu",
    "selu",
    "sigmoid",
    "silu",
    "softmax",
    "softmax_cross_entropy",
    "softplus",
    "softsign",
    "tanh",
]
