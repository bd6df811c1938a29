"""What a function reaches from outside: its variables, and what stands in them."""

from __future__ import annotations

import copy
import dis
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache, partial
from itertools import chain
from operator import is_not
from sysconfig import get_path
from types import CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from .device import is_array
from .state import State
from .tree import Node

_MISSING: Any = object()
_LIBRARIES = sys.stdlib_module_names | {"array_api_compat", "cupy", "cupyx", "gpubp", "numpy"}
_LONG = 10_000  #: items of a list or dict that is not looked into


class _Place:
    """A list, a dict, an object's attributes or a function's variables: what stands there, by identity."""

    def __init__(
        self, owner: Any, named: Callable[[Any], str], read: Callable[[], Any], write: Callable[[Any], None]
    ) -> None:
        self.owner, self.named, self.read, self.write = owner, named, read, write
        self.known = read().copy()
        holder = read()
        if holder is not read():
            self.values: Callable[[], Iterable[Any]] = lambda: _values(read())
        else:
            self.values = holder.__iter__ if isinstance(holder, list) else holder.values

    def changed(self) -> str | None:
        """Return the name of the first thing here that was replaced, or is new, or gone."""
        now, known = self.read(), self.known
        if len(now) == len(known) and not any(map(is_not, _values(now), _values(known))):
            return None
        before, after = (dict(enumerate(x)) if isinstance(x, list) else x for x in (known, now))
        different = (key for key in {**before, **after} if before.get(key, _MISSING) is not after.get(key, _MISSING))
        return next((self.named(key) for key in different), None)


class Surroundings:
    """The variables of functions, and all that they reach through them: containers, layers, the user's objects.

    Of the user's objects and modules those attributes count that the functions name. What belongs to libraries is not
    looked into, nets apart. Nothing is compared by value.

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
        self._objects: list[tuple[str, Any]] = []
        self._names = {"__call__"}  # of attributes that functions use
        for root in roots:
            self._visit("", root)
        self._visit_objects()
        self.arrays = [x for x in self._found.values() if is_array(x)]
        self._compared = _flat(self.places)

    def without(self, owners: Iterable[Any]) -> Surroundings:
        """The same without the attributes of some objects."""
        left_out = set(map(id, owners))
        rest = copy.copy(self)
        rest.places = [place for place in self.places if id(place.owner) not in left_out]
        rest._compared = _flat(rest.places)
        return rest

    def changed(self) -> str | None:
        """Return the name of the first thing that was replaced."""
        reads, known = self._compared
        now = [*chain.from_iterable(read() for read in reads)]
        if len(now) == len(known) and not any(map(is_not, now, known)):
            return None
        return next((name for place in self.places if (name := place.changed()) is not None), None)

    def restore(self) -> None:
        """Put everything back in its place."""
        for place in self.places:
            if place.changed() is not None:
                place.write(place.known)

    def _visit(self, path: str, x: Any) -> None:
        if id(x) in self._found or isinstance(x, str | int | float | complex | None | type):
            return
        self._found[id(x)] = x
        if is_array(x):
            return
        if isinstance(x, dict | list):
            self._note(x, lambda key: f"{path}[{key!r}]", lambda: x, partial(_refill, x))
        elif isinstance(x, ModuleType):
            if is_users(vars(x)):
                self._objects.append((path, x))
        elif isinstance(x, tuple):
            for k, part in enumerate(x):
                self._visit(f"{path}[{k}]", part)
        elif isinstance(x, FunctionType):
            self._visit_function(path, x)
        elif isinstance(x, MethodType | partial):
            for part in (x.__self__, x.__func__) if isinstance(x, MethodType) else (x.func, x.args, x.keywords):
                self._visit(path, part)
        elif type(x) is State:
            self._note(x, lambda _: path, lambda: [x.held], lambda known: setattr(x, "held", *known))
        elif isinstance(x, self.closed):
            self._note_attributes(path, x, look=False)
            self._visit(f"{path}.tree", getattr(x, "tree", None))
        elif hasattr(x, "__wrapped__"):
            self._visit(path, x.__wrapped__)
        else:
            if isinstance(x, Node):
                self._note_attributes(path, x)
            if is_users(vars(type(x))) and hasattr(x, "__dict__"):
                self._objects.append((path, x))

    def _note(
        self,
        owner: Any,
        named: Callable[[Any], str],
        read: Callable[[], Any],
        write: Callable[[Any], None],
        look: bool = True,
    ) -> None:
        place = _Place(owner, named, read, write)
        self.places.append(place)
        if look and len(place.known) <= _LONG:
            for key, part in _items(place.known):
                if part is not _MISSING:
                    self._visit(named(key), part)

    def _note_attributes(self, path: str, x: Any, look: bool = True) -> None:
        self._note(x, lambda key: _joined(path, key), lambda: vars(x), partial(_refill, vars(x)), look)

    def _visit_function(self, path: str, function: FunctionType) -> None:
        space: dict[str, Any] = function.__globals__ if is_users(function.__globals__) else {}
        codes = list(_codes(function.__code__)) if is_users(function.__globals__) else []
        names = sorted({i.argval for code in codes for i in dis.get_instructions(code) if i.opname.endswith("_GLOBAL")})
        self._names.update(*(code.co_names for code in codes))
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
        self._visit(path, (function.__defaults__, function.__kwdefaults__))

    def _visit_objects(self) -> None:
        """Visit what functions name of the user's objects, which may be functions that name more."""
        done: set[tuple[int, str]] = set()
        while todo := [(*o, name) for o in self._objects for name in self._names if (id(o[1]), name) not in done]:
            for path, x, name in todo:
                done.add((id(x), name))
                method = getattr(type(x), name, None)
                self._visit(path, getattr(method, "fget", method))
                if name in vars(x):
                    self._visit(_joined(path, name), vars(x)[name])
        for path, x in self._objects:
            if not isinstance(x, Node):
                self._note_named(path, x)

    def _note_named(self, path: str, x: Any) -> None:
        attributes, names = vars(x), sorted(self._names)

        def read() -> dict[str, Any]:
            return {name: attributes[name] for name in names if name in attributes}

        def write(known: dict[str, Any]) -> None:
            for name in read():
                del attributes[name]
            attributes.update(known)

        self._note(x, lambda key: _joined(path, key), read, write, look=False)


def _flat(places: list[_Place]) -> tuple[list[Callable[[], Iterable[Any]]], list[Any]]:
    """What reads the values of all places, and what they were."""
    return [place.values for place in places], [x for place in places for x in _values(place.known)]


def _values(x: Any) -> Iterable[Any]:
    return x if isinstance(x, list) else x.values()


def _items(x: Any) -> Iterable[tuple[Any, Any]]:
    return enumerate(x) if isinstance(x, list) else x.items()


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _refill(holder: Any, known: Any) -> None:
    holder.clear()
    holder.extend(known) if isinstance(holder, list) else holder.update(known)


def is_users(names: Mapping[str, Any]) -> bool:
    """Whether the names of a module, or of a class, are those of the user's code, not of a library's."""
    return not _is_library(str(names.get("__module__", names.get("__name__"))).partition(".")[0])


@cache
def _is_library(name: str) -> bool:
    file = getattr(sys.modules.get(name), "__file__", None) or ""
    return name in _LIBRARIES or file.startswith((get_path("purelib"), get_path("platlib")))  # where pip puts them


def _codes(code: CodeType) -> Iterator[CodeType]:
    """A function's code and that of those defined inside it."""
    yield code
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _codes(inner)


def _contents(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # the variable has no value yet
        return _MISSING
