"""The activation functions: at both signs away from their kinks, near 0 and far out where they have none."""

from collections.abc import Iterable

import numpy as np

from .record import Sample, record

Rng = np.random.Generator
SHAPES = [(3, 4), (2, 1, 3), (4,), (), (0, 3)]


def apart(rng: Rng, *shape: int) -> np.ndarray:
    """Draw numbers of both signs that stay away from the kink at 0."""
    return np.asarray(rng.uniform(0.2, 2.0, size=shape) * rng.choice([-1.0, 1.0], size=shape))


def several_shapes(rng: Rng) -> list[Sample]:
    """Return one array of each kind of shape."""
    return [Sample(apart(rng, *shape)) for shape in SHAPES]


for _name in ("sigmoid", "silu", "softplus"):

    @record(_name)
    def _(rng: Rng) -> Iterable[Sample]:
        return [*several_shapes(rng), Sample(np.array([-20.0, -3.0, 0.0, 3.0, 20.0]))]


for _name in ("relu", "selu", "softsign"):

    @record(_name)
    def _(rng: Rng) -> Iterable[Sample]:
        return several_shapes(rng)


@record("leaky_relu")
def _(rng: Rng) -> Iterable[Sample]:
    return [*several_shapes(rng), Sample(apart(rng, 3, 2), slope=0.2), Sample(apart(rng, 3), slope=-0.5)]


@record("elu")
def _(rng: Rng) -> Iterable[Sample]:
    return [*several_shapes(rng), Sample(apart(rng, 3, 2), alpha=0.3), Sample(apart(rng, 3), alpha=0.0)]


@record("prelu")
def _(rng: Rng) -> Iterable[Sample]:
    pairs = [((3, 4), 4), ((3, 4), 1), ((2, 1, 3), 3), ((2, 1, 3), 1), ((4,), 4), ((4,), 1), ((2, 1), 1), ((0, 3), 3)]
    return [Sample(apart(rng, *shape), rng.normal(size=n)) for shape, n in pairs]


@record("gelu")
def _(rng: Rng) -> Iterable[Sample]:
    wide = np.array([-20.0, -5.0, -1.0, -1e-3, 0.0, 0.5, 3.0, 20.0])
    return [
        Sample(x, **options)
        for options in ({}, {"approximate": "tanh"})
        for x in (*(apart(rng, *shape) for shape in SHAPES), wide)
    ]


for _name in ("softmax", "log_softmax"):

    @record(_name)
    def _(rng: Rng) -> Iterable[Sample]:
        x = rng.normal(size=(2, 3, 4))
        return [
            *(Sample(x), Sample(x, axis=0), Sample(x, axis=-2), Sample(x[0, 0]), Sample(x[:, :1], axis=1)),
            Sample(rng.normal(size=(0, 3))),
            Sample(x[0] + np.array([[900.0], [0.0], [-900.0]])),
        ]


@record("logsumexp")
def _(rng: Rng) -> Iterable[Sample]:
    x = rng.normal(size=(2, 3, 4))
    axes = (None, 0, -1, (0, 2))
    return [
        *(Sample(x, axis=axis, keepdims=keepdims) for axis in axes for keepdims in (False, True)),
        *(Sample(x), Sample(x[0, 0]), Sample(x[0, 0, 0]), Sample(x[:, :1], axis=1)),
        *(Sample(np.zeros((0, 3)), axis=1), Sample(x[0] + np.array([[900.0], [0.0], [-900.0]]), axis=-1)),
    ]
