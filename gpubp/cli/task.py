"""The rows of a run, and what is measured with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..data import batches
from ..device import device_of, to_numpy
from ..nn.surgery import mode
from ..training import evaluate
from ..tree import leaves
from .nets import own_faults
from .problems import BadInput, mistakes
from .reading import read
from .recipe import filled, loss_of, precision
from .report import Report
from .rows import Rows, check_has_targets
from .settings import Settings

__all__ = ["Part", "Task", "measured", "outputs_of", "split"]


@dataclass
class Part:
    """Rows with one purpose."""

    inputs: Any
    targets: Any

    @property
    def pair(self) -> tuple[Any, Any]:
        return self.inputs, self.targets

    def __len__(self) -> int:
        return len(self.targets)


class Task:
    """What a run learns from: the rows for training, validation and test, encoded.

    Parameters
    ----------
    settings
        Of the run; afterwards with all that follows from the data filled in.
    report
        Where to say what was found.
    encoding
        Of a run that is there already.
    """

    def __init__(self, settings: Settings, report: Report, encoding: Any = None) -> None:
        if settings.early_stopping is not None and not settings.validation_fraction:
            raise BadInput("--early-stopping needs rows for validation: --validation-fraction above 0")
        with mistakes():
            rows, own_test = read(settings.data, settings)
            if settings.test is not None:
                own_test, _ = read(settings.test, settings, like=rows)
                check_has_targets(own_test, settings.test)
            chosen, labels = rows.known(), rows.labels()
            if own_test is None:
                chosen, test = split(chosen, labels, settings.test_fraction, settings.seed)
            training, validation = split(chosen, labels, settings.validation_fraction, settings.seed + 1)
            if not len(training):
                raise BadInput(f"{settings.data}: of {len(rows)} rows none is left to learn from")
            self.encoding = rows.encode(training) if encoding is None else encoding
            self.train = self._part(rows, training)
            self.validation = self._part(rows, validation)
            self.test = self._part(rows, test) if own_test is None else self._part(own_test, own_test.known())
        if settings.balance and self.encoding.task == "regression":
            raise BadInput("--balance is for classes, but the task is regression")
        self.settings = filled(settings, len(training))
        size = self.settings.batch_size or 0
        if size > len(training):
            raise BadInput(f"--batch-size {size} is larger than the {len(training)} rows to learn from")
        self._tell(report, rows)

    def _part(self, rows: Rows, chosen: np.ndarray) -> Part:
        if not len(chosen):
            return Part(np.zeros((0, 1), np.float32), np.zeros(0))
        return Part(rows.inputs(self.encoding, chosen), rows.targets(self.encoding, chosen))

    def _tell(self, report: Report, rows: Rows) -> None:
        encoding, parts = self.encoding, {n: len(getattr(self, n)) for n in ("train", "validation", "test")}
        target = self.target
        report.tell("data", data=self.settings.data, rows=parts, task=encoding.task, classes=encoding.classes,
                    target=target, inputs=self.train.inputs.shape[1:])  # fmt: skip
        for note in (*rows.notes, *encoding.notes):
            report.say(f"note: {note}")
        shape = " x ".join(map(str, self.train.inputs.shape[1:]))
        report.say(f"{self.settings.data}: {parts['train']} rows to learn from, {parts['validation']} for validation, "
                   f"{parts['test']} to test with; {shape} inputs")  # fmt: skip
        how = "as told" if self.settings.task is not None else "inferred; --task says otherwise"
        what = f"classes: {_listed(encoding.classes)}" if encoding.classes else "numbers"
        report.say(f"target {target!r}, {what}; task {encoding.task} ({how})\n")

    @property
    def rows(self) -> int:
        """How many rows an epoch has."""
        if not self.settings.balance:
            return len(self.train)
        counts = np.bincount(self.train.targets)
        return int(counts.max() * np.count_nonzero(counts))

    @property
    def last(self) -> str:
        """What becomes of the last batch: of one row alone batch normalization has no variance."""
        normalizes = self.settings.batch_norm or self.settings.model is not None
        size = self.settings.batch_size or 1
        return "drop" if normalizes and self.rows % size == 1 and 1 < size < self.rows else "keep"

    @property
    def steps(self) -> int:
        """How many steps an epoch has."""
        rows = self.rows
        size = self.settings.batch_size or 1
        return rows // size if self.last == "drop" else -(-rows // size)

    @property
    def target(self) -> str:
        """Name of the target."""
        return getattr(self.encoding, "target", None) or self.settings.target or "y"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:12]) + (f", ... ({len(names)})" if len(names) > 12 else "")


def split(chosen: np.ndarray, labels: np.ndarray | None, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Part the chosen rows in two; the second part has this fraction of them, of every label alike.

    The order is drawn from raw Philox words, the same on every machine.
    """
    if fraction == 0:
        return chosen, chosen[:0]
    strata = np.zeros(len(chosen), np.int64) if labels is None else labels[chosen]
    words = np.random.Philox(key=np.array([seed, 2**62], np.uint64)).random_raw(len(chosen))
    second = np.zeros(len(chosen), bool)
    order = np.lexsort((words, strata))
    # Of rows sorted by label those at equal distances: of each label its share, and of all the right number.
    places = np.floor((np.arange(round(fraction * len(chosen))) + 0.5) / fraction).astype(np.int64)
    second[order[np.minimum(places, len(chosen) - 1)]] = True
    return chosen[~second], chosen[second]


def measured(net: Any, encoding: Any, part: Part, settings: Settings) -> dict[str, Any]:
    """Return loss and metrics of rows; of regression in the target's own unit."""
    metrics = ("accuracy", "f1", "confusion") if encoding.classes else ("r2", "mae", "rmse")
    with own_faults(settings):
        found = evaluate(
            net, loss_of(encoding.task), part.pair, metrics=metrics, precision=precision(settings)
        )  # fmt: skip
    deviation = getattr(encoding, "answers", encoding).deviation
    for name in ("mae", "rmse"):
        if name in found:
            found[name] *= deviation
    return {name: x.tolist() if isinstance(x, np.ndarray) else x for name, x in found.items()}


def outputs_of(net: Any, inputs: Any) -> np.ndarray:
    """Return a net's outputs for all rows, on the host."""
    like = leaves(net)[0]
    with mode(net, training=False):
        parts = [
            to_numpy(net(x))
            for (x,) in batches((inputs,), 1024, device=device_of(like), dtype=str(like.dtype).rpartition(".")[2])
        ]
    return np.concatenate(parts)
