"""What a run does beside its steps: stop early, lower the learning rate, write its figures to a file."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.checks import check_at_least
from ..device import raw_namespace
from ..functions.update import check_number
from ..nn.surgery import load_state, state_of
from .files import write_atomically

if TYPE_CHECKING:
    from .run import Run

__all__ = ["CSVLog", "Callback", "EarlyStopping", "JSONLines", "ReduceOnPlateau"]


class Callback:
    """Is told what a run does; its methods do nothing here. Derive a class and write those that are wanted.

    Each is given the `Run`, with net, optimizer, position and history; ``run.stop(reason)`` ends it after the step. It
    stays ended when it is resumed, unless `on_start` sets ``run.history.stopped`` to None.
    """

    def on_start(self, run: Run) -> None:
        """Before the first step (``run.step`` is 0); or, of a resumed run, after `load_state`, before the next one."""

    def on_step(self, run: Run) -> None:
        """After each step. ``run.value`` is its loss, where the net is: reading it waits for the device."""

    def on_report(self, run: Run) -> None:
        """After each new row of the history, ``run.history[-1]``: at the end of an epoch, or every so many steps."""

    def on_end(self, run: Run) -> None:
        """After the last step, unless an error has ended the run."""

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint must keep, by name: arrays, and what JSON can hold."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` returned."""


class _Monitor:
    """Says of a figure whether it is better than the best one before, by more than a threshold."""

    def __init__(self, monitor: str, maximize: bool | None, threshold: float) -> None:
        if not isinstance(monitor, str):
            raise TypeError(f"monitor must be the name of a figure, as 'val_loss', got {monitor!r}")
        check_number("threshold", threshold)
        if not threshold >= 0:
            raise ValueError(f"threshold must not be negative, got {threshold}")
        self.name, self.threshold = monitor, threshold
        self.sign = -1 if (is_score(monitor) if maximize is None else maximize) else 1
        self.clear()

    def clear(self) -> None:
        self.best, self.waited = math.inf, 0

    def improved(self, row: Mapping[str, Any]) -> bool:
        """Note a row's figure, and how many rows it is since the best; one that is NaN is no improvement."""
        value = row.get(self.name)
        if not isinstance(value, float):
            known = ", ".join(name for name, x in row.items() if isinstance(x, float))
            raise ValueError(f"there is no figure {self.name!r} to monitor in the history: there are {known}")
        better = self.sign * value < self.best - self.threshold
        self.best = self.sign * value if better else self.best
        self.waited = 0 if better else self.waited + 1
        return better

    def state(self) -> dict[str, Any]:
        return {"best": self.best if math.isfinite(self.best) else None, "waited": self.waited}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.best = math.inf if state["best"] is None else state["best"]
        self.waited = state["waited"]


def is_score(name: str) -> bool:
    """Whether a figure of this name is the better the larger it is."""
    kind = name.removeprefix("val_").partition("[")[0].partition("_")[0]
    return kind in ("accuracy", "f1", "precision", "recall", "r2") or kind.startswith("top")


