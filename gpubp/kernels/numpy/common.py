"""What the overrides share."""

from __future__ import annotations

from typing import Any

import numpy as np

ndarray = np.ndarray

#: 0-d constants by dtype character: a ufunc takes them faster than Python's numbers.
ZERO = {c: np.zeros((), c) for c in "fd"}
HALF = {c: np.full((), 0.5, c) for c in "fd"}
ONE = {c: np.ones((), c) for c in "fd"}

#: The largest t whose exp(t) is finite, with room to spare.
EXP_LIMIT = {"f": np.full((), 88.0, "f"), "d": np.full((), 709.0, "d")}


_ones: dict[tuple[str, int], Any] = {}


def ones(char: str, n: int) -> Any:
    """Return n ones, kept for the next call: ``ones.dot(A)`` sums the rows of a small A fastest."""
    found = _ones.get((char, n))
    if found is None:
        if len(_ones) > 64:
            _ones.clear()
        found = _ones[char, n] = np.ones(n, char)
    return found
