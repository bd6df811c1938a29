"""Softmax and the logarithms that belong to it: each row is read once, whatever its axis."""

from __future__ import annotations

import math
from typing import Any

import cupy

from ...functions.softmax import log_softmax, logsumexp, softmax
from . import rows
from .common import contiguous, is_floating, wide
from .rows import RowKernel

_SEE = r"""
        Peak peak;
        EACH_PACK {
            pack_<V> x_ = load(x, j);
            W v[V];
            EACH_ONE v[k] = x_.of[k];
            peak.see<V>(v);
            if (room) keep(x_, j);
        }
        peak.join(team);
"""
_WRITE = r"""
        EACH_PACK {
            pack_<V> x_ = again(x, j);
            EACH_ONE x_.of[k] = T(%s);
            store(y, j, x_);
        }
"""

# In 16 bits the input is kept, and two numbers a row, since the gradient may be a small difference of probabilities
# near 1; else the output.
_softmax = RowKernel(
    "softmax",
    "const T* x, T* y, W* peaks",
    _SEE
    + "const W scale = W(1) / peak.total;"
    + "if (peaks && here && rank == 0) peaks[2 * row] = peak.top, peaks[2 * row + 1] = scale;"
    + _WRITE % "exp(W(x_.of[k]) - peak.top) * scale",
    room=1,
)
_softmax_backward = RowKernel(
    "softmax_backward",
    "const T* dy, const T* v, const W* peaks, T* dx",
    r"""
        T* const beside = room + length;
        const W top = peaks && here ? peaks[2 * row] : W(0), scale = peaks && here ? peaks[2 * row + 1] : W(0);
        W dot = 0;
        EACH_PACK {
            pack_<V> g = load(dy, j), p = load(v, j);
            EACH_ONE dot += W(g.of[k]) * (peaks ? exp(W(p.of[k]) - top) * scale : W(p.of[k]));
            if (room) keep(g, j), reinterpret_cast<pack_<V>*>(beside)[j] = p;
        }
        dot = team.sum(dot);
        EACH_PACK {
            pack_<V> g = again(dy, j), p = room ? reinterpret_cast<const pack_<V>*>(beside)[j] : load(v, j);
            EACH_ONE g.of[k] = T((peaks ? exp(W(p.of[k]) - top) * scale : W(p.of[k])) * (W(g.of[k]) - dot));
            store(dx, j, g);
        }
""",
    room=2,
)

# Of log_softmax the input is kept in any case: a logarithm of few bits is not to be exponentiated.
_log_softmax = RowKernel(
    "log_softmax",
    "const T* x, T* y, W* peaks",
    _SEE
    + "const W log_total = log(peak.total);"
    + "if (here && rank == 0) peaks[2 * row] = peak.top, peaks[2 * row + 1] = log_total;"
    + _WRITE % "W(x_.of[k]) - peak.top - log_total",
    room=1,
)
_log_softmax_backward = RowKernel(
    "log_softmax_backward",
    "const T* dy, const T* x, const W* peaks, T* dx",
    r"""
        W sum = 0;
        EACH_PACK {
            pack_<V> g = load(dy, j);
            EACH_ONE sum += W(g.of[k]);
            if (room) keep(g, j);
        }
        sum = team.sum(sum);
        const W top = here ? peaks[2 * row] : W(0), log_total = here ? peaks[2 * row + 1] : W(0);
        EACH_PACK {
            pack_<V> g = again(dy, j), x_ = load(x, j);
            EACH_ONE g.of[k] = T(W(g.of[k]) - exp(W(x_.of[k]) - top - log_total) * sum);
            store(dx, j, g);
        }
""",
    room=1,
)
_logsumexp = RowKernel(
    "logsumexp",
    "const T* x, T* y, W* peaks",
    _SEE.replace("if (room) keep(x_, j);", "")
    + r"""
        const W rest = isfinite(peak.top) ? log(peak.total) : W(0);
        if (here && rank == 0) {
            y[row] = T(peak.top + rest);
            peaks[2 * row] = Peak::base(peak.top), peaks[2 * row + 1] = rest;
        }
""",
)
_logsumexp_backward = RowKernel(
    "logsumexp_backward",
    "const T* g, const T* x, const W* peaks, T* dx",
    r"""
        const W of_row = here ? W(g[row]) : W(0);
        const W top = here ? peaks[2 * row] : W(0), rest = here ? peaks[2 * row + 1] : W(0);
        EACH_PACK {
            pack_<V> x_ = load(x, j);
            EACH_ONE x_.of[k] = T(of_row * exp(W(x_.of[k]) - top - rest));
            store(dx, j, x_);
        }
""",
)


