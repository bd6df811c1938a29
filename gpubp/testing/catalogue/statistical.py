"""Reductions and cumulative functions."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from .record import Sample, record

Rng = np.random.Generator
AXES: list[dict[str, Any]] = [
    {},
    {"axis": 0},
    {"axis": -1, "keepdims": True},
    {"axis": (0, 2)},
    {"axis": (-1, 0), "keepdims": True},
    {"axis": None, "keepdims": True},
]


def ranked(rng: Rng, *shape: int) -> np.ndarray:
    """Draw numbers no two of which are near each other."""
    size = int(np.prod(shape))
    return np.asarray(rng.permutation(size) + rng.uniform(0.1, 0.4, size=size)).reshape(shape) / 4


def reductions(x: np.ndarray) -> list[Sample]:
    """Return a call for each form of axis."""
    return [Sample(x, **options) for options in AXES]


@record("sum", complex=True)
def _sum(rng: Rng) -> Iterable[Sample]:
    x = rng.normal(size=(2, 3, 2))
    return [
        *reductions(x),
        Sample(x, axis=()),
        Sample(rng.normal(size=())),
        Sample(rng.normal(size=(0, 2))),
        Sample(rng.normal(size=(0, 2)), axis=0),
        Sample(np.array([1, 2])),
    ]


@record("prod", complex=True)
def _prod(rng: Rng) -> Iterable[Sample]:
    x = rng.normal(size=(2, 3, 2))
    zeros = np.array([[0.0, 1.5, -2.0, 0.7, 1.0], [0.0, 1.5, 0.0, 0.7, 1.0], [0.0, 0.0, 0.0, 0.7, 1.0]])
    return [
        *reductions(x),
        Sample(x, axis=()),
        *(Sample(zeros, axis=axis) for axis in (0, 1, None)),
        Sample(rng.normal(size=())),
        Sample(rng.normal(size=(1, 1))),
        Sample(rng.normal(size=(0, 2))),
        Sample(rng.normal(size=(0, 2)), axis=0),
        Sample(np.array([3, 2])),
    ]


@record("mean", complex=True)
def _mean(rng: Rng) -> Iterable[Sample]:
    return [
        *reductions(rng.normal(size=(2, 3, 2))),
        Sample(rng.normal(size=())),
        Sample(rng.normal(size=(0, 2)), axis=1),
    ]


for _name in ("var", "std"):

    @record(_name)
    def _(rng: Rng) -> Iterable[Sample]:
        x = rng.normal(size=(3, 3, 2))
        return [
            *reductions(x),
            Sample(x, correction=1),
            Sample(x, axis=0, correction=1.0, keepdims=True),
            Sample(x, axis=(0, 1), correction=0.5),
            Sample(rng.normal(size=(0, 2)), axis=1),
        ]


for _name in ("max", "min"):

    @record(_name)
    def _(rng: Rng) -> Iterable[Sample]:
        return [*reductions(ranked(rng, 2, 3, 2)), Sample(rng.normal(size=())), Sample(rng.normal(size=(0, 2)), axis=1)]


@record("cumulative_sum", complex=True)
def _cumulative_sum(rng: Rng) -> Iterable[Sample]:
    x = rng.normal(size=(2, 3))
    return [
        Sample(x[0]),
        *(Sample(x, axis=axis, include_initial=initial) for axis in (0, 1, -1) for initial in (False, True)),
        Sample(rng.normal(size=(0, 2)), axis=0),
        Sample(rng.normal(size=(0, 2)), axis=0, include_initial=True),
        Sample(np.array([1, 2, 3])),
    ]


@record("cumulative_prod", complex=True)
def _cumulative_prod(rng: Rng) -> Iterable[Sample]:
    x = rng.normal(size=(2, 5))
    zeros = np.array([[1.5, 0.0, -2.0, 0.7, 1.2], [0.0, 1.5, 0.0, 0.7, 1.0]])
    return [
        Sample(x[0]),
        *(Sample(x, axis=axis, include_initial=initial) for axis in (0, 1, -1) for initial in (False, True)),
        Sample(zeros, axis=1),
        Sample(zeros, axis=-1, include_initial=True),
        Sample(zeros, axis=0),
        Sample(rng.normal(size=(0, 2)), axis=0),
        Sample(rng.normal(size=(0, 2)), axis=0, include_initial=True),
        Sample(np.array([1, 2, 3])),
    ]


@record("diff", complex=True)
def _diff(rng: Rng) -> Iterable[Sample]:
    x = rng.normal(size=(3, 4))
    return [
        Sample(x),
        Sample(x, axis=0),
        Sample(x, axis=-2, n=2),
        Sample(x, n=0),
        Sample(x, prepend=rng.normal(size=(3, 1))),
        Sample(x, axis=0, prepend=rng.normal(size=(1, 4)), append=rng.normal(size=(2, 4))),
        Sample(x[0], n=3),
    ]


for _name in ("all", "any"):

    @record(_name, differentiable=False)
    def _(rng: Rng) -> Iterable[Sample]:
        return reductions(rng.uniform(size=(2, 3, 2)) > 0.3)
