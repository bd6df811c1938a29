"""Pytrees: dicts, lists, tuples, layers, and the arrays in them.

Arrays are the leaves. Everything else (numbers, strings, functions, None) is carried along unchanged. A layer is
an object whose class derives from `Node`; its attributes are its children.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from .array import Array
from .device import is_array

Leaf = Callable[[Any], Any]
T = TypeVar("T")


class Node:
    """Base class of objects that are pytrees: their attributes are their children.

    A copy with other leaves is made without calling ``__init__``.
    """


def _leaf(f: Leaf, x: Any) -> Any:
    return f(x)


def _static(f: Leaf, x: Any) -> Any:
    return x


def _list(f: Leaf, x: list[Any]) -> Any:
    return [map_leaves(f, v) for v in x]


def _tuple(f: Leaf, x: tuple[Any, ...]) -> Any:
    return tuple([map_leaves(f, v) for v in x])


def _named_tuple(f: Leaf, x: Any) -> Any:
    return type(x)(*[map_leaves(f, v) for v in x])


def _dict(f: Leaf, x: dict[Any, Any]) -> Any:
    return {k: map_leaves(f, v) for k, v in x.items()}


def _node(f: Leaf, x: Node) -> Any:
    new = object.__new__(type(x))
    attributes = new.__dict__
    attributes.update(x.__dict__)
    for name, value in x.__dict__.items():
        handler = _HANDLERS.get(type(value)) or _handler(value)
        if handler is not _static:
            attributes[name] = handler(f, value)
    return new


_HANDLERS: dict[type, Callable[[Leaf, Any], Any]] = {
    Array: _leaf, list: _list, tuple: _tuple, dict: _dict,
    type(None): _static, int: _static, float: _static, str: _static, bool: _static,
}  # fmt: skip


def _handler(x: Any) -> Callable[[Leaf, Any], Any]:
    if isinstance(x, Node):
        found: Callable[[Leaf, Any], Any] = _node
    elif isinstance(x, tuple) and hasattr(x, "_fields"):
        found = _named_tuple
    elif isinstance(x, dict):
        found = _dict
    else:
        found = _leaf if is_array(x) else _static
    _HANDLERS[type(x)] = found
    return found


def map_leaves(f: Leaf, tree: T) -> T:
    """The same tree with ``f(leaf)`` in the place of every array."""
    return (_HANDLERS.get(type(tree)) or _handler(tree))(f, tree)  # type: ignore[no-any-return]


def leaves(tree: Any) -> list[Any]:
    """The arrays of a tree, in order, shared ones as often as they stand in it."""
    found: list[Any] = []
    map_leaves(found.append, tree)
    return found


def rebuild(tree: T, new_leaves: Any) -> T:
    """The same tree with `new_leaves`, in the order of `leaves`."""
    values: Iterator[Any] = iter(new_leaves)
    return map_leaves(lambda _: next(values), tree)


def leaves_with_paths(tree: Any) -> list[tuple[str, Any]]:
    """The arrays of a tree with the way to each, as one would write it: ``layers[0].W``, ``['a'][1]``."""
    found: list[tuple[str, Any]] = []

    def visit(path: str, x: Any) -> None:
        if isinstance(x, Node):
            for name, value in x.__dict__.items():
                visit(f"{path}.{name}" if path else name, value)
        elif isinstance(x, dict):
            for key, value in x.items():
                visit(f"{path}[{key!r}]", value)
        elif isinstance(x, list | tuple):
            for k, value in enumerate(x):
                visit(f"{path}[{k}]", value)
        elif is_array(x):
            found.append((path, x))

    visit("", tree)
    return found
