"""Checks of data on the host, before a step meets them; a step itself reads nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator
from numbers import Integral
from typing import Any, Protocol

import numpy as np

from ..boundary import is_inexact
from ..device import PlainArray, is_array, library, raw_namespace, to_numpy

__all__ = ["Source", "check_finite", "check_indices", "chunks", "is_in_memory", "is_on_host", "is_source"]

CHUNK = 2**22  #: bytes that are read at once


class Source(Protocol):
    """Rows that are not in memory but are read, or made, when a batch asks for them.

    Everything that takes arrays with one example a row takes a source too: any object with these attributes. With
    prefetching, `take` is called in another thread, and perhaps in two at a time: by an epoch and by a measurement.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """The number of rows, and the shape of one."""

    @property
    def ndim(self) -> int:
        """The length of `shape`."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of what `take` returns."""

    def __len__(self) -> int: ...

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Return these rows (int64, in any order, maybe twice), an array of shape ``(len(rows), *shape[1:])``."""


def is_source(x: Any) -> bool:
    """Whether `x` is a `Source`, and no array."""
    return not is_array(x) and all(hasattr(x, name) for name in ("shape", "ndim", "dtype", "__len__", "take"))


def is_in_memory(x: Any) -> bool:
    """Whether `x` is an array, and not one that is mapped from a file."""
    return is_array(x) and not isinstance(x, np.memmap)


def chunks(x: Any) -> Iterator[tuple[int, np.ndarray]]:
    """Yield `x`, an array or a source, on the host in chunks of at most some MB, each with the number of its first row.

    What another library holds comes in one piece, which is one wait for its device.
    """
    rows = x.shape[0]
    size = CHUNK // max(1, math.prod(x.shape[1:]) * np.dtype(x.dtype).itemsize) if is_on_host(x) else rows
    for first in range(0, rows, max(1, size)):
        end = min(first + max(1, size), rows)
        yield first, to_numpy(x[first:end]) if is_array(x) else x.take(np.arange(first, end))


def taken(x: Any, rows: np.ndarray) -> Any:
    """Return rows of a source or of a NumPy array, which may be mapped from a file."""
    return np.take(x, rows, axis=0) if is_array(x) else x.take(rows)


def is_on_host(x: Any) -> bool:
    """Whether `x` is a source or NumPy's."""
    return not is_array(x) or library(x) == "numpy"


def check_at_least(least: int, name: str, value: Any) -> None:
    """Refuse what is not a whole number from `least`."""
    if not isinstance(value, Integral):
        raise TypeError(f"{name} must be a whole number, got {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")


def check_rows(rows: Any, n: int) -> np.ndarray:
    """Return numbers of rows as an array; refuse what are none, or not those of `n` rows."""
    rows = np.asarray(rows)
    if rows.ndim != 1 or rows.dtype.kind not in "iu":
        hint = "; np.flatnonzero(rows) are these numbers" if rows.dtype == bool else ""
        raise TypeError(f"rows must be the numbers of rows, got an array of {rows.dtype} of shape {rows.shape}{hint}")
    if rows.size and not (rows.min() >= 0 and rows.max() < n):
        raise ValueError(f"rows must be from 0 to {n - 1}, got {rows.min()} to {rows.max()}")
    return np.asarray(rows)


def check_finite(x: PlainArray, what: str) -> None:
    """Refuse NaN and infinity in an array."""
    if not is_inexact(x.dtype):
        return
    xp = raw_namespace(x)
    if not is_on_host(x) and bool(xp.all(xp.isfinite(x))):
        return
    for first, part in chunks(x):
        check_finite_part(part, first, what)


def check_finite_part(part: np.ndarray, first: int, what: str) -> None:
    """Refuse NaN and infinity in these rows, of which the first one's number is given."""
    if not np.isfinite(part).all():
        i, *others = (int(i) for i in np.argwhere(~np.isfinite(part))[0])
        raise ValueError(f"the {what} hold {part[i, *others]} at {(first + i, *others)}")


def check_indices(x: PlainArray, position: int, ignored: int | None = None) -> None:
    """Refuse negative labels and indices in an array: in a step the check would cost a wait for the device."""
    if raw_namespace(x).isdtype(x.dtype, "signed integer"):
        for first, part in chunks(x):
            check_part(part, np.arange(first, first + len(part)), position, ignored)


def check_part(part: np.ndarray, rows: np.ndarray, position: int, ignored: int | None = None) -> None:
    """Refuse negative labels and indices, but for the one that is ignored, in these rows of ``data[position]``."""
    if part.dtype.kind == "i" and part.size and part.min() < 0 and (bad := (part < 0) & (part != ignored)).any():
        i, *others = (int(i) for i in np.argwhere(bad)[0])
        raise ValueError(
            f"data[{position}] is an integer array ({part.dtype}) and holds {part[i, *others]} at "
            f"{(int(rows[i]), *others)}: labels and indices are counted from 0 (cast to a floating-point dtype if "
            "these are values; ignore_index says which label the loss ignores)"
        )
