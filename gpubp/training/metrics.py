"""Metrics: what a net's outputs are worth, summed where they are and read once for a report.

A metric is two functions. ``sums`` reduces a batch, on its device and without a wait, to a few sums; those of the
batches add up; ``result`` turns the totals, read once, into the figure. So a report is of all examples alike, whatever
the sizes of the batches, where a mean of the batches' figures would be wrong: of F1 and R², for example, always.

Classes are told from the shapes. Beside an output (..., classes), a target is labels (...), integers, or one-hot (or
probability) vectors (..., classes), whose largest counts. An output (n,) or (..., 1) holds logits of two classes, and
its target is of the same shape, 0 or 1.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..array import strip
from ..boundary import is_inexact, scatter
from ..data.checks import check_at_least
from ..device import CPU, Device, device_of, is_array, move, raw_namespace, to_numpy
from ..dtypes import widened
from ..functions.checks import check_one_library, check_range, check_real
from ..functions.cross_entropy import softmax_cross_entropy
from ..state import State

__all__ = [
    "Metric",
    "Totals",
    "accuracy",
    "confusion",
    "f1",
    "mae",
    "mse",
    "perplexity",
    "precision",
    "r2",
    "recall",
    "resolve",
    "rmse",
    "top_k",
]

Sums = tuple[Any, ...]


def _added(old: Sums, new: Sums) -> Sums:
    return tuple(map(operator.add, old, new))


@dataclass(frozen=True)
class Metric:
    """A figure of merit of all examples, from sums over them.

    Calling it measures outputs and targets at hand.

    Parameters
    ----------
    name
        What reports call it.
    sums
        ``sums(output, target)`` gives a tuple of arrays, whose shapes do not depend on the size of the batch, and
        numbers, without a host read.
    result
        ``result(*totals)`` gives a float or an array, from NumPy's float64 arrays on the host.
    merge
        ``merge(totals, sums)`` gives the totals with those of one more batch: by default their sum. Zeros must be
        nothing to it.

    Examples
    --------
    >>> def near(output, target):
    ...     return np.sum(abs(output - target) < 1), target.shape[0]
    >>> within_1 = bp.metrics.Metric("within_1", near, lambda hits, n: hits / n)
    >>> float(within_1(np.array([0.2, 3.0]), np.array([0.0, 1.0])))
    0.5
    """

    name: str
    sums: Callable[[Any, Any], Sums]
    result: Callable[..., Any]
    merge: Callable[[Sums, Sums], Sums] = _added

    def __call__(self, output: Any, target: Any) -> Any:
        """Measure all examples at once."""
        totals = Totals([self])
        totals.add(output, target)
        return totals.read()[self.name]

    def of(self, k: int) -> Metric:
        """Return the same metric of output and target `k` of a net that gives several."""

        def sums(output: Any, target: Any) -> Sums:
            if any(not isinstance(x, tuple) or len(x) <= k for x in (output, target)):
                given = " and ".join(_count(x) for x in (output, target))
                raise ValueError(f"{self.name}[{k}] is of output {k} and target {k}, counted from 0; got {given}")
            return self.sums(output[k], target[k])

        return replace(self, name=f"{self.name}[{k}]", sums=sums)


class Totals:
    """Sums of several metrics, added up on the device and read all at once.

    `add` and `mean` wait for nothing and may stand in a step that is captured. They add in float64 where the library
    has it, so that no count is lost.

    Parameters
    ----------
    metrics
        Names, as `resolve` takes them, and metrics.

    Raises
    ------
    TypeError, ValueError
        If there is no such metric, or there are two of one name.

    Examples
    --------
    >>> totals = bp.metrics.Totals(["accuracy", "top2"])
    >>> totals.add(np.array([[0.1, 0.7, 0.2], [0.5, 0.1, 0.4]]), np.array([1, 2]))
    >>> totals.read()
    {'accuracy': 0.5, 'top2': 1.0}
    """

    def __init__(self, metrics: Iterable[str | Metric] = ()) -> None:
        given: Any = metrics
        if isinstance(given, str) or not isinstance(given, Iterable):
            advice = f" alone: write [{given!r}]" if isinstance(given, str | Metric) else ""
            raise TypeError(f"metrics must be a list or tuple, got {metrics!r}{advice}")
        self.metrics = tuple(map(resolve, metrics))
        names = [metric.name for metric in self.metrics]
        if len(set(names)) < len(names):
            raise ValueError(f"two metrics have one name: {', '.join(names)}; dataclasses.replace(metric, name=...)")
        self._known = dict(zip(names, self.metrics, strict=True))
        self._cells: dict[str, tuple[State, ...]] = {}

    def add(self, output: Any, target: Any) -> None:
        """Add a batch's sums of every metric.

        Raises
        ------
        Exception
            What a metric raises, with a note of its name and the shapes.
        """
        output, target = _plain(output), _plain(target)
        for metric in self.metrics:
            try:
                self._add(metric, metric.sums(output, target))
            except Exception as error:
                shapes = f"an output of shape {_shape(output)} and a target of shape {_shape(target)}"
                error.add_note(f"in the metric {metric.name!r} of {shapes}; metrics=() leaves it out")
                raise

    def mean(self, name: str, value: Any, n: Any) -> None:
        """Add to the mean `name`, such as that of the loss, a batch's mean `value` of `n` examples."""
        value = _plain(value)
        xp = raw_namespace(value)
        self._add(self._mean(name), (xp.astype(value, _wide(xp)) * n, n))

    def read(self) -> dict[str, Any]:
        """Return the figures of what was added so far, by name, with one host read."""
        cells = [cell.value for cells in self._cells.values() for cell in cells]
        if not cells:
            return {}
        xp = raw_namespace(cells[0])
        flat = to_numpy(xp.concat([xp.reshape(x, (-1,)) for x in cells])).astype("float64", copy=False)
        parts = iter(np.split(flat, np.cumsum([math.prod(x.shape) for x in cells])[:-1]))
        found = {}
        for name, own in self._cells.items():
            totals = [next(parts).reshape(cell.value.shape) for cell in own]
            with np.errstate(all="ignore"):  # 0 / 0 where nothing was counted
                figure = self._known[name].result(*totals)
            found[name] = figure if np.ndim(figure) else float(figure)
        return found

    def clear(self) -> None:
        """Begin again."""
        for cells in self._cells.values():
            for cell in cells:
                cell.value = raw_namespace(cell.value).zeros_like(cell.value)

    def state(self) -> dict[str, Any]:
        """Return the totals by name, as arrays where they are."""
        return {f"{name} {k}": cell.value for name, own in self._cells.items() for k, cell in enumerate(own)}

    def load_state(self, state: Mapping[str, Any], device: Device | str = "cpu") -> None:
        """Take over what `state` returned, and go on from there with outputs on `device`."""
        found: dict[str, list[State]] = {}
        for key, total in state.items():
            found.setdefault(key.rpartition(" ")[0], []).append(State(move(total, device)))
        for name in found:
            if name not in self._known:
                self._mean(name)
        self._cells = {name: tuple(cells) for name, cells in found.items()}

    def _mean(self, name: str) -> Metric:
        if any(name == metric.name for metric in self.metrics):
            raise ValueError(f"there is a metric {name!r}, so no mean can have this name")
        return self._known.setdefault(name, Metric(name, lambda *_: (), _ratio))

    def _add(self, metric: Metric, sums: Sums) -> None:
        like = next((x for x in sums if is_array(x)), None)
        if like is None:
            raise TypeError(f"the metric {metric.name!r} must give a tuple with an array in it, got {sums!r:.80}")
        xp = raw_namespace(like)
        wide, device = _wide(xp), getattr(like, "device", None)
        new = tuple(
            xp.astype(x, wide) if is_array(x) else xp.full((), float(x), dtype=wide, device=device) for x in sums
        )
        cells = self._cells.get(metric.name)
        if cells is None:
            cells = self._cells[metric.name] = tuple(State(xp.zeros_like(x)) for x in new)
        old = tuple(cell.value for cell in cells)
        if [x.shape for x in old] != [x.shape for x in new]:
            before, now = ([tuple(x.shape) for x in sums] for sums in (old, new))
            raise ValueError(f"the sums of the metric {metric.name!r} had the shapes {before}, and now {now}")
        for cell, total in zip(cells, metric.merge(old, new), strict=True):
            cell.value = total


