"""Batches of examples, in an order that a seed and an epoch number determine."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from numbers import Integral
from typing import Any

import numpy as np

from ..boundary import is_inexact
from ..device import Device, PlainArray, device_of, is_array, move, raw_namespace, resolve, to_numpy
from ..dtypes import named

__all__ = ["Batches", "batches"]


class Batches:
    """The batches of one epoch: iterate over it as often as wanted; `len` is the number of batches.

    Made by `batches`, which says what the arguments mean.
    """

    def __init__(
        self,
        data: Sequence[PlainArray],
        batch_size: int,
        *,
        shuffle: bool,
        seed: int | None,
        epoch: int,
        drop_last: bool,
        device: Device | str | None,
        dtype: str | None,
    ) -> None:
        if is_array(data):
            raise TypeError(f"data must be a tuple of arrays, got one of shape {tuple(data.shape)}; write (x,)")  # type: ignore[attr-defined]
        self._data = tuple(data)
        self._rows = _count_rows(self._data)
        check_at_least_1("batch_size", batch_size)
        if drop_last and self._rows < batch_size:
            raise ValueError(f"drop_last=True would drop all {self._rows} rows: batch_size is {batch_size}")
        for position, array in enumerate(self._data):
            _check_indices(array, position)
        self._size, self._drop_last = batch_size, drop_last
        self._device = None if device is None else resolve(device)
        self._dtype = None if dtype is None else _dtype_name(dtype)
        self._order = shuffled(self._rows, seed, epoch) if shuffle else np.arange(self._rows)

    def __len__(self) -> int:
        full, rest = divmod(self._rows, self._size)
        return full + (rest > 0 and not self._drop_last)

    def __iter__(self) -> Iterator[tuple[PlainArray, ...]]:
        for i in range(len(self)):
            rows = self._order[i * self._size : (i + 1) * self._size]
            yield tuple(self._take(array, rows) for array in self._data)

    def _take(self, array: PlainArray, rows: np.ndarray) -> PlainArray:
        xp = raw_namespace(array)
        part = xp.take(array, move(rows, device_of(array)), axis=0)
        if self._dtype is not None and is_inexact(part.dtype):
            part = xp.astype(part, named(xp, self._dtype), copy=False)
        return part if self._device is None else move(part, self._device)


def batches(
    data: Sequence[PlainArray],
    batch_size: int,
    *,
    shuffle: bool = False,
    seed: int | None = None,
    epoch: int = 0,
    drop_last: bool = False,
    device: Device | str | None = None,
    dtype: str | None = None,
) -> Batches:
    """Cut arrays into batches of rows.

    Every row is in exactly one batch, and the last batch is smaller where the size does not divide the number of rows,
    unless `drop_last` leaves it out.

    Parameters
    ----------
    data : sequence of arrays
        Arrays with one example a row, such as ``(inputs, labels)``, all of the same length.
    batch_size : int
        Rows in a batch.
    shuffle : bool
        Whether to take the rows in random order.
    seed : int, optional
        The order of epoch `epoch` depends on `seed` and `epoch` alone, the same on every machine and NumPy version.
        Without a seed a shuffled order is a new one each time.
    epoch : int
        Number of the epoch, from 0.
    drop_last : bool
        Whether to leave out a last batch that is not full.
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
        If `data` is not a sequence of arrays.
    ValueError
        If the lengths differ, or are zero; if an array of signed integers (labels, indices) holds a negative number,
        which would silently count from the end; if `batch_size`, `seed` or `epoch` is out of range.

    Examples
    --------
    >>> [x.tolist() for (x,) in batches((np.arange(5),), 2)]
    [[0, 1], [2, 3], [4]]
    """
    return Batches(
        data,
        batch_size,
        shuffle=shuffle,
        seed=seed,
        epoch=epoch,
        drop_last=drop_last,
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


def _count_rows(data: tuple[PlainArray, ...]) -> int:
    if not data or not all(is_array(array) and array.ndim > 0 for array in data):
        got = ", ".join(f"{type(a).__name__}{tuple(a.shape) if is_array(a) else ''}" for a in data)
        raise TypeError(f"data must be a tuple of arrays with one example a row, got ({got})")
    lengths = [array.shape[0] for array in data]
    if len(set(lengths)) > 1:
        raise ValueError(f"the arrays of data must have the same length, got lengths {', '.join(map(str, lengths))}")
    if lengths[0] == 0:
        raise ValueError("data has no rows")
    return int(lengths[0])


def _check_indices(array: PlainArray, position: int) -> None:
    """Refuse negative labels and indices here, on the host: in a step the check would cost a wait for the device."""
    if not raw_namespace(array).isdtype(array.dtype, "signed integer"):
        return
    host = to_numpy(array)
    if host.size and host.min() < 0:
        at = tuple(int(i) for i in np.argwhere(host < 0)[0])
        raise ValueError(
            f"data[{position}] is an integer array ({host.dtype}) and holds {host[at]} at {at}: labels and indices are "
            "counted from 0 (cast to a floating-point dtype if these are values)"
        )
