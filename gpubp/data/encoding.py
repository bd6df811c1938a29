"""From the columns of a table to a net's inputs and targets, and from its outputs back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .checks import Source, check_rows
from .subset import Subset
from .tables import Table, as_number, spelling

__all__ = ["Encoding", "Inputs", "known_rows"]

TASKS = ("regression", "binary", "classes")

_CELLS = 2**18  # of a piece
_FARTHEST = 1e30  # deviations from the mean, which float32 holds
_LARGEST = 1e150  # whose square is a number
_MOST = 100  # categories of a column that have an input each
_NONE, _OTHER = -1, -2  # places of missing cells and of other values
_WHOLE = 20  # different whole numbers that are taken for labels


@dataclass(frozen=True)
class NumberInput:
    """A number column: minus the mean, over the standard deviation; 0 where it is missing, and then 1 in a second one.

    Parameters
    ----------
    name
        Of the column.
    mean, deviation
        Of its known cells in the training rows.
    missing
        Whether cells are missing there, so that there is a second input.
    """

    name: str
    mean: float
    deviation: float
    missing: bool

    @property
    def features(self) -> list[str]:
        return [self.name, f"{self.name} is missing"] if self.missing else [self.name]


@dataclass(frozen=True)
class CategoryInput:
    """A category column: an input for each value, 1 where the cell holds it; one for missing cells.

    Parameters
    ----------
    name
        Of the column.
    values
        Which have an input.
    missing
        Whether cells are missing in the training rows, so that there is an input for that.
    """

    name: str
    values: tuple[str, ...]
    missing: bool

    @property
    def features(self) -> list[str]:
        return [f"{self.name}={value}" for value in self.values] + [f"{self.name} is missing"] * self.missing


class Encoding:
    """How columns become inputs and targets: learned from training rows by `fit`, the same for all other rows.

    Number columns are standardised: minus their mean, over their standard deviation. A missing number becomes the mean,
    0, and a further input says that it was missing. A category column has an input for each of its values; a value that
    the training rows do not hold is 0 in all of them. Left out, with a note, are text columns, constant ones, and
    categories that differ in more than half of the rows, as identifiers do; of more than 100 values the 100 most
    frequent are kept. Infinite numbers, those beyond 1e150, and inputs beyond 1e30 deviations count as missing.

    Parameters
    ----------
    columns
        What becomes inputs.
    target
        Name of the target column, or None.
    task
        ``"regression"``, ``"binary"`` (two classes), ``"classes"``, or None without a target.
    classes
        The labels' names; label k stands for ``classes[k]``.
    mean, deviation
        Of the target in the training rows, in regression.
    notes
        Sentences about columns and rows that were left out.
    """

    def __init__(
        self,
        columns: Sequence[NumberInput | CategoryInput],
        *,
        target: str | None = None,
        task: str | None = None,
        classes: Sequence[str] = (),
        mean: float = 0.0,
        deviation: float = 1.0,
        notes: Sequence[str] = (),
    ) -> None:
        self.columns, self.target, self.task, self.classes = tuple(columns), target, task, tuple(classes)
        self.mean, self.deviation, self.notes = float(mean), float(deviation), tuple(notes)
        wanted = {None: 0, "regression": 0, "binary": 2}.get(task, max(2, len(self.classes)))
        if task not in (None, *TASKS) or (task is None) != (target is None) or len(self.classes) != wanted:
            raise ValueError(f"target {target!r}, task {task!r} and {len(self.classes)} classes do not fit together")
        self.features = tuple(feature for column in self.columns for feature in column.features)  #: names of the inputs

    def __repr__(self) -> str:
        task = f", {self.task} of {self.target!r}" if self.task else ""
        return f"Encoding({len(self.columns)} columns, {len(self.features)} inputs{task})"

    @property
    def kinds(self) -> dict[str, str]:
        """Of each column that is used its kind, for ``csv(file, like=encoding)``."""
        kinds = {c.name: "number" if isinstance(c, NumberInput) else "category" for c in self.columns}
        if self.target is not None:
            kinds[self.target] = "number" if self._is_number_target else "category"
        return kinds

    @property
    def outputs(self) -> int:
        """How many outputs a net needs: one in regression, else one for each class."""
        return len(self.classes) or 1

    @property
    def _is_number_target(self) -> bool:
        return all(label == spelling(as_number(label) or 0.0) for label in self.classes)

    @classmethod
    def fit(
        cls,
        table: Table,
        target: str | None = None,
        rows: np.ndarray | None = None,
        task: str | None = None,
        *,
        ignore: Sequence[str] = (),
    ) -> Encoding:
        """Learn an encoding.

        Parameters
        ----------
        table
            Where the columns are.
        target
            Name of the column to be predicted.
        rows
            Numbers of the training rows, which alone determine means, deviations and categories; by default all. Those
            without a target are passed over. (Task and classes are those of all rows, however these are split.)
        task
            By default ``"binary"`` or ``"classes"`` if the target is a category, or a number that has two values or up
            to 20, all of them whole, on at least 10 rows each on average; else ``"regression"``.
        ignore
            Columns that are not to be inputs; one name, or several.

        Returns
        -------
        Encoding

        Raises
        ------
        ValueError
            If there is no such column or row; if the target has one value only, or, of no told task, other values in
            more than half of the rows that are no numbers; if no column is left.
        """
        ignore = [ignore] if isinstance(ignore, str) else ignore
        rows = _checked(table, rows)
        if rows is not None and not len(rows):
            raise ValueError("there are no rows to learn from")
        for name in (*ignore, *([] if target is None else [target])):
            table.kind(name)
        if task is not None and task not in TASKS:
            raise ValueError(f"task must be one of {', '.join(TASKS)}, got {task!r}")
        notes: list[str] = []
        answer: dict[str, Any] = {}
        if target is not None:
            given = len(table) if rows is None else len(rows)
            rows = known_rows(table, target, rows)
            if len(rows) < given:
                notes.append(f"{given - len(rows)} rows are left out: their target {target!r} is missing")
            if len(rows) == 0:
                raise ValueError(f"the target {target!r} is missing in all rows")
            answer = {"target": target} | _target(table, target, rows, task)
        names = [name for name in table.names if name != target and name not in ignore]
        columns = _columns(table, names, rows, notes)
        if not columns:
            raise ValueError(f"no column of {table.file} is left to be an input: {'; '.join(notes) or 'there is none'}")
        return cls(columns, notes=notes, **answer)

    def source(self, table: Table, rows: np.ndarray | None = None) -> Source:
        """Return the inputs of rows as a source, which computes them when they are taken.

        Parameters
        ----------
        table
            Columns of the names that the encoding was fitted to, in any order; it may have more.
        rows
            Numbers of rows, in the order that is wanted; by default all.

        Returns
        -------
        Source
            float32, of shape (rows, features).

        Raises
        ------
        ValueError
            If the table lacks a column, or one is not of numbers that was; if there is no such row.
        """
        whole = Inputs(self, table)
        return whole if rows is None else Subset(whole, check_rows(rows, len(table)))

    def inputs(self, table: Table, rows: np.ndarray | None = None) -> np.ndarray:
        """Return the inputs of rows, computed at once: what `source` gives, as an array."""
        source = self.source(table, rows)
        return source.take(np.arange(len(source)))

    def known(self, table: Table, rows: np.ndarray | None = None) -> np.ndarray:
        """Return the numbers, int64, of those of the rows (by default of all) whose target is not missing."""
        return known_rows(table, self._target_of(table), _checked(table, rows))

    def targets(self, table: Table, rows: np.ndarray | None = None) -> np.ndarray:
        """Return the targets of rows.

        Parameters
        ----------
        table
            Has a column of the target's name.
        rows
            Numbers of rows, in the order that is wanted; by default all.

        Returns
        -------
        ndarray
            In regression float32 of shape (rows, 1), minus the mean and over the standard deviation of the training
            rows; else int64 labels of shape (rows,).

        Raises
        ------
        ValueError
            If the table has no such column, or a target is missing or no class; if there is no such row.
        """
        name = self._target_of(table)
        chosen = np.arange(len(table)) if rows is None else np.asarray(_checked(table, rows))
        if len(known := known_rows(table, name, chosen)) < len(chosen):
            first = np.setdiff1d(chosen, known)[0]
            raise ValueError(
                f"the target {name!r} of {table.file} is missing in {len(chosen) - len(known)} rows, row {first} (from "
                "0) the first of them; encoding.known(table) are the others"
            )
        if self.task == "regression":
            _check_number(table, name)
            with np.errstate(over="ignore"):
                values = (table[name][chosen] - self.mean) / self.deviation
            if (far := np.abs(values) > _FARTHEST).any():
                row = chosen[np.argmax(far)]
                raise ValueError(
                    f"the target {name!r} of {table.file} is {table[name][row]:.6g} in row {row} (from 0), but about "
                    f"{self.mean:.6g} in the rows that the encoding has learned from: too far away for float32"
                )
            return values.astype(np.float32)[:, None]
        labels = _Lookup(table, name, self.classes)(chosen)
        if (labels < 0).any():
            row = chosen[np.argmin(labels)]
            raise ValueError(
                f"the target {name!r} of {table.file} is {_spelled(table, name, [row])[0]!r} in row {row} (from 0), "
                f"which is none of the classes {', '.join(self.classes)}"
            )
        return labels

    def _target_of(self, table: Table) -> str:
        if self.target is None:
            raise ValueError("the encoding was made without a target")
        table.kind(self.target)
        return self.target

    def unknown(self, table: Table, rows: np.ndarray | None = None) -> dict[str, int]:
        """Return for each category column how many cells of rows have no input: those columns where there are any."""
        found, rows = {}, _checked(table, rows)
        for column in self.columns:
            if isinstance(column, CategoryInput):
                table.kind(column.name)
                lookup = _Lookup(table, column.name, column.values)
                if count := sum(int((lookup(part) == _OTHER).sum()) for part in _pieces(table, rows)):
                    found[column.name] = count
        return found

    def decode(self, outputs: Any) -> dict[str, np.ndarray]:
        """Turn a net's outputs to columns.

        Parameters
        ----------
        outputs
            NumPy array of shape (rows, `self.outputs`): of a classifier logits, also a single one if there are two
            classes.

        Returns
        -------
        dict
            ``"prediction"``: numbers in the target's own unit, or names of classes, which are strings also where the
            target's column holds numbers; and for each class, such as ``yes``, its probability as ``"p(yes)"``.

        Raises
        ------
        ValueError
            If the number of outputs is another one.
        """
        logits = np.asarray(outputs, np.float64)
        single = self.task == "binary" and logits.shape[-1:] == (1,)
        if logits.ndim != 2 or not (single or logits.shape[1] == self.outputs):
            raise ValueError(f"expected outputs of shape (rows, {self.outputs}), got {logits.shape}")
        if not self.classes:
            return {"prediction": logits[:, 0] * self.deviation + self.mean}
        if single:
            logits = np.concatenate([np.zeros_like(logits), logits], axis=1)
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        names = np.array(self.classes)
        return {"prediction": names[shares.argmax(axis=1)]} | {
            f"p({name})": shares[:, label] for label, name in enumerate(self.classes)
        }

    def to_dict(self) -> dict[str, Any]:
        """Return the encoding as what JSON can hold, to the last bit."""
        about = ("target", "task", "classes", "mean", "deviation", "notes")
        columns = [{k: _plain(v) for k, v in asdict(column).items()} for column in self.columns]
        return {"columns": columns} | {name: _plain(getattr(self, name)) for name in about}

    @classmethod
    def from_dict(cls, d: Mapping[str, Any]) -> Encoding:
        """Return the encoding that `to_dict` has described; a ValueError says that nothing is described."""
        try:
            rest = dict(d)
            columns = [
                CategoryInput(str(c["name"]), tuple(map(str, c["values"])), bool(c["missing"]))
                if "values" in c
                else NumberInput(str(c["name"]), float(c["mean"]), float(c["deviation"]), bool(c["missing"]))
                for c in rest.pop("columns")
            ]
            return cls(columns, **rest)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"this describes no encoding: {type(error).__name__}: {error}") from None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Encoding) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]


class Inputs:
    """A source: the encoded inputs of a table's rows, computed when they are taken.

    Parameters
    ----------
    encoding, table
        What is computed, of what.
    """

    dtype, ndim = np.dtype(np.float32), 2

    def __init__(self, encoding: Encoding, table: Table) -> None:
        self._table = table
        self.shape = len(table), len(encoding.features)
        numbers, self._categories, at = [], [], 0
        for column in encoding.columns:
            table.kind(column.name)
            if isinstance(column, NumberInput):
                _check_number(table, column.name)
                numbers.append((column, at))
            else:
                lookup = _Lookup(table, column.name, (*column.values, "") if column.missing else column.values)
                self._categories.append((lookup, at))
            at += len(column.features)
        self._at = np.array([at for _, at in numbers], np.intp)
        self._places = np.array([table.place[c.name] for c, _ in numbers], np.intp)
        self._means = np.array([c.mean for c, _ in numbers])
        self._deviations = np.array([c.deviation for c, _ in numbers])
        self._indicated = np.array([k for k, (c, _) in enumerate(numbers) if c.missing], np.intp)

    def __len__(self) -> int:
        return self.shape[0]

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Return the inputs of these rows."""
        out = np.zeros((len(rows), self.shape[1]), np.float32)
        size = _rows_of_a_piece(self._table)
        for start in range(0, len(rows), size):
            self._encode(rows[start : start + size], out[start : start + size])
        return out

    def _encode(self, rows: np.ndarray, out: np.ndarray) -> None:
        if len(self._at):
            numbers = self._table.numbers[rows][:, self._places]
            numbers[~_is_known(numbers)] = np.nan
            numbers -= self._means
            with np.errstate(over="ignore"):
                numbers /= self._deviations
            unknown = ~(np.abs(numbers) < _FARTHEST)
            numbers[unknown] = 0
            out[:, self._at] = numbers
            out[:, self._at[self._indicated] + 1] = unknown[:, self._indicated]
        for lookup, at in self._categories:
            places = lookup(rows)
            (known,) = np.nonzero(places >= 0)
            out[known, at + places[known]] = 1


