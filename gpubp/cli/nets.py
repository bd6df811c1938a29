"""The net of a run: dense layers, a convolutional net, or one of the user's own."""

from __future__ import annotations

import inspect
import runpy
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from .. import nn
from ..boundary import is_inexact
from ..nn.parameter import unsized
from ..nn.surgery import mode
from ..tree import leaves
from .problems import BadInput, Failure, mistakes
from .settings import Settings

__all__ = ["net_of", "own_faults"]

CHANNELS = (16, 32, 64, 64, 64, 64, 64, 64, 64)  #: of the convolutional net's stages
SMALL = 8  #: pictures of this height or width, or less, are not convolved further


def net_of(settings: Settings, shape: tuple[int, ...], outputs: int, task: str) -> Any:
    """Return the net, built, on the host.

    Parameters
    ----------
    settings
        Which one it is.
    shape
        Of one input.
    outputs, task
        How many outputs it must have, and what for.
    """
    if settings.model is not None:
        net = _own(settings, {"shape": shape, "outputs": outputs, "task": task, "seed": settings.seed})
    elif len(shape) == 3 and settings.hidden is None:
        net = nn.Sequential(*_convolutional(settings, shape, outputs), seed=settings.seed)
    else:
        flatten = [nn.Flatten()] if len(shape) != 1 else []
        hidden = (128, 64) if settings.hidden is None else settings.hidden
        net = nn.Sequential(*flatten, *_dense(settings, hidden, outputs), seed=settings.seed)
    with own_faults(settings), mistakes("the net does not fit the data: "):
        found = _called(net, shape)
    made = tuple(getattr(found, "shape", ()))
    if made != (2, outputs):
        raise BadInput(f"the net must make {outputs} output{'s' * (outputs > 1)} of each input, for {task}: of 2 "
                       f"inputs {shape} an array {(2, outputs)}; got {type(found).__name__} {made}")  # fmt: skip
    return net


def _called(net: Any, shape: tuple[int, ...]) -> Any:
    """Call the net for two inputs of zeros, from which it learns the lengths that it was not told."""
    dtypes = [] if unsized(net) else [str(p.dtype) for p in leaves(net) if is_inexact(p.dtype)]
    with mode(net, training=False):
        return net(np.zeros((2, *shape), dtypes[0] if dtypes else "float32"))


def _dense(settings: Settings, hidden: tuple[int, ...], outputs: int) -> Iterator[Any]:
    init: dict[str, Any] = {} if settings.activation in ("tanh", "sigmoid") else {"W_init": nn.he_uniform}
    for units in hidden:
        yield nn.Dense(None, units, **init)
        yield from _after(settings, units)
        if settings.dropout:
            yield nn.Dropout(settings.dropout)
    yield nn.Dense(None, outputs)


def _after(settings: Settings, units: int) -> Iterator[Any]:
    if settings.batch_norm:
        yield nn.BatchNorm(units)
    yield getattr(nn, settings.activation)


def _convolutional(settings: Settings, shape: tuple[int, ...], outputs: int) -> Iterator[Any]:
    """Convolutions and pooling until the picture is small, then dense layers of 120 and 84 units.

    After LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document recognition", 1998, with more
    channels, rectifiers and max-pooling.
    """
    side, channels = min(shape[:2]), shape[2]
    for stage, wider in enumerate(CHANNELS):
        is_same = stage == 0 or side < 12
        yield nn.Conv2d(channels, wider, 5 if side > SMALL else 3, padding="same" if is_same else "valid")
        yield from _after(settings, wider)
        side, channels = side if is_same else side - 4, wider
        if side > 1:
            yield nn.MaxPool(2)
        side //= 2
        if side < SMALL:
            break
    yield nn.Flatten()
    yield from _dense(settings, (120, 84), outputs)


# -- of the user's own


def _own(settings: Settings, given: dict[str, Any]) -> Any:
    """Run a Python file and call its function with those of its arguments that it names."""
    file, _, name = (settings.model or "").rpartition(":")
    with own_faults(settings):
        sys.path.insert(0, str(Path(file).parent))
        try:
            found = runpy.run_path(file, run_name=Path(file).stem)
        finally:
            sys.path.pop(0)
    function = found.get(name)
    if not callable(function):
        there = ", ".join(k for k, x in found.items() if not k.startswith("_") and inspect.isfunction(x)) or "none"
        raise BadInput(f"{file} has no function {name!r}; there are {there}")
    with own_faults(settings):
        taken = inspect.signature(function).parameters.values()
    if unknown := [p.name for p in taken if p.name not in given and p.default is p.empty and p.kind < p.VAR_POSITIONAL]:
        raise BadInput(f"{name} of {file} asks for {unknown[0]!r}; it can be given {', '.join(given)}")
    with own_faults(settings):
        net = function(**{p.name: given[p.name] for p in taken if p.name in given})
    if not isinstance(net, nn.Layer):
        raise BadInput(f"{name} of {file} must return a net (a gpubp.nn.Layer), got {type(net).__name__}")
    with own_faults(settings), mistakes():
        net.build(settings.seed)  # what is not drawn yet
    return net


@contextmanager
def own_faults(settings: Settings) -> Iterator[None]:
    """Show the traceback of an error that came out of the user's own file, from there on, and name its line."""
    try:
        yield
    except Exception as error:
        file = (settings.model or "").rpartition(":")[0]
        cause = error.__cause__ if isinstance(error, BadInput) and error.__cause__ is not None else error
        frames = list(traceback.walk_tb(cause.__traceback__))
        own = [k for k, (frame, _) in enumerate(frames) if frame.f_code.co_filename == file]
        is_syntax = isinstance(cause, SyntaxError) and cause.filename == file
        if not file or isinstance(cause, BadInput) or not (own or is_syntax):
            raise
        line = cause.lineno if isinstance(cause, SyntaxError) and not own else frames[own[-1]][1]
        tb: Any = cause.__traceback__
        for _ in range(own[0] if own else len(frames)):
            tb = tb.tb_next
        shown = "".join(traceback.format_exception(type(cause), cause, tb))
        raise Failure(f"{file}:{line}: {type(cause).__name__}: {cause}\n{shown.rstrip()}") from None
