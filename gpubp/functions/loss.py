"""Losses of regression, margins and directions, and what all losses share.

None broadcasts: what is compared must have the same shape. Each gives one scalar, unless told otherwise.
"""

# ruff: noqa: D103  (a fused function has the docstring of its reference)

from __future__ import annotations

import math
from typing import Any

from ..array import strip
from ..boundary import is_inexact
from ..device import CPU, device_of
from ..fused import fused
from ..namespace import array_namespace
from .checks import check_alike, check_one_library, check_range, check_real

#: Losses of 16-bit arrays are of float32, in which nothing overflows, and targets and weights may be, too.
FLOAT32: Any = {"float32_args": range(4), "float32_outs": (0,)}

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


@fused(_half_squared_error, **FLOAT32)
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


@fused(_mean_half_squared_error, **FLOAT32)
def mean_half_squared_error(xp: Any, needs: Any, y: Any, target: Any, /) -> Any:
    return _squares("mean_half_squared_error", y, target, 0.5 / count(y.shape[:1]))


def _squares(name: str, y: Any, target: Any, scale: float) -> Any:
    check_pair(name, y, target)
    d = y - target
    return array_namespace(d).sum(d * d) * scale, (d, 2.0 * scale)


@half_squared_error.backward
@mean_half_squared_error.backward
def _squares_backward(xp: Any, needs: Any, g: Any, residuals: Any) -> Any:
    d, scale = residuals
    dY = (g * scale) * d
    return dY, -dY if needs[1] else None


def _mse(y: Any, target: Any, /, *, reduction: str = "mean") -> Any:
    """Mean squared error over all elements.

    Parameters
    ----------
    y, target
        Real arrays of one shape and dtype.
    reduction
        ``"mean"``, ``"sum"``, or ``"none"`` for one value an element.

    Raises
    ------
    TypeError
        If the arrays are of several libraries or dtypes.
    ValueError
        If the shapes differ, or there is no element to take the mean of.
    """
    d = _difference("mse", y, target, reduction)
    return reduced(d * d, reduction)


@fused(_mse, **FLOAT32)
def mse(xp: Any, needs: Any, y: Any, target: Any, /, *, reduction: str = "mean") -> Any:
    d = _difference("mse", y, target, reduction)
    return reduced(d * d, reduction), (d, 2.0)


def _mae(y: Any, target: Any, /, *, reduction: str = "mean") -> Any:
    """Mean absolute error over all elements; the derivative where both agree is 0.

    Parameters
    ----------
    y, target
        Real arrays of one shape and dtype.
    reduction
        ``"mean"``, ``"sum"``, or ``"none"`` for one value an element.

    Raises
    ------
    TypeError
        If the arrays are of several libraries or dtypes.
    ValueError
        If the shapes differ, or there is no element to take the mean of.
    """
    d = _difference("mae", y, target, reduction)
    return reduced(array_namespace(d).abs(d), reduction)


@fused(_mae, **FLOAT32)
def mae(xp: Any, needs: Any, y: Any, target: Any, /, *, reduction: str = "mean") -> Any:
    d = _difference("mae", y, target, reduction)
    return reduced(xp.abs(d), reduction), (xp.sign(d), 1.0)


def _huber(y: Any, target: Any, /, *, delta: float = 1.0, reduction: str = "mean") -> Any:
    """Mean over all elements of half the squared error, and beyond an error of delta of delta (|error| - delta / 2).

    Parameters
    ----------
    y, target
        Real arrays of one shape and dtype.
    delta
        A positive error, beyond which the loss is linear.
    reduction
        ``"mean"``, ``"sum"``, or ``"none"`` for one value an element.

    Raises
    ------
    TypeError
        If the arrays are of several libraries or dtypes.
    ValueError
        If the shapes differ, there is no element to take the mean of, or delta is not positive.

    Notes
    -----
    Huber, "Robust estimation of a location parameter", 1964.
    """
    d = _difference("huber", y, target, reduction)
    clipped = _clipped(d, delta)
    return reduced(clipped * (d - 0.5 * clipped), reduction)


