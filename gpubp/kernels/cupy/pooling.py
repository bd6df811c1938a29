"""Pooling: a thread for each pixel and few channels; backward, each input gathers from the windows that hold it."""

from __future__ import annotations

import math
from typing import Any

import cupy
import numpy as np

from ...functions.pooling import adaptive_avg_pool, adaptive_size, avg_pool, global_avg_pool, max_pool, windows_for
from ...functions.window import Windows
from .common import FLOATS, Kernel, blocks, contiguous, elementwise, is_floating
from .window import SOURCE, WIDTHS, count, parts, small_enough, struct, width

_TYPES = {"T": FLOATS, "V": WIDTHS}
_NUMBERS = {**_TYPES, "C": ("unsigned char", "int")}

# -- maximum

_max_pool = Kernel(
    "max_pool",
    SOURCE
    + r"""
struct alignas(N * sizeof(C)) Numbers { C of[N]; };

extern "C" __global__ void max_pool(
    const T* x, T* y, Numbers* winners, Windows w, long long n, long long channels, long long keep)
{
    int wide = channels / N;
    for (EACH(e, n)) {
        int c = e % wide * N;
        Place p = place(e / wide, w.out);
        alignas(16) T best[N], next[N];
        Numbers winner;
        bool any = false;
        for (EACH_TAP(w, p)) {
            copy(x + from * channels + c, next);
            #pragma unroll
            for (int j = 0; j < N; ++j) {
                W a = W(next[j]), b = any ? W(best[j]) : W(0);
                if (!any || a > b || (a != a && b == b)) {
                    best[j] = next[j];
                    winner.of[j] = C(tap);
                }
            }
            any = true;
        }
        copy(best, y + (long long)e * N);
        if (keep) winners[e] = winner;
    }
}
""",
    _NUMBERS,
)
_max_pool_backward = Kernel(
    "max_pool_backward",
    SOURCE
    + r"""
struct alignas(N * sizeof(C)) Numbers { C of[N]; };

extern "C" __global__ void max_pool_backward(
    const T* dy, const Numbers* winners, T* dx, Windows w, long long n, long long channels)
{
    int wide = channels / N;
    for (EACH(e, n)) {
        int c = e % wide;
        Place p = place(e / wide, w.size);
        W sum[N];
        alignas(16) T share[N];
        #pragma unroll
        for (int j = 0; j < N; ++j) sum[j] = W(0);
        for (EACH_WINDOW(w, p)) {
            int at = over.at * wide + c;
            Numbers winner = winners[at];
            copy(dy + (long long)at * N, share);
            #pragma unroll
            for (int j = 0; j < N; ++j)
                if (winner.of[j] == over.tap) sum[j] += W(share[j]);
        }
        #pragma unroll
        for (int j = 0; j < N; ++j) share[j] = T(sum[j]);
        copy(share, dx + (long long)e * N);
    }
}
""",
    _NUMBERS,
)


def _max_forward(xp: Any, needs: Any, x: Any, /, *, window: Any, stride: Any = None, padding: Any = "valid") -> Any:
    if not is_floating(x) or not x.size:
        return NotImplemented
    w = windows_for("max_pool", x, window, stride, padding)
    channels = x.shape[-1]
    if not small_enough(w, channels):
        return NotImplemented
    x = contiguous(x)
    y = cupy.empty((x.shape[0], *w.out, channels), x.dtype)
    winners = cupy.empty(y.shape, np.uint8 if w.taps <= 256 else np.int32) if needs[0] else None
    V, C = width(channels, x), _number(w)
    for some in parts(x.shape[0], _per_image(w, channels)):
        z = y[some]
        number = None if winners is None else winners[some]
        n = count(z, V)
        _max_pool(blocks(n, 256), 256, x[some], z, number, struct(w), n, channels, int(needs[0]), T=x.dtype, V=V, C=C)
    return y, (winners, w)


def _max_backward(xp: Any, needs: Any, dY: Any, residuals: Any, **_: Any) -> Any:
    winners, w = residuals
    dY = contiguous(dY)
    channels = dY.shape[-1]
    dX = cupy.empty((dY.shape[0], *w.size, channels), dY.dtype)
    V, C = width(channels, dY), _number(w)
    for some in parts(dY.shape[0], _per_image(w, channels)):
        z = dX[some]
        n = count(z, V)
        args = dY[some], winners[some], z, struct(w), n, channels
        _max_pool_backward(blocks(n, 256), 256, *args, T=dY.dtype, V=V, C=C)
    return (dX,)


