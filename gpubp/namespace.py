"""The differentiable twin of an Array API namespace, built from the rules."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

from . import boundary
from .array import Array, Tape, box, freeze, of_outputs, strip, users_line
from .boundary import is_inexact
from .device import is_array, namespace_by_name, raw_namespace
from .dtypes import is_half, rounded
from .rules import all_rules
from .rules.registry import (
    NOTHING,
    VALUE,
    Composite,
    Constant,
    Creation,
    Primitive,
    Query,
    Rule,
    Spec,
    Undifferentiable,
)

Function = Callable[..., Any]

_NO_KEYWORDS: dict[str, Any] = {}
_NOTHING_KEPT = (None, None, None)
#: Functions whose rules have Python floats in them, which NumPy and CuPy let promote bfloat16.
_WITH_FLOATS = frozenset({"log2", "log10", "_erf", "var", "std"})
_MAY_HOLD_ARRAYS = frozenset({Array, list, tuple})

#: What the twin has beyond the standard: the boundary's functions, which rules call.
_BEYOND: dict[str, Callable[[Any], Function]] = {
    "_take_at": lambda xp: lambda x, *, key: x[key] if type(key) in (int, slice) else boundary.take_at(xp, x, key),
    "_put": lambda xp: lambda x, value, *, key: boundary.put(xp, x, key, value),
    "_add_at": lambda xp: lambda x, value, *, key: boundary.add_at(xp, x, key, value),
    "_scatter": lambda xp: lambda value, *, shape, key: boundary.scatter(xp, shape, key, value),
    "_erf": lambda xp: lambda x: boundary.erf(xp, x),
    "_astype": lambda xp: xp.astype,
    "_to_device": lambda xp: boundary.to_device,
}


class Namespace(ModuleType):
    """A module whose functions differentiate, made from `raw`, the namespace of plain arrays."""

    def __init__(self, name: str, raw: Any, root: Tape | None = None, prefix: str = "") -> None:
        super().__init__(name, f"The differentiable twin of {raw.__name__}.")
        self.raw = raw
        self.library = name.removeprefix("gpubp.").partition(".")[0]
        self.root = Tape(self, level=0) if root is None else root
        self.prefix = prefix

    def __getattr__(self, name: str) -> Any:  # called once for each name, which then stays
        if name in ("linalg", "fft") and not self.prefix:
            value: Any = type(self)(f"{self.__name__}.{name}", getattr(self.raw, name), self.root, f"{name}.")
        elif (rule := self._rule(name)) is not None:
            value = self._build(name, rule)
        elif name == "__array_api_version__":
            value = self.raw.__array_api_version__
        elif name.startswith("__") or (callable(value := getattr(self.raw, name)) and not isinstance(value, type)):
            raise AttributeError(f"{self.__name__} has no function {name!r}: it is not in the Array API standard")
        setattr(self, name, value)
        return value

    def __dir__(self) -> list[str]:
        names = {n.removeprefix(self.prefix) for n in all_rules() if n.startswith(self.prefix)}
        return sorted(n for n in names if "." not in n and not n.startswith("_"))

    def _rule(self, name: str) -> Rule | None:
        rules = all_rules()
        own = rules.get(self.prefix + name)
        return rules.get(name) if own is None and self.prefix == "linalg." else own

    def _build(self, name: str, rule: Rule) -> Function:
        raw = _BEYOND[name](self.raw) if name in _BEYOND else getattr(self.raw, name)
        function = _BUILDERS[type(rule)](self.root.ns, rule, raw)  # linalg and fft are parts of one namespace
        function.__name__ = function.__qualname__ = name
        function.__module__ = self.__name__
        function.__doc__ = raw.__doc__
        function.__wrapped__ = raw  # type: ignore[attr-defined]  # where its signature is looked up
        return function

    def constant(self, data: Any) -> Any:
        """`data` as an `Array` that no transform differentiates; what is traced or no array is left as it is."""
        return box(data, self.root, None) if type(data) is not Array and is_array(data) else data


# -- calling with constants


def _constants(ns: Namespace, out: Any) -> Any:
    if type(out) is tuple or type(out) is list:
        return type(out)(map(ns.constant, out))
    if isinstance(out, tuple):
        return type(out)(*map(ns.constant, out))
    return ns.constant(out)


def _has_array(values: Any) -> bool:
    return any(type(v) is Array or (type(v) in (tuple, list) and _has_array(v)) for v in values)


def _constant(ns: Namespace, rule: Constant, raw: Function) -> Function:
    def function(*args: Any, **kwargs: Any) -> Any:
        if not _has_array(args) and not _has_array(kwargs.values()):
            return raw(*args, **kwargs)
        return _constants(ns, raw(*map(strip, args), **{k: strip(v) for k, v in kwargs.items()}))

    return function


def _query(ns: Namespace, rule: Query, raw: Function) -> Function:
    return lambda *args, **kwargs: raw(*map(strip, args), **kwargs)


def _creation(ns: Namespace, rule: Creation, raw: Function) -> Function:
    def function(*args: Any, **kwargs: Any) -> Any:
        if rule.body is not None and (_has_array(args) or _has_array(kwargs.values())):
            return rule.body(ns, *args, **kwargs)
        return _constants(ns, raw(*map(strip, args), **{k: strip(v) for k, v in kwargs.items()}))

    return function


def _composite(ns: Namespace, rule: Composite, raw: Function) -> Function:
    body = rule.body

    def function(*args: Any, **kwargs: Any) -> Any:
        if _has_array(args) or _has_array(kwargs.values()):
            return body(ns, *args, **kwargs)
        return raw(*args, **kwargs)

    return function


def _undifferentiable(ns: Namespace, rule: Undifferentiable, raw: Function) -> Function:
    def function(*args: Any, **kwargs: Any) -> Any:
        line = users_line()

        def refuse(xp: Any, g: Any, *_: Any, **__: Any) -> Any:
            raise NotImplementedError(
                f"{rule.name} has no derivative: {rule.why} (called at {line}); "
                "apply gpubp.stop_gradient to its argument if none is meant"
            )

        return _primitive(ns, Primitive(rule.name, joint=refuse), raw)(*args, **kwargs)

    return function


# -- primitives


def _primitive(ns: Namespace, rule: Primitive, raw: Function) -> Function:
    if rule.elementwise:
        return (_unary if len(rule.vjps) == 1 else _binary)(ns, rule, raw)
    if rule.variadic:
        general = _general(ns, rule, lambda *arrays, **kwargs: raw(list(arrays), **kwargs))
        return lambda arrays, /, **kwargs: general(*arrays, **kwargs)
    return _single(ns, rule, raw) if len(rule.vjps) == 1 else _general(ns, rule, raw)


def _unary(ns: Namespace, rule: Primitive, raw: Function) -> Function:
    vjps, root, (keep,) = rule.vjps, ns.root, rule.keeps
    assert keep is not None
    keep_out, keep_x = keep[0] == VALUE, keep[1] == VALUE
    promotes = rule.name in _WITH_FLOATS

    def function(x: Any, /) -> Any:
        if type(x) is not Array:
            return raw(x)
        a = x.data
        if x.node is None:
            return box(raw(a), root, None)
        out = function(a) if type(a) is Array else raw(a)
        records = x.tape.records
        result = Array()
        result.data, result.tape, result.node = out, x.tape, len(records)
        spec = None if out.dtype is a.dtype and not promotes else (Spec(a.shape, a.dtype),)
        saved = (out if keep_out else None, a if keep_x else None)
        records.append((vjps, (x.node,), saved, _NO_KEYWORDS, spec))
        return result

    return function


def _binary(ns: Namespace, rule: Primitive, raw: Function) -> Function:
    vjps, root = rule.vjps, ns.root
    # which of (out, x1, x2) to keep when only x1, only x2, or both are differentiated
    of_x1, of_x2 = [[keep is not None and keep[p] == VALUE for p in range(3)] for keep in rule.keeps]
    of_both = [u or v for u, v in zip(of_x1, of_x2, strict=True)]
    keeps_nothing = not any(of_both)
    x1_flat, x2_flat = (vjp is None for vjp in vjps)

    def function(x1: Any, x2: Any, /) -> Any:
        a, b, i, j = x1, x2, None, None
        if type(x1) is Array:
            tape, a, i = x1.tape, x1.data, x1.node
            if type(x2) is Array:
                b, j = x2.data, x2.node
                if (other := x2.tape) is not tape:  # the lower level is a constant to the higher one
                    if other.ns is not ns:
                        raise several_libraries(rule.name, tape.ns, other.ns)
                    if other.level > tape.level:
                        tape = other
                        if i is not None:
                            a, i = freeze(x1), None
                    elif j is not None:
                        b, j = freeze(x2), None
            elif type(x2) is not float:
                _same_library(ns, rule.name, x2)
        elif type(x2) is Array:
            tape, b, j = x2.tape, x2.data, x2.node
            if type(x1) is not float:
                _same_library(ns, rule.name, x1)
        else:
            return raw(x1, x2)

        out = function(a, b) if type(a) is Array or type(b) is Array else raw(a, b)
        specs: Any = None
        if type(b) is float:
            if out.dtype is not a.dtype and is_half(a.dtype):  # bfloat16 of NumPy and CuPy
                out, specs = rounded(ns.raw, out, a.dtype), (Spec(a.shape, a.dtype), None)
        elif type(a) is float and out.dtype is not b.dtype and is_half(b.dtype):
            out, specs = rounded(ns.raw, out, b.dtype), (None, Spec(b.shape, b.dtype))
        if x1_flat:
            i = None
        if x2_flat:
            j = None
        if i is None:
            if j is None:
                return out if type(out) is Array else box(out, root, None)
            keep_out, keep_a, keep_b = of_x2
            if type(a) is not float and (b.shape != out.shape or b.dtype is not out.dtype):
                specs = (None, Spec(b.shape, b.dtype))
        elif j is None:
            keep_out, keep_a, keep_b = of_x1
            if type(b) is not float and (a.shape != out.shape or a.dtype is not out.dtype):
                specs = (Spec(a.shape, a.dtype), None)
        else:
            keep_out, keep_a, keep_b = of_both
            if a.shape != b.shape or a.dtype is not b.dtype:
                specs = (Spec(a.shape, a.dtype), Spec(b.shape, b.dtype))
        records = tape.records
        result = Array()
        result.data, result.tape, result.node = out, tape, len(records)
        saved = (
            _NOTHING_KEPT
            if keeps_nothing
            else (out if keep_out else None, a if keep_a else None, b if keep_b else None)
        )
        records.append((vjps, (i, j), saved, _NO_KEYWORDS, specs))
        return result

    return function


def _single(ns: Namespace, rule: Primitive, raw: Function) -> Function:
    """One array and static arguments, by far the most frequent call; anything else goes the general way."""
    general, vjps, (keep,) = _general(ns, rule, raw), rule.vjps, rule.keeps
    assert keep is not None
    keep_out, keep_x, positional, broadcasts = keep[0], keep[1], rule.positional, rule.broadcasts
    promotes = rule.name in _WITH_FLOATS

    def function(*args: Any, **kwargs: Any) -> Any:
        x, *static = args or (None,)
        if type(x) is not Array or x.node is None or Array in map(type, static):
            return general(*args, **kwargs)
        for name, value in kwargs.items():
            if name in positional:
                return general(*args, **kwargs)
            if type(value) in _MAY_HOLD_ARRAYS:
                kwargs[name] = _static(rule, name, value)
        a = x.data
        out = function(a, *static, **kwargs) if type(a) is Array else raw(a, *static, **kwargs)
        if isinstance(out, tuple):
            return general(*args, **kwargs)
        if not is_inexact(out.dtype):
            return ns.constant(out)
        records = x.tape.records
        result = Array()
        result.data, result.tape, result.node = out, x.tape, len(records)
        same = out.dtype is a.dtype and not promotes and (not broadcasts or out.shape == a.shape)
        spec = None if same else (Spec(tuple(a.shape), a.dtype),)
        saved = (_keep(out, keep_out), _keep(a, keep_x), *[_keep(v, keep[k]) for k, v in enumerate(static, 2)])
        records.append((vjps, (x.node,), saved, kwargs, spec))
        return result

    return function


def _general(ns: Namespace, rule: Primitive, raw: Function) -> Function:
    vjps, joint = rule.vjps, rule.joint

    def function(*args: Any, **kwargs: Any) -> Any:
        if kwargs:
            args, kwargs = _positional(rule, args, kwargs)
        tape = ns.root
        traced = False
        for x in args:
            if type(x) is Array:
                traced = True
                if x.tape.level > tape.level:
                    tape = x.tape
        if not traced:
            return raw(*args, **kwargs)

        values: list[Any] = []
        parents: list[int | None] = []
        lower = False
        for x in args:
            parent = None
            if type(x) is Array:
                if x.tape is tape:
                    x, parent = x.data, x.node
                    lower = lower or type(x) is Array
                elif x.node is None:
                    x = x.data
                else:
                    if x.tape.ns is not ns and x.tape.ns is not tape.ns:
                        raise several_libraries(rule.name, tape.ns, x.tape.ns)
                    x, lower = freeze(x), True
            elif type(x) not in _NO_ARRAYS:
                _same_library(tape.ns, rule.name, x)
            values.append(x)
            parents.append(parent)
        out = function(*values, **kwargs) if lower else raw(*values, **kwargs)

        if joint is None:
            for k, parent in enumerate(parents):
                if parent is not None and (k >= len(vjps) or vjps[k] is None):
                    parents[k] = None
        outputs = out if isinstance(out, tuple | list) else (out,)
        if all(p is None for p in parents) or not any(is_inexact(o.dtype) for o in outputs):
            return _constants(ns, out)
        _record(tape, rule, parents, out, outputs, values, kwargs)
        if outputs is not out:
            return box(out, tape, len(tape.records) - 1)
        first = len(tape.records) - len(outputs)
        boxes = (box(o, tape, first + k) if is_inexact(o.dtype) else ns.constant(o) for k, o in enumerate(outputs))
        return type(out)(*boxes) if hasattr(out, "_fields") else type(out)(boxes)

    return function


def _positional(rule: Primitive, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Keyword arguments that rules know by position are moved there."""
    names = rule.positional
    if any(name in kwargs for name in names):
        last = max(k for k, name in enumerate(names) if name in kwargs)
        args = (*args, *(kwargs.get(name) for name in names[len(args) : last + 1]))
    return args, {k: _static(rule, k, v) for k, v in kwargs.items() if k not in names}


