"""Data sets and batches."""

from __future__ import annotations

from . import transforms
from .batches import Batches, batches
from .checks import Source
from .datasets import Dataset, Examples, autoencoder8, digits, xor

__all__ = ["Batches", "Dataset", "Examples", "Source", "autoencoder8", "batches", "digits", "transforms", "xor"]
