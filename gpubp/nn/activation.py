"""Activations with parameters."""

from __future__ import annotations

from typing import Any

from ..functions.activation import prelu
from .initializers import Initializer, constant
from .layer import Layer, explain
from .parameter import Parameter

__all__ = ["PReLU"]

_quarter = constant(0.25)


class PReLU(Layer):
    """Leaky rectifier with learned slopes: x where x > 0, else ``slope * x``.

    Parameters
    ----------
    n
        How many slopes: 1 for one that all units share, or the length of the input's last axis, one for each unit or
        channel; None for the length that the first batch has.
    slope_init
        Initializer of the slopes, of shape (n,).
    seed
        For a layer that stands alone: draws the parameters at once. In a net it is the net's seed that does.
    dtype
        With `seed`: floating-point dtype of the parameters.

    Notes
    -----
    The default, slopes of 0.25, is that of He, Zhang, Ren, Sun, "Delving deep into rectifiers", 2015.
    """

    slope: Any

    def __init__(
        self,
        n: int | None = 1,
        *,
        slope_init: Initializer = _quarter,
        seed: int | None = None,
        dtype: str = "float32",
    ) -> None:
        self.slope = Parameter((n,), slope_init)
        if seed is not None:
            self.build(seed, dtype)

    def __call__(self, x: Any, /) -> Any:
        """Compute the output, of the shape of `x`."""
        if type(self.slope) is Parameter:
            self.complete(x)
        try:
            return prelu(x, self.slope)
        except (AttributeError, TypeError, ValueError):
            n = self.slope.shape[0]
            explain(self, x, (..., "n" if n == 1 else n))
            raise

    def __repr__(self) -> str:
        return f"PReLU({self.slope.shape[0]})"