def _static(rule: Primitive, name: str, value: Any) -> Any:
    """The value of a keyword argument that no rule differentiates."""
    if type(value) is Array and value.node is not None and name not in rule.flat:
        raise TypeError(
            f"{rule.name} has no derivative with respect to {name}, which was given a traced array; "
            "apply gpubp.stop_gradient to it if none is meant"
        )
    return strip(value)


def _same_library(ns: Namespace, name: str, x: Any) -> None:
    """Refuse an array of another library: some would convert it silently, and its gradient be lost."""
    if NAMESPACES.get(type(x)) is ns or isinstance(x, int | float | complex) or not is_array(x):
        return
    if (other := twin_of(x)) is not ns:
        raise several_libraries(name, ns, other)


def several_libraries(name: str, *namespaces: Namespace) -> TypeError:
    """The error of mixing arrays that no operation takes together."""
    return TypeError(
        f"{name} was given arrays of several libraries: {' and '.join(ns.library for ns in namespaces)}; "
        "move them to one with gpubp.to_device"
    )


def _keep(value: Any, want: int) -> Any:
    if want == VALUE or value is None:
        return value
    if want == NOTHING:
        return None
    return Spec(tuple(value.shape), value.dtype) if hasattr(value, "dtype") else value


def _record(
    tape: Tape, rule: Primitive, parents: list[int | None], out: Any, outputs: Any, values: Any, kwargs: Any
) -> None:
    """Put on the tape what the backward pass of one call needs, and nothing else."""
    wants = rule.wants(tuple([p is not None for p in parents]))
    if outputs is out:
        kept_out: Any = tuple(_keep(o, wants[0]) for o in out)
    else:
        kept_out = _keep(out, wants[0])
    saved = (kept_out, *(_keep(v, w) for v, w in zip(values, wants[1:], strict=True)))
    dtype = outputs[0].dtype
    specs: Any = tuple(
        p is not None
        and (len(outputs) > 1 or v.dtype != dtype or (rule.broadcasts and v.shape != out.shape))
        and Spec(tuple(v.shape), v.dtype)
        for p, v in zip(parents, values, strict=True)
    )
    if not any(specs):
        specs = None
    if rule.joint is None and outputs is not out:
        tape.records.append((rule.vjps, tuple(parents), saved, kwargs, specs))
        return
    tape.records.extend([None] * (len(outputs) - 1))
    tape.records.append(Joint(rule, parents, saved, kwargs, specs, len(outputs) if outputs is out else 0))


