"""Convolution: windows copied out and one matrix product ("im2col"), a bounded buffer at a time; depthwise directly.

All comes down to three products of a convolution with weights W: the windows of x times W, its adjoint, and the
windows of x times dZ. No sum is made by atomic additions, so that results are the same every time. Where cuDNN is
installed it is asked first, but for what is a plain matrix product, or depthwise.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import cupy

from ...functions.convolution import convolution, convolution_transpose, transposed, windows_between, windows_on
from ...functions.window import Windows
from . import cudnn, lt
from .activation import BACKWARD, PLAIN
from .bias import add_bias, cotangents
from .common import FLOATS, Kernel, blocks, contiguous, is_floating, wide
from .dense import EPILOG
from .product import product
from .sums import column_sums, sum_of_parts
from .window import LIMIT, SOURCE, WIDTHS, count, parts, small_enough, struct, width

#: Bytes that windows are copied out into at a time.
BUFFER = 256 << 20

_TYPES = {"T": FLOATS, "V": WIDTHS}


def _suitable(x: Any, W: Any) -> bool:
    return is_floating(x) and x.size > 0 and W.size > 0


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
    if not _suitable(x, W):
        return NotImplemented
    w = windows_on(x, W, b, stride, padding, dilation, groups, activation)
    if not small_enough(w, max(x.shape[-1], W.shape[-1])):
        return NotImplemented
    y = _gathered(x, W, w, groups, b, activation)
    kept = x if needs[1] else None, W if needs[0] else None, None if activation == "identity" else y
    return y, (*kept, w, W.shape)


def _backward(
    xp: Any, needs: Any, dY: Any, residuals: Any, *, groups: int = 1, activation: str = "identity", **_: Any
) -> Any:
    x, W, y, w, shape = residuals
    dZ, db, of_b = contiguous(dY), None, len(needs) > 2 and needs[2]
    if y is not None and of_b:
        dZ, db = cotangents(activation, dZ, y)
    elif y is not None:
        dZ = BACKWARD[activation](dZ, y)
    elif of_b:
        db = column_sums(dZ)
    dx = _spread(dZ, W, w, groups) if needs[0] else None
    dW = _products(x, dZ, w, groups, shape) if needs[1] else None
    return dx, dW, db


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
    if not _suitable(x, W):
        return NotImplemented
    w = windows_between(x, W, b, stride, padding, output_padding, dilation, groups)
    if not small_enough(w, max(x.shape[-1], W.shape[-1])):
        return NotImplemented
    y = _spread(contiguous(x), transposed(cupy, W, groups), w, groups)
    if b is not None:
        add_bias(y, b, "identity")
    return y, (x if needs[1] else None, W if needs[0] else None, w)


def _transpose_backward(xp: Any, needs: Any, dY: Any, residuals: Any, *, groups: int = 1, **_: Any) -> Any:
    x, W, w = residuals
    dY = contiguous(dY)
    dx = _gathered(dY, transposed(cupy, W, groups), w, groups) if needs[0] else None
    dW = None
    if needs[1]:
        shape = (*w.window, dY.shape[-1] // groups, x.shape[-1])
        dW = transposed(cupy, _products(dY, contiguous(x), w, groups, shape), groups)
    db = column_sums(dY) if len(needs) > 2 and needs[2] else None
    return dx, dW, db


convolution.override("cupy", _forward, _backward)
convolution_transpose.override("cupy", _transpose_forward, _transpose_backward)


# -- the three products


def _gathered(x: Any, W: Any, w: Windows, groups: int, b: Any = None, activation: str = "identity") -> Any:
    """The windows of `x`, multiplied with W; with a bias and an activation."""
    x, W = contiguous(x), contiguous(W)
    *_, inner, n_out = W.shape
    y = cupy.empty((x.shape[0], *w.out, n_out), x.dtype)
    if _is_direct(groups, inner, n_out):
        _launch(_direct, y, (x, y), W, w, inner)
        return _finished(y, b, activation)
    if _suits_cudnn(x, w) and cudnn.convolve("gathered", x, _filters(W), y, w):
        return _finished(y, b, activation)
    rows, weights = _by_group(y, groups), _by_group(W, groups)
    epilog = EPILOG.get((activation, b is not None)) if groups == 1 and (b is None or b.flags.c_contiguous) else None
    for some, columns in _columns(x, w, groups):
        part = rows[:, some]
        if epilog is None or not lt.product_with(epilog, columns[0], weights[0], part[0], b):
            product(columns, weights, out=part)
            _finished(y.reshape(-1, n_out)[some], b, activation)
    return y


def _finished(z: Any, b: Any, activation: str) -> Any:
    """The activation of ``z + b``, in the place of z."""
    if b is not None:
        add_bias(z, b, activation)
    elif activation != "identity":
        PLAIN[activation](z, z)
    return z


def _spread(dy: Any, W: Any, w: Windows, groups: int) -> Any:
    """The adjoint of `_gathered`: `dy` multiplied with the transpose of W, and added up where the windows lie."""
    *_, inner, n_out = W.shape
    dx = cupy.empty((dy.shape[0], *w.size, inner * groups), dy.dtype)
    if _is_direct(groups, inner, n_out):
        _launch(_direct_spread, dx, (dy, dx), contiguous(W), w, inner)
        return dx
    if _suits_cudnn(dy, w) and cudnn.convolve("spread", dy, _filters(W), dx, w):
        return dx
    back = _backwards(w)
    if back is not None and inner * groups >= n_out and not _is_pointwise(w):
        flipped = W[(slice(None, None, -1),) * len(w.window)]
        return _gathered(dy, transposed(cupy, flipped, groups), back, groups)
    W = contiguous(W)
    rows, weights = _by_group(dy, groups), _by_group(W, groups).swapaxes(-1, -2)
    if _is_pointwise(w):
        product(rows, weights, out=_by_group(dx, groups))
        return dx
    buffer = None
    for images, first, n, some in _portions(dy.shape[0], w, inner * groups * dy.itemsize):
        shape = (groups, n, w.taps * inner)
        if buffer is None:
            buffer = cupy.empty(math.prod(shape), dy.dtype)
        columns = product(rows[:, some], weights, out=buffer[: math.prod(shape)].reshape(shape))
        out = dx[images]
        V = width(inner, columns, out)
        args = inner * groups, inner, n, first, int(first > 0)
        size = count(out, V)
        _add_columns(blocks(size, 256), 256, columns, out, struct(w), size, *args, T=dy.dtype, V=V)
    return dx


def _products(x: Any, dZ: Any, w: Windows, groups: int, shape: Any) -> Any:
    """The weights' cotangent, of the given shape: the windows of `x` times dZ, summed over all windows."""
    x = contiguous(x)
    if _is_direct(groups, *shape[-2:]):
        return _direct_sums(x, dZ, w, shape)
    if _suits_cudnn(x, w):
        filters = cupy.empty((shape[-1], *shape[:-1]), x.dtype)
        if cudnn.convolve("products", x, dZ, filters, w):
            return cupy.ascontiguousarray(cupy.moveaxis(filters, 0, -1))
    dW = cupy.empty(shape, x.dtype)
    out, rows = _by_group(dW, groups), _by_group(dZ, groups)
    more = False
    for some, columns in _columns(x, w, groups):
        product(columns.swapaxes(-1, -2), rows[:, some], out=out, accumulate=more)
        more = True
    return dW