@fused(_huber, **FLOAT32)
def huber(xp: Any, needs: Any, y: Any, target: Any, /, *, delta: float = 1.0, reduction: str = "mean") -> Any:
    d = _difference("huber", y, target, reduction)
    clipped = _clipped(d, delta)
    return reduced(clipped * (d - 0.5 * clipped), reduction), (clipped, 1.0)


def _clipped(d: Any, delta: float) -> Any:
    if not delta > 0:
        raise ValueError(f"huber expects a positive delta, got {delta}")
    return array_namespace(d).clip(d, -delta, delta)


@mse.backward
@mae.backward
@huber.backward
def times_derivative(xp: Any, needs: Any, g: Any, residuals: Any, *, reduction: str = "mean", **_: Any) -> Any:
    derivative, factor = residuals
    dY = (shared(g, derivative.shape, reduction) * factor) * derivative
    return dY, -dY if needs[1] else None


def _difference(name: str, y: Any, target: Any, reduction: str) -> Any:
    check_pair(name, y, target)
    check_reduction(name, reduction)
    return y - target


# -- margins


def _hinge(y: Any, target: Any, /, *, reduction: str = "mean") -> Any:
    """Mean of max(0, 1 - t y) over all elements, for labels t of -1 and 1; the derivative at t y = 1 is 0.

    Parameters
    ----------
    y
        Real array of any shape.
    target
        Labels -1 and 1 of the same shape, of the same dtype or signed integers.
    reduction
        ``"mean"``, ``"sum"``, or ``"none"`` for one value an element.

    Raises
    ------
    TypeError
        If the arrays are of several libraries or floating-point dtypes, or the labels are unsigned or boolean.
    ValueError
        If the shapes differ, there is no element to take the mean of, or (NumPy only) an integer label is neither.

    Notes
    -----
    Cortes, Vapnik, "Support-vector networks", 1995.
    """
    target = _check_signs(y, target, reduction)
    xp = array_namespace(y, target)
    missing = 1 - xp.multiply(y, target)
    return reduced(xp.where(missing > 0, missing, 0.0), reduction)


@fused(_hinge, **FLOAT32)
def hinge(xp: Any, needs: Any, y: Any, target: Any, /, *, reduction: str = "mean") -> Any:
    target = _check_signs(y, target, reduction)
    missing = 1 - y * target
    active = missing > 0
    return reduced(xp.where(active, missing, 0.0), reduction), (active, y if needs[1] else None, target)


@hinge.backward
def hinge_backward(xp: Any, needs: Any, g: Any, residuals: Any, *, reduction: str = "mean") -> Any:
    active, y, target = residuals
    g = shared(g, active.shape, reduction)
    dY = xp.where(active, -g * target, 0.0)
    return dY, xp.where(active, -g * y, 0.0) if needs[1] else None


def _check_signs(y: Any, target: Any, reduction: str) -> Any:
    """Give the labels in the dtype of the scores."""
    check_reduction("hinge", reduction)
    check_one_library("hinge", y=y, target=target)
    if not is_inexact(target.dtype):
        labels = strip(target)
        if not str(labels.dtype).rpartition(".")[2].startswith("int"):
            raise TypeError(f"hinge expects labels -1 and 1, signed integers or floating-point, got {labels.dtype}")
        if device_of(labels) == CPU and labels.size and not (abs(labels) == 1).all():
            raise ValueError(f"hinge expects labels -1 and 1, got labels from {labels.min()} to {labels.max()}")
        target = array_namespace(target).astype(target, y.dtype)
    check_pair("hinge", y, target)
    return target


def _multiclass_hinge(scores: Any, labels: Any, /, *, reduction: str = "mean") -> Any:
    """Mean of max(0, 1 + the highest score of another class - the score of the label's class) over the examples.

    Parameters
    ----------
    scores
        Real array of shape (..., classes).
    labels
        Class labels from 0 to classes - 1, an integer array of shape (...).
    reduction
        ``"mean"``, ``"sum"``, or ``"none"`` for one value an example.

    Raises
    ------
    TypeError
        If the arrays are of several libraries, or the labels are no integers.
    ValueError
        If the shapes do not fit, there is no example to take the mean of, or (NumPy only) a label is out of range.

    Notes
    -----
    Crammer, Singer, "On the algorithmic implementation of multiclass kernel-based vector machines", 2001. Of several
    highest classes the first has the gradient; where the margin is exactly 1 it is 0.
    """
    return _margins(scores, labels, reduction)[0]


