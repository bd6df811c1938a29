"""One step of training, on the device: gradients, the optimizer, and what is left as it was if that does not step."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ..device import is_array, raw_namespace
from ..nn.surgery import cells_of
from ..precision import mixed, scaled
from ..transform import value_and_grad
from ..tree import leaves, rebuild

__all__ = ["own_step", "step_of"]

Batch = tuple[Any, ...]
Step = Callable[..., Any]  # of batches, to the loss: NaN if the step was not taken


def step_of(net: Any, loss: Any, opt: Any, average: Any, precision: str | None, inputs: int) -> Step:
    """Make the step that adds up the gradients of one batch or several and gives them to the optimizer.

    Parameters
    ----------
    net, loss, opt, average, precision
        As in `fit`.
    inputs
        How many of a batch's arrays are the net's inputs.
    """
    if precision is not None:
        loss = mixed(loss, precision, opt, argnums=range(inputs + 1))
    elif opt.scale is not None:
        loss = scaled(loss, opt)
    gradient = value_and_grad(loss)

    def step(*batches: Batch) -> Any:
        value, grads = gradient(net, *batches[0]) if len(batches) == 1 else _mean_gradient(gradient, net, batches)
        opt.step(grads)
        return value

    return _guarded(step, net, opt, average)


def own_step(net: Any, step: Callable[..., Any], opt: Any, average: Any) -> Step:
    """Make the step of one that the user wrote."""
    return _guarded(lambda batch: step(net, opt, *batch), net, opt, average)


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


def _guarded(step: Step, net: Any, opt: Any, average: Any) -> Step:
    """Make a step that leaves the net's cells, too, as they were where the optimizer does not step."""
    cells = cells_of(net)

    def train_step(*batches: Batch) -> Any:
        before, skipped = [cell.value for cell in cells], _skipped(opt)
        value = step(*batches)
        if average is not None:
            average.update()
        if skipped is None:
            return value
        xp, taken = raw_namespace(value), _skipped(opt) == skipped
        for cell, old in zip(cells, before, strict=True):
            if cell.value is not old and is_array(old):
                cell.value = xp.where(taken, cell.value, old)
        return xp.where(taken, value, value * math.nan)

    return train_step


def _skipped(opt: Any) -> Any:
    return opt._store.count("skipped") if opt.nonfinite != "ignore" else None
