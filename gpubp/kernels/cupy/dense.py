"""The dense layer: a product, then bias and activation in one pass; backward one pass and two products.

With nvmath-python, bias and ReLU are part of the product, and so is the bias's gradient of a layer without activation.
That of a layer with one is summed in the pass which makes dZ. cuBLASLt's epilog for the derivative of ReLU would need
the activation of the *next* layer here: it multiplies dX, and a fused function ends at its own layer.
"""

from __future__ import annotations

import math
from typing import Any

import cupy

from ...functions.dense import dense
from . import lt
from .activation import BACKWARD, PLAIN
from .bias import add_bias, cotangents
from .common import is_floating
from .product import product
from .sums import column_sums


def _forward(xp: Any, needs: Any, x: Any, W: Any, b: Any = None, /, *, activation: str = "identity") -> Any:
    if not is_floating(x) or not _fits(x, W, b, activation):
        return NotImplemented
    y = _in_one(x, W, b, activation)
    if y is None:
        y = product(x.reshape(1, x.size) if x.ndim == 1 else x, W)
        if b is not None:
            add_bias(y, b, activation)
        elif activation != "identity":
            PLAIN[activation](y, y)
        if x.ndim == 1:
            y = y.reshape(W.shape[1])
    return y, (x if needs[1] else None, W if needs[0] else None, None if activation == "identity" else y)


#: What cuBLASLt can do after a product, by activation and whether there is a bias.
EPILOG = {
    ("identity", True): lt.BIAS,
    ("relu", True): lt.RELU_BIAS,
    ("relu", False): lt.RELU,
}


def _in_one(x: Any, W: Any, b: Any, activation: str) -> Any:
    """All by one kernel of cuBLASLt, if that has one; else None."""
    epilog = EPILOG.get((activation, b is not None))
    if epilog is None or not (x.size and W.size) or (b is not None and not b.flags.c_contiguous):
        return None
    n = W.shape[1]
    y = cupy.empty((*x.shape[:-1], n), x.dtype)
    return y if lt.product_with(epilog, rows_of(x), W, y.reshape(y.size // n, n), b) else None


def rows_of(x: Any) -> Any:
    """An array of shape (..., n) as a matrix."""
    if x.ndim == 2:
        return x
    return cupy.ascontiguousarray(x).reshape(math.prod(x.shape[:-1]), x.shape[-1])


def _fits(x: Any, W: Any, b: Any, activation: str) -> bool:
    kind, dtype = cupy.ndarray, x.dtype
    if type(W) is not kind or W.ndim != 2 or W.dtype != dtype or not x.ndim or x.shape[-1] != W.shape[0]:
        return False
    if b is not None and (type(b) is not kind or b.dtype != dtype or b.shape != W.shape[1:]):
        return False
    return activation in PLAIN


def _backward(xp: Any, needs: Any, dY: Any, residuals: Any, *, activation: str = "identity") -> Any:
    x, W, y = residuals
    dY = cupy.ascontiguousarray(dY)
    of_b = len(needs) > 2 and needs[2]
    if y is None:
        dZ, db = dY, None
    elif of_b:
        dZ, db = cotangents(activation, dY, y)
    else:
        dZ, db = BACKWARD[activation](dY, y), None
    flat = rows_of(dZ)
    dx = dW = None
    if needs[0]:
        dx = product(flat, W.T).reshape(*dZ.shape[:-1], W.shape[0])
    if needs[1]:
        x = rows_of(x)
        dW, db = _of_weights(x, flat) if of_b and db is None else (product(x.T, flat), db)
    return dx, dW, column_sums(dY) if of_b and db is None else db


def _of_weights(x: Any, dZ: Any) -> tuple[Any, Any]:
    """The weights' cotangent, and the bias's if it comes with it."""
    if x.size and dZ.size and len(x) > 1:  # a sum over one row is what cuBLASLt refused before 12.3
        dW, db = cupy.empty((x.shape[1], dZ.shape[1]), x.dtype), cupy.empty(dZ.shape[1], x.dtype)
        if lt.product_with(lt.BGRADA, x.T, dZ, dW, db):
            return dW, db
    return product(x.T, dZ), None


dense.override("cupy", _forward, _backward)
