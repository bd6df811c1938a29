"""From a file, a folder or the name of a data set to rows."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from ..data import NAMES, Encoding, Npz, image_folder, load
from ..data import read as read_file
from ..data.tables import near
from .problems import BadInput, mistakes
from .rows import ArrayEncoding, ArrayRows, Rows, TableRows
from .settings import Settings

__all__ = ["is_array_file", "read"]

TARGETS = ("target", "label", "class", "y")  #: names of a target column
PICTURES = ("mnist", "fashion-mnist", "cifar10")  #: data sets of bytes
TABLES = (".csv", ".tsv", ".parquet")


def read(what: str, settings: Settings, like: Any = None, *, targets: bool = True) -> tuple[Rows, Rows | None]:
    """Read a file, a folder or a data set, and its own rows to test with if it has some.

    Parameters
    ----------
    what
        Name of a data set, or path.
    settings
        Of the run.
    like
        Of rows that a net is to be applied to: its encoding, or the rows that it learns from.
    targets
        Whether the targets of arrays and pictures are wanted, if there are some.
    """
    path = Path(what)
    with mistakes():
        if what in NAMES:
            return _set(what, settings, like)
        if not path.exists():
            if path.suffix or os.sep in what:
                raise BadInput(f"there is no file {what!r}")
            raise BadInput(f"there is no file and no data set called {what!r}{near(what, list(NAMES))}")
        if path.is_dir():
            return _pictures(path, settings, like, targets), None
        if path.name.lower().removesuffix(".gz").endswith(TABLES):
            return _table(path, settings, like), None
        return _arrays(path, settings, like, targets), None


def _set(name: str, settings: Settings, like: Any) -> tuple[Rows, Rows]:
    if isinstance(like, Encoding | TableRows):
        raise BadInput(f"the data set {name} is no table, but the net has learned from one")
    found = load(name, settings.data_dir, dtype="uint8" if name in PICTURES else "float32")
    train, test = (ArrayRows(f"the data set {name}", *part, task=settings.task, alike=True) for part in found)
    return train, test


def _table(path: Path, settings: Settings, like: Any) -> Rows:
    if isinstance(like, ArrayEncoding | ArrayRows):
        raise BadInput(f"{path} is a table, but the net has learned from arrays")
    pattern = like.table if isinstance(like, TableRows) else like
    told = {"like": pattern} if pattern is not None else {"kinds": dict.fromkeys(settings.category, "category")}
    table = read_file(path, **told)
    if pattern is not None:
        return TableRows(table, like.target, settings)
    target = settings.target or next((n for n in table.names if n.lower() in TARGETS), table.names[-1])
    table.kind(target)
    rows = TableRows(table, target, settings)
    if without := len(rows) - len(rows.known()):
        rows.notes.append(f"{without} row{' has' if without == 1 else 's have'} no target, and no part in this")
    for name in table.names:
        if name == target or name in settings.ignore:
            continue
        if count := table.missing[name]:
            rows.notes.append(f"column {name!r}: {count} missing; {_FILLED[table.kind(name)]}")
        if table.kind(name) != "number" and (doubt := table.doubt(name)):
            raise BadInput(f"{path}: column {name!r} should be one of numbers: {doubt}. Mend the cells, or give "
                           f"--category {name} or --ignore {name}")  # fmt: skip
    return rows


_FILLED = {
    "number": "the mean stands in, and an input says so",
    "category": "an input says so",
    "text": "not used",
}


def _arrays(path: Path, settings: Settings, like: Any, targets: bool) -> Rows:
    if isinstance(like, Encoding | TableRows):
        raise BadInput(f"{path} is no table, but the net has learned from one")
    found, wanted, y = read_file(path), settings.target, None
    if isinstance(found, Npz):
        x = _member(found, settings.inputs)
        if targets and (like is None or (wanted or "y") in found):
            y = _member(found, wanted or "y")
    elif isinstance(found, np.ndarray):
        x = found
        if wanted is None and like is None:
            raise BadInput(f"{path} holds inputs alone: name the file of the targets, as in --target y{path.suffix}")
        if targets and wanted is not None and (like is None or Path(wanted).is_file()):
            y = read_file(wanted)
    else:
        raise BadInput(f"{path} holds a text, which has no inputs and targets; examples/shakespeare.py learns from one")
    if x.ndim in (1, 3) and settings.model is None:
        x = x[..., None]  # one number each; grey pictures
    return ArrayRows(str(path), x, y, task=settings.task)


def is_array_file(what: str) -> bool:
    """Whether a file holds one array, so that its target is a file too."""
    return what.lower().removesuffix(".gz").endswith((".npy", ".idx", "-ubyte"))


def _member(arrays: Npz, name: str) -> np.ndarray:
    if name not in arrays:
        raise BadInput(f"{arrays.file} holds no array {name!r}{near(name, list(arrays))}")
    return arrays[name]


def _pictures(path: Path, settings: Settings, like: Any, targets: bool) -> Rows:
    if isinstance(like, Encoding | TableRows):
        raise BadInput(f"{path} is a folder of pictures, but the net has learned from a table")
    channels = None if like is None else (like.x.shape if isinstance(like, ArrayRows) else (0, *like.shape))[-1]
    try:
        found = image_folder(path, size=settings.image_size, channels=channels)
    except ValueError as error:
        text, differs, _ = str(error).partition("; size=")
        raise BadInput(text + ("; --image-size N brings all to one" if differs else "")) from None
    if like is None and found.labels is None:
        raise BadInput(f"{path} holds no folders of pictures, one for each class")
    names = [str(file.relative_to(path)) for file in found.images.files]
    labels = found.labels if targets else None
    return ArrayRows(str(path), found.images, labels, task=settings.task, classes=found.classes, names=names)
