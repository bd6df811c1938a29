"""Tables: named columns of numbers and of categories, read from files piece by piece."""

from __future__ import annotations

import io
import math
import os
import re
import secrets
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np

from .opening import File, naming

__all__ = [
    "DECIMAL_COMMA",
    "KINDS",
    "MISSING",
    "THOUSANDS",
    "Piece",
    "Store",
    "Table",
    "as_number",
    "check_names",
    "fill",
    "kinds_of",
    "near",
    "rows_of_a_piece",
    "shown",
    "spelling",
]

#: What a column can be. Of a text column, which has too many different values to be one of categories, nothing is kept.
KINDS = ("number", "category", "text")
#: Spellings of a missing cell, in lower case.
MISSING = ("", "na", "n/a", "#n/a", "nan", "null", "none", "?")

_CELLS = 2**15  # of a piece
_HEADER = 128  # bytes of an .npy file before its data

DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+(e[+-]?\d+)?", re.IGNORECASE)
THOUSANDS = re.compile(r"[+-]?\d{1,3}(,\d{3})+(\.\d*)?")
_UNUSUAL = {
    "date": re.compile(r"\d{4}-\d\d?-\d\d?([ T].*)?|\d\d?[./-]\d\d?[./-]\d{2}(\d{2})?([ T].*)?"),
    "number with commas between its thousands": THOUSANDS,
    "number with a decimal comma (decimal=',')": DECIMAL_COMMA,
}

Piece = tuple[Sequence[int], Sequence[Sequence[Any]]]  # the lines that rows begin at; the columns' cells


class Table:
    """Rows of a file, by columns that have names and kinds; made by `csv` and `parquet`.

    Parameters
    ----------
    file
        Where the rows come from.
    columns
        What the reader has found of each column.
    numbers, codes
        One row for each of the file's: the number columns in float64, where NaN is missing; of the other columns which
        of its categories a cell is, -1 if it is missing. They are arrays in memory or memory-mapped files.
    text
        A function that reads a text column from the file, by name.
    """

    def __init__(
        self,
        file: File,
        columns: Sequence[_Column],
        numbers: np.ndarray,
        codes: np.ndarray,
        text: Callable[[str], np.ndarray],
    ) -> None:
        self.file, self.numbers, self.codes, self._text = os.fspath(file), numbers, codes, text
        self._columns = {column.name: column for column in columns}
        self.names = tuple(self._columns)  #: of the columns, in the file's order
        self.kinds = {column.name: column.kind for column in columns}  #: of each column, one of `KINDS`
        self.missing = {column.name: column.missing for column in columns}  #: of each column, how many cells
        self.place: dict[str, int] = {}  #: of each column, in `numbers` or `codes`
        for is_number in (True, False):
            names = [name for name, kind in self.kinds.items() if (kind == "number") == is_number]
            self.place |= {name: place for place, name in enumerate(names)}

    def __len__(self) -> int:
        return len(self.numbers)

    def __repr__(self) -> str:
        return f"Table({len(self)} rows, {len(self.names)} columns, {self.file!r})"

    def __getitem__(self, name: str) -> np.ndarray:
        """Return a column: float64 with NaN where it is missing, or strings with ``""`` there."""
        kind = self.kind(name)
        if kind == "number":
            numbers: np.ndarray = self.numbers[:, self.place[name]]
            return numbers
        if kind == "text":
            return self._text(name)
        cells: np.ndarray = np.array([*self.categories(name), ""])[self.codes[:, self.place[name]]]
        return cells

    def kind(self, name: str) -> str:
        """Return a column's kind, or raise an error that says which columns there are."""
        if name not in self.kinds:
            raise ValueError(f"{self.file} has no column {name!r}{near(name, self.names)}")
        return self.kinds[name]

    def categories(self, name: str) -> Sequence[str]:
        """Return the values of a category column, in the order of their first cells; `codes` counts in it."""
        return tuple(self._columns[name].values)

    def remark(self, name: str) -> str | None:
        """Return what is strange in a column: its `doubt`; that it counts the rows; that it holds dates."""
        column = self._columns[name]
        if column.kind == "number":
            return (
                "it counts the rows (ignore leaves it out)"
                if column.counts_rows and column.high - column.low >= 9
                else None
            )
        for what, pattern in _UNUSUAL.items():
            if pattern.fullmatch(column.first):
                return f"{shown(column.first)} looks like a {what}"
        return self.doubt(name)

    def doubt(self, name: str) -> str | None:
        """Return the sentence that says why a column whose cells are mostly numbers is not one of numbers."""
        column = self._columns[name]
        if column.example is None or column.good < column.bad:
            return None
        line, cell = f"{column.unit} {column.example[0]}", shown(column.example[1])
        if column.bad == 1:
            return f"{line} holds {cell} where {column.good} cells are numbers"
        return f"{column.bad} cells are no numbers where {column.good} are, the first in {line}: {cell}"

    def report(self) -> str:
        """Return what is known of the columns, a line each: kind, missing cells, range or most frequent values."""
        width = max(map(len, self.names))
        lines = [f"{self.file}: {len(self)} rows, {len(self.names)} columns"]
        for name, column in self._columns.items():
            line = f"  {name:{width}}  {column.kind:8}  {column.summary(len(self))}"
            lines.append(line + (f", {column.missing} missing" if column.missing else ""))
            if remark := self.remark(name):
                lines.append(f"  {'':{width}}  ! {remark}")
        return "\n".join(lines)