def _by_group(x: Any, groups: int) -> Any:
    """Matrices of the channels of each group, of shape (groups, rows, channels // groups), nothing copied."""
    return x.reshape(-1, groups, x.shape[-1] // groups).transpose(1, 0, 2)


def _suits_cudnn(x: Any, w: Windows) -> bool:
    return not _is_pointwise(w) and cudnn.takes(x.dtype)


def _filters(W: Any) -> Any:
    """Weights as cuDNN wants them, (n_out, *window, n_in // groups)."""
    return cupy.ascontiguousarray(cupy.moveaxis(W, -1, 0))


def _is_pointwise(w: Windows) -> bool:
    return w.taps == 1 and w.out == w.size == w.padded


def _backwards(w: Windows) -> Windows | None:
    """The windows of the adjoint, where it is a convolution too (with the kernel reversed): with stride 1."""
    padding = tuple(
        (d * (k - 1) - before, n + before - o)
        for d, k, (before, _), n, o in zip(w.dilation, w.window, w.padding, w.size, w.out, strict=True)
    )
    if any(s > 1 for s in w.stride) or any(p < 0 for pair in padding for p in pair):
        return None
    return Windows(w.out, w.window, w.stride, w.dilation, padding, w.size)


# -- windows as rows of matrices

_copy_columns = Kernel(
    "copy_columns",
    SOURCE
    + r"""
extern "C" __global__ void copy_columns(
    const T* x, T* columns, Windows w, long long n, long long channels, long long inner, long long rows,
    long long first)
{
    int wide = channels / N, taps = w.window[0] * w.window[1] * w.window[2];
    for (EACH(e, n)) {
        int c = e % wide * N, row = e / wide;
        Place p = place(row + int(first), w.out);
        T* to = columns + ((c / inner * rows + row) * taps) * inner + c % inner;
        alignas(16) T nothing[N];
        #pragma unroll
        for (int m = 0; m < N; ++m) nothing[m] = T(0.0f);
        for (int i = 0; i < w.window[0]; ++i)
            for (int j = 0; j < w.window[1]; ++j)
                for (int k = 0; k < w.window[2]; ++k, to += inner) {
                    int from = pixel(w, p, i, j, k);
                    copy(from < 0 ? nothing : x + from * channels + c, to);
                }
    }
}
""",
    _TYPES,
)
_add_columns = Kernel(
    "add_columns",
    SOURCE
    + r"""
extern "C" __global__ void add_columns(
    const T* columns, T* dx, Windows w, long long n, long long channels, long long inner, long long rows,
    long long first, long long more)
{
    int wide = channels / N, taps = w.window[0] * w.window[1] * w.window[2];
    for (EACH(e, n)) {
        int c = e % wide * N;
        Place p = place(e / wide, w.size);
        const T* from = columns + c / inner * rows * taps * inner + c % inner;
        W sum[N];
        alignas(16) T next[N];
        if (more) copy(dx + (long long)e * N, next);
        #pragma unroll
        for (int m = 0; m < N; ++m) sum[m] = more ? W(next[m]) : W(0);
        for (EACH_WINDOW(w, p)) {
            long long row = over.at - first;
            if (row < 0 || row >= rows) continue;
            copy(from + (row * taps + over.tap) * inner, next);
            #pragma unroll
            for (int m = 0; m < N; ++m) sum[m] += W(next[m]);
        }
        #pragma unroll
        for (int m = 0; m < N; ++m) next[m] = T(sum[m]);
        copy(next, dx + (long long)e * N);
    }
}
""",
    _TYPES,
)


def _columns(x: Any, w: Windows, groups: int) -> Iterator[tuple[slice, Any]]:
    """Yield some rows of the output, and their windows, of shape (groups, rows, taps * n_in // groups)."""
    if _is_pointwise(w):
        yield slice(None), _by_group(x, groups)
        return
    channels = x.shape[-1]
    inner, buffer = channels // groups, None
    for images, first, n, some in _portions(x.shape[0], w, channels * x.itemsize):
        shape = (groups, n, w.taps * inner)
        if buffer is None:
            buffer = cupy.empty(math.prod(shape), x.dtype)
        columns = buffer[: math.prod(shape)].reshape(shape)
        part = x[images]
        V = width(inner, part)
        size = n * channels // (1 if V == "T" else 16 // x.itemsize)
        args = channels, inner, n, first
        _copy_columns(blocks(size, 256), 256, part, columns, struct(w), size, *args, T=x.dtype, V=V)
        yield some, columns


def _portions(n: int, w: Windows, pixel_bytes: int) -> Iterator[tuple[slice, int, int, slice]]:
    """Yield what fills the buffer: images, the first and the number of their windows, and these among all windows.

    They are several whole images, or a part of one.
    """
    windows = math.prod(w.out)
    most = max(min(BUFFER // max(pixel_bytes * w.taps, 1), LIMIT // max(pixel_bytes, 1)), 1)
    if windows <= most:
        step = most // windows
        step = -(-n // -(-n // step))  # as equal as can be
        for k in range(0, n, step):
            images = min(step, n - k)
            yield slice(k, k + images), 0, images * windows, slice(k * windows, (k + images) * windows)
        return
    step = -(-windows // -(-windows // most))
    for k in range(n):
        for first in range(0, windows, step):
            m = min(step, windows - first)
            yield slice(k, k + 1), first, m, slice(k * windows + first, k * windows + first + m)


# -- groups with one input or one output, as in a depthwise convolution: products of numbers

_direct = Kernel(
    "direct_convolution",
    SOURCE
    + r"""
extern "C" __global__ void direct_convolution(
    const T* x, T* y, const T* weights, Windows w, long long n, long long channels, long long outputs,
    long long inner)
{
    int wide = outputs / N, each = outputs * inner / channels;
    for (EACH(e, n)) {
        int o = e % wide * N, c = N > 1 ? o : o / each * inner;
        Place p = place(e / wide, w.out);
        W sum[N];
        alignas(16) T a[N], f[N];
        #pragma unroll
        for (int m = 0; m < N; ++m) sum[m] = W(0);
        for (EACH_TAP(w, p))
            for (int i = 0; i < inner; ++i) {
                copy(x + from * channels + c + i, a);
                copy(weights + (tap * inner + i) * outputs + o, f);
                #pragma unroll
                for (int m = 0; m < N; ++m) sum[m] += W(a[m]) * W(f[m]);
            }
        #pragma unroll
        for (int m = 0; m < N; ++m) a[m] = T(sum[m]);
        copy(a, y + (long long)e * N);
    }
}
""",
    _TYPES,
)
_direct_spread = Kernel(
    "direct_convolution_backward",
    SOURCE
    + r"""
extern "C" __global__ void direct_convolution_backward(
    const T* dy, T* dx, const T* weights, Windows w, long long n, long long channels, long long outputs,
    long long inner)
{
    int wide = channels / N, each = outputs * inner / channels;
    for (EACH(e, n)) {
        int c = e % wide * N, i = N > 1 ? 0 : c % inner, o = N > 1 ? c : c / inner * each;
        Place p = place(e / wide, w.size);
        W sum[N];
        alignas(16) T a[N], f[N];
        #pragma unroll
        for (int m = 0; m < N; ++m) sum[m] = W(0);
        for (EACH_WINDOW(w, p))
            for (int j = 0; j < each; ++j) {
                copy(dy + over.at * outputs + o + j, a);
                copy(weights + (over.tap * inner + i) * outputs + o + j, f);
                #pragma unroll
                for (int m = 0; m < N; ++m) sum[m] += W(a[m]) * W(f[m]);
            }
        #pragma unroll
        for (int m = 0; m < N; ++m) a[m] = T(sum[m]);
        copy(a, dx + (long long)e * N);
    }
}
""",
    _TYPES,
)
_direct_weights = Kernel(
    "direct_convolution_weights",
    "typedef T V;\n"
    + SOURCE
    + r"""
enum { TAPS = 9 };  // that a thread sums at a time: it reads dy once for all of them

// A block has 32 elements of a tap, and a part of the rows of dy, of which each warp takes every eighth.
extern "C" __global__ void direct_convolution_weights(
    const T* x, const T* dy, W* sums, Windows w, long long rows, long long step, long long channels, long long outputs,
    long long inner)
{
    __shared__ W part[8][TAPS][33];
    __shared__ int places[TAPS][3];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, taps = w.window[0] * w.window[1] * w.window[2];
    int first = blockIdx.z * TAPS, here = min(taps - first, int(TAPS)), e = blockIdx.y * 32 + lane;
    int elements = inner * outputs, o = e % int(outputs), each = outputs * inner / channels;
    int c = o / each * inner + e / int(outputs);
    if (threadIdx.x < here) {
        int t = first + threadIdx.x;
        places[threadIdx.x][2] = t % w.window[2];
        places[threadIdx.x][1] = t / w.window[2] % w.window[1];
        places[threadIdx.x][0] = t / w.window[2] / w.window[1];
    }
    __syncthreads();
    W sum[TAPS];
    #pragma unroll
    for (int t = 0; t < TAPS; ++t) sum[t] = W(0);
    long long start = blockIdx.x * step, stop = min(start + step, rows);
    if (e < elements)
        for (long long row = start + warp; row < stop; row += 8) {
            Place p = place(int(row), w.out);
            W d = W(dy[row * outputs + o]);
            #pragma unroll
            for (int t = 0; t < TAPS; ++t) {
                if (t >= here) break;
                int from = pixel(w, p, places[t][0], places[t][1], places[t][2]);
                if (from >= 0) sum[t] += W(x[from * channels + c]) * d;
            }
        }
    #pragma unroll
    for (int t = 0; t < TAPS; ++t) part[warp][t][lane] = sum[t];
    __syncthreads();
    for (int t = warp; t < here; t += 8) {
        W total = 0;
        for (int k = 0; k < 8; ++k) total += part[k][t][lane];
        if (e < elements) sums[(blockIdx.x * (long long)taps + first + t) * elements + e] = total;
    }
}
""",
)


def _is_direct(groups: int, inner: int, n_out: int) -> bool:
    return groups > 1 and (inner == 1 or n_out == groups)


def _launch(kernel: Kernel, out: Any, arrays: Any, W: Any, w: Windows, inner: int) -> None:
    """Launch one of the first two kernels, which makes the second of two arrays from the first."""
    given, made = arrays
    x, y = (given, made) if kernel is _direct else (made, given)
    channels, outputs = x.shape[-1], y.shape[-1]
    V = width(channels, given, W) if channels == outputs else "T"
    per_image = max(math.prod(w.size) * channels, math.prod(w.out) * outputs)
    for some in parts(given.shape[0], per_image):
        n = count(made[some], V)
        args = given[some], made[some], W, struct(w), n, channels, outputs, inner
        kernel(blocks(n, 256), 256, *args, T=given.dtype, V=V)


def _direct_sums(x: Any, dy: Any, w: Windows, shape: Any) -> Any:
    """The weights' cotangent: parts of the rows of dy are summed by a block each, and the parts in a fixed order."""
    dW = cupy.empty(shape, x.dtype)
    inner, outputs = shape[-2:]
    channels, rows = x.shape[-1], math.prod(dy.shape[:-1])
    tiles, taps = -(-inner * outputs // 32), -(-w.taps // 9)
    pieces = max(1, min(-(-rows // 64), 2048 // (tiles * taps)))
    ranges = list(parts(x.shape[0], max(math.prod(w.size) * channels, math.prod(w.out) * outputs)))
    sums = cupy.empty((len(ranges), pieces, dW.size), wide(x))
    for k, some in enumerate(ranges):
        part = dy[some]
        rows = math.prod(part.shape[:-1])
        args = rows, -(-rows // pieces), channels, outputs, inner
        _direct_weights((pieces, tiles, taps), 256, x[some], part, sums[k], struct(w), *args, T=x.dtype)
    shape = (1, 1, dW.size)
    sum_of_parts(sums.reshape(-1, dW.size), dW, shape, dW.size, dW.size, False)
    return dW
