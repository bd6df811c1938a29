"""Dropout, which is given the places of its zeros by its key and step."""

from collections.abc import Iterable

import numpy as np

from .record import Sample, record


@record("dropout", complex=True)
def _(rng: np.random.Generator) -> Iterable[Sample]:
    x = rng.normal(size=(5, 7))
    return [
        Sample(x, 3, rate=0.5, key=(1, 2**63 + 5)),
        Sample(x, np.asarray(2**40), rate=0.2, key=(2**64 - 1, 0)),
        *(Sample(rng.normal(size=s), 0, rate=0.5, key=(0, 0)) for s in [(), (1,), (0, 3), (2, 3, 4)]),
        Sample(x, 0, rate=0.0, key=(0, 0)),
    ]
