"""Where the arrays of a tree stand, found once, so that they can be read and replaced quickly at every step."""

from __future__ import annotations

from typing import Any

from ..boundary import is_inexact
from ..device import is_array
from ..tree import Node


class Layout:
    """The places of the floating-point arrays of a tree, or, if `every`, of all its arrays.

    Attributes
    ----------
    paths : list of str
        The way to each array, as one would write it.
    """

    def __init__(self, tree: Any, every: bool = False) -> None:
        self._every = every
        self.paths: list[str] = []
        # A step goes from an object already met to a child: (index of the object, whether an attribute, name or key)
        self._steps: list[tuple[int, bool, Any]] = []
        self._places: list[int] = []  # which of the objects met are the arrays
        self._met = 0
        if is_array(tree):
            raise TypeError("expected a net, or a dict or list that holds arrays, not an array itself")
        self._visit(tree, "")

    def _visit(self, x: Any, path: str) -> bool:
        """Add the steps to the arrays below `x`; say whether there are any."""
        me, places = self._met, len(self._places)
        self._met += 1
        children: list[tuple[bool, Any, Any, str]] = []
        if isinstance(x, Node):
            children = [(True, name, value, f"{path}.{name}" if path else name) for name, value in vars(x).items()]
        elif isinstance(x, dict):
            children = [(False, key, value, f"{path}[{key!r}]") for key, value in x.items()]
        elif isinstance(x, list | tuple):
            children = [(False, k, value, f"{path}[{k}]") for k, value in enumerate(x)]
        elif is_array(x) and (self._every or is_inexact(x.dtype)):
            self._places.append(me)
            self.paths.append(path)
            return True
        for attribute, key, value, child in children:
            self._steps.append((me, attribute, key))
            if not self._visit(value, child):
                self._steps.pop()
                self._met -= 1
        return len(self._places) > places

    def read(self, tree: Any) -> list[Any]:
        """Return the arrays of a tree of this structure, in the order of `paths`."""
        met = [tree]
        for source, attribute, key in self._steps:
            parent = met[source]
            met.append(parent.__dict__[key] if attribute else parent[key])
        return [met[k] for k in self._places]

    def write(self, tree: Any, arrays: list[Any]) -> None:
        """Put arrays in the places of those of the tree."""
        met = [tree]
        new = dict(zip(self._places, arrays, strict=True))
        for source, attribute, key in self._steps:
            parent = met[source]
            if len(met) in new:
                value = new[len(met)]
                if attribute:
                    setattr(parent, key, value)
                elif isinstance(parent, tuple):
                    path = self.paths[self._places.index(len(met))]
                    raise TypeError(f"{path} stands in a tuple, where it cannot be replaced: use a list")
                else:
                    parent[key] = value
            met.append(parent.__dict__[key] if attribute else parent[key])
