"""Random numbers: NumPy's Philox bits, made where they are used."""

from __future__ import annotations

from typing import Any

import cupy

from .common import Kernel, blocks

_bernoulli = Kernel(
    "bernoulli",
    r"""
extern "C" __global__ void bernoulli(
    bool* out, long long n, long long largest, long long a, long long b, const long long* at, long long step,
    long long stream)
{
    key_ key = {(unsigned long long)a, (unsigned long long)b, at ? *at : step, stream};
    long long blocks = (n + 7) / 8;
    EACH(m, blocks) {
        unsigned bits = kept8(key, m, largest);
        if (8 * m + 8 <= n) {
            unsigned low = 0, high = 0;
            for (int k = 0; k < 4; ++k) low |= (bits >> k & 1) << 8 * k, high |= (bits >> (k + 4) & 1) << 8 * k;
            reinterpret_cast<uint2*>(out)[m] = make_uint2(low, high);
        } else {
            for (int k = 0; 8 * m + k < n; ++k) out[8 * m + k] = bits >> k & 1;
        }
    }
}
""",
    types={"T": ("float32",)},
)


def bernoulli(keep: float, key: tuple[int, int], step: Any, shape: tuple[int, ...], stream: int = 0) -> Any:
    """Draw what `gpubp.boundary.bernoulli` draws, in one kernel."""
    out = cupy.empty(shape, bool)
    n = out.size
    _bernoulli(blocks(-(-n // 8), 128), 128, out, n, *draw(keep, key, step), stream, T="float32")
    return out


def draw(keep: float, key: tuple[int, int], step: Any) -> tuple[Any, ...]:
    """Return what kernels are told of a draw: ``long long largest, a, b, const long long* at, long long step``.

    A step on the device is read there, so that a captured launch finds the step of its replay.
    """
    at = step if type(step) is cupy.ndarray else None
    if at is not None and at.dtype != "int64":
        at = at.astype("int64")
    return round(keep * 2**32) - 1, _signed(key[0]), _signed(key[1]), at, 0 if at is not None else int(step)


def _signed(word: int) -> int:
    return word - 2**64 if word >= 2**63 else word
