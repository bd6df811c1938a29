"""Cross-entropy of labels on NumPy: whole rows at a time, as many as the processor's cache holds."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ...functions.cross_entropy import check_smoothing, check_weights, softmax_cross_entropy
from ...functions.loss import check_reduction
from .common import ndarray, ones, starts

_sum, _max = np.add.reduce, np.maximum.reduce

#: Elements of a block.
BLOCK = 32768

#: A labels' dtype by its character, and the unsigned one of its size, in which negative labels are huge.
_UNSIGNED = {c: np.dtype(c.upper()) for c in "bhilqBHI"}


def _forward(
    xp: Any, needs: Any, logits: Any, labels: Any, weights: Any = None, class_weights: Any = None, /, **options: Any
) -> Any:
    if type(logits) is not ndarray or type(labels) is not ndarray or logits.dtype.char not in "fd":
        return NotImplemented
    unsigned = _UNSIGNED.get(labels.dtype.char)
    if unsigned is None or logits.ndim != 2 or labels.shape != logits.shape[:1] or not logits.size:
        return NotImplemented
    if options or weights is not None or class_weights is not None:
        return _with_options(needs, logits, labels, weights, class_weights, **options)
    rows, classes = logits.shape
    if _max(labels.view(unsigned)) >= classes:
        return NotImplemented  # the definition says what is wrong
    e, total, picked, _ = _exponentials(logits, labels, None)
    out = _sum(np.log(total) - picked) / logits.dtype.type(rows)
    return out, (e, total, labels + starts(rows, classes), rows, None)


def _exponentials(logits: Any, labels: Any, mixed: Any) -> Any:
    """Return exp(logits - their maximum), its sums, those differences of the labels, their products with `mixed`."""
    rows, classes = logits.shape
    e = np.empty(logits.shape, logits.dtype)
    if logits.size <= BLOCK:
        return (e, *_part(logits, labels, mixed, e))
    step = max(1, BLOCK // classes)
    parts = [slice(k, k + step) for k in range(0, rows, step)]
    found = zip(*(_part(logits[part], labels[part], mixed, e[part]) for part in parts), strict=True)
    return (e, *(None if x[0] is None else np.concatenate(x) for x in found))


def _part(z: Any, labels: Any, mixed: Any, e: Any) -> Any:
    rows, classes = z.shape
    np.subtract(z, _max(z, 1, keepdims=True), e)
    picked = e.ravel().take(labels + starts(rows, classes))
    every = None if mixed is None else e.dot(mixed)
    np.exp(e, e)
    return e.dot(ones(z.dtype.char, classes)), picked, every


class _Options(NamedTuple):
    """What the backward pass needs beside the exponentials."""

    factor: Any  # of each example's loss in the sum
    mass: Any  # of each example: the sum of its targets, weighted by class
    own: Any  # of each example: its label's part in that
    mixed: Any  # of each class: the part of all examples in that; None without label smoothing


def _with_options(
    needs: Any,
    logits: Any,
    labels: Any,
    weights: Any,
    class_weights: Any,
    label_smoothing: float = 0.0,
    ignore_index: int | None = None,
    reduction: str = "mean",
) -> Any:
    name, (rows, classes), dtype = "softmax_cross_entropy", logits.shape, logits.dtype
    if reduction == "none" or any(needs[2:]):
        return NotImplemented
    check_reduction(name, reduction)
    check_smoothing(name, label_smoothing)
    check_weights(name, logits, "weights", weights, (rows,))
    check_weights(name, logits, "class_weights", class_weights, (classes,))
    kept = None if ignore_index is None else labels != ignore_index
    labels = labels if kept is None else np.where(kept, labels, 0)
    if _max(labels) >= classes or np.minimum.reduce(labels) < 0:
        return NotImplemented

    share = np.ones(rows, dtype) if weights is None else weights
    if kept is not None:
        share = share * kept
    of_label = ones(dtype.char, rows) if class_weights is None else class_weights.take(labels)
    mixed = None
    if label_smoothing:
        every = ones(dtype.char, classes) if class_weights is None else class_weights
        mixed = every * dtype.type(label_smoothing / classes)
    e, total, picked, sums = _exponentials(logits, labels, mixed)
    log_total = np.log(total)
    own = of_label * dtype.type(1 - label_smoothing)
    losses, mass = own * (log_total - picked), own
    if mixed is not None:
        in_all = _sum(mixed)
        losses, mass = losses + (in_all * log_total - sums), own + in_all
    divisor = dtype.type(1)
    if reduction == "mean":
        if weights is None and class_weights is None and kept is None:
            divisor = dtype.type(rows)
        else:
            divisor = _sum(share * of_label) or divisor
    losses = losses * share if kept is None else np.where(kept, losses, 0) * share
    out = _sum(losses) / divisor
    return out, (e, total, labels + starts(rows, classes), divisor, _Options(share, mass, own, mixed))


def _backward(xp: Any, needs: Any, g: Any, residuals: Any, **_: Any) -> Any:
    e, total, at, divisor, options = residuals
    g = g / divisor
    if options is None:
        dZ = e * (g / total)[:, None]
        flat = dZ.ravel()
        flat[at] -= g
        return dZ, None
    factor = options.factor * g
    dZ = e * (factor * options.mass / total)[:, None]
    if options.mixed is not None:
        _subtract_outer(dZ, factor, options.mixed)
    flat = dZ.ravel()
    flat[at] -= factor * options.own
    return dZ, None


def _subtract_outer(x: Any, u: Any, v: Any) -> None:
    """Subtract the outer product of u and v from x, in place."""
    step = max(1, BLOCK // len(v))
    for k in range(0, len(u), step):
        part = x[k : k + step]
        np.subtract(part, u[k : k + step, None] * v, part)


softmax_cross_entropy.override("numpy", _forward, _backward)
