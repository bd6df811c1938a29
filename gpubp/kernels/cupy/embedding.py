"""Embedding: rows taken by one kernel; their gradients added up in the order of their places, without atomics."""

from __future__ import annotations

from typing import Any

import cupy

from ...functions.embedding import check_embedding, embedding
from .common import FLOATS, INTEGERS, Kernel, blocks, contiguous, is_floating

# CuPy's indices wrap around.
_ROW = r"""
__device__ long long row_of(long long index, long long rows)
{
    if (index >= 0 && index < rows) return index;
    index %= rows;
    return index < 0 ? index + rows : index;
}
"""

_take = Kernel(
    "embedding",
    _ROW
    + r"""
extern "C" __global__ void embedding(
    const I* indices, const T* table, T* out, long long size, long long rows, long long n)
{
    EACH(k, size)
    {
        long long place = k / n;
        out[k] = table[row_of(indices[place], rows) * n + k - place * n];
    }
}
""",
    types={"T": FLOATS, "I": INTEGERS},
)

# A block for each place, which adds up all later places of its row, unless an earlier one has done so. To look for them
# is quadratic in the places, but a sort would make the host wait. The threads look at 128 places at a time.
_add = Kernel(
    "embedding_backward",
    _ROW
    + r"""
extern "C" __global__ void embedding_backward(
    const T* dy, const I* indices, T* out, long long places, long long rows, long long n)
{
    __shared__ int found[128], counts[4];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    for (long long k = blockIdx.x; k < places; k += gridDim.x) {
        long long row = row_of(indices[k], rows);
        bool seen = false;
        for (long long first = 0; first < k && !seen; first += 128) {
            long long p = first + threadIdx.x;
            seen = __syncthreads_or(p < k && row_of(indices[p], rows) == row);
        }
        if (seen) continue;
        T* to = out + row * n;
        for (long long first = k; first < places; first += 128) {
            long long p = first + threadIdx.x;
            unsigned here = __ballot_sync(0xffffffffu, p < places && row_of(indices[p], rows) == row);
            if (lane == 0) counts[warp] = __popc(here);
            __syncthreads();
            int before = 0, count = 0;
            for (int w = 0; w < 4; ++w) {
                if (w < warp) before += counts[w];
                count += counts[w];
            }
            if (here >> lane & 1) found[before + __popc(here & ((1u << lane) - 1))] = (int)threadIdx.x;
            __syncthreads();
            for (long long j = threadIdx.x; count && j < n; j += 128) {
                W total = W(to[j]);
                for (int m = 0; m < count; ++m) total += W(dy[(first + found[m]) * n + j]);
                to[j] = T(total);
            }
            __syncthreads();
        }
    }
}
""",
    types={"T": FLOATS, "I": INTEGERS},
)

#: Places that are looked through at once.
SLICE = 32768


def _forward(xp: Any, needs: Any, indices: Any, table: Any, /) -> Any:
    check_embedding(indices, table)
    if not is_floating(table) or not table.size or str(indices.dtype) not in INTEGERS:
        return NotImplemented
    indices, table = contiguous(indices), contiguous(table)
    rows, n = table.shape
    out = cupy.empty((*indices.shape, n), table.dtype)
    _take(blocks(out.size, 256), 256, indices, table, out, out.size, rows, n, T=table.dtype, I=indices.dtype)
    return out, (indices, table.shape)


def _backward(xp: Any, needs: Any, dY: Any, residuals: Any) -> Any:
    indices, (rows, n) = residuals
    out, dY, flat = cupy.zeros((rows, n), dY.dtype), contiguous(dY).reshape(-1, n), indices.reshape(-1)
    for start in range(0, flat.size, SLICE):
        some, of = dY[start : start + SLICE], flat[start : start + SLICE]
        _add(blocks(of.size, 1), 128, some, of, out, of.size, rows, n, T=dY.dtype, I=flat.dtype)
    return None, out


embedding.override("cupy", _forward, _backward)
