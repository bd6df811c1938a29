"""Learning rates that change with the number of the step, counted from 0.

A schedule is a function ``schedule(step) -> learning rate``, and any such function serves an optimizer as its ``lr``.
Those made here also say what they are: ``repr``, and `Schedule.to_dict` for a JSON or TOML file. `start` and `end` are
always fractions of the rate `lr`. After its last step a schedule stays where it is.
"""

from __future__ import annotations

import functools
import inspect
import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from numbers import Integral, Real
from typing import Any, ParamSpec

from ..functions.update import check_number

__all__ = [
    "Schedule",
    "constant",
    "cosine",
    "exponential",
    "from_dict",
    "joined",
    "linear",
    "multistep",
    "one_cycle",
    "polynomial",
    "step",
    "warmup",
]

Rate = Callable[[int], float]
P = ParamSpec("P")


@dataclass(frozen=True, repr=False)
class Schedule:
    """A learning rate as a function of the step number; made by the functions of this module.

    Schedules of one name and equal options are equal.

    Attributes
    ----------
    name : str
        The function that made it.
    options : mapping
        Its arguments.
    """

    name: str
    options: Mapping[str, Any] = field(hash=False)
    rate: Rate = field(compare=False)

    def __call__(self, step: int) -> float:
        """Return the learning rate of a step."""
        if step < 0:
            raise ValueError(f"steps are counted from 0, got {step}")
        return self.rate(step)

    def __repr__(self) -> str:
        return f"{self.name}({', '.join(f'{key}={value!r}' for key, value in self.options.items())})"

    def to_dict(self) -> dict[str, Any]:
        """Return what `from_dict` makes an equal schedule of: dicts, lists, strings and numbers.

        Raises
        ------
        TypeError
            If a function that is no `Schedule` is a part of it.
        """
        return {"name": self.name, **{key: _described(value) for key, value in self.options.items()}}


_makers: dict[str, Callable[..., Schedule]] = {}


def _schedule(make: Callable[P, Rate]) -> Callable[P, Schedule]:
    """Make a schedule of a function that checks its options and returns the rate as a function of the step."""

    @functools.wraps(make)
    def made(*args: P.args, **kwargs: P.kwargs) -> Schedule:
        rate = make(*args, **kwargs)
        options = inspect.signature(make).bind(*args, **kwargs)
        options.apply_defaults()
        known = {key: tuple(value) if isinstance(value, list) else value for key, value in options.arguments.items()}
        return Schedule(make.__name__, known, rate)

    return _makers.setdefault(make.__name__, made)


def from_dict(description: Any) -> Schedule:
    """Make a schedule of its description: its name and its options, as `Schedule.to_dict` gives them.

    Raises
    ------
    ValueError
        If there is no such schedule, an option is unknown or missing, or what the schedule's function raises.

    Examples
    --------
    >>> from gpubp.optim import schedules
    >>> schedules.from_dict({"name": "step", "lr": 0.1, "every": 30})
    step(lr=0.1, every=30, factor=0.1)
    """
    name = description.get("name") if isinstance(description, Mapping) else None
    if not isinstance(name, str) or name not in _makers:
        raise ValueError(f"a schedule is described by its name, one of {', '.join(_makers)}, got {description!r}")
    options = {key: _made(value) for key, value in description.items() if key != "name"}
    try:
        return _makers[name](**options)
    except TypeError as error:
        raise ValueError(f"{dict(description)!r} describes no schedule: {error}") from None


# -- one after another


@_schedule
def constant(lr: float) -> Rate:
    """Keep one rate."""
    _check_rate(lr)
    return lambda t: lr


@_schedule
def joined(schedules: Sequence[float | Rate], *, at: Sequence[int]) -> Rate:
    """Follow several schedules one after another, each of which counts from 0 when its turn comes.

    Parameters
    ----------
    schedules
        Schedules, other functions of the step number, or numbers.
    at
        The steps at which the second one begins, the third, and so on.
    """
    parts, starts = [_as_schedule(part) for part in schedules], [0, *_check_increasing("joined", at)]
    if len(parts) != len(starts):
        raise ValueError(f"joined expects a step in `at` for each schedule but the first, got {len(parts)} and {at!r}")

    def rate(t: int) -> float:
        k = bisect_right(starts, t) - 1
        return parts[k](t - starts[k])

    return rate


