"""``gpubp predict`` and ``gpubp evaluate``: a trained net and rows of a file."""

from __future__ import annotations

import argparse
import csv
import io
import sys
from dataclasses import replace
from typing import Any

import numpy as np

from ..data import Encoding
from ..device import device
from ..training import load
from ..training.files import write_atomically
from .nets import net_of, own_faults
from .problems import OK, BadInput, Failure, mistakes, told
from .reading import read
from .report import Report, figures
from .rows import ArrayEncoding, TableRows, check_has_targets
from .runs import RunFolder
from .settings import Settings
from .task import Part, Task, measured, outputs_of

__all__ = ["evaluate", "predict"]


def predict(args: argparse.Namespace) -> int:
    """Write predictions for the rows of a file as CSV."""
    report = Report(quiet=args.quiet, as_json=args.json)
    settings, encoding, net = _trained(args)
    with mistakes():
        found, test = read(args.file, settings, like=encoding, targets=False)
        rows = found if test is None else test
        inputs = rows.inputs(encoding)
    if isinstance(rows, TableRows) and isinstance(encoding, Encoding):
        for name, count in encoding.unknown(rows.table).items():
            report.warn(f"column {name!r}: {count} cells hold values that the net has not learned from; they count as "
                        "none of the known ones")  # fmt: skip
    with own_faults(settings):
        columns = rows.columns(np.arange(len(rows))) | encoding.decode(outputs_of(net, inputs))
    if args.json:
        for values in zip(*columns.values(), strict=True):
            report.tell("row", **dict(zip(columns, values, strict=True)))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*(_spelled(values) for values in columns.values()), strict=True))
    if args.out is None:
        if not args.json:
            sys.stdout.write(text.getvalue())
        return OK
    try:
        write_atomically(args.out, text.getvalue().encode())
    except OSError as error:
        raise Failure(told(error)) from None
    report.say(f"{len(rows)} predictions in {args.out}")
    return OK


def _spelled(values: Any) -> Any:
    return [f"{x:.7g}" for x in values] if getattr(values, "dtype", None) == np.float64 else values


def evaluate(args: argparse.Namespace) -> int:
    """Print the figures of a trained net: of a file, or of the rows that its run has kept to test with."""
    report = Report(quiet=args.quiet, as_json=args.json)
    settings, encoding, net = _trained(args)
    if args.target is not None:
        settings = replace(settings, target=args.target)
    if args.file is None:
        part = Task(settings, Report(quiet=True), encoding).test
        if not len(part):
            raise BadInput(f"the run has kept no rows to test with: name a file, gpubp evaluate {args.run_folder} FILE")
    else:
        with mistakes():
            found, test = read(args.file, settings, like=encoding)
            rows = found if test is None else test
            check_has_targets(rows, args.file)
            known = rows.known()
            part = Part(rows.inputs(encoding, known), rows.targets(encoding, known))
        if not len(part):
            raise BadInput(f"{args.file} has no rows whose target is known")
    result = measured(net, encoding, part, settings)
    report.tell("result", rows=len(part), **result)
    target = getattr(encoding, "target", None) or settings.target or "y"
    report.say(f"{len(part)} rows: {figures(result, encoding.classes, target)}")
    return OK


def _trained(args: argparse.Namespace) -> tuple[Settings, Any, Any]:
    """Return settings, encoding and net of a run folder."""
    folder = RunFolder(args.run_folder)
    settings, encoding = folder.read()
    if not folder.model.is_file():
        raise BadInput(f"{folder.path} has no model.safetensors yet: gpubp resume {folder.path}")
    with mistakes():
        where = device(args.device or settings.device, verbose=not args.quiet)
    shape = encoding.shape if isinstance(encoding, ArrayEncoding) else (len(encoding.features),)
    net = net_of(settings, shape, encoding.outputs, encoding.task)
    with mistakes():
        load(folder.model, net)
    return settings, encoding, net.to(where)
