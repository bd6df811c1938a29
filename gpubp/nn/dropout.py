"""Dropout as a layer."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..functions.dropout import check_rate, dropout
from ..state import State
from .layer import Layer
from .parameter import UNBUILT, Key

__all__ = ["Dropout"]


class Dropout(Layer):
    """In training, zeros in random places and the rest scaled up; in evaluation, the input itself.

    The places depend on the net's seed, the layer's path and how often the layer was called in training; they are the
    same on every device, and the same when `gpubp.checkpoint` computes them again.

    Parameters
    ----------
    rate
        The probability of a zero, from 0 to below 1.
    seed
        For a layer that stands alone. In a net it is the net's seed that counts.

    Notes
    -----
    Srivastava, Hinton, Krizhevsky, Sutskever, Salakhutdinov, "Dropout: a simple way to prevent neural networks from
    overfitting", 2014.
    """

    key: Any

    def __init__(self, rate: float, *, seed: int | None = None) -> None:
        check_rate("Dropout", rate)
        self.rate = rate
        self.key = Key()
        self.calls = State(np.zeros((), dtype="int64"))
        if seed is not None:
            self.build(seed)

    def __call__(self, x: Any, /) -> Any:
        """Compute an output of the shape of `x`."""
        if not self.training or not self.rate:
            return x
        return dropout(x, self.next_call(), rate=self.rate, key=self.key)

    def next_call(self) -> Any:
        """Return the number of this call, from 0, and count it."""
        if type(self.key) is Key:
            raise RuntimeError(f"{self!r} has no random key yet: {UNBUILT}")
        call = self.calls.value
        self.calls.value = call + 1
        return call

    def __repr__(self) -> str:
        return f"Dropout({self.rate:g})"
