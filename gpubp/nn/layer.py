"""What all layers share."""

from __future__ import annotations

import math
from typing import Any, Self

import numpy as np

from ..device import CPU, Device, move, raw_namespace
from ..tree import Node, leaves, leaves_with_paths, map_distinct, to_device
from .initializers import Initializer, generator

__all__ = ["Layer", "Parameter"]


class Parameter:
    """Stands where a parameter will be, until the root of the net is built and draws it.

    Parameters
    ----------
    shape
        Shape of the parameter.
    initializer
        How it is drawn; see `gpubp.nn.initializers`.
    """

    def __init__(self, shape: tuple[int, ...], initializer: Initializer) -> None:
        if not all(type(n) is int and n >= 0 for n in shape):
            raise ValueError(f"a parameter's shape holds whole numbers from 0, got {shape}")
        self.shape, self.initializer = tuple(shape), initializer

    def __repr__(self) -> str:
        return f"Parameter({self.shape})"


class Layer(Node):
    """Base class of layers and nets: an object whose array attributes are its parameters.

    A layer of your own sets its parameters in ``__init__``, as arrays or as `Parameter` (drawn when the net is
    built), and computes in ``__call__``. Attributes may be layers, and lists, tuples and dicts of them. Nothing
    else is needed: there is no backward method to write.

    Examples
    --------
    >>> class Scale(Layer):
    ...     def __init__(self, n, seed=None):
    ...         self.s = Parameter((n,), nn.constant(1.0))
    ...         if seed is not None:
    ...             self.build(seed)
    ...
    ...     def __call__(self, x):
    ...         return x * self.s
    """

    def __call__(self, x: Any, /) -> Any:
        """Compute the output for the input `x`."""
        raise NotImplementedError(f"{type(self).__name__} does not say how to compute: it has no __call__ method")

    def build(self, seed: int, dtype: str = "float32") -> Self:
        """Draw, on the host, every parameter that has not been drawn yet.

        Parameters
        ----------
        seed
            With the path of a parameter in this net it determines the values: the order of construction and the
            other parameters do not matter.
        dtype
            Floating-point dtype of the parameters.

        Returns
        -------
        Layer
            This layer.
        """
        _draw(self, "", seed, dtype, set())
        return self

    def parameters(self) -> dict[str, Any]:
        """Return the arrays by path, such as ``layers[0].W``; a shared array stands at each of its paths."""
        return dict(leaves_with_paths(self))

    def count_parameters(self) -> int:
        """Return how many numbers the parameters hold; a shared array counts once."""
        return sum(math.prod(x.shape) for x in {id(x): x for x in leaves(self)}.values())

    def to(self, device: Device | str) -> Self:
        """Return this net with its parameters on another device or in another library; shared ones stay shared."""
        return to_device(self, device)

    def astype(self, dtype: str) -> Self:
        """Return this net with its parameters cast to another floating-point dtype; shared ones stay shared."""

        def cast(x: Any) -> Any:
            xp = raw_namespace(x)
            return xp.astype(x, getattr(xp, dtype))

        return map_distinct(cast, self)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.count_parameters()} parameters)"


def _draw(x: Any, path: str, seed: int, dtype: str, seen: set[int]) -> Any:
    """Replace every `Parameter` at or below `x` by an array, and return what stands in the place of `x`."""
    if isinstance(x, Parameter):
        values = x.initializer(generator(seed, path), x.shape)
        if np.shape(values) != x.shape:
            raise ValueError(f"the initializer of {path} gave shape {np.shape(values)}, expected {x.shape}")
        return move(np.asarray(values, dtype), CPU)
    if id(x) in seen:  # a layer that stands in two places
        return x
    if isinstance(x, Layer):
        seen.add(id(x))
        for name, value in vars(x).items():
            setattr(x, name, _draw(value, f"{path}.{name}" if path else name, seed, dtype, seen))
    elif type(x) is tuple:
        return tuple(_draw(value, f"{path}[{k}]", seed, dtype, seen) for k, value in enumerate(x))
    elif type(x) is list:
        x[:] = [_draw(value, f"{path}[{k}]", seed, dtype, seen) for k, value in enumerate(x)]
    elif type(x) is dict:
        x.update({k: _draw(value, f"{path}[{k!r}]", seed, dtype, seen) for k, value in x.items()})
    return x