@_schedule
def warmup(schedule: float | Rate, steps: int, *, start: float = 0.01) -> Rate:
    """Rise linearly to a schedule's first rate in a number of steps, and then follow it from its beginning.

    Parameters
    ----------
    schedule
        A schedule, another function of the step number, or a number.
    steps
        The step at which the schedule begins; 0 for no warm-up.
    start
        The first rate, as a fraction of the schedule's first.

    Notes
    -----
    Goyal et al., "Accurate, large minibatch SGD: training ImageNet in 1 hour", 2017, section 2.2.
    """
    then, steps = _as_schedule(schedule), _check_whole("warmup", "steps", steps, 0)
    _check_fraction("warmup", start=start)
    return lambda t: then(0) * (start + (1 - start) * (t / steps)) if t < steps else then(t - steps)


# -- in steps


@_schedule
def step(lr: float, *, every: int, factor: float = 0.1) -> Rate:
    """Multiply the rate by `factor` every so many steps."""
    _check_rate(lr, factor)
    every = _check_whole("step", "every", every)
    return lambda t: _times(lr, factor, t // every)


@_schedule
def multistep(lr: float, *, at: Sequence[int], factor: float = 0.1) -> Rate:
    """Multiply the rate by `factor` at certain steps."""
    _check_rate(lr, factor)
    at = _check_increasing("multistep", at)
    return lambda t: _times(lr, factor, bisect_right(at, t))


@_schedule
def exponential(lr: float, *, factor: float) -> Rate:
    """Multiply the rate by `factor` at each step."""
    _check_rate(lr, factor)
    return lambda t: _times(lr, factor, t)


def _times(lr: float, factor: float, n: int) -> float:
    try:
        return lr * float(factor) ** n  # of two ints it would be exact, and long
    except OverflowError:
        return math.inf


# -- along a curve


@_schedule
def linear(lr: float, *, steps: int, start: float = 1.0, end: float = 0.0) -> Rate:
    """Go from ``lr * start`` to ``lr * end`` on a straight line, which ends at step `steps`."""
    _check_rate(lr)
    _check_fraction("linear", start=start, end=end)
    steps = _check_whole("linear", "steps", steps)
    return lambda t: lr * (start + (end - start) * (min(t, steps) / steps))


@_schedule
def polynomial(lr: float, *, steps: int, power: float = 1.0, end: float = 0.0) -> Rate:
    """Go from ``lr`` to ``lr * end`` along (1 - t / steps)ᵖ, the power p of what is left of the steps."""
    _check_rate(lr)
    _check_fraction("polynomial", end=end)
    steps = _check_whole("polynomial", "steps", steps)
    check_number("power", power)
    if not power > 0 or not _is_finite(power):
        raise ValueError(f"polynomial expects a finite power above 0, got {power}")
    return lambda t: lr * (end + (1 - end) * (1 - min(t, steps) / steps) ** power)


@_schedule
def cosine(
    lr: float, *, steps: int, warmup: int = 0, restarts: int = 0, growth: int = 1, start: float = 0.01, end: float = 0.0
) -> Rate:
    """Go from ``lr`` to ``lr * end`` along half a cosine; with restarts, several times.

    Parameters
    ----------
    lr
        The highest rate.
    steps
        Steps of a descent; of the first one, if they grow.
    warmup
        Steps of a linear rise from ``lr * start`` before it, as by `gpubp.optim.schedules.warmup`.
    restarts
        How often the rate jumps up to `lr` again.
    growth
        How many times longer each descent is than the one before.
    start, end
        The first and the last rate, as fractions of `lr`.

    Notes
    -----
    Loshchilov, Hutter, "SGDR: stochastic gradient descent with warm restarts", 2017.
    """
    _check_rate(lr)
    _check_fraction("cosine", end=end)
    steps, restarts = _check_whole("cosine", "steps", steps), _check_whole("cosine", "restarts", restarts, 0)
    growth = _check_whole("cosine", "growth", growth)

    def rate(t: int) -> float:
        length, left = steps, restarts
        if growth == 1:
            t -= length * min(t // length, left)
        else:
            while left and t >= length:
                t, length, left = t - length, length * growth, left - 1
        return lr * _along_cosine(1.0, end, min(t / length, 1.0))

    return _makers["warmup"](rate, warmup, start=start).rate


@_schedule
def one_cycle(
    lr: float,
    *,
    steps: int,
    rise: float = 0.3,
    start: float = 1 / 25,
    end: float = 1 / 25e4,
    shape: str = "cosine",
    three_phases: bool = False,
) -> Rate:
    """Rise to ``lr`` and fall far below where it began, within `steps` steps.

    Parameters
    ----------
    lr
        The highest rate.
    steps
        All steps, at least 2.
    rise
        The share of them in which the rate rises.
    start, end
        The first and the last rate, as fractions of `lr`.
    shape
        ``"cosine"`` or ``"linear"``.
    three_phases
        Whether the rate first falls back to ``lr * start``, as fast as it rose, and from there to ``lr * end``.

    Notes
    -----
    Smith, Topin, "Super-convergence: very fast training of neural networks using large learning rates", 2019. It is
    PyTorch's ``OneCycleLR`` without the cycle of the momentum.
    """
    _check_rate(lr)
    _check_fraction("one_cycle", start=start, end=end)
    steps = _check_whole("one_cycle", "steps", steps, 2)
    if shape not in ("cosine", "linear"):
        raise ValueError(f"one_cycle expects shape='cosine' or 'linear', got {shape!r}")
    most = 0.5 if three_phases else 1.0
    check_number("rise", rise)
    if not 0 < rise <= most:
        raise ValueError(f"one_cycle expects a rise above 0 and up to {most} of the steps, got {rise}")
    along = _along_cosine if shape == "cosine" else _along_line
    points = [(0.0, start), (rise * steps - 1, 1.0), (2 * rise * steps - 2, start), (steps - 1.0, end)]
    if not three_phases:
        del points[2]

    def rate(t: int) -> float:
        for (since, before), (until, after) in pairwise(points):
            if t < until:
                return lr * along(before, after, (t - since) / (until - since))
        return lr * end

    return rate


def _along_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


def _along_line(start: float, end: float, share: float) -> float:
    return start + (end - start) * share


# -- parts


def _as_schedule(rate: Any) -> Rate:
    if isinstance(rate, Real):
        return constant(float(rate))
    if not callable(rate):
        raise TypeError(f"a schedule is a function of the step number, or a number, got {rate!r}")
    return rate  # type: ignore[no-any-return]


def _described(value: Any) -> Any:
    if isinstance(value, Schedule):
        return value.to_dict()
    if isinstance(value, str | bool):
        return value
    if isinstance(value, Real):
        return int(value) if isinstance(value, Integral) else float(value)
    if isinstance(value, Sequence):
        return [_described(part) for part in value]
    raise TypeError(f"{value!r} cannot be described: only the schedules of gpubp.optim.schedules can")


def _made(value: Any) -> Any:
    if isinstance(value, Mapping):
        return from_dict(value)
    return [_made(part) for part in value] if isinstance(value, list) else value


def _is_finite(value: Any) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # of an int that no float holds
        return False


def _check_rate(lr: Any, factor: Any = 1.0) -> None:
    check_number("lr", lr)
    check_number("factor", factor)
    if not lr >= 0 or not _is_finite(lr):
        raise ValueError(f"lr must be finite and not negative, got {lr}")
    if not factor > 0 or not _is_finite(factor):
        raise ValueError(f"factor must be finite and above 0, got {factor}")


def _check_fraction(schedule: str, **fractions: Any) -> None:
    for name, value in fractions.items():
        check_number(name, value)
        if not value >= 0 or not _is_finite(value):
            raise ValueError(f"{schedule} expects {name} to be a fraction of lr, from 0, got {value}")


def _check_whole(schedule: str, name: str, value: Any, least: int = 1) -> int:
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise TypeError(f"{schedule} expects {name} to be a whole number of steps, got {value!r}")
    if not least <= int(value) <= 2**53:
        raise ValueError(f"{schedule} expects {name} to be at least {least} and at most 2**53, got {value}")
    return int(value)


def _check_increasing(schedule: str, at: Any) -> list[int]:
    steps = [_check_whole(schedule, "each of `at`", t) for t in at] if isinstance(at, Sequence) else []
    if not steps or any(b <= a for a, b in pairwise(steps)):
        raise ValueError(f"{schedule} expects `at` to be increasing step numbers, got {at!r}")
    return steps
