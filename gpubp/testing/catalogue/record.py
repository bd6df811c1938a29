"""The op catalogue: one record for every function of the standard and every fused function.

From a record come, for every backend and dtype, the forward check against NumPy, first and second derivatives
against finite differences, fused against reference, and the checks of contiguity, read-only input and mutation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np


class Sample:
    """Arguments of one call: float64 (or complex128, integer, boolean) NumPy arrays and static values.

    The suite casts the floating arrays to each dtype and moves all arrays to each backend, those in tuples, lists
    and keywords too. A dtype is given as NumPy's (``np.float32``) and becomes the backend's.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.args, self.kwargs = args, kwargs

    def __repr__(self) -> str:
        def show(x: Any) -> str:
            return f"{x.dtype}{list(x.shape)}" if isinstance(x, np.ndarray) else repr(x)

        shown = [*map(show, self.args), *(f"{k}={show(v)}" for k, v in self.kwargs.items())]
        return f"({', '.join(shown)})"


@dataclass(frozen=True)
class Record:
    """What the suite needs to know of one function.

    Attributes
    ----------
    name
        As in the registry of rules (``"exp"``, ``"linalg.inv"``), or the fused function's name.
    samples
        ``samples(rng)`` gives the calls to try; it covers every argument pattern, keyword, shape (0-d, empty,
        broadcast) and special point that has a derivative. Points at kinks belong to tests with stated answers.
    differentiable
        Whether derivatives are checked; False for constants.
    complex
        Whether the function takes complex arrays, which are then checked too. Where no sample is complex, the suite
        makes complex ones by giving the floating arrays random imaginary parts.
    order
        The highest derivative checked against finite differences.
    pre
        Applied to the arguments first, to keep perturbed ones where the function is defined (symmetric matrices):
        ``pre(xp, *args)`` gives the arguments of the call.
    post
        Applied to the result before comparing or differentiating, to remove what is not unique (signs and phases
        of eigenvectors): ``post(xp, out)``.
    host_read
        Whether the function, or its derivative, must look at values on the host (shapes that depend on data).
    skip
        Backends that cannot run it, with the reason, which is printed.
    """

    name: str
    samples: Callable[[np.random.Generator], Iterable[Sample]]
    differentiable: bool = True
    complex: bool = False
    order: int = 2
    pre: Callable[..., tuple[Any, ...]] | None = None
    post: Callable[[Any, Any], Any] | None = None
    host_read: bool = False
    skip: Mapping[str, str] = field(default_factory=dict)


CATALOGUE: dict[str, Record] = {}


def record(name: str, **options: Any) -> Callable[[Callable[..., Iterable[Sample]]], Callable[..., Iterable[Sample]]]:
    """Add, as a decorator of its `samples`, the record of a function."""

    def add(samples: Callable[[np.random.Generator], Iterable[Sample]]) -> Any:
        if name in CATALOGUE:
            raise ValueError(f"{name!r} has a record already")
        CATALOGUE[name] = Record(name, samples, **options)
        return samples

    return add
