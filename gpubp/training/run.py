"""A run: where it is, and what happens between its steps."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import numpy as np

from ..data import Batches
from ..device import library, raw_namespace, to_numpy
from ..nn.surgery import mode
from .callbacks import Callback
from .checkpoint import Checkpoints
from .history import History, NotFinite, Place
from .interrupt import Interrupt
from .progress import Progress

__all__ = ["Run"]

READ_EVERY = 0.5  #: seconds after which losses are read from the device,
READ_AFTER = 1024  #: and steps after which they are at the latest
HOPELESS = 200  #: steps in a row that may be skipped


@dataclass
class _Sums:
    """Of the steps since the last row."""

    total: float = 0.0  # losses, each times its rows
    rows: int = 0
    skipped: int = 0

    def mean(self) -> float:
        return self.total / self.rows if self.rows else math.nan


class Run:
    """A training run, as callbacks see it.

    Attributes
    ----------
    net, opt, average
        What is trained, by what, and its average, if there is one.
    steps : int
        Steps of the whole run.
    history : History
        The rows so far.
    epoch, batch, step : int
        Epochs that are over, batches that the running one has had, and steps that were made.
    value : array or None
        The loss of the last step, where the net is; NaN where the step was not taken.
    """

    def __init__(
        self,
        net: Any,
        opt: Any,
        average: Any,
        *,
        take: Callable[..., Any],
        whole: Batches,
        batches: Callable[..., Batches],
        measure: Callable[[], Mapping[str, Any]],
        epochs: int | None,
        steps: int | None,
        accumulate: int,
        report_every: int | None,
        skips: bool,
        callbacks: Sequence[Callback],
        checkpoints: Checkpoints | None,
        settings: Mapping[str, Any],
    ) -> None:
        self.net, self.opt, self.average = net, opt, average
        self.callbacks = tuple(callbacks)
        self._on_step = [c.on_step for c in callbacks if type(c).on_step is not Callback.on_step]
        self._checkpoints, self._settings = checkpoints, settings
        self._take, self._batches, self._measure = take, batches, measure
        self._accumulate, self._report_every, self._skips = accumulate, report_every, skips
        self._length, self._size = len(whole), len(whole.rows(0))
        self._rows = (self._length - 1) * self._size + len(whole.rows(self._length - 1))
        self.steps = (epochs or 0) * math.ceil(self._length / accumulate) if steps is None else steps
        self.history, self.epoch, self.batch, self.step, self.value = History(), 0, 0, 0, None
        self._unread: list[Any] = []  # losses of the last steps
        self._read_to = 0  # so many batches of the epoch have losses that are read
        self._sums, self._skipped_in_a_row = _Sums(), 0

    def stop(self, reason: str) -> None:
        """End the run after this step."""
        self.history.stopped = str(reason)

    @property
    def is_over(self) -> bool:
        """Whether no step is left, or something has asked for the end."""
        return self.step >= self.steps or self.history.stopped is not None or self.history.interrupted

    @property
    def nets(self) -> list[Any]:
        """The net and, if there is one, that of the averages."""
        return [self.net] if self.average is None else [self.net, self.average.net]

    @property
    def samples(self) -> tuple[int, int]:
        """How many examples the run has learned from, and how many it will have at its end."""
        epochs, steps = divmod(self.steps, math.ceil(self._length / self._accumulate))
        return self._samples(self.epoch, self.batch), self._samples(epochs, steps * self._accumulate)

    def _samples(self, epochs: int, batches: int) -> int:
        return epochs * self._rows + min(batches * self._size, self._rows)

    @property
    def where(self) -> str:
        """Where the last step was, in words."""
        return f"epoch {self.epoch + (self.batch > 0)}, step {self.step}/{self.steps}"

    # -- steps, and what is between them

    def go(self, resume: bool, shown: bool) -> History:
        """Begin, or go on where the newest checkpoint was taken, and make all steps that are left."""
        resumed = resume and self._resume()
        for callback in self.callbacks:
            callback.on_start(self)
        with Interrupt() as interrupt, Progress.of(shown, *self.samples) as progress:
            if resume:
                progress.say(f"goes on after {self.where}" if resumed else "no checkpoint yet: from the beginning")
            self._go(progress, interrupt)
            if self.history.interrupted:
                advice = "resume=True goes on from there" if self._checkpoints else "without checkpoint= it is not kept"
                progress.say(f"stopped by Ctrl-C after {self.where}; {advice}")
        for callback in self.callbacks:
            callback.on_end(self)
        return self.history

    def _go(self, progress: Progress, interrupt: Interrupt) -> None:
        history, take, clock, checkpoints = self.history, self._take, time.monotonic, self._checkpoints
        read_at = clock() + READ_EVERY
        while not self.is_over:
            self._now = self._batches(epoch=self.epoch, start=self.batch)
            with mode(self.net, training=True), closing(self._steps_of(self._now)) as steps:
                for batches in steps:
                    self.value = take(*batches)
                    self._unread.append(self.value)
                    self.step += 1
                    self.batch += len(batches)
                    if self.batch == self._length:
                        self.read()  # while it is known which rows are in the epoch's batches
                        self.epoch, self.batch = self.epoch + 1, 0
                    for on_step in self._on_step:
                        on_step(self)
                    if at_row := self._is_row_due():
                        self._add_row(progress)
                    elif clock() >= read_at or len(self._unread) >= READ_AFTER:
                        self.read()
                        progress.show(self.where, self.samples[0], {"loss": self._sums.mean()})
                        read_at = clock() + READ_EVERY
                    history.interrupted = interrupt.asked
                    if checkpoints is not None:
                        self._keep(checkpoints, at_row)
                    if self.is_over:
                        break
        self.read()

    def _steps_of(self, batches: Batches) -> Generator[tuple[Any, ...], None, None]:
        """The batches of each step."""
        with closing(iter(batches)) as stream:
            while step := tuple(islice(stream, self._accumulate)):
                yield step

    def _keep(self, checkpoints: Checkpoints, at_row: bool) -> None:
        if checkpoints.is_due(self.step, at_row=at_row, at_epoch=self.batch == 0, at_end=self.is_over):
            row = self.history[-1] if at_row else {}
            checkpoints.save(self.step, self._parts, settings=self._settings, row=row)

    def _is_row_due(self) -> bool:
        if self.step == self.steps or self.history.stopped is not None:
            return True
        return self.batch == 0 if self._report_every is None else self.step % self._report_every == 0

    def _add_row(self, progress: Progress) -> None:
        self.read()
        row: dict[str, Any] = {"epoch": self.epoch + (self.batch > 0), "step": self.step, "loss": self._sums.mean()}
        if self._skips:
            row["skipped"] = self._sums.skipped
        self._sums = _Sums()
        row |= {name: x.tolist() if isinstance(x, np.ndarray) else x for name, x in self._measure().items()}
        self.history.append(row)
        progress.row(self.where, self.samples[0], row)
        if row.get("skipped"):
            progress.say(f"{row['skipped']} steps were skipped, not being finite: {self._skips_since()}")
        for callback in self.callbacks:
            callback.on_report(self)

    def _skips_since(self) -> str:
        before = self.history[-2]["step"] if len(self.history) > 1 else 0
        return "; ".join([str(place) for place in self.history.skips if place.step > before][:8]) or "..."

    # -- losses

    def read(self) -> None:
        """Read the losses that came since the last time, with one wait for the device, and see if all are finite."""
        values, self._unread = _numbers(self._unread), []
        first, self._read_to = self._read_to, self.batch % self._length
        for step, value in enumerate(values, self.step - len(values) + 1):
            end = min(first + self._accumulate, self._length)  # of the step's batches
            if math.isfinite(value):
                rows = min(end * self._size, self._rows) - first * self._size
                self._sums.total += value * rows
                self._sums.rows += rows
                self._skipped_in_a_row = 0
            else:
                rows_of = [self._now.rows(i) for i in range(first, end)]
                self._note_skipped(Place(self.epoch + 1, step, np.concatenate(rows_of).tolist()))
            first = end

    def _note_skipped(self, place: Place) -> None:
        self._sums.skipped += 1
        self._skipped_in_a_row += 1
        self.history.skipped += 1
        if len(self.history.skips) < self.history.KEPT:
            self.history.skips.append(place)
        if not self._skips or self._skipped_in_a_row >= HOPELESS:
            raise NotFinite(self._not_finite(place), place)

    def _not_finite(self, place: Place) -> str:
        before = f"; the mean loss before it was {self._sums.mean():.4g}" if self._sums.rows else ""
        many = f", the last of {HOPELESS} in a row" if self._skips else ""
        skip = "" if self._skips else "; fit(nonfinite='skip') leaves such steps out"
        net = "the net has the values from before that step"
        if not self._skips and int(to_numpy(self.opt.failed)) < 0:  # in a step of the user's own
            net = "the step was taken, as opt.step was not given the loss: opt.step(grads, value)"
        return (
            f"the loss or a gradient is not finite at {place}{many}; {net}{before}. Try a lower learning "
            f"rate, and look for overflow, logarithms of 0 and divisions by 0 in the loss and the net{skip}"
        )

    # -- files

    @property
    def _parts(self) -> dict[str, Any]:
        """What a checkpoint is made of."""
        parts = {"net": self.net, "opt": self.opt}
        if self.average is not None:
            parts["average"] = self.average
        parts |= {f"callbacks[{k}]: {type(c).__name__}": c for k, c in enumerate(self.callbacks)}
        return parts | {"run": self}

    def _resume(self) -> bool:
        """Go to where the newest checkpoint was taken, if there is one."""
        assert self._checkpoints is not None
        return self._checkpoints.resume(self._parts, settings=self._settings) is not None

    def state(self) -> dict[str, Any]:
        """Return where the run is and what it has found, as JSON can hold it."""
        self.read()
        history = self.history
        return {
            **{name: getattr(self, name) for name in ("epoch", "batch", "step")},
            "sums": asdict(self._sums),
            "skipped_in_a_row": self._skipped_in_a_row,
            "history": list(history),
            "stopped": history.stopped,
            "skipped": history.skipped,
            "skips": [list(place) for place in history.skips],
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go to where `state` was taken."""
        counts = [state[name] for name in ("epoch", "batch", "step", "skipped", "skipped_in_a_row")]
        epoch, batch, step, skipped, in_a_row = counts
        if not all(type(n) is int and n >= 0 for n in counts) or batch >= self._length:
            raise ValueError(f"there is no batch {batch} of {self._length} in epoch {epoch}, after step {step}")
        sums, history = _Sums(**state["sums"]), History(state["history"])
        history.stopped, history.skipped = state["stopped"], skipped
        history.skips = [Place(*place) for place in state["skips"]]
        self.epoch, self.batch, self._read_to, self.step = epoch, batch, batch, step
        self._sums, self._skipped_in_a_row, self.history = sums, in_a_row, history


def _numbers(values: list[Any]) -> list[float]:
    """Losses as numbers, read at once if they are on a device."""
    if not values or library(values[0]) == "numpy":
        return [float(value) for value in values]
    numbers: list[float] = to_numpy(raw_namespace(values[0]).stack(values)).tolist()
    return numbers
