"""Optimizers."""

from __future__ import annotations

from ..functions.update import LossScale
from .optimizer import Optimizer
from .optimizers import SGD, Adagrad, Adam, AdamW, Average, Lion, Muon, RMSprop

__all__ = ["SGD", "Adagrad", "Adam", "AdamW", "Average", "Lion", "LossScale", "Muon", "Optimizer", "RMSprop"]
