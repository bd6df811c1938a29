"""What is learned from: rows of a table or of arrays, alike to the commands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from ..data import Encoding, Table
from ..data.checks import Source, check_finite, chunks, taken
from ..data.encoding import known_rows
from ..data.subset import Subset
from ..data.transforms import Normalize
from .problems import BadInput
from .settings import Settings

__all__ = ["ArrayEncoding", "ArrayRows", "Rows", "TableRows", "check_has_targets", "encoding_of"]

HELD = 2**30  #: bytes of encoded inputs up to which they are computed once and kept


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
        return known_rows(self.table, self.target or "")

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
        found = cls(d["shape"], d["mean"], d["deviation"], Encoding.from_dict(d["answers"]))
        scale = np.broadcast_shapes(found.shape, found.mean.shape, found.deviation.shape)
        if not all(type(size) is int and size > 0 for size in found.shape) or scale != found.shape:
            raise ValueError(f"inputs of shape {found.shape} have means of shape {found.mean.shape}")
        return found


def encoding_of(d: Mapping[str, Any]) -> Any:
    """Return the encoding that `to_dict` has described."""
    try:
        found = ArrayEncoding.from_dict(d) if "answers" in d else Encoding.from_dict(d)
        if not isinstance(d.get("target", "y"), str) or not getattr(found, "features", True):
            raise ValueError("it has no target, or no inputs")
        return found
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
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
        return held(_Scaled(self.x if rows is None else Subset(self.x, rows), encoding))

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

    def __init__(self, x: Any, encoding: ArrayEncoding) -> None:
        self._x, self._encoding, self.shape, self.ndim = x, encoding, x.shape, x.ndim

    def __len__(self) -> int:
        return int(self.shape[0])

    def take(self, rows: np.ndarray) -> np.ndarray:
        x = np.asarray(taken(self._x, rows))
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
    """Mean and standard deviation of rows: by the last axis, or of all numbers; 1 where numbers are constant."""
    found = Normalize.fit(Subset(x.reshape(len(x), -1, 1) if alike else x, rows))
    return found.mean, np.where(found.std > 1e-12 * np.abs(found.mean), found.std, 1.0)


def check_has_targets(rows: Rows, what: str) -> None:
    """Refuse arrays that are inputs alone."""
    if isinstance(rows, ArrayRows) and rows.y is None:
        raise BadInput(f"{what} holds no targets")
