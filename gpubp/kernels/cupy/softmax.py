"""Softmax along the last axis: a block of threads for each row, which is read twice and written once."""

from __future__ import annotations

from typing import Any

import cupy

from ...functions.softmax import softmax
from .common import Kernel, is_floating

_softmax = Kernel(
    "softmax",
    r"""
extern "C" __global__ void softmax(const T* x, T* y, long long rows, long long n)
{
    for (long long row = blockIdx.x; row < rows; row += gridDim.x) {
        const T* from = x + row * n;
        W top = -infinity(), total = 0;
        for (long long j = threadIdx.x; j < n; j += blockDim.x) top = max(top, W(from[j]));
        top = block_max(top);
        for (long long j = threadIdx.x; j < n; j += blockDim.x) total += exp(W(from[j]) - top);
        total = block_sum(total);
        for (long long j = threadIdx.x; j < n; j += blockDim.x) y[row * n + j] = T(exp(W(from[j]) - top) / total);
    }
}
""",
)
_softmax_backward = Kernel(
    "softmax_backward",
    r"""
extern "C" __global__ void softmax_backward(const T* dy, const T* y, T* dx, long long rows, long long n)
{
    for (long long row = blockIdx.x; row < rows; row += gridDim.x) {
        long long at = row * n;
        W dot = 0;
        for (long long j = threadIdx.x; j < n; j += blockDim.x) dot += W(dy[at + j]) * W(y[at + j]);
        dot = block_sum(dot);
        for (long long j = threadIdx.x; j < n; j += blockDim.x)
            dx[at + j] = T(W(y[at + j]) * (W(dy[at + j]) - dot));
    }
}
""",
)


def _forward(xp: Any, needs: Any, x: Any, /, *, axis: int = -1) -> Any:
    if not is_floating(x) or not x.ndim or axis not in (-1, x.ndim - 1) or not x.size:
        return NotImplemented
    x = cupy.ascontiguousarray(x)
    y = cupy.empty_like(x)
    n = x.shape[-1]
    _softmax(x.size // n, 256, x, y, x.size // n, n, T=x.dtype)
    return y, y


def _backward(xp: Any, needs: Any, dY: Any, y: Any, *, axis: int = -1) -> Any:
    dX, n = cupy.empty_like(y), y.shape[-1]
    _softmax_backward(y.size // n, 256, cupy.ascontiguousarray(dY), y, dX, y.size // n, n, T=y.dtype)
    return (dX,)


softmax.override("cupy", _forward, _backward)
