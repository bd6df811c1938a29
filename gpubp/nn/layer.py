"""What all layers share."""

from __future__ import annotations

import math
from typing import Any, Self

import numpy as np

from ..array import strip
from ..boundary import is_inexact
from ..device import Device, device_of, is_array, library, move, raw_namespace
from ..dtypes import named
from ..functions.checks import check_alike, check_one_device
from ..transform import in_transform
from ..tree import Node, frozen_leaves, leaves, leaves_with_paths, map_distinct, to_device
from .parameter import UNSIZED, Drawing, Parameter, floating, replaced
from .surgery import chosen_by, is_parameter, layers_of, learn_lengths, listed_paths, load_state, owners, state_of

__all__ = ["Layer"]


class Layer(Node):
    """Base class of layers and nets: an object whose array attributes are its parameters.

    A layer of your own sets its parameters in ``__init__``, as arrays or as `Parameter` (drawn when the net is
    built), and computes in ``__call__``. Attributes may be layers, and lists, tuples and dicts of them. Nothing
    else is needed: there is no backward method to write. Arrays that are no parameters stand in a `State`.

    Attributes
    ----------
    training : bool
        The mode: false until `train` is called, which `gpubp.fit` does for its steps.

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

    training: bool

    def __new__(cls, *_: Any, **__: Any) -> Self:
        layer = super().__new__(cls)
        layer.training = False
        return layer

    def __call__(self, x: Any, /) -> Any:
        """Compute the output for the input `x`."""
        raise NotImplementedError(f"{type(self).__name__} does not say how to compute: it has no __call__ method")

    def build(self, seed: Any, dtype: str = "float32") -> Self:
        """Draw, on the host, every parameter that has not been drawn yet; or learn from a batch the lengths not given.

        Parameters
        ----------
        seed
            With the path of a parameter in this net it determines the values: the order of construction and the
            other parameters do not matter. Or, of a net that has its seed already but was not told some length of its
            input (as in ``Dense(None, 10)``), a batch ``x`` for which it is called once, in evaluation mode.
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
        RuntimeError
            If `seed` is a batch and a layer still misses a length: it was not called.
        """
        if is_array(seed):
            learn_lengths(self, seed)
        else:
            Drawing(seed, floating(dtype)).visit(self, "")
        return self

    def sizes(self, x: Any) -> int:
        """Give the length that None stands for in the shapes of this layer's parameters: that of x's last axis."""
        return int(x.shape[-1])

    def complete(self, x: Any) -> None:
        """Draw the parameters of which a length was missing, now that an input is there; or say why this cannot be.

        A layer calls it when it finds a `Parameter` in the place of an array.
        """
        if not is_array(x):
            raise TypeError(f"{self!r} expects arrays, got {type(x).__name__} as input")
        if not x.ndim:
            raise ValueError(f"{self!r} expects an input with a last axis, got shape ()")

        def sized(p: Parameter) -> Any:
            if p.drawing is None or in_transform():
                raise RuntimeError(f"{self!r} has no parameters yet: {p.missing}")
            whole = Parameter(tuple(self.sizes(x) if n is None else n for n in p.shape), p.initializer)
            return move(whole.draw(*p.drawing), device_of(x))

        own = dict(vars(self))
        for name, value in own.items():
            setattr(self, name, replaced(value, sized))

    # -- parameters by name

    def parameters(self) -> dict[str, Any]:
        """Return the arrays by path, such as ``layers[0].W``; a shared array stands at each of its paths."""
        return dict(leaves_with_paths(self))

    def count_parameters(self, *, frozen: bool = True) -> int:
        """Return how many numbers the parameters hold, with the frozen ones or without; a shared array counts once."""
        left_out = set() if frozen else set(map(id, frozen_leaves(self)))
        return sum(math.prod(x.shape) for x in {id(x): x for x in leaves(self)}.values() if id(x) not in left_out)

    def freeze(self, *paths: str) -> Self:
        """Leave parameters as they are in training: their gradient is None.

        Parameters
        ----------
        *paths
            Parameters, such as ``"layers[0].W"``, or parts of the net, such as ``"layers[0]"``, with all in them; none
            for the whole net. A shared parameter is frozen wherever it stands in this net.

        Returns
        -------
        Layer
            This layer.

        Raises
        ------
        ValueError
            If there is no parameter at a path. What is frozen is a whole attribute of a layer, not an item of a list.
        """
        for owner, name in chosen_by(self, paths):
            owner.frozen = owner.frozen | {name}
        return self

    def unfreeze(self, *paths: str) -> Self:
        """Undo `freeze`. Make a new optimizer then: running means in an old one have not seen these parameters."""
        for owner, name in chosen_by(self, paths):
            owner.frozen = owner.frozen - {name}
        return self

    def share(self, path: str, source: str) -> Self:
        """Tie two parameters: the array at `source` stands at `path` too, gets one gradient and is stepped once.

        Do it before the optimizer is made; the net may be built or not, but the shapes must be known. What is at `path`
        is then frozen if the source is.

        Raises
        ------
        ValueError
            If there is no parameter at one of the paths, or the shapes differ.
        RuntimeError
            If a length of theirs is known from the first batch only.
        """
        places = {p: (owner, name) for p, owner, name in owners(self)}
        for p in (path, source):
            if p not in places:
                raise ValueError(f"there is no parameter {p!r} in this {type(self).__name__}; {listed_paths(places)}")
        (owner, name), (giver, given) = places[path], places[source]
        old, new = vars(owner)[name], vars(giver)[given]
        if tuple(old.shape) != tuple(new.shape):
            raise ValueError(f"{source} of shape {tuple(new.shape)} cannot stand at {path}, of {tuple(old.shape)}")
        if None in new.shape:
            raise RuntimeError(f"{source} cannot stand at {path} yet, as its shape is {new.shape}: {UNSIZED}")
        setattr(owner, name, new)
        owner.frozen = owner.frozen | {name} if given in giver.frozen else owner.frozen - {name}
        return self

    def copy(self) -> Self:
        """Return a net of its own with the same values, in arrays of its own; shared ones stay shared."""
        return map_distinct(lambda x: raw_namespace(x).asarray(x, copy=True), self)

    # -- state in and out

    def state(self) -> dict[str, Any]:
        """Return all that the net has learned and counted: parameters and cells by path, shared ones once."""
        return state_of(self)

    def load_state(self, arrays: dict[str, Any]) -> Self:
        """Put arrays, of any library, in the places of those that `state` returns, on the device where those are.

        Raises
        ------
        ValueError
            If paths, shapes or dtypes differ; the message names all that do, and the net is left as it is.
        """
        load_state(self, arrays, "this dict", "dict")
        return self

    # -- mode

    def train(self, training: bool = True) -> Self:
        """Set the mode of this layer and all below: whether, for example, dropout drops. Nets start in `eval` mode."""
        for layer in layers_of(self):
            layer.training = training
        return self

    def eval(self) -> Self:
        """Set the mode of this layer and all below to evaluation."""
        return self.train(False)

    # -- moving

    def to(self, device: Device | str) -> Self:
        """Return this net with its parameters on another device or in another library; shared ones stay shared."""
        return to_device(self, device)

    def astype(self, dtype: Any) -> Self:
        """Return this net with its parameters cast to another floating-point dtype; shared ones stay shared.

        Cells are cast too, but to float32 at least: running averages would stand still in 16 bits.

        Raises
        ------
        ValueError
            If the library has no such floating-point dtype.
        """
        name = dtype if isinstance(dtype, str) else np.dtype(dtype).name

        def cast(x: Any, name: str = name) -> Any:
            xp = raw_namespace(x)
            target = named(xp, name)
            if target is None or not xp.isdtype(target, ("real floating", "complex floating")):
                raise ValueError(f"expected a floating-point dtype of {library(x)} such as 'float32', got {dtype!r}")
            return xp.astype(x, target) if is_inexact(x.dtype) else x

        wide = "float32" if name in ("float16", "bfloat16") else name
        return map_distinct(cast, self, lambda x: cast(x, wide))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.count_parameters()} parameters)"


# -- texts


def shown(layer: Layer, *arguments: Any, **options: tuple[Any, Any]) -> str:
    """Write a layer as it is made: its arguments, and of its options, each with its default, those that differ."""
    given = [f"{name}={value!r}" for name, (value, default) in options.items() if value != default]
    return f"{type(layer).__name__}({', '.join([*map(str, arguments), *given])})"


def explain(layer: Layer, x: Any, wanted: tuple[Any, ...], what: str = "input") -> None:
    """Raise an error that names the layer, if the input does not fit it; called when a layer's function failed.

    Parameters
    ----------
    layer
        Its own arrays (those of no inner layer) say which dtype, library and device are wanted.
    x
        The input.
    wanted
        Its axes: a whole number is a length; a string names an axis of any length; an ellipsis at the beginning stands
        for any number of axes.
    what
        What to call it.
    """
    own = {name: value for name, value in vars(layer).items() if value is not None and is_parameter(value)}
    for value in own.values():
        if type(value) is Parameter:
            raise RuntimeError(f"{layer!r} has no parameters yet: {value.missing}")
    if not is_array(x):
        given = "None" if x is None else type(x).__name__
        raise TypeError(f"{layer!r} expects arrays, got {given} as {what}")
    check_alike(repr(layer), **{what: x}, **own)
    check_one_device(repr(layer), **{what: x}, **own)
    shape = tuple(strip(x).shape)
    many = wanted[:1] == (...,)
    axes = wanted[1:] if many else wanted
    fits = len(shape) >= len(axes) if many else len(shape) == len(axes)
    tail = shape[len(shape) - len(axes) :]
    if not fits or any(isinstance(n, int) and n != m for n, m in zip(axes, tail, strict=False)):
        shown = ", ".join("..." if n is ... else str(n) for n in wanted)
        article = "an" if what[0] in "aeiou" else "a"
        raise ValueError(
            f"{layer!r} expects {article} {what} of shape ({shown}{',' * (len(wanted) == 1)}), got {shape}"
            + ("" if many else advice(shape, axes))
        )


def advice(shape: tuple[int, ...], axes: tuple[Any, ...]) -> str:
    """Say what a shape that does not fit may be: channels first, no channels, no batch."""
    n = axes[-1]
    if len(shape) == len(axes) > 2 and shape[1] == n:
        return f"; the channels come last: of (batch, channels, ...) make x.transpose{(0, *range(2, len(shape)), 1)}"
    if len(shape) == len(axes) - 1 and n == 1 != shape[-1]:
        return "; the one channel has an axis too: x[..., None]"
    if len(shape) == len(axes) - 1 and shape[-1] == n:
        return "; of one example make a batch of one: x[None]"
    return ""