class _Column:
    """What has been found of a column so far; it turns cells to numbers, or to codes of categories."""

    def __init__(
        self, name: str, kind: str | None, *, unit: str, missing: frozenset[str], decimal: str, most: int
    ) -> None:
        self.name, self.kind, self.is_told, self.unit = name, kind or "number", kind is not None, unit
        self._missing, self._decimal, self._most = missing, decimal, most
        self._sentinels = [number for x in missing if (number := as_number(x.replace(decimal, "."))) is not None]
        self.missing = self.good = self.bad = 0
        self.example: tuple[int, str] | None = None  # the first cell that is no number, and its line
        self.low, self.high = math.inf, -math.inf
        self.counts_rows, self._last = True, math.nan  # whether each number is one more than that before
        self.first = ""  # category
        self.values: list[str] = []
        self.counts = np.zeros(0, np.int64)
        self._index: dict[str, int] = {}

    def take(self, cells: Sequence[Any], lines: Sequence[int]) -> np.ndarray:
        """Return cells as float64, or their codes as int32; the first ones decide which, if nobody has told."""
        if self.kind == "number":
            is_first = not (self.good or self.bad or self.missing)
            numbers = self._numbers(cells, lines)
            if self._sentinels:  # spellings of a missing cell that are numbers, such as -999
                numbers[np.isin(numbers, self._sentinels)] = np.nan
            if not (is_first and self.bad > self.good):
                if self.counts_rows:
                    before = numbers[0] - 1 if is_first else self._last
                    with np.errstate(invalid="ignore"):  # infinity less infinity
                        self.counts_rows = bool((np.diff(numbers, prepend=before) == 1).all())
                    self._last = numbers[-1]
                self.missing += int(np.count_nonzero(np.isnan(numbers)))
                self.low = min(self.low, np.fmin.reduce(numbers))  # what is NaN is not less than it
                self.high = max(self.high, np.fmax.reduce(numbers))
                return numbers
            self.kind = "category"
        codes = np.array(self._codes(cells), np.int32)
        self.missing += int((codes < 0).sum())
        counts = np.bincount(codes[codes >= 0], minlength=len(self.values))
        counts[: len(self.counts)] += self.counts
        self.counts = counts
        return codes

    def _numbers(self, cells: Sequence[Any], lines: Sequence[int]) -> np.ndarray:
        if isinstance(cells, np.ndarray):
            self.good += len(cells)
            return cells
        if self._decimal != ".":
            cells = [cell.replace(self._decimal, ".") for cell in cells]
        try:
            if "_" in "".join(cells):  # which float() would pass over
                raise ValueError
            numbers = np.fromiter(map(float, cells), np.float64, len(cells))
            self.good += len(cells)
            return numbers
        except ValueError:
            numbers = np.full(len(cells), np.nan)
        for row, cell in enumerate(cells):
            if self._is_missing(cell):
                continue
            number = as_number(cell)
            if number is not None:
                self.good += 1
                numbers[row] = number
            elif self.is_told:
                where = f"{self.unit} {lines[row]}"
                raise ValueError(f"{where}: column {self.name!r} holds {shown(cell)}, which is no number")
            else:
                self.bad += 1
                self.example = self.example or (lines[row], cell)
        return numbers

    def _codes(self, cells: Sequence[str]) -> list[Any]:
        if self.kind == "category":
            codes: list[Any] = [*map(self._index.get, cells)]
            if None not in codes:
                return codes
            codes = [self._code(cell) if code is None else code for code, cell in zip(codes, cells, strict=True)]
            self.first = self.first or next(iter(self.values), "")
            if len(self.values) <= self._most:
                return codes
            self.kind, self.values, self._index, self.counts = "text", [], {}, self.counts[:0]
        return [-1 if self._is_missing(cell) else 0 for cell in cells]

    def _code(self, cell: str) -> int:
        if self._is_missing(cell):
            return -1
        value = cell.strip()
        code = self._index.get(value)
        if code is None and len(self.values) <= self._most:
            code = self._index[value] = len(self.values)
            self.values.append(value)
        return code or 0

    def _is_missing(self, cell: str) -> bool:
        return cell.strip().lower() in self._missing

    def summary(self, rows: int) -> str:
        if self.missing == rows:
            return "no cell is known"
        if self.kind == "number":
            return f"{self.low:.6g} to {self.high:.6g}"
        if self.kind == "text":
            return f"more than {self._most} different values"
        frequent = np.argsort(-self.counts, kind="stable")[:4]
        values = ", ".join(f"{shown(self.values[i])} ({self.counts[i]})" for i in frequent)
        return f"{len(self.values)} different: {values}{', ...' if len(self.values) > 4 else ''}"


