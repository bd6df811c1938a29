"""Softmax and the logarithms that belong to it."""

# ruff: noqa: D103  (a fused function has the docstring of its reference)

from __future__ import annotations

import math
from typing import Any

from ..fused import fused
from ..namespace import array_namespace
from ..transform import stop_gradient
from .checks import check_real


def _softmax(x: Any, /, *, axis: int = -1) -> Any:
    """Exponentials that add up to 1 along an axis.

    Parameters
    ----------
    x
        Real array of any shape but ().
    axis
        The axis along which the result adds up to 1.
    """
    check_real("softmax", x)
    xp = array_namespace(x)
    e = xp.exp(x - xp.max(x, axis=axis, keepdims=True))
    return e / xp.sum(e, axis=axis, keepdims=True)


@fused(_softmax)
def softmax(xp: Any, needs: Any, x: Any, /, *, axis: int = -1) -> Any:
    y = _softmax(x, axis=axis)
    return y, y


@softmax.backward
def softmax_backward(xp: Any, needs: Any, dY: Any, y: Any, *, axis: int = -1) -> Any:
    return (y * (dY - xp.sum(dY * y, axis=axis, keepdims=True)),)


def _log_softmax(x: Any, /, *, axis: int = -1) -> Any:
    """Logarithm of the softmax, x - logsumexp(x), exact where the softmax rounds to 0 or 1.

    Parameters
    ----------
    x
        Real array of any shape but ().
    axis
        The axis along which the exponentials of the result add up to 1.
    """
    check_real("log_softmax", x)
    xp = array_namespace(x)
    shifted = x - stop_gradient(xp.max(x, axis=axis, keepdims=True))
    return shifted - xp.log(xp.sum(xp.exp(shifted), axis=axis, keepdims=True))


@fused(_log_softmax)
def log_softmax(xp: Any, needs: Any, x: Any, /, *, axis: int = -1) -> Any:
    y = _log_softmax(x, axis=axis)
    return y, y


@log_softmax.backward
def log_softmax_backward(xp: Any, needs: Any, dY: Any, y: Any, *, axis: int = -1) -> Any:
    return (dY - xp.exp(y) * xp.sum(dY, axis=axis, keepdims=True),)


def _logsumexp(x: Any, /, *, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Any:
    """Logarithm of the sum of exponentials, without overflow; of -inf alone it is -inf, with gradient 0.

    Parameters
    ----------
    x
        Real array of any shape.
    axis
        The axis or axes to sum over; all where it is None.
    keepdims
        Whether they stay, with length 1.
    """
    highest, rest = _highest_and_rest(x, axis)
    out = highest + rest
    return out if keepdims else array_namespace(x).squeeze(out, axis=_summed(x, axis))


@fused(_logsumexp)
def logsumexp(
    xp: Any, needs: Any, x: Any, /, *, axis: int | tuple[int, ...] | None = None, keepdims: bool = False
) -> Any:
    highest, rest = _highest_and_rest(x, axis)
    out = highest + rest
    return out if keepdims else xp.squeeze(out, axis=_summed(x, axis)), (x, highest, rest)


@logsumexp.backward
def logsumexp_backward(
    xp: Any, needs: Any, g: Any, residuals: Any, *, axis: int | tuple[int, ...] | None = None, keepdims: bool = False
) -> Any:
    x, highest, rest = residuals  # their sum would round away the rest where the highest is large
    return (xp.reshape(g, rest.shape) * xp.exp(x - xp.where(highest == -math.inf, 0.0, highest) - rest),)


def _highest_and_rest(x: Any, axis: int | tuple[int, ...] | None) -> tuple[Any, Any]:
    """Return two numbers whose sum is the logarithm: the highest, and what the others add to it."""
    check_real("logsumexp", x)
    xp = array_namespace(x)
    highest = stop_gradient(xp.max(x, axis=axis, keepdims=True))
    total = xp.sum(xp.exp(x - xp.where(xp.isfinite(highest), highest, 0.0)), axis=axis, keepdims=True)
    return highest, xp.log(xp.where(total == 0, 1.0, total))


def _summed(x: Any, axis: int | tuple[int, ...] | None) -> tuple[int, ...]:
    return tuple(range(x.ndim)) if axis is None else axis if isinstance(axis, tuple) else (axis,)
