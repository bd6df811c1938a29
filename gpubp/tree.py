"""Pytrees: dicts, lists, tuples, layers, and the arrays in them.

Arrays are the leaves. Everything else (numbers, strings, functions, None) is carried along unchanged, cells
(`gpubp.state.State`) by reference. A layer is an object whose class derives from `Node`; its attributes are its
children.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from .array import Array
from .device import Device, is_array, move
from .state import State

Leaf = Callable[[Any], Any]
T = TypeVar("T")


class Node:
    """Base class of objects that are pytrees: their attributes are their children.

    A copy with other leaves is made without calling ``__init__``.
    """

    frozen: frozenset[str] = frozenset()  #: names of attributes whose arrays are not differentiated


def _leaf(f: Leaf, x: Any) -> Any:
    return f(x)


def _static(f: Leaf, x: Any) -> Any:
    return x


def _sequence(f: Leaf, x: Any) -> Any:
    found = []
    for v in x:
        handler = _HANDLERS.get(type(v)) or _handler(v)
        found.append(v if handler is _static else f(v) if handler is _leaf else handler(f, v))
    return type(x)(found)


def _container(f: Leaf, x: Any) -> Any:
    return map_children(lambda v: map_leaves(f, v), x)


def _node(f: Leaf, x: Node) -> Any:
    new = object.__new__(type(x))
    new.__dict__ = attributes = x.__dict__.copy()
    frozen = attributes.get("frozen")
    for name, v in attributes.items():
        handler = _HANDLERS.get(type(v)) or _handler(v)
        if handler is not _static:
            g = getattr(f, "of_frozen", f) if frozen and name in frozen else f
            attributes[name] = g(v) if handler is _leaf else handler(g, v)
    return new


def _cell(f: Leaf, x: State) -> State:
    return f.cell(x) if type(f) is _Once else x


_HANDLERS: dict[type, Callable[[Leaf, Any], Any]] = {
    Array: _leaf, list: _sequence, tuple: _sequence, dict: _container,
    State: _cell, type(None): _static, int: _static, float: _static, str: _static, bool: _static,
}  # fmt: skip


def _handler(x: Any) -> Callable[[Leaf, Any], Any]:
    if isinstance(x, Node):
        found: Callable[[Leaf, Any], Any] = _node
    elif isinstance(x, (dict, list, tuple)):
        found = _container
    else:
        found = _leaf if is_array(x) else _static
    _HANDLERS[type(x)] = found
    return found


def map_children(f: Leaf, x: Any) -> Any:
    """The same dict, list or tuple with ``f(child)`` in the place of every child."""
    if isinstance(x, dict):
        return {k: f(v) for k, v in x.items()}
    if isinstance(x, list):
        return [f(v) for v in x]
    children = [f(v) for v in x]
    return type(x)(*children) if hasattr(x, "_fields") else tuple(children)


def map_leaves(f: Leaf, tree: T) -> T:
    """The same tree with ``f(leaf)`` in the place of every array."""
    return (_HANDLERS.get(type(tree)) or _handler(tree))(f, tree)  # type: ignore[no-any-return]


class _Once:
    """A function of arrays that gives one result for an array, or a cell, that stands in several places."""

    def __init__(self, f: Leaf, in_cells: Leaf | None = None) -> None:
        self.f = f
        self.in_cells = self if in_cells is None else _Once(in_cells)
        self.found: dict[int, tuple[Any, Any]] = {}  # by identity; what is known must live as long

    def __call__(self, x: Any) -> Any:
        if id(x) not in self.found:
            self.found[id(x)] = x, self.f(x)
        return self.found[id(x)][1]

    def cell(self, x: State) -> State:
        if id(x) not in self.found:
            self.found[id(x)] = x, State(map_leaves(self.in_cells, x.held))
        return self.found[id(x)][1]  # type: ignore[no-any-return]


def map_distinct(f: Leaf, tree: T, in_cells: Leaf | None = None) -> T:
    """`map_leaves` to a tree of its own: what is shared stays shared, and cells are new ones with mapped values.

    For what is in cells there may be a function of its own.
    """
    return map_leaves(_Once(f, in_cells), tree)


def leaves(tree: Any) -> list[Any]:
    """The arrays of a tree, in order, shared ones as often as they stand in it."""
    found: list[Any] = []
    map_leaves(found.append, tree)
    return found


def frozen_leaves(tree: Any) -> list[Any]:
    """The arrays of a tree's layers that are not differentiated."""
    found: list[Any] = []

    def pass_by(x: Any) -> Any:
        return x

    pass_by.of_frozen = found.append  # type: ignore[attr-defined]
    map_leaves(pass_by, tree)
    return found


