"""Loss functions. Each gives one scalar, and none broadcasts: what is compared must have the same shape."""

# ruff: noqa: D103  (a fused function has the docstring of its reference)

from __future__ import annotations

import math
from typing import Any

from ..array import strip
from ..boundary import is_inexact
from ..device import CPU, device_of
from ..fused import fused
from ..namespace import array_namespace
from ..transform import stop_gradient
from .checks import check_alike, check_one_library, check_real

# -- squared errors: the sum of squares times a scale that the shape determines


def _half_squared_error(y: Any, target: Any, /) -> Any:
    """Half the sum of squares, ½ Σ (y - target)².

    Parameters
    ----------
    y, target
        Real arrays of one shape and dtype.

    Raises
    ------
    TypeError
        If the arrays are of several libraries or dtypes.
    ValueError
        If the shapes differ.
    """
    return _squares("half_squared_error", y, target, 0.5)[0]


@fused(_half_squared_error)
def half_squared_error(xp: Any, needs: Any, y: Any, target: Any, /) -> Any:
    return _squares("half_squared_error", y, target, 0.5)


def _mean_half_squared_error(y: Any, target: Any, /) -> Any:
    """Half the squared distance, as a mean over the N examples: 1/(2N) Σₙ ‖yₙ - targetₙ‖².

    Parameters
    ----------
    y, target
        Real arrays of one shape (N, ...) and dtype; the first axis counts the examples.

    Raises
    ------
    TypeError
        If the arrays are of several libraries or dtypes.
    ValueError
        If the shapes differ, or there is no example.
    """
    return _squares("mean_half_squared_error", y, target, 0.5 / count(y.shape[:1]))[0]


@fused(_mean_half_squared_error)
def mean_half_squared_error(xp: Any, needs: Any, y: Any, target: Any, /) -> Any:
    return _squares("mean_half_squared_error", y, target, 0.5 / count(y.shape[:1]))


def _mse(y: Any, target: Any, /) -> Any:
    """Mean squared error over all elements.

    Parameters
    ----------
    y, target
        Real arrays of one shape and dtype.

    Raises
    ------
    TypeError
        If the arrays are of several libraries or dtypes.
    ValueError
        If the shapes differ, or there is no element.
    """
    return _squares("mse", y, target, 1.0 / count(y.shape))[0]


@fused(_mse)
def mse(xp: Any, needs: Any, y: Any, target: Any, /) -> Any:
    return _squares("mse", y, target, 1.0 / count(y.shape))


def _squares(name: str, y: Any, target: Any, scale: float) -> Any:
    check_pair(name, y, target)
    d = y - target
    return array_namespace(d).sum(d * d) * scale, (d, 2.0 * scale)


@half_squared_error.backward
@mean_half_squared_error.backward
@mse.backward
def _squares_backward(xp: Any, needs: Any, g: Any, residuals: Any) -> Any:
    d, scale = residuals
    dY = (g * scale) * d
    return dY, -dY if needs[1] else None


# -- classification, from logits


def _binary_cross_entropy(logits: Any, targets: Any, /) -> Any:
    """Mean of -t log σ(z) - (1 - t) log(1 - σ(z)), from the logits z, exact where σ(z) rounds to 0 or 1.

    Parameters
    ----------
    logits
        Real array of any shape.
    targets
        Probabilities of the positive class, of the same shape and dtype; or labels 0 and 1, integer or boolean.

    Raises
    ------
    TypeError
        If the arrays are of several libraries or floating-point dtypes.
    ValueError
        If the shapes differ, there is no element, or (NumPy only) a label is neither 0 nor 1.
    """
    targets = _check_binary(logits, targets)
    xp = array_namespace(logits, targets)
    e = xp.exp(xp.where(logits < 0, logits, -logits))
    linear = xp.where(logits < 0, -logits * targets, logits * (1 - targets))
    return xp.sum(linear + xp.log1p(e)) / count(logits.shape)


@fused(_binary_cross_entropy)
def binary_cross_entropy(xp: Any, needs: Any, logits: Any, targets: Any, /) -> Any:
    return _binary_cross_entropy(logits, targets), (logits, _check_binary(logits, targets))


@binary_cross_entropy.backward
def binary_cross_entropy_backward(xp: Any, needs: Any, g: Any, residuals: Any) -> Any:
    z, t = residuals
    g = g / count(z.shape)
    e = xp.exp(xp.where(z < 0, z, -z))
    dZ = g * (xp.where(z < 0, e, 1.0) / (1 + e) - t)
    return dZ, -g * z if needs[1] else None


