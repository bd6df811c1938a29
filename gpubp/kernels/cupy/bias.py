"""A bias and an activation after a product: one pass forward, in place, and one backward for both cotangents."""

from __future__ import annotations

from typing import Any

import cupy

from .activation import COTANGENT, VALUE
from .common import Kernel, blocks
from .sums import PACK, in_packs, summing, sums_of

_SOURCE = (
    PACK
    + r"""
__device__ W activated(W z) { return VALUE; }
extern "C" __global__ void NAME(T* y, const T* b, long long count, long long n, long long wide)
{
    if (wide) {
        pack_<WIDE>* packs = reinterpret_cast<pack_<WIDE>*>(y);
        EACH(k, count / WIDE) {
            pack_<WIDE> a = packs[k], c = reinterpret_cast<const pack_<WIDE>*>(b)[modulo(k, n / WIDE)];
            #pragma unroll
            for (int e = 0; e < WIDE; ++e) a.of[e] = T(activated(W(a.of[e]) + W(c.of[e])));
            packs[k] = a;
        }
    } else
        EACH(k, count) y[k] = T(activated(W(y[k]) + W(b[modulo(k, n)])));
}
"""
)
_FORWARD = {
    name: Kernel(f"add_bias_{name}", _SOURCE.replace("NAME", f"add_bias_{name}").replace("VALUE", value))
    for name, value in VALUE.items()
}
_BACKWARD = {
    name: summing(f"add_bias_{name}_backward", cotangent) for name, cotangent in COTANGENT.items() if name != "identity"
}


def add_bias(y: Any, b: Any, activation: str) -> None:
    """``y = activation(y + b)`` in place, of C-contiguous arrays of shapes (..., n) and (n,)."""
    b, n, count = cupy.ascontiguousarray(b), y.shape[-1], y.size
    packed = in_packs(n, y, b)
    threads = count * y.itemsize // 16 if packed else count
    _FORWARD[activation](blocks(threads, 256), 256, y, b, count, n, packed, T=y.dtype)


def cotangents(activation: str, dY: Any, y: Any) -> tuple[Any, Any]:
    """The cotangents of z and of b, from those of ``y = activation(z + b)``, C-contiguous arrays of shape (..., n)."""
    dZ = cupy.empty(y.shape, y.dtype)
    return dZ, sums_of(_BACKWARD[activation], dY, y, dZ)