class Joint:
    """The record of a call with several outputs, or whose cotangents are computed together.

    It stands at the node of the last output; the cotangents of the others, made by later operations, are
    complete by then. The rule is handed a tuple of cotangents, None where an output was not used.
    """

    __slots__ = ("kwargs", "outputs", "parents", "rule", "saved", "specs")

    def __init__(self, rule: Primitive, parents: Any, saved: Any, kwargs: Any, specs: Any, outputs: int) -> None:
        self.rule, self.parents, self.saved, self.kwargs = rule, parents, saved, kwargs
        self.specs, self.outputs = specs, outputs  # outputs is 0 for a function that returns no tuple

    def pull(self, xp: Any, g: Any, cotangents: list[Any], records: list[Any]) -> list[tuple[int, Any]]:
        if self.outputs:
            g = of_outputs(cotangents, self.outputs, g)
            if g is None:
                return []
        elif g is None:
            return []
        saved = _lifted(xp, self.saved) if isinstance(xp, Namespace) else self.saved
        if self.rule.joint is not None:
            found = self.rule.joint(xp, g, *saved, **self.kwargs)
        else:
            found = [
                vjp(xp, g, *saved, **self.kwargs) if p is not None and vjp is not None else None
                for p, vjp in zip(self.parents, self.rule.vjps, strict=False)
            ]
        specs = self.specs or (None,) * len(self.parents)
        return [
            (p, fit(xp, c, spec) if spec else c)
            for p, c, spec in zip(self.parents, found, specs, strict=False)
            if p is not None and c is not None
        ]


