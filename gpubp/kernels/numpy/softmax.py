"""Softmax along the last axis of NumPy arrays: whole rows at a time, as many as the processor's cache holds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ...functions.softmax import log_softmax, softmax
from .common import ndarray, ones

_max, _multiply, _subtract = np.maximum.reduce, np.multiply, np.subtract

#: Elements of a block.
BLOCK = 32768


def blocks(*arrays: Any) -> Iterator[Any]:
    """Yield as many rows of these matrices as make up a block, and an array of that shape to work in."""
    rows, n = arrays[0].shape
    step = max(1, BLOCK // n)
    work = np.empty((min(step, rows), n), arrays[0].dtype)
    for start in range(0, rows, step):
        parts = [x[start : start + step] for x in arrays]
        yield (*parts, work[: len(parts[0])])


def _matrix(x: Any) -> Any:
    return np.ascontiguousarray(x).reshape(-1, x.shape[-1])


def _suitable(x: Any, axis: int) -> bool:
    return type(x) is ndarray and x.dtype.char in "fd" and x.ndim > 0 and x.size > 0 and axis in (-1, x.ndim - 1)


def _log_softmax(xp: Any, needs: Any, x: Any, /, *, axis: int = -1) -> Any:
    if not _suitable(x, axis):
        return NotImplemented
    out = np.empty(x.shape, x.dtype)
    unit = ones(x.dtype.char, x.shape[-1])
    for z, y, work in blocks(_matrix(x), _matrix(out)):
        _subtract(z, _max(z, 1, keepdims=True), y)
        np.exp(y, work)
        _subtract(y, np.log(work.dot(unit))[:, None], y)
    return out, out


def _log_softmax_backward(xp: Any, needs: Any, dY: Any, out: Any, *, axis: int = -1) -> Any:
    dX = np.empty(out.shape, out.dtype)
    unit = ones(out.dtype.char, out.shape[-1])
    for g, y, dx, work in blocks(_matrix(dY), _matrix(out), _matrix(dX)):
        np.exp(y, work)
        _multiply(work, g.dot(unit)[:, None], work)
        _subtract(g, work, dx)
    return (dX,)


def _softmax(xp: Any, needs: Any, x: Any, /, *, axis: int = -1) -> Any:
    if not _suitable(x, axis):
        return NotImplemented
    out = np.empty(x.shape, x.dtype)
    unit = ones(x.dtype.char, x.shape[-1])
    for z, y, _ in blocks(_matrix(x), _matrix(out)):
        _subtract(z, _max(z, 1, keepdims=True), y)
        np.exp(y, y)
        np.divide(y, y.dot(unit)[:, None], y)
    return out, out


def _softmax_backward(xp: Any, needs: Any, dY: Any, out: Any, *, axis: int = -1) -> Any:
    dX = np.empty(out.shape, out.dtype)
    unit = ones(out.dtype.char, out.shape[-1])
    for g, y, dx, work in blocks(_matrix(dY), _matrix(out), _matrix(dX)):
        _multiply(g, y, work)
        _multiply(y, work.dot(unit)[:, None], dx)
        _subtract(work, dx, dx)
    return (dX,)


log_softmax.override("numpy", _log_softmax, _log_softmax_backward)
softmax.override("numpy", _softmax, _softmax_backward)
