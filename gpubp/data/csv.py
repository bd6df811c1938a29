"""Tables from CSV files."""

from __future__ import annotations

import csv as standard
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any

from .opening import LINE, File, naming, opened_text, undecodable
from .tables import (
    DECIMAL_COMMA,
    MISSING,
    THOUSANDS,
    Piece,
    Table,
    as_number,
    check_names,
    fill,
    kinds_of,
    rows_of_a_piece,
    shown,
)

__all__ = ["csv"]

_CHARACTERS = 2**22  # of a piece, about


def csv(
    file: File,
    *,
    header: bool | None = None,
    delimiter: str | None = None,
    kinds: Mapping[str, str] | None = None,
    like: Any = None,
    missing: Iterable[str] = MISSING,
    decimal: str | None = None,
    encoding: str = "utf-8",
    max_categories: int = 1000,
    memory: int = 2**28,
    cache: File | None = None,
) -> Table:
    """Read a CSV file, ``.gz`` or not, piece by piece: it may be larger than memory.

    Blank lines are passed over, spaces around cells are not part of them. A column is one of numbers if all its cells
    that are not missing are numbers; a column with more than `max_categories` different other values is text.

    Parameters
    ----------
    file
        Name of the file.
    header
        Whether the first line holds the columns' names; by default it does if none of its cells is a number, or if one
        is not a number where the lines below hold numbers. Columns without a name are ``c1``, ``c2`` ....
    delimiter
        What stands between cells; by default found out: comma, semicolon, tab or bar.
    kinds
        Kinds of columns that are not to be found out, such as ``{"zip": "category"}``.
    like
        A `Table` or `Encoding` of columns of the same names, whose kinds these columns have too.
    missing
        Spellings of a missing cell, in capital or small letters. In number columns those of numbers, as ``"-999"``,
        mean the number, however it is written.
    decimal
        What stands before a number's fraction; by default found out: a comma if cells of the first lines have that, and
        none a point, and if it does not always stand before three digits, as between thousands.
    encoding
        Of the file's characters; a byte order mark is passed over.
    max_categories
        Most different values of a category column.
    memory
        Bytes up to which numbers, and codes of categories, are kept in memory. More go to a file that is
        memory-mapped, temporary unless there is a `cache`.
    cache
        A folder for these files, ``numbers.npy`` and ``codes.npy``; they are then made in any case.

    Returns
    -------
    Table

    Raises
    ------
    ValueError
        If the file is empty or no table; if a line has too many or too few cells; if two columns have one name; if a
        column that was said to be of numbers holds something else. The message names file and line.
    OSError
        If the file cannot be read.
    """
    spellings = frozenset(x.strip().lower() for x in ([missing] if isinstance(missing, str) else missing))
    with naming(file):
        form = _Form(file, header, delimiter, encoding, spellings, decimal)
        return fill(
            file, form.names, kinds_of(kinds, like, form.names), form.pieces,
            unit="line", missing=spellings, decimal=form.decimal,
            max_categories=max_categories, memory=memory, cache=cache,
        )  # fmt: skip


