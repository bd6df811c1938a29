"""Tables from Parquet files, with PyArrow."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from .opening import File, naming
from .tables import Piece, Table, check_names, fill, kinds_of, rows_of_a_piece, spelling

__all__ = ["parquet"]


def parquet(
    file: File,
    *,
    kinds: Mapping[str, str] | None = None,
    like: Any = None,
    max_categories: int = 1000,
    memory: int = 2**28,
    cache: File | None = None,
) -> Table:
    """Read a Parquet file piece by piece: it may be larger than memory. Needs PyArrow (extra ``parquet``).

    A column of numbers is one of numbers; one of strings, truth values or times one of categories, or text if there are
    too many of them.

    Parameters
    ----------
    file
        Name of the file.
    kinds, like, max_categories, memory, cache
        As in `csv`.

    Returns
    -------
    Table

    Raises
    ------
    ModuleNotFoundError
        If PyArrow is not installed.
    ValueError
        If it is no whole Parquet file; if a column holds lists or records; if two columns have one name; if a column
        that was said to be of numbers holds something else.
    OSError
        If the file cannot be read.
    """
    try:
        from pyarrow import ArrowException, types
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise ModuleNotFoundError(
            "Parquet files are read with PyArrow: pip install 'gpubp[parquet]'", name="pyarrow"
        ) from error
    with naming(file):
        try:
            with open(file, "rb") as stream:
                schema = ParquetFile(stream, pre_buffer=False).schema_arrow
            told = kinds_of(kinds, like, check_names(schema.names))
            numbers = types.is_integer, types.is_floating, types.is_decimal, types.is_null
            is_number = [any(is_kind(t) for is_kind in numbers) for t in schema.types]
            for field, numeric in zip(schema, is_number, strict=True):
                if types.is_nested(field.type):
                    raise ValueError(f"column {field.name!r} holds {field.type}, neither numbers nor categories")
                told.setdefault(field.name, "number" if numeric else "category")

            def cells(column: Any, numeric: bool, kind: str) -> Any:
                if numeric and kind == "number":
                    return column.cast("float64", safe=False).to_numpy(zero_copy_only=False)
                spelled = _spelled if numeric else str
                return ["" if x is None else spelled(x) for x in column.to_pylist()]

            def pieces() -> Iterator[Piece]:
                first = 1
                with open(file, "rb") as stream:
                    source = ParquetFile(stream, pre_buffer=False)
                    for batch in source.iter_batches(rows_of_a_piece(len(schema.names))):
                        columns = zip(batch.columns, is_number, schema.names, strict=True)
                        lines = range(first, first + batch.num_rows)
                        yield lines, [cells(column, numeric, told[name]) for column, numeric, name in columns]
                        first += batch.num_rows

            return fill(
                file, schema.names, told, pieces, unit="row", max_categories=max_categories, memory=memory, cache=cache
            )
        except (ArrowException, OSError) as error:
            if isinstance(error, OSError) and error.filename is not None:
                raise
            raise ValueError(f"{os.fspath(file)} is no whole Parquet file: {error}") from None


def _spelled(x: Any) -> str:
    return spelling(x if isinstance(x, int) else float(x))  # a large int to its last digit
