"""Data sets, tables and batches."""

from __future__ import annotations

from .batches import Batches, batches
from .checks import Source
from .datasets import Dataset, Examples, autoencoder8, digits, xor
from .encoding import Encoding
from .tables import Table, csv

__all__ = [
    "Batches",
    "Dataset",
    "Encoding",
    "Examples",
    "Source",
    "Table",
    "autoencoder8",
    "batches",
    "csv",
    "digits",
    "xor",
]
