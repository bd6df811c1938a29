"""Pickles of plain data, read without executing anything.

A pickle is a program for a stack machine, and Python's own machine imports and calls whatever the program names. The
one here knows the instructions that build numbers, strings, lists, tuples and dicts, takes names from a given table
alone, and calls nothing else. Time and memory grow with the length of the pickle at most, and not beyond it through
references to one object from many places.
"""

from __future__ import annotations

import io
import pickletools
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["Function", "NotPlain", "as_dict", "check_plain", "clipped", "read_pickle"]

#: Instructions that put their argument on the stack. LONG4, an integer of up to 2 GB, is not among them.
_CONSTANTS = frozenset(
    str.split(
        "INT BININT BININT1 BININT2 LONG LONG1 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING "
        "UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8"
    )
)
#: How many instructions a pickle may have; a tensor takes about forty.
_LONGEST = 2_000_000
#: Of the containers of a result: how deep they may be nested, and how many values they may hold if those that stand
#: in several places are counted at each.
_DEEPEST, _LARGEST = 100, 10_000_000


class NotPlain(ValueError):
    """A pickle may be whole, but builds more than plain data."""


class Function:
    """What a pickle may call: the stand-in for a name in it.

    Parameters
    ----------
    call
        Takes the arguments that the pickle gives, which may be anything, and raises ValueError if it does not like
        them. The time it takes must not depend on their size.
    """

    __slots__ = ("call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self.call = call


class _Mark:
    """Nothing that a pickle can put on the stack: the default of a look-up."""


def read_pickle(
    stream: io.BytesIO,
    names: Mapping[tuple[str, str], Any],
    persistent: Callable[[Any], Any] | None = None,
) -> Any:
    """Read one pickle from a stream, which is left behind it.

    Parameters
    ----------
    stream
        In memory, so that no more can be read than there is.
    names
        What stands for the (module, name) pairs that the pickle may refer to: `Function` where it may call.
    persistent
        Gives the object for a persistent id.

    Returns
    -------
    object
        What the pickle builds. It may hold stand-ins, and itself: see `check_plain`.

    Raises
    ------
    NotPlain
        If it refers to a name that is not among those, or makes an object of a class.
    ValueError
        If it is damaged.
    """
    machine = _Machine(names, persistent)
    try:
        for n, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            if n == _LONGEST:
                raise ValueError(f"its pickle has more than {_LONGEST:,} instructions")
            if opcode.name in _CONSTANTS:
                machine.push(argument)
            elif opcode.name == "STOP":
                break
            elif (step := _STEPS.get(opcode.name)) is not None:
                step(machine, argument)
            else:
                raise NotPlain(f"its pickle has the instruction {opcode.name}, which plain data do not need")
        (result,) = machine.stack
    except (IndexError, KeyError, TypeError, OverflowError, Warning) as error:
        raise ValueError(f"its pickle is damaged ({type(error).__name__}: {clipped(error)})") from error
    return result


class _Machine:
    """The stack machine of pickles, without the instructions that make or change objects of any class."""

    def __init__(self, names: Mapping[tuple[str, str], Any], persistent: Callable[[Any], Any] | None) -> None:
        self.names, self.persistent = names, persistent
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # the parts of the stack below each mark
        self.memo: dict[int, Any] = {}

    def push(self, x: Any) -> None:
        self.stack.append(x)

    def mark(self, _: Any) -> None:
        self.below.append(self.stack)
        self.stack = []

    def above_mark(self) -> list[Any]:
        found, self.stack = self.stack, self.below.pop()
        return found

    def pop(self, _: Any) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.above_mark()

    def find(self, module: Any, name: Any) -> None:
        found = self.names.get((module, name), _Mark) if type(module) is type(name) is str else _Mark
        if found is _Mark:
            raise NotPlain(
                f"it refers to {clipped(module)}.{clipped(name)}, which is neither a plain tensor nor plain data"
            )
        self.push(found)

    def stack_global(self, _: Any) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.find(module, name)

    def reduce(self, _: Any) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if type(function) is not Function or type(arguments) is not tuple:
            raise ValueError(f"its pickle calls {clipped(function)}, which is no function")
        self.push(function.call(*arguments))

    def persistent_id(self, _: Any) -> None:
        if self.persistent is None:
            raise ValueError("its pickle refers to an object outside it")
        self.push(self.persistent(self.stack.pop()))

    def build(self, _: Any) -> None:
        """Attributes of an ordered dict (PyTorch notes versions there) are left out; nothing else has any."""
        state = self.stack.pop()
        if type(self.stack[-1]) is not dict or type(state) is not dict:
            raise ValueError(f"its pickle sets the state of a value of type {type(self.stack[-1]).__name__}")

    def append_all(self, values: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            raise ValueError(f"its pickle appends to a value of type {type(self.stack[-1]).__name__}")
        self.stack[-1].extend(values)

    def set_items(self, values: list[Any]) -> None:
        if type(self.stack[-1]) is not dict or len(values) % 2:
            raise ValueError(f"its pickle sets items of a value of type {type(self.stack[-1]).__name__}")
        self.stack[-1].update(as_dict(values))

    def put(self, key: int) -> None:
        self.memo[key] = self.stack[-1]

    def last(self, n: int) -> list[Any]:
        """Take the last n values off the stack."""
        if len(self.stack) < n:
            raise IndexError("the stack is too short")
        found = self.stack[-n:]
        del self.stack[-n:]
        return found


def as_dict(values: list[Any]) -> dict[str | int, Any]:
    """Make a dict of keys and values in turn; of keys whose hash anybody could make slow, it takes none."""
    for key in values[::2]:
        if type(key) is not str and not (type(key) is int and -(2**63) <= key < 2**63):
            raise ValueError(f"a key of a dict is a {type(key).__name__}, expected a string or a 64-bit integer")
    return dict(zip(values[::2], values[1::2], strict=True))


_STEPS: dict[str, Callable[[_Machine, Any], Any]] = {
    "PROTO": lambda m, _: None,
    "FRAME": lambda m, _: None,
    "MARK": _Machine.mark,
    "POP": _Machine.pop,
    "POP_MARK": lambda m, _: m.above_mark(),
    "DUP": lambda m, _: m.push(m.stack[-1]),
    "NONE": lambda m, _: m.push(None),
    "NEWTRUE": lambda m, _: m.push(True),
    "NEWFALSE": lambda m, _: m.push(False),
    "EMPTY_LIST": lambda m, _: m.push([]),
    "EMPTY_DICT": lambda m, _: m.push({}),
    "EMPTY_TUPLE": lambda m, _: m.push(()),
    "LIST": lambda m, _: m.push(m.above_mark()),
    "DICT": lambda m, _: m.push(as_dict(m.above_mark())),
    "TUPLE": lambda m, _: m.push(tuple(m.above_mark())),
    "TUPLE1": lambda m, _: m.push(tuple(m.last(1))),
    "TUPLE2": lambda m, _: m.push(tuple(m.last(2))),
    "TUPLE3": lambda m, _: m.push(tuple(m.last(3))),
    "APPEND": lambda m, _: m.append_all(m.last(1)),
    "APPENDS": lambda m, _: m.append_all(m.above_mark()),
    "SETITEM": lambda m, _: m.set_items(m.last(2)),
    "SETITEMS": lambda m, _: m.set_items(m.above_mark()),
    "PUT": _Machine.put,
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "MEMOIZE": lambda m, _: m.put(len(m.memo)),
    "GET": lambda m, key: m.push(m.memo[key]),
    "BINGET": lambda m, key: m.push(m.memo[key]),
    "LONG_BINGET": lambda m, key: m.push(m.memo[key]),
    "GLOBAL": lambda m, both: m.find(*both.split(" ", 1)),
    "STACK_GLOBAL": _Machine.stack_global,
    "REDUCE": _Machine.reduce,
    "BUILD": _Machine.build,
    "BINPERSID": _Machine.persistent_id,
}


def check_plain(tree: Any, leaf: tuple[type, ...]) -> None:
    """Refuse what is not made of dicts, lists, tuples and leaves of the given types, or not safe to walk through.

    Raises
    ------
    ValueError
        If there is anything else in it, a stand-in say; if a container holds itself; if containers are nested too
        deep, or hold, references to one from many places counted at each, too many values.
    """
    sizes: dict[int, tuple[int, int]] = {}  # depth and number of values of the containers that are done
    open_: set[int] = set()
    todo = [tree]
    while todo:
        x = todo[-1]
        values = x.values() if type(x) is dict else x if type(x) in (list, tuple) else None
        if values is None:
            if type(x) not in leaf:
                raise ValueError(f"it holds {clipped(x)}, which is no data")
            todo.pop()
        elif id(x) in sizes:
            todo.pop()
        elif id(x) in open_:
            below = [sizes[id(v)] for v in values if type(v) in (dict, list, tuple) and id(v) in sizes]
            if sum(type(v) in (dict, list, tuple) for v in values) != len(below):
                raise ValueError("a container in it holds itself")
            sizes[id(x)] = 1 + max((d for d, _ in below), default=0), 1 + len(values) + sum(n for _, n in below)
            if sizes[id(x)][0] > _DEEPEST:
                raise ValueError(f"its containers are nested more than {_DEEPEST} deep")
            if sizes[id(x)][1] > _LARGEST:
                raise ValueError(f"it holds more than {_LARGEST:,} values")
            todo.pop()
        else:
            open_.add(id(x))
            todo += values


def clipped(x: Any) -> str:
    """Describe a value that came from a pickle, in a few characters that are safe to print."""
    if isinstance(x, (str, Exception)):
        text = str(x) if isinstance(x, str) else str(x)[:200]
    elif type(x) in (int, float, bool, type(None)):
        text = str(x) if type(x) is not int or abs(x) < 2**63 else "an integer of more than 64 bits"
    else:
        text = f"a value of type {type(x).__name__}"
    text = text[:100] + ("..." if len(text) > 100 else "")
    return text if text.isascii() and text.isprintable() else ascii(text)
