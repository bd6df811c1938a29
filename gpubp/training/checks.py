"""Checks of what the loop is given, on the host and once, before the first step."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from ..boundary import is_inexact
from ..data import Batches
from ..data.checks import check_at_least, check_finite, chunks, is_in_memory, is_source
from ..device import is_array
from ..fused import Fused
from ..nn.layer import Layer
from ..nn.parameter import unsized
from ..nn.surgery import cells_of, mode
from ..optim import Average, Optimizer
from .callbacks import Callback
from .checkpoint import Checkpoints
from .metrics import Totals

Data = Sequence[Any]


def check_choice(name: str, value: Any, choices: tuple[Any, ...]) -> None:
    """Refuse what is none of a few values."""
    if not any(value is choice or (isinstance(choice, str) and value == choice) for choice in choices):
        *most, last = map(repr, choices)
        raise ValueError(f"{name} must be {', '.join(most)} or {last}, got {value!r}")


def check_options(
    epochs: Any,
    steps: Any,
    step: Any,
    accumulate: Any,
    precision: Any,
    report_every: Any,
    seed: Any,
    capture: Any,
    nonfinite: Any,
    callbacks: Any,
) -> None:
    """Refuse options of `fit` that are none, or do not go together."""
    if (epochs is None) == (steps is None):
        given = "neither" if epochs is None else f"epochs={epochs!r} and steps={steps!r}"
        raise ValueError(f"give epochs or steps, one of the two: got {given}")
    for name, number in (("epochs", epochs), ("steps", steps), ("report_every", report_every)):
        if number is not None:
            check_at_least(1, name, number)
    check_at_least(1, "accumulate", accumulate)
    check_at_least(0, "seed", seed)
    if step is not None and (accumulate != 1 or precision is not None):
        given = f"accumulate={accumulate}" if accumulate != 1 else f"precision={precision!r}"
        raise ValueError(f"{given} is for steps that fit makes: a step of your own does that itself")
    check_choice("capture", capture, (True, False, "auto"))
    check_choice("nonfinite", nonfinite, ("stop", "skip", "scale"))
    check_callbacks(callbacks)


def check_callbacks(callbacks: Any) -> None:
    """Refuse what is no list or tuple of callbacks."""
    if not isinstance(callbacks, list | tuple):
        raise TypeError(f"callbacks must be a list or tuple, got {type(callbacks).__name__}")
    for callback in callbacks:
        if not isinstance(callback, Callback):
            name = callback.__name__ if isinstance(callback, type) else ""
            given = f"the class {name}: write {name}()" if name else type(callback).__name__
            raise TypeError(f"a callback must be a Callback, got {given}")


def check_figures(loss: Any, validation: Any, metrics: Any, callbacks: Sequence[Callback], kept: Any) -> None:
    """Refuse metrics named as something else of a row, and to monitor a figure that no row will have."""
    figures = [metric.name for metric in Totals(metrics).metrics]
    if taken := [name for name in figures if name in ("epoch", "step", "loss", "skipped")]:
        raise ValueError(f"no metric can have the name {taken[0]!r}, which a row of the history has already")
    if validation is not None:
        figures = [f"val_{name}" for name in (["loss", *figures] if loss is not None else figures)]
    if any(type(c).__module__ != Callback.__module__ for c in callbacks):  # one's own may put figures into the rows
        return
    for name in [getattr(c, "monitor", None) for c in callbacks] + ([] if kept is None else [kept.best]):
        if name is not None and name not in ("loss", *figures):
            known = ", ".join(("loss", *figures))
            raise ValueError(f"there is no figure {name!r} to monitor in the history: there are {known}")


def check_precision(precision: Any, dtype: str | None) -> None:
    """Refuse what is no precision, and nets that have 16 bits, or 64, already."""
    check_choice("precision", precision, ("float16", "bfloat16", None))
    if precision is not None and dtype not in (None, "float32"):
        raise ValueError(
            f"precision={precision!r} computes with a net of float32 parameters, got {dtype}: net.astype('float32')"
        )


def check_data(name: str, data: Data, targets: int) -> None:
    """Refuse what is no tuple of inputs and targets."""
    check_at_least(1, "targets", targets)
    if is_array(data) or is_source(data) or not isinstance(data, list | tuple) or len(data) < 1 + targets:
        lone = is_array(data) or is_source(data)
        given = "one array" if lone else type(data).__name__
        given += f" of length {len(data)}" if isinstance(data, list | tuple) else ""
        what = "(inputs, targets)" if targets == 1 else f"(inputs, {targets} of targets)"
        advice = "; to learn x itself, give (x, x)" if targets == 1 else ""
        raise TypeError(f"{name} must be a tuple of arrays {what}, got {given}{advice}")


def checkpoints(checkpoint: Any, resume: Any) -> Checkpoints | None:
    """Return the checkpoints that are meant; refuse to resume without, and to mix those of two runs."""
    check_choice("resume", resume, (True, False))
    if checkpoint is None:
        if resume:
            raise ValueError("resume=True goes on from a checkpoint: say where they are, as in checkpoint='runs/x'")
        return None
    found = checkpoint if isinstance(checkpoint, Checkpoints) else Checkpoints(checkpoint)
    if not resume and (steps := found.steps()):
        raise FileExistsError(
            f"there are checkpoints of another run in {found.folder}, the last of step {steps[-1]}: resume=True goes "
            "on with it; for a new run give another folder, or remove them"
        )
    return found


def check_values(name: str, data: Data, targets: int) -> None:
    """Refuse text, and NaN and infinity in memory; what files and sources hold is not looked at before it is wanted."""
    for k, x in enumerate(data):
        what = f"{'inputs' if k < len(data) - targets else 'targets'} of {name}"
        if getattr(x.dtype, "kind", None) in ("O", "S", "T", "U"):
            raise TypeError(f"the {what} must be numbers, got {x.dtype}: np.unique(y, return_inverse=True)[1] has some")
        if is_in_memory(x):
            check_finite(x, what)


def check_calls(name: str, data: Data, targets: int, loss: Any, step: Any = None) -> None:
    """Refuse a loss, or a step of the user's own, that cannot be called with these data."""
    if step is not None and not callable(step):
        raise TypeError(f"step must be a function (net, opt, *arrays) -> loss, got {type(step).__name__}")
    names = _numbered("x", len(data) - targets) + _numbered("y", targets)
    if step is not None and (takes := _misfit(step, None, None, *data)) is not None:
        _refuse_call(f"step(net, opt, {', '.join(names)})", name, data, takes)
    if loss is None and step is not None:
        return
    if not callable(loss):
        raise TypeError(f"loss must be a function (net, {', '.join(names)}) -> scalar, got {type(loss).__name__}")
    takes = _misfit(loss, None, *data)
    if takes is not None or isinstance(loss, Fused):  # whose third array may be weights
        advice = "; write, for example, lambda net, x, y: losses.mse(net(x), y)" if len(data) == 2 else ""
        _refuse_call(f"loss(net, {', '.join(names)})", name, data, (takes or _taken(loss)) + advice)


