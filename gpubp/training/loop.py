"""The training loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from ..boundary import is_inexact
from ..data import batches
from ..device import Device, device_of, raw_namespace, to_numpy
from ..optim import Optimizer
from ..transform import value_and_grad
from ..tree import leaves

__all__ = ["METRICS", "accuracy", "evaluate", "fit"]

Loss = Callable[[Any, Any, Any], Any]
Metric = Callable[[Any, Any], Any]
Data = Sequence[Any]


def accuracy(output: Any, target: Any) -> Any:
    """Return the share of examples whose largest output is the target's: a label, or the largest of a vector.

    With one output an example, it is a logit: above 0 counts as the label 1.
    """
    xp = raw_namespace(output)
    if output.shape[-1:] == (1,) or output.ndim < 2:
        hits = (output > 0) == (xp.reshape(target, output.shape) > 0.5)
    else:
        labels = target if target.ndim < output.ndim else xp.argmax(target, axis=-1)
        hits = xp.argmax(output, axis=-1) == labels
    return xp.mean(xp.astype(hits, output.dtype))


#: Metrics by name: functions of a batch's output and target that return a mean over the examples.
METRICS: dict[str, Metric] = {"accuracy": accuracy}


def fit(
    net: Any,
    loss: Loss,
    opt: Optimizer,
    train: Data,
    *,
    epochs: int,
    batch_size: int = 32,
    validation: Data | None = None,
    seed: int = 0,
    device: Device | str | None = None,
    metrics: Sequence[str] = ("accuracy",),
    progress: bool = True,
) -> list[dict[str, float]]:
    """Train a net.

    Parameters
    ----------
    net
        A built net; it is called as ``net(x)`` for the metrics.
    loss
        ``loss(net, x, y)`` gives a scalar, a mean over the batch.
    opt
        The net's optimizer.
    train
        Arrays with one example a row, such as ``(inputs, targets)``.
    epochs
        Passes over the data.
    batch_size
        Examples in a step.
    validation
        Data like `train`, to measure loss and metrics with after each epoch. Without it the metrics are measured on
        the training data.
    seed
        Determines the order of the examples.
    device
        Where to compute, which must be where the net is; by default there.
    metrics
        Names from `METRICS`.
    progress
        Whether to show a progress bar.

    Returns
    -------
    list of dict
        A row for each epoch: ``epoch`` (from 1), ``loss`` (the mean over the steps' examples), and either ``val_loss``
        and ``val_accuracy``, or ``accuracy``.

    Raises
    ------
    ValueError
        If a label is not below the number of the net's outputs, or `epochs` is below 1.
    """
    if epochs < 1:
        raise ValueError(f"epochs must be at least 1, got {epochs}")
    parameter = leaves(net)[0]
    options: dict[str, Any] = {
        "device": device_of(parameter) if device is None else device,
        "dtype": str(parameter.dtype).rpartition(".")[2],
    }
    for data in (train, validation):
        if data is not None:
            _check_labels(net, data, options)

    step = value_and_grad(loss)
    history: list[dict[str, float]] = []
    size = math.ceil(train[0].shape[0] / batch_size)
    with _Bar(epochs * size, progress) as bar:
        for epoch in range(epochs):
            mean = _Mean()
            for x, y in batches(train, batch_size, shuffle=True, seed=seed, epoch=epoch, **options):
                value, grads = step(net, x, y)
                opt.step(grads)
                mean.add(value, x.shape[0])
                bar.step()
            row = {"epoch": epoch + 1, "loss": mean.read()}
            if validation is None:
                found = evaluate(net, loss, train, metrics=metrics, **options)
                row |= {name: found[name] for name in metrics}
            else:
                found = evaluate(net, loss, validation, metrics=metrics, **options)
                row |= {f"val_{name}": value for name, value in found.items()}
            history.append(row)
            bar.show(row)
    return history


def evaluate(
    net: Any,
    loss: Loss,
    data: Data,
    *,
    metrics: Sequence[str] = ("accuracy",),
    batch_size: int = 1024,
    device: Device | str | None = None,
    dtype: str | None = None,
) -> dict[str, float]:
    """Measure loss and metrics of a net.

    Parameters
    ----------
    net, loss, metrics, device
        As in `fit`.
    data
        Arrays with one example a row.
    batch_size
        Examples computed at once.
    dtype
        Floating-point dtype to which the data are cast.

    Returns
    -------
    dict
        ``loss`` and the metrics by name, as means over the examples.
    """
    means = {name: _Mean() for name in ("loss", *metrics)}
    for x, y in batches(data, batch_size, device=device, dtype=dtype):
        means["loss"].add(loss(net, x, y), x.shape[0])
        output = net(x)
        for name in metrics:
            means[name].add(METRICS[name](output, y), x.shape[0])
    return {name: mean.read() for name, mean in means.items()}


def _check_labels(net: Any, data: Data, options: dict[str, Any]) -> None:
    """Check, on the host and once, what a step on a device cannot: that labels are below the number of outputs."""
    x, y = next(iter(batches(data, 1, **options)))
    output = net(x)
    if is_inexact(y.dtype) or output.ndim != y.ndim + 1:
        return
    classes, largest = output.shape[-1], to_numpy(data[1]).max()
    if largest >= classes:
        raise ValueError(f"the targets hold the label {largest}, but the net has {classes} outputs (labels from 0)")


class _Mean:
    """A mean over examples that accumulates where the values are and is read once."""

    def __init__(self) -> None:
        self.total: Any = 0.0
        self.count = 0

    def add(self, value: Any, n: int) -> None:
        self.total, self.count = self.total + value * n, self.count + n

    def read(self) -> float:
        return float(to_numpy(self.total)) / self.count


class _Bar:
    """A progress bar that counts steps and shows the figures of the last epoch."""

    def __init__(self, steps: int, shown: bool) -> None:
        self.bar: Any = None
        if shown:
            from tqdm import tqdm

            self.bar = tqdm(total=steps, unit="step", mininterval=0.2)

    def step(self) -> None:
        if self.bar is not None:
            self.bar.update()

    def show(self, row: dict[str, float]) -> None:
        if self.bar is not None:
            self.bar.set_description(f"epoch {row['epoch']}", refresh=False)
            self.bar.set_postfix({name: f"{value:.4f}" for name, value in row.items() if name != "epoch"})

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()
