"""Data sets and batches."""

from __future__ import annotations

from .batches import Batches, batches
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

__all__ = [
    "NAMES",
    "Batches",
    "Dataset",
    "Examples",
    "autoencoder8",
    "batches",
    "cifar10",
    "circles",
    "digits",
    "fashion_mnist",
    "load",
    "mnist",
    "moons",
    "spirals",
    "xor",
]
