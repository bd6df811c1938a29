"""Pooling on NumPy: along one axis after another, where only the value is wanted."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...functions.pooling import avg_pool, first_inside, max_pool, one_over_count, windows_for
from ...functions.window import Windows, pad
from .common import BITS, ndarray, scratch

#: Up to so many bytes of channels, windows are copied out first, as the calls on runs so short would cost more.
SHORT = 128


def _suitable(x: Any) -> bool:
    return type(x) is ndarray and x.dtype.char in "fd" and x.size > 0


def _steps(w: Windows) -> list[list[Any]]:
    """Return, for each spatial axis, the keys of the elements of all windows, as if the other axes were not pooled."""
    return [
        [(slice(None),) * axis + (slice(t, t + (n - 1) * s + 1, s),) for t in range(k)]
        for axis, (k, n, s) in enumerate(zip(w.window, w.out, w.stride, strict=True), 1)
    ]


# -- maximum


def _max_forward(xp: Any, needs: Any, x: Any, /, *, window: Any, stride: Any = None, padding: Any = "valid") -> Any:
    if not _suitable(x):
        return NotImplemented
    w = windows_for("max_pool", x, window, stride, padding)
    if w.taps > 256 and needs[0]:
        return NotImplemented  # a winner's number would not fit into a byte
    if any(map(any, w.padding)):
        field = np.full((x.shape[0], *w.padded, x.shape[-1]), -math.inf, x.dtype)
        field[w.interior] = x
        x = field
    if not needs[0]:
        for keys in _steps(w):
            x = _maximum([x[key] for key in keys])
        return x, None
    y, winner = _winners(_taps(x, w), first_inside(xp, x, w))
    if np.isnan(y).any():
        return NotImplemented
    return y, (winner, w)


def _maximum(parts: list[Any]) -> Any:
    if len(parts) == 1:
        return parts[0].copy()
    y = np.maximum(parts[0], parts[1])
    for part in parts[2:]:
        np.maximum(y, part, out=y)
    return y


def _taps(x: Any, w: Windows) -> Any:
    """What stands at each place of all windows: as views, or side by side."""
    width = x.shape[-1] * x.itemsize
    if width > SHORT:
        return [x[key] for _, key in w.places()]
    pixels = np.ascontiguousarray(x).view(np.dtype(("V", width)))[..., 0]
    shape = (w.taps, x.shape[0], *w.out)
    taps = scratch("columns", x.dtype, math.prod(shape) * x.shape[-1]).view(pixels.dtype).reshape(shape)
    for k, (_, key) in enumerate(w.places()):
        taps[k] = pixels[key[:-1]]
    return taps.view(x.dtype).reshape(*shape, x.shape[-1])


def _winners(taps: Any, first: Any) -> tuple[Any, Any]:
    """The maxima, and the numbers of the first elements that have them: the last one set is largest."""
    y = taps[0].copy()
    winner = np.empty(y.shape, "u1")
    winner[...] = first
    better = np.empty(y.shape, bool)
    number = better.view("u1")
    for k in range(1, len(taps)):
        np.greater(taps[k], y, better)
        np.maximum(y, taps[k], out=y)
        np.multiply(number, np.uint8(k), number)
        np.maximum(winner, number, out=winner)
    return y, winner


def _max_backward(xp: Any, needs: Any, dY: Any, residuals: Any, **_: Any) -> Any:
    winner, w = residuals
    dX, apart = _empty(dY, w)
    bits = BITS[dY.dtype.char]
    given, taken = dY.view(bits), dX.view(bits)
    for k, (_, key) in enumerate(w.places()):
        mask = (winner == k).view(np.int8)
        share = np.negative(mask, mask).astype(bits)  # all set for the winner: an infinite cotangent goes to it alone
        if apart:
            np.bitwise_and(share, given, taken[key])
        else:
            np.add(dX[key], np.bitwise_and(share, given, share).view(dY.dtype), dX[key])
    return (dX[w.interior],)


def _empty(dY: Any, w: Windows) -> tuple[Any, bool]:
    """An array for the cotangent of the padded input, and whether every element is in one window and so is set."""
    apart = w.window == w.stride
    tiled = apart and all(n * s == size for n, s, size in zip(w.out, w.stride, w.padded, strict=True))
    make = np.empty if tiled else np.zeros
    return make((dY.shape[0], *w.padded, dY.shape[-1]), dY.dtype), apart


max_pool.override("numpy", _max_forward, _max_backward)


# -- mean


def _avg_forward(
    xp: Any,
    needs: Any,
    x: Any,
    /,
    *,
    window: Any,
    stride: Any = None,
    padding: Any = "valid",
    count_include_pad: bool = True,
) -> Any:
    if not _suitable(x):
        return NotImplemented
    w = windows_for("avg_pool", x, window, stride, padding)
    scale = one_over_count(xp, x, w, count_include_pad)
    y = pad(xp, x, w)
    for keys in _steps(w):
        y, parts = y[keys[0]].copy(), [y[key] for key in keys[1:]]
        for part in parts:
            np.add(y, part, y)
    return np.multiply(y, scale, y), (scale, w)


def _avg_backward(xp: Any, needs: Any, dY: Any, residuals: Any, **_: Any) -> Any:
    scale, w = residuals
    share = dY * scale
    for axis, keys in reversed(list(enumerate(_steps(w), 1))):
        shape = list(share.shape)
        shape[axis] = w.padded[axis - 1]
        spread = np.zeros(shape, dY.dtype)
        for key in keys:
            np.add(spread[key], share, spread[key])
        share = spread
    return (share[w.interior],)


avg_pool.override("numpy", _avg_forward, _avg_backward)
