"""``gpubp train`` and ``gpubp resume``."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from .. import losses, nn, optim
from ..data import batches
from ..device import Device, device, device_of, to_numpy
from ..nn.surgery import mode
from ..optim import schedules
from ..training import (
    Callback,
    Checkpoints,
    EarlyStopping,
    JSONLines,
    NotFinite,
    ReduceOnPlateau,
    evaluate,
    fit,
    save,
)
from ..tree import leaves
from .nets import net_of, own_faults
from .problems import INTERRUPTED, OK, BadInput, Failure, mistakes, told
from .report import Report, curves, figures
from .rows import Rows, check_has_targets, read, split
from .runs import RunFolder
from .settings import Settings, settings_of

__all__ = ["Task", "measured", "outputs_of", "resume", "train"]

MANY = 10_000  #: training rows from which on passes are fewer and batches larger
#: Classes, learning rates and options of the optimizers.
OPTIMIZERS: dict[str, tuple[str, float, dict[str, Any]]] = {
    "sgd": ("SGD", 0.05, {"momentum": 0.9}),
    "adagrad": ("Adagrad", 0.02, {}),
    "rmsprop": ("RMSprop", 1e-3, {}),
    "adam": ("Adam", 2e-3, {}),
    "adamw": ("AdamW", 2e-3, {}),
    "lion": ("Lion", 3e-4, {}),
    "muon": ("Muon", 2e-3, {}),
}
DECAYING = ("adamw", "lion", "muon")
FORGETTING = 2.0  #: by which exponent weight decay alone would shrink weights in a run, at the full learning rate


def train(args: argparse.Namespace) -> int:
    """Learn from a file or a data set, and keep what was learned in a run folder."""
    report = Report(quiet=args.quiet, as_json=args.json)
    settings = settings_of(vars(args), args.config)
    settings = replace(settings, out=settings.out or str(Path("runs", _name(settings.data)).absolute()))
    folder = RunFolder(settings.out or "")
    folder.check_free(args.overwrite)
    task = Task(settings, report)
    with mistakes():
        folder.create(task.settings, task.encoding)
    return _run(task, folder, report, resumed=False)


def resume(args: argparse.Namespace) -> int:
    """Go on with a run that was interrupted, from its newest whole checkpoint."""
    report = Report(quiet=args.quiet, as_json=args.json)
    folder = RunFolder(args.run_folder)
    settings, encoding = folder.read()
    if args.device is not None:
        settings = replace(settings, device=args.device)
    if folder.result.exists():
        report.say(f"{folder.path} is complete: there is nothing to go on with")
        report.tell("complete", run=folder.path)
        return OK
    return _run(Task(settings, report, encoding), folder, report, resumed=True)


def _name(data: str) -> str:
    name = Path(data).resolve().name
    return name.partition(".")[0] or "run"


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
        self.settings = _filled(settings, len(training))
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


def _filled(settings: Settings, rows: int) -> Settings:
    """Fill in what follows from the number of training rows.

    The weight decay is such that weights forget over the same share of a run, however long: Wang, Aitchison, "How to
    set AdamW's weight decay as you scale model and dataset size", 2024.
    """
    given = {name: x for name, x in vars(settings).items() if x is not None}
    epochs = given.setdefault("epochs", 30 if rows < MANY else 10)
    size = given.setdefault("batch_size", min(32 if rows < MANY else 128, rows))
    lr = given.setdefault("lr", OPTIMIZERS[settings.optimizer][1])
    steps = epochs * -(-rows // size)
    given.setdefault("checkpoint_every", 10 if rows < MANY else 1)
    decay = float(f"{FORGETTING / (lr * steps):.2g}") if settings.optimizer in DECAYING else 0.0
    given.setdefault("weight_decay", decay)
    return replace(settings, **given)


# -- the run


def _run(task: Task, folder: RunFolder, report: Report, *, resumed: bool) -> int:
    settings, start = task.settings, time.perf_counter()
    with mistakes():
        where = device(settings.device, verbose=not report.quiet)
    net = _net(task, folder, where)
    inputs = task.train.inputs
    report.say(nn.summary(net, (settings.batch_size, *inputs.shape[1:])) + "\n")
    try:
        with own_faults(settings), np.errstate(over="ignore", invalid="ignore"):
            history = fit(
                net, loss_of(task.encoding.task), _optimizer(net, task), task.train.pair,
                epochs=settings.epochs, batch_size=settings.batch_size or 1,
                validation=task.validation.pair if len(task.validation) else None,
                metrics=("accuracy",) if task.encoding.classes else ("r2",),
                callbacks=[*_callbacks(settings, len(task.validation)), JSONLines(folder.metrics), _Tell(report)],
                seed=settings.seed, nonfinite=settings.nonfinite, precision=_precision(settings),
                checkpoint=Checkpoints(folder.checkpoints, every=_every(task)), resume=resumed,
                balance=1 if settings.balance else None, last=task.last, progress=report.is_shown,
            )  # fmt: skip
    except NotFinite as error:
        raise Failure(str(error).replace("fit(nonfinite='skip')", "--nonfinite skip")) from None
    except OSError as error:
        raise Failure(f"{told(error)}; when that is mended: gpubp resume {folder.path}") from None
    except ValueError as error:  # such as of a checkpoint that is not whole
        raise BadInput(str(error)) from None
    if history.interrupted:
        report.tell("interrupted", run=folder.path)
        report.warn(f"stopped by Ctrl-C; to go on: gpubp resume {folder.path}")
        return INTERRUPTED
    if history.stopped:
        report.say(f"stopped early: {history.stopped}")
    _finish(task, folder, report, net, history, time.perf_counter() - start)
    return OK


def _every(task: Task) -> int | str:
    every = task.settings.checkpoint_every or 1
    return "epoch" if every == 1 else every * task.steps


def _net(task: Task, folder: RunFolder, where: Device) -> Any:
    return net_of(task.settings, task.train.inputs.shape[1:], task.encoding.outputs, task.encoding.task).to(where)


def _finish(
    task: Task, folder: RunFolder, report: Report, net: Any, history: Sequence[dict[str, Any]], seconds: float
) -> None:
    test = task.test if len(task.test) else task.train
    found = measured(net, task.encoding, test, task.settings)
    name = "test" if len(task.test) else "training"
    try:
        save(net, folder.model)
        if not curves(history, folder.curves):
            report.say("no curves.png: matplotlib is not installed (pip install 'gpubp[plot]')")
        folder.write(folder.result, {name: found, "rows": len(test), "seconds": round(seconds, 3)})
    except OSError as error:
        raise Failure(told(error)) from None
    report.tell("result", run=folder.path, seconds=seconds, **{name: found})
    report.say(f"\ntrained in {seconds:.1f} s; {name}, {len(test)} rows: "
               + figures(found, task.encoding.classes, task.target))  # fmt: skip
    report.say(f"saved in {folder.path}: model.safetensors, metrics.jsonl, config.json, encoding.json")


def loss_of(task: str) -> Any:
    """Return the loss of a task."""
    if task == "regression":
        return lambda net, x, y: losses.mse(net(x), y)
    return lambda net, x, y: losses.softmax_cross_entropy(net(x), y)


def _precision(settings: Settings) -> str | None:
    return None if settings.precision == "float32" else settings.precision


def _optimizer(net: Any, task: Task) -> Any:
    s = task.settings
    name, _, options = OPTIMIZERS[s.optimizer]
    lr = _schedule(s, (s.epochs or 1) * task.steps)
    return getattr(optim, name)(net, lr, weight_decay=s.weight_decay, clip_norm=s.clip_norm, **options)


def _schedule(s: Settings, steps: int) -> Any:
    lr, rest = s.lr or 0.0, max(1, steps - s.warmup)
    made: dict[str, Any] = {
        "constant": lambda: lr,
        "plateau": lambda: lr,
        "cosine": lambda: schedules.cosine(lr, steps=rest),
        "one-cycle": lambda: schedules.one_cycle(lr, steps=rest),
        "linear": lambda: schedules.linear(lr, steps=rest),
        "exponential": lambda: schedules.exponential(lr, factor=0.01 ** (1 / rest)),
        "step": lambda: schedules.step(lr, every=max(1, rest // 3)),
    }
    found = made[s.schedule]()
    return schedules.warmup(found, s.warmup) if s.warmup else found


def _callbacks(settings: Settings, validation: int) -> list[Callback]:
    found: list[Callback] = []
    if settings.schedule == "plateau":
        found.append(ReduceOnPlateau("val_loss" if validation else "loss", patience=3))
    if settings.early_stopping is not None:
        found.append(EarlyStopping("val_loss", patience=settings.early_stopping))
    return found


class _Tell(Callback):
    """Tells programs about each epoch."""

    def __init__(self, report: Report) -> None:
        self._report = report

    def on_report(self, run: Any) -> None:
        self._report.tell("epoch", **run.history[-1])


# -- figures


def measured(net: Any, encoding: Any, part: Part, settings: Settings) -> dict[str, Any]:
    """Return loss and metrics of rows; of regression in the target's own unit."""
    metrics = ("accuracy", "f1", "confusion") if encoding.classes else ("r2", "mae", "rmse")
    with own_faults(settings):
        found = evaluate(
            net, loss_of(encoding.task), part.pair, metrics=metrics, precision=_precision(settings)
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
