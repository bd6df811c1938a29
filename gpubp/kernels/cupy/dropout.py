"""Dropout: the places of the zeros are drawn in the kernel, and again in that of the backward pass."""

from __future__ import annotations

from typing import Any

import cupy

from ...functions.dropout import check_rate, dropout
from .common import Kernel, blocks, contiguous, is_floating
from .random import draw

_dropout = Kernel(
    "dropout",
    r"""
struct alignas(sizeof(T) < 8 ? 4 * sizeof(T) : 16) pack_ { T of[sizeof(T) < 8 ? 4 : 2]; };

extern "C" __global__ void dropout(
    const T* x, T* y, long long n, long long aligned, double scale, long long largest, long long a, long long b,
    const long long* at, long long step)
{
    key_ key = {(unsigned long long)a, (unsigned long long)b, at ? *at : step, 0};
    const int many = sizeof(pack_) / sizeof(T);
    long long blocks = (n + 7) / 8;
    EACH(m, blocks) {
        unsigned bits = kept8(key, m, largest);
        if (aligned && 8 * m + 8 <= n) {
#pragma unroll
            for (int part = 0; part < 8 / many; ++part) {
                pack_ values = reinterpret_cast<const pack_*>(x)[8 / many * m + part];
#pragma unroll
                for (int k = 0; k < many; ++k)
                    values.of[k] = bits >> (part * many + k) & 1 ? T(W(values.of[k]) * W(scale)) : T(0);
                reinterpret_cast<pack_*>(y)[8 / many * m + part] = values;
            }
        } else {
            for (int k = 0; k < 8 && 8 * m + k < n; ++k)
                y[8 * m + k] = bits >> k & 1 ? T(W(x[8 * m + k]) * W(scale)) : T(0);
        }
    }
}
""",
)


def _drop(x: Any, rate: float, told: Any) -> Any:
    x = contiguous(x)
    y, n = cupy.empty(x.shape, x.dtype), x.size
    _dropout(blocks(-(-n // 8), 128), 128, x, y, n, int(x.data.ptr % 16 == 0), 1 / (1 - rate), *told, T=x.dtype)
    return y


def _forward(xp: Any, needs: Any, x: Any, step: Any, /, *, rate: float, key: tuple[int, int]) -> Any:
    if not is_floating(x):
        return NotImplemented
    check_rate("dropout", rate)
    told = draw(1 - rate, key, step)
    return _drop(x, rate, told), told


def _backward(xp: Any, needs: Any, dY: Any, told: Any, *, rate: float, key: tuple[int, int]) -> Any:
    return _drop(dY, rate, told), None


dropout.override("cupy", _forward, _backward)
