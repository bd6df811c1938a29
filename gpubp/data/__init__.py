"""Data sets, tables and batches."""

from __future__ import annotations

from . import transforms
from .arrays import Npz, idx, npy, npz
from .batches import Batches, batches
from .checks import Source
from .datasets import (
    NAMES,
    Dataset,
    Examples,
    autoencoder8,
    cifar10,
    circles,
    digits,
    fashion_mnist,
    load,
    mnist,
    moons,
    spirals,
    xor,
)
from .encoding import Encoding
from .tables import Table, csv

__all__ = [
    "NAMES",
    "Batches",
    "Dataset",
    "Encoding",
    "Examples",
    "Npz",
    "Source",
    "Table",
    "autoencoder8",
    "batches",
    "cifar10",
    "circles",
    "csv",
    "digits",
    "fashion_mnist",
    "idx",
    "load",
    "mnist",
    "moons",
    "npy",
    "npz",
    "spirals",
    "transforms",
    "xor",
]
