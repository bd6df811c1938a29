"""Where the arrays of a tree stand, found once, so that they can be read quickly at every step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from keyword import iskeyword
from typing import Any

from .boundary import is_inexact
from .device import is_array
from .tree import Node

# One step from an object to a child: whether the child is an attribute, and its name, key or index.
Step = tuple[bool, Any]


class Layout:
    """The places of the floating-point arrays of a tree, or, if `every`, of all its arrays.

    Attributes
    ----------
    paths : list of str
        The way to each array, as one would write it.
    read : function
        ``read(tree)`` gives a tuple of the arrays of a tree of this structure, in the order of `paths`.
    """

    def __init__(self, tree: Any, every: bool = False) -> None:
        if is_array(tree):
            raise TypeError("expected a net, or a dict or list that holds arrays, not an array itself")
        found = [(path, steps) for path, steps, x in _arrays(tree, "", ()) if every or is_inexact(x.dtype)]
        self.paths = [path for path, _ in found]
        self._steps = [steps for _, steps in found]
        self.read = _reader(self._steps)

    def read_one(self, tree: Any, path: str) -> Any:
        """Return what stands in one of the places."""
        for step in self._steps[self.paths.index(path)]:
            tree = _child(tree, step)
        return tree

    def write(self, tree: Any, arrays: Any) -> None:
        """Put arrays in the places of those of the tree."""
        for path, steps, x in zip(self.paths, self._steps, arrays, strict=True):
            *way, (attribute, key) = steps
            parent = tree
            for step in way:
                parent = _child(parent, step)
            if attribute:
                setattr(parent, key, x)
            elif isinstance(parent, tuple):
                raise TypeError(f"{path} stands in a tuple, where it cannot be replaced: use a list")
            else:
                parent[key] = x


def _arrays(x: Any, path: str, steps: tuple[Step, ...]) -> Iterator[tuple[str, tuple[Step, ...], Any]]:
    if isinstance(x, Node):
        for name, value in vars(x).items():
            yield from _arrays(value, f"{path}.{name}" if path else name, (*steps, (True, name)))
    elif isinstance(x, dict):
        for key, value in x.items():
            yield from _arrays(value, f"{path}[{key!r}]", (*steps, (False, key)))
    elif isinstance(x, list | tuple):
        for k, value in enumerate(x):
            yield from _arrays(value, f"{path}[{k}]", (*steps, (False, k)))
    elif is_array(x):
        yield path, steps, x


def _child(x: Any, step: Step) -> Any:
    attribute, key = step
    return getattr(x, key) if attribute else x[key]


def _reader(places: list[tuple[Step, ...]]) -> Callable[[Any], tuple[Any, ...]]:
    """Compile the reading of all places into one expression, several times as fast as a loop over them."""
    keys: list[Any] = []

    def expression(steps: tuple[Step, ...]) -> str:
        text = "tree"
        for attribute, key in steps:
            if attribute and key.isidentifier() and not iskeyword(key):
                text += f".{key}"
            else:
                keys.append(key)
                text += f"{'.__dict__' if attribute else ''}[keys[{len(keys) - 1}]]"
        return text

    source = f"lambda tree: ({' '.join(expression(steps) + ',' for steps in places)})"
    function: Callable[[Any], tuple[Any, ...]] = eval(source, {"keys": keys})
    return function