def _lifted(ns: Namespace, saved: Any) -> Any:
    return tuple(_lifted(ns, v) if type(v) is tuple else ns.constant(v) for v in saved)


def fit(xp: Any, g: Any, spec: Spec) -> Any:
    """A cotangent brought to the shape and dtype of the argument: broadcast axes are summed away."""
    if boundary.is_complex(g) and not boundary.is_complex(spec):
        g = xp.real(g)
    shape = tuple(g.shape)
    if shape != spec.shape:
        extra = len(shape) - len(spec.shape)
        if extra > 0:
            g = xp.sum(g, axis=tuple(range(extra)))
        ones = tuple(k for k, n in enumerate(spec.shape) if n == 1 and shape[k + extra] != 1)
        if ones:
            g = xp.sum(g, axis=ones, keepdims=True)
        if tuple(g.shape) != spec.shape:
            g = xp.broadcast_to(g, spec.shape)
    return g if g.dtype == spec.dtype else rounded(xp, g, spec.dtype)


_BUILDERS: dict[type, Callable[[Namespace, Any, Function], Function]] = {
    Primitive: _primitive,
    Composite: _composite,
    Constant: _constant,
    Undifferentiable: _undifferentiable,
    Creation: _creation,
    Query: _query,
}


# -- which twin

