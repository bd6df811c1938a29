"""Batches of examples, in an order that a seed and an epoch number determine."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Generator, Sequence
from functools import partial
from numbers import Integral
from typing import Any

import numpy as np

from ..boundary import is_inexact
from ..device import Device, PlainArray, device_of, is_array, move, raw_namespace, resolve
from ..dtypes import named
from .checks import (
    Source,
    check_at_least,
    check_indices,
    check_part,
    chunks,
    is_in_memory,
    is_on_host,
    is_source,
    taken,
)
from .prefetch import ahead, uploader
from .transforms import Draw, per_array

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
        balance: Any,
        transform: Any,
        prefetch: int,
        ignore_index: int | None,
        device: Device | str | None,
        dtype: str | None,
    ) -> None:
        alone: Any = data
        if is_array(alone) or is_source(alone):
            raise TypeError(f"data must be a tuple of arrays, got one of shape {tuple(alone.shape)}; write (x,)")
        self._data: tuple[Any, ...] = tuple(data)
        rows = _count_rows(self._data)
        self._seed, self._epoch = _check_seed(seed, epoch)
        repeated = None if balance is None else balanced(_labels(self._data, balance), self._seed, self._epoch)
        rows = rows if repeated is None else len(repeated[0])
        check_at_least(1, "batch_size", batch_size)
        if last not in LAST:
            raise ValueError(f"last must be {', '.join(map(repr, LAST[:-1]))} or {LAST[-1]!r}, got {last!r}")
        if last == "drop" and rows < batch_size:
            raise ValueError(f"last='drop' would drop all {rows} rows: batch_size is {batch_size}")
        for position, array in enumerate(self._data):
            if is_in_memory(array):
                check_indices(array, position, ignore_index)
        order = shuffled(rows, self._seed, self._epoch) if shuffle else None
        self._order, self._copies = order, None  # None: as they stand; not repeated
        if repeated is not None:
            self._order, self._copies = repeated if order is None else (repeated[0][order], repeated[1][order])
        self._ignored = ignore_index
        self._readers = [self._reader(position) for position in range(len(self._data))]
        self._transforms = per_array(transform, len(self._data))
        check_at_least(0, "prefetch", prefetch)
        self._prefetch = prefetch if all(map(is_on_host, self._data)) else 0
        self._rows, self._size, self._last = rows, int(batch_size), last
        full, rest = divmod(rows, self._size)
        self._total = full + (rest > 0 and last != "drop")
        self.start = self._number("start", start, self._total + 1)
        self._device = None if device is None else resolve(device)
        self._dtype = None if dtype is None else _dtype_name(dtype)

    def __len__(self) -> int:
        return self._total - self.start

    def __iter__(self) -> Generator[tuple[PlainArray, ...], None, None]:
        made = (self._made(i) for i in range(self.start, self._total))
        upload = uploader(self._device) if self._device is not None and self._prefetch else None
        if upload is not None:
            yield from upload.sent(ahead(map(upload.stage, made), self._prefetch))
            return
        moved = made if self._device is None else map(self._moved, made)
        yield from ahead(moved, self._prefetch) if self._prefetch else moved

    def rows(self, i: int) -> np.ndarray:
        """Return where in the data the rows of batch `i` stand; the epoch's first batch is 0, whatever `start` is."""
        places = self._places(self._number("a batch", i, self._total))
        return places if self._order is None else self._order[places]

    def count(self, i: int) -> int:
        """Return how many rows of batch `i` are no padding: they come first."""
        return min(self._size, self._rows - self._number("a batch", i, self._total) * self._size)

    def _places(self, i: int) -> np.ndarray:
        """Where in the epoch the rows of batch `i` stand."""
        end = (i + 1) * self._size
        return np.arange(i * self._size, end if self._last == "pad" else min(end, self._rows)) % self._rows

    def _number(self, name: str, value: Any, end: int) -> int:
        if not isinstance(value, Integral):
            raise TypeError(f"{name} must be a whole number, got {value!r}")
        number = int(value)
        if not 0 <= number < end:
            raise ValueError(f"{name} must be from 0 to {end - 1}, got {number}: the epoch has {self._total} batches")
        return number

    def _made(self, i: int) -> tuple[PlainArray, ...]:
        rows = self.rows(i)
        return tuple([self._take(k, rows, i) for k in range(len(self._data))])

    def _take(self, position: int, rows: np.ndarray, i: int) -> PlainArray:
        part = self._readers[position](rows)
        transform = self._transforms[position]
        if transform is not None:
            copies = None if self._copies is None else self._copies[self._places(i)]
            part = transform(part, Draw(self._seed, self._epoch, rows, copies))
            if not is_array(part) or part.shape[:1] != rows.shape:
                got = f"an array of shape {tuple(part.shape)}" if is_array(part) else type(part).__name__
                raise ValueError(f"the transform of data[{position}] gave {got} for {len(rows)} rows")
        if self._dtype is not None and is_inexact(part.dtype):
            xp = raw_namespace(part)
            part = xp.astype(part, named(xp, self._dtype), copy=False)
        return part

    def _moved(self, batch: tuple[PlainArray, ...]) -> tuple[PlainArray, ...]:
        assert self._device is not None
        return tuple([move(x, self._device) for x in batch])

    def _reader(self, position: int) -> Callable[[np.ndarray], PlainArray]:
        """Return what takes rows of ``data[position]``."""
        array = self._data[position]
        if not is_in_memory(array):
            return partial(self._read, position)
        take, where = raw_namespace(array).take, device_of(array)
        if is_on_host(array):
            return lambda rows: take(array, rows, axis=0)
        return lambda rows: take(array, move(rows, where), axis=0)

    def _read(self, position: int, rows: np.ndarray) -> np.ndarray:
        """Take rows of a file or a source."""
        array = self._data[position]
        part = taken(array, rows)
        wanted = (len(rows), *array.shape[1:])
        if not isinstance(part, np.ndarray) or part.shape != wanted:
            got = f"{type(part).__name__}{tuple(getattr(part, 'shape', ()))}"
            raise ValueError(
                f"data[{position}], a {type(array).__name__}, gave {got} for {len(rows)} rows; an ndarray of shape "
                f"{wanted} was expected"
            )
        part = np.asarray(part, None if part.dtype.isnative else part.dtype.type)
        check_part(part, rows, position, self._ignored)
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
    balance: Any = None,
    transform: Any = None,
    prefetch: int = 0,
    ignore_index: int | None = None,
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
        Whether to take the rows in random order, which is held in memory: 8 bytes a row, three times as much while it
        is drawn.
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
    balance : int or array, optional
        The labels, one a row, or the place of the array in `data` that holds them: all classes come equally often, as
        often as the largest one. Rows of the others come several times, each as often as the others or once more.
    transform : transform, function or tuple of these, optional
        What is done to the first array of each batch (`gpubp.data.transforms`), or to each array in turn (None:
        nothing); a function of ``(x)``, or of ``(x, draw)`` with random numbers, which depend on the seed, the epoch
        and the row alone. Several arrays that are transformed draw the same numbers, as pictures and their masks must.
    prefetch : int
        So many batches are made ahead in a thread; 0 makes each when it is wanted. What comes is the same. Data that
        are not on the host are not.
    ignore_index : int, optional
        A negative label that is let through, such as -100, which a loss must be told to ignore.
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
        batch has it); if a transform changes the number of rows; if `batch_size`, `seed`, `epoch` or `start` is out of
        range.

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
        balance=balance,
        transform=transform,
        prefetch=prefetch,
        ignore_index=ignore_index,
        device=device,
        dtype=dtype,
    )


