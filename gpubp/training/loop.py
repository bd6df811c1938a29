"""The training loop."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from ..capture import capture as captured
from ..data import batches
from ..device import Device
from ..nn.layer import Layer
from ..nn.parameter import check_built, unsized
from ..nn.surgery import learn_lengths
from ..optim import Optimizer
from . import checks
from .callbacks import Callback
from .checkpoint import Checkpoints
from .evaluation import as_the_net, evaluate
from .history import History
from .metrics import Metric
from .run import Run
from .steps import train_step

__all__ = ["fit"]


def fit(
    net: Any,
    loss: Callable[..., Any] | None,
    opt: Optimizer | Callable[[Any], Optimizer],
    train: Sequence[Any],
    *,
    epochs: int | None = None,
    steps: int | None = None,
    batch_size: int = 32,
    validation: Sequence[Any] | None = None,
    report_every: int | None = None,
    metrics: Sequence[str | Metric] = ("accuracy",),
    targets: int = 1,
    callbacks: Sequence[Callback] = (),
    checkpoint: str | os.PathLike[str] | Checkpoints | None = None,
    resume: bool = False,
    step: Callable[..., Any] | None = None,
    accumulate: int = 1,
    average: Any = None,
    nonfinite: str = "stop",
    seed: int = 0,
    last: str = "keep",
    balance: Any = None,
    transform: Any = None,
    prefetch: int = 0,
    ignore_index: int | None = None,
    device: Device | str | None = None,
    precision: str | None = None,
    capture: bool | str = "auto",
    progress: bool = True,
) -> History:
    """Train a net.

    Parameters
    ----------
    net
        A net that has its seed; it is called as ``net(x)`` for the metrics, without which it may be any tree of arrays
        and layers. Lengths that it was not told it learns from the first batch. It is in training mode for the steps,
        in evaluation mode for the metrics.
    loss
        ``loss(net, x, y)`` gives a scalar, a mean over the batch. May be None with a `step`: rows then have metrics
        alone.
    opt
        The optimizer made for this net, or a function that makes it, such as ``lambda net: optim.Adam(net, 1e-3)``,
        as a net needs that has not seen a batch.
    train
        Arrays or sources with one example a row, ``(inputs, targets)``. Of a net with several inputs, such as sequences
        and their lengths, ``(x, lengths, y)``: the calls are then ``net(x, lengths)`` and ``loss(net, x, lengths, y)``.
    epochs, steps
        Passes over the data, or steps, which may end within a pass: one of the two.
    batch_size
        Examples in a batch. Where there are fewer, a batch has them all.
    validation
        Data like `train`, to measure loss and metrics with for each row of the history. Without it the metrics are
        measured on the training data.
    report_every
        Steps after which the history gets a row; by default it gets one at the end of every epoch. The last step
        always gives one.
    metrics
        Names, as `gpubp.metrics.resolve` takes them, and metrics; ``"accuracy"`` is of use in classification only.
        ``"accuracy[1]"`` is of the second output and the second target.
    targets
        How many arrays of the data, at the end, are targets. With several, ``(x, y1, y2)``, the net returns a tuple.
    callbacks
        What is done beside the steps: see `Callback`.
    checkpoint
        A folder for checkpoints, one at the end of each epoch, of which the last three are kept; or `Checkpoints`,
        which say when there is one, and which are kept.
    resume
        Whether to go on from the newest checkpoint: the weights at the end are, on the CPU, bit for bit those of a run
        that was never interrupted. Net, optimizer and data must be given as at first; `epochs` may be more. Without a
        checkpoint the run starts from the beginning, so that a script may always say True.
    step
        A step of your own, ``step(net, opt, x, y)``, which calls ``opt.step`` and returns the loss, a 0-d array.
    accumulate
        So many batches give one step, by the mean of their gradients over all rows; their memory is needed one after
        the other. At the end of an epoch there may be fewer.
    average
        An `gpubp.optim.Average` of the net, updated after each step; its net is then the one that is measured.
    nonfinite
        What is done about a loss or a gradient that is not finite, which is seen on the device: the option of that name
        of the optimizer is set by it. ``"stop"``: `NotFinite`, with the net as it was before that step; a gradient that
        only overflowed under a dynamic loss scale is no reason. ``"skip"``: the step is left out. ``"scale"``: it is
        left out, and the loss scale is lowered, a dynamic one being made if there is none.
    seed
        Determines the order of the examples.
    last, balance, transform, prefetch
        How batches are made: see `gpubp.data.batches`. When the net is measured the transform's part that draws nothing
        is applied.
    ignore_index
        A negative label, such as -100, that the loss and the metrics are told to ignore.
    device
        Where to compute, which must be where the net is; by default there.
    precision
        ``"bfloat16"`` or ``"float16"``: steps and evaluation are in mixed precision, as by `gpubp.mixed`, with a net of
        float32 parameters. With float16 an optimizer that has no loss scale gets a dynamic one.
    capture
        Whether a step is one CUDA graph, as by `gpubp.capture`: ``"auto"`` if it can be, with a warning where it can
        not; True insists on it, and False leaves it.
    progress
        Whether to show on stderr how far it is: a bar in a terminal or a notebook, otherwise plain lines.

    Returns
    -------
    History
        A list of rows, dicts of figures: ``epoch`` (from 1), ``step``, ``loss`` (the mean over the examples of the
        steps since the row before), and either ``val_loss`` and ``val_accuracy``, or ``accuracy``; with `nonfinite`
        other than ``"stop"`` also ``skipped``, a number of steps. After Ctrl-C, which ends the run after the step, it
        is ``interrupted``. Of a resumed run it has the rows from the beginning.

    Raises
    ------
    TypeError, ValueError
        Before the first step: if an argument is none of what is said above, if data in memory hold NaN or infinity, or
        a label is not below the number of the net's outputs.
    FileExistsError
        If there are checkpoints of another run, and `resume` is False.
    NotFinite
        A FloatingPointError that names epoch, step and rows, soon after the step: losses are read twice a second.
    NotCapturable
        If `capture` is True and a step cannot be captured.
    KeyboardInterrupt
        At a second Ctrl-C.
    """
    checks.check_options(epochs, steps, step, accumulate, precision, report_every, seed, capture, nonfinite, callbacks)
    kept = checks.checkpoints(checkpoint, resume)
    checks.check_figures(loss, validation, metrics, callbacks, kept)
    where = as_the_net(net, device, None)
    checks.check_precision(precision, where["dtype"])
    how: dict[str, Any] = {"transform": transform, "prefetch": prefetch, "ignore_index": ignore_index, **where}
    order: dict[str, Any] = {"shuffle": True, "seed": seed, "last": last, "balance": balance}
    for name, data in (("train", train), ("validation", validation)):
        if data is not None:
            checks.check_data(name, data, targets)
            checks.check_calls(name, data, targets, loss, step)
            batches(data, batch_size, **how)
            checks.check_values(name, data, targets)
    epoch = partial(batches, train, batch_size, **order, **how)
    whole, inputs = epoch(), len(train) - targets
    first = next(iter(whole))
    is_called = checks.is_called(net, first[:inputs], metrics)
    if unsized(net):
        learn_lengths(net, *first[:inputs])
    check_built(net)
    opt = _optimizer(opt, net)
    if average is not None:
        checks.check_average(average, net)
    if is_called and (step is None or metrics):
        checks.check_outputs("train", train, first, net, targets, metrics)
        checks.check_last(net, inputs, whole, epoch)
        if validation is not None:
            batch = next(iter(batches(validation, batch_size, **how)))
            checks.check_outputs("validation", validation, batch, net, targets, metrics)
    _watch(opt, nonfinite, precision)

    def measure() -> dict[str, Any]:
        kind: dict[str, Any] = {"metrics": metrics, "targets": targets, "precision": precision}
        kind["batch_size"] = min(1024, 8 * batch_size)  # without gradients it takes about as much memory as a step
        if validation is None:
            return evaluate(run.nets[-1], None, train, **kind, **how)
        found = evaluate(run.nets[-1], loss, validation, **kind, **how)
        return {f"val_{name}": x for name, x in found.items()}

    take = train_step(net, loss, opt, average, precision, inputs, step, nonfinite != "stop")
    run = Run(
        net,
        opt,
        average,
        take=captured(take, required=capture is True) if capture else take,
        whole=whole,
        batches=epoch,
        measure=measure,
        epochs=epochs,
        steps=steps,
        accumulate=accumulate,
        report_every=report_every,
        skips=nonfinite != "stop",
        callbacks=callbacks,
        checkpoints=kept,
        settings={
            "data": [[list(x.shape), str(x.dtype)] for x in train],
            **{"batch_size": batch_size, "accumulate": accumulate, "report_every": report_every, "seed": seed},
            **{"last": last, "targets": targets, "precision": precision, "optimizer": type(opt).__name__},
        },
    )
    return run.go(resume, progress)


def _optimizer(opt: Any, net: Any) -> Optimizer:
    if not isinstance(opt, Optimizer | Layer) and callable(opt):
        opt = opt(net)
    checks.check_optimizer(opt, net)
    found: Optimizer = opt
    return found


def _watch(opt: Optimizer, nonfinite: str, precision: str | None) -> None:
    """Tell the optimizer what to do about what is not finite."""
    if (nonfinite == "scale" and not opt.rescales) or (precision == "float16" and opt.scale is None):
        opt.guard(loss_scale="dynamic")
    wanted = "stop" if nonfinite == "stop" else "skip"
    if opt.nonfinite != wanted:
        opt.guard(nonfinite=wanted)
    opt.clear()