# -- what is learned from the training rows


def _columns(
    table: Table, names: Sequence[str], rows: np.ndarray | None, notes: list[str]
) -> list[NumberInput | CategoryInput]:
    counts, means, deviations = _moments(table, rows)
    n = len(table) if rows is None else len(rows)
    columns: list[NumberInput | CategoryInput] = []
    for name in names:
        kind, place = table.kind(name), table.place[name]
        why = None
        if kind == "number":
            mean, deviation, known = float(means[place]), float(deviations[place]), counts[place]
            if known == 0:
                why = "no cell is known"
            elif deviation > 1e-12 * abs(mean):
                columns.append(NumberInput(name, mean, deviation, bool(known < n)))
            elif known < n:
                columns.append(NumberInput(name, mean, 1.0, True))
            else:
                why = f"all cells are {mean:.6g}"
        elif kind == "category":
            found = _frequencies(table, name, rows)
            if len(found) > max(20, n // 2):
                why = f"{len(found)} different values in {n} rows look like identifiers"
            elif not found:
                why = "no cell is known"
            elif len(found) == 1 and sum(found.values()) == n:
                why = f"all cells are {next(iter(found))!r}"
            else:
                kept = sorted(found, key=lambda value: (-found[value], value))[:_MOST]
                if len(kept) < len(found):
                    notes.append(f"of column {name!r} the {_MOST} most frequent of {len(found)} values are kept")
                columns.append(CategoryInput(name, tuple(kept), sum(found.values()) < n))
        else:
            why = "it is text of too many different values"
        if why is not None:
            notes.append(f"column {name!r} is left out: {why}")
        if remark := table.remark(name):
            notes.append(f"column {name!r}: {remark}")
    return columns


def _moments(table: Table, rows: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Count, mean and standard deviation of each number column's known cells, merged piece by piece.

    Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979.
    """
    width = table.numbers.shape[1]
    count, mean, squares = np.zeros(width), np.zeros(width), np.zeros(width)
    for part in _pieces(table, rows):
        x = table.numbers[part]
        known = _is_known(x)
        n = known.sum(axis=0)
        m = np.where(known, x, 0).sum(axis=0) / np.maximum(n, 1)
        total, step = count + n, m - mean
        share = n / np.maximum(total, 1)
        squares += (np.where(known, x - m, 0) ** 2).sum(axis=0) + step**2 * count * share
        mean, count = mean + step * share, total
    return count, mean, np.sqrt(squares / np.maximum(count, 1))


def _frequencies(table: Table, name: str, rows: np.ndarray | None) -> dict[str, int]:
    """How often each value of a category column occurs, those that do, in the order of their first cells."""
    values = table.categories(name)
    counts = np.zeros(len(values), np.int64)
    for part in _pieces(table, rows):
        codes = table.codes[part, table.place[name]]
        counts += np.bincount(codes[codes >= 0], minlength=len(values))
    return {value: int(count) for value, count in zip(values, counts, strict=True) if count}


def _target(table: Table, name: str, rows: np.ndarray, task: str | None) -> dict[str, Any]:
    """What is to be known of a target; its task follows from it if nobody has told."""
    kind = table.kind(name)
    if task == "regression":
        _check_number(table, name)
    if kind != "number" and task is None and (doubt := table.doubt(name)):
        raise ValueError(f"the target {name!r} of {table.file} should be a column of numbers or of classes: {doubt}")
    if kind == "text":
        raise ValueError(f"the target {name!r} of {table.file} has too many different values to be classes")
    if kind == "category":
        classes = sorted(_frequencies(table, name, None))
        if task is None and len(classes) > max(20, len(table) // 2):
            why = table.remark(name) or f"it has {len(classes)} different values in {len(table)} rows"
            raise ValueError(f"the target {name!r} of {table.file} should be a column of numbers or of classes: {why}")
    else:
        most = len(table) if task in ("binary", "classes") else _WHOLE
        labels = _few_whole(table, name, most)
        known = len(known_rows(table, name))
        if task is None and (labels is None or (len(labels) > 2 and known < 10 * len(labels))):
            task = "regression"
        if task == "regression":
            return {"task": task} | _spread(table, name, rows)
        if labels is None:
            raise ValueError(f"the target {name!r} of {table.file} has numbers that are not whole: no classes")
        classes = [spelling(label) for label in labels]
    if len(classes) < 2:
        raise ValueError(f"the target {name!r} of {table.file} has one value only, {classes[0]!r}: nothing to learn")
    if task == "binary" and len(classes) > 2:
        raise ValueError(f"the task 'binary' has two classes, but the target {name!r} has {len(classes)}")
    return {"task": task or ("binary" if len(classes) == 2 else "classes"), "classes": classes}


def _few_whole(table: Table, name: str, most: int) -> list[float] | None:
    """The different numbers of a column, in order, if they are whole and not too many."""
    found: set[float] = set()
    for part in _pieces(table, None):
        x = table.numbers[part, table.place[name]]
        x = x[_is_known(x)]
        if (x != np.round(x)).any():
            return None
        found.update(np.unique(x).tolist())
        if len(found) > most:
            return None
    return sorted(found)


def _spread(table: Table, name: str, rows: np.ndarray) -> dict[str, float]:
    _, means, deviations = _moments(table, rows)
    mean, deviation = float(means[table.place[name]]), float(deviations[table.place[name]])
    if deviation <= 1e-12 * abs(mean):
        raise ValueError(f"the target {name!r} of {table.file} has one value only, {mean:.6g}: nothing to learn")
    return {"mean": mean, "deviation": deviation}


# -- rows and cells


def _pieces(table: Table, rows: np.ndarray | None) -> Iterator[Any]:
    size = _rows_of_a_piece(table)
    for start in range(0, len(table) if rows is None else len(rows), size):
        piece = slice(start, start + size)
        yield piece if rows is None else rows[piece]


def _rows_of_a_piece(table: Table) -> int:
    return max(1, _CELLS // len(table.names))


def known_rows(table: Table, name: str, rows: np.ndarray | None = None) -> np.ndarray:
    """Those of the rows where a column is not missing."""
    is_number, place = table.kind(name) == "number", table.place[name]
    rows = np.arange(len(table)) if rows is None else rows
    known: np.ndarray = rows[_is_known(table.numbers[rows, place]) if is_number else table.codes[rows, place] >= 0]
    return known


def _checked(table: Table, rows: Any) -> np.ndarray | None:
    return None if rows is None else check_rows(rows, len(table))


def _is_known(x: np.ndarray) -> Any:
    return np.abs(x) < _LARGEST  # which NaN is not


class _Lookup:
    """For each row the place that its cell has among some values; `_OTHER` if none, `_NONE` if it is missing."""

    def __init__(self, table: Table, name: str, values: Sequence[str]) -> None:
        self._places, self._table, self._name = {"": _NONE} | {v: k for k, v in enumerate(values)}, table, name
        self._of_codes: np.ndarray | None = None
        self._of_cells: np.ndarray | None = None
        if table.kind(name) == "category":
            self._of_codes = self._find([*table.categories(name), ""])
        elif table.kind(name) == "text":
            self._of_cells = self._find(_spelled(table, name, slice(None)))

    def __call__(self, rows: Any) -> np.ndarray:
        places: np.ndarray
        if self._of_codes is not None:
            places = self._of_codes[self._table.codes[rows, self._table.place[self._name]]]
            return places
        if self._of_cells is not None:
            places = self._of_cells[rows]
            return places
        return self._find(_spelled(self._table, self._name, rows))

    def _find(self, cells: Sequence[str]) -> np.ndarray:
        return np.array([self._places.get(cell, _OTHER) for cell in cells], np.int64)


def _spelled(table: Table, name: str, rows: Any) -> list[str]:
    """Cells as strings, also those of a number column; missing ones are empty."""
    if table.kind(name) == "number":
        return [spelling(x) for x in table.numbers[rows, table.place[name]].tolist()]
    cells: list[str] = table[name][rows].tolist()
    return cells


def _check_number(table: Table, name: str) -> None:
    if table.kind(name) != "number":
        doubt = table.doubt(name) or "it holds none"
        raise ValueError(f"column {name!r} of {table.file} must be one of numbers: {doubt}")


def _plain(x: Any) -> Any:
    return list(x) if isinstance(x, tuple) else x