def rebuild(tree: T, new_leaves: Any) -> T:
    """The same tree with `new_leaves`, in the order of `leaves`."""
    values: Iterator[Any] = iter(new_leaves)
    return map_leaves(lambda _: next(values), tree)


def to_device(tree: T, where: Device | str) -> T:
    """The same tree with its arrays on another device, or in another library.

    Parameters
    ----------
    tree
        A pytree of plain arrays: an array, a net, a batch.
    where
        A `Device`, a device's name as `gpubp.device` takes it, or a library's name.

    Returns
    -------
    tree
        Arrays that are there already stay the same objects, and shared ones stay shared.

    Raises
    ------
    TypeError
        If an array is traced: inside a transform data stays in its library.
    """

    def place(x: Any) -> Any:
        if type(x) is Array:
            raise TypeError("to_device of a traced array; move the data before the transform")
        return move(x, where)

    return map_distinct(place, tree)


def leaves_against(tree: Any, other: Any, what: str = "tree", path: str = "") -> list[Any]:
    """What stands in `other` where `tree` has arrays; None where a whole part of `other` is None.

    Raises
    ------
    TypeError
        If `other` is not built like `tree`; the message calls it `what`.
    """
    parts = children(tree)
    if parts is None:
        if not is_array(tree):
            return []
        if other is not None and not is_array(other):
            raise TypeError(f"the {what} has {type(other).__name__} where an array is expected{_at(path)}")
        return [other]
    others = dict(children(other) or ()) if other is not None else {}
    if other is not None and (type(other) is not type(tree) or [k for k, _ in parts] != list(others)):
        raise TypeError(f"the {what} is no {type(tree).__name__} of the same structure as the value{_at(path)}")
    return [x for k, v in parts for x in leaves_against(v, others.get(k), what, path + k)]


def _at(path: str) -> str:
    return f" at {path.removeprefix('.')}" if path else ""


def children(tree: Any) -> list[tuple[str, Any]] | None:
    """The parts of a tree by the way to each, as one would write it; None for what is no container."""
    if isinstance(tree, Node):
        return [(f".{name}", value) for name, value in tree.__dict__.items()]
    if isinstance(tree, dict):
        return [(f"[{key!r}]", value) for key, value in tree.items()]
    if isinstance(tree, list | tuple):
        return [(f"[{k}]", value) for k, value in enumerate(tree)]
    return None


def leaves_with_paths(tree: Any) -> list[tuple[str, Any]]:
    """The arrays of a tree with the way to each, as one would write it: ``layers[0].W``, ``['a'][1]``."""
    return [(path.removeprefix("."), x) for path, x in _walk("", tree)]


def _walk(path: str, x: Any) -> Iterator[tuple[str, Any]]:
    parts = children(x)
    if parts is not None:
        for step, value in parts:
            yield from _walk(path + step, value)
    elif is_array(x):
        yield path, x


def cells_with_paths(tree: Any, path: str = "") -> list[tuple[str, State]]:
    """The cells of a tree with the way to each, shared ones as often as they stand in it."""
    if type(tree) is State:
        return [(path.removeprefix("."), tree)]
    return [found for step, value in children(tree) or () for found in cells_with_paths(value, path + step)]
