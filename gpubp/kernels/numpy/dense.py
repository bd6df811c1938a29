"""The dense layer on NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...functions.dense import dense
from .activation import COTANGENT, FUNCTION
from .common import ndarray, ones

_add = np.add


def _forward(xp: Any, needs: Any, x: Any, W: Any, b: Any = None, /, *, activation: str = "identity") -> Any:
    if type(x) is not ndarray or type(W) is not ndarray or W.ndim != 2:
        return NotImplemented
    if x.ndim != 2:
        return _forward_of_rows(needs, x, W, b, activation)
    dtype = x.dtype
    char = dtype.char
    if char not in "fd" or W.dtype is not dtype or activation not in FUNCTION or x.shape[1] != W.shape[0]:
        return NotImplemented
    z = x.dot(W)
    if b is not None:
        if type(b) is not ndarray or b.dtype is not dtype or b.shape != z.shape[1:]:
            return NotImplemented
        _add(z, b, z)
    if activation == "identity":
        return z, (x, W, None)
    y = FUNCTION[activation](z, char, z)
    return y, (x, W, y)


def _forward_of_rows(needs: Any, x: Any, W: Any, b: Any, activation: str) -> Any:
    """Compute one product where there are several axes before the last."""
    if x.ndim < 3 or not x.size:
        return NotImplemented
    result = _forward(None, needs, x.reshape(-1, x.shape[-1]), W, b, activation=activation)
    if result is NotImplemented:
        return result
    y, residuals = result
    return y.reshape(*x.shape[:-1], y.shape[1]), residuals


def _backward(xp: Any, needs: Any, dY: Any, residuals: Any, *, activation: str = "identity") -> Any:
    x, W, y = residuals
    if dY.ndim != 2:
        dx, dW, db = _backward(xp, needs, dY.reshape(x.shape[0], dY.shape[-1]), residuals, activation=activation)
        return None if dx is None else dx.reshape(*dY.shape[:-1], dx.shape[1]), dW, db
    char = dY.dtype.char
    dZ = dY if y is None else COTANGENT[activation](dY, y, char)
    return (
        dZ.dot(W.T) if needs[0] else None,
        x.T.dot(dZ) if needs[1] else None,
        ones(char, dZ.shape[0]).dot(dZ) if len(needs) > 2 and needs[2] else None,
    )


dense.override("numpy", _forward, _backward)
