"""Layers, activation functions and initializers."""

from __future__ import annotations

from ..functions import identity, leaky_relu, relu, sigmoid, softmax, tanh
from ..state import State
from .dense import Dense
from .dropout import Dropout
from .initializers import (
    constant,
    glorot_normal,
    glorot_uniform,
    he_normal,
    he_uniform,
    lecun_normal,
    lecun_uniform,
    normal,
    uniform,
    zeros,
)
from .layer import Layer
from .normalization import BatchNorm, GroupNorm, LayerNorm, RMSNorm
from .parameter import Key, Parameter
from .sequential import Sequential
from .shape import Flatten, Lambda, Residual
from .summary import summary

__all__ = [
    "BatchNorm",
    "Dense",
    "Dropout",
    "Flatten",
    "GroupNorm",
    "Key",
    "Lambda",
    "Layer",
    "LayerNorm",
    "Parameter",
    "RMSNorm",
    "Residual",
    "Sequential",
    "State",
    "constant",
    "glorot_normal",
    "glorot_uniform",
    "he_normal",
    "he_uniform",
    "identity",
    "leaky_relu",
    "lecun_normal",
    "lecun_uniform",
    "normal",
    "relu",
    "sigmoid",
    "softmax",
    "summary",
    "tanh",
    "uniform",
    "zeros",
]
