"""Training loops, callbacks, metrics, files of parameters."""

from __future__ import annotations

from . import metrics
from .callbacks import Callback, CSVLog, EarlyStopping, JSONLines, ReduceOnPlateau
from .evaluation import evaluate
from .files import load, save
from .history import History, NotFinite
from .loop import fit
from .run import Run

__all__ = [
    "CSVLog",
    "Callback",
    "EarlyStopping",
    "History",
    "JSONLines",
    "NotFinite",
    "ReduceOnPlateau",
    "Run",
    "evaluate",
    "fit",
    "load",
    "metrics",
    "save",
]
