"""``gpubp train`` and ``gpubp resume``."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from .. import nn
from ..device import device
from ..training import Callback, Checkpoints, JSONLines, NotFinite, fit, save
from .nets import net_of, own_faults
from .problems import INTERRUPTED, OK, BadInput, Failure, mistakes, told
from .recipe import callbacks, loss_of, optimizer, precision
from .report import Report, curves, figures
from .runs import RunFolder
from .settings import settings_of
from .task import Task, measured

__all__ = ["resume", "train"]


def train(args: argparse.Namespace) -> int:
    """Learn from a file or a data set, and keep what was learned in a run folder."""
    report = Report(quiet=args.quiet, as_json=args.json)
    settings = settings_of(vars(args), args.config)
    settings = replace(settings, out=settings.out or str(Path("runs", _name(settings.data)).absolute()))
    folder = RunFolder(settings.out or "")
    folder.check_free(args.overwrite)
    task = Task(settings, report)
    net = _net(task, report)
    with mistakes():
        folder.create(task.settings, task.encoding)
    return _run(task, net, folder, report, resumed=False)


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
    task = Task(settings, report, encoding)
    return _run(task, _net(task, report), folder, report, resumed=True)


def _name(data: str) -> str:
    name = Path(data).resolve().name
    return name.partition(".")[0] or "run"


def _net(task: Task, report: Report) -> Any:
    settings, shape = task.settings, task.train.inputs.shape[1:]
    with mistakes():
        where = device(settings.device, verbose=not report.quiet)
    net = net_of(settings, shape, task.encoding.outputs, task.encoding.task).to(where)
    report.say(nn.summary(net, (settings.batch_size, *shape)) + "\n")
    return net


def _run(task: Task, net: Any, folder: RunFolder, report: Report, *, resumed: bool) -> int:
    settings, start = task.settings, time.perf_counter()
    opt = optimizer(net, settings, (settings.epochs or 1) * task.steps)
    try:
        with own_faults(settings), np.errstate(over="ignore", invalid="ignore"):
            history = fit(
                net, loss_of(task.encoding.task), opt, task.train.pair,
                epochs=settings.epochs, batch_size=settings.batch_size or 1,
                validation=task.validation.pair if len(task.validation) else None,
                metrics=("accuracy",) if task.encoding.classes else ("r2",),
                callbacks=[*callbacks(settings, len(task.validation) > 0), JSONLines(folder.metrics), _Tell(report)],
                seed=settings.seed, nonfinite=settings.nonfinite, precision=precision(settings),
                checkpoint=Checkpoints(folder.checkpoints, every=_every(task)), resume=resumed,
                balance=1 if settings.balance else None, last=task.last, progress=report.is_shown,
            )  # fmt: skip
    except NotFinite as error:
        raise Failure(str(error).replace("fit(nonfinite='skip')", "--nonfinite skip")) from None
    except OSError as error:
        raise _unwritten(error, folder) from None
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


def _finish(
    task: Task, folder: RunFolder, report: Report, net: Any, history: Sequence[dict[str, Any]], seconds: float
) -> None:
    test = task.test if len(task.test) else task.train
    found = measured(net, task.encoding, test, task.settings)
    name = "test" if len(task.test) else "training"
    try:
        save(net, folder.model)
        drawn = curves(history, folder.curves)
        if not drawn:
            report.say("no curves.png: matplotlib is not installed (pip install 'gpubp[plot]')")
        folder.write(folder.result, {name: found, "rows": len(test), "seconds": round(seconds, 3)})
    except OSError as error:
        raise _unwritten(error, folder) from None
    report.tell("result", run=folder.path, seconds=seconds, **{name: found})
    report.say(f"\ntrained in {seconds:.1f} s; {name}, {len(test)} rows: "
               + figures(found, task.encoding.classes, task.target))  # fmt: skip
    files = ["model.safetensors", "metrics.jsonl", "config.json", "encoding.json", "result.json"]
    report.say(f"saved in {folder.path}: {', '.join(files + ['curves.png'] * drawn)}")


def _unwritten(error: OSError, folder: RunFolder) -> Failure:
    return Failure(f"{told(error)}; when that is mended: gpubp resume {folder.path}")


class _Tell(Callback):
    """Tells programs about each epoch."""

    def __init__(self, report: Report) -> None:
        self._report = report

    def on_report(self, run: Any) -> None:
        self._report.tell("epoch", **run.history[-1])