def _number(w: Windows) -> str:
    """The type of winners' numbers, small as they stay in memory until the backward pass."""
    return "unsigned char" if w.taps <= 256 else "int"


max_pool.override("cupy", _max_forward, _max_backward)


# -- mean over windows, or over bins that divide an axis as equally as can be (marked by a stride of 0)

_MEAN = (
    SOURCE
    + r"""
__device__ int start(const Windows& w, int a, int i)
{
    return w.stride[a] ? max(i * w.stride[a] - w.before[a], 0) : int((long long)i * w.size[a] / w.out[a]);
}
__device__ int stop(const Windows& w, int a, int i)
{
    if (w.stride[a]) return min(i * w.stride[a] - w.before[a] + w.window[a], w.size[a]);
    return int(((i + 1LL) * w.size[a] + w.out[a] - 1) / w.out[a]);
}
__device__ int first_bin(const Windows& w, const Place& p, int a)
{
    return w.stride[a] ? first_over(w, p, a) : int((long long)p.at[a] * w.out[a] / w.size[a]);
}
__device__ int last_bin(const Windows& w, const Place& p, int a)
{
    if (w.stride[a]) return last_over(w, p, a);
    return int(((p.at[a] + 1LL) * w.out[a] + w.size[a] - 1) / w.size[a]) - 1;
}
__device__ int extent(const Windows& w, int a, int i) { return stop(w, a, i) - start(w, a, i); }
"""
)
_mean_pool = Kernel(
    "mean_pool",
    _MEAN
    + r"""
extern "C" __global__ void mean_pool(
    const T* x, T* y, Windows w, long long n, long long channels, long long elements)
{
    int wide = channels / N;
    for (EACH(e, n)) {
        int c = e % wide * N;
        Place p = place(e / wide, w.out);
        W sum[N];
        alignas(16) T next[N];
        #pragma unroll
        for (int j = 0; j < N; ++j) sum[j] = W(0);
        int i0 = start(w, 0, p.at[0]), i1 = stop(w, 0, p.at[0]);
        int j0 = start(w, 1, p.at[1]), j1 = stop(w, 1, p.at[1]);
        int k0 = start(w, 2, p.at[2]), k1 = stop(w, 2, p.at[2]);
        for (int i = i0; i < i1; ++i)
            for (int j = j0; j < j1; ++j)
                for (int k = k0; k < k1; ++k) {
                    copy(x + (((p.image * w.size[0] + i) * w.size[1] + j) * w.size[2] + k) * channels + c, next);
                    #pragma unroll
                    for (int m = 0; m < N; ++m) sum[m] += W(next[m]);
                }
        W scale = W(1) / W(elements ? int(elements) : (i1 - i0) * (j1 - j0) * (k1 - k0));
        #pragma unroll
        for (int j = 0; j < N; ++j) next[j] = T(sum[j] * scale);
        copy(next, y + (long long)e * N);
    }
}
""",
    _TYPES,
)
_mean_pool_backward = Kernel(
    "mean_pool_backward",
    _MEAN
    + r"""
extern "C" __global__ void mean_pool_backward(
    const T* dy, T* dx, Windows w, long long n, long long channels, long long elements)
{
    int wide = channels / N;
    for (EACH(e, n)) {
        int c = e % wide * N;
        Place p = place(e / wide, w.size);
        W sum[N];
        alignas(16) T share[N];
        #pragma unroll
        for (int j = 0; j < N; ++j) sum[j] = W(0);
        int i1 = last_bin(w, p, 0), j1 = last_bin(w, p, 1), k1 = last_bin(w, p, 2);
        for (int i = first_bin(w, p, 0); i <= i1; ++i)
            for (int j = first_bin(w, p, 1); j <= j1; ++j)
                for (int k = first_bin(w, p, 2); k <= k1; ++k) {
                    copy(dy + (((p.image * w.out[0] + i) * w.out[1] + j) * w.out[2] + k) * channels + c, share);
                    W scale = W(1) / W(elements ? int(elements) : extent(w, 0, i) * extent(w, 1, j) * extent(w, 2, k));
                    #pragma unroll
                    for (int m = 0; m < N; ++m) sum[m] += W(share[m]) * scale;
                }
        #pragma unroll
        for (int j = 0; j < N; ++j) share[j] = T(sum[j]);
        copy(share, dx + (long long)e * N);
    }
}
""",
    _TYPES,
)


