"""NumPy's sums, averages, order statistics and predicates."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..boundary import is_complex, is_inexact
from .registry import Function, along, array, flat, function, native, normal_axes, normal_axis, part
from .shapes import _expand_dims


def _masked(xp: Any, a: Any, where: Any, otherwise: Any) -> Any:
    return a if where is True else xp.where(array(xp, where), a, otherwise)


def _cast(xp: Any, a: Any, dtype: Any) -> Any:
    return a if dtype is None else xp.astype(a, native(xp, dtype))


def _count(a: Any, axis: Any) -> int:
    return math.prod(a.shape[k] for k in normal_axes(axis, a.ndim))


@function("sum")
def _sum(
    xp: Any,
    a: Any,
    axis: Any = None,
    dtype: Any = None,
    *,
    keepdims: bool = False,
    initial: Any = None,
    where: Any = True,
) -> Any:
    total = xp.sum(_masked(xp, a, where, 0), axis=axis, dtype=native(xp, dtype), keepdims=keepdims)
    return total if initial is None else total + initial


@function("prod")
def _prod(
    xp: Any,
    a: Any,
    axis: Any = None,
    dtype: Any = None,
    *,
    keepdims: bool = False,
    initial: Any = None,
    where: Any = True,
) -> Any:
    product = xp.prod(_masked(xp, a, where, 1), axis=axis, dtype=native(xp, dtype), keepdims=keepdims)
    return product if initial is None else product * initial


@function("mean")
def _mean(xp: Any, a: Any, axis: Any = None, dtype: Any = None, *, keepdims: bool = False, where: Any = True) -> Any:
    a = _cast(xp, a, dtype)
    if where is True:
        return xp.mean(a, axis=axis, keepdims=keepdims)
    ones = xp.astype(xp.broadcast_to(array(xp, where), a.shape), a.dtype)
    return _sum(xp, a, axis, where=where, keepdims=keepdims) / xp.sum(ones, axis=axis, keepdims=keepdims)


@function("var")
def _var(
    xp: Any,
    a: Any,
    axis: Any = None,
    dtype: Any = None,
    *,
    ddof: float = 0,
    keepdims: bool = False,
    correction: Any = None,
) -> Any:
    a, ddof = _cast(xp, a, dtype), ddof if correction is None else correction
    if not is_complex(a):
        return xp.var(a, axis=axis, correction=ddof, keepdims=keepdims)
    d = a - xp.mean(a, axis=axis, keepdims=True)
    return xp.sum(xp.real(d * xp.conj(d)), axis=axis, keepdims=keepdims) / max(_count(a, axis) - ddof, 0)


@function("std")
def _std(
    xp: Any,
    a: Any,
    axis: Any = None,
    dtype: Any = None,
    *,
    ddof: float = 0,
    keepdims: bool = False,
    correction: Any = None,
) -> Any:
    a, ddof = _cast(xp, a, dtype), ddof if correction is None else correction
    if not is_complex(a):
        return xp.std(a, axis=axis, correction=ddof, keepdims=keepdims)
    return xp.sqrt(_var(xp, a, axis, ddof=ddof, keepdims=keepdims))


def _extremum(name: str, pairwise: str) -> Function:
    def extremum(
        xp: Any,
        a: Any,
        axis: Any = None,
        *,
        keepdims: bool = False,
        initial: Any = None,
        where: Any = True,
    ) -> Any:
        if where is not True and initial is None:
            raise TypeError(f"numpy.{name} with where= needs initial=, the value where nothing is chosen")
        found = getattr(xp, name)(_masked(xp, a, where, initial), axis=axis, keepdims=keepdims)
        return found if initial is None else getattr(xp, pairwise)(found, initial)

    return extremum


_max = function("max", "amax")(_extremum("max", "maximum"))
_min = function("min", "amin")(_extremum("min", "minimum"))


@function("ptp")
def _ptp(xp: Any, a: Any, axis: Any = None, *, keepdims: bool = False) -> Any:
    return xp.max(a, axis=axis, keepdims=keepdims) - xp.min(a, axis=axis, keepdims=keepdims)


def _cumulative(name: str) -> Function:
    def cumulative(xp: Any, a: Any, axis: Any = None, dtype: Any = None) -> Any:
        a, axis = (flat(xp, a), 0) if axis is None else (a, axis)
        return getattr(xp, name)(a, axis=axis, dtype=native(xp, dtype))

    return cumulative


def _cumulative_standard(name: str) -> Function:
    def cumulative(xp: Any, x: Any, /, *, axis: Any = None, dtype: Any = None, include_initial: bool = False) -> Any:
        return getattr(xp, name)(x, axis=axis, dtype=native(xp, dtype), include_initial=include_initial)

    return cumulative


_cumsum = function("cumsum")(_cumulative("cumulative_sum"))
_cumprod = function("cumprod")(_cumulative("cumulative_prod"))
function("cumulative_sum")(_cumulative_standard("cumulative_sum"))
function("cumulative_prod")(_cumulative_standard("cumulative_prod"))


@function("average")
def _average(
    xp: Any, a: Any, axis: Any = None, weights: Any = None, returned: bool = False, *, keepdims: bool = False
) -> Any:
    a = array(xp, a)
    if weights is None:
        found = xp.mean(a, axis=axis, keepdims=keepdims)
        total = xp.full_like(found, _count(a, axis))
        return (found, total) if returned else found
    weights = array(xp, weights)
    if weights.shape != a.shape:
        (only,) = normal_axes(axis, a.ndim)
        weights = along(xp, weights, a.ndim, only)
    total = xp.sum(xp.broadcast_to(weights, a.shape), axis=axis, keepdims=keepdims)
    found = xp.sum(a * weights, axis=axis, keepdims=keepdims) / total
    return (found, total) if returned else found


# -- order statistics


#: For a position between two order statistics: which to take, and the weight of the upper one.
_BETWEEN: dict[str, Any] = {
    "linear": lambda p: p - math.floor(p),
    "lower": lambda p: 0.0,
    "higher": lambda p: float(p != math.floor(p)),
    "nearest": lambda p: round(p) - math.floor(p),
    "midpoint": lambda p: 0.5 * (p != math.floor(p)),
}


@function("quantile")
def _quantile(
    xp: Any,
    a: Any,
    q: Any,
    axis: Any = None,
    *,
    method: str = "linear",
    keepdims: bool = False,
) -> Any:
    if method not in _BETWEEN:
        raise TypeError(f"numpy.quantile of a traced array knows the methods {', '.join(_BETWEEN)}, got {method!r}")
    if np.ndim(q):
        parts = [_quantile(xp, a, each, axis, method=method, keepdims=keepdims) for each in q]
        return xp.stack(parts)
    q = float(q)
    if not 0 <= q <= 1:
        raise ValueError(f"quantiles lie between 0 and 1, got {q}")
    a = array(xp, a)
    reduced = normal_axes(axis, a.ndim)
    kept = tuple(k for k in range(a.ndim) if k not in reduced)
    x = xp.permute_dims(a, (*kept, *reduced))
    x = xp.sort(xp.reshape(x, (*x.shape[: len(kept)], _count(a, axis))), axis=-1)
    position = q * (x.shape[-1] - 1)
    lower = math.floor(position)
    weight = _BETWEEN[method](position)
    found = x[..., lower]
    if weight:
        found = found + (x[..., lower + 1] - found) * weight
    if is_inexact(x.dtype):
        found = xp.where(xp.any(xp.isnan(x), axis=-1), math.nan, found)
    return _expand_dims(xp, found, reduced) if keepdims else found


@function("percentile")
def _percentile(xp: Any, a: Any, q: Any, axis: Any = None, **kwargs: Any) -> Any:
    q = [float(each) / 100 for each in q] if np.ndim(q) else float(q) / 100
    return _quantile(xp, a, q, axis, **kwargs)


@function("median")
def _median(xp: Any, a: Any, axis: Any = None, *, keepdims: bool = False) -> Any:
    return _quantile(xp, a, 0.5, axis, keepdims=keepdims)


# -- passing over NaN


def _without_nan(xp: Any, a: Any, instead: Any) -> Any:
    return xp.where(xp.isnan(a), instead, a)


function("nansum")(lambda xp, a, *args, **kwargs: _sum(xp, _without_nan(xp, a, 0.0), *args, **kwargs))
function("nanprod")(lambda xp, a, *args, **kwargs: _prod(xp, _without_nan(xp, a, 1.0), *args, **kwargs))
function("nancumsum")(lambda xp, a, *args, **kwargs: _cumsum(xp, _without_nan(xp, a, 0.0), *args, **kwargs))
function("nancumprod")(lambda xp, a, *args, **kwargs: _cumprod(xp, _without_nan(xp, a, 1.0), *args, **kwargs))


def _numbers(xp: Any, a: Any, axis: Any, keepdims: bool) -> Any:
    """How many elements are not NaN."""
    return xp.sum(xp.astype(~xp.isnan(a), xp.real(a).dtype if is_complex(a) else a.dtype), axis=axis, keepdims=keepdims)


@function("nanmean")
def _nanmean(xp: Any, a: Any, axis: Any = None, dtype: Any = None, *, keepdims: bool = False) -> Any:
    a = _cast(xp, a, dtype)
    return xp.sum(_without_nan(xp, a, 0.0), axis=axis, keepdims=keepdims) / _numbers(xp, a, axis, keepdims)


@function("nanvar")
def _nanvar(xp: Any, a: Any, axis: Any = None, dtype: Any = None, *, ddof: float = 0, keepdims: bool = False) -> Any:
    d = _without_nan(xp, _cast(xp, a, dtype) - _nanmean(xp, a, axis, dtype, keepdims=True), 0.0)
    squares = xp.real(d * xp.conj(d)) if is_complex(d) else d * d
    return xp.sum(squares, axis=axis, keepdims=keepdims) / (_numbers(xp, a, axis, keepdims) - ddof)


function("nanstd")(lambda xp, a, *args, **kwargs: xp.sqrt(_nanvar(xp, a, *args, **kwargs)))


def _nan_extremum(name: str, worst: float) -> Function:
    def extremum(xp: Any, a: Any, axis: Any = None, *, keepdims: bool = False) -> Any:
        found = getattr(xp, name)(_without_nan(xp, a, worst), axis=axis, keepdims=keepdims)
        return xp.where(xp.all(xp.isnan(a), axis=axis, keepdims=keepdims), math.nan, found)

    return extremum


function("nanmax")(_nan_extremum("max", -math.inf))
function("nanmin")(_nan_extremum("min", math.inf))


# -- covariance


@function("cov")
def _cov(xp: Any, m: Any, y: Any = None, rowvar: bool = True, bias: bool = False, ddof: Any = None) -> Any:
    def variables(x: Any) -> Any:
        x = array(xp, x)
        if x.ndim > 2:
            raise ValueError(f"numpy.cov takes at most two dimensions, got an array of shape {x.shape}")
        return xp.reshape(x, (1, -1)) if x.ndim == 1 else x if rowvar else xp.matrix_transpose(x)

    x = variables(m) if y is None else xp.concat([variables(m), variables(y)], axis=0)
    n = x.shape[1] - ((0 if bias else 1) if ddof is None else ddof)
    x = x - xp.mean(x, axis=1, keepdims=True)
    c = xp.matmul(x, xp.matrix_transpose(xp.conj(x) if is_complex(x) else x)) / n
    return c[0, 0] if c.shape == (1, 1) else c


@function("corrcoef")
def _corrcoef(xp: Any, x: Any, y: Any = None, rowvar: bool = True) -> Any:
    c = _cov(xp, x, y, rowvar)
    if not c.ndim:
        return c / c
    d = xp.sqrt(xp.real(xp.linalg.diagonal(c)) if is_complex(c) else xp.linalg.diagonal(c))
    return c / (along(xp, d, 2, 0) * along(xp, d, 2, 1))


# -- finite differences and sums along an axis


@function("diff")
def _diff(xp: Any, a: Any, n: int = 1, axis: int = -1, prepend: Any = None, append: Any = None) -> Any:
    a = array(xp, a)
    axis = normal_axis(axis, a.ndim)

    def piece(x: Any) -> list[Any]:
        if x is None:
            return []
        x = array(xp, x)
        return [x if x.ndim else xp.broadcast_to(x, (*a.shape[:axis], 1, *a.shape[axis + 1 :]))]

    if prepend is not None or append is not None:
        a = xp.concat([*piece(prepend), a, *piece(append)], axis=axis)
    for _ in range(n):
        a = part(a, axis, 1, None) - part(a, axis, None, -1)
    return a


@function("ediff1d")
def _ediff1d(xp: Any, ary: Any, to_end: Any = None, to_begin: Any = None) -> Any:
    differences = _diff(xp, flat(xp, array(xp, ary)))
    around = [x if x is None else flat(xp, array(xp, x)) for x in (to_begin, to_end)]
    pieces = [x for x in (around[0], differences, around[1]) if x is not None]
    return xp.concat(pieces) if len(pieces) > 1 else differences


@function("trapezoid")
def _trapezoid(xp: Any, y: Any, x: Any = None, dx: Any = 1.0, axis: int = -1) -> Any:
    y = array(xp, y)
    if x is not None:
        x = array(xp, x)
        dx = along(xp, _diff(xp, x), y.ndim, axis) if x.ndim == 1 else _diff(xp, x, axis=axis)
    return xp.sum(dx * (part(y, axis, 1, None) + part(y, axis, None, -1)) / 2, axis=axis)


@function("gradient")
def _gradient(xp: Any, f: Any, *spacing: Any, axis: Any = None, edge_order: int = 1) -> Any:
    f = array(xp, f)
    axes = normal_axes(axis, f.ndim)
    steps = spacing * len(axes) if len(spacing) == 1 else spacing or (1.0,) * len(axes)
    if len(steps) != len(axes):
        raise TypeError(f"numpy.gradient was given {len(steps)} spacings for {len(axes)} axes")
    found = tuple(_slope(xp, f, step, k, edge_order) for k, step in zip(axes, steps, strict=True))
    return found if len(axes) > 1 else found[0]


def _slope(xp: Any, f: Any, spacing: Any, axis: int, edge_order: int) -> Any:
    """Central differences inside, one-sided ones at both ends; exact for parabolas where NumPy's are."""
    n = f.shape[axis]
    if edge_order not in (1, 2) or n <= edge_order:
        raise ValueError(f"numpy.gradient with edge_order={edge_order} of {n} points")
    spacing = xp.asarray(spacing) if isinstance(spacing, list | tuple) else spacing
    if getattr(spacing, "ndim", 0):
        h = along(xp, _diff(xp, spacing), f.ndim, axis)
    else:
        h = xp.ones((1,) * axis + (n - 1,) + (1,) * (f.ndim - axis - 1), dtype=f.dtype) * spacing
    secant = (part(f, axis, 1, None) - part(f, axis, None, -1)) / h
    before, after = part(h, axis, None, -1), part(h, axis, 1, None)
    inner = (part(secant, axis, None, -1) * after + part(secant, axis, 1, None) * before) / (before + after)
    first, last = part(secant, axis, None, 1), part(secant, axis, -1, None)
    if edge_order == 2:
        curvature = (part(secant, axis, 1, None) - part(secant, axis, None, -1)) / (before + after)
        first = first - part(curvature, axis, None, 1) * part(h, axis, None, 1)
        last = last + part(curvature, axis, -1, None) * part(h, axis, -1, None)
    return xp.concat([first, inner, last], axis=axis)


