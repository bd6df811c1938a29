"""Sums down the columns of a matrix, as for the gradient of a bias, in a fixed order: they repeat to the bit."""

from __future__ import annotations

import math
from typing import Any

import cupy
import numpy as np

from .common import Kernel, blocks

#: So many elements are 16 bytes, a pack, which a thread takes at once.
PACK = r"""
template <int V> struct alignas(V * sizeof(T)) pack_ { T of[V]; };
const int WIDE = 16 / sizeof(T);
"""

# One pass over g and v, both of `rows` rows of n elements: dz of both, and the sums of dz over the rows. A warp takes
# 32 neighbouring packs of every eighth row. Without v there is g alone; without dz the sums alone are written.
_SOURCE = (
    PACK
    + r"""
template <int V> __device__ void go(
    const T* g, const T* v, T* dz, T* out, W* parts, W* strands, long long rows, long long n)
{
    long long share = (rows + gridDim.y - 1) / gridDim.y, from = blockIdx.y * share, to = min(from + share, rows);
    int lane = threadIdx.x % 32, strand = threadIdx.x / 32;
    long long column = (blockIdx.x * 32LL + lane) * V;
    W sums[V] = {};
    if (column < n) {
        #pragma unroll 4
        for (long long row = from + strand; row < to; row += 8) {
            long long at = row * n + column;
            pack_<V> a = *reinterpret_cast<const pack_<V>*>(g + at), b = a;
            if (v) b = *reinterpret_cast<const pack_<V>*>(v + at);
            #pragma unroll
            for (int k = 0; k < V; ++k) {
                W dy = a.of[k], y = b.of[k], d = COTANGENT;
                a.of[k] = T(d);
                sums[k] += d;
            }
            if (dz) *reinterpret_cast<pack_<V>*>(dz + at) = a;
        }
    }
    for (int k = 0; k < V; ++k) strands[(strand * V + k) * 32 + lane] = sums[k];
    __syncthreads();
    if (strand || column >= n) return;
    for (int k = 0; k < V; ++k) {
        for (int s = 1; s < 8; ++s) sums[k] += strands[(s * V + k) * 32 + lane];
        if (parts) parts[blockIdx.y * n + column + k] = sums[k];
        else out[column + k] = T(sums[k]);
    }
}
extern "C" __global__ void __launch_bounds__(256) NAME(
    const T* g, const T* v, T* dz, T* out, W* parts, long long rows, long long n, long long wide)
{
    __shared__ W strands[8 * WIDE * 32];
    if (wide) go<WIDE>(g, v, dz, out, parts, strands, rows, n);
    else go<1>(g, v, dz, out, parts, strands, rows, n);
}
"""
)


def summing(name: str, cotangent: str) -> Kernel:
    """Make a kernel for `sums_of`, with C++ for dz of dy and y."""
    return Kernel(name, _SOURCE.replace("NAME", name).replace("COTANGENT", cotangent))


_column_sums = summing("column_sums", "dy")
_sum_of_parts = Kernel(
    "sum_of_parts",
    r"""
extern "C" __global__ void sum_of_parts(
    const W* parts, T* c, long long splits, long long batches, long long m, long long n,
    long long c_row, long long c_step, long long accumulate)
{
    long long count = batches * m * n, threads = (long long)gridDim.x * blockDim.x;
    for (long long e = blockIdx.x * (long long)blockDim.x + threadIdx.x; e < count; e += threads) {
        W sum = 0;
        for (long long s = 0; s < splits; ++s) sum += parts[s * count + e];
        T* to = c + e / (m * n) * c_step + e / n % m * c_row + e % n;
        *to = T(accumulate ? W(*to) + sum : sum);
    }
}
""",
)


def parts_for(splits: int, shape: tuple[int, ...], dtype: Any) -> Any:
    """Room for the parts of sums, in the type to add in; None for one part."""
    return None if splits == 1 else cupy.empty((splits, *shape), np.float64 if dtype == np.float64 else np.float32)


def sum_of_parts(parts: Any, c: Any, shape: tuple[int, int, int], row: int, step: int, accumulate: bool) -> None:
    """Add `parts` over their first axis into `c`: stacked matrices of `shape`, `row` and `step` between their lines."""
    args = (parts.shape[0], *shape, row, step, int(accumulate))
    _sum_of_parts(blocks(math.prod(shape), 256), 256, parts, c, *args, T=c.dtype)


def column_sums(x: Any) -> Any:
    """Sum over all axes but the last, in W.

    Parameters
    ----------
    x
        A C-contiguous array of a floating dtype, of shape (..., n).

    Returns
    -------
    array
        Of shape (n,) and the dtype of `x`.
    """
    return sums_of(_column_sums, x, None, None)


def sums_of(kernel: Kernel, g: Any, v: Any, dz: Any) -> Any:
    """Launch a kernel of `summing` on C-contiguous arrays of one shape; return the sums over all axes but the last."""
    n = g.shape[-1]
    rows = math.prod(g.shape[:-1])
    packed = in_packs(n, *(x for x in (g, v, dz) if x is not None))
    across = -(-n // (32 * 16 // g.itemsize if packed else 32))
    down = max(1, min(-(-rows // 256), 1024 // max(across, 1)))  # some 256 rows to a block, at most some 1024 blocks
    out, parts = cupy.empty(n, g.dtype), parts_for(down, (n,), g.dtype)
    kernel((across, down), 256, g, v, dz, out, parts, rows, n, packed, T=g.dtype)
    if parts is not None:
        sum_of_parts(parts, out, (1, 1, n), n, n, False)
    return out


def in_packs(n: int, *arrays: Any) -> int:
    """Whether rows of n elements can be taken 16 bytes at a time, as a number for a kernel."""
    if n * arrays[0].itemsize % 16:
        return 0
    for x in arrays:
        if x.data.ptr % 16:
            return 0
    return 1