_BY_RAW: dict[str, Namespace] = {}
NAMESPACES: dict[type, Namespace] = {}  # of the array classes met so far


def twin(library: Any) -> Namespace:
    """The differentiable twin of a namespace, given by its module or by the library's name."""
    raw = namespace_by_name(library) if isinstance(library, str) else library
    found = _BY_RAW.get(raw.__name__)
    if found is None:
        name = raw.__name__.removeprefix("array_api_compat.").removeprefix("gpubp.testing.")
        found = _BY_RAW[raw.__name__] = Namespace(f"gpubp.{name.removesuffix('.numpy')}", raw)
    return found


def twin_of(x: Any) -> Namespace:
    """The differentiable twin of the library of a plain array."""
    found = NAMESPACES.get(type(x))
    if found is None:
        found = NAMESPACES[type(x)] = twin(raw_namespace(x))
    return found


_NO_ARRAYS = frozenset({bool, int, float, complex, type(None)})


def array_namespace(*arrays: Any) -> Any:
    """The namespace for these arrays: the differentiable twin if one is traced, else the library's own.

    Unlike the standard's helper this accepts a mixture of traced and plain arrays of one library, as arises
    when a function inside a transform uses an array from outside.

    Parameters
    ----------
    *arrays
        Arrays; Python scalars and None are passed over.

    Raises
    ------
    TypeError
        If there is no array among the arguments, or if they are of several libraries.
    """
    found: Namespace | None = None
    for x in arrays:
        if type(x) is Array:
            return x.tape.ns
        if type(x) in _NO_ARRAYS:
            continue
        ns = NAMESPACES.get(type(x)) or twin_of(x)
        if found is not None and ns is not found:
            raise several_libraries("array_namespace", found, ns)
        found = ns
    if found is None:
        raise TypeError(f"array_namespace was given no array: {', '.join(type(x).__name__ for x in arrays)}")
    return found.raw


def constant(x: Any) -> Any:
    """`x` as an array of the twin that no transform differentiates.

    For third-party code that refuses a mixture of traced and plain arrays: wrap the plain ones.
    """
    return x if type(x) is Array else twin_of(x).constant(x)
