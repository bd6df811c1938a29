"""Data sets, tables and batches."""

from __future__ import annotations

from . import transforms
from .arrays import Npz, idx, npy, npz
from .batches import Batches, batches
from .checks import Source
from .csv import csv
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
    shakespeare,
    spirals,
    xor,
)
from .encoding import Encoding
from .images import ImageFolder, Images, image_folder
from .parquet import parquet
from .read import read
from .subset import subset
from .tables import Table
from .text import Text, Windows, text

__all__ = [
    "NAMES",
    "Batches",
    "Dataset",
    "Encoding",
    "Examples",
    "ImageFolder",
    "Images",
    "Npz",
    "Source",
    "Table",
    "Text",
    "Windows",
    "autoencoder8",
    "batches",
    "cifar10",
    "circles",
    "csv",
    "digits",
    "fashion_mnist",
    "idx",
    "image_folder",
    "load",
    "mnist",
    "moons",
    "npy",
    "npz",
    "parquet",
    "read",
    "shakespeare",
    "spirals",
    "subset",
    "text",
    "transforms",
    "xor",
]
