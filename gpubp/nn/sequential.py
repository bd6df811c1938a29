"""Layers one after another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..functions.activation import NAMES
from .convolution import Conv, Conv1d, Conv2d, Conv3d
from .dense import Dense
from .layer import Layer

__all__ = ["Sequential"]


#: Up to this width a `Dense` and the activation behind it are computed in one call, which saves time. A wider layer
#: takes two, which saves memory: the backward pass then drops the activation before it makes the weights' gradient.
#: A convolution is always merged: the activation is applied to what is still in the cache.
NARROW = 256


class _Plan:
    """Which layers are computed in which calls: pairs of an index and, after some layers, a merged activation."""

    def __init__(self, layers: tuple[Any, ...]) -> None:
        self.steps: list[tuple[int, str | None]] = []
        merged = False
        for k, layer in enumerate(layers):
            if merged:
                merged = False
                continue
            following = layers[k + 1] if k + 1 < len(layers) else None
            merged = _merges(layer) and _name(following) is not None
            self.steps.append((k, _name(following) if merged else None))


def _merges(layer: Any) -> bool:
    """Whether a layer computes a following activation in one call with its own; it must not be a user's subclass."""
    if type(layer) is Dense:
        return layer.activation == "identity" and layer.W.shape[1] <= NARROW
    return type(layer) in (Conv, Conv1d, Conv2d, Conv3d) and layer.activation == "identity"


def _name(layer: Any) -> str | None:
    return NAMES.get(layer) if callable(layer) and not isinstance(layer, Layer) else None


class Sequential(Layer):
    """Layers and functions one after another, each applied to what the one before returned.

    A convolution or a narrow `Dense` followed by an activation function it knows is computed in one call.

    Parameters
    ----------
    *layers
        Layers, and functions of one array such as `relu`.
    seed
        Draws the parameters of this net. Leave it out for a part of a net: the root draws for all.
    dtype
        With `seed`: floating-point dtype of the parameters.

    Attributes
    ----------
    layers : tuple
        The layers and functions, as given.

    Examples
    --------
    >>> net = nn.Sequential(nn.Dense(64, 32), nn.relu, nn.Dense(32, 10), seed=0)
    >>> net
    Sequential(Dense(64, 32), relu, Dense(32, 10))
    """

    def __init__(self, *layers: Layer | Callable[[Any], Any], seed: int | None = None, dtype: str = "float32") -> None:
        for k, layer in enumerate(layers):
            if isinstance(layer, list | tuple):
                raise TypeError(
                    f"layers[{k}] is a {type(layer).__name__}: pass the layers themselves, Sequential(*layers)"
                )
            if isinstance(layer, type):
                raise TypeError(f"layers[{k}] is a class: pass a layer made of it, {layer.__name__}(...)")
            if not callable(layer):
                raise TypeError(f"layers[{k}] is neither a layer nor a function: {layer!r:.80}")
        self.layers = layers
        self._plan = _Plan(layers)
        if seed is not None:
            self.build(seed, dtype)

    def __call__(self, x: Any, /) -> Any:
        """Compute the output of the last layer."""
        layers = self.layers
        k = 0
        try:
            for k, activation in self._plan.steps:
                layer: Any = layers[k]
                x = layer(x) if activation is None else layer.before(x, activation)
        except Exception as error:
            error.add_note(f"in layers[{k}] of {type(self).__name__}")
            raise
        return x

    def __repr__(self) -> str:
        inner = ", ".join(repr(f) if isinstance(f, Layer) else getattr(f, "__name__", repr(f)) for f in self.layers)
        return f"{type(self).__name__}({inner})"
