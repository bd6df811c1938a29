"""NumPy's functions that choose, search and sort, and elementwise functions that are no ufuncs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..boundary import is_complex, is_inexact
from .registry import array, arrays, flat, function, gather, normal_axis, part

# -- choosing


@function("where")
def _where(xp: Any, condition: Any, x: Any = None, y: Any = None, /) -> Any:
    condition = array(xp, condition)
    if x is None or y is None:
        return xp.nonzero(condition)
    if not hasattr(x, "dtype") and (isinstance(x, list | tuple) or not hasattr(y, "dtype")):
        x = xp.asarray(x)
    y = xp.asarray(y) if isinstance(y, list | tuple) else y
    return xp.where(condition if condition.dtype == xp.bool else condition != 0, x, y)


@function("select")
def _select(xp: Any, condlist: Any, choicelist: Any, default: Any = 0) -> Any:
    if len(condlist) != len(choicelist):
        raise ValueError(f"numpy.select was given {len(condlist)} conditions for {len(choicelist)} choices")
    out = default
    for condition, choice in zip(condlist[::-1], choicelist[::-1], strict=True):
        out = _where(xp, condition, choice, out)
    return out


@function("clip")
def _clip(xp: Any, a: Any, a_min: Any = None, a_max: Any = None, *, min: Any = None, max: Any = None) -> Any:
    low, high = a_min if min is None else min, a_max if max is None else max
    low, high = (xp.asarray(x) if isinstance(x, list | tuple) else x for x in (low, high))
    return xp.clip(array(xp, a), low, high)


@function("take")
def _take(xp: Any, a: Any, indices: Any, axis: Any = None, *, mode: str = "raise") -> Any:
    if mode not in ("raise", "wrap", "clip"):
        raise ValueError(f"mode must be 'raise', 'wrap' or 'clip', got {mode!r}")
    a, axis = (flat(xp, a), 0) if axis is None else (a, normal_axis(axis, a.ndim))
    indices = array(xp, indices)
    n = a.shape[axis]
    if mode == "wrap":
        indices = indices % n
    elif mode == "clip":
        indices = xp.clip(indices, 0, n - 1)
    return gather(xp, a, indices, axis)


@function("take_along_axis")
def _take_along_axis(xp: Any, arr: Any, indices: Any, axis: Any = -1) -> Any:
    return xp.take_along_axis(*((flat(xp, arr), flat(xp, indices)) if axis is None else (arr, indices)), axis=axis or 0)


@function("compress")
def _compress(xp: Any, condition: Any, a: Any, axis: Any = None) -> Any:
    a, axis = (flat(xp, a), 0) if axis is None else (a, axis)
    (chosen,) = xp.nonzero(array(xp, condition))
    return xp.take(a, chosen, axis=axis)


@function("extract")
def _extract(xp: Any, condition: Any, arr: Any) -> Any:
    return _compress(xp, flat(xp, array(xp, condition)), array(xp, arr))


@function("nonzero")
def _nonzero(xp: Any, a: Any) -> Any:
    return tuple(xp.nonzero(a))


@function("argwhere")
def _argwhere(xp: Any, a: Any) -> Any:
    return xp.stack(list(xp.nonzero(a)), axis=1)


@function("flatnonzero")
def _flatnonzero(xp: Any, a: Any) -> Any:
    return xp.nonzero(flat(xp, a))[0]


# -- sorting and searching


@function("sort")
def _sort(xp: Any, a: Any, axis: Any = -1, kind: Any = None, order: None = None, *, stable: Any = None) -> Any:
    return xp.sort(*((flat(xp, a),) if axis is None else (a,)), axis=-1 if axis is None else axis)


@function("argsort")
def _argsort(xp: Any, a: Any, axis: Any = -1, kind: Any = None, order: None = None, *, stable: Any = None) -> Any:
    return xp.argsort(*((flat(xp, a),) if axis is None else (a,)), axis=-1 if axis is None else axis)


@function("partition")
def _partition(xp: Any, a: Any, kth: Any, axis: Any = -1, kind: Any = None, order: None = None) -> Any:
    return _sort(xp, a, axis)  # a sorted array is partitioned at every place


@function("argpartition")
def _argpartition(xp: Any, a: Any, kth: Any, axis: Any = -1, kind: Any = None, order: None = None) -> Any:
    return _argsort(xp, a, axis)


@function("sort_complex")
def _sort_complex(xp: Any, a: Any) -> Any:
    if is_complex(a):
        raise TypeError("numpy.sort_complex of a traced complex array has no derivative here")
    return xp.sort(a) + 0j


@function("searchsorted")
def _searchsorted(xp: Any, a: Any, v: Any, side: str = "left", sorter: Any = None) -> Any:
    return xp.searchsorted(array(xp, a), array(xp, v), side=side, sorter=sorter)


@function("isin")
def _isin(xp: Any, element: Any, test_elements: Any, *, invert: bool = False) -> Any:
    return xp.isin(array(xp, element), array(xp, test_elements), invert=invert)


# -- elementwise


@function("round", "around")
def _round(xp: Any, a: Any, decimals: int = 0) -> Any:
    return xp.round(a) if not decimals else xp.round(a * 10.0**decimals) / 10.0**decimals


@function("fix")
def _fix(xp: Any, x: Any) -> Any:
    return xp.trunc(x)


@function("real")
def _real(xp: Any, val: Any) -> Any:
    return xp.real(val) if is_complex(val) else val


@function("imag")
def _imag(xp: Any, val: Any) -> Any:
    return xp.imag(val) if is_complex(val) else xp.zeros_like(val)


@function("real_if_close")
def _real_if_close(xp: Any, a: Any, tol: float = 100) -> Any:
    if not is_complex(a):
        return a
    small = tol * xp.finfo(a.dtype).eps if tol > 1 else tol
    return xp.real(a) if bool(xp.all(xp.abs(xp.imag(a)) < small)) else a


@function("angle")
def _angle(xp: Any, z: Any, deg: bool = False) -> Any:
    turned = xp.atan2(_imag(xp, z), _real(xp, z))
    return turned * (180 / math.pi) if deg else turned


@function("sinc")
def _sinc(xp: Any, x: Any) -> Any:
    y = math.pi * x
    near = xp.abs(y) < 0.02  # where the quotient is 0/0 or close to it: four terms of the series, exact to rounding
    away = xp.where(near, 1.0, y)
    square = xp.where(near, y, 0.0) ** 2
    return xp.where(near, 1 - square / 6 * (1 - square / 20 * (1 - square / 42)), xp.sin(away) / away)


@function("nan_to_num")
def _nan_to_num(xp: Any, x: Any, copy: bool = True, nan: Any = 0.0, posinf: Any = None, neginf: Any = None) -> Any:
    if is_complex(x):
        return _nan_to_num(xp, xp.real(x), copy, nan, posinf, neginf) + 1j * _nan_to_num(
            xp, xp.imag(x), copy, nan, posinf, neginf
        )
    if not is_inexact(x.dtype):
        return x
    largest = float(xp.finfo(x.dtype).max)
    x = xp.where(xp.isnan(x), nan, x)
    x = xp.where(x == math.inf, largest if posinf is None else posinf, x)
    return xp.where(x == -math.inf, -largest if neginf is None else neginf, x)


@function("interp")
def _interp(xp: Any, x: Any, xp_: Any, fp: Any, left: Any = None, right: Any = None) -> Any:
    x, knots, values = arrays(xp, (x, xp_, fp))
    if knots.shape[0] == 1:
        inside = xp.broadcast_to(values[0], x.shape)
    else:
        k = xp.clip(xp.searchsorted(knots, x, side="right") - 1, 0, knots.shape[0] - 2)
        (x0, x1), (y0, y1) = ((gather(xp, v, k), gather(xp, v, k + 1)) for v in (knots, values))
        inside = y0 + (x - x0) * ((y1 - y0) / (x1 - x0))
    inside = xp.where(x > knots[-1], values[-1] if right is None else right, inside)
    return xp.where(x < knots[0], values[0] if left is None else left, inside)


@function("polyval")
def _polyval(xp: Any, p: Any, x: Any) -> Any:
    p, x = array(xp, p), array(xp, x)
    y = xp.zeros_like(x)
    for k in range(p.shape[0]):
        y = y * x + p[k]
    return y


@function("unwrap")
def _unwrap(xp: Any, p: Any, discont: Any = None, axis: int = -1, *, period: float = 2 * math.pi) -> Any:
    jump = part(p, axis, 1, None) - part(p, axis, None, -1)
    around = jump - period * xp.round(jump / period)
    around = xp.where((around == -period / 2) & (jump > 0), period / 2, around)
    turn = xp.where(xp.abs(jump) < (period / 2 if discont is None else discont), 0.0, around - jump)
    turns = xp.cumulative_sum(turn, axis=axis)
    return xp.concat([part(p, axis, None, 1), part(p, axis, 1, None) + turns], axis=axis)


@function("convolve")
def _convolve(xp: Any, a: Any, v: Any, mode: str = "full") -> Any:
    a, v = array(xp, a), array(xp, v)
    if a.ndim != 1 or v.ndim != 1 or not a.shape[0] or not v.shape[0]:
        raise ValueError(f"numpy.convolve takes two non-empty vectors, got shapes {a.shape} and {v.shape}")
    if v.shape[0] > a.shape[0]:
        a, v = v, a
    n, m = a.shape[0], v.shape[0]
    if mode not in ("full", "same", "valid"):
        raise ValueError(f"mode must be 'full', 'same' or 'valid', got {mode!r}")
    before, after = {"full": (m - 1, m - 1), "same": (m // 2, (m - 1) // 2), "valid": (0, 0)}[mode]
    zeros = [xp.zeros((k,), dtype=a.dtype) for k in (before, after)]
    padded = xp.concat([zeros[0], a, zeros[1]])
    rows = n + before + after - m + 1
    window = np.add.outer(np.arange(rows), np.arange(m)[::-1]).tolist()
    return xp.matmul(gather(xp, padded, xp.asarray(window, dtype=xp.int64)), v)


@function("correlate")
def _correlate(xp: Any, a: Any, v: Any, mode: str = "valid") -> Any:
    a, v = array(xp, a), array(xp, v)
    v = xp.flip(xp.conj(v) if is_complex(v) else v)
    return _convolve(xp, a, v, mode)


# -- comparing


@function("isclose")
def _isclose(xp: Any, a: Any, b: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Any:
    a, b = arrays(xp, (a, b))
    close = (xp.abs(a - b) <= atol + rtol * xp.abs(b)) & xp.isfinite(b) | (a == b)
    return close | xp.isnan(a) & xp.isnan(b) if equal_nan else close


@function("allclose")
def _allclose(xp: Any, a: Any, b: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Any:
    return xp.all(_isclose(xp, a, b, rtol, atol, equal_nan))


@function("array_equal")
def _array_equal(xp: Any, a1: Any, a2: Any, equal_nan: bool = False) -> Any:
    a1, a2 = array(xp, a1), array(xp, a2)
    if a1.shape != a2.shape:
        return False
    return xp.all((a1 == a2) | xp.isnan(a1) & xp.isnan(a2) if equal_nan else a1 == a2)


@function("array_equiv")
def _array_equiv(xp: Any, a1: Any, a2: Any) -> Any:
    a1, a2 = array(xp, a1), array(xp, a2)
    try:
        np.broadcast_shapes(a1.shape, a2.shape)
    except ValueError:
        return False
    return xp.all(a1 == a2)


function("iscomplex")(lambda xp, x: xp.imag(x) != 0 if is_complex(x) else xp.zeros(x.shape, dtype=xp.bool))
function("isreal")(lambda xp, x: xp.imag(x) == 0 if is_complex(x) else xp.ones(x.shape, dtype=xp.bool))
function("isposinf")(lambda xp, x: x == math.inf)
function("isneginf")(lambda xp, x: x == -math.inf)
