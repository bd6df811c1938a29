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
