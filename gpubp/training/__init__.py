"""Training loops, callbacks, metrics, files of parameters."""

from __future__ import annotations

from . import metrics
from .callbacks import Callback, CSVLog, EarlyStopping, JSONLines, ReduceOnPlateau
from .checkpoint import Broken, Checkpoints
from .evaluation import evaluate
from .files import load, save
from .history import History, NotFinite
from .loop import fit
from .range_test import RangeTest, lr_finder
from .run import Run

__all__ = [
    "Broken",
    "CSVLog",
    "Callback",
    "Checkpoints",
    "EarlyStopping",
    "History",
    "JSONLines",
    "NotFinite",
    "RangeTest",
    "ReduceOnPlateau",
    "Run",
    "evaluate",
    "fit",
    "load",
    "lr_finder",
    "metrics",
    "save",
]
