"""Fused functions: each with its reference and its hand-written backward pass side by side."""

from __future__ import annotations

from .activation import identity, leaky_relu, relu, sigmoid, softmax, tanh
from .attention import attention, attention_weights
from .convolution import convolution, convolution_transpose
from .dense import dense
from .dropout import dropout
from .embedding import embedding
from .loss import binary_cross_entropy, half_squared_error, mean_half_squared_error, mse, softmax_cross_entropy
from .normalization import batch_norm, batch_norm_inference, group_norm, layer_norm, rms_norm
from .pooling import adaptive_avg_pool, avg_pool, global_avg_pool, max_pool
from .positions import rotary, sinusoidal_positions
from .recurrent import gru, gru_cell, lstm, lstm_cell, rnn, rnn_cell

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
    "dense",
    "dropout",
    "embedding",
    "global_avg_pool",
    "group_norm",
    "gru",
    "gru_cell",
    "half_squared_error",
    "identity",
    "layer_norm",
    "leaky_relu",
    "lstm",
    "lstm_cell",
    "max_pool",
    "mean_half_squared_error",
    "mse",
    "relu",
    "rms_norm",
    "rnn",
    "rnn_cell",
    "rotary",
    "sigmoid",
    "sinusoidal_positions",
    "softmax",
    "softmax_cross_entropy",
    "tanh",
]
