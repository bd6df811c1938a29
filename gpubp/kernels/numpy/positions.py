"""Rotary positions on NumPy: written in place, with tables of cosines that are kept."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from ...functions.positions import check_rotary, cosines, rotary
from .common import ndarray


@lru_cache(maxsize=16)
def _table(char: str, time: int, features: int, offset: int, base: float) -> Any:
    return cosines(np.empty((time, 1, features), char), None, offset, base)


def _turn(x: Any, cos: Any, sin: Any, back: bool = False) -> Any:
    half = x.shape[-1] // 2
    a, b = x[..., :half], x[..., half:]
    out = np.empty(x.shape, x.dtype)
    for y, this, other, minus in ((out[..., :half], a, b, not back), (out[..., half:], b, a, back)):
        np.multiply(this, cos, y)
        (np.subtract if minus else np.add)(y, other * sin, y)
    return out


def _forward(xp: Any, needs: Any, x: Any, positions: Any = None, /, *, offset: int = 0, base: float = 10000.0) -> Any:
    check_rotary(x, positions)
    if type(x) is not ndarray or x.dtype.char not in "fd":
        return NotImplemented
    if positions is None:
        cos, sin = _table(x.dtype.char, x.shape[-3], x.shape[-1], offset, base)
    else:
        cos, sin = cosines(x, positions, offset, base)
    return _turn(x, cos, sin), (cos, sin)


def _backward(xp: Any, needs: Any, dY: Any, residuals: Any, *, offset: int = 0, base: float = 10000.0) -> Any:
    cos, sin = residuals
    return _turn(dY, cos, sin, back=True), None


rotary.override("numpy", _forward, _backward)