def _softmax_cross_entropy(logits: Any, targets: Any, /) -> Any:
    """Mean over the examples of -Σ t log softmax(z), from the logits z, without overflow.

    Parameters
    ----------
    logits
        Real array of shape (..., classes).
    targets
        Class labels from 0 to classes - 1, an integer array of shape (...); or probabilities (one-hot vectors
        among them), of the shape and dtype of `logits`.

    Raises
    ------
    TypeError
        If the arrays are of several libraries or floating-point dtypes, or the labels are boolean.
    ValueError
        If the shapes do not fit, there is no example, or (NumPy only) a label is out of range.

    Notes
    -----
    On a device the range of labels is not checked, as that would cost a wait; `gpubp.fit` does it beforehand, on
    the host.
    """
    return _cross_entropy(logits, targets)[0]


@fused(_softmax_cross_entropy)
def softmax_cross_entropy(xp: Any, needs: Any, logits: Any, targets: Any, /) -> Any:
    out, log_p = _cross_entropy(logits, targets)
    return out, (log_p, targets)


@softmax_cross_entropy.backward
def softmax_cross_entropy_backward(xp: Any, needs: Any, g: Any, residuals: Any) -> Any:
    log_p, targets = residuals
    g = g / count(log_p.shape[:-1])
    p = xp.exp(log_p)
    if is_inexact(targets.dtype):
        mass = xp.sum(targets, axis=-1, keepdims=True)
        return g * (p * mass - targets), -g * log_p if needs[1] else None
    classes = xp.arange(p.shape[-1], dtype=targets.dtype, device=targets.device)
    hit = xp.expand_dims(targets, axis=-1) == classes
    return g * (p - xp.astype(hit, p.dtype)), None


def _cross_entropy(logits: Any, targets: Any) -> Any:
    _check_classes(logits, targets)
    xp = array_namespace(logits, targets)
    shifted = logits - stop_gradient(xp.max(logits, axis=-1, keepdims=True))
    log_p = shifted - xp.log(xp.sum(xp.exp(shifted), axis=-1, keepdims=True))
    if is_inexact(targets.dtype):
        total = xp.sum(targets * log_p)
    else:
        total = xp.sum(xp.take_along_axis(log_p, xp.expand_dims(xp.astype(targets, xp.int64), axis=-1), axis=-1))
    return -total / count(logits.shape[:-1]), log_p


# -- checks


def count(shape: Any) -> int:
    """Count the elements of a shape over which a mean is taken; there must be at least one."""
    n = int(math.prod(shape))
    if not n:
        raise ValueError(f"a mean over no elements: shape {tuple(shape)}")
    return n


def check_pair(name: str, y: Any, target: Any, names: tuple[str, str] = ("y", "target")) -> None:
    """Refuse arrays that differ in shape, dtype or library, or are complex."""
    if y.dtype is not target.dtype or type(strip(y)) is not type(strip(target)) or not is_inexact(y.dtype):
        check_alike(name, **dict(zip(names, (y, target), strict=True)))
    check_real(name, y)
    _check_same_shape(name, y, target)


def _check_same_shape(name: str, y: Any, target: Any) -> None:
    if y.shape != target.shape:
        raise ValueError(
            f"{name} expects two arrays of one shape, got {tuple(y.shape)} and {tuple(target.shape)}; "
            "it does not broadcast"
        )


def _check_binary(logits: Any, targets: Any) -> Any:
    """Give the targets in the dtype of the logits."""
    name, names = "binary_cross_entropy", ("logits", "targets")
    if not is_inexact(targets.dtype):
        check_one_library(name, logits=logits, targets=targets)
        _check_labels(name, strip(targets), 2, logits.shape)
        targets = array_namespace(targets).astype(targets, logits.dtype)
    check_pair(name, logits, targets, names)
    return targets


def _check_classes(logits: Any, targets: Any) -> None:
    name = "softmax_cross_entropy"
    check_one_library(name, logits=logits, targets=targets)
    if is_inexact(targets.dtype) and targets.ndim == logits.ndim - 1:
        raise TypeError(
            f"{name} expects integer labels, got {targets.dtype} of shape {tuple(targets.shape)}; cast them"
        )
    check_alike(name, logits=logits, targets=targets if is_inexact(targets.dtype) else None)
    check_real(name, logits)
    if is_inexact(targets.dtype):
        _check_same_shape(name, logits, targets)
    elif "int" not in str(targets.dtype):
        raise TypeError(f"{name} expects integer labels or probabilities as targets, got {targets.dtype}")
    elif not logits.ndim or logits.shape[:-1] != targets.shape:
        raise ValueError(
            f"{name} expects logits of shape (..., classes) and labels of shape (...), got {tuple(logits.shape)} "
            f"and {tuple(targets.shape)}"
        )
    else:
        _check_labels(name, strip(targets), logits.shape[-1], logits.shape)


def _check_labels(name: str, labels: Any, classes: int, shape: Any) -> None:
    """Refuse labels out of range where looking at them costs no wait: on the host, as NumPy arrays."""
    if device_of(labels) == CPU and labels.size and not 0 <= labels.min() <= labels.max() < classes:
        raise ValueError(
            f"{name} expects labels from 0 to {classes - 1} with logits of shape {tuple(shape)}, got labels from "
            f"{labels.min()} to {labels.max()}"
        )
