"""What a command says: in words, as one JSON object a line, or not at all."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["Report", "confusion_table", "curves", "figures"]


class Report:
    """Where a command's words go.

    Parameters
    ----------
    quiet
        Say nothing on stdout.
    as_json
        Say everything as JSON objects.
    """

    def __init__(self, *, quiet: bool = False, as_json: bool = False) -> None:
        self.quiet, self.as_json = quiet, as_json

    @property
    def is_shown(self) -> bool:
        """Whether people read along."""
        return not (self.quiet or self.as_json)

    def say(self, text: str) -> None:
        """Print a text for people."""
        if self.is_shown:
            print(text, flush=True)

    def tell(self, event: str, **fields: Any) -> None:
        """Print what happened for programs."""
        if self.as_json:
            print(json.dumps({"event": event} | plain(fields), allow_nan=False), flush=True)

    def warn(self, text: str) -> None:
        """Print a warning to stderr."""
        print(f"gpubp: {text}", file=sys.stderr, flush=True)


def plain(x: Any) -> Any:
    """Return what JSON can hold: NaN and infinity become null."""
    if isinstance(x, Mapping):
        return {str(name): plain(part) for name, part in x.items()}
    if isinstance(x, list | tuple):
        return [plain(part) for part in x]
    if isinstance(x, np.ndarray | np.generic):
        return plain(x.tolist())
    return None if isinstance(x, float) and not math.isfinite(x) else str(x) if isinstance(x, Path) else x


def figures(found: Mapping[str, Any], classes: Sequence[str], unit: str) -> str:
    """Return measured figures in words: of classes with a table of confusions, of numbers in the target's unit."""
    if "accuracy" in found:
        lines = [f"accuracy {found['accuracy']:.2%}, F1 {found['f1']:.4f}, loss {found['loss']:.4f}"]
        return "\n".join([*lines, *confusion_table(np.asarray(found["confusion"]), classes)])
    return f"R² {found['r2']:.4f}, mean absolute error {found['mae']:.5g} (of {unit}), RMSE {found['rmse']:.5g}"


def confusion_table(counts: np.ndarray, classes: Sequence[str]) -> list[str]:
    """Return a table of how many of each class, a row, were taken for each class, a column."""
    if len(classes) > 20:
        return []
    names = [name if len(name) <= 12 else name[:11] + "…" for name in classes]
    cells = [["", *names], *([name, *map(str, row)] for name, row in zip(names, counts.tolist(), strict=True))]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in cells]
    return ["confusion: a row for each class that is, a column for each that is said", *lines]


def curves(rows: Sequence[Mapping[str, Any]], file: Path) -> bool:
    """Draw the figures of all epochs into a PNG file; return False where matplotlib is not installed."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return False
    names = [name for name, x in rows[-1].items() if isinstance(x, float)]
    losses = [name for name in names if name.endswith("loss")]
    parts = [part for part in (losses, [name for name in names if name not in losses]) if part]
    figure = Figure(figsize=(5 * len(parts), 3.5), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, part in zip(figure.subplots(1, len(parts), squeeze=False)[0], parts, strict=True):
        for name in part:
            axes.plot([row["epoch"] for row in rows], [row.get(name, math.nan) for row in rows], label=name)
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend()
        axes.grid(alpha=0.3)
    figure.savefig(file, dpi=120)
    return True
