"""Fused functions: each with its reference and its hand-written backward pass side by side."""

from __future__ import annotations

from .activation import identity, leaky_relu, relu, sigmoid, softmax, tanh
from .dense import dense
from .loss import (
    binary_cross_entropy,
    half_squared_error,
    mean_half_squared_error,
    mse,
    softmax_cross_entropy,
)
from .recurrent import gru, gru_cell, lstm, lstm_cell, rnn, rnn_cell

__all__ = [
    "binary_cross_entropy",
    "dense",
    "gru",
    "gru_cell",
    "half_squared_error",
    "identity",
    "leaky_relu",
    "lstm",
    "lstm_cell",
    "mean_half_squared_error",
    "mse",
    "relu",
    "rnn",
    "rnn_cell",
    "sigmoid",
    "softmax",
    "softmax_cross_entropy",
    "tanh",
]
