"""What a function reaches from outside: its variables, and what stands in them."""

from __future__ import annotations

import copy
import dis
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from operator import is_not
from types import CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from .device import is_array
from .state import State
from .tree import Node

_MISSING: Any = object()
_LIBRARIES = sys.stdlib_module_names | {"array_api_compat", "cupy", "cupyx", "gpubp", "numpy"}
_LONG = 10_000  #: items of a list or dict that is looked at as a whole


class _Place:
    """A list, a dict, the attributes of an object, or the variables of a function: what stands there, by identity."""

    def __init__(
        self, owner: Any, named: Callable[[Any], str], read: Callable[[], Any], write: Callable[[Any], None]
    ) -> None:
        self.owner, self.named, self.read, self.write = owner, named, read, write
        self.known = read().copy()

    def changed(self) -> str | None:
        """Return the name of the first thing here that was replaced, or is new, or gone."""
        now, known = self.read(), self.known
        if len(now) == len(known) and not any(map(is_not, _values(now), _values(known))):
            return None
        before, after = (dict(enumerate(x)) if isinstance(x, list) else x for x in (known, now))
        different = (key for key in {**before, **after} if before.get(key, _MISSING) is not after.get(key, _MISSING))
        return next((self.named(key) for key in different), None)


class Surroundings:
    """The variables of functions, and all that can be reached through them: containers, layers, the user's objects.

    What belongs to a library is not looked into, nets apart. Nothing is compared by value.

    Parameters
    ----------
    *roots
        Functions, and other things that may be looked into.
    closed : type
        Of objects of this class the attributes are noted, but only their ``tree`` is looked into.

    Attributes
    ----------
    arrays : list
        The arrays that were found.
    """

    def __init__(self, *roots: Any, closed: type) -> None:
        self.closed = closed
        self.places: list[_Place] = []
        self._found: dict[int, Any] = {}  # lives as long as the identities are compared
        for root in roots:
            self._visit("", root)
        self.arrays = [x for x in self._found.values() if is_array(x)]

    def without(self, owners: Iterable[Any]) -> Surroundings:
        """The same without the attributes of some objects."""
        left_out = set(map(id, owners))
        rest = copy.copy(self)
        rest.places = [place for place in self.places if id(place.owner) not in left_out]
        return rest

    def changed(self) -> str | None:
        """Return the name of the first thing that was replaced."""
        return next((name for place in self.places if (name := place.changed()) is not None), None)

    def restore(self) -> None:
        """Put everything back in its place."""
        for place in self.places:
            if place.changed() is not None:
                place.write(place.known)

    def _visit(self, path: str, x: Any) -> None:
        if id(x) in self._found or isinstance(x, str | int | float | complex | None | type | ModuleType):
            return
        self._found[id(x)] = x
        if is_array(x):
            return
        if isinstance(x, dict | list):
            self._note(x, lambda key: f"{path}[{key!r}]", x)
        elif isinstance(x, tuple):
            for k, part in enumerate(x):
                self._visit(f"{path}[{k}]", part)
        elif isinstance(x, FunctionType):
            self._note_variables(x)
            self._visit(path, (x.__defaults__, x.__kwdefaults__))
        elif isinstance(x, MethodType | partial):
            for part in (x.__self__, x.__func__) if isinstance(x, MethodType) else (x.func, x.args, x.keywords):
                self._visit(path, part)
        elif type(x) is State:
            self._note(x, lambda _: path, lambda: [x.held], lambda known: setattr(x, "held", *known))
        elif isinstance(x, self.closed):
            self._note(x, lambda key: f"{path}.{key}".removeprefix("."), vars(x), look=False)
            self._visit(f"{path}.tree", getattr(x, "tree", None))
        elif hasattr(x, "__wrapped__"):
            self._visit(path, x.__wrapped__)
        elif isinstance(x, Node) or (is_users(type(x).__dict__) and hasattr(x, "__dict__")):
            self._note(x, lambda key: f"{path}.{key}".removeprefix("."), vars(x))

    def _note(
        self,
        owner: Any,
        named: Callable[[Any], str],
        holder: Any,
        write: Callable[[Any], None] | None = None,
        look: bool = True,
    ) -> None:
        place = _Place(
            owner,
            named,
            holder if callable(holder) else lambda: holder,
            write or partial(_refill, holder),
        )
        self.places.append(place)
        known = place.known
        if look and len(known) <= _LONG:
            for key, part in enumerate(known) if isinstance(known, list) else known.items():
                if part is not _MISSING:
                    self._visit(named(key), part)

    def _note_variables(self, function: FunctionType) -> None:
        space = function.__globals__ if is_users(function.__globals__) else {}
        names = sorted(_globals_in(function.__code__)) if space else []
        cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))

        def read() -> dict[str, Any]:
            found = {name: space.get(name, _MISSING) for name in names}
            return found | {name: _contents(cell) for name, cell in cells.items()}

        def write(known: dict[str, Any]) -> None:
            for name in names:
                if known[name] is _MISSING:
                    space.pop(name, None)
                else:
                    space[name] = known[name]
            for name, cell in cells.items():
                if known[name] is not _MISSING:
                    cell.cell_contents = known[name]

        self._note(function, str, read, write)


def _values(x: Any) -> Iterable[Any]:
    return x if isinstance(x, list) else x.values()


def _refill(holder: Any, known: Any) -> None:
    holder.clear()
    holder.extend(known) if isinstance(holder, list) else holder.update(known)


def is_users(names: Mapping[str, Any]) -> bool:
    """Whether the names of a module, or of a class, are those of the user's code, not of a library's."""
    return str(names.get("__module__", names.get("__name__"))).partition(".")[0] not in _LIBRARIES


def _globals_in(code: CodeType) -> set[str]:
    """The names of global variables in a function and in those defined inside it."""
    found = {i.argval for i in dis.get_instructions(code) if i.opname.endswith("_GLOBAL")}
    return found.union(*(_globals_in(inner) for inner in code.co_consts if isinstance(inner, CodeType)))


def _contents(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # the variable has no value yet
        return _MISSING