class _Form:
    """How a CSV file is to be read: its delimiter, its decimal point, the names of its columns, where data begin."""

    def __init__(
        self,
        file: File,
        header: bool | None,
        delimiter: str | None,
        encoding: str,
        missing: frozenset[str],
        decimal: str | None,
    ) -> None:
        if delimiter is not None and len(delimiter) != 1:
            raise ValueError(f"delimiter must be one character, got {delimiter!r}")
        self._file, self._encoding = file, encoding
        possible = delimiter or ",;\t|".replace(decimal or ".", "")
        self._delimiter = possible[0]
        if len(possible) > 1:
            with suppress(UnicodeError):  # which the rows' reader will report
                self._delimiter = _delimiter_of([*islice(self._sample(), 20)], possible)
        first = list(islice(self._rows(), 20))
        if not first:
            raise ValueError("the file is empty")
        cells = [row for _, _, row in first]
        self.decimal = _decimal_of(cells) if decimal is None else decimal
        self._has_header = _is_header(cells, missing, self.decimal) if header is None else header
        self.names = _names(cells[0]) if self._has_header else [f"c{k + 1}" for k in range(len(cells[0]))]

    def _lines(self) -> Any:
        return _Lines(opened_text(self._file, self._encoding, newline=""))

    def _sample(self) -> Iterator[str]:
        with self._lines() as lines:
            for line in lines:
                lines.taken = 0
                if line.strip():
                    yield line[:10_000]

    def _rows(self) -> Iterator[tuple[int, int, list[str]]]:
        """The rows that are not blank, each with the line it begins at and how many characters it has."""
        with self._lines() as lines:
            reader = standard.reader(lines, delimiter=self._delimiter)
            line = 1
            while True:
                try:
                    row = next(reader, None)
                except UnicodeError:
                    raise ValueError(undecodable(self._file, self._encoding)) from None
                except standard.Error as error:
                    raise ValueError(f"line {line}: {error}; is there a quote that is never closed?") from None
                if row is None:
                    return
                if len(row) > 1 or (row and row[0].strip()):
                    yield line, lines.taken, row
                line, lines.taken = reader.line_num + 1, 0

    def pieces(self) -> Iterator[Piece]:
        most, width = rows_of_a_piece(len(self.names)), len(self.names)
        lines, rows, characters = list[int](), list[list[str]](), 0
        for line, length, row in islice(self._rows(), int(self._has_header), None):
            if len(row) != width:
                cells = f"{len(row)} cell{'s' * (len(row) != 1)}"
                wanted = "the first line has" if not self._has_header else "there are names for"
                raise ValueError(f"line {line} has {cells}, but {wanted} {width}: {shown(','.join(row))}")
            lines.append(line)
            rows.append(row)
            characters += length
            if len(rows) == most or characters > _CHARACTERS:
                yield lines, list(zip(*rows, strict=True))
                lines, rows, characters = [], [], 0
        if rows:
            yield lines, list(zip(*rows, strict=True))


class _Lines:
    """The lines of a text file; a row of them, after which `taken` is set to 0, is not longer than a bound."""

    def __init__(self, stream: io.TextIOWrapper) -> None:
        self._stream, self._line, self.taken = stream, 0, 0

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._stream.readline(LINE)
        self._line, self.taken = self._line + 1, self.taken + len(line)
        if self.taken >= LINE:
            raise ValueError(f"line {self._line}: a row has more than {LINE} characters; this is no table")
        if not line:
            raise StopIteration
        return line

    def __enter__(self) -> _Lines:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()


def _delimiter_of(lines: list[str], possible: str) -> str:
    """The delimiter by which most lines have as many cells as the first; of several no comma, then that of most."""

    def fitness(delimiter: str) -> tuple[int, bool, int]:
        widths = [len(row) for row in standard.reader(lines, delimiter=delimiter) if row] or [1]
        return (widths.count(widths[0]), delimiter != ",", widths[0]) if widths[0] > 1 else (0, delimiter == ",", 1)

    return max(possible, key=fitness)


def _decimal_of(rows: list[list[str]]) -> str:
    cells = [cell.strip() for row in rows for cell in row]
    with_comma = [cell for cell in cells if DECIMAL_COMMA.fullmatch(cell)]
    has_point = any("." in cell and as_number(cell) is not None for cell in cells)
    return "." if has_point or all(map(THOUSANDS.fullmatch, with_comma)) else ","


def _is_header(rows: list[list[str]], missing: frozenset[str], decimal: str) -> bool:
    """Whether no cell of the first row can be a number, or one is the name of numbers below."""

    def is_number(cell: str) -> bool:
        return as_number(cell.replace(decimal, ".")) is not None

    def is_missing(cell: str) -> bool:
        return cell.strip().lower() in missing

    if not any(map(is_number, rows[0])):
        return not all(map(is_missing, rows[0]))
    below = zip(*(row for row in rows[1:] if len(row) == len(rows[0])), strict=True)
    return any(
        not (is_number(name) or is_missing(name))
        and any(map(is_number, column))
        and all(is_number(cell) or is_missing(cell) for cell in column)
        for name, column in zip(rows[0], below, strict=False)
    )


def _names(cells: Sequence[str]) -> list[str]:
    return check_names([cell.strip() or f"c{k + 1}" for k, cell in enumerate(cells)])
