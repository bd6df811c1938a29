"""Convolution on NumPy: windows copied into a buffer that stays in the cache, one matrix product for each bufferful."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from ...functions.convolution import convolution, convolution_transpose, transposed, windows_between, windows_on
from ...functions.window import Windows
from .activation import COTANGENT, FUNCTION
from .common import ndarray, ones, scratch

#: Bytes of a bufferful of windows: little enough for the cache, enough for a matrix product on several threads.
BUFFER = 5 << 20

#: Bytes of the lines of a depthwise convolution that are worked on at a time.
LINES = 1 << 18


def _suitable(x: Any, W: Any, b: Any) -> bool:
    return (
        type(x) is ndarray
        and type(W) is ndarray
        and x.dtype is W.dtype
        and x.dtype.char in "fd"
        and (b is None or (type(b) is ndarray and b.dtype is x.dtype))
        and x.size > 0
        and W.size > 0
    )


# -- the convolution


def _forward(
    xp: Any,
    needs: Any,
    x: Any,
    W: Any,
    b: Any = None,
    /,
    *,
    stride: Any = 1,
    padding: Any = "valid",
    dilation: Any = 1,
    groups: int = 1,
    activation: str = "identity",
) -> Any:
    if not _suitable(x, W, b) or activation not in FUNCTION:
        return NotImplemented
    w = windows_on(x, W, b, stride, padding, dilation, groups, activation)
    y = _gathered(x, W, w, groups, b, activation)
    kept = x if needs[1] else None, W if needs[0] else None, None if activation == "identity" else y
    return y, (*kept, w, W.shape)


def _backward(
    xp: Any, needs: Any, dY: Any, residuals: Any, *, groups: int = 1, activation: str = "identity", **_: Any
) -> Any:
    x, W, y, w, shape = residuals
    dZ = np.ascontiguousarray(dY if y is None else COTANGENT[activation](dY, y, dY.dtype.char))
    dx = _spread(dZ, transposed(np, W, groups), w, groups) if needs[0] else None
    dW = _products(x, dZ, w, groups, shape) if needs[1] else None
    return dx, dW, _column_sums(dZ) if len(needs) > 2 and needs[2] else None


def _transpose_forward(
    xp: Any,
    needs: Any,
    x: Any,
    W: Any,
    b: Any = None,
    /,
    *,
    stride: Any = 1,
    padding: Any = "valid",
    output_padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Any:
    if not _suitable(x, W, b):
        return NotImplemented
    w = windows_between(x, W, b, stride, padding, output_padding, dilation, groups)
    y = _spread(np.ascontiguousarray(x), W, w, groups)
    if b is not None:
        np.add(y, b, y)
    return y, (x if needs[1] else None, W if needs[0] else None, w)


def _transpose_backward(xp: Any, needs: Any, dY: Any, residuals: Any, *, groups: int = 1, **_: Any) -> Any:
    x, W, w = residuals
    dx = _gathered(dY, transposed(np, W, groups), w, groups) if needs[0] else None
    dW = None
    if needs[1]:
        shape = (*w.window, dY.shape[-1] // groups, x.shape[-1])
        dW = transposed(np, _products(dY, np.ascontiguousarray(x), w, groups, shape), groups)
    return dx, dW, _column_sums(np.ascontiguousarray(dY)) if len(needs) > 2 and needs[2] else None


convolution.override("numpy", _forward, _backward)
convolution_transpose.override("numpy", _transpose_forward, _transpose_backward)


def _column_sums(x: Any) -> Any:
    flat = x.reshape(-1, x.shape[-1])
    step = 1 << 14
    return sum(
        ones(x.dtype.char, len(part)).dot(part) for part in (flat[k : k + step] for k in range(0, len(flat), step))
    )


# -- the three products of a convolution: windows of x times W, its adjoint, and windows of x times dZ


def _gathered(x: Any, W: Any, w: Windows, groups: int, b: Any = None, activation: str = "identity") -> Any:
    if groups > 1:
        y = _depthwise(x, W, w) if _is_depthwise(W, groups) else _by_groups(_gathered, x, W, w, groups)
        return _finished(y, b, activation)
    y = np.empty((x.shape[0], *w.out, W.shape[-1]), x.dtype)
    matrix = W.reshape(-1, W.shape[-1])
    for part, columns in _columns(x, w):
        z = y[part].reshape(len(columns), -1)
        _finished(np.dot(columns, matrix, z), b, activation)
    return y


def _finished(z: Any, b: Any, activation: str) -> Any:
    """The activation of ``z + b``, in the place of z."""
    if b is not None:
        np.add(z, b, z)
    return FUNCTION[activation](z, z.dtype.char, z)


def _spread(x: Any, W: Any, w: Windows, groups: int) -> Any:
    """`x` multiplied with W and added up where the windows lie, in the way that is fastest."""
    if groups > 1 and not _is_depthwise(W, groups):
        return _by_groups(_spread, x, W, w, groups)
    if _narrow(W, w, groups):
        return _spread_lines(x, W, w)
    back = _backwards(w) if groups > 1 or W.shape[-1] > 1 else None
    if back is not None:
        flipped = W[(slice(None, None, -1),) * len(w.window)]
        return _gathered(x, np.ascontiguousarray(flipped), back, groups)
    out = np.empty((x.shape[0], *w.size, W.shape[-1]), x.dtype)
    return _spread_columns(x, W, w, out) if groups == 1 else _spread_depthwise(x, W, w, out)


def _spread_columns(x: Any, W: Any, w: Windows, out: Any) -> Any:
    """One product for all places in a window, a bufferful at a time, added to the output place by place: "col2im"."""
    inner, n = W.shape[-2:]
    wide = np.ascontiguousarray(np.moveaxis(W, -2, 0)).reshape(inner, -1)
    images, rows = _portions(x.shape[0], w, n * x.itemsize)
    buffer = scratch("columns", x.dtype, images * rows * math.prod(w.out[1:]) * wide.shape[1])
    field = scratch("field", x.dtype, images * math.prod(w.padded) * n).reshape(images, *w.padded, n)
    places = list(w.places())
    for first in range(0, x.shape[0], images):
        some = x[first : first + images]
        target = field[: len(some)]
        target[...] = 0
        for top in range(0, w.out[0], rows):
            part = some[:, top : top + rows]
            flat = part.reshape(-1, inner)
            products = np.dot(flat, wide, buffer[: len(flat) * wide.shape[1]].reshape(len(flat), -1))
            products = products.reshape(*part.shape[:-1], w.taps, n)
            at = top * w.stride[0]
            for k, (_, (_, along, *others)) in enumerate(places):
                start = along.start + at
                stop = start + (part.shape[1] - 1) * along.step + 1
                view = target[(slice(None), slice(start, stop, along.step), *others)]
                np.add(view, products[..., k, :], view)
        out[first : first + images] = target[w.interior]
    return out


def _narrow(W: Any, w: Windows, groups: int) -> bool:
    """Whether the output has so few channels that additions to them would be slow, and lines are not too long."""
    return groups == 1 and len(w.out) > 1 and 1 < W.shape[-1] <= 8 and w.padded[-1] <= 4 * w.window[-1]


def _spread_lines(x: Any, W: Any, w: Windows) -> Any:
    """The same with each line (the last spatial axis and the channels) as one vector: with one axis less.

    The matrices are then banded, and a few times as large as they need be; but long runs are added.
    """
    *window, width, inner, n = W.shape
    length, total = w.out[-1], w.padded[-1]
    band = np.zeros((*window, length, inner, total, n), x.dtype)
    *outer, line, row, column, last = band.strides
    diagonal = (*outer, line + w.stride[-1] * column, w.dilation[-1] * column, row, last)
    view = np.lib.stride_tricks.as_strided(band, (*window, length, width, inner, n), diagonal)
    view[...] = np.expand_dims(W, -4)
    lines = w.outer
    out = np.empty((x.shape[0], *lines.size, total * n), x.dtype)
    x = x.reshape(*x.shape[:-2], length * inner)
    _spread_columns(x, band.reshape(*window, length * inner, total * n), lines, out)
    before = w.padding[-1][0]
    out = out.reshape(*out.shape[:-1], total, n)[..., before : before + w.size[-1], :]
    return np.ascontiguousarray(out)


def _products(x: Any, dZ: Any, w: Windows, groups: int, shape: Any) -> Any:
    """The weights' cotangent."""
    if groups > 1 and shape[-2] == 1 and shape[-1] == groups:
        return _depthwise_products(x, dZ, w).reshape(shape)
    if groups > 1:
        own = (*shape[:-1], shape[-1] // groups)
        parts = zip(_groups(x, groups), _groups(dZ, groups), strict=True)
        return np.concatenate([_products(xs, dZs, w, 1, own) for xs, dZs in parts], -1)
    dW: Any = None
    for part, columns in _columns(x, w):
        product = np.dot(columns.T, dZ[part].reshape(len(columns), -1))
        dW = product if dW is None else np.add(dW, product, dW)
    return dW.reshape(shape)


def _by_groups(f: Any, x: Any, W: Any, w: Windows, groups: int) -> Any:
    parts = zip(_groups(x, groups), _groups(W, groups), strict=True)
    return np.concatenate([f(xs, Ws, w, 1) for xs, Ws in parts], -1)


def _groups(x: Any, groups: int) -> Iterator[Any]:
    """Yield the channels of each group."""
    return (np.ascontiguousarray(part) for part in np.split(x, groups, -1))


def _is_depthwise(W: Any, groups: int) -> bool:
    return bool(W.shape[-2] == 1 and W.shape[-1] == groups)


def _backwards(w: Windows) -> Windows | None:
    """The windows of the adjoint, where it is a convolution too (with the kernel reversed): with stride 1."""
    padding = tuple(
        (d * (k - 1) - before, n + before - o)
        for d, k, (before, _), n, o in zip(w.dilation, w.window, w.padding, w.size, w.out, strict=True)
    )
    if any(s > 1 for s in w.stride) or any(p < 0 for pair in padding for p in pair):
        return None
    return Windows(w.out, w.window, w.stride, w.dilation, padding, w.size)


# -- windows as rows of a matrix: "im2col", a bufferful at a time


def _columns(x: Any, w: Windows) -> Iterator[tuple[Any, Any]]:
    """Yield parts of the output (a key for the batch and the first spatial axis), and their windows as a matrix."""
    n, channels = x.shape[0], x.shape[-1]
    if w.taps == 1 and w.out == w.size == w.padded and x.flags.c_contiguous:  # windows of one element: x itself
        yield (slice(None), slice(None)), x.reshape(-1, channels)
        return
    images, rows = _portions(n, w, channels * x.itemsize)
    by_tap = _by_tap(channels, w)
    width = w.taps * channels
    buffer = scratch("columns", x.dtype, images * rows * math.prod(w.out[1:]) * width)
    padded = any(map(any, w.padding))
    if padded:
        field = scratch("field", x.dtype, images * math.prod(w.padded) * channels)
        field = field.reshape(images, *w.padded, channels)
        field[...] = 0
    for first in range(0, n, images):
        some = x[first : first + images]
        if padded:
            field[: len(some)][w.interior] = some
            some = field[: len(some)]
        view = _view(some, w)
        for top in range(0, w.out[0], rows):
            windows = view[:, top : top + rows]
            count = windows.shape[0] * windows.shape[1] * math.prod(w.out[1:])
            matrix = buffer[: count * width]
            if by_tap:
                rank = len(w.out)
                axes = (*range(rank + 1, 2 * rank + 2), *range(rank + 1))
                turned = windows.transpose(axes)
                np.copyto(matrix.reshape(turned.shape), turned)
                matrix = matrix.reshape(width, count).T
            else:
                np.copyto(matrix.reshape(windows.shape), windows)
                matrix = matrix.reshape(count, width)
            yield (slice(first, first + images), slice(top, top + rows)), matrix


def _view(x: Any, w: Windows) -> Any:
    """All windows of the padded x, of shape (batch, *out, *window, channels), nothing copied."""
    first, *axes, last = x.strides
    steps = (a * s for a, s in zip(axes, w.stride, strict=True))
    inside = (a * d for a, d in zip(axes, w.dilation, strict=True))
    shape = (x.shape[0], *w.out, *w.window, x.shape[-1])
    return np.lib.stride_tricks.as_strided(x, shape, (first, *steps, *inside, last), writeable=False)


def _portions(n: int, w: Windows, bytes_per_tap: int) -> tuple[int, int]:
    """How many examples, and how many rows of the output of each, fill the buffer; as equal as can be."""
    row = bytes_per_tap * w.taps * math.prod(w.out[1:])
    if row * w.out[0] <= BUFFER:
        images = BUFFER // (row * w.out[0])
        return -(-n // -(-n // images)), w.out[0]
    rows = max(BUFFER // row, 1)
    return 1, -(-w.out[0] // -(-w.out[0] // rows))


def _by_tap(channels: int, w: Windows) -> bool:
    """Whether runs along the output are longer than those along a window, so that they are faster to copy."""
    run = channels * (w.window[-1] if w.dilation[-1] == 1 else 1)
    return channels <= 4 and w.out[-1] > 2 * run


# -- depthwise: products of numbers, along whole lines (the last spatial axis and the channels)


def _depthwise(x: Any, W: Any, w: Windows) -> Any:
    lines, weights = _lines(x, w), _weights_of_lines(W, w)
    y = np.empty((x.shape[0], *w.out, x.shape[-1]), x.dtype)
    for part, keys in _line_keys(x, w):
        z = y[part]
        product = scratch("product", x.dtype, z.size).reshape(z.shape)
        for k, key in enumerate(keys):
            if k:
                np.add(z, np.multiply(lines[key], weights[k], product), z)
            else:
                np.multiply(lines[key], weights[k], z)
    return y


def _spread_depthwise(x: Any, W: Any, w: Windows, out: Any) -> Any:
    lines, weights = _no_lines(out, w), _weights_of_lines(W, w)
    for part, keys in _line_keys(x, w):
        z = x[part]
        product = scratch("product", x.dtype, z.size).reshape(z.shape)
        for k, key in enumerate(keys):
            target = lines[key]
            np.add(target, np.multiply(z, weights[k], product), target)
    for target, source in _by_phase(out, lines, w):
        target[...] = source
    return out


def _depthwise_products(x: Any, dZ: Any, w: Windows) -> Any:
    lines, channels = _lines(x, w), x.shape[-1]
    width = w.out[-1] * channels
    sums = np.zeros((w.taps, width), x.dtype)
    for part, keys in _line_keys(x, w):
        z = dZ[part]
        product = scratch("product", x.dtype, z.size).reshape(z.shape)
        count = ones(x.dtype.char, z.size // width)
        for k, key in enumerate(keys):
            sums[k] += count.dot(np.multiply(lines[key], z, product).reshape(-1, width))
    return np.add.reduce(sums.reshape(w.taps, w.out[-1], channels), 1)


def _weights_of_lines(W: Any, w: Windows) -> Any:
    """The weights of each place in a window, repeated along a line."""
    return np.repeat(W.reshape(w.taps, 1, W.shape[-1]), w.out[-1], 1)


def _lines(x: Any, w: Windows) -> Any:
    """The padded x, its last spatial axis sorted by the remainder of the stride, so that what meets a tap is a run."""
    if w.stride[-1] == 1 and not any(map(any, w.padding)) and x.flags.c_contiguous:
        return x[..., None, :, :]
    lines = _no_lines(x, w)
    for source, target in _by_phase(x, lines, w):
        target[...] = source
    return lines


def _no_lines(x: Any, w: Windows) -> Any:
    step = w.stride[-1]
    return np.zeros((x.shape[0], *w.padded[:-1], step, -(-w.padded[-1] // step), x.shape[-1]), x.dtype)


def _by_phase(x: Any, lines: Any, w: Windows) -> Iterator[tuple[Any, Any]]:
    """Yield, for each remainder, what belongs together in x and in its lines."""
    step, before = w.stride[-1], w.padding[-1][0]
    for phase in range(step):
        first = (phase - before) % step
        part = x[..., first::step, :]
        at = (first + before) // step
        yield part, lines[(*w.interior[:-2], phase, slice(at, at + part.shape[-2]))]


def _line_keys(x: Any, w: Windows) -> Iterator[tuple[Any, list[Any]]]:
    """Yield parts of the output (a key for the batch and the first spatial axis), and in lines what meets each tap."""
    rank, (step, *_) = len(w.out), w.stride
    row = math.prod(w.out[1:]) * x.shape[-1] * x.itemsize if rank > 1 else 0
    rows = max(min(LINES // row, w.out[0]), 1) if row else w.out[0]
    images = max(LINES // (row * w.out[0]), 1) if row and rows == w.out[0] else 1
    taps = []
    for _, (_, *axes, _) in w.places():
        phase, at = axes[-1].start % w.stride[-1], axes[-1].start // w.stride[-1]
        taps.append((axes[:-1], phase, slice(at, at + w.out[-1])))
    for first in range(0, x.shape[0], images):
        batch = slice(first, first + images)
        for top in range(0, w.out[0], rows):
            count = min(rows, w.out[0] - top)
            keys = []
            for axes, phase, run in taps:
                if rank > 1:
                    start = axes[0].start + top * step
                    axes = [slice(start, start + (count - 1) * step + 1, step), *axes[1:]]
                keys.append((batch, *axes, phase, run))
            yield (batch, slice(top, top + count)), keys
