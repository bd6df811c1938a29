"""Recurrent networks."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from .record import Sample, record

Rng = np.random.Generator

#: Padding behind, before and between; a sequence without any step, and a step that no sequence has.
MASK = np.array([[True, True, False], [False, False, False], [True, False, False], [False, True, False]])


def drawn(rng: Rng, gates: int, biases: int, states: int, batch: int, n_in: int, n: int, *time: int) -> list[Any]:
    """Return x, the weights W and U, the biases, and the states."""
    return [
        rng.normal(size=(batch, *time, n_in)),
        *(rng.normal(size=(m, gates * n)) for m in (n_in, n)),
        *(rng.normal(size=size) for size in (gates * n, n)[:biases]),
        *(rng.normal(size=(batch, n)) for _ in range(states)),
    ]


def sequences(rng: Rng, gates: int, biases: int, states: int) -> list[Sample]:
    """Return calls in every pattern of arguments, of several shapes."""
    args = drawn(rng, gates, biases, states, 4, 2, 3, 3)
    x, W, U, *others = drawn(rng, gates, biases, states, 2, 1, 2, 2)
    return [
        *(Sample(*args, reverse=reverse) for reverse in (False, True)),
        *(Sample(*args, MASK, reverse=reverse) for reverse in (False, True)),
        Sample(x, W, U),
        Sample(x, W, U, *[None] * biases, *others[biases:], np.ones((2, 2), dtype=bool)),
        *(Sample(x, W, U, *others[:k]) for k in range(1, len(others))),
        *(Sample(*drawn(rng, gates, biases, states, batch, 2, 1, 1)) for batch in (1, 0)),
        Sample(*map(np.asfortranarray, args), np.asfortranarray(MASK)),
    ]


def steps(rng: Rng, gates: int, biases: int, states: int) -> list[Sample]:
    """Return single steps in every pattern of arguments, of several shapes."""
    samples = []
    for batch, n_in, n in [(3, 3, 2), (1, 1, 1), (0, 2, 2)]:
        x, W, U, *others = drawn(rng, gates, biases, states, batch, n_in, n)
        args = [x, *others[biases:], W, U]
        samples += [Sample(*args, *others[:biases]), *(Sample(*args, *others[:k]) for k in range(biases))]
    return [*samples, Sample(*args, *[None] * (biases - 1), others[biases - 1])]


def rectified(samples: list[Sample]) -> list[Sample]:
    """Return the calls with a bias, moved to a place where no unit is near its kink, with relu as activation."""

    def moved(x: np.ndarray) -> np.ndarray:
        if x.dtype == bool:
            return x
        return 0.1 * x + (2.0 * (-1.0) ** np.arange(x.size) if x.ndim == 1 else 0.0)

    return [Sample(*map(moved, s.args), activation="relu", **s.kwargs) for s in samples]


@record("rnn")
def _(rng: Rng) -> Iterable[Sample]:
    return [*sequences(rng, 1, 1, 1), *rectified(sequences(rng, 1, 1, 1)[:4])]


@record("lstm")
def _(rng: Rng) -> Iterable[Sample]:
    return sequences(rng, 4, 1, 2)


@record("gru")
def _(rng: Rng) -> Iterable[Sample]:
    return sequences(rng, 3, 2, 1)


@record("rnn_cell")
def _(rng: Rng) -> Iterable[Sample]:
    return [*steps(rng, 1, 1, 1), *rectified(steps(rng, 1, 1, 1)[:1])]


@record("lstm_cell")
def _(rng: Rng) -> Iterable[Sample]:
    return steps(rng, 4, 1, 2)


@record("gru_cell")
def _(rng: Rng) -> Iterable[Sample]:
    return steps(rng, 3, 2, 1)