# -- what has no derivative


@function("any")
def _any(xp: Any, a: Any, axis: Any = None, *, keepdims: bool = False, where: Any = True) -> Any:
    return xp.any(_masked(xp, a, where, False), axis=axis, keepdims=keepdims)


@function("all")
def _all(xp: Any, a: Any, axis: Any = None, *, keepdims: bool = False, where: Any = True) -> Any:
    return xp.all(_masked(xp, a, where, True), axis=axis, keepdims=keepdims)


@function("count_nonzero")
def _count_nonzero(xp: Any, a: Any, axis: Any = None, *, keepdims: bool = False) -> Any:
    return xp.count_nonzero(a, axis=axis, keepdims=keepdims)


@function("argmax")
def _argmax(xp: Any, a: Any, axis: Any = None, *, keepdims: bool = False) -> Any:
    return xp.argmax(a, axis=axis, keepdims=keepdims)


@function("argmin")
def _argmin(xp: Any, a: Any, axis: Any = None, *, keepdims: bool = False) -> Any:
    return xp.argmin(a, axis=axis, keepdims=keepdims)


@function("nanargmax")
def _nanargmax(xp: Any, a: Any, axis: Any = None, *, keepdims: bool = False) -> Any:
    return xp.argmax(_without_nan(xp, a, -math.inf), axis=axis, keepdims=keepdims)


@function("nanargmin")
def _nanargmin(xp: Any, a: Any, axis: Any = None, *, keepdims: bool = False) -> Any:
    return xp.argmin(_without_nan(xp, a, math.inf), axis=axis, keepdims=keepdims)
