"""Functions that move elements and change shapes."""

from __future__ import annotations

import math
from typing import Any

from ..boundary import scatter
from .registry import composite, joint, primitive, query
from .statistical import cut

# Shapes


def _as_before(xp: Any, g: Any, _: Any, _x: Any, *__: Any, **___: Any) -> Any:
    return xp.reshape(g, _x.shape)


primitive("reshape", _as_before)
primitive("expand_dims", _as_before)
primitive("squeeze", _as_before)
primitive("broadcast_to", lambda xp, g, *_, **__: g, broadcasts=True)
query("broadcast_shapes")


@composite("broadcast_arrays")
def _broadcast_arrays(xp: Any, *arrays: Any) -> Any:
    shape = xp.broadcast_shapes(*(x.shape for x in arrays))
    return tuple(xp.broadcast_to(x, shape) for x in arrays)


@composite("meshgrid")
def _meshgrid(xp: Any, *arrays: Any, indexing: str = "xy") -> Any:
    if indexing not in ("xy", "ij"):
        raise ValueError(f"meshgrid's indexing is 'xy' or 'ij', got {indexing!r}")
    axes = list(range(len(arrays)))
    if indexing == "xy" and len(arrays) > 1:
        axes[:2] = 1, 0
    aligned = (
        xp.reshape(x, tuple(math.prod(x.shape) if k == axis else 1 for k in range(len(arrays))))
        for x, axis in zip(arrays, axes, strict=True)
    )
    return tuple(xp.broadcast_arrays(*aligned))


# Order of elements


def _permute_dims(xp: Any, g: Any, _: Any, _x: Any, axes: Any) -> Any:
    positive = [axis % _x.ndim for axis in axes]
    return xp.permute_dims(g, tuple(positive.index(k) for k in range(_x.ndim)))


def _roll(xp: Any, g: Any, _: Any, _x: Any, shift: Any, *, axis: Any = None) -> Any:
    back = tuple(-s for s in shift) if isinstance(shift, tuple | list) else -shift
    return xp.roll(g, back, axis=axis)


primitive("permute_dims", _permute_dims, positional=("x", "axes"))
primitive("moveaxis", lambda xp, g, _, __, source, destination: xp.moveaxis(g, destination, source))
primitive("flip", lambda xp, g, *_, axis=None: xp.flip(g, axis=axis))
primitive("roll", _roll, positional=("x", "shift"))

# Parts of matrices
primitive("tril", lambda xp, g, *_, k=0: xp.tril(g, k=k))
primitive("triu", lambda xp, g, *_, k=0: xp.triu(g, k=k))

# Joining and splitting


@joint("concat", variadic=True)
def _concat(xp: Any, g: Any, _: Any, *_arrays: Any, axis: int | None = 0) -> Any:
    along = 0 if axis is None else axis % g.ndim
    lengths = [math.prod(x.shape) if axis is None else x.shape[along] for x in _arrays]
    ends = [sum(lengths[: k + 1]) for k in range(len(lengths))]
    parts = [cut(g, along, end - n, end) for n, end in zip(lengths, ends, strict=True)]
    return parts if axis is not None else [xp.reshape(c, x.shape) for c, x in zip(parts, _arrays, strict=True)]


@joint("stack", variadic=True)
def _stack(xp: Any, g: Any, *_: Any, axis: int = 0) -> Any:
    return xp.unstack(g, axis=axis)


@joint("unstack")
def _unstack(xp: Any, g: Any, *_: Any, axis: int = 0) -> Any:
    none = xp.zeros_like(next(c for c in g if c is not None))
    return (xp.stack([none if c is None else c for c in g], axis=axis),)


# Repetition


def _repeat(xp: Any, g: Any, _: Any, _x: Any, repeats: Any, *, axis: int | None = None) -> Any:
    before, n, after = (), math.prod(_x.shape), ()
    if axis is not None:
        before, n, after = _x.shape[:axis], _x.shape[axis], _x.shape[axis % _x.ndim + 1 :]
    if isinstance(repeats, int):
        summed = xp.sum(xp.reshape(g, (*before, n, repeats, *after)), axis=len(before) + 1)
    else:
        source = xp.repeat(xp.arange(n, device=g.device), repeats)
        summed = scatter(xp, (n, *before, *after), (source,), xp.moveaxis(g, len(before), 0))
        summed = xp.moveaxis(summed, 0, len(before))
    return xp.reshape(summed, _x.shape)


def _tile(xp: Any, g: Any, _: Any, _x: Any, repetitions: Any) -> Any:
    ndim = g.ndim
    shape = (1,) * (ndim - _x.ndim) + _x.shape
    repetitions = (1,) * (ndim - len(repetitions)) + tuple(repetitions)
    split = tuple(n for pair in zip(repetitions, shape, strict=True) for n in pair)
    return xp.reshape(xp.sum(xp.reshape(g, split), axis=tuple(range(0, 2 * ndim, 2))), _x.shape)


primitive("repeat", _repeat, positional=("x", "repeats"))
primitive("tile", _tile, positional=("x", "repetitions"))
