"""The fused functions of `gpubp.functions`, whose reference is what they are compared with."""

from collections.abc import Iterable

import numpy as np

from ... import functions as functions
from .activation import apart
from .record import Sample, record

Rng = np.random.Generator


@record("dense")
def _(rng: Rng) -> Iterable[Sample]:
    W, b, z = rng.normal(size=(3, 2)), rng.normal(size=2), rng.normal(size=(4, 3))
    away = np.array([[3.0, -3.0], [0.0, 0.0], [0.0, 0.0]])  # its products with x stay away from the kink at 0
    x = apart(rng, 4, 3)
    return [
        *(Sample(x, away, 0.1 * b, activation=name) for name in ("relu", "leaky_relu", "elu", "selu")),
        *(Sample(z, W, b, activation=name) for name in ("identity", "sigmoid", "tanh")),
        Sample(z + 1j * rng.normal(size=(4, 3)), W * (1 + 2j), b * (2 - 1j), activation="tanh"),
        Sample(z + 1j * rng.normal(size=(4, 3)), W * (1 + 2j)),
        *(Sample(rng.normal(size=shape), W, b) for shape in [(4, 3), (3,), (2, 1, 3), (0, 3)]),
        *(Sample(rng.normal(size=shape), W) for shape in [(4, 3), (3,)]),
        Sample(rng.normal(size=(4, 3)), W, None, activation="tanh"),
        Sample(rng.normal(size=(2, 2, 3)), W, b, activation="tanh"),
        Sample(np.asfortranarray(z), np.asfortranarray(W), b),
    ]


def regressions(rng: Rng) -> list[Sample]:
    """Return pairs of outputs and targets."""
    return [Sample(rng.normal(size=shape), rng.normal(size=shape)) for shape in [(4, 3), (3,), (2, 1, 3), (1, 1)]]


@record("half_squared_error")
def _(rng: Rng) -> Iterable[Sample]:
    return [
        *regressions(rng),
        Sample(rng.normal(size=()), rng.normal(size=())),
        Sample(np.ones((0, 2)), np.ones((0, 2))),
    ]


@record("mean_half_squared_error")
def _(rng: Rng) -> Iterable[Sample]:
    return regressions(rng)


@record("mse")
def _(rng: Rng) -> Iterable[Sample]:
    return [*regressions(rng), Sample(rng.normal(size=()), rng.normal(size=()))]


@record("binary_cross_entropy")
def _(rng: Rng) -> Iterable[Sample]:
    return [
        *(Sample(rng.normal(size=s), rng.uniform(size=s)) for s in [(4,), (4, 1), (2, 3), ()]),
        Sample(rng.normal(size=(4, 1)), np.array([[0], [1], [1], [0]])),
        Sample(rng.normal(size=3), np.array([True, False, True])),
        Sample(np.array([0.0, -40.0, 40.0]), np.array([1.0, 0.0, 0.5])),
    ]


@record("softmax_cross_entropy")
def _(rng: Rng) -> Iterable[Sample]:
    z = rng.normal(size=(4, 3))
    return [
        *(Sample(z, np.array([0, 2, 1, 2], dtype=dtype)) for dtype in ("int64", "int32", "uint8")),
        Sample(z, np.eye(3)[[0, 2, 1, 2]]),
        Sample(z, rng.dirichlet(np.ones(3), size=4)),
        Sample(z, rng.uniform(size=(4, 3))),
        Sample(rng.normal(size=(2, 2, 3)), np.array([[0, 1], [2, 2]])),
        Sample(z[0], np.asarray(1)),
        Sample(np.asfortranarray(z) + np.array([[900.0], [0.0], [-900.0], [0.0]]), np.array([0, 2, 1, 2])),
    ]
