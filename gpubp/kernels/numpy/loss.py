"""Squared errors on NumPy."""

from __future__ import annotations

from typing import Any

from ...functions import loss
from .common import ndarray


def _squares(y: Any, target: Any, scale: float) -> Any:
    d = y - target
    flat = d.ravel()
    return flat.dot(flat) * scale, (d, 2.0 * scale)


def _squares_backward(xp: Any, needs: Any, g: Any, residuals: Any, **_: Any) -> Any:
    d, scale = residuals
    dY = d * (g * scale)
    return dY, -dY if needs[1] else None


def _suitable(y: Any, target: Any) -> bool:
    return (
        type(y) is ndarray
        and type(target) is ndarray
        and y.dtype is target.dtype
        and y.dtype.char in "fd"
        and y.shape == target.shape
        and y.size > 0
        and y.ndim > 0
    )


def _half_squared_error(xp: Any, needs: Any, y: Any, target: Any, /) -> Any:
    return _squares(y, target, 0.5) if _suitable(y, target) else NotImplemented


def _mean_half_squared_error(xp: Any, needs: Any, y: Any, target: Any, /) -> Any:
    return _squares(y, target, 0.5 / y.shape[0]) if _suitable(y, target) else NotImplemented


def _mse(xp: Any, needs: Any, y: Any, target: Any, /, *, reduction: str = "mean") -> Any:
    if reduction != "mean" or not _suitable(y, target):
        return NotImplemented
    return _squares(y, target, 1.0 / y.size)


loss.half_squared_error.override("numpy", _half_squared_error, _squares_backward)
loss.mean_half_squared_error.override("numpy", _mean_half_squared_error, _squares_backward)
loss.mse.override("numpy", _mse, _squares_backward)
