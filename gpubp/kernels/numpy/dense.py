"""The dense layer on NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...functions.dense import dense
from .activation import COTANGENT, FUNCTION
from .common import ndarray, ones

_add = np.add


def _forward(xp: Any, needs: Any, x: Any, W: Any, b: Any = None, /, *, activation: str = "identity") -> Any:
    if type(x) is not ndarray or type(W) is not ndarray or x.ndim != 2 or W.ndim != 2:
        return NotImplemented
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


def _backward(xp: Any, needs: Any, dY: Any, residuals: Any, *, activation: str = "identity") -> Any:
    x, W, y = residuals
    char = dY.dtype.char
    dZ = dY if y is None else COTANGENT[activation](dY, y, char)
    return (
        dZ.dot(W.T) if needs[0] else None,
        x.T.dot(dZ) if needs[1] else None,
        ones(char, dZ.shape[0]).dot(dZ) if len(needs) > 2 and needs[2] else None,
    )


dense.override("numpy", _forward, _backward)
