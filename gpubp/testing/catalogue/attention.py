"""Attention, embedding and positions."""

from collections.abc import Iterable

import numpy as np

from .record import Sample, record

Rng = np.random.Generator


def sequences(rng: Rng, queries: int, keys: int, batch: tuple[int, ...] = (), heads: int = 1) -> list[np.ndarray]:
    """Draw queries and keys of two features, and values of three."""
    shapes = [(queries, heads, 2), (keys, heads, 2), (keys, heads, 3)]
    return [rng.normal(size=(*batch, *shape)) for shape in shapes]


@record("attention")
def _(rng: Rng) -> Iterable[Sample]:
    batched, single = sequences(rng, 2, 3, (2,), 2), sequences(rng, 3, 3)
    some = np.array([[True, False, True], [False, False, False]])  # the second query sees nothing
    bias = rng.normal(size=(2, 1, 2, 3))
    random = {"dropout": 0.4, "key": (1, 2)}
    return [
        *(Sample(*batched), Sample(*batched, causal=True), Sample(*batched, None, scale=0.3)),
        *(Sample(*batched, some), Sample(*batched, some[:1], causal=True), Sample(*batched, some[0])),
        *(Sample(*batched, np.array([some, ~some])[:, None]), Sample(*batched, np.array([[[True]], [[False]]]))),
        *(Sample(*batched, bias), Sample(*batched, bias[0, 0, 0]), Sample(*batched, bias[:, :, :, :1], causal=True)),
        *(Sample(*batched, bias[0, 0, 0, 0]), Sample(*single, bias[0, 0, :1], causal=True)),
        *(Sample(*batched, None, np.asarray(3), **random), Sample(*batched, some, 4, causal=True, **random)),
        *(Sample(*single, bias[0, 0, 0], np.asarray(1), **random), Sample(*single, None, None, dropout=0.0)),
        *(Sample(*single), Sample(*single, causal=True), Sample(*sequences(rng, 1, 1), causal=True)),
        *(Sample(*sequences(rng, 3, 2), causal=True), Sample(*sequences(rng, 1, 3, (1, 2), 2), causal=True)),
        *(Sample(*sequences(rng, 2, 2, (1, 2)), some[:, :2]), Sample(*sequences(rng, 2, 2, (0,)))),
        *(Sample(*sequences(rng, 0, 2)), Sample(*sequences(rng, 2, 2, heads=0))),
        Sample(*(100 * x for x in single)),
    ]


@record("embedding", complex=True)
def _(rng: Rng) -> Iterable[Sample]:
    table = rng.normal(size=(4, 3))
    return [
        *(Sample(np.asarray(indices), table) for indices in (2, [0, 3, 0, 0], [[1, 1, 2], [1, 0, 1]])),
        *(Sample(np.asarray([1, 3, 1], dtype=dtype), table) for dtype in ("int32", "uint8")),
        *(
            Sample(np.zeros((2, 0), dtype=int), table),
            Sample(np.array([0, 0]), table[:1]),
            Sample(np.array([1]), table),
        ),
        Sample(np.array([1, 0, 1]), rng.normal(size=(2, 1))),
    ]


@record("rotary")
def _(rng: Rng) -> Iterable[Sample]:
    x = rng.normal(size=(2, 3, 2, 4))
    return [
        *(Sample(x), Sample(x, offset=5), Sample(x, None, base=20.0), Sample(x[0]), Sample(x[None, :, :1])),
        *(Sample(x, np.array([0, 2, 1])), Sample(x, np.array([[0, 1, 2], [7, 8, 9]], dtype="int32"), offset=1)),
        *(Sample(x, np.array([4])), Sample(x[:0]), Sample(x[:, :0]), Sample(x[..., :2]), Sample(x[..., :0])),
    ]
