"""Activations of NumPy arrays, computed in place, and the cotangents of their inputs."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...functions import activation
from .common import EXP_LIMIT, ONE, ZERO, ndarray

# f(z) goes to `out`, which may be z itself; a new array is made where it is None.


def _identity(z: Any, char: str, out: Any) -> Any:
    return z


def _sigmoid(z: Any, char: str, out: Any) -> Any:
    out = np.minimum(z, EXP_LIMIT[char], out=out)
    np.exp(out, out)
    return np.divide(out, np.add(out, ONE[char]), out)


def _tanh(z: Any, char: str, out: Any) -> Any:
    return np.tanh(z, out)


def _relu(z: Any, char: str, out: Any) -> Any:
    return np.maximum(z, ZERO[char], out=out)


def _leaky_relu(z: Any, char: str, out: Any) -> Any:
    return np.maximum(z, z * 0.01, out=out)


FUNCTION = {
    "identity": _identity,
    "sigmoid": _sigmoid,
    "tanh": _tanh,
    "relu": _relu,
    "leaky_relu": _leaky_relu,
}

# The cotangent of the input, from that of the output y, as a new array (but for the identity).


def _identity_cotangent(dY: Any, y: Any, char: str) -> Any:
    return dY


def _sigmoid_cotangent(dY: Any, y: Any, char: str) -> Any:
    slope = np.subtract(ONE[char], y)
    np.multiply(slope, y, slope)
    return np.multiply(slope, dY, slope)


def _tanh_cotangent(dY: Any, y: Any, char: str) -> Any:
    slope = np.multiply(y, y)
    np.subtract(ONE[char], slope, slope)
    return np.multiply(slope, dY, slope)


def _relu_cotangent(dY: Any, y: Any, char: str) -> Any:
    slope = (y > ZERO[char]).astype(char)  # a product of floats is faster than one of a float and a boolean
    return np.multiply(slope, dY, slope)


def _leaky_relu_cotangent(dY: Any, y: Any, char: str) -> Any:
    return np.where(y > ZERO[char], dY, 0.01 * dY)


COTANGENT = {
    "identity": _identity_cotangent,
    "sigmoid": _sigmoid_cotangent,
    "tanh": _tanh_cotangent,
    "relu": _relu_cotangent,
    "leaky_relu": _leaky_relu_cotangent,
}


def _override(name: str) -> None:
    function, cotangent = FUNCTION[name], COTANGENT[name]

    def forward(xp: Any, needs: Any, x: Any, /) -> Any:
        if type(x) is not ndarray or not x.ndim or (char := x.dtype.char) not in "fd":
            return NotImplemented
        y = function(x, char, None)
        return y, y

    def backward(xp: Any, needs: Any, dY: Any, y: Any) -> Any:
        return (cotangent(dY, y, y.dtype.char),)

    getattr(activation, name).override("numpy", forward, backward)


for _name in ("sigmoid", "relu"):
    _override(_name)
