"""Windows, for kernels: where they lie along one to three spatial axes, which are taken as three."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np

from ...functions.window import Windows

#: Elements that one launch has to do with at most, since kernels count in 32 bits.
LIMIT = 1 << 30

#: C++: what is read at a time, as many channels as go into sixteen bytes, or one; where windows lie; and loops over
#: the elements of a window that lie inside (``from``, a pixel, and ``tap``, its number in row-major order) and over
#: the windows that hold a pixel (``over.at`` and ``over.tap``).
SOURCE = r"""
struct Windows { int size[3], window[3], stride[3], dilation[3], before[3], out[3]; };
struct Place { int image, at[3]; };
struct Over { int at, tap; };
enum { N = sizeof(V) / sizeof(T) };

__device__ void copy(const T* from, T* to) { *reinterpret_cast<V*>(to) = *reinterpret_cast<const V*>(from); }

__device__ Place place(int k, const int* sizes)
{
    Place p;
    #pragma unroll
    for (int a = 2; a >= 0; --a) {
        p.at[a] = k % sizes[a];
        k /= sizes[a];
    }
    p.image = k;
    return p;
}
__device__ int pixel(const Windows& w, const Place& p, int i, int j, int k)
{
    int x = p.at[0] * w.stride[0] - w.before[0] + i * w.dilation[0];
    int y = p.at[1] * w.stride[1] - w.before[1] + j * w.dilation[1];
    int z = p.at[2] * w.stride[2] - w.before[2] + k * w.dilation[2];
    bool inside = x >= 0 && x < w.size[0] && y >= 0 && y < w.size[1] && z >= 0 && z < w.size[2];
    return inside ? ((p.image * w.size[0] + x) * w.size[1] + y) * w.size[2] + z : -1;
}
__device__ int first_over(const Windows& w, const Place& p, int a)
{
    int reach = p.at[a] + w.before[a] - w.dilation[a] * (w.window[a] - 1);
    return reach > 0 ? (reach + w.stride[a] - 1) / w.stride[a] : 0;
}
__device__ int last_over(const Windows& w, const Place& p, int a)
{
    return min((p.at[a] + w.before[a]) / w.stride[a], w.out[a] - 1);
}
__device__ int tap_along(const Windows& w, const Place& p, int a, int q)
{
    int t = p.at[a] + w.before[a] - q * w.stride[a];
    return w.dilation[a] == 1 ? t : t % w.dilation[a] ? -1 : t / w.dilation[a];
}
__device__ Over over_at(const Windows& w, const Place& p, int i, int j, int k)
{
    int s = tap_along(w, p, 0, i), t = tap_along(w, p, 1, j), u = tap_along(w, p, 2, k);
    bool held = s >= 0 && t >= 0 && u >= 0;
    return {((p.image * w.out[0] + i) * w.out[1] + j) * w.out[2] + k,
            held ? (s * w.window[1] + t) * w.window[2] + u : -1};
}

#define EACH(k, n) int k = blockIdx.x * blockDim.x + threadIdx.x; k < n; k += gridDim.x * blockDim.x
#define EACH_TAP(w, p) \
    int i_ = 0, tap = 0; i_ < w.window[0]; ++i_) \
    for (int j_ = 0; j_ < w.window[1]; ++j_) \
    for (int k_ = 0, from = 0; k_ < w.window[2]; ++k_, ++tap) \
    if (from = pixel(w, p, i_, j_, k_); from >= 0
#define EACH_WINDOW(w, p) \
    int i_ = first_over(w, p, 0), i_end = last_over(w, p, 0); i_ <= i_end; ++i_) \
    for (int j_ = first_over(w, p, 1), j_end = last_over(w, p, 1); j_ <= j_end; ++j_) \
    for (int k_ = first_over(w, p, 2), k_end = last_over(w, p, 2); k_ <= k_end; ++k_) \
    if (Over over = over_at(w, p, i_, j_, k_); over.tap >= 0
"""

#: The types of a kernel that has this source: V is T itself, or sixteen bytes.
WIDTHS = ("T", "int4")

_STRUCT = np.dtype([("axes", "i4", (6, 3))])


@lru_cache(maxsize=1024)
def struct(w: Windows) -> Any:
    """Return what a kernel gets as ``Windows``: axes that are not there have one element."""
    rank = len(w.size)
    out = np.zeros((), _STRUCT)
    for row, (values, nothing) in enumerate(
        (
            (w.size, 1),
            (w.window, 1),
            (w.stride, 1),
            (w.dilation, 1),
            (tuple(before for before, _ in w.padding), 0),
            (w.out, 1),
        )
    ):
        out["axes"][row] = (nothing,) * (3 - rank) + values
    out.flags.writeable = False
    return out


def width(channels: int, *arrays: Any) -> str:
    """Return the type V by which rows of `channels` can be read: arrays must begin where sixteen bytes may."""
    if channels * arrays[0].itemsize % 16 or any(x.data.ptr % 16 for x in arrays):
        return "T"
    return "int4"


def count(x: Any, V: str) -> int:
    """Return how many times a V there is in x."""
    size: int = x.size
    return size if V == "T" else size * x.itemsize // 16


def parts(batch: int, per_image: int) -> Iterator[slice]:
    """Yield as few slices of the batch as there must be with at most `LIMIT` elements in each."""
    step = max(LIMIT // max(per_image, 1), 1)
    if batch <= step:
        yield slice(None)
        return
    for first in range(0, batch, step):
        yield slice(first, first + step)


def small_enough(w: Windows, channels: int) -> bool:
    """Whether one image, and what is made of it, can be counted in 32 bits, and the axes are up to three."""
    pixels = max(math.prod(w.size), math.prod(w.out))
    return len(w.size) <= 3 and pixels * channels <= LIMIT and max(w.padded) < LIMIT
