"""Items of arrays, read, assigned and added to, and the functions that take elements by index."""

from collections.abc import Iterable

import numpy as np

from .record import Sample, record

Rng = np.random.Generator
ROWS, COLUMNS = np.array([0, 2, 2, -1]), np.array([[1], [0]])

#: Keys of an array of shape (3, 2), those of the standard, and the shapes of what they select.
KEYS = [
    ((0, 1), ()),
    ((1, ...), (2,)),
    ((slice(None, None, 2), 0), (2,)),
    ((slice(1, None), slice(None)), (2, 2)),
    ((..., None, slice(0, 1)), (3, 1, 1)),
    ((ROWS, np.array([1, 0, 0, 1])), (4,)),
    ((ROWS[:2], COLUMNS), (2, 2)),
    ((ROWS, 1), (4,)),
    ((2, COLUMNS), (2, 1)),
]


@record("_take_at", complex=True)
def _take_at(rng: Rng) -> Iterable[Sample]:
    return [
        *(Sample(rng.normal(size=(3, 2)), key=key) for key, _ in KEYS),
        Sample(rng.normal(size=3), key=ROWS),
        Sample(rng.normal(size=3), key=1),
        Sample(rng.normal(size=3), key=slice(0, 0)),
        Sample(rng.normal(size=()), key=()),
        Sample(rng.normal(size=()), key=None),
        Sample(rng.normal(size=(0, 2)), key=(slice(None), 1)),
        Sample(rng.normal(size=3), key=(np.array([], dtype=np.int64),)),
    ]


@record("_scatter", complex=True)
def _scatter(rng: Rng) -> Iterable[Sample]:
    return [
        *(Sample(rng.normal(size=shape), shape=(3, 2), key=key) for key, shape in KEYS),
        Sample(rng.normal(size=4), shape=(3,), key=ROWS),
        Sample(rng.normal(size=(4, 2)), shape=(3, 2), key=(ROWS,)),
        Sample(rng.normal(size=(2, 1, 2, 2)), shape=(3, 2, 2), key=COLUMNS),
        Sample(rng.normal(size=(0, 2)), shape=(3, 2), key=(np.array([], dtype=np.int64),)),
    ]


@record("_put", complex=True)
def _put(rng: Rng) -> Iterable[Sample]:
    distinct = np.array([2, 0])
    x = rng.normal(size=(3, 2))
    return [
        *(Sample(x, rng.normal(size=shape), key=key) for key, shape in KEYS[:5]),
        *(Sample(x, rng.normal(size=()), key=key) for key, _ in KEYS),
        *(Sample(x, 0.5, key=key) for key, _ in KEYS[:4]),
        Sample(x, rng.normal(size=2), key=(distinct, np.array([1, 1]))),
        Sample(x, rng.normal(size=(1, 2)), key=(slice(1, None), ...)),
        Sample(x, rng.normal(size=2), key=(distinct,)),
        Sample(x[:, 0], rng.normal(size=2), key=distinct),
        Sample(rng.normal(size=()), rng.normal(size=()), key=()),
    ]


@record("_add_at", complex=True)
def _add_at(rng: Rng) -> Iterable[Sample]:
    x = rng.normal(size=(3, 2))
    return [
        *(Sample(x, rng.normal(size=shape), key=key) for key, shape in KEYS),
        *(Sample(x, rng.normal(size=()), key=key) for key, _ in KEYS),
        Sample(x, rng.normal(size=(4, 2)), key=(ROWS,)),
        Sample(x, rng.normal(size=2), key=ROWS),
        Sample(x, rng.normal(size=(4, 1)), key=ROWS),
        Sample(x[:, 0], rng.normal(size=4), key=ROWS),
        Sample(x[:, 0], 0.5, key=ROWS),
    ]


@record("take", complex=True)
def _take(rng: Rng) -> Iterable[Sample]:
    x = rng.normal(size=(3, 2, 2))
    return [
        Sample(x[:, 0, 0], ROWS),
        Sample(x, ROWS, axis=0),
        Sample(x, np.array([1, 1, 0]), axis=1),
        Sample(x, np.array([-1]), axis=-1),
        Sample(x, np.array([], dtype=np.int64), axis=1),
    ]


@record("take_along_axis", complex=True)
def _take_along_axis(rng: Rng) -> Iterable[Sample]:
    x = rng.normal(size=(3, 2))
    return [
        Sample(x, np.array([[0, 1, 1], [1, 0, 0], [-1, -1, 0]])),
        Sample(x, np.array([[0, 2], [2, 2]]), axis=0),
        Sample(x, np.array([[1], [0], [1]]), axis=1),
        Sample(x, np.array([[0, 1]]), axis=-1),
        Sample(x[:1], np.array([[0], [1], [1]])),
        Sample(x[:, 0], np.array([2, 2])),
    ]
