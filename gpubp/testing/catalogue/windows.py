"""Convolution and pooling."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from ... import functions as functions
from .record import Sample, record

Rng = np.random.Generator


def normal(rng: Rng, *shapes: tuple[int, ...]) -> list[np.ndarray]:
    """Draw one array of each shape."""
    return [rng.normal(size=shape) for shape in shapes]


@record("convolution")
def _(rng: Rng) -> Iterable[Sample]:
    def of(x: Any, W: Any, **options: Any) -> Sample:
        return Sample(*normal(rng, x, W, W[-1:]), **options)

    image, small = (2, 4, 5, 2), (2, 2, 2, 3)
    away = Sample(np.array([[1.0], [-1.0], [2.0], [1.5]])[None], np.array([[[1.0, 2.0]], [[0.5, 0.1]]]))
    x, W, b = normal(rng, image, (3, 2, 2, 3), (3,))
    return [
        *(of((2, 5, 2), (3, 2, 3), padding=p) for p in ("valid", "same", 1, (2,), ((0, 2),))),
        of((1, 6, 1), (3, 1, 2), stride=2, dilation=2, padding=(3,)),
        of((1, 7, 2), (2, 2, 2), stride=3),
        of(image, small),
        of(image, (3, 3, 2, 2), padding="same"),
        of(image, (3, 3, 2, 2), padding="same", stride=2),
        of(image, small, stride=(1, 2), dilation=(2, 1), padding=((1, 0), (0, 2))),
        of(image, (1, 1, 2, 3)),
        of(image, (1, 1, 2, 3), stride=2),
        of(image, (1, 1, 2, 2), padding=1),
        of((2, 3, 4, 1), (3, 3, 1, 2), padding=1),
        of((1, 3, 3, 4), (2, 2, 2, 4), groups=2),
        of((1, 3, 4, 3), (3, 3, 1, 3), groups=3, padding="same"),
        of((1, 4, 3, 2), (2, 2, 1, 4), groups=2, stride=2, padding=1),
        of((1, 2, 3, 2, 2), (2, 2, 1, 2, 2), padding=1, stride=(2, 1, 1)),
        of((1, 2, 2, 3, 2), (1, 2, 2, 1, 2), groups=2),
        *(of((0, *image[1:]), small, groups=1), of((0, 3, 2), (2, 1, 2), groups=2)),
        *(Sample(*away.args, np.array([0.3, -0.2]), activation=a) for a in ("relu", "leaky_relu", "elu", "selu")),
        *(of((1, 4, 2), (2, 2, 2), activation=name) for name in ("sigmoid", "tanh")),
        Sample(x, W),
        Sample(x, W, None, activation="tanh", padding="same"),
        Sample(x + 1j * x[::-1, ...], W * (1 + 2j), b * (2 - 1j), padding=1, activation="tanh"),
        Sample(np.asfortranarray(x), np.asfortranarray(W), b),
    ]


@record("convolution_transpose")
def _(rng: Rng) -> Iterable[Sample]:
    def of(x: Any, W: Any, **options: Any) -> Sample:
        return Sample(*normal(rng, x, W, W[-1:]), **options)

    image, small = (2, 3, 2, 2), (2, 3, 2, 3)
    x, W = normal(rng, (1, 3, 2), (2, 2, 2))
    return [
        *(of((2, 3, 2), (3, 2, 3), padding=p, stride=2) for p in ("valid", "same", 1, ((0, 1),))),
        of((1, 3, 1), (2, 1, 2), stride=3, padding="same"),
        of((1, 3, 1), (2, 1, 2), stride=3, output_padding=2),
        of((1, 2, 1), (2, 1, 2), dilation=3, output_padding=(2,)),
        of(image, small),
        of(image, small, stride=(2, 1), dilation=(1, 2), padding=((1, 0), (0, 2)), output_padding=(1, 0)),
        of((1, 2, 2, 4), (2, 2, 2, 4), groups=2, stride=2),
        of((1, 2, 3, 2), (3, 3, 1, 2), groups=2, padding=1),
        of((1, 2, 2, 2), (2, 2, 1, 4), groups=2),
        of((1, 2, 1, 2, 2), (2, 1, 2, 2, 1), stride=(2, 1, 1)),
        of((0, 3, 2), (2, 2, 3)),
        Sample(x, W),
        Sample(x + 1j * x[:, ::-1, ...], W * (1 + 2j), None, stride=2),
    ]


def distinct(rng: Rng, *shape: int) -> np.ndarray:
    """Draw numbers no two of which are close, so that a maximum has no kink near."""
    n = int(np.prod(shape))
    return np.asarray(rng.permutation(n).reshape(shape) / 4 - n / 8)


@record("max_pool")
def _(rng: Rng) -> Iterable[Sample]:
    image = distinct(rng, 2, 4, 5, 3)
    return [
        *(Sample(image, window=2, padding=p) for p in ("valid", "same", 1, ((0, 1), (1, 0)))),
        Sample(image, window=(4, 5)),
        Sample(image, window=3, stride=(1, 2), padding="same"),
        Sample(image, window=(2, 3), stride=1, padding=(1, 2)),
        Sample(image[:, :1, :, :], window=(1, 2)),
        Sample(image, window=1, stride=3),
        Sample(distinct(rng, 2, 7, 2), window=3, stride=2, padding=(1,)),
        Sample(distinct(rng, 1, 4, 2, 4, 2), window=2),
        Sample(distinct(rng, 1, 2, 3, 2, 1), window=2, stride=1, padding=1),
        Sample(np.ones((0, 4, 4, 2)), window=2),
        Sample(np.asfortranarray(image), window=2),
    ]


@record("avg_pool", complex=True)
def _(rng: Rng) -> Iterable[Sample]:
    image, line, cube = normal(rng, (2, 4, 5, 3), (2, 7, 2), (1, 4, 2, 2, 2))
    return [
        *(Sample(image, window=2, padding=p) for p in ("valid", "same", 1, ((0, 1), (1, 0)))),
        *(Sample(image, window=3, stride=2, padding=p, count_include_pad=False) for p in ("valid", "same", (0, 2))),
        Sample(image, window=(4, 5)),
        Sample(image, window=(2, 3), stride=1, padding=(1, 2)),
        Sample(line, window=3, stride=2, padding=1),
        Sample(line, window=2, stride=3, padding=((1, 0),), count_include_pad=False),
        Sample(cube, window=2),
        Sample(cube, window=2, stride=1, padding=1, count_include_pad=False),
        Sample(np.ones((0, 4, 4, 2)), window=2),
    ]


@record("global_avg_pool", complex=True)
def _(rng: Rng) -> Iterable[Sample]:
    return [Sample(x) for x in normal(rng, (2, 3, 4, 2), (2, 3, 1), (1, 2, 1, 2, 3), (0, 2, 2, 3))]


@record("adaptive_avg_pool", complex=True)
def _(rng: Rng) -> Iterable[Sample]:
    image, line, cube = normal(rng, (2, 4, 5, 3), (2, 3, 2), (1, 4, 2, 3, 1))
    return [
        *(Sample(image, size=size) for size in (1, 2, 5, (4, 3), [2, 7])),
        Sample(line, size=2),
        Sample(cube, size=(2, 1, 2)),
        Sample(np.ones((0, 4, 4, 2)), size=3),
    ]
