"""What all layers share."""

from __future__ import annotations

import math
from numbers import Integral
from typing import Any, NoReturn, Self

import numpy as np

from ..boundary import is_inexact
from ..device import CPU, Device, library, move, raw_namespace
from ..tree import Node, children, leaves, leaves_with_paths, map_distinct, to_device
from .initializers import Initializer, generator

__all__ = ["Layer", "Parameter"]


#: What to do about a net without parameters.
UNBUILT = "give it, or the net it is part of, a seed, as in seed=0, or call its build(0)"


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
        if not all(isinstance(n, Integral) and n >= 0 for n in shape):
            raise ValueError(f"a parameter's shape holds whole numbers from 0, got {shape}")
        if not callable(initializer):
            given = type(initializer).__name__
            raise TypeError(f"an initializer is a function (rng, shape) -> array, such as nn.zeros; got {given}")
        self.shape, self.initializer = tuple(map(int, shape)), initializer

    def __repr__(self) -> str:
        return f"Parameter({self.shape})"

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"{self!r} has no {name}: {UNBUILT}", name=name, obj=self)

    def __array_ufunc__(self, *_: Any, **__: Any) -> NoReturn:
        raise RuntimeError(f"{self!r} has no values yet: {UNBUILT}")


class Layer(Node):
    """Base class of layers and nets: an object whose array attributes are its parameters.

    A layer of your own sets its parameters in ``__init__``, as arrays or as `Parameter` (drawn when the net is
    built), and computes in ``__call__``. Attributes may be layers, and lists, tuples and dicts of them. Nothing
    else is needed: there is no backward method to write.

    Examples
    --------
    >>> class Scale(nn.Layer):
    ...     def __init__(self, n, seed=None):
    ...         self.s = Parameter((n,), nn.constant(1.0))
    ...         if seed is not None:
    ...             self.build(seed)
    ...
    ...     def __call__(self, x):
    ...         return x * self.s
    >>> Scale(3, seed=0)(np.ones((2, 3), dtype="float32"))
    array([[1., 1., 1.],
           [1., 1., 1.]], dtype=float32)
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

        Raises
        ------
        ValueError
            If `seed` or `dtype` is none.
        """
        _draw(self, "", seed, _floating(dtype), set())
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

    def astype(self, dtype: Any) -> Self:
        """Return this net with its parameters cast to another floating-point dtype; shared ones stay shared."""
        name = dtype if isinstance(dtype, str) else np.dtype(dtype).name

        def cast(x: Any) -> Any:
            xp = raw_namespace(x)
            target = getattr(xp, name, None)
            if target is None or not xp.isdtype(target, ("real floating", "complex floating")):
                raise ValueError(f"expected a floating-point dtype of {library(x)} such as 'float32', got {dtype!r}")
            return xp.astype(x, target) if is_inexact(x.dtype) else x

        return map_distinct(cast, self)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.count_parameters()} parameters)"


def _floating(dtype: Any) -> str:
    """Give the name of a floating-point dtype, which may be NumPy's own object."""
    try:
        known = np.dtype(dtype)
    except TypeError:
        known = None
    if known is None or known.kind not in "fc":
        raise ValueError(f"expected a floating-point dtype such as 'float32', got {dtype!r}")
    return str(known.name)


def check_built(tree: Any) -> None:
    """Refuse a net whose parameters have not been drawn.

    Raises
    ------
    RuntimeError
        If there is one.
    """
    if isinstance(tree, Parameter):
        raise RuntimeError(f"the net has no parameters yet: {UNBUILT}")
    for _, part in children(tree) or ():
        check_built(part)


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