def _mean(kernel: Kernel, x: Any, w: Windows, sizes: Any, elements: int) -> Any:
    """Launch one of the two kernels, from x to an array of given spatial sizes."""
    x = contiguous(x)
    channels = x.shape[-1]
    y = cupy.empty((x.shape[0], *sizes, channels), x.dtype)
    V = width(channels, x)
    for some in parts(x.shape[0], _per_image(w, channels)):
        z = y[some]
        n = count(z, V)
        kernel(blocks(n, 256), 256, x[some], z, struct(w), n, channels, elements, T=x.dtype, V=V)
    return y


def _avg_forward(
    xp: Any,
    needs: Any,
    x: Any,
    /,
    *,
    window: Any,
    stride: Any = None,
    padding: Any = "valid",
    count_include_pad: bool = True,
) -> Any:
    if not is_floating(x) or not x.size:
        return NotImplemented
    w = windows_for("avg_pool", x, window, stride, padding)
    if not small_enough(w, x.shape[-1]):
        return NotImplemented
    elements = w.taps if count_include_pad else 0
    return _mean(_mean_pool, x, w, w.out, elements), (w, elements)


def _avg_backward(xp: Any, needs: Any, dY: Any, residuals: Any, **_: Any) -> Any:
    w, elements = residuals
    return (_mean(_mean_pool_backward, dY, w, w.size, elements),)


avg_pool.override("cupy", _avg_forward, _avg_backward)


def _adaptive_forward(xp: Any, needs: Any, x: Any, /, *, size: Any) -> Any:
    if not is_floating(x) or not x.size:
        return NotImplemented
    out = adaptive_size(x, size)
    ones = (1,) * len(out)
    w = Windows(x.shape[1:-1], ones, (0,) * len(out), ones, ((0, 0),) * len(out), out)
    if not small_enough(w, x.shape[-1]):
        return NotImplemented
    return _mean(_mean_pool, x, w, out, 0), w


def _adaptive_backward(xp: Any, needs: Any, dY: Any, w: Any, **_: Any) -> Any:
    return (_mean(_mean_pool_backward, dY, w, w.size, 0),)


adaptive_avg_pool.override("cupy", _adaptive_forward, _adaptive_backward)


# -- mean over all pixels: a block of threads for each image and 32 channels

_pixel_mean = Kernel(
    "pixel_mean",
    r"""
extern "C" __global__ void pixel_mean(const T* x, T* y, long long images, long long pixels, long long channels)
{
    __shared__ W sums[8][33];
    int lane = threadIdx.x % 32, row = threadIdx.x / 32;
    long long tiles = (channels + 31) / 32;
    for (long long k = blockIdx.x; k < images * tiles; k += gridDim.x) {
        long long image = k / tiles, c = k % tiles * 32 + lane;
        W sum = 0;
        if (c < channels)
            for (long long p = row; p < pixels; p += 8) sum += W(x[(image * pixels + p) * channels + c]);
        sums[row][lane] = sum;
        __syncthreads();
        if (row == 0 && c < channels) {
            for (int r = 1; r < 8; ++r) sum += sums[r][lane];
            y[image * channels + c] = T(sum / W(pixels));
        }
        __syncthreads();
    }
}
""",
)
_share = elementwise("share", "T dy, float64 pixels", "T dx", "dx = T(W(dy) / W(pixels))")


def _global_forward(xp: Any, needs: Any, x: Any, /) -> Any:
    if not is_floating(x) or x.ndim < 3 or not x.size:
        return NotImplemented
    x = contiguous(x)
    images, *spatial, channels = x.shape
    y = cupy.empty((images, channels), x.dtype)
    n = images * -(-channels // 32)
    _pixel_mean(blocks(n, 1), 256, x, y, images, math.prod(spatial), channels, T=x.dtype)
    return y, x.shape


def _global_backward(xp: Any, needs: Any, dY: Any, shape: Any) -> Any:
    images, *spatial, channels = shape
    share = _share(dY, float(math.prod(spatial)))
    return (cupy.broadcast_to(share.reshape(images, *(1 for _ in spatial), channels), shape),)


global_avg_pool.override("cupy", _global_forward, _global_backward)


def _per_image(w: Windows, channels: int) -> int:
    return max(math.prod(w.size), math.prod(w.out)) * channels
