"""Activations of NumPy arrays, computed in place, and the cotangents of their inputs."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...functions import activation
from ...functions.activation import SELU_ALPHA, SELU_SCALE, check_alpha
from .common import BITS, EXP_LIMIT, ONE, ZERO, ndarray

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


def _elu(z: Any, char: str, out: Any, alpha: float = 1.0, scale: float = 1.0) -> Any:
    check_alpha(alpha)
    below = np.minimum(z, ZERO[char])
    np.expm1(below, below)
    np.multiply(below, alpha * scale, below)
    out = np.maximum(z, ZERO[char], out=out)
    if scale != 1:
        np.multiply(out, scale, out)
    return np.add(out, below, out)


def _selu(z: Any, char: str, out: Any) -> Any:
    return _elu(z, char, out, SELU_ALPHA, SELU_SCALE)


FUNCTION = {
    "identity": _identity,
    "sigmoid": _sigmoid,
    "tanh": _tanh,
    "relu": _relu,
    "leaky_relu": _leaky_relu,
    "elu": _elu,
    "selu": _selu,
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
    mask = np.less_equal(y, ZERO[char]).view(np.int8)
    np.subtract(mask, 1, mask)
    bits = mask.astype(BITS[char])  # all set where a cotangent passes: an infinite one stops at a dead unit, too
    return np.bitwise_and(bits, dY.view(bits.dtype), bits).view(char)


def _leaky_relu_cotangent(dY: Any, y: Any, char: str) -> Any:
    slope = (y > ZERO[char]).astype(char)  # a product of floats is faster than a choice
    np.maximum(slope, 0.01, out=slope)
    return np.multiply(slope, dY, slope)


def _elu_cotangent(dY: Any, y: Any, char: str, alpha: float = 1.0, scale: float = 1.0) -> Any:
    slope = np.minimum(y, ZERO[char])
    np.add(slope, alpha * scale, slope)
    if alpha != 1:
        above = (y > ZERO[char]).astype(char)
        np.add(slope, np.multiply(above, scale - alpha * scale, above), slope)
    return np.multiply(slope, dY, slope)


def _selu_cotangent(dY: Any, y: Any, char: str) -> Any:
    return _elu_cotangent(dY, y, char, SELU_ALPHA, SELU_SCALE)


COTANGENT = {
    "identity": _identity_cotangent,
    "sigmoid": _sigmoid_cotangent,
    "tanh": _tanh_cotangent,
    "relu": _relu_cotangent,
    "leaky_relu": _leaky_relu_cotangent,
    "elu": _elu_cotangent,
    "selu": _selu_cotangent,
}


def _override(name: str) -> None:
    function, cotangent = FUNCTION[name], COTANGENT[name]

    def forward(xp: Any, needs: Any, x: Any, /, **static: Any) -> Any:
        if type(x) is not ndarray or not x.ndim or (char := x.dtype.char) not in "fd":
            return NotImplemented
        y = function(x, char, None, **static)
        return y, y

    def backward(xp: Any, needs: Any, dY: Any, y: Any, **static: Any) -> Any:
        return (cotangent(dY, y, y.dtype.char, **static),)

    getattr(activation, name).override("numpy", forward, backward)


for _name in ("sigmoid", "relu", "elu", "selu"):
    _override(_name)
