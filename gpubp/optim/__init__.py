"""Optimizers, and schedules of their learning rates."""

from __future__ import annotations

from ..functions.update import LossScale
from . import schedules
from .average import Average
from .optimizer import Optimizer
from .optimizers import SGD, Adagrad, Adam, AdamW, Lion, Muon, RMSprop

__all__ = [
    "SGD",
    "Adagrad",
    "Adam",
    "AdamW",
    "Average",
    "Lion",
    "LossScale",
    "Muon",
    "Optimizer",
    "RMSprop",
    "schedules",
]
