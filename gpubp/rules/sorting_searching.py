"""Sorting, searching and sets."""

from __future__ import annotations

from typing import Any

from ..boundary import scatter
from .registry import constant, primitive


def _sort(xp: Any, g: Any, _: Any, x: Any, *, axis: int = -1, **kwargs: Any) -> Any:
    order = xp.argsort(x, axis=axis, **kwargs)
    return xp.take_along_axis(g, xp.argsort(order, axis=axis), axis=axis)


primitive("sort", _sort)


def _unique(xp: Any, g: Any, out: Any, x: Any) -> Any:
    """Equal elements share the gradient of their common value evenly."""
    values, g = (out[0], g[0]) if isinstance(out, tuple) else (out, g)
    order = xp.argsort(values)
    place = xp.searchsorted(xp.take(values, order), xp.reshape(x, (-1,)))
    count = scatter(xp, values.shape, (place,), xp.ones_like(xp.reshape(x, (-1,))))
    share = xp.take(g, order) / xp.where(count == 0, 1.0, count)  # NaNs are distinct values, found at the first
    return xp.reshape(xp.take(share, place), x.shape)


primitive("unique_values", _unique)
primitive("unique_counts", _unique)
primitive("unique_inverse", _unique)
primitive("unique_all", _unique)

constant("argsort", "searchsorted", "argmax", "argmin", "nonzero", "count_nonzero", "isin")
