"""Functions that move elements and change shapes."""

from collections.abc import Iterable

import numpy as np

from .record import Sample, record

Rng = np.random.Generator
NO_ARRAY_REPEATS = {"jax": "shapes that depend on values"}


@record("reshape", complex=True)
def _reshape(rng: Rng) -> Iterable[Sample]:
    x = rng.normal(size=(2, 3))
    return [
        Sample(x, (3, 2)),
        Sample(x, (-1,)),
        Sample(x, (1, 6, 1)),
        Sample(x, (2, 3), copy=True),
        Sample(x[:1, :1], ()),
        Sample(rng.normal(size=()), (1,)),
        Sample(rng.normal(size=(0, 2)), (2, 0)),
    ]


@record("expand_dims", complex=True)
def _expand_dims(rng: Rng) -> Iterable[Sample]:
    return [
        *(Sample(rng.normal(size=(2, 3)), axis=axis) for axis in (0, 1, -1)),
        Sample(rng.normal(size=(2,)), 1),
        Sample(rng.normal(size=()), axis=0),
    ]


@record("squeeze", complex=True)
def _squeeze(rng: Rng) -> Iterable[Sample]:
    x = rng.normal(size=(1, 2, 1))
    return [*(Sample(x, axis=axis) for axis in (0, -1, (0, 2))), Sample(x, 0)]


@record("broadcast_to", complex=True)
def _broadcast_to(rng: Rng) -> Iterable[Sample]:
    return [
        Sample(rng.normal(size=(1, 3)), (2, 3)),
        Sample(rng.normal(size=(3,)), (2, 2, 3)),
        Sample(rng.normal(size=()), (2,)),
        Sample(rng.normal(size=(2, 1)), (2, 1)),
        Sample(rng.normal(size=(1,)), (0,)),
    ]


@record("broadcast_arrays", complex=True)
def _broadcast_arrays(rng: Rng) -> Iterable[Sample]:
    x, y, z = rng.normal(size=(2, 1)), rng.normal(size=(3,)), rng.normal(size=())
    return [Sample(x, y), Sample(z, x, y), Sample(x)]


@record("meshgrid", complex=True)
def _meshgrid(rng: Rng) -> Iterable[Sample]:
    x, y, z = (rng.normal(size=n) for n in (2, 3, 2))
    return [
        Sample(x),
        Sample(x, y),
        Sample(x, y, z),
        Sample(x, y, indexing="ij"),
        Sample(x, y, z, indexing="ij"),
        Sample(x, np.array([1.0])),
    ]


@record("permute_dims", complex=True)
def _permute_dims(rng: Rng) -> Iterable[Sample]:
    x = rng.normal(size=(2, 3, 1))
    return [Sample(x, (1, 2, 0)), Sample(x, axes=(-1, 0, 1)), Sample(x[0], (1, 0)), Sample(rng.normal(size=()), ())]


@record("moveaxis", complex=True)
def _moveaxis(rng: Rng) -> Iterable[Sample]:
    x = rng.normal(size=(2, 3, 1))
    return [Sample(x, 0, -1), Sample(x, (0, 1), (-1, 0)), Sample(x, -1, 0)]


@record("flip", complex=True)
def _flip(rng: Rng) -> Iterable[Sample]:
    x = rng.normal(size=(2, 3))
    return [Sample(x), *(Sample(x, axis=axis) for axis in (0, -1, (0, 1))), Sample(rng.normal(size=()))]


@record("roll", complex=True)
def _roll(rng: Rng) -> Iterable[Sample]:
    x = rng.normal(size=(2, 3))
    return [
        Sample(x, 1),
        Sample(x, -2, axis=1),
        Sample(x, (1, 2), axis=(0, -1)),
        Sample(x, 1, axis=(0, 1)),
        Sample(x, shift=4, axis=-1),
    ]


for _name in ("tril", "triu"):

    @record(_name, complex=True)
    def _(rng: Rng) -> Iterable[Sample]:
        x = rng.normal(size=(3, 3))
        return [Sample(x), Sample(x, k=1), Sample(x, k=-1), Sample(x[:2]), Sample(rng.normal(size=(2, 2, 3)), k=1)]


@record("concat", complex=True)
def _concat(rng: Rng) -> Iterable[Sample]:
    x, y, z = rng.normal(size=(2, 3)), rng.normal(size=(1, 3)), rng.normal(size=(0, 3))
    return [
        Sample([x, y]),
        Sample((x, y, z), axis=0),
        Sample([x, x[:, :1]], axis=1),
        Sample([x, x[:, :1]], axis=-1),
        Sample([x, y[0]], axis=None),
        Sample([x]),
    ]


@record("stack", complex=True)
def _stack(rng: Rng) -> Iterable[Sample]:
    x, y = rng.normal(size=(2, 3)), rng.normal(size=(2, 3))
    return [*(Sample([x, y], axis=axis) for axis in (0, 1, -1)), Sample((x[0, 0], y[0, 0])), Sample([x])]


@record("unstack", complex=True)
def _unstack(rng: Rng) -> Iterable[Sample]:
    x = rng.normal(size=(2, 3))
    return [Sample(x), Sample(x, axis=1), Sample(x, axis=-2), Sample(x[0])]


@record("repeat", complex=True, host_read=True, skip=NO_ARRAY_REPEATS)
def _repeat(rng: Rng) -> Iterable[Sample]:
    x = rng.normal(size=(2, 3))
    return [
        Sample(x, 2),
        Sample(x, 3, axis=0),
        Sample(x, 2, axis=-1),
        Sample(x, 0, axis=1),
        Sample(x[0], np.array([2, 0, 1])),
        Sample(x, np.array([2, 0, 1]), axis=1),
        Sample(x, np.array([1, 2]), axis=-2),
        Sample(x, np.array([2]), axis=0),
    ]


@record("tile", complex=True)
def _tile(rng: Rng) -> Iterable[Sample]:
    x = rng.normal(size=(2, 3))
    return [Sample(x, (2,)), Sample(x, (2, 1)), Sample(x, (2, 1, 2)), Sample(x[0], (2, 2)), Sample(x, ())]
