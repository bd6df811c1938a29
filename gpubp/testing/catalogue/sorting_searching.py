"""Sorting, searching and sets."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from .record import Sample, record
from .statistical import ranked

Rng = np.random.Generator
STRICT = ("array_api_strict", "array_api_strict_device1")


@record("sort")
def _sort(rng: Rng) -> Iterable[Sample]:
    x = ranked(rng, 3, 4)
    return [
        Sample(x),
        Sample(x, axis=0),
        Sample(x, axis=-2, descending=True),
        Sample(x, descending=True, stable=False),
        Sample(x[0]),
        Sample(x[:0]),
    ]


@record("argsort", differentiable=False)
def _argsort(rng: Rng) -> Iterable[Sample]:
    x = ranked(rng, 3, 4)
    return [Sample(x), Sample(x, axis=0, descending=True), Sample(np.array([1, 0, 1, 0])), Sample(x[0], stable=False)]


@record("searchsorted", differentiable=False)
def _searchsorted(rng: Rng) -> Iterable[Sample]:
    x, y = np.array([0.0, 1.0, 2.0]), np.array([[-0.5, 0.5], [1.0, 2.5]])
    return [Sample(x, y), Sample(x, y, side="right"), Sample(x[::-1].copy(), y, sorter=np.array([2, 1, 0]))]


for _name in ("argmax", "argmin"):

    @record(_name, differentiable=False)
    def _(rng: Rng) -> Iterable[Sample]:
        x = ranked(rng, 3, 4)
        return [Sample(x), Sample(x, axis=0), Sample(x, axis=-1, keepdims=True), Sample(np.array([1, 3, 3, 1]))]


@record("nonzero", differentiable=False, host_read=True)
def _nonzero(rng: Rng) -> Iterable[Sample]:
    return [Sample(np.array([[0.0, 1.0], [2.0, 0.0]])), Sample(np.array([True, False]))]


@record("count_nonzero", differentiable=False)
def _count_nonzero(rng: Rng) -> Iterable[Sample]:
    x = np.array([[0.0, 1.0], [2.0, 0.0]])
    return [Sample(x), Sample(x, axis=0), Sample(x, axis=(0, 1), keepdims=True)]


@record("isin", differentiable=False, skip=dict.fromkeys(STRICT, "its own isin ignores invert"))
def _isin(rng: Rng) -> Iterable[Sample]:
    x, y = np.array([[1, 2], [3, 4]]), np.array([2, 4, 6])
    return [Sample(x, y), Sample(x, y, invert=True), Sample(x, 3)]


def _first_sorted(xp: Any, out: Any) -> Any:
    """The values alone, in order, which libraries choose for themselves."""
    return xp.sort(out[0] if isinstance(out, tuple) else out)


for _name in ("unique_values", "unique_counts", "unique_inverse", "unique_all"):

    @record(
        _name,
        host_read=True,
        post=_first_sorted,
        skip={"torch": "not implemented by PyTorch"} if _name == "unique_all" else {},
    )
    def _(rng: Rng) -> Iterable[Sample]:
        return [Sample(ranked(rng, 2, 3)), Sample(ranked(rng, 4)), Sample(np.array([3, 1, 3]))]
