"""NumPy's functions that change shapes, join, cut, repeat and pad, and that make arrays like others."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..boundary import is_complex, is_inexact
from .registry import along, array, arrays, flat, function, native, normal_axes, normal_axis, part

# -- shapes


@function("reshape")
def _reshape(xp: Any, a: Any, shape: Any, order: str = "C") -> Any:
    shape = tuple(int(n) for n in shape) if isinstance(shape, tuple | list) else (int(shape),)
    if not _fortran(order):
        return xp.reshape(a, shape)
    return _transpose(xp, xp.reshape(_transpose(xp, a), shape[::-1]))


def _fortran(order: str | None) -> bool:
    if order not in (None, "C", "F", "A", "K"):
        raise ValueError(f"order must be 'C', 'F', 'A' or 'K', got {order!r}")
    return order == "F"  # a traced array has no memory layout, so 'A' and 'K' are 'C'


@function("ravel")
def _ravel(xp: Any, a: Any, order: str = "C") -> Any:
    return _reshape(xp, a, (-1,), order)


@function("transpose", "permute_dims")
def _transpose(xp: Any, a: Any, axes: Any = None) -> Any:
    a = array(xp, a)
    axes = tuple(range(a.ndim))[::-1] if axes is None else normal_axes(tuple(axes), a.ndim)
    return xp.permute_dims(a, axes)


@function("matrix_transpose", "linalg.matrix_transpose")
def _matrix_transpose(xp: Any, x: Any, /) -> Any:
    return xp.matrix_transpose(x)


@function("swapaxes")
def _swapaxes(xp: Any, a: Any, axis1: int, axis2: int) -> Any:
    axes = list(range(a.ndim))
    i, j = normal_axis(axis1, a.ndim), normal_axis(axis2, a.ndim)
    axes[i], axes[j] = axes[j], axes[i]
    return xp.permute_dims(a, tuple(axes))


@function("moveaxis")
def _moveaxis(xp: Any, a: Any, source: Any, destination: Any) -> Any:
    sources, destinations = normal_axes(source, a.ndim), normal_axes(destination, a.ndim)
    axes = [k for k in range(a.ndim) if k not in sources]
    for to, k in sorted(zip(destinations, sources, strict=True)):
        axes.insert(to, k)
    return xp.permute_dims(a, tuple(axes))


@function("rollaxis")
def _rollaxis(xp: Any, a: Any, axis: int, start: int = 0) -> Any:
    axis = normal_axis(axis, a.ndim)
    start = start + a.ndim if start < 0 else start
    return _moveaxis(xp, a, axis, start - 1 if axis < start else start)


@function("expand_dims")
def _expand_dims(xp: Any, a: Any, axis: Any) -> Any:
    new = normal_axes(axis, a.ndim + (len(axis) if isinstance(axis, tuple | list) else 1))
    lengths = iter(a.shape)
    return xp.reshape(a, tuple(1 if k in new else next(lengths) for k in range(a.ndim + len(new))))


@function("squeeze")
def _squeeze(xp: Any, a: Any, axis: Any = None) -> Any:
    axes = tuple(k for k, n in enumerate(a.shape) if n == 1) if axis is None else normal_axes(axis, a.ndim)
    return xp.squeeze(a, axis=axes)


def _at_least(ndim: int, grow: Any) -> Any:
    def at_least(xp: Any, *values: Any) -> Any:
        found = tuple(xp.reshape(x, grow(*x.shape)) if x.ndim < ndim else x for x in arrays(xp, values))
        return found if len(found) != 1 else found[0]

    return at_least


_atleast_1d = function("atleast_1d")(_at_least(1, lambda: (1,)))
_atleast_2d = function("atleast_2d")(_at_least(2, lambda n=1: (1, n)))
_atleast_3d = function("atleast_3d")(_at_least(3, lambda m=1, n=None: (1, m, 1) if n is None else (m, n, 1)))


@function("broadcast_to")
def _broadcast_to(xp: Any, array: Any, shape: Any) -> Any:
    return xp.broadcast_to(array, tuple(shape) if isinstance(shape, tuple | list) else (shape,))


@function("broadcast_arrays")
def _broadcast_arrays(xp: Any, *values: Any) -> Any:
    return tuple(xp.broadcast_arrays(*arrays(xp, values)))


# -- joining and cutting


@function("concatenate", "concat")
def _concatenate(xp: Any, values: Any, /, axis: Any = 0, *, dtype: Any = None) -> Any:
    values = arrays(xp, values)
    if dtype is not None:
        values = [xp.astype(x, native(xp, dtype)) for x in values]
    return xp.concat(values, axis=axis)


@function("stack")
def _stack(xp: Any, values: Any, axis: int = 0, *, dtype: Any = None) -> Any:
    values = arrays(xp, values)
    return _concatenate(xp, [_expand_dims(xp, x, axis) for x in values], axis=axis, dtype=dtype)


@function("vstack")
def _vstack(xp: Any, tup: Any, *, dtype: Any = None) -> Any:
    return _concatenate(xp, [_atleast_2d(xp, x) for x in tup], dtype=dtype)


@function("hstack")
def _hstack(xp: Any, tup: Any, *, dtype: Any = None) -> Any:
    values = [_atleast_1d(xp, x) for x in tup]
    return _concatenate(xp, values, axis=0 if values[0].ndim == 1 else 1, dtype=dtype)


@function("dstack")
def _dstack(xp: Any, tup: Any) -> Any:
    return xp.concat([_atleast_3d(xp, x) for x in tup], axis=2)


@function("column_stack")
def _column_stack(xp: Any, tup: Any) -> Any:
    values = [_atleast_1d(xp, x) for x in tup]
    return xp.concat([xp.reshape(x, (-1, 1)) if x.ndim == 1 else x for x in values], axis=1)


@function("append")
def _append(xp: Any, arr: Any, values: Any, axis: Any = None) -> Any:
    return xp.concat(arrays(xp, (arr, values)), axis=axis)


@function("block")
def _block(xp: Any, arrays: Any) -> Any:
    def depth(x: Any) -> int:
        return 1 + depth(x[0]) if isinstance(x, list) else 0

    def ndim(x: Any) -> int:
        return max(map(ndim, x)) if isinstance(x, list) else array(xp, x).ndim

    nesting = depth(arrays)
    dimensions = max(nesting, ndim(arrays))

    def join(x: Any, level: int) -> Any:
        if isinstance(x, list):
            return xp.concat([join(item, level - 1) for item in x], axis=-level)
        x = array(xp, x)
        return xp.reshape(x, (1,) * (dimensions - x.ndim) + tuple(x.shape))

    return join(arrays, nesting)


@function("array_split")
def _array_split(xp: Any, ary: Any, indices_or_sections: Any, axis: int = 0) -> Any:
    n = ary.shape[axis]
    if hasattr(indices_or_sections, "__len__"):
        cuts = [int(k) for k in indices_or_sections]
    else:
        sections = int(indices_or_sections)
        cuts = [k * (n // sections) + min(k, n % sections) for k in range(1, sections)]
    return [part(ary, axis, start, stop) for start, stop in zip([0, *cuts], [*cuts, None], strict=True)]


@function("split")
def _split(xp: Any, ary: Any, indices_or_sections: Any, axis: int = 0) -> Any:
    if not hasattr(indices_or_sections, "__len__") and ary.shape[axis] % indices_or_sections:
        raise ValueError(f"an axis of length {ary.shape[axis]} does not divide into {indices_or_sections} equal parts")
    return _array_split(xp, ary, indices_or_sections, axis)


function("vsplit")(lambda xp, ary, indices_or_sections: _split(xp, ary, indices_or_sections, 0))
function("hsplit")(lambda xp, ary, indices_or_sections: _split(xp, ary, indices_or_sections, int(ary.ndim > 1)))
function("dsplit")(lambda xp, ary, indices_or_sections: _split(xp, ary, indices_or_sections, 2))


@function("unstack")
def _unstack(xp: Any, x: Any, /, *, axis: int = 0) -> Any:
    return tuple(xp.unstack(x, axis=axis))


@function("delete")
def _delete(xp: Any, arr: Any, obj: Any, axis: Any = None) -> Any:
    arr, axis = (flat(xp, arr), 0) if axis is None else (arr, axis)
    n = arr.shape[axis]
    gone = range(*obj.indices(n)) if isinstance(obj, slice) else np.atleast_1d(np.asarray(obj)).tolist()
    if any(not -n <= k < n for k in gone):
        raise IndexError(f"index out of bounds for axis {axis} with size {n}: {list(gone)}")
    gone = {k % n for k in gone}
    return xp.take(arr, xp.asarray([k for k in range(n) if k not in gone], dtype=xp.int64), axis=axis)


# -- repeating and turning


@function("tile")
def _tile(xp: Any, A: Any, reps: Any) -> Any:
    return xp.tile(A, tuple(int(n) for n in reps) if hasattr(reps, "__len__") else (int(reps),))


@function("repeat")
def _repeat(xp: Any, a: Any, repeats: Any, axis: Any = None) -> Any:
    a, axis = (flat(xp, a), 0) if axis is None else (a, axis)
    if isinstance(repeats, list | tuple):
        repeats = xp.asarray(repeats)
    return xp.repeat(a, repeats, axis=axis)


@function("roll")
def _roll(xp: Any, a: Any, shift: Any, axis: Any = None) -> Any:
    if isinstance(axis, tuple | list):
        shift = tuple(shift) if isinstance(shift, tuple | list) else (shift,) * len(axis)
        axis = tuple(axis)
    return xp.roll(a, shift, axis=axis)


@function("flip")
def _flip(xp: Any, m: Any, axis: Any = None) -> Any:
    return xp.flip(m, axis=tuple(axis) if isinstance(axis, list) else axis)


function("flipud")(lambda xp, m: xp.flip(m, axis=0))
function("fliplr")(lambda xp, m: xp.flip(m, axis=1))


@function("rot90")
def _rot90(xp: Any, m: Any, k: int = 1, axes: Any = (0, 1)) -> Any:
    i, j = normal_axes(tuple(axes), m.ndim)
    k %= 4
    if k == 2:
        return xp.flip(m, axis=(i, j))
    if k == 0:
        return m
    return _swapaxes(xp, xp.flip(m, axis=j), i, j) if k == 1 else xp.flip(_swapaxes(xp, m, i, j), axis=j)


@function("pad")
def _pad(xp: Any, array: Any, pad_width: Any, mode: str = "constant", *, constant_values: Any = 0) -> Any:
    if isinstance(pad_width, dict):
        pad_width = [pad_width.get(k, pad_width.get(k - array.ndim, 0)) for k in range(array.ndim)]
        pad_width = [w if isinstance(w, tuple | list) else (w, w) for w in pad_width]
    widths = np.broadcast_to(np.asarray(pad_width, dtype=int), (array.ndim, 2)).tolist()
    if mode == "constant":
        return _pad_constant(xp, array, widths, constant_values)
    if mode not in ("edge", "reflect", "symmetric", "wrap", "empty"):
        raise TypeError(
            f"numpy.pad of a traced array knows the modes constant, edge, reflect, symmetric, wrap, empty; got {mode!r}"
        )
    if mode == "empty":
        return _pad_constant(xp, array, widths, 0)
    for axis, width in enumerate(widths):
        if any(width):
            where = np.pad(np.arange(array.shape[axis]), width, mode)  # type: ignore[call-overload]
            array = xp.take(array, xp.asarray(where.tolist(), dtype=xp.int64), axis=axis)
    return array


def _pad_constant(xp: Any, x: Any, widths: Any, values: Any) -> Any:
    def filled(axis: int, n: int, value: Any) -> Any:
        return xp.full((*x.shape[:axis], n, *x.shape[axis + 1 :]), value, dtype=x.dtype)

    for axis, (before, after) in enumerate(widths):
        first, last = _both_ends(values, axis)
        pieces = [filled(axis, before, first)] if before else []
        pieces += [x] + ([filled(axis, after, last)] if after else [])
        x = xp.concat(pieces, axis=axis) if len(pieces) > 1 else x
    return x


def _both_ends(values: Any, axis: int) -> tuple[Any, Any]:
    """The constants before and after an axis, of a number, a pair, or pairs for each axis."""
    if not isinstance(values, tuple | list):
        return values, values
    if isinstance(values[0], tuple | list):
        values = values[axis if len(values) > 1 else 0]
    return values[0], values[-1]


# -- diagonals and triangles


@function("diag")
def _diag(xp: Any, v: Any, k: int = 0) -> Any:
    if v.ndim == 2:
        return xp.linalg.diagonal(v, offset=k)
    if v.ndim != 1:
        raise ValueError(f"numpy.diag takes a vector or a matrix, got an array of shape {v.shape}")
    n = v.shape[0] + abs(k)
    column = _pad_constant(xp, v, [(max(-k, 0), max(k, 0))], 0)
    return xp.where(xp.eye(n, k=k, dtype=xp.bool), xp.reshape(column, (-1, 1)), xp.zeros((n, n), dtype=v.dtype))


@function("diagflat")
def _diagflat(xp: Any, v: Any, k: int = 0) -> Any:
    return _diag(xp, flat(xp, array(xp, v)), k)


@function("diagonal")
def _diagonal(xp: Any, a: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
    return xp.linalg.diagonal(_moveaxis(xp, a, (axis1, axis2), (-2, -1)), offset=offset)


@function("trace")
def _trace(xp: Any, a: Any, offset: int = 0, axis1: int = 0, axis2: int = 1, dtype: Any = None) -> Any:
    return xp.sum(_diagonal(xp, a, offset, axis1, axis2), axis=-1, dtype=native(xp, dtype))


@function("tril")
def _tril(xp: Any, m: Any, k: int = 0) -> Any:
    return xp.tril(m, k=k)


@function("triu")
def _triu(xp: Any, m: Any, k: int = 0) -> Any:
    return xp.triu(m, k=k)


@function("vander")
def _vander(xp: Any, x: Any, N: int | None = None, increasing: bool = False) -> Any:
    n = x.shape[0] if N is None else N
    columns = [xp.ones_like(x)]
    for _ in range(n - 1):
        columns.append(columns[-1] * x)
    return xp.stack(columns[:n] if increasing else columns[:n][::-1], axis=1)


# -- arrays like others, and grids


def _like(name: str) -> Any:
    def like(
        xp: Any,
        a: Any,
        dtype: Any = None,
        order: str = "K",
        subok: bool = True,
        shape: Any = None,
        *,
        device: Any = None,
    ) -> Any:
        if shape is None:
            return getattr(xp, f"{name}_like")(a, dtype=native(xp, dtype))
        return getattr(xp, name)(shape, dtype=a.dtype if dtype is None else native(xp, dtype))

    return like


for _name in ("zeros", "ones", "empty"):
    function(f"{_name}_like")(_like(_name))


@function("full_like")
def _full_like(xp: Any, a: Any, fill_value: Any, dtype: Any = None, order: str = "K", *, shape: Any = None) -> Any:
    dtype = a.dtype if dtype is None else native(xp, dtype)
    shape = a.shape if shape is None else shape if isinstance(shape, tuple | list) else (shape,)
    return xp.astype(xp.broadcast_to(array(xp, fill_value), tuple(shape)), dtype)


@function("copy")
def _copy(xp: Any, a: Any, order: str = "K") -> Any:
    return xp.positive(a) if is_inexact(a.dtype) else xp.asarray(a, copy=True)


@function("astype")
def _astype(xp: Any, x: Any, dtype: Any, /) -> Any:
    return xp.astype(x, native(xp, dtype))


@function("linspace")
def _linspace(
    xp: Any,
    start: Any,
    stop: Any,
    num: int = 50,
    endpoint: bool = True,
    retstep: bool = False,
    dtype: Any = None,
    axis: int = 0,
) -> Any:
    start, stop = array(xp, start), array(xp, stop)
    step = (stop - start) / max(num - 1 if endpoint else num, 1)
    k = xp.arange(num, dtype=step.dtype)
    k = xp.reshape(k, (num,) + (1,) * step.ndim)
    # counted from both ends, so that both are met exactly
    below = k < num / 2
    last = num - 1 if endpoint else num
    points = xp.where(below, start + k * step, stop - (last - k) * step) if num > 1 else start + k * step
    points = points if dtype is None else xp.astype(points, native(xp, dtype))
    points = _moveaxis(xp, points, 0, axis)
    return (points, step) if retstep else points


@function("logspace")
def _logspace(
    xp: Any,
    start: Any,
    stop: Any,
    num: int = 50,
    endpoint: bool = True,
    base: Any = 10.0,
    dtype: Any = None,
    axis: int = 0,
) -> Any:
    powers = xp.pow(base, _linspace(xp, start, stop, num, endpoint, axis=axis))
    return powers if dtype is None else xp.astype(powers, native(xp, dtype))


@function("meshgrid")
def _meshgrid(xp: Any, *xi: Any, sparse: bool = False, indexing: str = "xy") -> Any:
    if indexing not in ("xy", "ij"):
        raise ValueError(f"indexing must be 'xy' or 'ij', got {indexing!r}")
    n = len(xi)
    order = [1, 0, *range(2, n)] if indexing == "xy" and n > 1 else list(range(n))
    vectors = [flat(xp, x) for x in arrays(xp, xi)]
    grid = [along(xp, x, n, axis) for x, axis in zip(vectors, order, strict=True)]
    if sparse:
        return tuple(grid)
    shape = tuple(vectors[k].shape[0] for k in order)
    return tuple(xp.broadcast_to(x, shape) for x in grid)


# -- questions about arrays


function("shape")(lambda xp, a: a.shape)
function("ndim")(lambda xp, a: a.ndim)
function("iscomplexobj")(lambda xp, x: is_complex(x))
function("isrealobj")(lambda xp, x: not is_complex(x))
function("result_type")(lambda xp, *values: xp.result_type(*values))
function("can_cast")(lambda xp, from_, to, casting="safe": xp.can_cast(from_, native(xp, to)))


@function("size")
def _size(xp: Any, a: Any, axis: Any = None) -> int:
    return math.prod(a.shape[k] for k in normal_axes(axis, a.ndim))
