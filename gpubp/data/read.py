"""Reading a file of whatever kind its name says it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from .arrays import idx, npy, npz
from .csv import csv
from .images import image_folder
from .opening import File
from .parquet import parquet
from .text import text

__all__ = ["read"]

_READERS: dict[str, Callable[..., Any]] = {
    ".npy": npy,
    ".npz": npz,
    ".csv": csv,
    ".tsv": csv,
    ".data": csv,
    ".parquet": parquet,
    ".pq": parquet,
    ".txt": text,
    ".idx": idx,
    "-ubyte": idx,
}


def read(path: File, **options: Any) -> Any:
    """Read a file or folder by the function that its name asks for.

    Parameters
    ----------
    path
        A folder (`image_folder`), or a file whose name ends in ``.csv``, ``.tsv`` or ``.data`` (`csv`), ``.parquet`` or
        ``.pq`` (`parquet`), ``.npy`` (`npy`), ``.npz`` (`npz`), ``.idx`` or, as those of MNIST, ``-ubyte`` (`idx`),
        ``.txt`` (`text`); csv, idx and text files also compressed, with ``.gz`` at the end.
    options
        Of that function.

    Returns
    -------
    Table, ndarray, Npz, ImageFolder or Text

    Raises
    ------
    ValueError
        If the name says nothing, and what the function raises.
    OSError
        If there is no such file, or it cannot be read.
    """
    where = Path(path)
    if where.is_dir():
        return image_folder(where, **options)
    name = where.name.lower().removesuffix(".gz")
    for end, function in _READERS.items():
        if name.endswith(end):
            return function(path, **options)
    where.stat()  # which raises if there is none
    raise ValueError(f"{where}: the name of a file should end in {', '.join(_READERS)}, or be that of a folder")
