"""Some rows of what may be too large for memory."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..device import PlainArray, device_of, move, raw_namespace
from .checks import Source, check_rows, is_in_memory, taken

__all__ = ["Subset", "subset"]


class Subset:
    """A source: some rows of another one, or of a memory-mapped array, read when they are taken.

    Parameters
    ----------
    source
        Where they are.
    rows
        Their numbers.
    """

    def __init__(self, source: Any, rows: np.ndarray) -> None:
        self._source, self._rows = source, rows
        self.shape, self.ndim, self.dtype = (len(rows), *source.shape[1:]), source.ndim, source.dtype

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        return f"Subset(shape={self.shape}, dtype={self.dtype})"

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Return these of its rows."""
        part: np.ndarray = taken(self._source, self._rows[rows])
        return part


def subset(x: PlainArray | Source, rows: Any) -> Any:
    """Return some rows, such as those to learn from.

    Parameters
    ----------
    x
        An array, a memory-mapped array or a source, of shape (n, ...).
    rows
        Numbers of rows, from 0 to n - 1, in the order that is wanted.

    Returns
    -------
    array or source
        Of shape (len(rows), ...). Of an array in memory the rows; else a source, which reads them when they are taken.

    Raises
    ------
    TypeError, ValueError
        If `rows` are no whole numbers, or not of rows that there are.

    Examples
    --------
    >>> subset(np.array([10, 20, 30]), [2, 0])
    array([30, 10])
    """
    rows = check_rows(rows, x.shape[0])
    if is_in_memory(x):
        return raw_namespace(x).take(x, move(rows, device_of(x)), axis=0)
    return Subset(x, rows)
