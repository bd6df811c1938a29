"""Layers without parameters that join others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..namespace import array_namespace
from .layer import Layer, explain

__all__ = ["Flatten", "Lambda", "Residual"]


class Flatten(Layer):
    """Every example as one vector: (batch, ...) becomes (batch, n)."""

    def __call__(self, x: Any, /) -> Any:
        """Compute the array of shape (batch, n)."""
        if not getattr(x, "ndim", 0):
            explain(self, x, ("batch", "..."))
        n = 1
        for length in x.shape[1:]:
            n *= length
        return array_namespace(x).reshape(x, (x.shape[0], n))

    def __repr__(self) -> str:
        return "Flatten()"


class Lambda(Layer):
    """A function as a layer.

    A `Sequential` takes functions as they are; this gives one a name in tables and errors, and arguments.

    Parameters
    ----------
    f
        A function of one array, in NumPy or Array API code.
    name
        How it is shown; by default the function's own name.
    """

    def __init__(self, f: Callable[[Any], Any], name: str | None = None) -> None:
        if not callable(f):
            raise TypeError(f"Lambda expects a function, got {type(f).__name__}")
        self.f = f
        self.name: str = getattr(f, "__name__", repr(f)) if name is None else name

    def __call__(self, x: Any, /) -> Any:
        """Compute ``f(x)``."""
        return self.f(x)

    def __repr__(self) -> str:
        return f"Lambda({self.name})"


class Residual(Layer):
    """What a layer adds to its input: ``shortcut(x) + layer(x)``.

    Parameters
    ----------
    layer
        A layer or function.
    shortcut
        A layer or function for the way past it, where the shapes differ; by default the input itself goes there.

    Notes
    -----
    He, Zhang, Ren, Sun, "Deep residual learning for image recognition", 2016.
    """

    def __init__(
        self, layer: Callable[[Any], Any], shortcut: Callable[[Any], Any] | None = None, *,
        seed: int | None = None, dtype: str = "float32",
    ) -> None:  # fmt: skip
        for part in (layer, shortcut):
            if part is not None and not callable(part):
                raise TypeError(f"Residual expects layers or functions, got {type(part).__name__}")
        self.layer, self.shortcut = layer, shortcut
        if seed is not None:
            self.build(seed, dtype)

    def __call__(self, x: Any, /) -> Any:
        """Compute ``shortcut(x) + layer(x)``."""
        past = x if self.shortcut is None else self.shortcut(x)
        y = self.layer(x)
        if y.shape != past.shape:
            raise ValueError(
                f"{self!r} adds {tuple(past.shape)}, from the shortcut, to {tuple(y.shape)}, from the layer: give it a "
                "shortcut that brings the input to the layer's shape"
            )
        return past + y

    def __repr__(self) -> str:
        return f"Residual({self.layer!r}{'' if self.shortcut is None else f', {self.shortcut!r}'})"