def _suitable(x: Any, axis: int) -> bool:
    return is_floating(x) and x.size > 0 and -x.ndim <= axis < x.ndim and x.shape[axis] < 2**31


def _softmax_forward(xp: Any, needs: Any, x: Any, /, *, axis: int = -1) -> Any:
    if not _suitable(x, axis):
        return NotImplemented
    x, y = contiguous(x), cupy.empty(x.shape, x.dtype)
    count, n, inner = rows.shape(x, axis)
    peaks = cupy.empty((count, 2), wide(x)) if needs[0] and x.itemsize == 2 else None
    _softmax(count, n, x, y, peaks, inner=inner, T=x.dtype)
    return y, (y if peaks is None else x, peaks)


def _softmax_cotangent(xp: Any, needs: Any, dY: Any, residuals: Any, *, axis: int = -1) -> Any:
    v, peaks = residuals
    dX = cupy.empty(v.shape, v.dtype)
    count, n, inner = rows.shape(v, axis)
    _softmax_backward(count, n, contiguous(dY), v, peaks, dX, inner=inner, T=v.dtype)
    return (dX,)


def _log_softmax_forward(xp: Any, needs: Any, x: Any, /, *, axis: int = -1) -> Any:
    if not _suitable(x, axis):
        return NotImplemented
    x, y = contiguous(x), cupy.empty(x.shape, x.dtype)
    count, n, inner = rows.shape(x, axis)
    peaks = cupy.empty((count, 2), wide(x))
    _log_softmax(count, n, x, y, peaks, inner=inner, T=x.dtype)
    return y, (x, peaks)


def _log_softmax_cotangent(xp: Any, needs: Any, dY: Any, residuals: Any, *, axis: int = -1) -> Any:
    x, peaks = residuals
    dX = cupy.empty(x.shape, x.dtype)
    count, n, inner = rows.shape(x, axis)
    _log_softmax_backward(count, n, contiguous(dY), x, peaks, dX, inner=inner, T=x.dtype)
    return (dX,)


softmax.override("cupy", _softmax_forward, _softmax_cotangent)
log_softmax.override("cupy", _log_softmax_forward, _log_softmax_cotangent)


# -- over neighbouring axes, which are one

#: The longest row that is left to one block, if there are fewer than so many rows.
LONGEST, FEW = 1 << 18, 32


def _logsumexp_forward(
    xp: Any, needs: Any, x: Any, /, *, axis: int | tuple[int, ...] | None = None, keepdims: bool = False
) -> Any:
    if not is_floating(x) or not x.size:
        return NotImplemented
    given = tuple(range(x.ndim)) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    if not all(-x.ndim <= a < x.ndim for a in given):
        return NotImplemented
    axes = sorted(a % x.ndim for a in given)
    first, end = (axes[0], axes[-1] + 1) if axes else (0, 0)
    if axes != list(range(first, end)):
        return NotImplemented
    n, inner = math.prod(x.shape[first:end]), math.prod(x.shape[end:])
    count = x.size // n
    if n >= 2**31 or (n > LONGEST and count < FEW):
        return NotImplemented
    shape = (*x.shape[:first], *((1,) * (end - first) if keepdims else ()), *x.shape[end:])
    x, out = contiguous(x), cupy.empty(shape, x.dtype)
    peaks = cupy.empty((count, 2), wide(x))
    _logsumexp(count, n, x, out, peaks, inner=inner, T=x.dtype)
    return out, (x, peaks, n, inner)


def _logsumexp_cotangent(xp: Any, needs: Any, g: Any, residuals: Any, **_: Any) -> Any:
    x, peaks, n, inner = residuals
    dX = cupy.empty(x.shape, x.dtype)
    _logsumexp_backward(len(peaks), n, contiguous(g), x, peaks, dX, inner=inner, T=x.dtype)
    return (dX,)


logsumexp.override("cupy", _logsumexp_forward, _logsumexp_cotangent)