def resolve(metric: str | Metric) -> Metric:
    """Return the metric of a name.

    Parameters
    ----------
    metric
        A metric, or ``"accuracy"``; ``"top5"``, or any other number; ``"f1"``, ``"precision"`` and ``"recall"``, also
        with an average as in ``"f1_macro"``; ``"confusion"``; ``"mae"``, ``"mse"``, ``"rmse"``, ``"r2"``;
        ``"perplexity"``. ``"accuracy[1]"`` is of the second output and the second target.

    Raises
    ------
    TypeError, ValueError
        If it is none.
    """
    if isinstance(metric, Metric):
        return metric
    if not isinstance(metric, str):
        raise TypeError(f"a metric is a name or a metrics.Metric, got {type(metric).__name__}")
    name, output = _NAME.fullmatch(metric).groups()  # type: ignore[union-attr]  # any string matches
    kind, _, average = name.partition("_")
    if name in _PLAIN:
        found = _PLAIN[name]()
    elif kind in _AVERAGED and (average in _AVERAGES or name == kind):
        found = _AVERAGED[kind](average=average or "auto")
    elif re.fullmatch(r"top[1-9]\d*", name):
        found = top_k(int(name[3:]))
    else:
        raise ValueError(
            f"there is no metric {metric!r}: there are {', '.join(_PLAIN)}, top5 (or another number), and "
            f"{', '.join(_AVERAGED)}, as such or with {', '.join(f'_{a}' for a in _AVERAGES)}"
        )
    return found if output is None else found.of(int(output))


