"""What is learned from: rows of a table, of arrays, of pictures or of a data set, all alike to the commands."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..data import NAMES, Encoding, Npz, Table, image_folder, load
from ..data import read as read_file
from ..data.checks import Source, check_finite, chunks
from ..data.tables import near
from .problems import BadInput, mistakes
from .settings import Settings

__all__ = ["ArrayEncoding", "Rows", "check_has_targets", "encoding_of", "is_array_file", "read", "split"]

HELD = 2**30  #: bytes of encoded inputs up to which they are computed once and kept
TARGETS = ("target", "label", "class", "y")  #: names of a target column
PICTURES = ("mnist", "fashion-mnist", "cifar10")  #: data sets of bytes
TABLES = (".csv", ".tsv", ".parquet")


class Rows(Protocol):
    """Rows of one kind."""

    notes: list[str]  #: what is to be said of them

    def __len__(self) -> int: ...

    def labels(self) -> np.ndarray | None:
        """Return a number for each row, by which they are split in proportion; None in regression."""

    def known(self) -> np.ndarray:
        """Return the rows whose target is known."""

    def encode(self, rows: np.ndarray) -> Any:
        """Return the encoding that follows from the training rows."""

    def inputs(self, encoding: Any, rows: np.ndarray | None = None) -> Any:
        """Return the inputs of rows, by default of all: an array, or a source where they are many."""

    def targets(self, encoding: Any, rows: np.ndarray) -> np.ndarray:
        """Return the targets of rows."""

    def columns(self, rows: np.ndarray) -> dict[str, Sequence[Any]]:
        """Return what tells the rows apart in a file of predictions."""


class TableRows:
    """Rows of a table."""

    def __init__(self, table: Table, target: str | None, settings: Settings) -> None:
        self.table, self.target, self.settings = table, target, settings
        self.notes: list[str] = []

    def __len__(self) -> int:
        return len(self.table)

    def labels(self) -> np.ndarray | None:
        whole = Encoding.fit(self.table, self.target, None, self.settings.task, ignore=self.settings.ignore)
        if whole.task == "regression":
            return None
        labels, known = np.full(len(self), -1), self.known()
        labels[known] = whole.targets(self.table, known)
        return labels

    def known(self) -> np.ndarray:
        x = self.table[self.target or ""]
        return np.flatnonzero(x != "" if x.dtype.kind == "U" else np.isfinite(x))

    def encode(self, rows: np.ndarray) -> Encoding:
        return Encoding.fit(self.table, self.target, rows, self.settings.task, ignore=self.settings.ignore)

    def inputs(self, encoding: Encoding, rows: np.ndarray | None = None) -> Any:
        return held(encoding.source(self.table, rows))

    def targets(self, encoding: Encoding, rows: np.ndarray) -> np.ndarray:
        return encoding.targets(self.table, rows)

    def columns(self, rows: np.ndarray) -> dict[str, Sequence[Any]]:
        found: dict[str, Sequence[Any]] = {"row": (rows + 1).tolist()}
        for name in self.table.names:
            if name.lower() == "id":
                column = self.table[name][rows]
                found[name] = [f"{x:.15g}" for x in column] if column.dtype.kind == "f" else column.tolist()
        return found


class ArrayEncoding:
    """How arrays become inputs and targets: numbers standardised by the training rows, labels counted from 0.

    Parameters
    ----------
    shape
        Of one input.
    mean, deviation
        What is subtracted, and divided by: a number for each of the last axis, or one for all.
    answers
        Task, classes, and the scale of the target.
    """

    notes: tuple[str, ...] = ()

    def __init__(self, shape: Sequence[int], mean: Any, deviation: Any, answers: Encoding) -> None:
        self.shape, self.answers = tuple(shape), answers
        self.mean, self.deviation = np.asarray(mean, np.float64), np.asarray(deviation, np.float64)

    def __getattr__(self, name: str) -> Any:
        if name in ("task", "classes", "outputs", "decode"):
            return getattr(self.answers, name)
        raise AttributeError(name)

    def to_dict(self) -> dict[str, Any]:
        scale = {"mean": self.mean.tolist(), "deviation": self.deviation.tolist()}
        return {"shape": list(self.shape), **scale, "answers": self.answers.to_dict()}

    @classmethod
    def from_dict(cls, d: Mapping[str, Any]) -> ArrayEncoding:
        return cls(d["shape"], d["mean"], d["deviation"], Encoding.from_dict(d["answers"]))


def encoding_of(d: Mapping[str, Any]) -> Any:
    """Return the encoding that `to_dict` has described."""
    try:
        return ArrayEncoding.from_dict(d) if "answers" in d else Encoding.from_dict(d)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"encoding.json: {error}") from None


class ArrayRows:
    """Rows of arrays.

    Parameters
    ----------
    name
        Where they come from.
    x, y
        Inputs, an array or a source with one a row; a number or label for each, or None.
    task
        What was asked for.
    alike
        Whether all numbers of an input are of one kind, so that one mean is taken of all of them.
    classes
        Names of the labels, if they have some.
    names
        Of the rows.
    """

    def __init__(
        self, name: str, x: Any, y: Any = None, *, task: str | None = None, alike: bool = False,
        classes: Sequence[str] | None = None, names: Sequence[str] | None = None,
    ) -> None:  # fmt: skip
        if x.ndim < 1 or len(x) == 0:
            raise BadInput(f"{name} has no rows")
        if x.dtype.kind not in "fiub":
            raise BadInput(f"the inputs of {name} must be numbers, got {x.dtype}")
        if isinstance(x, np.ndarray):
            check_finite(x, f"inputs of {name}")
        self.name, self.x, self.task, self.alike, self.notes = name, x, task, alike, list[str]()
        self._classes, self._names = classes, names
        self.y = None if y is None else self._checked(np.asarray(y))

    def _checked(self, y: np.ndarray) -> np.ndarray:
        if y.ndim == 2 and y.shape[1] == 1:
            y = y[:, 0]
        if y.ndim != 1 or y.dtype.kind not in "fiub":
            raise BadInput(f"the targets of {self.name} must be one number or label a row, got {y.dtype} {y.shape}")
        if len(self.x) != len(y):
            raise BadInput(f"{self.name} has {len(self.x)} inputs, but {len(y)} targets")
        check_finite(y, f"targets of {self.name}")
        return y

    def _spelled(self) -> tuple[list[str], np.ndarray]:
        """The different labels, in order, as text, and which of them each row has."""
        assert self.y is not None
        found, index = np.unique(self.y, return_inverse=True)
        if self.y.dtype.kind == "f" and (found != np.round(found)).any():
            raise BadInput(f"the targets of {self.name} are numbers that are not whole: no classes")
        names = [str(label) for label in (found.astype(np.int64) if self.y.dtype.kind == "f" else found).tolist()]
        return (names if self._classes is None else [self._classes[int(name)] for name in names]), index

    def _answers(self) -> Encoding:
        """Task and classes, by all rows."""
        assert self.y is not None
        if (self.y == self.y[0]).all():
            raise BadInput(f"the targets of {self.name} have one value only, {self.y[0]}: nothing to learn")
        if self.task == "regression" or (self.task is None and self.y.dtype.kind == "f"):
            return Encoding((), target="y", task="regression")
        classes = self._classes or self._spelled()[0]
        if self.task == "binary" and len(classes) > 2:
            raise BadInput(f"the task is binary, but the targets of {self.name} have {len(classes)} values")
        return Encoding((), target="y", task="binary" if len(classes) == 2 else "classes", classes=classes)

    def __len__(self) -> int:
        return len(self.x)

    def labels(self) -> np.ndarray | None:
        return None if self._answers().task == "regression" else self._spelled()[1]

    def known(self) -> np.ndarray:
        return np.arange(len(self))

    def encode(self, rows: np.ndarray) -> ArrayEncoding:
        answers = self._answers()
        if answers.task == "regression":
            assert self.y is not None
            own = self.y[rows].astype(np.float64)
            answers.mean, answers.deviation = float(own.mean()), float(own.std()) or 1.0
        return ArrayEncoding(self.x.shape[1:], *_moments(self.x, rows, self.alike), answers)

    def inputs(self, encoding: ArrayEncoding, rows: np.ndarray | None = None) -> Any:
        if self.x.shape[1:] != encoding.shape:
            raise BadInput(f"the inputs of {self.name} are of shape {self.x.shape[1:]}, but the net has learned from "
                           f"such of shape {encoding.shape}")  # fmt: skip
        return held(_Scaled(self.x, rows, encoding))

    def targets(self, encoding: ArrayEncoding, rows: np.ndarray) -> np.ndarray:
        answers = encoding.answers
        if answers.task == "regression":
            assert self.y is not None
            own = (self.y[rows].astype(np.float64) - answers.mean) / answers.deviation
            return np.asarray(own, np.float32)[:, None]
        names, index = self._spelled()
        if unknown := [name for name in names if name not in answers.classes]:
            raise BadInput(f"{self.name} has the label {unknown[0]!r}, which is none of the classes "
                           f"{', '.join(answers.classes)}")  # fmt: skip
        labels: np.ndarray = np.array([answers.classes.index(name) for name in names], np.int64)[index[rows]]
        return labels

    def columns(self, rows: np.ndarray) -> dict[str, Sequence[Any]]:
        found: dict[str, Sequence[Any]] = {"row": (rows + 1).tolist()}
        if self._names is not None:
            found["file"] = [self._names[row] for row in rows]
        return found


class _Scaled:
    """A source: rows minus the mean, over the deviation, computed when they are taken."""

    dtype = np.dtype(np.float32)

    def __init__(self, x: Any, rows: np.ndarray | None, encoding: ArrayEncoding) -> None:
        self._x, self._rows, self._encoding = x, rows, encoding
        self.shape = len(x) if rows is None else len(rows), *x.shape[1:]
        self.ndim = x.ndim

    def __len__(self) -> int:
        return int(self.shape[0])

    def take(self, rows: np.ndarray) -> np.ndarray:
        chosen = rows if self._rows is None else self._rows[rows]
        x = np.asarray(np.take(self._x, chosen, axis=0) if isinstance(self._x, np.ndarray) else self._x.take(chosen))
        factor = (1 / self._encoding.deviation).astype(np.float32)
        out: np.ndarray = x.astype(np.float32) - self._encoding.mean.astype(np.float32)
        out *= factor
        return out


def held(source: Source) -> Any:
    """Return a source's rows as an array, unless they are too many."""
    if int(np.prod(source.shape)) * source.dtype.itemsize > HELD:
        return source
    out = np.empty(source.shape, source.dtype)
    for first, part in chunks(source):
        out[first : first + len(part)] = part
    return out


