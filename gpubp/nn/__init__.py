"""Layers, activation functions and initializers."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

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

#: What PyTorch calls it, and what it is here.
_FROM_PYTORCH = {
    "Module": "nn.Layer",
    "ModuleList": "a list of layers",
    "ModuleDict": "a dict of layers",
    "functional": "gpubp.functions",
    "init": "W_init=nn.he_normal and so on",
    "Linear": "nn.Dense",
    "LeakyReLU": "nn.leaky_relu",
    "LogSoftmax": "nn.log_softmax",
    **dict.fromkeys(("AdaptiveAvgPool1d", "AdaptiveAvgPool2d", "AdaptiveAvgPool3d"), "nn.AdaptiveAvgPool"),
    **dict.fromkeys(("AvgPool1d", "AvgPool2d", "AvgPool3d"), "nn.AvgPool"),
    **dict.fromkeys(("BatchNorm1d", "BatchNorm2d", "BatchNorm3d"), "nn.BatchNorm"),
    **dict.fromkeys(("MaxPool1d", "MaxPool2d", "MaxPool3d"), "nn.MaxPool"),
    **{name: f"nn.{name.lower()}" for name in ("ELU", "GELU", "Identity", "ReLU", "SELU", "SiLU")},
    **{name: f"nn.{name.lower()}" for name in ("Sigmoid", "Softmax", "Softplus", "Softsign", "Tanh")},
    "MultiheadAttention": "nn.MultiHeadAttention",
    "TransformerEncoderLayer": "nn.TransformerBlock",
    "CrossEntropyLoss": "losses.softmax_cross_entropy",
    "BCEWithLogitsLoss": "losses.binary_cross_entropy",
    "MSELoss": "losses.mse",
    "L1Loss": "losses.mae",
    "HuberLoss": "losses.huber",
}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """Say what another library's name is here."""
        here = _FROM_PYTORCH.get(name)
        advice = f": it is {here} here" if here else ""
        raise AttributeError(
            f"module {__name__!r} has no attribute {name!r}{advice}", name=name, obj=sys.modules[__name__]
        )
