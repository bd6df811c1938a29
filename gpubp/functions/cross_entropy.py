"""Losses of classification, from logits: cross-entropies and the Kullback-Leibler divergence.

A weighted mean is Σ w loss / Σ w. Where that is 0 / 0, as for a batch of ignored labels, it is 0 and so is the gradient
of the logits.
"""

# ruff: noqa: D103  (a fused function has the docstring of its reference)

from __future__ import annotations

from typing import Any, NamedTuple

from ..array import strip
from ..boundary import is_inexact
from ..fused import fused
from ..namespace import array_namespace
from .checks import check_alike, check_one_library, check_range, check_real
from .loss import FLOAT32, check_labels, check_pair, check_reduction, check_same_shape, count, reduced, shared
from .softmax import _log_softmax

# -- two classes


def _binary_cross_entropy(
    logits: Any,
    targets: Any,
    /,
    weights: Any = None,
    pos_weight: Any = None,
    *,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> Any:
    """Mean of -t log σ(z) - (1 - t) log(1 - σ(z)), from the logits z, exact where σ(z) rounds to 0 or 1.

    Parameters
    ----------
    logits
        Real array of any shape.
    targets
        Probabilities of the positive class, of the same shape and dtype; or labels 0 and 1, integer or boolean.
    weights
        A weight for each element, of the shape and dtype of `logits`.
    pos_weight
        A factor of the term of the positive class: a number, or an array of the dtype of `logits` and of shape (), or
        (n,) for logits of shape (..., n).
    label_smoothing
        The share ε, from 0 to 1, of targets mixed with ½: (1 - ε) t + ε / 2.
    reduction
        ``"mean"``, weighted if there are weights; ``"sum"``; or ``"none"`` for one value an element.

    Raises
    ------
    TypeError
        If the arrays are of several libraries or floating-point dtypes.
    ValueError
        If the shapes do not fit, there is no element to take the mean of, an option is out of range, or (NumPy only) a
        label is neither 0 nor 1.

    Notes
    -----
    The weighted mean is divided by the sum of `weights`, as in `softmax_cross_entropy`; PyTorch divides this one by
    the number of elements.
    """
    t = _check_binary(logits, targets, weights, pos_weight, label_smoothing, reduction)
    xp = array_namespace(logits, t, weights, pos_weight)
    zero = xp.zeros_like(logits)
    positive = xp.multiply(t, xp.logaddexp(-logits, zero))
    if pos_weight is not None:
        positive = xp.multiply(positive, pos_weight)
    losses = xp.add(positive, xp.multiply(1 - t, xp.logaddexp(logits, zero)))
    return _weighted(xp, losses if weights is None else xp.multiply(losses, weights), weights, reduction)[0]


@fused(_binary_cross_entropy, **FLOAT32)
def binary_cross_entropy(
    xp: Any,
    needs: Any,
    logits: Any,
    targets: Any,
    weights: Any = None,
    pos_weight: Any = None,
    /,
    *,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> Any:
    z, t = logits, _check_binary(logits, targets, weights, pos_weight, label_smoothing, reduction)
    e = xp.exp(xp.where(z < 0, z, -z))
    if pos_weight is None:
        losses = xp.where(z < 0, -z * t, z * (1 - t)) + xp.log1p(e)
    else:
        losses = pos_weight * t * (xp.where(z < 0, -z, 0.0) + xp.log1p(e))
        losses = losses + (1 - t) * (xp.where(z < 0, 0.0, z) + xp.log1p(e))
    out, total = _weighted(xp, losses if weights is None else losses * weights, weights, reduction)
    return out, (z, t, weights, pos_weight, total, (losses, out) if len(needs) > 2 and needs[2] else None)


@binary_cross_entropy.backward
def binary_cross_entropy_backward(
    xp: Any, needs: Any, g: Any, residuals: Any, *, label_smoothing: float = 0.0, reduction: str = "mean"
) -> Any:
    z, t, weights, pos_weight, total, of_weights = residuals
    g = shared(g, z.shape, reduction) if total is None else g / total
    each = g if weights is None else g * weights
    e = xp.exp(xp.where(z < 0, z, -z))
    p = xp.where(z < 0, e, 1.0) / (1 + e)
    dT = dW = dP = None
    if pos_weight is None:
        dZ = each * (p - t)
        if needs[1]:
            dT = -each * z
    else:
        absent = xp.where(z < 0, 1.0, e) / (1 + e)
        dZ = each * ((1 - t) * p - pos_weight * t * absent)
        minus_log_p = xp.where(z < 0, -z, 0.0) + xp.log1p(e)
        if needs[1]:
            dT = each * (pos_weight * minus_log_p - (xp.where(z < 0, 0.0, z) + xp.log1p(e)))
        if len(needs) > 3 and needs[3]:
            dP = each * t * minus_log_p
            dP = xp.sum(dP, axis=tuple(range(z.ndim - pos_weight.ndim))) if z.ndim > pos_weight.ndim else dP
    if of_weights is not None:
        losses, out = of_weights
        dW = g * (losses if total is None else losses - out)
    return dZ, None if dT is None else (1 - label_smoothing) * dT, dW, dP


def _check_binary(
    logits: Any, targets: Any, weights: Any, pos_weight: Any, label_smoothing: float, reduction: str
) -> Any:
    """Give the targets in the dtype of the logits, smoothed."""
    name, names = "binary_cross_entropy", ("logits", "targets")
    check_smoothing(name, label_smoothing)
    check_reduction(name, reduction)
    if not is_inexact(targets.dtype):
        check_one_library(name, logits=logits, targets=targets)
        check_range(name, "labels", strip(targets), 2, f"logits of shape {tuple(logits.shape)}")
        targets = array_namespace(targets).astype(targets, logits.dtype)
    check_pair(name, logits, targets, names)
    check_weights(name, logits, "weights", weights, logits.shape)
    if hasattr(pos_weight, "dtype"):
        check_weights(name, logits, "pos_weight", pos_weight, logits.shape[-1:] if pos_weight.ndim else ())
    return targets if not label_smoothing else (1 - label_smoothing) * targets + label_smoothing / 2


# -- several classes


def _softmax_cross_entropy(
    logits: Any,
    targets: Any,
    /,
    weights: Any = None,
    class_weights: Any = None,
    *,
    label_smoothing: float = 0.0,
    ignore_index: int | None = None,
    reduction: str = "mean",
) -> Any:
    """Mean over the examples of -Σ t log softmax(z), from the logits z, without overflow.

    Parameters
    ----------
    logits
        Real array of shape (..., classes).
    targets
        Class labels from 0 to classes - 1, an integer array of shape (...); or probabilities (one-hot vectors
        among them), of the shape and dtype of `logits`.
    weights
        A weight for each example, of shape (...) and the dtype of `logits`.
    class_weights
        A factor of the term of each class, of shape (classes,) and the dtype of `logits`. With labels, those of the
        examples' classes also count in the weighted mean.
    label_smoothing
        The share ε, from 0 to 1, of targets mixed with equal probabilities: (1 - ε) t + ε / classes.
    ignore_index
        A label, in range or not, of examples that are left out: they cost nothing and do not count in the mean.
    reduction
        ``"mean"``, weighted if there are weights of examples or labels of weighted classes; ``"sum"``; or ``"none"``
        for one value an example.

    Raises
    ------
    TypeError
        If the arrays are of several libraries or floating-point dtypes, or the labels are boolean.
    ValueError
        If the shapes do not fit, there is no example to take the mean of, an option is out of range, or (NumPy only)
        a label is out of range.

    Notes
    -----
    On a device the range of labels is not checked, as that would cost a wait; `gpubp.fit` does it beforehand, on
    the host. Szegedy, Vanhoucke, Ioffe, Shlens, Wojna, "Rethinking the Inception architecture for computer vision",
    2016, section 7, for label smoothing.
    """
    check_reduction("softmax_cross_entropy", reduction)
    rows = _rows(logits, targets, weights, class_weights, label_smoothing, ignore_index)
    xp = array_namespace(rows.losses, weights)
    return _weighted(xp, *_of_weights(xp, rows, weights), reduction)[0]


@fused(_softmax_cross_entropy, **FLOAT32)
def softmax_cross_entropy(
    xp: Any,
    needs: Any,
    logits: Any,
    targets: Any,
    weights: Any = None,
    class_weights: Any = None,
    /,
    *,
    label_smoothing: float = 0.0,
    ignore_index: int | None = None,
    reduction: str = "mean",
) -> Any:
    check_reduction("softmax_cross_entropy", reduction)
    rows = _rows(logits, targets, weights, class_weights, label_smoothing, ignore_index)
    out, total = _weighted(xp, *_of_weights(xp, rows, weights), reduction)
    return out, (rows, weights, class_weights, out, total)


@softmax_cross_entropy.backward
def softmax_cross_entropy_backward(
    xp: Any,
    needs: Any,
    g: Any,
    residuals: Any,
    *,
    label_smoothing: float = 0.0,
    ignore_index: int | None = None,
    reduction: str = "mean",
) -> Any:
    rows, weights, class_weights, out, total = residuals
    g = shared(g, rows.losses.shape, reduction) if total is None else g / total
    each = g if weights is None else g * weights
    if rows.kept is not None:
        each = xp.where(rows.kept, each, xp.zeros_like(each))
    each = xp.expand_dims(each, axis=-1) if each.ndim else each

    t = rows.targets if rows.hit is None else xp.astype(rows.hit, rows.log_p.dtype)
    smooth = _smoothed(t, label_smoothing)
    q = smooth if class_weights is None else smooth * class_weights
    p = xp.exp(rows.log_p)
    if rows.hit is None or class_weights is not None:
        p = p * xp.sum(q, axis=-1, keepdims=True)
    dZ = each * (p - q)

    dT = dW = dC = None
    if needs[1]:
        dT = (label_smoothing - 1) * each * (rows.log_p if class_weights is None else rows.log_p * class_weights)
    if len(needs) > 2 and needs[2]:
        mean = 0.0 if total is None else out if rows.shares is None else out * rows.shares
        dW = g * (rows.losses - mean)
    if len(needs) > 3 and needs[3]:
        dC = -each * (smooth * rows.log_p if rows.hit is None or total is None else smooth * rows.log_p + out * t)
        dC = xp.sum(dC, axis=tuple(range(dC.ndim - 1))) if dC.ndim > 1 else dC
    return dZ, dT, dW, dC


class _Rows(NamedTuple):
    """The examples before their weights."""

    log_p: Any
    losses: Any
    shares: Any  # in the weighted mean, apart from the examples' own weights; None where all are 1
    targets: Any
    kept: Any  # which examples are not left out; None for all
    labels: Any  # as int64; None where the targets are probabilities

    @property
    def hit(self) -> Any:
        """Which class is the label's, as booleans of the shape of the logits."""
        if self.labels is None:
            return None
        xp = array_namespace(self.labels)
        classes = xp.arange(self.log_p.shape[-1], dtype=self.labels.dtype, device=self.labels.device)
        return xp.expand_dims(self.labels, axis=-1) == classes


def _rows(
    logits: Any, targets: Any, weights: Any, class_weights: Any, label_smoothing: float, ignore_index: int | None
) -> _Rows:
    _check_classes(logits, targets, weights, class_weights, label_smoothing, ignore_index)
    xp = array_namespace(logits, targets, weights, class_weights)
    log_p = _log_softmax(logits)
    weighted = log_p if class_weights is None else xp.multiply(log_p, class_weights)
    if is_inexact(targets.dtype):
        losses = -xp.sum(xp.multiply(weighted, _smoothed(targets, label_smoothing)), axis=-1)
        return _Rows(log_p, losses, None, targets, None, None)

    labels = xp.astype(targets, xp.int64)  # 8 bits may not count all classes, nor hold the label to ignore
    kept = None if ignore_index is None else labels != ignore_index
    labels = labels if kept is None else xp.where(kept, labels, 0)
    shape = tuple(logits.shape)
    check_range("softmax_cross_entropy", "labels", strip(labels), shape[-1], f"logits of shape {shape}")
    losses = -xp.squeeze(xp.take_along_axis(weighted, xp.expand_dims(labels, axis=-1), axis=-1), axis=-1)
    if label_smoothing:
        rest = xp.sum(weighted, axis=-1) * (label_smoothing / logits.shape[-1])
        losses = (1 - label_smoothing) * losses - rest
    shares = None
    if class_weights is not None:
        shares = xp.reshape(xp.take(class_weights, xp.reshape(labels, (-1,)), axis=0), labels.shape)
    if kept is not None:
        losses = xp.where(kept, losses, 0.0)
        shares = xp.astype(kept, log_p.dtype) if shares is None else xp.where(kept, shares, 0.0)
    return _Rows(log_p, losses, shares, targets, kept, labels)


def _smoothed(targets: Any, label_smoothing: float) -> Any:
    """Mix distributions over the classes with the even one."""
    if not label_smoothing:
        return targets
    return (1 - label_smoothing) * targets + label_smoothing / targets.shape[-1]


def _of_weights(xp: Any, rows: _Rows, weights: Any) -> tuple[Any, Any]:
    """Return the examples' losses and their shares in the mean, with the weights in both."""
    if weights is None:
        return rows.losses, rows.shares
    return xp.multiply(rows.losses, weights), weights if rows.shares is None else xp.multiply(rows.shares, weights)


def _check_classes(
    logits: Any, targets: Any, weights: Any, class_weights: Any, label_smoothing: float, ignore_index: int | None
) -> None:
    name = "softmax_cross_entropy"
    check_one_library(name, logits=logits, targets=targets)
    if is_inexact(targets.dtype) and targets.ndim == logits.ndim - 1:
        raise TypeError(
            f"{name} expects integer labels, got {targets.dtype} of shape {tuple(targets.shape)}; cast them"
        )
    check_alike(name, logits=logits, targets=targets if is_inexact(targets.dtype) else None)
    check_real(name, logits)
    check_smoothing(name, label_smoothing)
    if is_inexact(targets.dtype):
        check_same_shape(name, logits, targets)
        if ignore_index is not None:
            raise ValueError(f"{name} ignores a label, got ignore_index={ignore_index} with probabilities as targets")
    elif "int" not in str(targets.dtype):
        raise TypeError(f"{name} expects integer labels or probabilities as targets, got {targets.dtype}")
    else:
        check_labels(name, logits, targets)
    check_weights(name, logits, "weights", weights, logits.shape[:-1])
    check_weights(name, logits, "class_weights", class_weights, logits.shape[-1:])


# -- distributions


def _kl_divergence(logits: Any, targets: Any, /, *, reduction: str = "mean") -> Any:
    """Mean over the examples of Σ t (log t - log softmax(z)), the divergence of the prediction from the targets t.

    Parameters
    ----------
    logits
        Real array of shape (..., classes). Log-probabilities are logits too, as the softmax leaves them what they are.
    targets
        Probabilities, of the same shape and dtype; where one is 0 its term is 0, and so is its derivative.
    reduction
        ``"mean"``, ``"sum"``, or ``"none"`` for one value an example.

    Raises
    ------
    TypeError
        If the arrays are of several libraries or dtypes.
    ValueError
        If the shapes differ, or there is no example to take the mean of.

    Notes
    -----
    Kullback, Leibler, "On information and sufficiency", 1951. The mean is PyTorch's ``"batchmean"``.
    """
    return _divergence(logits, targets, reduction)[0]


@fused(_kl_divergence, **FLOAT32)
def kl_divergence(xp: Any, needs: Any, logits: Any, targets: Any, /, *, reduction: str = "mean") -> Any:
    out, *residuals = _divergence(logits, targets, reduction)
    return out, (*residuals, targets)


@kl_divergence.backward
def kl_divergence_backward(xp: Any, needs: Any, g: Any, residuals: Any, *, reduction: str = "mean") -> Any:
    log_q, gap, targets = residuals
    g = shared(g, targets.shape[:-1], reduction)
    g = xp.expand_dims(g, axis=-1) if g.ndim else g
    dZ = dT = None
    if needs[0]:
        dZ = g * (xp.exp(log_q) * xp.sum(targets, axis=-1, keepdims=True) - targets)
    if needs[1]:
        dT = xp.where(targets > 0, g * (gap + 1), 0.0)
    return dZ, dT


def _divergence(logits: Any, targets: Any, reduction: str) -> tuple[Any, Any, Any]:
    """Return the divergence, the logarithms of the prediction, and the distance of the targets' from them."""
    name = "kl_divergence"
    check_pair(name, logits, targets, ("logits", "targets"))
    check_reduction(name, reduction)
    xp = array_namespace(logits, targets)
    log_q = _log_softmax(logits)
    present = targets > 0
    gap = xp.where(present, xp.subtract(xp.log(xp.where(present, targets, 1.0)), log_q), 0.0)
    return reduced(xp.sum(xp.multiply(targets, gap), axis=-1), reduction), log_q, gap


# -- what they share


def _weighted(xp: Any, losses: Any, weights: Any, reduction: str) -> tuple[Any, Any]:
    """Reduce losses, which have been multiplied by their weights; also return the sum of these if it was divided by."""
    if weights is None or reduction != "mean":
        return reduced(losses, reduction), None
    count(losses.shape)
    total = xp.sum(weights)
    total = xp.where(total == 0, xp.ones_like(total), total)
    return xp.divide(xp.sum(losses), total), total


def check_weights(name: str, logits: Any, what: str, weights: Any, shape: Any) -> None:
    """Refuse weights of another shape, dtype or library; None is fine."""
    if weights is None:
        return
    check_alike(name, logits=logits, **{what: weights})
    if tuple(weights.shape) != tuple(shape):
        raise ValueError(
            f"{name} expects {what} of shape {tuple(shape)} with logits of shape {tuple(logits.shape)}, "
            f"got {tuple(weights.shape)}"
        )


def check_smoothing(name: str, label_smoothing: float) -> None:
    """Refuse what is no share."""
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"{name} expects label_smoothing from 0 to 1, got {label_smoothing}")
