"""Dropout."""

# ruff: noqa: D103  (a fused function has the docstring of its reference)

from __future__ import annotations

from typing import Any

from ..array import strip
from ..boundary import bernoulli
from ..fused import fused
from ..namespace import array_namespace, twin_of


def _dropout(x: Any, step: Any, /, *, rate: float, key: tuple[int, int]) -> Any:
    """Put zeros in random places and scale the rest up, so that the expected value stays: x m / (1 - rate).

    Parameters
    ----------
    x
        Array of any shape.
    step
        A whole number from 0 that chooses the places: a Python integer or a 0-d integer array.
    rate
        The probability of a zero, from 0 to below 1.
    key
        Two numbers from 0 to 2**64 - 1 that choose the places too; see `gpubp.boundary.bernoulli`.

    Raises
    ------
    ValueError
        If the rate is out of range.

    Notes
    -----
    Srivastava, Hinton, Krizhevsky, Sutskever, Salakhutdinov, "Dropout: a simple way to prevent neural networks from
    overfitting", 2014; scaled in training, not in evaluation.
    """
    return array_namespace(x).where(_kept(x, step, rate, key), x * (1 / (1 - rate)), 0)


@fused(_dropout)
def dropout(xp: Any, needs: Any, x: Any, step: Any, /, *, rate: float, key: tuple[int, int]) -> Any:
    kept = _kept(x, step, rate, key)
    return xp.where(kept, x * (1 / (1 - rate)), 0), kept


@dropout.backward
def dropout_backward(xp: Any, needs: Any, dY: Any, kept: Any, *, rate: float, key: tuple[int, int]) -> Any:
    return xp.where(kept, dY * (1 / (1 - rate)), 0), None


def _kept(x: Any, step: Any, rate: float, key: tuple[int, int]) -> Any:
    check_rate("dropout", rate)
    like = strip(x)
    return bernoulli(twin_of(like).raw, like, 1 - rate, key, strip(step), tuple(like.shape))


def check_rate(name: str, rate: float) -> None:
    """Refuse a rate that is no probability below 1."""
    if not 0 <= rate < 1:
        raise ValueError(f"{name} expects a rate from 0 to below 1, got {rate!r}")
