"""Optimizers, and schedules of their learning rates."""

from __future__ import annotations

from ..functions.update import LossScale
from . import schedules
from .optimizer import Optimizer
from .optimizers import SGD, Adam, AdamW

__all__ = ["SGD", "Adam", "AdamW", "LossScale", "Optimizer", "schedules"]