@fused(_multiclass_hinge, **FLOAT32)
def multiclass_hinge(xp: Any, needs: Any, scores: Any, labels: Any, /, *, reduction: str = "mean") -> Any:
    out, *residuals = _margins(scores, labels, reduction)
    return out, residuals


@multiclass_hinge.backward
def multiclass_hinge_backward(xp: Any, needs: Any, g: Any, residuals: Any, *, reduction: str = "mean") -> Any:
    active, hit, best = residuals
    g = xp.where(active, shared(g, active.shape, reduction), xp.zeros_like(g))
    classes = xp.arange(hit.shape[-1], dtype=best.dtype, device=best.device)
    signs = xp.astype(best == classes, g.dtype) - xp.astype(hit, g.dtype)
    return xp.expand_dims(g, axis=-1) * signs, None


def _margins(scores: Any, labels: Any, reduction: str) -> Any:
    """Return the reduced losses, where they are active, which class is the label's, and the best other class."""
    name = "multiclass_hinge"
    check_one_library(name, scores=scores, labels=labels)
    check_alike(name, scores=scores)
    check_real(name, scores)
    check_reduction(name, reduction)
    check_labels(name, scores, labels, "scores")
    check_range(name, "labels", strip(labels), scores.shape[-1], f"scores of shape {tuple(scores.shape)}")
    xp = array_namespace(scores, labels)
    at = xp.expand_dims(xp.astype(labels, xp.int64), axis=-1)  # 8 bits may not count all classes
    hit = xp.equal(at, xp.arange(scores.shape[-1], dtype=at.dtype, device=at.device))
    others = xp.where(hit, -math.inf, scores)
    best = xp.argmax(others, axis=-1, keepdims=True)
    own = xp.take_along_axis(scores, xp.astype(at, best.dtype), axis=-1)
    missing = xp.squeeze(1 + xp.take_along_axis(others, best, axis=-1) - own, axis=-1)
    active = missing > 0
    return reduced(xp.where(active, missing, 0.0), reduction), active, hit, best


# -- directions


def _cosine_embedding(
    y: Any, target: Any, /, labels: Any = None, *, margin: float = 0.0, reduction: str = "mean"
) -> Any:
    """Mean over the examples of 1 - cos(y, target); or for pairs that are to differ, of max(0, cos - margin).

    Parameters
    ----------
    y, target
        Real arrays of one shape (..., n) and dtype: embeddings to compare.
    labels
        Integers, or numbers of the same dtype, of shape (...): positive (1) for pairs that are to be alike, others (-1)
        for pairs that are to differ; all are alike without it.
    margin
        The cosine up to which pairs that are to differ cost nothing; at it the derivative is 0.
    reduction
        ``"mean"``, ``"sum"``, or ``"none"`` for one value an example.

    Raises
    ------
    TypeError
        If the arrays are of several libraries or dtypes.
    ValueError
        If the shapes do not fit, or there is no example to take the mean of.

    Notes
    -----
    A vector of zeros has cosine 0 with every other, and its gradient is that of a vector divided by 1, not by its
    norm.
    """
    _check_embeddings(y, target, labels, reduction)
    xp = array_namespace(y, target, labels)
    (u, _), (v, _) = _direction(xp, y), _direction(xp, target)
    return reduced(_of_cosine(xp, xp.sum(u * v, axis=-1), labels, margin)[0], reduction)


@fused(_cosine_embedding, **FLOAT32)
def cosine_embedding(
    xp: Any, needs: Any, y: Any, target: Any, labels: Any = None, /, *, margin: float = 0.0, reduction: str = "mean"
) -> Any:
    _check_embeddings(y, target, labels, reduction)
    (u, length), (v, other) = _direction(xp, y), _direction(xp, target)
    cosine = xp.sum(u * v, axis=-1)
    losses, slope = _of_cosine(xp, cosine, labels, margin)
    return reduced(losses, reduction), (u, length, v, other, cosine, slope)