# -- classes


def accuracy(*, threshold: float = 0.0, ignore_index: int | None = None) -> Metric:
    """Give the share of examples (of steps of a sequence, too) whose class is right: the one of the largest output.

    Parameters
    ----------
    threshold
        Above which the only output of an example means class 1: 0 for logits, 0.5 for probabilities.
    ignore_index
        A label of examples that do not count, as in `gpubp.losses.softmax_cross_entropy`.
    """

    def sums(output: Any, target: Any) -> Sums:
        c = _Classes("accuracy", output, target, threshold, ignore_index)
        return c.xp.sum(c.hits), c.xp.sum(c.weights)

    return Metric("accuracy", sums, _ratio)


def top_k(k: int, *, ignore_index: int | None = None) -> Metric:
    """Give the share of examples whose class is among those of the `k` largest outputs.

    Of equal outputs those of lower classes count as larger, so that `k` = 1 is the accuracy.
    """
    check_at_least(1, "k of top_k", k)
    name = f"top{k}"

    def sums(output: Any, target: Any) -> Sums:
        c = _Classes(name, output, target, 0.0, ignore_index)
        if c.binary or c.classes < k:
            raise ValueError(f"{name} expects an output (..., classes) of at least {k}, got {_shape(output)}")
        xp, labels = c.xp, c.xp.expand_dims(c.labels, axis=-1)
        scores = xp.reshape(c.output, (-1, c.classes))
        own = xp.take_along_axis(scores, labels, axis=-1)
        lower = xp.arange(scores.shape[-1], dtype=labels.dtype, device=labels.device) < labels
        before = ~(scores <= own) | ((scores == own) & lower)  # a NaN is not among the largest
        among = xp.count_nonzero(before, axis=-1) < k
        return xp.sum(xp.where(among, c.weights, 0.0)), xp.sum(c.weights)

    return Metric(name, sums, _ratio)