def is_called(net: Any, inputs: Data, metrics: Any) -> bool:
    """Whether the net can be called with a batch's inputs; refuse one that cannot, where that is needed."""
    takes: str | None = f"{type(net).__name__} has no __call__"
    if callable(net) and type(net).__call__ is not Layer.__call__:
        takes = _misfit(net, *inputs)
    if takes is not None and (metrics or unsized(net)):
        why = "metrics, which metrics=() leaves out" if metrics else "the lengths that it was not given"
        raise TypeError(f"the net is called as net({', '.join(_numbered('x', len(inputs)))}) for {why}; but {takes}")
    return takes is None


def _numbered(name: str, n: int) -> list[str]:
    return [name] if n == 1 else [f"{name}{k + 1}" for k in range(n)]


def _refuse_call(call: str, name: str, data: Data, takes: str) -> None:
    raise TypeError(f"{name} holds {len(data)} arrays, so {call.partition('(')[0]} is called as {call}, but {takes}")


def _misfit(f: Callable[..., Any], *args: Any) -> str | None:
    """Say what a function takes, if it does not take these arguments."""
    try:
        signature = inspect.signature(f)
    except (TypeError, ValueError):  # one that does not say
        return None
    try:
        signature.bind(*args)
    except TypeError:
        return _taken(f)
    return None


def _taken(f: Callable[..., Any]) -> str:
    return f"{getattr(f, '__name__', type(f).__name__)} takes ({', '.join(inspect.signature(f).parameters)})"


def check_optimizer(opt: Any, net: Any) -> None:
    """Refuse what is no optimizer of this net."""
    if not isinstance(opt, Optimizer):
        raise TypeError(
            f"opt must be an optimizer, as in optim.Adam(net), got {type(opt).__name__}; or a function of the net that "
            "makes one"
        )
    _check_owner("the optimizer", opt.tree, net)


def check_average(average: Any, net: Any) -> None:
    """Refuse what is no average of this net."""
    if not isinstance(average, Average):
        raise TypeError(f"average must be an optim.Average of the net, got {type(average).__name__}")
    _check_owner("the average", average.tree, net)


def _check_owner(what: str, tree: Any, net: Any) -> None:
    if tree is not net:
        raise ValueError(
            f"{what} was made for another net: make it for the one that is trained, after net.to(...) or "
            "net.astype(...), which return new nets"
        )


def check_outputs(name: str, data: Data, batch: tuple[Any, ...], net: Any, targets: int, metrics: Any) -> None:
    """Refuse labels that are not below the number of outputs, as a batch shows it, and metrics that do not fit."""
    try:
        _check_outputs(data, batch, net, targets, metrics)
    except Exception as error:
        error.add_note(f"with the first batch of {name}")
        raise


def _check_outputs(data: Data, batch: tuple[Any, ...], net: Any, targets: int, metrics: Any) -> None:
    with mode(net, training=False):
        found = net(*batch[:-targets])
    wanted = batch[-targets:]
    outputs = found if isinstance(found, tuple | list) else [found]
    if len(outputs) == targets:
        for output, y, given in zip(outputs, wanted, data[-targets:], strict=True):
            if is_array(given) and not is_inexact(y.dtype) and getattr(output, "ndim", 0) == y.ndim + 1:
                _check_labels(given, output.shape[-1])
    Totals(metrics).add(found, wanted[0] if targets == 1 else wanted)


def _check_labels(labels: Any, classes: int) -> None:
    largest = max(part.max() for _, part in chunks(labels))
    if largest >= classes:
        raise ValueError(f"the targets hold the label {largest}, but the net has {classes} outputs (labels from 0)")


def check_last(net: Any, inputs: int, whole: Batches, epoch: Callable[..., Batches]) -> None:
    """Refuse a last batch of one row, where a layer (such as BatchNorm) must have several, before an epoch is over."""
    cells = cells_of(net)
    if not cells or len(whole) == 1 or len(whole.rows(len(whole) - 1)) > 1:
        return
    before = [cell.value for cell in cells]
    (batch,) = epoch(start=len(whole) - 1)
    try:
        with mode(net, training=True):
            net(*batch[:inputs])
    except ValueError as error:
        error.add_note("that is for the last batch of an epoch, which has 1 row: give last='drop' or last='pad'")
        raise
    finally:
        for cell, value in zip(cells, before, strict=True):
            cell.value = value
