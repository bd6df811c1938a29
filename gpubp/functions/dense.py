"""The dense (fully connected, affine) layer as one function."""

# ruff: noqa: D103  (a fused function has the docstring of its reference)

from __future__ import annotations

import math
from typing import Any

from ..boundary import conj
from ..fused import fused
from .activation import BY_OUTPUT
from .checks import check_alike


def _dense(x: Any, W: Any, b: Any = None, /, *, activation: str = "identity") -> Any:
    """Affine map followed by an elementwise activation, ``activation(x @ W + b)``.

    Parameters
    ----------
    x
        Inputs of shape (..., n_in).
    W
        Weights of shape (n_in, n_out).
    b
        Biases of shape (n_out,), or None.
    activation
        ``"identity"``, ``"sigmoid"``, ``"tanh"``, ``"relu"``, ``"leaky_relu"``, ``"elu"`` or ``"selu"``.

    Returns
    -------
    array
        Of shape (..., n_out).

    Raises
    ------
    TypeError
        If the arrays are of several libraries or dtypes.
    ValueError
        If the shapes do not fit, or the activation is none of these.
    """
    _check(x, W, b, activation)
    z = x @ W
    return BY_OUTPUT[activation].function(z if b is None else z + b)


@fused(_dense)
def dense(xp: Any, needs: Any, x: Any, W: Any, b: Any = None, /, *, activation: str = "identity") -> Any:
    y = _dense(x, W, b, activation=activation)
    return y, (x if needs[1] else None, W if needs[0] else None, None if activation == "identity" else y)


@dense.backward
def dense_backward(xp: Any, needs: Any, dY: Any, residuals: Any, *, activation: str = "identity") -> Any:
    x, W, y = residuals
    dZ = BY_OUTPUT[activation].cotangent(xp, dY, y)
    dx = dW = db = None
    if needs[0]:
        dx = xp.matmul(dZ, xp.matrix_transpose(conj(xp, W)))
    if needs[1]:
        rows = math.prod(dZ.shape[:-1])
        flat = conj(xp, xp.reshape(x, (rows, x.shape[-1])))
        dW = xp.matmul(xp.matrix_transpose(flat), xp.reshape(dZ, (rows, dZ.shape[-1])))
    if len(needs) > 2 and needs[2]:
        db = xp.sum(dZ, axis=tuple(range(dZ.ndim - 1))) if dZ.ndim > 1 else dZ
    return dx, dW, db


def _check(x: Any, W: Any, b: Any, activation: str) -> None:
    if activation not in BY_OUTPUT:
        raise ValueError(f"dense expects an activation among {', '.join(BY_OUTPUT)}, got {activation!r}")
    check_alike("dense", x=x, W=W, b=b)
    if W.ndim != 2 or not x.ndim or x.shape[-1] != W.shape[0]:
        raise ValueError(
            f"dense expects x of shape (..., n_in) and W of shape (n_in, n_out), got {tuple(x.shape)} and "
            f"{tuple(W.shape)}"
        )
    if b is not None and tuple(b.shape) != (W.shape[1],):
        raise ValueError(
            f"dense expects b of shape {(W.shape[1],)} with W of shape {tuple(W.shape)}, got {tuple(b.shape)}"
        )