class EarlyStopping(Callback):
    """Ends a run whose figure has not got better for some rows, and gives the net its best values back.

    Parameters
    ----------
    monitor
        The figure, a name in the history's rows.
    patience
        So many rows in a row without a better one end the run.
    threshold
        By how much a figure must be better.
    maximize
        Whether larger is better; by default that follows from the name: of a score such as ``"val_accuracy"`` it is.
    restore
        Whether the net (and the average, if there is one) gets the values of the best row back when the run ends.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        *,
        patience: int = 5,
        threshold: float = 0.0,
        maximize: bool | None = None,
        restore: bool = True,
    ) -> None:
        check_at_least(1, "patience", patience)
        self.monitor, self.patience, self.restore = monitor, patience, restore
        self._monitor, self._best = _Monitor(monitor, maximize, threshold), dict[str, Any]()

    def on_start(self, run: Run) -> None:
        if run.step == 0:
            self._monitor.clear()
            self._best = {}

    def on_report(self, run: Run) -> None:
        if self._monitor.improved(run.history[-1]):
            if self.restore:
                found = state_of(run.nets)
                self._best = {path: raw_namespace(x).asarray(x, copy=True) for path, x in found.items()}
        elif self._monitor.waited >= self.patience:
            run.stop(f"{self._monitor.name} has not got better for {self.patience} rows")

    def on_end(self, run: Run) -> None:
        if self._best and not run.history.interrupted:
            load_state(run.nets, self._best, "the best state", "state")

    def state(self) -> dict[str, Any]:
        return self._monitor.state() | {f"net {path}": x for path, x in self._best.items()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self._monitor.load_state(state)
        self._best = {name.removeprefix("net "): x for name, x in state.items() if name.startswith("net ")}


class ReduceOnPlateau(Callback):
    """Lowers all learning rates whenever a figure has not got better for some rows.

    As PyTorch's ``ReduceLROnPlateau``, with ``threshold_mode="abs"``.

    Parameters
    ----------
    monitor, threshold, maximize
        As in `EarlyStopping`.
    factor
        By what the learning rate is multiplied.
    patience
        So many rows without a better one are borne; at the next it is lowered.
    cooldown
        So many rows after that are not counted.
    min_lr
        It is not lowered further.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        *,
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 0.0,
        cooldown: int = 0,
        min_lr: float = 0.0,
        maximize: bool | None = None,
    ) -> None:
        for name, value in (("factor", factor), ("patience", patience), ("cooldown", cooldown), ("min_lr", min_lr)):
            check_number(name, value)
            if value < 0:
                raise ValueError(f"{name} must not be negative, got {value}")
        if not 0 < factor < 1:
            raise ValueError(f"factor must be between 0 and 1, got {factor}")
        self.monitor, self.factor, self.patience = monitor, factor, patience
        self.cooldown, self.min_lr = cooldown, min_lr
        self._monitor, self._resting, self._lr_factor = _Monitor(monitor, maximize, threshold), 0, 1.0

    def on_start(self, run: Run) -> None:
        if self.min_lr and callable(run.opt.lr):
            raise TypeError("min_lr is the least value of a learning rate that is a number; here it is a schedule")
        if run.step == 0:
            self._monitor.clear()
            self._resting, self._lr_factor = 0, run.opt.lr_factor
        run.opt.lr_factor = self._lr_factor

    def on_report(self, run: Run) -> None:
        self._monitor.improved(run.history[-1])
        if self._resting:
            self._resting, self._monitor.waited = self._resting - 1, 0
        if self._monitor.waited > self.patience:
            before, lr = run.opt.lr_factor, run.opt.lr
            least = self.min_lr / lr if self.min_lr and lr else 0.0
            run.opt.lr_factor = min(before, max(before * self.factor, least))
            self._resting, self._monitor.waited = self.cooldown, 0
        self._lr_factor = run.opt.lr_factor

    def state(self) -> dict[str, Any]:
        return self._monitor.state() | {"resting": self._resting, "lr_factor": self._lr_factor}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self._monitor.load_state(state)
        self._resting, self._lr_factor = state["resting"], state["lr_factor"]


class _Log(Callback):
    """Keeps a file with a line for each row of the history; a resumed run writes it anew as far as it had come."""

    def __init__(self, file: str | os.PathLike[str]) -> None:
        if not isinstance(file, str | os.PathLike):
            raise TypeError(f"{type(self).__name__} expects the name of a file, got {type(file).__name__}")
        self.file = Path(file)

    def on_start(self, run: Run) -> None:
        write_atomically(self.file, "".join(self.lines(row, k) for k, row in enumerate(run.history)).encode())

    def on_report(self, run: Run) -> None:
        with open(self.file, "a", encoding="utf-8", newline="") as stream:
            stream.write(self.lines(run.history[-1], len(run.history) - 1))

    def lines(self, row: Mapping[str, Any], k: int) -> str:
        """Return the text for row `k`."""
        raise NotImplementedError


class CSVLog(_Log):
    """Writes the history to a CSV file, row by row, below the names of its figures.

    Parameters
    ----------
    file
        Its name. Whatever is there is written over.
    """

    def lines(self, row: Mapping[str, Any], k: int) -> str:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        if k == 0:
            self._names = list(row)
            writer.writerow(self._names)
        values = [row.get(name, "") for name in self._names]  # a run that is resumed may have other metrics
        writer.writerow([json.dumps(x) if isinstance(x, list) else x for x in values])
        return text.getvalue()


class JSONLines(_Log):
    """Writes the history to a file, each row a line that is a JSON object; NaN and infinity become null.

    Parameters
    ----------
    file
        Its name. Whatever is there is written over.
    """

    def lines(self, row: Mapping[str, Any], k: int) -> str:
        return json.dumps({name: _jsonable(x) for name, x in row.items()}, allow_nan=False) + "\n"


def _jsonable(x: Any) -> Any:
    if isinstance(x, list):
        return [_jsonable(part) for part in x]
    return None if isinstance(x, float) and not math.isfinite(x) else x
