"""The dense layer: a product, then bias and activation in one pass; backward one pass and two products."""

from __future__ import annotations

import math
from typing import Any

import cupy

from ...functions.dense import dense
from .activation import BACKWARD, BIASED, COTANGENT, PLAIN
from .common import Kernel, is_floating
from .product import product
from .sums import column_sums, partition, sum_of_parts

_SOURCE = r"""
extern "C" __global__ void __launch_bounds__(256) NAME(
    const T* g, const T* v, T* dz, T* out, W* parts, long long rows, long long n, long long chunks)
{
    __shared__ W strands[8][32];  // a warp has 32 neighbours of every eighth row
    long long share = (rows + chunks - 1) / chunks;
    long long from = blockIdx.y * share, to = min(from + share, rows);
    long long column = blockIdx.x * 32LL + threadIdx.x % 32;
    int strand = threadIdx.x / 32;
    W sum = 0;
    if (column < n) {
        #pragma unroll 4
        for (long long row = from + strand; row < to; row += 8) {
            long long at = row * n + column;
            W dy = g[at], y = v[at], d = COTANGENT;
            dz[at] = T(d);
            sum += d;
        }
    }
    strands[strand][threadIdx.x % 32] = sum;
    __syncthreads();
    if (strand || column >= n) return;
    for (int k = 1; k < 8; ++k) sum += strands[k][threadIdx.x];
    if (chunks > 1) parts[blockIdx.y * n + column] = sum;
    else out[column] = T(sum);
}
"""

#: dz and its sums over the rows, from dy and y, by activation.
BACKWARD_OF_BIASED = {
    name: Kernel(f"bias_{name}_backward", _SOURCE.replace("NAME", f"bias_{name}_backward").replace("COTANGENT", d))
    for name, d in COTANGENT.items()
    if name != "identity"
}


def backward_of_biased(activation: str, dY: Any, y: Any) -> tuple[Any, Any]:
    """The cotangents of z and of b, where y is an activation of z + b, from C-contiguous arrays of shape (..., n)."""
    n = y.shape[-1]
    rows = math.prod(y.shape[:-1])
    dZ, db = cupy.empty(y.shape, y.dtype), cupy.empty(n, y.dtype)
    grid, parts = partition(rows, n, y.dtype)
    BACKWARD_OF_BIASED[activation](grid, 256, dY, y, dZ, db, parts, rows, n, grid[1], T=y.dtype)
    if parts is not None:
        sum_of_parts(parts, db, (1, 1, n), n, n, False)
    return dZ, db


def _forward(xp: Any, needs: Any, x: Any, W: Any, b: Any = None, /, *, activation: str = "identity") -> Any:
    if not is_floating(x) or not _fits(x, W, b, activation):
        return NotImplemented
    k, n = W.shape
    y = product(x.reshape(1, k) if x.ndim == 1 else x, W)
    if b is not None:
        BIASED[activation](y, b, y)
    elif activation != "identity":
        PLAIN[activation](y, y)
    if x.ndim == 1:
        y = y.reshape(n)
    return y, (x if needs[1] else None, W if needs[0] else None, None if activation == "identity" else y)


def _fits(x: Any, W: Any, b: Any, activation: str) -> bool:
    kind, dtype = cupy.ndarray, x.dtype
    if type(W) is not kind or W.ndim != 2 or W.dtype != dtype or not x.ndim or x.shape[-1] != W.shape[0]:
        return False
    if b is not None and (type(b) is not kind or b.dtype != dtype or b.shape != W.shape[1:]):
        return False
    return activation in BIASED


def _backward(xp: Any, needs: Any, dY: Any, residuals: Any, *, activation: str = "identity") -> Any:
    x, W, y = residuals
    dY = cupy.ascontiguousarray(dY)
    of_b = len(needs) > 2 and needs[2]
    if y is None:
        dZ, db = dY, column_sums(dY) if of_b else None
    elif of_b:
        dZ, db = backward_of_biased(activation, dY, y)
    else:
        dZ, db = BACKWARD[activation](dY, y), None
    rows, n = math.prod(dZ.shape[:-1]), dZ.shape[-1]
    flat = dZ.reshape(rows, n)
    dx = dW = None
    if needs[0]:
        dx = product(flat, W.T).reshape(*dZ.shape[:-1], W.shape[0])
    if needs[1]:
        dW = product((x if x.ndim == 2 else cupy.ascontiguousarray(x).reshape(rows, x.shape[-1])).T, flat)
    return dx, dW, db


dense.override("cupy", _forward, _backward)
