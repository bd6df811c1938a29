"""Checks of what the loop is given, on the host and once, before the first step."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from ..boundary import is_inexact
from ..data import Batches
from ..data.batches import check_at_least_1
from ..data.checks import check_finite, chunks, is_in_memory, is_source
from ..device import is_array
from ..fused import Fused
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
            check_at_least_1(name, number)
    check_at_least_1("accumulate", accumulate)
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


def check_precision(precision: Any, dtype: str | None) -> None:
    """Refuse what is no precision, and nets that have 16 bits, or 64, already."""
    check_choice("precision", precision, ("float16", "bfloat16", None))
    if precision is not None and dtype not in (None, "float32"):
        raise ValueError(
            f"precision={precision!r} computes with a net of float32 parameters, got {dtype}: net.astype('float32')"
        )


def check_data(name: str, data: Data, targets: int) -> None:
    """Refuse what is no tuple of inputs and targets."""
    check_at_least_1("targets", targets)
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
    """Refuse NaN and infinity in memory; what a file or a source holds is not looked at before it is wanted."""
    for k, x in enumerate(data):
        if is_in_memory(x):
            check_finite(x, f"{'inputs' if k < len(data) - targets else 'targets'} of {name}")


def check_calls(name: str, data: Data, targets: int, loss: Any, step: Any = None) -> None:
    """Refuse a loss, or a step of the user's own, that cannot be called with these data."""
    if step is not None and not callable(step):
        raise TypeError(f"step must be a function (net, opt, *arrays) -> loss, got {type(step).__name__}")
    n = len(data) - targets
    names = [f"x{k + 1}" if n > 1 else "x" for k in range(n)]
    names += [f"y{k + 1}" if targets > 1 else "y" for k in range(targets)]
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


def check_outputs(net: Any, batch: tuple[Any, ...], targets: int, metrics: Any, datas: Sequence[Data | None]) -> None:
    """Refuse labels that are not below the number of outputs, as a batch shows it, and metrics that do not fit."""
    with mode(net, training=False):
        found = net(*batch[:-targets])
    wanted = batch[-targets:]
    outputs = found if isinstance(found, tuple | list) else [found]
    for data in datas:
        if data is not None and len(outputs) == targets:
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
