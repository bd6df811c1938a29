"""Smooth activations of NumPy arrays: value and derivative block by block, in the processor's cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ...boundary import erf
from ...device import namespace_by_name
from ...functions import smooth
from ...functions.smooth import NORMAL_PEAK, ROOT_HALF, TANH_CUBE, TANH_SCALE, check_gelu
from .common import EXP_LIMIT, ndarray

_add, _multiply, _subtract = np.add, np.multiply, np.subtract
_standard = namespace_by_name("numpy")  # whose clip is that of the standard in NumPy 2.0, too

#: Elements of a block.
BLOCK = 16384

# f(x) goes to y, and f'(x) to `slope` where that is not None; p and q are to work in.
Body = Callable[[Any, Any, Any, Any, Any], None]


def _gelu_tanh(x: Any, y: Any, slope: Any, p: Any, q: Any) -> None:
    _multiply(x, x, q)
    _multiply(q, TANH_SCALE * TANH_CUBE, p)
    _add(p, TANH_SCALE, p)
    _multiply(p, x, p)
    np.tanh(p, p)
    _multiply(p, 0.5, y)
    _add(y, 0.5, y)  # half = ½ (1 + tanh)
    if slope is not None:  # half (1 + x (1 - tanh) √(2/π) (1 + 3 · 0.044715 x²))
        _multiply(q, 3 * TANH_SCALE * TANH_CUBE, q)
        _add(q, TANH_SCALE, q)
        _multiply(q, x, q)
        _subtract(1.0, p, p)
        _multiply(q, p, q)
        _add(q, 1.0, q)
        _multiply(q, y, slope)
    _multiply(y, x, y)


def _gelu(x: Any, y: Any, slope: Any, p: Any, q: Any) -> None:
    _multiply(x, x, q)
    _multiply(q, -0.5, q)
    np.exp(q, q)
    _multiply(q, NORMAL_PEAK, q)  # the density
    if x.dtype.char == "f":
        _normal_distribution(x, q, y, p)
    else:
        _multiply(erf(_standard, ROOT_HALF * x), 0.5, y)
        _add(y, 0.5, y)
    if slope is not None:
        _multiply(q, x, q)
        _add(q, y, slope)
    _multiply(y, x, y)


def _normal_distribution(x: Any, density: Any, out: Any, t: Any) -> None:
    """Φ(x) with an error below 7.5e-8, where float32 has 6e-8 (Abramowitz, Stegun, 1964, 26.2.17, after Hastings)."""
    np.abs(x, out=t)
    _multiply(t, 0.2316419, t)
    _add(t, 1.0, t)
    np.divide(1.0, t, t)
    _multiply(t, 1.330274429, out)
    for b in (-1.821255978, 1.781477937, -0.356563782, 0.319381530):
        _add(out, b, out)
        _multiply(out, t, out)
    _multiply(out, density, out)  # 1 - Φ(|x|)
    _subtract(0.5, out, out)
    np.copysign(out, x, out)
    _add(out, 0.5, out)


def _silu(x: Any, y: Any, slope: Any, p: Any, q: Any) -> None:
    np.minimum(x, EXP_LIMIT[x.dtype.char], out=p)
    np.exp(p, p)
    _add(p, 1.0, q)
    np.divide(p, q, p)  # σ(x)
    _multiply(x, p, y)
    if slope is not None:  # σ + y (1 - σ)
        _subtract(1.0, p, q)
        _multiply(q, y, q)
        _add(q, p, slope)


def _softplus(x: Any, y: Any, slope: Any, p: Any, q: Any) -> None:
    np.abs(x, out=p)
    np.negative(p, p)
    np.exp(p, p)
    np.log1p(p, q)
    np.maximum(x, 0.0, out=y)
    _add(y, q, y)
    if slope is not None:
        np.minimum(x, EXP_LIMIT[x.dtype.char], out=p)
        np.exp(p, p)
        _add(p, 1.0, q)
        np.divide(p, q, slope)  # σ(x)


def _blocks(body: Body, x: Any, wanted: bool) -> Any:
    x = np.ascontiguousarray(x)
    y, slope = np.empty_like(x), np.empty_like(x) if wanted else None
    flat_x, flat_y, flat_slope = x.reshape(-1), y.reshape(-1), None if slope is None else slope.reshape(-1)
    p, q = np.empty((2, min(x.size, BLOCK)), x.dtype)
    for start in range(0, x.size, BLOCK):
        part = slice(start, min(start + BLOCK, x.size))
        n = part.stop - start
        body(flat_x[part], flat_y[part], None if flat_slope is None else flat_slope[part], p[:n], q[:n])
    return y, slope


def _suitable(x: Any) -> bool:
    return type(x) is ndarray and x.ndim > 0 and x.dtype.char in "fd"


def _override(function: Any, body: Body) -> None:
    def forward(xp: Any, needs: Any, x: Any, /) -> Any:
        return _blocks(body, x, needs[0]) if _suitable(x) else NotImplemented

    function.override("numpy", forward, _backward)


def _gelu_forward(xp: Any, needs: Any, x: Any, /, *, approximate: str = "none") -> Any:
    check_gelu(x, approximate)
    return _blocks(_gelu_tanh if approximate == "tanh" else _gelu, x, needs[0]) if _suitable(x) else NotImplemented


def _backward(xp: Any, needs: Any, dY: Any, slope: Any, **_: Any) -> Any:
    return (np.multiply(dY, slope),)


smooth.gelu.override("numpy", _gelu_forward, _backward)
_override(smooth.silu, _silu)
_override(smooth.softplus, _softplus)
