"""Rotary positions: the angles, their sines and the turn in one kernel; the backward pass turns the other way."""

from __future__ import annotations

import math
from typing import Any

import cupy

from ...functions.positions import check_rotary, rotary
from .common import FLOATS, INTEGERS, Kernel, blocks, contiguous, is_floating

# A thread turns one pair of every head at a position, so that the angle is computed in double precision but once.
_turn = Kernel(
    "rotary",
    r"""
extern "C" __global__ void rotary(
    const T* x, const I* positions, T* y, long long places, long long time, long long heads, long long half,
    double offset, double rate, double sign)
{
    EACH(k, places * half)
    {
        long long place = k / half, i = k - place * half;
        double at = offset + (double)(positions ? (long long)positions[place] : place % time);
        double angle = at * exp(rate * (double)i);
        W c = W(cos(angle)), s = W(sin(angle) * sign);
        for (long long h = 0; h < heads; ++h) {
            long long k0 = (place * heads + h) * 2 * half + i;
            W a = W(x[k0]), b = W(x[k0 + half]);
            y[k0] = T(a * c - b * s);
            y[k0 + half] = T(b * c + a * s);
        }
    }
}
""",
    types={"T": FLOATS, "I": INTEGERS},
)


def _launch(x: Any, positions: Any, offset: int, base: float, sign: float) -> Any:
    x, (time, heads, features) = contiguous(x), x.shape[-3:]
    y, places, half = cupy.empty(x.shape, x.dtype), math.prod(x.shape[:-2]), features // 2
    kind = "int64" if positions is None else positions.dtype
    _turn(
        blocks(places * half, 128), 128, x, positions, y, places, time, heads, half, float(offset),
        -2.0 / max(features, 1) * math.log(base), sign, T=x.dtype, I=kind,
    )  # fmt: skip
    return y


def _forward(xp: Any, needs: Any, x: Any, positions: Any = None, /, *, offset: int = 0, base: float = 10000.0) -> Any:
    check_rotary(x, positions)
    if not is_floating(x) or (positions is not None and str(positions.dtype) not in INTEGERS):
        return NotImplemented
    if positions is not None:
        positions = contiguous(cupy.broadcast_to(positions, x.shape[:-2]))
    return _launch(x, positions, offset, base, 1.0), positions


def _backward(xp: Any, needs: Any, dY: Any, positions: Any, *, offset: int = 0, base: float = 10000.0) -> Any:
    return _launch(dY, positions, offset, base, -1.0), None


rotary.override("cupy", _forward, _backward)