def _moments(x: Any, rows: np.ndarray, alike: bool) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of rows: by the last axis, or of all numbers."""
    axes = tuple(range(x.ndim)) if alike else tuple(range(x.ndim - 1))
    total, squares, count = 0.0, 0.0, 0
    step = max(1, 2**22 // max(1, int(np.prod(x.shape[1:]))))
    pivot: Any = None
    for first in range(0, len(rows), step):
        own = rows[first : first + step]
        part = np.asarray(x[own] if isinstance(x, np.ndarray) else x.take(own), np.float64)
        if pivot is None:
            pivot = part.mean(axis=axes)
        part = part - pivot
        total, squares = total + part.sum(axis=axes), squares + (part * part).sum(axis=axes)
        count += part.size // max(1, np.size(pivot))
    mean = total / count
    deviation = np.sqrt(np.maximum(squares / count - mean * mean, 0))
    return mean + pivot, np.where(deviation > 1e-12 * np.abs(mean + pivot), deviation, 1.0)


# -- reading


def read(what: str, settings: Settings, like: Any = None) -> tuple[Rows, Rows | None]:
    """Read a file, a folder or a data set, and its own rows to test with if it has some.

    Parameters
    ----------
    what
        Name of a data set, or path.
    settings
        Of the run.
    like
        Of rows that a net is to be applied to: its encoding, or the rows that it learns from.
    """
    path = Path(what)
    with mistakes():
        if what in NAMES:
            return _set(what, settings)
        if not path.exists():
            if path.suffix or os.sep in what:
                raise BadInput(f"there is no file {what!r}")
            raise BadInput(f"there is no file and no data set called {what!r}{near(what, list(NAMES))}")
        if path.is_dir():
            return _pictures(path, settings, like), None
        if path.name.lower().removesuffix(".gz").endswith(TABLES):
            return _table(path, settings, like), None
        return _arrays(path, settings, like), None


def _set(name: str, settings: Settings) -> tuple[Rows, Rows]:
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
        if count := _missing(table, name):
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


def _missing(table: Table, name: str) -> int:
    return int(np.count_nonzero(np.isnan(table[name]) if table.kind(name) == "number" else table[name] == ""))


def _arrays(path: Path, settings: Settings, like: Any) -> Rows:
    if isinstance(like, Encoding | TableRows):
        raise BadInput(f"{path} is no table, but the net has learned from one")
    found, wanted, y = read_file(path), settings.target, None
    if isinstance(found, Npz):
        x = _member(found, settings.inputs)
        if like is None or (wanted or "y") in found:
            y = _member(found, wanted or "y")
    elif isinstance(found, np.ndarray):
        x = found
        if wanted is None and like is None:
            raise BadInput(f"{path} holds inputs alone: name the file of the targets, as in --target y{path.suffix}")
        if wanted is not None and (like is None or Path(wanted).is_file()):
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


def _pictures(path: Path, settings: Settings, like: Any) -> Rows:
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
    return ArrayRows(str(path), found.images, found.labels, task=settings.task, classes=found.classes, names=names)


def check_has_targets(rows: Rows, what: str) -> None:
    """Refuse arrays that are inputs alone."""
    if isinstance(rows, ArrayRows) and rows.y is None:
        raise BadInput(f"{what} holds no targets")


# -- splitting


def split(chosen: np.ndarray, labels: np.ndarray | None, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Part the chosen rows in two; the second part has this fraction of them, of every label alike.

    The order is drawn from raw Philox words, the same on every machine.
    """
    if fraction == 0:
        return chosen, chosen[:0]
    strata = np.zeros(len(chosen), np.int64) if labels is None else labels[chosen]
    words = np.random.Philox(key=np.array([seed, 2**62], np.uint64)).random_raw(len(chosen))
    second = np.zeros(len(chosen), bool)
    order = np.lexsort((words, strata))
    # Of rows sorted by label those at equal distances: of each label its share, and of all the right number.
    places = np.floor((np.arange(round(fraction * len(chosen))) + 0.5) / fraction).astype(np.int64)
    second[order[np.minimum(places, len(chosen) - 1)]] = True
    return chosen[~second], chosen[second]
