"""Fused functions: each with its reference and its hand-written backward pass side by side."""

from __future__ import annotations

from .activation import elu, identity, leaky_relu, prelu, relu, selu, sigmoid, tanh
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
from .smooth import gelu, silu, softplus, softsign
from .softmax import log_softmax, logsumexp, softmax

__all__ = [
    "batch_norm",
    "batch_norm_inference",
    "binary_cross_entropy",
    "dense",
    "dropout",
    "elu",
    "gelu",
    "group_norm",
    "half_squared_error",
    "identity",
    "layer_norm",
    "leaky_relu",
    "log_softmax",
    "logsumexp",
    "mean_half_squared_error",
    "mse",
    "prelu",
    "relu",
    "rms_norm",
    "selu",
    "sigmoid",
    "silu",
    "softmax",
    "softmax_cross_entropy",
    "softplus",
    "softsign",
    "tanh",
]
