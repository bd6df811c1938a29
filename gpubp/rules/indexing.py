"""Items: ``x[key]``, ``x[key] = value``, and the functions that take elements by their indices.

Reading items and scattering values to them are each other's adjoint, and both are linear.
"""

from __future__ import annotations

import math
from typing import Any

from ..boundary import may_repeat, put, scatter, take_at
from .registry import primitive
from .statistical import axes_of


def _fit(xp: Any, g: Any, shape: tuple[int, ...]) -> Any:
    """The cotangent of a value that was broadcast to the selected items."""
    inner = shape[max(len(shape) - g.ndim, 0) :]  # assignment ignores further leading axes, of length 1
    extra = g.ndim - len(inner)
    repeated = tuple(k for k in range(g.ndim) if k < extra or inner[k - extra] != g.shape[k])
    if repeated:
        g = xp.sum(g, axis=repeated)
    return xp.reshape(g, shape)


def _put_value(xp: Any, g: Any, _: Any, _x: Any, _value: Any, *, key: Any) -> Any:
    g = take_at(xp, g, key)
    if may_repeat(key):  # of those written to one place only the one that stays there counts
        names = xp.reshape(xp.arange(math.prod(g.shape), device=g.device), g.shape)
        written = put(xp, xp.zeros(_x.shape, dtype=names.dtype, device=g.device), key, names)
        g = xp.where(take_at(xp, written, key) == names, g, 0.0)
    return _fit(xp, g, _value.shape)


def _added_value(xp: Any, g: Any, _: Any, __: Any, _value: Any, *, key: Any) -> Any:
    return _fit(xp, take_at(xp, g, key), _value.shape)


primitive("_take_at", lambda xp, g, _, _x, *, key: scatter(xp, _x.shape, key, g))
primitive("_scatter", lambda xp, g, *_, key, **__: take_at(xp, g, key))
primitive("_put", lambda xp, g, *_, key: put(xp, g, key, 0.0), _put_value)
primitive("_add_at", lambda xp, g, *_, **__: g, _added_value)


def _take(xp: Any, g: Any, _: Any, _x: Any, indices: Any, *, axis: int | None = None) -> Any:
    if axis is None:
        return xp.reshape(scatter(xp, (math.prod(_x.shape),), (indices,), g), _x.shape)
    (along,) = axes_of(axis, _x.ndim)
    before, after = _x.shape[:along], _x.shape[along + 1 :]
    first = xp.moveaxis(g, tuple(range(along, along + indices.ndim)), tuple(range(indices.ndim)))
    return xp.moveaxis(scatter(xp, (_x.shape[along], *before, *after), (indices,), first), 0, along)


def _take_along_axis(xp: Any, g: Any, _: Any, _x: Any, indices: Any, *, axis: int = -1) -> Any:
    (along,) = axes_of(axis, _x.ndim)
    key = [_index(xp, g, k) for k in range(g.ndim)]
    key[along] = indices
    shape = (*g.shape[:along], _x.shape[along], *g.shape[along + 1 :])
    return scatter(xp, shape, tuple(key), g)


def _index(xp: Any, g: Any, axis: int) -> Any:
    """The index of each element along an axis, in a shape that broadcasts with the array's."""
    n = g.shape[axis]
    return xp.reshape(xp.arange(n, device=g.device), tuple(n if k == axis else 1 for k in range(g.ndim)))


primitive("take", _take, positional=("x", "indices"))
primitive("take_along_axis", _take_along_axis, positional=("x", "indices"), broadcasts=True)
