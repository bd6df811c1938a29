"""Vectors for words, and for their places."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..functions.embedding import embedding
from ..functions.positions import sinusoidal_positions
from .initializers import Initializer, normal
from .layer import Layer, explain
from .parameter import Parameter

__all__ = ["Embedding", "SinusoidalPositions"]


def unit_rows(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Draw normally with variance 1 / features, for rows that are about 1 long."""
    return normal(shape[-1] ** -0.5)(rng, shape)


class Embedding(Layer):
    """A table of vectors that are learned: ``W[indices]``.

    Parameters
    ----------
    n
        How many vectors there are: the size of the vocabulary.
    features
        Their length.
    W_init
        Initializer of the table W, of shape (n, features).
    seed
        For a layer that stands alone: draws the parameters at once. In a net it is the net's seed that does.
    dtype
        With `seed`: floating-point dtype of the parameters.

    Notes
    -----
    The default, W normal with variance 1 / features, lets the table serve as the weights of the output too, as in
    Press, Wolf, "Using the output embedding to improve language models", 2017: the logits ``h @ net.embedding.W.T``
    then have variance 1 for normalized h, and the two gradients of the one table add up.
    """

    W: Any

    def __init__(
        self,
        n: int,
        features: int,
        *,
        W_init: Initializer = unit_rows,
        seed: int | None = None,
        dtype: str = "float32",
    ) -> None:
        self.W = Parameter((n, features), W_init)
        if seed is not None:
            self.build(seed, dtype)

    def __call__(self, indices: Any, /) -> Any:
        """Compute vectors of shape (..., features) for integers of shape (...)."""
        if type(self.W) is Parameter:
            self.complete(indices)
        try:
            return embedding(indices, self.W)
        except (TypeError, ValueError) as error:
            error.add_note(f"in {self!r}")
            raise

    def __repr__(self) -> str:
        n, features = self.W.shape
        return f"Embedding({n}, {features})"


class SinusoidalPositions(Layer):
    """Adds to every vector of a sequence sines and cosines of its position, which are not learned.

    Parameters
    ----------
    base
        Which sets the longest wavelength, 2π `base`.

    Notes
    -----
    Vaswani et al., "Attention is all you need", 2017, section 3.5.
    """

    def __init__(self, base: float = 10000.0) -> None:
        self.base = base

    def __call__(self, x: Any, /) -> Any:
        """Compute the sum, of the shape (..., time, features) of `x`."""
        if getattr(x, "ndim", 0) < 2:
            explain(self, x, (..., "time", "features"))
        return x + sinusoidal_positions(x, *x.shape[-2:], base=self.base)

    def __repr__(self) -> str:
        return f"SinusoidalPositions({'' if self.base == 10000.0 else f'{self.base:g}'})"
