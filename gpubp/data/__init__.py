"""Data sets and batches."""

from __future__ import annotations

from .batches import Batches, batches
from .datasets import Dataset, Examples, autoencoder8, digits, xor

__all__ = ["Batches", "Dataset", "Examples", "autoencoder8", "batches", "digits", "xor"]
