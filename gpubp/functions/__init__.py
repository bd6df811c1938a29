"""Fused functions: each with its reference and its hand-written backward pass side by side."""

from __future__ import annotations

from .activation import elu, identity, leaky_relu, prelu, relu, selu, sigmoid, tanh
from .attention import attention, attention_weights
from .convolution import convolution, convolution_transpose
from .cross_entropy import binary_cross_entropy, kl_divergence, softmax_cross_entropy
from .dense import dense
from .dropout import dropout
from .embedding import embedding
from .loss import (
    cosine_embedding,
    half_squared_error,
    hinge,
    huber,
    mae,
    mean_half_squared_error,
    mse,
    multiclass_hinge,
)
from .normalization import batch_norm, batch_norm_inference, group_norm, layer_norm, rms_norm
from .pooling import adaptive_avg_pool, avg_pool, global_avg_pool, max_pool
from .positions import rotary, sinusoidal_positions
from .recurrent import gru, gru_cell, lstm, lstm_cell, rnn, rnn_cell
from .smooth import gelu, silu, softplus, softsign
from .softmax import log_softmax, logsumexp, softmax

__all__ = [
    "adaptive_avg_pool",
    "attention",
    "attention_weights",
    "avg_pool",
    "batch_norm",
    "batch_norm_inference",
    "binary_cross_entropy",
    "convolution",
    "convolution_transpose",
    "cosine_embedding",
    "dense",
    "dropout",
    "elu",
    "embedding",
    "gelu",
    "global_avg_pool",
    "group_norm",
    "gru",
    "gru_cell",
    "half_squared_error",
    "hinge",
    "huber",
    "identity",
    "kl_divergence",
    "layer_norm",
    "leaky_relu",
    "log_softmax",
    "logsumexp",
    "lstm",
    "lstm_cell",
    "mae",
    "max_pool",
    "mean_half_squared_error",
    "mse",
    "multiclass_hinge",
    "prelu",
    "relu",
    "rms_norm",
    "rnn",
    "rnn_cell",
    "rotary",
    "selu",
    "sigmoid",
    "silu",
    "sinusoidal_positions",
    "softmax",
    "softmax_cross_entropy",
    "softplus",
    "softsign",
    "tanh",
]
