"""Batches of examples, in an order that a seed and an epoch number determine."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from numbers import Integral
from typing import Any

import numpy as np

from ..boundary import is_inexact
from ..device import Device, PlainArray, device_of, is_array, move, raw_namespace, resolve
from ..dtypes import named
from .checks import Source, check_indices, check_part, is_in_memory, is_source

__all__ = ["Batches", "batches"]

LAST = ("keep", "drop", "pad")


class Batches:
    """The batches of one epoch: iterate over it as often as wanted; `len` is the number of batches that come.

    Made by `batches`, which says what the arguments mean.

    Attributes
    ----------
    start : int
        The first batch that comes.
    """

    def __init__(
        self,
        data: Sequence[PlainArray | Source],
        batch_size: int,
        *,
        shuffle: bool,
        seed: int | None,
        epoch: int,
        start: int,
        last: str,
        device: Device | str | None,
        dtype: str | None,
    ) -> None:
        alone: Any = data
        if is_array(alone) or is_source(alone):
            raise TypeError(f"data must be a tuple of arrays, got one of shape {tuple(alone.shape)}; write (x,)")
        self._data: tuple[Any, ...] = tuple(data)
        rows = _count_rows(self._data)
        check_at_least_1("batch_size", batch_size)
        if last not in LAST:
            raise ValueError(f"last must be {', '.join(map(repr, LAST[:-1]))} or {LAST[-1]!r}, got {last!r}")
        if last == "drop" and rows < batch_size:
            raise ValueError(f"last='drop' would drop all {rows} rows: batch_size is {batch_size}")
        for position, array in enumerate(self._data):
            if is_in_memory(array):
                check_indices(array, position)
        self._order = shuffled(rows, seed, epoch) if shuffle else None
        self._rows, self._size, self._last = rows, int(batch_size), last
        full, rest = divmod(rows, self._size)
        self._total = full + (rest > 0 and last != "drop")
        self.start = self._number("start", start, self._total + 1)
        self._device = None if device is None else resolve(device)
        self._dtype = None if dtype is None else _dtype_name(dtype)

    def __len__(self) -> int:
        return self._total - self.start

    def __iter__(self) -> Iterator[tuple[PlainArray, ...]]:
        for i in range(self.start, self._total):
            rows = self.rows(i)
            yield tuple(self._take(k, rows) for k in range(len(self._data)))

    def rows(self, i: int) -> np.ndarray:
        """Return where in the data the rows of batch `i` stand; the epoch's first batch is 0, whatever `start` is."""
        first = self._number("a batch", i, self._total) * self._size
        places = np.arange(first, first + self._size)
        places = places % self._rows if self._last == "pad" else places[: self._rows - first]
        return places if self._order is None else self._order[places]

    def count(self, i: int) -> int:
        """Return how many rows of batch `i` are no padding: they come first."""
        return min(self._size, self._rows - self._number("a batch", i, self._total) * self._size)

    def _number(self, name: str, value: Any, end: int) -> int:
        if not isinstance(value, Integral):
            raise TypeError(f"{name} must be a whole number, got {value!r}")
        number = int(value)
        if not 0 <= number < end:
            raise ValueError(f"{name} must be from 0 to {end - 1}, got {number}: the epoch has {self._total} batches")
        return number

    def _take(self, position: int, rows: np.ndarray) -> PlainArray:
        part = self._read(position, rows)
        if self._dtype is not None and is_inexact(part.dtype):
            xp = raw_namespace(part)
            part = xp.astype(part, named(xp, self._dtype), copy=False)
        return part if self._device is None else move(part, self._device)

    def _read(self, position: int, rows: np.ndarray) -> PlainArray:
        array = self._data[position]
        if is_in_memory(array):
            return raw_namespace(array).take(array, move(rows, device_of(array)), axis=0)
        part = np.take(array, rows, axis=0) if is_array(array) else array.take(rows)
        wanted = (len(rows), *array.shape[1:])
        if not isinstance(part, np.ndarray) or part.shape != wanted:
            got = f"{type(part).__name__}{tuple(getattr(part, 'shape', ()))}"
            raise ValueError(
                f"data[{position}], a {type(array).__name__}, gave {got} for {len(rows)} rows; an ndarray of shape "
                f"{wanted} was expected"
            )
        part = np.asarray(part)
        check_part(part, rows, position)
        return part


