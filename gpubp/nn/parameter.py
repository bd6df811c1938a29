"""What stands in a net before it is built, and the build itself."""

from __future__ import annotations

import copy
from numbers import Integral
from typing import Any, NoReturn

import numpy as np

from ..device import CPU, move
from ..dtypes import bfloat16, named
from ..state import State
from ..tree import Node, children
from .initializers import Initializer, digest, generator

__all__ = ["Key", "Parameter"]

#: What to do about a net without parameters.
UNBUILT = "give it, or the net it is part of, a seed, as in seed=0, or call its build(0)"
UNSIZED = "the length of its input's last axis is not known yet: call the net's build(x) with a batch x"


class Parameter:
    """Stands where a parameter will be, until the root of the net is built and draws it.

    Parameters
    ----------
    shape
        Shape of the parameter. None stands for a length that follows from the first input; see `Layer.sizes`.
    initializer
        How it is drawn; see `gpubp.nn.initializers`.
    """

    def __init__(self, shape: tuple[int | None, ...], initializer: Initializer) -> None:
        if not all(n is None or (isinstance(n, Integral) and n >= 0) for n in shape):
            raise ValueError(f"a parameter's shape holds whole numbers from 0, got {shape}")
        if not callable(initializer):
            given = type(initializer).__name__
            raise TypeError(f"an initializer is a function (rng, shape) -> array, such as nn.zeros; got {given}")
        self.shape = tuple(n if n is None else int(n) for n in shape)
        self.initializer = initializer
        self.in_cell = False
        self.drawing: tuple[int, str, str] | None = None  # seed, path and dtype, where only a length is missing

    @property
    def missing(self) -> str:
        """Say what has to be done before there is an array."""
        return UNBUILT if self.drawing is None else UNSIZED

    def draw(self, seed: int, path: str, dtype: str) -> Any:
        """Draw the array; or, where a length is missing, remember how to. In a cell it is not of 16 bits."""
        if self.in_cell and dtype in ("float16", "bfloat16"):  # running means would stand still
            dtype = "float32"
        if None in self.shape:
            later = copy.copy(self)
            later.drawing = seed, path, dtype
            return later
        shape: Any = self.shape
        values = self.initializer(generator(seed, path), shape)
        if np.shape(values) != shape:
            raise ValueError(f"the initializer of {path} gave shape {np.shape(values)}, expected {shape}")
        return move(np.asarray(values, named(np, dtype)), CPU)

    def __repr__(self) -> str:
        return f"Parameter({self.shape})"

    def __copy__(self) -> Parameter:
        return Parameter(self.shape, self.initializer)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise AttributeError(f"{self!r} has no {name}: {self.missing}", name=name, obj=self)

    def __array_ufunc__(self, *_: Any, **__: Any) -> NoReturn:
        raise RuntimeError(f"{self!r} has no values yet: {self.missing}")


class Key:
    """Stands where a layer's random key will be: a pair of numbers, the net's seed and a digest of the key's path."""

    def __repr__(self) -> str:
        return "Key()"


class Drawing:
    """One build: the seed, and what has been visited, since layers and parameters may stand in several places."""

    def __init__(self, seed: int, dtype: str) -> None:
        self.seed, self.dtype = seed, dtype
        self.layers: dict[int, Node] = {}
        self.drawn: dict[int, tuple[Parameter, Any]] = {}

    def visit(self, layer: Node, path: str) -> None:
        if id(layer) in self.layers:
            return
        self.layers[id(layer)] = layer
        for name, value in dict(vars(layer)).items():
            setattr(layer, name, replaced(value, self.draw, self.visit, f"{path}.{name}" if path else name))

    def draw(self, x: Any, path: str) -> Any:
        if type(x) is Key:
            return self.seed, digest(path)
        if id(x) not in self.drawn:
            self.drawn[id(x)] = x, x.draw(self.seed, path, self.dtype)
        return self.drawn[id(x)][1]


def replaced(x: Any, f: Any, of_layer: Any = None, path: str | None = None) -> Any:
    """`x`, in which ``f(p)`` stands in the place of every `Parameter` p; other layers are left to `of_layer`.

    With a path f is given that too, and also takes keys.
    """
    if type(x) is Parameter or (type(x) is Key and path is not None):
        return f(x) if path is None else f(x, path)
    if isinstance(x, Node):
        if of_layer is not None:
            of_layer(x, path)
    elif type(x) is State:
        if type(x.held) is Parameter:
            x.held.in_cell = True
        x.held = replaced(x.held, f, of_layer, path)
    elif type(x) in (tuple, list, dict):
        items = x.items() if type(x) is dict else enumerate(x)
        found = {k: replaced(v, f, of_layer, path if path is None else f"{path}[{k!r}]") for k, v in items}
        if type(x) is tuple:
            return tuple(found.values())
        for k, v in found.items():
            x[k] = v
    return x


def check_built(tree: Any) -> None:
    """Refuse a net whose parameters have not been drawn.

    Raises
    ------
    RuntimeError
        If there is one.
    """
    if type(tree) is State:
        tree = tree.held
    if isinstance(tree, Parameter):
        raise RuntimeError(f"the net has no parameters yet: {tree.missing}")
    for _, part in children(tree) or ():
        check_built(part)


def unsized(tree: Any) -> bool:
    """Whether a net has been given its seed and only waits for a batch."""
    if type(tree) is State:
        tree = tree.held
    if type(tree) is Parameter:
        return tree.drawing is not None
    return any(unsized(part) for _, part in children(tree) or ())


def floating(dtype: Any) -> str:
    """Give the name of a floating-point dtype, which may be NumPy's own object."""
    if "bfloat16" in str(dtype):
        return str(bfloat16())
    try:
        known = np.dtype(dtype)
    except TypeError:
        known = None
    if known is None or known.kind not in "fc":
        raise ValueError(f"expected a floating-point dtype such as 'float32', got {dtype!r}")
    return str(known.name)
