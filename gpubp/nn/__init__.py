"""Layers, activation functions and initializers."""

from __future__ import annotations

from ..functions import (
    elu,
    gelu,
    identity,
    leaky_relu,
    log_softmax,
    relu,
    selu,
    sigmoid,
    silu,
    softmax,
    softplus,
    softsign,
    tanh,
)
from ..state import State
from .activation import PReLU
from .attention import MultiHeadAttention, TransformerBlock
from .convolution import Conv, Conv1d, Conv2d, Conv3d, ConvTranspose, ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from .dense import Dense
from .dropout import Dropout
from .embedding import Embedding, SinusoidalPositions
from .initializers import (
    constant,
    glorot_normal,
    glorot_uniform,
    he_normal,
    he_uniform,
    lecun_normal,
    lecun_uniform,
    normal,
    orthogonal,
    truncated_normal,
    uniform,
    zeros,
)
from .layer import Layer
from .normalization import BatchNorm, GroupNorm, LayerNorm, RMSNorm
from .parameter import Key, Parameter
from .pooling import AdaptiveAvgPool, AvgPool, GlobalAvgPool, MaxPool
from .recurrent import GRU, LSTM, RNN, GRUCell, LSTMCell, RNNCell
from .sequential import Sequential
from .shape import Flatten, Lambda, Residual
from .summary import summary

__all__ = [
    "AdaptiveAvgPool",
    "AvgPool",
    "BatchNorm",
    "Conv",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "Dense",
    "Dropout",
    "Embedding",
    "Flatten",
    "GlobalAvgPool",
    "GroupNorm",
    "Key",
    "Lambda",
    "Layer",
    "LayerNorm",
    "MaxPool",
    "MultiHeadAttention",
    "PReLU",
    "Parameter",
    "RMSNorm",
    "Residual",
    "Sequential",
    "SinusoidalPositions",
    "State",
    "TransformerBlock",
    "constant",
    "elu",
    "gelu",
    "glorot_normal",
    "glorot_uniform",
    "he_normal",
    "he_uniform",
    "identity",
    "leaky_relu",
    "lecun_normal",
    "lecun_uniform",
    "log_softmax",
    "normal",
    "orthogonal",
    "relu",
    "selu",
    "sigmoid",
    "silu",
    "softmax",
    "softplus",
    "softsign",
    "summary",
    "tanh",
    "truncated_normal",
    "uniform",
    "zeros",
    "GRU",
    "LSTM",
    "RNN",
    "GRUCell",
    "LSTMCell",
    "RNNCell",
]