def batches(
    data: Sequence[PlainArray | Source],
    batch_size: int,
    *,
    shuffle: bool = False,
    seed: int | None = None,
    epoch: int = 0,
    start: int = 0,
    last: str = "keep",
    device: Device | str | None = None,
    dtype: str | None = None,
) -> Batches:
    """Cut arrays into batches of rows.

    Every row is in exactly one batch, but for what `last` says.

    Parameters
    ----------
    data : sequence of arrays and sources
        Arrays with one example a row, such as ``(inputs, labels)``, all of the same length; or sources (`Source`),
        which are read batch by batch.
    batch_size : int
        Rows in a batch.
    shuffle : bool
        Whether to take the rows in random order.
    seed : int, optional
        The order of epoch `epoch` depends on `seed` and `epoch` alone, the same on every machine and NumPy version.
        Without a seed a shuffled order is a new one each time.
    epoch : int
        Number of the epoch, from 0.
    start : int
        The first batch that comes, to go on within an epoch: what comes is what came from there on before.
    last : {"keep", "drop", "pad"}
        What becomes of the last batch where the size does not divide the number of rows: it is smaller; or left out; or
        filled up with the epoch's first rows, so that all batches have one shape. These rows then count twice;
        `Batches.count` says how many of a batch are no padding.
    device : Device or str, optional
        Where the batches are wanted; by default where the data are.
    dtype : str, optional
        Floating-point dtype, such as ``"float32"``, to which floating-point arrays are cast; others stay as they are.

    Returns
    -------
    Batches
        An iterable of tuples of arrays, in the order of `data`; its `len` is the number of batches.

    Raises
    ------
    TypeError
        If `data` is not a sequence of arrays and sources.
    ValueError
        If the lengths differ, or are zero; if an array of signed integers (labels, indices) holds a negative number,
        which would silently count from the end (in an array in memory that is found here, in files and sources when a
        batch has it); if `batch_size`, `seed`, `epoch` or `start` is out of range.

    Examples
    --------
    >>> [x.tolist() for (x,) in batches((np.arange(5),), 2)]
    [[0, 1], [2, 3], [4]]
    >>> [x.tolist() for (x,) in batches((np.arange(5),), 2, start=1, last="pad")]
    [[2, 3], [4, 0]]
    """
    return Batches(
        data,
        batch_size,
        shuffle=shuffle,
        seed=seed,
        epoch=epoch,
        start=start,
        last=last,
        device=device,
        dtype=dtype,
    )


def shuffled(rows: int, seed: int | None, epoch: int) -> np.ndarray:
    """Return the numbers below `rows` in an order drawn for (`seed`, `epoch`).

    Sorting raw Philox words gives the same order under every version of NumPy, which promises to keep a bit
    generator's stream but not what `Generator.permutation` makes of it.
    """
    if not (isinstance(epoch, Integral) and isinstance(seed, Integral | None)):
        raise TypeError(f"seed and epoch must be whole numbers, got seed={seed!r}, epoch={epoch!r}")
    if seed is None:
        words = np.random.Philox().random_raw(rows)
    else:
        if not (0 <= seed < 2**64 and 0 <= epoch < 2**64):
            raise ValueError(f"seed and epoch must be from 0 to 2**64 - 1, got seed={seed}, epoch={epoch}")
        words = np.random.Philox(key=np.array([seed, epoch], dtype=np.uint64)).random_raw(rows)
    return np.argsort(words, kind="stable")


def check_at_least_1(name: str, value: Any) -> None:
    """Refuse what is not a whole number from 1."""
    if not isinstance(value, Integral):
        raise TypeError(f"{name} must be a whole number, got {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")


def _dtype_name(dtype: Any) -> str:
    name: str = dtype if isinstance(dtype, str) else np.dtype(dtype).name
    if not re.fullmatch(r"b?float\d+|complex\d+", name):
        raise ValueError(f"dtype must be a floating-point dtype such as 'float32', got {dtype!r}")
    return name


def _count_rows(data: tuple[Any, ...]) -> int:
    if not data or not all((is_array(array) or is_source(array)) and array.ndim > 0 for array in data):
        got = ", ".join(f"{type(a).__name__}{tuple(a.shape) if is_array(a) else ''}" for a in data)
        raise TypeError(f"data must be a tuple of arrays with one example a row, got ({got})")
    lengths = [array.shape[0] for array in data]
    if len(set(lengths)) > 1:
        raise ValueError(f"the arrays of data must have the same length, got lengths {', '.join(map(str, lengths))}")
    if lengths[0] == 0:
        raise ValueError("data has no rows")
    return int(lengths[0])
