"""Normalization: over features, groups and batches."""

from collections.abc import Iterable

import numpy as np

from .record import Sample, record

Rng = np.random.Generator


def vectors(rng: Rng, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a gain and a bias."""
    return rng.uniform(0.5, 2.0, size=n) * rng.choice([-1.0, 1.0], size=n), rng.normal(size=n)


@record("layer_norm")
def _(rng: Rng) -> Iterable[Sample]:
    x, (gain, bias) = rng.normal(size=(4, 3)), vectors(rng, 3)
    return [
        *(Sample(x), Sample(x, gain), Sample(x, None, bias), Sample(x, gain, bias, eps=0.1), Sample(x, eps=0.0)),
        *(Sample(rng.normal(size=shape), gain, bias) for shape in [(3,), (1, 3), (2, 1, 3), (0, 3)]),
        Sample(rng.normal(size=(2, 1)), gain[:1], bias[:1]),
        Sample(np.asfortranarray(x), np.array([0.0, 1.0, 2.0]), bias),
        Sample(np.ones((2, 3)), gain, bias),
        Sample(x + 100, gain, bias),
    ]


@record("rms_norm")
def _(rng: Rng) -> Iterable[Sample]:
    x, (gain, _) = rng.normal(size=(4, 3)), vectors(rng, 3)
    return [
        *(Sample(x), Sample(x, gain), Sample(x, gain, eps=0.1), Sample(x, eps=0.0)),
        *(Sample(rng.normal(size=shape), gain) for shape in [(3,), (1, 3), (2, 1, 3), (0, 3)]),
        Sample(rng.normal(size=(2, 1)), gain[:1]),
        Sample(np.asfortranarray(x), np.array([0.0, 1.0, 2.0])),
    ]


@record("group_norm")
def _(rng: Rng) -> Iterable[Sample]:
    x, (gain, bias) = rng.normal(size=(2, 3, 4)), vectors(rng, 4)
    return [
        *(Sample(x, gain, bias, groups=groups) for groups in (1, 2, 4)),
        *(Sample(x, groups=2), Sample(x, gain, groups=2, eps=0.1), Sample(x, None, bias, groups=2)),
        *(
            Sample(rng.normal(size=shape), gain, bias, groups=2)
            for shape in [(3, 4), (1, 1, 4), (2, 2, 1, 4), (0, 2, 4)]
        ),
        *(Sample(rng.normal(size=(2, 2, 2, 1, 2)), groups=2), Sample(rng.normal(size=(1, 5, 1)), groups=1)),
        Sample(np.asfortranarray(x), gain, bias, groups=2),
        Sample(rng.normal(size=(2, 3, 5, 6)), *vectors(rng, 6), groups=3),
    ]


@record("batch_norm")
def _(rng: Rng) -> Iterable[Sample]:
    x, (gain, bias) = rng.normal(size=(4, 3)), vectors(rng, 3)
    return [
        *(Sample(x), Sample(x, gain), Sample(x, None, bias), Sample(x, gain, bias, eps=0.1), Sample(x, eps=0.0)),
        *(Sample(rng.normal(size=shape), gain, bias) for shape in [(1, 3), (5, 3), (2, 2, 3), (2, 3, 1, 3)]),
        *(Sample(rng.normal(size=(4, 1)), gain[:1], bias[:1]), Sample(np.ones((3, 0)))),
        *(Sample(np.asfortranarray(x), np.array([0.0, 1.0, 2.0]), bias), Sample(x + 100, gain, bias)),
    ]


@record("batch_norm_inference")
def _(rng: Rng) -> Iterable[Sample]:
    x, mean, variance, (gain, bias) = rng.normal(size=(4, 3)), rng.normal(size=3), np.arange(1.0, 4), vectors(rng, 3)
    return [
        *(Sample(x, mean, variance), Sample(x, mean, variance, gain), Sample(x, mean, variance, None, bias)),
        *(Sample(x, mean, variance, gain, bias, eps=eps) for eps in (0.1, 0.0)),
        *(Sample(rng.normal(size=s), mean, variance, gain, bias) for s in [(3,), (1, 3), (2, 1, 2, 3), (0, 3)]),
        Sample(np.asfortranarray(x), mean, variance, gain, bias),
    ]
