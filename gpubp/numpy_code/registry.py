"""The table of NumPy's functions, and what their definitions share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np

from ..array import Array

Function = Callable[..., Any]

#: NumPy's functions by their name below ``numpy`` (``"sum"``, ``"linalg.norm"``): ``f(xp, *args, **kwargs)``.
#: The signatures are NumPy's, without ``out``, which `call` refuses, and without what says nothing about values.
FUNCTIONS: dict[str, Function] = {}
_OF_MEMORY = {"out", "copy", "subok", "casting", "overwrite_input"}

ADVICE = "its gradient would be lost; write x = x + y, or assign to items of a traced array"


def function(*names: str) -> Callable[[Function], Function]:
    """Define, as a decorator, the NumPy functions of these names."""

    def add(f: Function) -> Function:
        for name in names:
            FUNCTIONS[name] = f
        f.__qualname__ = f"gpubp's numpy.{names[0]}"  # what Python says of an argument that does not fit
        return f

    return add


def call(name: str, f: Function, xp: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """``f(xp, *args, **kwargs)``, unless it is asked to write into an array."""
    if kwargs.get("out") is not None:
        raise TypeError(f"numpy.{name} cannot write a traced value into an array (out=): {ADVICE}")
    return f(xp, *args, **{k: v for k, v in kwargs.items() if k not in _OF_MEMORY})


def first_array(values: Iterable[Any]) -> Any:
    """The first `Array` among the values, or in lists and tuples of them; None if there is none."""
    for x in values:
        if type(x) is Array:
            return x
        if isinstance(x, list | tuple) and (found := first_array(x)) is not None:
            return found
    return None


def namespace_of(*values: Any) -> Any:
    """The twin for these values, one that makes new arrays on their device."""
    x = first_array(values)
    ns = x.tape.ns
    return ns if ns.library == "numpy" else _OnDevice(ns, x.device)


class _OnDevice:
    """A namespace whose new arrays are made on one device."""

    def __init__(self, ns: Any, device: Any) -> None:
        self._ns, self._device = ns, device

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._ns, name)
        return partial(value, device=self._device) if name in _CREATION else value


_CREATION = {"arange", "asarray", "empty", "eye", "full", "ones", "zeros"}


def array(xp: Any, x: Any) -> Any:
    """`x`, be it plain, a list or a number, as an array of the twin."""
    return xp.constant(x) if hasattr(x, "dtype") else xp.asarray(x)


def arrays(xp: Any, values: Iterable[Any]) -> list[Any]:
    """Every one of the values as an array."""
    return [array(xp, x) for x in values]


def native(xp: Any, dtype: Any) -> Any:
    """A dtype as the library knows it: NumPy's dtypes, names and Python's types are accepted for any."""
    if dtype is None:
        return None
    try:
        name = np.dtype(dtype).name
    except TypeError:
        return dtype  # the library's own
    return getattr(xp, name)


def normal_axis(axis: int, ndim: int) -> int:
    """An axis counted from the front."""
    if not -ndim <= axis < ndim:
        raise np.exceptions.AxisError(axis, ndim)
    return axis % ndim


def normal_axes(axis: Any, ndim: int) -> tuple[int, ...]:
    """Axes counted from the front; None stands for all of them."""
    if axis is None:
        return tuple(range(ndim))
    return tuple(normal_axis(a, ndim) for a in (axis if isinstance(axis, tuple | list) else (axis,)))


def flat(xp: Any, x: Any) -> Any:
    """`x` in one dimension."""
    return xp.reshape(x, (-1,)) if x.ndim != 1 else x


def part(x: Any, axis: int, start: int | None, stop: int | None) -> Any:
    """A slice along one axis."""
    key = [slice(None)] * x.ndim
    key[axis] = slice(start, stop)
    return x[tuple(key)]


def along(xp: Any, x: Any, ndim: int, axis: int) -> Any:
    """A vector reshaped so that it lies along one axis of `ndim`."""
    return xp.reshape(x, tuple(-1 if k == axis % ndim else 1 for k in range(ndim)))


def gather(xp: Any, x: Any, indices: Any, axis: int = 0) -> Any:
    """Elements of `x` along an axis at `indices` of any shape, negative ones counted from the end."""
    n = x.shape[axis]
    found = xp.take(x, flat(xp, xp.where(indices < 0, indices + n, indices)), axis=axis)
    return xp.reshape(found, (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]))