def shuffled(rows: int, seed: int, epoch: int) -> np.ndarray:
    """Return the numbers below `rows` in an order drawn for (`seed`, `epoch`).

    Sorting raw Philox words gives the same order under every version of NumPy, which promises to keep a bit
    generator's stream but not what `Generator.permutation` makes of it.
    """
    return np.argsort(_words(rows, seed, epoch, 0), kind="stable")


def balanced(labels: np.ndarray, seed: int, epoch: int) -> tuple[np.ndarray, np.ndarray]:
    """Return rows, of all classes equally many, and how often each came before.

    Of each class all rows come, in an order that is drawn, and then again from the first one on until there are as many
    as of the largest class.
    """
    _, classes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    order = np.lexsort((_words(len(labels), seed, epoch, 2**64 - 1), classes))
    k, counts = np.arange(counts.max()), counts[:, None]
    rows = order[np.cumsum(counts)[:, None] - counts + k % counts].ravel()
    in_turn = np.argsort(rows, kind="stable")
    return rows[in_turn], (k // counts).ravel()[in_turn]


def _words(n: int, seed: int, epoch: int, stream: int) -> np.ndarray:
    """Raw words of Philox; the counter's last number is 0 for orders, and others for `Draw`."""
    key, counter = np.array([seed, epoch], dtype=np.uint64), np.array([0, 0, stream, 0], dtype=np.uint64)
    return np.random.Philox(key=key, counter=counter).random_raw(n)


def _check_seed(seed: Any, epoch: Any) -> tuple[int, int]:
    if not (isinstance(epoch, Integral) and isinstance(seed, Integral | None)):
        raise TypeError(f"seed and epoch must be whole numbers, got seed={seed!r}, epoch={epoch!r}")
    seed, epoch = secrets.randbits(64) if seed is None else int(seed), int(epoch)
    if not (0 <= seed < 2**64 and 0 <= epoch < 2**64):
        raise ValueError(f"seed and epoch must be from 0 to 2**64 - 1, got seed={seed}, epoch={epoch}")
    return seed, epoch


def _labels(data: tuple[Any, ...], balance: Any) -> np.ndarray:
    """Return the labels, one a row, that `balance` names."""
    labels = balance
    if isinstance(balance, Integral):
        if (place := int(balance)) not in range(len(data)):
            raise ValueError(f"balance must be the labels or the place of an array in data, got {place}")
        labels = data[place]
    if is_array(labels) or is_source(labels):
        labels = np.concatenate([part for _, part in chunks(labels)])
    labels, rows = np.asarray(labels), data[0].shape[0]
    if labels.shape not in ((rows,), (rows, 1)):
        raise ValueError(f"balance wants one label a row, {rows} of them, got an array of shape {labels.shape}")
    if labels.dtype.kind == "f" and (labels != np.floor(labels)).any():
        raise ValueError("balance wants labels of classes, got an array with fractions")
    return labels.ravel()


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
