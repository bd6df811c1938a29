"""How a derivative is written down: the registry that every chapter of rules fills.

A rule is a flat function ``vjp(xp, g, out, *args, **kwargs)`` that turns the cotangent ``g`` of a function's
result ``out`` into the cotangent of one of its arguments. It is called with the very arguments of the forward
call, so its own signature names what it reads, and *what it does not name is not kept in memory*:

- a plain name (``x``, ``out``) is handed the value;
- a name with a leading underscore (``_x``) is handed a `Spec`: shape and dtype only;
- underscores alone (``_``, ``__``, ``*_``) are handed ``None``.

In elementwise rules, which never need a shape (the engine sums broadcast axes away itself), every underscored
name is handed ``None``.

Rules use nothing but functions of the namespace ``xp`` they are handed, operators, and `gpubp.boundary`: with the
differentiable twin as ``xp`` they are themselves differentiable, and derivatives of any order come by nesting.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

VJP = Callable[..., Any]


class Spec(NamedTuple):
    """What is kept of an array whose values a rule does not read."""

    shape: tuple[int, ...]
    dtype: Any

    @property
    def ndim(self) -> int:
        return len(self.shape)


#: What a rule wants of a value: nothing, its `Spec`, or the value itself.
NOTHING, SPEC, VALUE = 0, 1, 2


class Keep:
    """Which of ``out, *args`` a rule reads, found in its signature."""

    def __init__(self, vjp: VJP, values_or_nothing: bool) -> None:
        self.positions: list[int] = []
        self.rest = NOTHING  # what a variadic tail wants
        for p in list(inspect.signature(vjp).parameters.values())[2:]:
            want = VALUE if not p.name.startswith("_") else NOTHING
            if want == NOTHING and p.name.strip("_") and not values_or_nothing:
                want = SPEC
            if p.kind is p.VAR_POSITIONAL:
                self.rest = want
            elif p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD):
                self.positions.append(want)

    def __getitem__(self, position: int) -> int:
        return self.positions[position] if position < len(self.positions) else self.rest


@dataclass(frozen=True)
class Primitive:
    """A function with a derivative: one rule for each differentiable argument, or one rule for all of them.

    Attributes
    ----------
    vjps
        Rule of each leading positional argument; an argument beyond them (or with None) is a constant.
    joint
        Instead of `vjps`: one rule that returns the cotangents of all positional arguments.
    elementwise
        A function of one or two arrays and nothing else, called often: the engine has a fast path for it.
    broadcasts
        Arguments broadcast against each other; the engine sums cotangents back to their shapes.
    variadic
        The forward function takes one sequence of arrays; rules see them as positional arguments.
    positional
        Names of parameters that may be passed by keyword in the forward call, in positional order.
    flat
        Names of keyword parameters that may be arrays and on which the result depends in steps only.
    """

    name: str
    vjps: tuple[VJP | None, ...] = ()
    joint: VJP | None = None
    elementwise: bool = False
    broadcasts: bool = False
    variadic: bool = False
    positional: tuple[str, ...] = ()
    flat: tuple[str, ...] = ()

    @cached_property
    def keeps(self) -> tuple[Keep | None, ...]:
        """What each rule reads."""
        rules = (self.joint,) if self.joint else self.vjps
        return tuple(Keep(rule, self.elementwise) if rule else None for rule in rules)

    @cached_property
    def _wants(self) -> dict[tuple[bool, ...], list[int]]:
        return {}

    def wants(self, needs: tuple[bool, ...]) -> list[int]:
        """What of ``out, *args`` to keep for the rules of the arguments that are differentiated."""
        found = self._wants.get(needs)
        if found is None:
            used = (
                self.keeps if self.joint else [keep for keep, needed in zip(self.keeps, needs, strict=False) if needed]
            )
            found = [max(keep[k] for keep in used if keep is not None) for k in range(1 + len(needs))]
            self._wants[needs] = found
        return found


@dataclass(frozen=True)
class Composite:
    """A function defined through other functions of the namespace: ``body(xp, *args, **kwargs)``."""

    name: str
    body: Callable[..., Any]


@dataclass(frozen=True)
class Constant:
    """A function whose derivative is zero wherever it exists (comparisons, rounding, indices, predicates)."""

    name: str


@dataclass(frozen=True)
class Undifferentiable:
    """A function that has values but no derivative we know: asking for one is an error that says `why`."""

    name: str
    why: str


@dataclass(frozen=True)
class Creation:
    """A function that makes arrays; the twin's result is a constant `Array`.

    `body`, where there is one, is the definition ``body(xp, *args, **kwargs)`` for traced arguments.
    """

    name: str
    body: Callable[..., Any] | None = None


@dataclass(frozen=True)
class Query:
    """A function about arrays that returns no array (dtypes, shapes, limits)."""

    name: str


Rule = Primitive | Composite | Constant | Undifferentiable | Creation | Query

#: Every function of the twin by its name in the standard (``"exp"``, ``"linalg.inv"``, ``"fft.fft"``).
RULES: dict[str, Rule] = {}


def _add(rule: Rule) -> None:
    if rule.name in RULES:
        raise ValueError(f"{rule.name!r} has a rule already")
    RULES[rule.name] = rule


def elementwise(name: str, *vjps: VJP | None) -> None:
    """Register the rules of an elementwise function, one for each argument."""
    _add(Primitive(name, vjps, elementwise=True, broadcasts=True))


def primitive(
    name: str, *vjps: VJP | None, positional: Sequence[str] = (), flat: Sequence[str] = (), broadcasts: bool = False
) -> None:
    """Register the rules of any other function, one for each differentiable argument."""
    _add(Primitive(name, vjps, positional=tuple(positional), flat=tuple(flat), broadcasts=broadcasts))


def joint(name: str, *, variadic: bool = False, broadcasts: bool = False) -> Callable[[VJP], VJP]:
    """Register, as a decorator, one rule that returns the cotangents of all arguments."""

    def register(vjp: VJP) -> VJP:
        _add(Primitive(name, joint=vjp, variadic=variadic, broadcasts=broadcasts))
        return vjp

    return register


def composite(*names: str) -> Callable[[VJP], VJP]:
    """Register, as a decorator, a definition in terms of other functions of the namespace."""

    def register(body: VJP) -> VJP:
        for name in names:
            _add(Composite(name, body))
        return body

    return register


def constant(*names: str) -> None:
    """Register functions whose derivative is zero."""
    for name in names:
        _add(Constant(name))


def undifferentiable(why: str, *names: str) -> None:
    """Register functions that have no derivative; asking for one raises an error that says why."""
    for name in names:
        _add(Undifferentiable(name, why))


def creation(*names: str, body: Callable[..., Any] | None = None) -> None:
    """Register functions that create arrays; `body` is called when an argument is traced."""
    for name in names:
        _add(Creation(name, body))


def query(*names: str) -> None:
    """Register functions about arrays that return none."""
    for name in names:
        _add(Query(name))
