"""Reductions and cumulative functions."""

from __future__ import annotations

import math
from typing import Any

from ..boundary import conj
from .registry import composite, constant, primitive


def axes_of(axis: Any, ndim: int) -> tuple[int, ...]:
    """The axes that `axis` (None, a number or a tuple) names, counted from the first."""
    if axis is None:
        return tuple(range(ndim))
    return tuple(int(a) % ndim for a in (axis if isinstance(axis, tuple | list) else (axis,)))


def expand(xp: Any, g: Any, ndim: int, axis: Any, keepdims: bool) -> Any:
    """Give the result of a reduction its reduced axes back, with length 1."""
    if keepdims or not ndim:
        return g
    kept = set(axes_of(axis, ndim))
    lengths = iter(g.shape)
    return xp.reshape(g, tuple(1 if k in kept else next(lengths) for k in range(ndim)))


def cut(x: Any, axis: int, start: int | None, stop: int | None) -> Any:
    """A slice of `x` along one axis."""
    return x[(slice(None),) * axis + (slice(start, stop), ...)]


# Sums


def _sum(xp: Any, g: Any, _: Any, _x: Any, axis: Any = None, *, keepdims: bool = False, **__: Any) -> Any:
    return xp.broadcast_to(expand(xp, g, _x.ndim, axis, keepdims), _x.shape)


def _count(shape: tuple[int, ...], axis: Any) -> int:
    return math.prod(shape[a] for a in axes_of(axis, len(shape)))


def _mean(xp: Any, g: Any, _: Any, _x: Any, axis: Any = None, *, keepdims: bool = False) -> Any:
    return _sum(xp, g / max(_count(_x.shape, axis), 1), None, _x, axis, keepdims=keepdims)


def _var(xp: Any, g: Any, _: Any, x: Any, axis: Any = None, *, correction: float = 0.0, keepdims: bool = False) -> Any:
    n = max(_count(x.shape, axis) - correction, 0)
    deviation = x - xp.mean(x, axis=axis, keepdims=True)
    return expand(xp, g, x.ndim, axis, keepdims) * (2 * deviation / n)


def _std(
    xp: Any, g: Any, out: Any, x: Any, axis: Any = None, *, correction: float = 0.0, keepdims: bool = False
) -> Any:
    g = g / xp.where(out == 0, 1.0, 2 * out)  # of equal values: zero, as their deviations are
    return _var(xp, g, None, x, axis, correction=correction, keepdims=keepdims)


primitive("sum", _sum)
primitive("mean", _mean)
primitive("var", _var)
primitive("std", _std)

# Products, whose derivatives contain no division, so that zeros are like any other number


def _products_of_others(xp: Any, x: Any) -> Any:
    """For each element of the last axis the product of all others, by halving."""
    n = x.shape[-1]
    if n < 2:
        return xp.ones_like(x)
    half = (n + 1) // 2
    a, b = x[..., :half], x[..., half:]
    if n % 2:
        b = xp.concat([b, xp.ones_like(x[..., :1])], axis=-1)
    rest = _products_of_others(xp, a * b)
    return xp.concat([rest * b, (rest * a)[..., : n - half]], axis=-1)


def _prod(xp: Any, g: Any, _: Any, x: Any, axis: Any = None, *, keepdims: bool = False, **__: Any) -> Any:
    axes = axes_of(axis, x.ndim)
    order = (*(a for a in range(x.ndim) if a not in axes), *axes)
    last = xp.permute_dims(x, order)
    lengths = last.shape[: x.ndim - len(axes)]
    others = _products_of_others(xp, xp.reshape(last, (*lengths, _count(x.shape, axis))))
    others = xp.permute_dims(xp.reshape(others, last.shape), tuple(order.index(a) for a in range(x.ndim)))
    return expand(xp, g, x.ndim, axis, keepdims) * conj(xp, others)


primitive("prod", _prod)

# Extrema: tied elements share the gradient evenly


def _extremum(xp: Any, g: Any, out: Any, x: Any, axis: Any = None, *, keepdims: bool = False) -> Any:
    g, out = (expand(xp, v, x.ndim, axis, keepdims) for v in (g, out))
    tied = x == out
    ties = xp.sum(xp.astype(tied, g.dtype), axis=axis, keepdims=True)
    return xp.where(tied, g / xp.where(ties == 0, 1.0, ties), 0.0)  # none is equal to NaN


primitive("max", _extremum)
primitive("min", _extremum)

# Cumulative functions


def _cumulative_sum(
    xp: Any, g: Any, _: Any, _x: Any, *, axis: int | None = None, include_initial: bool = False, **__: Any
) -> Any:
    along = axis % _x.ndim if axis is not None else 0
    if include_initial:
        g = cut(g, along, 1, None)
    return xp.flip(xp.cumulative_sum(xp.flip(g, axis=along), axis=along), axis=along)


def _shift(xp: Any, x: Any, axis: int, by: int) -> Any:
    """`x` moved towards the start of an axis, zeros following."""
    return xp.concat([cut(x, axis, by, None), xp.zeros_like(cut(x, axis, 0, by))], axis=axis)


def _cumulative_prod(
    xp: Any, g: Any, out: Any, x: Any, *, axis: int | None = None, include_initial: bool = False, **__: Any
) -> Any:
    """The product P of the elements before x_k, times R_k = g_k + x_(k+1) R_(k+1).

    The recurrence is solved by doubling: after each step R_k is known from R 1, 2, 4 ... places on.
    """
    along = axis % x.ndim if axis is not None else 0
    n = x.shape[along]
    if not n:
        return xp.zeros_like(x)
    if include_initial:
        g, before = cut(g, along, 1, None), cut(out, along, 0, n)
    else:
        before = xp.concat([xp.ones_like(cut(out, along, 0, 1)), cut(out, along, 0, n - 1)], axis=along)
    factor = _shift(xp, conj(xp, x), along, 1)
    by = 1
    while by < n:
        g = g + factor * _shift(xp, g, along, by)
        factor = factor * _shift(xp, factor, along, by)
        by *= 2
    return g * conj(xp, before)


primitive("cumulative_sum", _cumulative_sum)
primitive("cumulative_prod", _cumulative_prod)


@composite("diff")
def _diff(xp: Any, x: Any, /, *, axis: int = -1, n: int = 1, prepend: Any = None, append: Any = None) -> Any:
    parts = [part for part in (prepend, x, append) if part is not None]
    if len(parts) > 1:
        x = xp.concat(parts, axis=axis)
    for _ in range(n):
        x = cut(x, axis % x.ndim, 1, None) - cut(x, axis % x.ndim, 0, -1)
    return x


# Truth
constant("all", "any")
