"""Sums down the columns of a matrix, as for the gradient of a bias, in a fixed order: they repeat to the bit."""

from __future__ import annotations

import math
from typing import Any

import cupy
import numpy as np

from .common import Kernel, blocks

_column_sums = Kernel(
    "column_sums",
    r"""
extern "C" __global__ void __launch_bounds__(256) column_sums(
    const T* x, T* out, W* parts, long long rows, long long n, long long chunks)
{
    __shared__ W strands[8][32];  // a warp reads 32 neighbours of every eighth row
    long long share = (rows + chunks - 1) / chunks;
    long long from = blockIdx.y * share, to = min(from + share, rows);
    long long column = blockIdx.x * 32LL + threadIdx.x % 32;
    int strand = threadIdx.x / 32;
    W sum = 0;
    if (column < n) {
        #pragma unroll 4
        for (long long row = from + strand; row < to; row += 8) sum += W(x[row * n + column]);
    }
    strands[strand][threadIdx.x % 32] = sum;
    __syncthreads();
    if (strand || column >= n) return;
    for (int k = 1; k < 8; ++k) sum += strands[k][threadIdx.x];
    if (chunks > 1) parts[blockIdx.y * n + column] = sum;
    else out[column] = T(sum);
}
""",
)
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
    n = x.shape[-1]
    rows = math.prod(x.shape[:-1])
    out = cupy.empty(n, x.dtype)
    grid, parts = partition(rows, n, x.dtype)
    _column_sums(grid, 256, x, out, parts, rows, n, grid[1], T=x.dtype)
    if parts is not None:
        sum_of_parts(parts, out, (1, 1, n), n, n, False)
    return out


def partition(rows: int, n: int, dtype: Any) -> tuple[tuple[int, int], Any]:
    """Blocks of 32 columns and some 256 rows each, at most about 1024, and room for the sums of each part of rows."""
    across = -(-n // 32)
    down = max(1, min(-(-rows // 256), 1024 // max(across, 1)))
    return (across, down), parts_for(down, (n,), dtype)
