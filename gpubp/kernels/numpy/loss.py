"""Losses on NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...functions import loss
from ...functions.cross_entropy import softmax_cross_entropy
from .common import ndarray, ones, starts

_sum, _max = np.add.reduce, np.maximum.reduce


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


#: A labels' dtype by its character, and the unsigned one of its size, in which negative labels are huge.
_UNSIGNED = {c: np.dtype(c.upper()) for c in "bhilqBHI"}


def _cross_entropy(
    xp: Any, needs: Any, logits: Any, targets: Any, weights: Any = None, class_weights: Any = None, /, **options: Any
) -> Any:
    if options or weights is not None or class_weights is not None:
        return NotImplemented
    if type(logits) is not ndarray or type(targets) is not ndarray or (char := logits.dtype.char) not in "fd":
        return NotImplemented
    unsigned = _UNSIGNED.get(targets.dtype.char)
    if unsigned is None or logits.ndim != 2 or targets.shape != logits.shape[:1] or not logits.size:
        return NotImplemented
    rows, classes = logits.shape
    if _max(targets.view(unsigned)) >= classes:
        return NotImplemented  # the definition says what is wrong
    at = targets + starts(rows, classes)  # where the logit of each row's label stands
    shifted = np.subtract(logits, _max(logits, 1, keepdims=True), order="C")
    picked = shifted.ravel().take(at)
    e = np.exp(shifted, shifted)
    total = e.dot(ones(char, classes))
    out = _sum(np.log(total) - picked) / logits.dtype.type(rows)
    return out, (e, total, at)


def _cross_entropy_backward(xp: Any, needs: Any, g: Any, residuals: Any, **_: Any) -> Any:
    e, total, at = residuals
    g = g / e.shape[0]
    dZ = e * (g / total)[:, None]
    flat = dZ.ravel()
    flat[at] -= g
    return dZ, None


softmax_cross_entropy.override("numpy", _cross_entropy, _cross_entropy_backward)