def precision(*, average: str | None = "auto", threshold: float = 0.0, ignore_index: int | None = None) -> Metric:
    """Give the share of examples that are of a class among those said to be; averaged as by `f1`."""
    return _averaged("precision", lambda hit, said, _: (hit, said), average, threshold, ignore_index)


def recall(*, average: str | None = "auto", threshold: float = 0.0, ignore_index: int | None = None) -> Metric:
    """Give the share of examples said to be of a class among those that are; averaged as by `f1`."""
    return _averaged("recall", lambda hit, _, true: (hit, true), average, threshold, ignore_index)


def f1(*, average: str | None = "auto", threshold: float = 0.0, ignore_index: int | None = None) -> Metric:
    """Give the harmonic mean of precision and recall.

    Parameters
    ----------
    average
        ``"binary"``: of class 1 of two. ``"macro"``: the mean over the classes; ``"weighted"``: weighted by how many
        examples are of them. ``"micro"``: of the counts of all classes together. ``"auto"``: binary of two classes,
        else macro. None: an array of each class's.
    threshold, ignore_index
        As in `accuracy`.

    Notes
    -----
    As scikit-learn's: 0 / 0 counts as 0, and classes that no example is, or is said to be, of have no part in
    averages.
    """
    return _averaged("f1", lambda hit, said, true: (2 * hit, said + true), average, threshold, ignore_index)


def confusion(*, threshold: float = 0.0, ignore_index: int | None = None) -> Metric:
    """Give the counts of examples, int64 (classes, classes): a row for each true class, a column for each one said.

    Parameters
    ----------
    threshold, ignore_index
        As in `accuracy`.
    """

    def sums(output: Any, target: Any) -> Sums:
        c = _Classes("confusion", output, target, threshold, ignore_index)
        return (c.xp.reshape(c.count(c.labels * c.classes + c.said, c.weights, c.classes**2), (c.classes, c.classes)),)

    return Metric("confusion", sums, lambda counts: counts.astype("int64"))


def perplexity(*, ignore_index: int | None = None) -> Metric:
    """Give the exponential of the mean cross-entropy of logits, over all labels but ignored ones."""

    def sums(output: Any, target: Any) -> Sums:
        c = _Classes("perplexity", output, target, 0.0, ignore_index)
        if c.binary:
            raise ValueError(f"perplexity expects logits of shape (..., classes), got {_shape(output)}")
        xp, logits = c.xp, c.output
        if _shape(output) == _shape(target):
            losses = softmax_cross_entropy(logits, xp.astype(c.target, logits.dtype), reduction="none")
        else:
            losses = softmax_cross_entropy(logits, c.target, ignore_index=ignore_index, reduction="none")
        return xp.sum(xp.astype(losses, c.weights.dtype)), xp.sum(c.weights)

    return Metric("perplexity", sums, lambda total, n: np.exp(total / n))


class _Classes:
    """The classes of a batch's examples, in one axis: those said, the true ones, and how much each example counts."""

    def __init__(self, name: str, output: Any, target: Any, threshold: float, ignore_index: int | None) -> None:
        xp, output, target = _pair(name, output, target)
        shape, wanted = _shape(output), _shape(target)
        self.xp, self.output, self.target = xp, output, target
        self.binary = shape == wanted and (len(shape) == 1 or shape[-1:] == (1,))
        counted, wide = None, _wide(xp)
        if self.binary:
            self.classes, target = 2, xp.astype(target, wide)
            said, labels = output > threshold, target > 0.5
            if ignore_index is not None:
                counted = target != ignore_index
                target = xp.where(counted, target, 0.0)
            _check_two_classes(name, target)
        elif shape[-1:] > (1,) and (wanted == shape or (wanted == shape[:-1] and not is_inexact(target.dtype))):
            self.classes = shape[-1]
            said = xp.argmax(output, axis=-1)
            labels = xp.argmax(target, axis=-1) if wanted == shape else xp.astype(target, _wide(xp, "int"))
            if ignore_index is not None and wanted != shape:
                counted = labels != ignore_index
                labels = xp.where(counted, labels, 0)
            check_range(name, "labels", labels, self.classes, f"an output of shape {shape}")
        else:
            raise ValueError(
                f"{name} expects an output (..., classes) and integer labels (...) or vectors (..., classes), or of "
                f"two classes both (n,) or (..., 1); got an output of shape {shape} and a target of shape {wanted} and "
                f"dtype {target.dtype}"
            )
        self.said, self.labels = (xp.astype(xp.reshape(x, (-1,)), _wide(xp, "int")) for x in (said, labels))
        self.weights = (
            xp.ones_like(self.labels, dtype=wide) if counted is None else xp.astype(xp.reshape(counted, (-1,)), wide)
        )

    @property
    def hits(self) -> Any:
        return self.xp.where(self.said == self.labels, self.weights, 0.0)

    def count(self, index: Any, weights: Any, n: int) -> Any:
        return scatter(self.xp, (n,), index, weights)