class Store:
    """Rows of a matrix: in memory while they are few, then in a file that is memory-mapped."""

    def __init__(self, dtype: Any, limit: int, file: Path | None) -> None:
        self._dtype, self._limit, self._file = np.dtype(dtype), limit, file
        self._part = Path(f"{file}.{secrets.token_hex(4)}.part")
        self._parts: list[np.ndarray] = []
        self._rows = self._width = 0
        self._stream: Any = None

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None and self._stream is not None:  # of a reading that failed nothing stays
            self._stream.close()
            self._part.unlink(missing_ok=True)

    def append(self, columns: Sequence[np.ndarray], rows: int) -> None:
        part = np.empty((rows, len(columns)), self._dtype)
        for place, column in enumerate(columns):
            part[:, place] = column
        self._parts.append(part)
        self._rows, self._width = self._rows + rows, len(columns)
        if self._file is not None or self._rows * self._width * self._dtype.itemsize > self._limit:
            self._write()

    def _write(self) -> None:
        if self._stream is None:
            self._stream = tempfile.TemporaryFile() if self._file is None else open(self._part, "w+b")  # noqa: SIM115
            self._stream.write(bytes(_HEADER))
        for part in self._parts:
            self._stream.write(part)
        self._parts.clear()

    def array(self) -> np.ndarray:
        """Return the matrix, to be read only where it is a file."""
        shape = self._rows, self._width
        if self._stream is None:
            return np.concatenate(self._parts) if self._parts else np.empty(shape, self._dtype)
        with self._stream:
            header = io.BytesIO()
            description = {"descr": self._dtype.str, "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(header, description)
            assert len(header.getvalue()) == _HEADER
            self._stream.seek(0)
            self._stream.write(header.getvalue())
            self._stream.flush()
            if self._file is not None:  # in the place of an older one, which may be mapped
                os.replace(self._part, self._file)
            if not self._rows * self._width:
                return np.empty(shape, self._dtype)
            return np.asarray(np.memmap(self._stream, self._dtype, "r", _HEADER, shape))


def kinds_of(kinds: Mapping[str, str] | None, like: Any, names: Sequence[str]) -> dict[str, str]:
    """Return the kinds that the user has told of the columns, directly or by a table or encoding."""
    for name, kind in (kinds or {}).items():
        if name not in names:
            raise ValueError(f"kinds names a column {name!r}, which is not there{near(name, names)}")
        if kind not in KINDS:
            raise ValueError(f"the kind of {name!r} must be one of {', '.join(KINDS)}, got {kind!r}")
    pattern: Mapping[str, str] | None = {} if like is None else getattr(like, "kinds", None)
    if pattern is None:
        raise TypeError(f"like must be a Table or an Encoding, got {like!r:.80}")
    return {name: kind for name, kind in pattern.items() if name in names} | dict(kinds or {})


def rows_of_a_piece(width: int) -> int:
    """Return how many rows of so many cells are read at once."""
    return max(1, _CELLS // width, min(64, 8 * _CELLS // width))  # few rows of very many columns would be slow


def fill(
    file: File,
    names: Sequence[str],
    kinds: Mapping[str, str],
    pieces: Callable[[], Iterable[Piece]],
    *,
    unit: str,
    missing: frozenset[str] = frozenset([""]),
    decimal: str = ".",
    max_categories: int,
    memory: int,
    cache: File | None,
) -> Table:
    """Read a table by pieces; a second time if a column began with numbers and is not all of numbers."""
    if cache is not None:
        Path(cache).mkdir(parents=True, exist_ok=True)

    def read(kinds: Mapping[str, str]) -> tuple[list[_Column], np.ndarray, np.ndarray]:
        columns = [
            _Column(name, kinds.get(name), unit=unit, missing=missing, decimal=decimal, most=max_categories)
            for name in names
        ]
        files = [None if cache is None else Path(cache, name) for name in ("numbers.npy", "codes.npy")]
        with Store(np.float64, memory, files[0]) as numbers, Store(np.int32, memory, files[1]) as codes:
            for lines, cells in pieces():
                if not len(lines):
                    continue
                parts = [column.take(part, lines) for column, part in zip(columns, cells, strict=True)]
                for store, kind in ((numbers, "f"), (codes, "i")):
                    store.append([part for part in parts if part.dtype.kind == kind], len(lines))
            return columns, numbers.array(), codes.array()

    def text(name: str) -> np.ndarray:
        place = list(names).index(name)
        with naming(file):
            cells = [cell.strip() for _, columns in pieces() for cell in columns[place]]
        return np.array(["" if cell.lower() in missing else cell for cell in cells])

    columns, numbers, codes = read(kinds)
    if doubtful := {column.name: column for column in columns if column.kind == "number" and column.bad}:
        del numbers, codes
        columns, numbers, codes = read({**kinds, **dict.fromkeys(doubtful, "category")})
        for column in columns:
            if seen := doubtful.get(column.name):
                column.good, column.bad, column.example = seen.good, seen.bad, seen.example
    if not len(numbers):
        raise ValueError(f"{os.fspath(file)} has no rows of data")
    return Table(file, columns, numbers, codes, text)


def check_names(names: list[str]) -> list[str]:
    """Return the names of columns, unless there are none, or two are the same."""
    if not names:
        raise ValueError("there are no columns")
    first: dict[str, int] = {}
    for k, name in enumerate(names, 1):
        if first.setdefault(name, k) != k:
            raise ValueError(f"columns {first[name]} and {k} are both named {name!r}")
    return names


def as_number(cell: str) -> float | None:
    """Return the number that a cell spells, or None."""
    try:
        return None if "_" in cell else float(cell)
    except ValueError:
        return None


def spelling(x: float) -> str:
    """Return how a number is spelled as a category or label: whole ones without a point, NaN as nothing."""
    if x != x:
        return ""
    return str(int(x)) if math.isfinite(x) and x == int(x) else repr(x)


def near(name: str, names: Sequence[str]) -> str:
    """Say which name may have been meant, and which there are."""
    close = get_close_matches(str(name), names, 1, 0.5)
    shown = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
    return f"; did you mean {close[0]!r}? There are {shown}" if close else f"; there are {shown}"


def shown(cell: str) -> str:
    """Return a cell in quotes, not all of it if it is long."""
    return repr(cell if len(cell) <= 40 else cell[:37] + "...")
