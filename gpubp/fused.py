"""Fast paths with a slow twin: hand-written backpropagation that its own definition keeps honest.

A fused function is written three times, with one meaning:

1. the *reference*, plain Array API code, which is its definition and is differentiated by the rules;
2. a *hand-written* forward and backward, in Array API code too, for arrays of any library;
3. *overrides* of these for one library, registered by `gpubp.kernels`.

The fastest that applies is taken at the forward and again at the backward pass. `gpubp.testing` checks that all
agree.

float16 and bfloat16 are for storage: what is given such arrays computes in float32 and rounds its results once. An
override may do that in its kernel; all else is handed float32 arrays by `in_float32`.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from functools import update_wrapper
from importlib import import_module
from importlib.util import find_spec
from inspect import signature
from typing import Any, Generic, NamedTuple, ParamSpec, TypeVar

from .array import Array, box, freeze, of_outputs, strip
from .boundary import is_inexact
from .device import is_array
from .dtypes import is_half, name_of, rounded, widened
from .namespace import array_namespace, fit, twin_of
from .rules.registry import Spec
from .transform import vjp_of
from .tree import leaves, leaves_against, map_leaves, rebuild

P = ParamSpec("P")
R = TypeVar("R")


class Implementation(NamedTuple):
    """A forward and its backward.

    ``forward(xp, needs, *args, **static)`` gives ``(out, residuals)``; ``needs`` says for each argument whether
    its gradient is wanted. ``backward(xp, needs, g, residuals, **static)`` gives the cotangents of the arguments,
    anything for those not needed. Either may return NotImplemented from its forward to decline a call.
    """

    forward: Callable[..., Any]
    backward: Callable[..., Any]


#: Every fused function by name, as `gpubp.kernels` and the op catalogue find them.
FUSED: dict[str, Fused[Any, Any]] = {}

_loaded: set[str] = set()


class Fused(Generic[P, R]):
    """A function with a reference, a hand-written backward pass and overrides; made by `fused`."""

    def __init__(
        self,
        reference: Callable[P, R],
        forward: Callable[..., Any],
        float32_args: Container[int] = (),
        float32_outs: Container[int] = (),
    ) -> None:
        update_wrapper(self, reference)
        self.name = self.__name__ = self.__qualname__ = forward.__name__
        self._optional = {
            name: position
            for position, (name, p) in enumerate(signature(reference).parameters.items())
            if p.kind is p.POSITIONAL_OR_KEYWORD and p.default is None
        }  # arrays that a user may also give by keyword
        self.reference = reference
        self.float32_args, self.float32_outs = float32_args, float32_outs
        self._forward = forward
        self.written: Implementation | None = None
        self.overrides: dict[str, Implementation] = {}
        self._chosen: dict[str, Implementation] = {}  # of every library met so far
        FUSED[self.name] = self

    def backward(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Register, as a decorator, the hand-written backward pass."""
        self.written = in_float32(self, Implementation(self._forward, function))
        return function

    def override(self, library: str, forward: Callable[..., Any], backward: Callable[..., Any]) -> None:
        """Replace both passes for the arrays of one library, named as in `gpubp.device.library`."""
        self.overrides[library] = Implementation(forward, backward)
        self._chosen.clear()

    def __call__(self, *args: P.args, **static: P.kwargs) -> R:
        if static and not self._optional.keys().isdisjoint(static):
            args, static = self._by_position(args, static)  # type: ignore[assignment]
        tape: Any = None
        constants: Any = None
        values: list[Any] = []
        parents: list[int | None] = []
        needed: list[bool] = []
        for x in args:
            if type(x) is not Array:
                values.append(x)
                parents.append(None)
                needed.append(False)
                continue
            data, node = x.data, x.node
            if node is None:
                constants = x.tape
            elif x.tape is not tape:
                if tape is not None:
                    return self.definition(*args, **static)  # two transforms are at work
                tape = x.tape
            if type(data) is Array:
                return self.definition(*args, **static)
            values.append(data)
            parents.append(node)
            needed.append(node is not None)
        if tape is None:
            return self._untraced(constants, values, static)  # type: ignore[no-any-return]

        ns = tape.ns
        needs = tuple(needed)
        used = self._chosen.get(ns.library) or self._choose(ns.library)
        try:
            result = used.forward(ns.raw, needs, *values, **static)
            if result is NotImplemented:
                used, result = self._decline(used, ns, needs, values, static)
        except AttributeError as error:
            self._explain(error, values)
            raise
        out, residuals = result
        if type(out) is Array:
            raise TypeError(f"{self.name} takes traced arrays by position, not by keyword")
        record = _Record()
        record.fused, record.used, record.ns, record.needs, record.parents = self, used, ns, needs, parents
        record.residuals, record.static = residuals, static
        record.args = values if tape.keep_arguments else None
        records = tape.records
        if type(out) is not tuple:
            record.outputs = 0
            records.append(record)
            return box(out, tape, len(records) - 1)  # type: ignore[return-value]
        first = len(records)
        records.extend([None] * (len(out) - 1))
        record.outputs = len(out)
        records.append(record)
        return tuple(box(o, tape, first + k) for k, o in enumerate(out))  # type: ignore[return-value]

    def _by_position(self, args: Any, static: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Move arrays given by keyword to their positions; None stands in for those left out before them."""
        placed = {position: static[name] for name, position in self._optional.items() if name in static}
        if len(args) < min(self._optional.values()):
            return args, static
        if min(placed) < len(args):
            raise TypeError(f"{self.name} got an array both by position and by keyword: {', '.join(static)}")
        args = (*args, *(placed.get(k) for k in range(len(args), max(placed) + 1)))
        return args, {name: value for name, value in static.items() if name not in self._optional}

    def _untraced(self, constants: Any, values: list[Any], static: dict[str, Any]) -> Any:
        array = next((x for x in values if is_array(x)), None)
        if array is None:
            raise self._no_array(values)
        ns = twin_of(array)
        needs = (False,) * len(values)
        used = self._chosen.get(ns.library) or self._choose(ns.library)
        try:
            result = used.forward(ns.raw, needs, *values, **static)
            if result is NotImplemented:
                _, result = self._decline(used, ns, needs, values, static)
        except AttributeError as error:
            self._explain(error, values)
            raise
        if type(result[0]) is Array:
            raise TypeError(f"{self.name} takes traced arrays by position, not by keyword")
        return result[0] if constants is None else map_leaves(ns.constant, result[0])

    def definition(self, *args: P.args, **static: P.kwargs) -> R:
        """The reference; in float32, where it is given arrays of 16 bits."""
        half = self.half_of(args)
        if half is None:
            return self.reference(*args, **static)
        xp = array_namespace(*args)
        return self.narrowed(xp, self.reference(*(widened(xp, x) for x in args), **static), half)  # type: ignore[no-any-return]

    def half_of(self, args: Any) -> Any:
        """The 16-bit dtype of the floating-point arrays among the arguments; None if some are of another."""
        half, mixed = None, False
        for k, x in enumerate(args):
            dtype = getattr(x, "dtype", None)
            if dtype is None:
                continue
            if is_half(dtype):
                mixed = mixed or (half is not None and dtype != half)
                half = dtype
            elif is_inexact(dtype):
                mixed = mixed or k not in self.float32_args or name_of(dtype) != "float32"
        return None if mixed else half

    def narrowed(self, xp: Any, out: Any, half: Any) -> Any:
        """What was computed in float32 in the dtypes that results have for arguments of 16 bits."""
        if type(out) is not tuple:
            return out if 0 in self.float32_outs else rounded(xp, out, half)
        return tuple(o if k in self.float32_outs else rounded(xp, o, half) for k, o in enumerate(out))

    def _decline(
        self, used: Implementation, ns: Any, needs: Any, values: Any, static: Any
    ) -> tuple[Implementation, Any]:
        """Another forward pass, where the override will not do: in float32 the override itself, or the hand-written."""
        if self.half_of(values) is not None:
            wide = in_float32(self, used)
            result = wide.forward(ns.raw, needs, *values, **static)
            if result is not NotImplemented:
                return wide, result
        assert self.written is not None
        return self.written, self.written.forward(ns.raw, needs, *values, **static)

    def _explain(self, error: AttributeError, values: list[Any]) -> None:
        """Raise a better error, if an argument that is no array was taken for one."""
        if not is_array(error.obj) and any(x is error.obj for x in values):
            raise self._no_array(values) from None

    def _no_array(self, values: list[Any]) -> TypeError:
        given = ", ".join(type(x).__name__ for x in values)
        return TypeError(f"{self.name} expects arrays, got {given or 'none by position'}")

    def __repr__(self) -> str:
        return f"<fused function {self.name}>"

    def __reduce__(self) -> str:
        """Pickle and copy a function as such, by its name: a net may hold it."""
        return self.name

    def _choose(self, library: str) -> Implementation:
        load_kernels(library)
        chosen = self.overrides.get(library, self.written)
        assert chosen is not None, f"fused function {self.name} has no backward"
        self._chosen[library] = chosen
        return chosen


def load_kernels(library: str) -> None:
    """Import the overrides for a library, when its arrays are first met."""
    if library in _loaded:
        return
    _loaded.add(library)
    name = f"{__package__}.kernels.{library}"
    if find_spec(f"{__package__}.kernels") is not None and find_spec(name) is not None:
        import_module(name)


class _Record:
    """The record of a fused call."""

    __slots__ = ("args", "fused", "needs", "ns", "outputs", "parents", "residuals", "static", "used")
    fused: Fused[Any, Any]
    used: Implementation
    ns: Any
    needs: tuple[bool, ...]
    parents: list[int | None]
    residuals: Any
    args: list[Any] | None  # kept only where a traced cotangent may come
    static: dict[str, Any]
    outputs: int  # how many, 0 for a function that returns no tuple

    def pull(self, xp: Any, g: Any, cotangents: list[Any], records: list[Any]) -> Iterable[tuple[int | None, Any]]:
        if self.outputs:
            g = of_outputs(cotangents, self.outputs, g)
            if g is None:
                return []
            traced = any(type(c) is Array and c.node is not None for c in g)
            if not traced:
                g = tuple(map(strip, g))
        elif g is None:
            return []
        elif traced := type(g) is Array:
            traced = g.node is not None
            if not traced:
                g = g.data
        if traced:  # the pullback is being differentiated: only the reference can follow
            found = self._of_reference(g)
        else:
            found = self.used.backward(self.ns.raw, self.needs, g, self.residuals, **self.static)
        return zip(self.parents, found, strict=False)  # (parent None: not differentiated, whatever was found)

    def _of_reference(self, g: Any) -> Any:
        if self.args is None:
            raise RuntimeError(
                f"the backward pass of {self.fused.name} met a traced cotangent it did not expect; "
                "a transform's values belong to the thread that runs it"
            )
        wanted = [k for k, needed in enumerate(self.needs) if needed]
        out, pullback = vjp_of(self.fused.definition, self.args, self.static, wanted)
        if self.outputs:
            g = tuple(self.ns.zeros_like(o) if c is None else c for c, o in zip(g, out, strict=True))
        found: list[Any] = [None] * len(self.needs)
        for k, c in zip(wanted, pullback(g), strict=True):
            found[k] = c
        return found


# -- 16 bits


class _Kept(NamedTuple):
    """The residuals of a call in float32, with the arguments among them as they were, and the arguments' dtypes."""

    residuals: Any
    dtypes: list[Any]


def in_float32(function: Fused[Any, Any], passes: Implementation) -> Implementation:
    """The same passes, which are handed float32 arrays in the place of 16-bit ones, and whose results are rounded."""

    def forward(xp: Any, needs: Any, /, *args: Any, **static: Any) -> Any:
        half = function.half_of(args)
        if half is None:
            return passes.forward(xp, needs, *args, **static)
        wide = [widened(xp, x) for x in args]
        result = passes.forward(xp, needs, *wide, **static)
        if result is NotImplemented:
            return result
        out, residuals = result
        own = {id(w): x for w, x in zip(wide, args, strict=True)}
        residuals = map_leaves(lambda r: own.get(id(r), r), residuals)
        return function.narrowed(xp, out, half), _Kept(residuals, [getattr(x, "dtype", None) for x in args])

    def backward(xp: Any, needs: Any, g: Any, kept: Any, /, **static: Any) -> Any:
        if type(kept) is not _Kept:
            return passes.backward(xp, needs, g, kept, **static)

        def wide(x: Any) -> Any:
            return widened(xp, x)

        found = passes.backward(xp, needs, map_leaves(wide, g), map_leaves(wide, kept.residuals), **static)
        return [
            rounded(xp, c, dtype) if c is not None and needed else None
            for c, dtype, needed in zip(found, kept.dtypes, needs, strict=False)
        ]

    return Implementation(forward, backward)


def fused(
    reference: Callable[P, R], *, float32_args: Container[int] = (), float32_outs: Container[int] = ()
) -> Callable[[Callable[..., Any]], Fused[P, R]]:
    """Give a function a hand-written forward and backward pass.

    Parameters
    ----------
    reference
        The definition, in Array API code: ``reference(*arrays, **static)``.
    float32_args
        Positions of arguments that may be of float32 beside others of 16 bits.
    float32_outs
        Positions of results (0 of a single one) that are of float32 where arguments are of 16 bits.

    Returns
    -------
    function
        A decorator for the hand-written ``forward(xp, needs, *arrays, **static) -> (out, residuals)``. What it
        returns is called like the reference, and takes ``@name.backward``.

    Examples
    --------
    >>> def cube_reference(x):
    ...     return x * x * x
    >>> @fused(cube_reference)
    ... def cube(xp, needs, x):
    ...     return x**3, x
    >>> @cube.backward
    ... def cube_backward(xp, needs, g, x):
    ...     return (3 * g * x * x,)
    """
    return lambda forward: Fused(reference, forward, float32_args, float32_outs)


# -- the user's own derivative


class CustomVJP(Generic[P, R]):
    """A function with a derivative of the user's own; made by `custom_vjp`."""

    def __init__(self, f: Callable[P, R]) -> None:
        update_wrapper(self, f)
        self.f = f
        self._forward: Callable[..., Any] | None = None
        self._backward: Callable[..., Any] | None = None

    def defvjp(self, forward: Callable[..., Any], backward: Callable[..., Any]) -> None:
        """Say how to differentiate.

        Parameters
        ----------
        forward
            ``forward(*args) -> (out, residuals)``.
        backward
            ``backward(residuals, cotangent)`` gives a tuple with a tree for each argument, None for none.
        """
        self._forward, self._backward = forward, backward

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        if kwargs:
            raise TypeError(f"{self.f.__name__} has a custom derivative and takes positional arguments only")
        inputs = leaves(args)
        tapes = [x.tape for x in inputs if type(x) is Array and x.node is not None]
        if not tapes:
            return self.f(*args)  # type: ignore[call-arg]
        if self._forward is None or self._backward is None:
            raise TypeError(f"{self.f.__name__} has no derivative yet: call {self.f.__name__}.defvjp first")
        tape = max(tapes, key=lambda t: t.level)

        def lower(x: Any) -> Any:
            if type(x) is not Array:
                return x
            return x.data if x.tape is tape or x.node is None else freeze(x)

        parents = [
            (x.node, Spec(tuple(x.shape), x.dtype)) if type(x) is Array and x.tape is tape else None for x in inputs
        ]
        out, residuals = self._forward(*map_leaves(lower, args))
        if any(type(x) is Array and x.node is not None and x.tape.level >= tape.level for x in leaves(out)):
            raise TypeError(
                f"{self.f.__name__} uses a traced value that is not its argument, so its custom derivative "
                "would miss it; pass it as an argument"
            )
        out = map_leaves(lower, out)
        outputs = leaves(out)
        first = len(tape.records)
        tape.records.extend([None] * (len(outputs) - 1))
        tape.records.append(_CustomRecord(self, residuals, args, parents, out, len(outputs)))
        boxes = [box(x, tape, first + k) if is_inexact(x.dtype) else tape.ns.constant(x) for k, x in enumerate(outputs)]
        return rebuild(out, boxes)  # type: ignore[no-any-return]


_PLACE = Array()  # stands for an array whose data is not kept


class _CustomRecord:
    def __init__(
        self, function: CustomVJP[Any, Any], residuals: Any, args: Any, parents: Any, out: Any, outputs: int
    ) -> None:
        assert function._backward is not None
        self.name, self.backward = function.f.__name__, function._backward
        self.residuals, self.parents = residuals, parents
        self.structure = map_leaves(lambda _: _PLACE, args)
        self.out, self.outputs = out, outputs

    def pull(self, xp: Any, g: Any, cotangents: list[Any], records: list[Any]) -> list[tuple[Any, Any]]:
        seeds = of_outputs(cotangents, self.outputs, g)
        if seeds is None:
            return []
        outputs = leaves(self.out)
        filled = [xp.zeros_like(x) if c is None else c for c, x in zip(seeds, outputs, strict=True)]
        found = self.backward(self.residuals, rebuild(self.out, filled))
        if not isinstance(found, tuple) or len(found) != len(self.structure):
            raise TypeError(f"a custom derivative must return a tuple of {len(self.structure)} cotangents")
        flat = leaves_against(self.structure, found, "custom derivative")
        pairs = []
        for parent, c in zip(self.parents, flat, strict=True):
            if parent is None or c is None:
                continue
            node, spec = parent
            if tuple(c.shape) != spec.shape:
                raise ValueError(
                    f"the custom derivative of {self.name} gave a cotangent of shape {tuple(c.shape)} for an argument "
                    f"of shape {spec.shape}"
                )
            pairs.append((node, fit(xp, c, spec)))
        return pairs


def custom_vjp(f: Callable[P, R]) -> CustomVJP[P, R]:
    """A function whose derivative is given by hand, with ``f.defvjp(forward, backward)``.

    The hand-written passes are Array API code and are differentiated in turn when transforms nest. Use `fused`
    where a reference exists to check them against.

    Examples
    --------
    >>> @custom_vjp
    ... def clipped(x):  # the identity, with its gradient kept within [-1, 1]
    ...     return x
    >>> clipped.defvjp(lambda x: (x, None), lambda _, g: (array_namespace(g).clip(g, -1, 1),))
    """
    return CustomVJP(f)