def _check_two_classes(name: str, target: Any) -> None:
    """Refuse numbers that are no classes, where looking at them costs no wait."""
    if device_of(target) == CPU and target.size and not 0 <= target.min() <= target.max() <= 1:
        raise ValueError(
            f"{name} expects targets from 0 to 1 where there is one output, got some from {target.min()} to "
            f"{target.max()}; of numbers there are mae, rmse and r2"
        )


def _averaged(
    name: str, parts: Callable[..., Any], average: str | None, threshold: float, ignore_index: int | None
) -> Metric:
    if average not in (None, "auto", *_AVERAGES):
        raise ValueError(f"{name} expects average={', '.join(map(repr, _AVERAGES))}, 'auto' or None, got {average!r}")
    full = name if average in (None, "auto") else f"{name}_{average}"

    def sums(output: Any, target: Any) -> Sums:
        c = _Classes(full, output, target, threshold, ignore_index)
        if average == "binary" and c.classes > 2:
            raise ValueError(f"{full} is of two classes, got an output of shape {_shape(output)}: {name}_macro")
        of = [(c.labels, c.hits), (c.said, c.weights), (c.labels, c.weights)]
        return tuple(c.count(index, weights, c.classes) for index, weights in of)

    def result(hit: Any, said: Any, true: Any) -> Any:
        how = ("binary" if len(hit) == 2 else "macro") if average == "auto" else average
        if how == "micro":
            hit, said, true = map(np.sum, (hit, said, true))
        above, below = parts(hit, said, true)
        each = np.where(below > 0, above / below, 0.0 if np.any(true) else np.nan)
        if how in (None, "micro"):
            return each
        if how == "binary":
            return each[1]
        shares = true if how == "weighted" else said + true > 0
        return np.sum(shares * each) / np.sum(shares)

    return Metric(full, sums, result)


# -- numbers


def mae() -> Metric:
    """Give the mean of abs(output - target) over all elements."""
    return _of_errors("mae", lambda xp, e: xp.abs(e), _ratio)


def mse() -> Metric:
    """Give the mean of (output - target)² over all elements."""
    return _of_errors("mse", lambda xp, e: e * e, _ratio)


def rmse() -> Metric:
    """Give the root of the mean of (output - target)² over all elements."""
    return _of_errors("rmse", lambda xp, e: e * e, lambda total, n: np.sqrt(total / n))


