"""What the overrides share."""

from __future__ import annotations

import threading
from functools import lru_cache
from typing import Any

import numpy as np

ndarray = np.ndarray

#: 0-d constants by dtype character: a ufunc takes them faster than Python's numbers.
ZERO = {c: np.zeros((), c) for c in "fd"}
HALF = {c: np.full((), 0.5, c) for c in "fd"}
ONE = {c: np.ones((), c) for c in "fd"}

#: Integers of the size of floats by dtype character, to take or leave a number by its bits: 0 times infinity is NaN.
BITS = {"f": np.dtype(np.int32), "d": np.dtype(np.int64)}

#: The largest t whose exp(t) is finite, with room to spare.
EXP_LIMIT = {"f": np.full((), 88.0, "f"), "d": np.full((), 709.0, "d")}


@lru_cache(maxsize=64)
def ones(char: str, n: int) -> Any:
    """Return n ones, kept for the next call: ``ones.dot(A)`` sums the rows of a small A fastest."""
    return np.ones(n, char)


@lru_cache(maxsize=64)
def starts(rows: int, n: int) -> Any:
    """Return the positions at which the rows of a flattened (rows, n) array start; not to be written to."""
    return np.arange(0, rows * n, n)


_scratch = threading.local()


def scratch(name: str, dtype: Any, n: int) -> Any:
    """Return n elements of a buffer that this thread's next call will use again: for what does not outlive a call."""
    size = n * dtype.itemsize
    buffer = getattr(_scratch, name, None)
    if buffer is None or len(buffer) < size:
        buffer = np.empty(size, "u1")
        setattr(_scratch, name, buffer)
    return buffer[:size].view(dtype)