@cosine_embedding.backward
def cosine_embedding_backward(
    xp: Any, needs: Any, g: Any, residuals: Any, *, margin: float = 0.0, reduction: str = "mean"
) -> Any:
    u, length, v, other, cosine, slope = residuals
    g = xp.expand_dims(shared(g, cosine.shape, reduction) * slope, axis=-1)
    cosine = xp.expand_dims(cosine, axis=-1)
    dY = g * (v - cosine * u) / length if needs[0] else None
    dT = g * (u - cosine * v) / other if needs[1] else None
    return dY, dT, xp.zeros_like(slope) if len(needs) > 2 and needs[2] else None


def _direction(xp: Any, x: Any) -> tuple[Any, Any]:
    """Return x divided by its length, and that; of a vector of zeros the length is taken as 1."""
    square = xp.sum(x * x, axis=-1, keepdims=True)
    length = xp.sqrt(xp.where(square == 0, 1.0, square))
    return x / length, length


def _of_cosine(xp: Any, cosine: Any, labels: Any, margin: float) -> tuple[Any, Any]:
    """Return the losses and their derivatives, which are -1, 0 and 1."""
    if labels is None:
        return 1 - cosine, -xp.ones_like(cosine)
    alike, near = labels > 0, cosine > margin
    excess = xp.where(near, cosine - margin, 0.0)
    return xp.where(alike, 1 - cosine, excess), xp.where(alike, -1.0, xp.astype(near, cosine.dtype))


def _check_embeddings(y: Any, target: Any, labels: Any, reduction: str) -> None:
    name = "cosine_embedding"
    check_pair(name, y, target)
    check_reduction(name, reduction)
    check_one_library(name, y=y, labels=labels)
    if labels is not None and is_inexact(labels.dtype):
        check_alike(name, y=y, labels=labels)
    if not y.ndim or (labels is not None and tuple(labels.shape) != tuple(y.shape[:-1])):
        given = "" if labels is None else f" and {tuple(labels.shape)}"
        raise ValueError(f"{name} expects y of shape (..., n) and labels of shape (...), got {tuple(y.shape)}{given}")


# -- one number of many


REDUCTIONS = ("mean", "sum", "none")


def check_reduction(name: str, reduction: str) -> None:
    """Refuse what is none."""
    if reduction not in REDUCTIONS:
        raise ValueError(f"{name} expects reduction='mean', 'sum' or 'none', got {reduction!r}")


def reduced(losses: Any, reduction: str) -> Any:
    """Give the mean or the sum of losses, or themselves."""
    if reduction == "none":
        return losses
    total = array_namespace(losses).sum(losses)
    return total / count(losses.shape) if reduction == "mean" else total


def shared(g: Any, shape: Any, reduction: str) -> Any:
    """Give the cotangent of each loss, or of all of them, from that of `reduced`."""
    return g / count(shape) if reduction == "mean" else g


# -- checks


def count(shape: Any) -> int:
    """Count the elements of a shape over which a mean is taken; there must be at least one."""
    n = int(math.prod(shape))
    if not n:
        raise ValueError(f"a mean over no elements: shape {tuple(shape)}")
    return n


def check_pair(name: str, y: Any, target: Any, names: tuple[str, str] = ("y", "target")) -> None:
    """Refuse arrays that differ in shape, dtype or library, or are complex."""
    check_alike(name, **dict(zip(names, (y, target), strict=True)))
    check_real(name, y)
    check_same_shape(name, y, target)


def check_same_shape(name: str, y: Any, target: Any) -> None:
    """Refuse arrays that differ in shape."""
    if y.shape != target.shape:
        raise ValueError(
            f"{name} expects two arrays of one shape, got {tuple(y.shape)} and {tuple(target.shape)}; "
            "it does not broadcast"
        )


def check_labels(name: str, scores: Any, labels: Any, what: str = "logits") -> None:
    """Refuse what is no label of every example: an integer of the shape of the scores but the last axis."""
    if "int" not in str(labels.dtype):
        raise TypeError(f"{name} expects integer labels, got {labels.dtype}")
    if not scores.ndim or scores.shape[:-1] != labels.shape:
        raise ValueError(
            f"{name} expects {what} of shape (..., classes) and labels of shape (...), got {tuple(scores.shape)} "
            f"and {tuple(labels.shape)}"
        )
