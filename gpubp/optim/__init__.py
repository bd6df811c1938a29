"""Optimizers."""

from __future__ import annotations

from ..functions.update import LossScale
from .optimizer import Optimizer
from .optimizers import SGD, Adam, AdamW

__all__ = ["SGD", "Adam", "AdamW", "LossScale", "Optimizer"]
