"""Creation of arrays and change of data type or device."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from .record import Sample, record

Rng = np.random.Generator


@record("asarray", complex=True)
def _asarray(rng: Rng) -> Iterable[Sample]:
    x, y = rng.normal(size=3), rng.normal(size=())
    return [Sample(x), Sample(x, copy=True), Sample(x, dtype=np.complex128), Sample(y)]


def _zeros(xp: Any, out: Any) -> Any:
    """The shape and dtype of an array whose values are not defined."""
    return out * 0 if out.size == 0 else xp.zeros(out.shape, dtype=out.dtype)


for _name in ("zeros", "ones", "empty"):

    @record(_name, differentiable=False, post=_zeros if _name == "empty" else None)
    def _(rng: Rng) -> Iterable[Sample]:
        return [Sample((2, 3)), Sample((), dtype=np.float32), Sample(3, dtype=np.int64), Sample((0, 2))]


for _name in ("zeros_like", "ones_like", "empty_like"):

    @record(_name, differentiable=False, post=_zeros if _name == "empty_like" else None)
    def _(rng: Rng) -> Iterable[Sample]:
        return [Sample(rng.normal(size=(2, 3))), Sample(rng.normal(size=()), dtype=np.int64)]


@record("eye", differentiable=False)
def _eye(rng: Rng) -> Iterable[Sample]:
    return [Sample(2), Sample(2, 3), Sample(3, 3, k=1, dtype=np.float32), Sample(2, 3, k=-1)]


@record("arange", differentiable=False)
def _arange(rng: Rng) -> Iterable[Sample]:
    return [Sample(3), Sample(1, 4), Sample(0.5, 2.0, 0.25), Sample(5, 0, -2, dtype=np.float64)]


@record("full", differentiable=False)
def _full(rng: Rng) -> Iterable[Sample]:
    return [Sample((2, 3), 1.5), Sample(2, 1), Sample((), True), Sample((2,), 1, dtype=np.float32)]


@record("full_like", differentiable=False)
def _full_like(rng: Rng) -> Iterable[Sample]:
    return [Sample(rng.normal(size=(2, 3)), 1.5), Sample(rng.normal(size=(2,)), 1, dtype=np.int64)]


@record("linspace", differentiable=False)
def _linspace(rng: Rng) -> Iterable[Sample]:
    return [Sample(0.0, 1.0, 5), Sample(-1.0, 1.0, 4, endpoint=False), Sample(1.0, 2.0, 1), Sample(0, 3, 4)]


@record("from_dlpack", differentiable=False)
def _from_dlpack(rng: Rng) -> Iterable[Sample]:
    return [Sample(rng.normal(size=(2, 3)))]


for _name in ("astype", "_astype"):

    @record(_name)
    def _(rng: Rng) -> Iterable[Sample]:
        x = rng.normal(size=(2, 3))
        return [*(Sample(x, t) for t in (np.float64, np.complex128)), Sample(x, np.float64, copy=False)]


@record("_to_device", differentiable=False)
def _to_device(rng: Rng) -> Iterable[Sample]:
    return []