def r2() -> Metric:
    """Give the coefficient of determination 1 - Σ (output - target)² / Σ (target - mean)², averaged over last axis.

    Of outputs (n,) or (..., 1) it is one, of (..., k) the mean of those of the k columns. Of a column whose targets are
    all equal it is 1 if they are met, else 0, and of less than two examples it is NaN, as scikit-learn's.

    Notes
    -----
    The sum about the mean is merged over batches as such (Chan, Golub, LeVeque, "Updating formulae and a pairwise
    algorithm for computing sample variances", 1979), not made of Σ target², which cancels where the mean is large.
    """

    def sums(output: Any, target: Any) -> Sums:
        xp, y, t = _numbers("r2", output, target)
        y, t = (xp.reshape(x, (-1, x.shape[-1] if x.ndim > 1 else 1)) for x in (y, t))
        n = t.shape[0]
        first = t[:1, :]  # of equal targets the mean is exactly theirs
        mean = xp.sum(first, axis=0) + xp.sum(t - first, axis=0) / max(n, 1)
        return n, mean, xp.sum((t - mean) ** 2, axis=0), xp.sum((y - t) ** 2, axis=0)

    def merge(old: Sums, new: Sums) -> Sums:
        (n, mean, spread, errors), (m, of_new, spread_of_new, errors_of_new) = old, new
        share, apart = m / raw_namespace(n).where(n + m > 0, n + m, 1.0), of_new - mean
        return n + m, mean + apart * share, spread + spread_of_new + apart**2 * n * share, errors + errors_of_new

    def result(n: Any, mean: Any, spread: Any, errors: Any) -> Any:
        each = np.where(spread > 0, 1 - errors / spread, np.where(errors > 0, 0.0, 1.0))
        return np.mean(each) if n > 1 else np.nan

    return Metric("r2", sums, result, merge)


def _of_errors(name: str, of: Callable[[Any, Any], Any], result: Callable[..., Any]) -> Metric:
    def sums(output: Any, target: Any) -> Sums:
        xp, y, t = _numbers(name, output, target)
        return xp.sum(of(xp, y - t)), math.prod(t.shape)

    return Metric(name, sums, result)


def _numbers(name: str, output: Any, target: Any) -> tuple[Any, Any, Any]:
    xp, y, t = _pair(name, output, target)
    if _shape(y) != _shape(t) or not y.ndim:
        raise ValueError(
            f"{name} expects an output and a target of one shape with an axis of examples, got {_shape(y)} and "
            f"{_shape(t)}; it does not broadcast"
        )
    return xp, *(xp.astype(x, _wide(xp)) for x in (y, t))


# -- parts


_PLAIN: dict[str, Callable[[], Metric]] = {
    "accuracy": accuracy,
    "confusion": confusion,
    "mae": mae,
    "mse": mse,
    "rmse": rmse,
    "r2": r2,
    "perplexity": perplexity,
}
_AVERAGED: dict[str, Callable[..., Metric]] = {"f1": f1, "precision": precision, "recall": recall}
_AVERAGES = ("binary", "macro", "micro", "weighted")
_NAME = re.compile(r"(.*?)(?:\[(\d+)\])?", re.DOTALL)


def _ratio(total: Any, n: Any) -> Any:
    return total / n


def _wide(xp: Any, kind: str = "float") -> Any:
    """float64 or int64; or what has 32 bits, where there is no other, as in JAX by default."""
    known = xp.__array_namespace_info__().dtypes(kind=("real floating", "signed integer"))
    return known.get(f"{kind}64", known[f"{kind}32"])


def _plain(x: Any) -> Any:
    """An output or target, or several, without what transforms know of it."""
    return tuple(map(_plain, x)) if isinstance(x, tuple | list) else strip(x)


def _shape(x: Any) -> Any:
    return [_shape(part) for part in x] if isinstance(x, tuple) else tuple(getattr(x, "shape", ()))


def _count(x: Any) -> str:
    return f"a tuple of {len(x)}" if isinstance(x, tuple) else "one array"


def _pair(name: str, output: Any, target: Any) -> tuple[Any, Any, Any]:
    """The namespace and both arrays, of dtypes that compare: no booleans, no 16-bit floats."""
    if isinstance(output, tuple) or isinstance(target, tuple):
        given = " and ".join(_count(x) for x in (output, target))
        raise ValueError(f"{name} is of one output and one target, got {given}; say which, as in '{name}[0]'")
    check_one_library(name, output=output, target=target)
    check_real(name, output)
    xp = raw_namespace(output)
    if "bool" in str(target.dtype):
        target = xp.astype(target, _wide(xp, "int"))
    return xp, widened(xp, output), widened(xp, target)
