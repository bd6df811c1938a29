"""One step of training, on the device: gradients, the optimizer, and what is left as it was if that does not step."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ..boundary import is_inexact
from ..device import is_array, raw_namespace
from ..nn.surgery import cells_of
from ..precision import mixed, scaled
from ..transform import value_and_grad
from ..tree import leaves, rebuild

__all__ = ["train_step"]

Batch = tuple[Any, ...]
Step = Callable[..., Any]  # of batches, to the loss


def train_step(
    net: Any, loss: Any, opt: Any, average: Any, precision: str | None, inputs: int, own: Step | None, skips: bool
) -> Step:
    """Make a step: a function of one batch or several, to the loss, which is NaN if something was not finite.

    Parameters
    ----------
    net, loss, opt, average, precision
        As in `fit`.
    inputs
        How many of a batch's arrays are the net's inputs.
    skips
        Whether NaN stands for every step that was not taken, or only for what stops the optimizer.
    own
        A step of the user's own.
    """
    step = _step(net, loss, opt, precision, inputs) if own is None else _own_step(net, opt, own)
    return _guarded(step, net, opt, average, skips)


def _step(net: Any, loss: Any, opt: Any, precision: str | None, inputs: int) -> Step:
    if precision is not None:
        loss = mixed(loss, precision, opt, argnums=range(inputs + 1))
    elif opt.scale is not None:
        loss = scaled(loss, opt)
    gradient = value_and_grad(loss)

    def step(*batches: Batch) -> Any:
        value, grads = gradient(net, *batches[0]) if len(batches) == 1 else _mean_gradient(gradient, net, batches)
        opt.step(grads, value)
        return value

    return step


def _own_step(net: Any, opt: Any, own: Step) -> Step:
    def step(batch: Batch) -> Any:
        value = own(net, opt, *batch)
        if getattr(value, "shape", None) == () and is_inexact(value.dtype):
            return value
        what = f" of dtype {value.dtype} and shape {tuple(value.shape)}" if is_array(value) else ""
        raise TypeError(f"a step must return the loss, a 0-d floating-point array, got {type(value).__name__}{what}")

    return step


def _mean_gradient(gradient: Callable[..., Any], net: Any, batches: tuple[Batch, ...]) -> tuple[Any, Any]:
    """The mean of losses and gradients over the rows of several batches, one batch after the other."""
    rows = [batch[0].shape[0] for batch in batches]
    mean: Any = None
    sums: list[Any] = []
    for batch, n in zip(batches, rows, strict=True):
        share = n / sum(rows)
        value, grads = gradient(net, *batch)
        parts = [share * g for g in leaves(grads)]
        mean = share * value if mean is None else mean + share * value
        sums = [a + b for a, b in zip(sums, parts, strict=True)] if sums else parts
    return mean, rebuild(grads, sums)


def _guarded(step: Step, net: Any, opt: Any, average: Any, skips: bool) -> Step:
    """Make a step that leaves the net's cells, too, as they were where the optimizer does not step."""
    cells = cells_of(net)

    def train_step(*batches: Batch) -> Any:
        before, skipped = [cell.value for cell in cells], opt.count("skipped")
        value = step(*batches)
        taken = opt.count("skipped") == skipped
        for cell, old in zip(cells, before, strict=True):
            cell.value = _either(taken, cell.value, old)
        fine = taken if skips else opt.count("failed") < 0
        if fine is not True:
            value = _either(fine, value, value * math.nan)
        if average is not None:
            average.update(value)
        return value

    return train_step


def _either(flag: Any, x: Any, other: Any) -> Any:
    """One of two arrays, by a boolean, or by a 0-d array of one without a wait for it."""
    if isinstance(flag, bool):
        return x if flag else other
    return raw_namespace(x).where(flag, x, other) if is_array(x) and x is not other else x
