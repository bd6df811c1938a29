"""The training loop."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

from ..boundary import is_inexact
from ..capture import capture as captured
from ..data import batches
from ..data.batches import check_at_least_1
from ..data.checks import check_finite, chunks
from ..device import Device, device_of, is_array, raw_namespace, to_numpy
from ..fused import Fused
from ..nn.layer import Layer
from ..nn.parameter import check_built, unsized
from ..nn.surgery import mode
from ..optim import Optimizer
from ..precision import mixed, scaled
from ..state import State
from ..transform import value_and_grad
from ..tree import leaves
from .metrics import Metric, Totals

__all__ = ["evaluate", "fit"]

Loss = Callable[..., Any]
Data = Sequence[Any]


def fit(
    net: Any,
    loss: Loss,
    opt: Optimizer | Callable[[Any], Optimizer],
    train: Data,
    *,
    epochs: int,
    batch_size: int = 32,
    validation: Data | None = None,
    seed: int = 0,
    device: Device | str | None = None,
    metrics: Sequence[str | Metric] = ("accuracy",),
    progress: bool = True,
    capture: bool | str = "auto",
    precision: str | None = None,
) -> list[dict[str, Any]]:
    """Train a net.

    Parameters
    ----------
    net
        A net that has its seed; it is called as ``net(x)`` for the metrics. Lengths that it was not told it learns from
        the first batch. It is in training mode for the steps, in evaluation mode for the metrics.
    loss
        ``loss(net, x, y)`` gives a scalar, a mean over the batch.
    opt
        The optimizer made for this net, or a function that makes it, such as ``lambda net: optim.Adam(net, 1e-3)``,
        as a net needs that has not seen a batch.
    train
        Arrays with one example a row, ``(inputs, targets)``. Of a net with several inputs, such as sequences and their
        lengths, ``(x, lengths, y)``: the calls are then ``net(x, lengths)`` and ``loss(net, x, lengths, y)``.
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
        Names, as `gpubp.metrics.resolve` takes them, and metrics; ``"accuracy"`` is of use in classification only.
    progress
        Whether to show a progress bar.
    capture
        Whether a step is one CUDA graph, as by `gpubp.capture`: ``"auto"`` if it can be, with a warning where it can
        not; True insists on it, and False leaves it.
    precision
        ``"bfloat16"`` or ``"float16"``: steps and evaluation are in mixed precision, as by `gpubp.mixed`, with a net of
        float32 parameters. With float16 an optimizer that has no loss scale gets a dynamic one.

    Returns
    -------
    list of dict
        A row for each epoch: ``epoch`` (from 1), ``loss`` (the mean over the steps' examples), and either ``val_loss``
        and ``val_accuracy``, or ``accuracy``.

    Raises
    ------
    TypeError, ValueError
        Before the first step: if an argument is none of what is said above, if the data hold NaN or infinity, or a
        label that is not below the number of the net's outputs.
    FloatingPointError
        If the loss of an epoch is not finite.
    NotCapturable
        If `capture` is True and a step cannot be captured.
    """
    if capture not in (True, False, "auto"):
        raise ValueError(f"capture must be True, False or 'auto', got {capture!r}")
    check_at_least_1("epochs", epochs)
    check_at_least_1("batch_size", batch_size)
    names = [metric.name for metric in Totals(metrics).metrics]
    options = _as_the_net(net, device, None)
    _check_precision(precision, options)
    for name, data in (("train", train), ("validation", validation)):
        if data is not None:
            _check_data(name, data)
            _check_call(loss, name, data)
    if unsized(net):
        *inputs, _ = next(iter(batches(train, batch_size, **options)))
        with mode(net, training=False):
            net(*inputs)
    check_built(net)
    if isinstance(opt, Layer):
        raise _no_optimizer(opt)
    if not isinstance(opt, Optimizer) and callable(opt):
        opt = opt(net)
    _check_optimizer(opt, net)
    for data in (train, validation):
        if data is not None:
            _check_labels(net, data, options)

    if precision == "float16" and opt.scale is None:
        opt.scale_loss("dynamic")
    objective = loss if opt.scale is None else scaled(loss, opt)
    gradient, mean = value_and_grad(objective if precision is None else mixed(loss, precision, opt)), _Mean()

    def train_step(*batch: Any) -> None:
        value, grads = gradient(net, *batch)
        opt.step(grads)
        mean.sum(value, batch[0].shape[0])

    step = captured(train_step, required=capture is True) if capture else train_step
    history: list[dict[str, Any]] = []
    size = math.ceil(train[0].shape[0] / batch_size)
    with _Bar(epochs * size, progress) as bar:
        for epoch in range(epochs):
            with mode(net, training=True):
                for batch in batches(train, batch_size, shuffle=True, seed=seed, epoch=epoch, **options):
                    step(*batch)
                    mean.count += batch[0].shape[0]
                    bar.step()
            row = {"epoch": epoch + 1, "loss": mean.read()}
            if not math.isfinite(row["loss"]):
                raise FloatingPointError(_not_finite(row, history))
            if validation is None:
                found = evaluate(net, loss, train, metrics=metrics, precision=precision, **options)
                row |= {name: found[name] for name in names}
            else:
                found = evaluate(net, loss, validation, metrics=metrics, precision=precision, **options)
                row |= {f"val_{name}": value for name, value in found.items()}
            history.append(row)
            bar.show(row)
    return history


def evaluate(
    net: Any,
    loss: Loss,
    data: Data,
    *,
    metrics: Sequence[str | Metric] = ("accuracy",),
    batch_size: int = 1024,
    device: Device | str | None = None,
    dtype: str | None = None,
    precision: str | None = None,
) -> dict[str, Any]:
    """Measure loss and metrics of a net, in evaluation mode.

    Parameters
    ----------
    net, loss, metrics, device
        As in `fit`.
    data
        As `train` in `fit`.
    batch_size
        Examples computed at once.
    dtype
        Floating-point dtype to which the data are cast; by default the net's.
    precision
        As in `fit`.

    Returns
    -------
    dict
        ``loss``, a mean over the examples, and the metrics by name.
    """
    totals = Totals(metrics)
    _check_several("data", data)
    options = _as_the_net(net, device, dtype)
    _check_precision(precision, options)
    if precision is None:
        output_of = _output
    else:
        loss, output_of = mixed(loss, precision), mixed(_output, precision, argnums=range(len(data)))
    with mode(net, training=False):
        for *inputs, y in batches(data, batch_size, **options):
            totals.mean("loss", loss(net, *inputs, y), y.shape[0])
            totals.add(output_of(net, *inputs), y)
    return totals.read()


def _output(net: Any, *inputs: Any) -> Any:
    return net(*inputs)


def _as_the_net(net: Any, device: Device | str | None, dtype: str | None) -> dict[str, Any]:
    """Where and in which precision batches are wanted: as the net's parameters are, unless told."""
    parameters = [x for x in leaves(net) if is_inexact(x.dtype)]
    if parameters:
        device = device_of(parameters[0]) if device is None else device
        dtype = str(parameters[0].dtype).rpartition(".")[2] if dtype is None else dtype
    return {"device": device, "dtype": dtype}


def _not_finite(row: dict[str, Any], history: list[dict[str, Any]]) -> str:
    before = f"; in the epoch before it was {history[-1]['loss']:.4g}" if history else ""
    return (
        f"the loss of epoch {row['epoch']:.0f} is {row['loss']}{before}: try a lower learning rate, and look for "
        "overflow, logarithms of 0 and divisions by 0 in the loss and the net"
    )


# -- checks, on the host and once, before the first step


def _check_precision(precision: Any, options: dict[str, Any]) -> None:
    if precision not in (None, "float16", "bfloat16"):
        raise ValueError(f"precision must be 'float16', 'bfloat16' or None, got {precision!r}")
    if precision is not None and options["dtype"] not in (None, "float32"):
        raise ValueError(
            f"precision={precision!r} computes with a net of float32 parameters, got {options['dtype']}: "
            "net.astype('float32')"
        )


def _check_call(loss: Loss, name: str, data: Data) -> None:
    several = len(data) > 2
    call = ", ".join(["net", *(f"x{k + 1}" if several else "x" for k in range(len(data) - 1)), "y"])
    try:
        signature = inspect.signature(loss)
    except (TypeError, ValueError):  # no function, or one that does not say
        signature = None
    if not callable(loss):
        raise TypeError(f"loss must be a function ({call}) -> scalar, got {type(loss).__name__}")
    try:
        if signature is not None:
            signature.bind(None, *data)
        if isinstance(loss, Fused):  # a third array may be weights
            raise TypeError
    except TypeError:
        assert signature is not None
        takes = f"{getattr(loss, '__name__', type(loss).__name__)} takes ({', '.join(signature.parameters)})"
        advice = "" if several else "; write, for example, lambda net, x, y: losses.mse(net(x), y)"
        raise TypeError(
            f"{name} holds {len(data)} arrays, so loss is called as loss({call}), but {takes}{advice}"
        ) from None


def _check_optimizer(opt: Any, net: Any) -> None:
    if not isinstance(opt, Optimizer):
        raise _no_optimizer(opt)
    if opt.tree is not net:
        raise ValueError(
            "the optimizer was made for another net: make it for the one that is trained, after net.to(...) or "
            "net.astype(...), which return new nets"
        )


def _no_optimizer(opt: Any) -> TypeError:
    return TypeError(
        f"opt must be an optimizer, as in optim.Adam(net), got {type(opt).__name__}; or a function of the net that "
        "makes one"
    )


def _check_several(name: str, data: Data) -> None:
    if is_array(data) or len(data) < 2:
        given = "one array" if is_array(data) else f"{type(data).__name__} of length {len(data)}"
        raise TypeError(
            f"{name} must be a tuple of arrays (inputs, targets), got {given}; to learn x itself, give (x, x)"
        )


def _check_data(name: str, data: Data) -> None:
    """Refuse NaN and infinity in arrays; what a source makes is not looked at before it is wanted."""
    _check_several(name, data)
    for k, x in enumerate(data):
        if is_array(x):
            check_finite(x, f"{'targets' if k == len(data) - 1 else 'inputs'} of {name}")


def _check_labels(net: Any, data: Data, options: dict[str, Any]) -> None:
    """Refuse labels that are not below the number of outputs."""
    *inputs, y = next(iter(batches(data, 1, **options)))
    with mode(net, training=False):
        output = net(*inputs)
    if is_inexact(y.dtype) or output.ndim != y.ndim + 1 or not is_array(data[-1]):
        return
    classes, largest = output.shape[-1], max(part.max() for _, part in chunks(data[-1]))
    if largest >= classes:
        raise ValueError(f"the targets hold the label {largest}, but the net has {classes} outputs (labels from 0)")


class _Mean:
    """A mean over examples that accumulates where the values are and is read once."""

    def __init__(self) -> None:
        self.total, self.count = State(0.0), 0

    def sum(self, value: Any, n: int) -> None:
        """Add the mean over n examples to the total, but not these to the count: it may be captured."""
        self.total.value = self.total.value + value * n

    def add(self, value: Any, n: int) -> None:
        self.sum(value, n)
        self.count += n

    def read(self) -> float:
        """Return the mean, and begin again."""
        total, count = self.total.value, self.count
        self.total.value, self.count = raw_namespace(total).zeros_like(total), 0
        return float(to_numpy(total)) / count


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

    def show(self, row: dict[str, Any]) -> None:
        if self.bar is not None:
            self.bar.set_description(f"epoch {row['epoch']}", refresh=False)
            self.bar.set_postfix({name: f"{value:.4f}" for name, value in row.items() if isinstance(value, float)})

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()
