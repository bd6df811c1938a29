"""Training loops, metrics, files of parameters, and the example that ``gpubp train`` runs."""

from __future__ import annotations

from . import metrics
from .files import load, save
from .loop import evaluate, fit

__all__ = ["evaluate", "fit", "load", "metrics", "save"]
