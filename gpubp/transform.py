"""Transforms: functions of functions, by which code becomes derivatives.

Every transform runs the function once on `Array` values and sweeps its tape backwards. Transforms nest in any
order and depth. Calls in different threads do not disturb each other, but the values of one transform belong to
the thread that runs it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import wraps
from types import CellType, FunctionType
from typing import Any

from .array import FINISHED, Array, Tape, box, freeze, of_outputs, strip
from .boundary import is_complex, is_inexact, one_like, put
from .dtypes import is_half
from .namespace import NAMESPACES, fit, several_libraries, twin, twin_of
from .state import remembered
from .tree import Node, frozen_leaves, leaves, leaves_against, map_children, map_leaves, rebuild

Function = Callable[..., Any]


class _Thread(threading.local):
    open_transforms = 0


_thread = _Thread()


def in_transform() -> bool:
    """Whether this thread is inside a transform's function."""
    return _thread.open_transforms > 0


class Trace:
    """One run of a function on traced arguments: its tape, what went in, what came out.

    Parameters
    ----------
    f
        The function.
    args, kwargs
        Its arguments: pytrees of arrays of one library. All arrays are lifted, so that code in `f` finds one
        namespace; those outside `argnums` as constants.
    argnums
        Positions of the arguments to differentiate.
    keep_arguments
        Whether the backward pass may be given traced cotangents (see `gpubp.fused`).
    """

    def __init__(
        self, f: Function, args: Sequence[Any], kwargs: dict[str, Any], argnums: Sequence[int], keep: bool
    ) -> None:
        thread = _thread
        self.enclosed = enclosed = thread.open_transforms > 0
        self.tape = tape = Tape(None, keep_arguments=keep or enclosed)
        self.records = tape.records
        self.nodes: dict[int, int] = {}  # of the inputs, by identity: the user may assign to their items
        thread.open_transforms += 1
        try:
            lifted = list(args)
            for k in argnums:
                if type(args[k]) is float or type(args[k]) is complex:  # it becomes an array like the others
                    tape.ns = tape.ns or _namespace_among(args)
                lifted[k] = self._lift(args[k], {})
            self.lifted = [lifted[k] for k in argnums]
            if not self.nodes:
                raise TypeError(_nothing_to_differentiate([args[k] for k in argnums]))
            for k, arg in enumerate(args):
                if k not in argnums:
                    lifted[k] = map_leaves(self._lift_constant, arg)
            if kwargs:
                kwargs = {k: map_leaves(self._lift_constant, v) for k, v in kwargs.items()}
            tape.records.extend([None] * len(self.nodes))
            self.out = f(*lifted, **kwargs)
        finally:
            thread.open_transforms -= 1
            tape.records = FINISHED

    def _lift(self, tree: Any, shared: dict[int, Array]) -> Any:
        """A pytree with a traced value, a new input of the tape, in the place of every differentiable array.

        Layers are copied, never changed; an array that stands in several places of them is one input.
        """
        if isinstance(tree, Node):

            def lift_once(x: Any) -> Array:
                lifted = shared.get(id(x))
                if lifted is None:
                    lifted = shared[id(x)] = self._lift_array(x)
                return lifted

            lift_once.of_frozen = self._lift_frozen  # type: ignore[attr-defined]
            return map_leaves(lift_once, tree)
        if isinstance(tree, (dict, list, tuple)):
            return map_children(lambda x: self._lift(x, shared), tree)
        if type(tree) is float or type(tree) is complex:
            tree = _scalar(tree, self.tape.ns)
        return map_leaves(self._lift_array, tree)

    def _lift_frozen(self, x: Any) -> Array:
        return self._lift_array(x, frozen=True)

    def _lift_array(self, x: Any, frozen: bool = False) -> Array:
        tape, nodes = self.tape, self.nodes
        ns = x.tape.ns if type(x) is Array else NAMESPACES.get(type(x)) or twin_of(x)
        if ns is not tape.ns:
            if tape.ns is not None:
                raise several_libraries("one transform", tape.ns, ns)
            tape.ns = ns
        if type(x) is Array:
            if frozen:
                return x
            x = x.data if x.node is None else freeze(x)
        if frozen or not is_inexact(x.dtype):
            return box(x, ns.root, None)
        lifted = Array()
        lifted.data, lifted.tape, lifted.node = x, tape, len(nodes)
        nodes[id(lifted)] = len(nodes)
        return lifted

    def _lift_constant(self, x: Any) -> Any:
        if type(x) is Array:
            return x
        ns = self.tape.ns
        if NAMESPACES.get(type(x)) is not ns:
            if isinstance(x, int | float | complex):  # a NumPy scalar, welcome anywhere
                return x
            if (other := twin_of(x)) is not ns:
                raise several_libraries("one transform", ns, other)
        return box(x, ns.root, None)

    def lower(self, x: Any) -> Any:
        """A value as it is outside this transform."""
        if type(x) is not Array:
            return x
        if x.tape is self.tape or x.node is None:
            x = x.data
        else:
            len(x.tape.records)  # raises if the transform that made it has ended
        return freeze(x) if type(x) is Array else x

    def sweep(self, records: list[Any], cotangents: list[Any], traced: bool = False) -> list[Any]:
        """The backward pass, from the last record to the first; gives the cotangents of the inputs.

        Records are removed as they are done with, so that memory falls as the sweep goes.
        """
        ns = self.tape.ns
        nested = traced or self.enclosed
        xp = ns if nested else ns.raw
        inputs = len(self.nodes)
        while len(records) > inputs:
            record = records.pop()
            g = cotangents.pop()
            if type(record) is tuple:
                if g is None:
                    continue
                vjps, parents, saved, kwargs, specs = record
                if nested:  # a strict library's array on the left of an operator refuses an Array
                    saved = [ns.constant(v) for v in saved]
                found = []
                for k, parent in enumerate(parents):
                    if parent is not None:
                        c = vjps[k](xp, g, *saved, **kwargs)
                        found.append((parent, fit(xp, c, specs[k]) if specs is not None and specs[k] else c))
            elif record is not None:
                found = record.pull(xp, g, cotangents, records)
            else:
                continue
            for parent, c in found:
                if parent is None:
                    continue
                if nested:
                    c = ns.constant(c)
                known = cotangents[parent]
                cotangents[parent] = c if known is None else known + c
        return cotangents

    def gradients(self, cotangents: list[Any]) -> list[Any]:
        """The cotangents of the inputs, in the structure of the differentiated arguments."""

        def gradient(x: Array) -> Any:
            node = self.nodes.get(id(x))
            if node is None:
                return None  # an integer array, or a frozen one
            g = cotangents[node]
            if g is None:
                return self.tape.ns.raw.zeros_like(strip(x))
            if g.dtype is not (dtype := x.data.dtype) and is_half(dtype):  # rules may promote bfloat16
                g = self.tape.ns.astype(g, dtype)
            return g.data if type(g) is Array and g.node is None else g

        return [map_leaves(gradient, tree) for tree in self.lifted]


def _scalar(x: Any, ns: Any = None) -> Any:
    """A Python number as a 0-d array, float64 or complex128."""
    xp = twin("numpy").raw if ns is None else ns.raw
    # With NumPy a scalar, which like the number itself never changes in place.
    return xp.asarray(x, dtype=xp.complex128 if isinstance(x, complex) else xp.float64)[()]


def _namespace_among(args: Any) -> Any:
    x = next(iter(leaves(args)), None)
    return None if x is None else x.tape.ns if type(x) is Array else twin_of(x)


def _nothing_to_differentiate(trees: list[Any]) -> str:
    found = [f"{x.dtype} array of shape {tuple(x.shape)}" for x in leaves(trees)]
    given = ", ".join(found) if found else ", ".join(type(x).__name__ for x in trees)
    if not found and any(isinstance(x, Node) for x in trees):
        given += " without arrays (a net has them once it is given a seed, as in seed=0)"
    if frozen_leaves(trees):
        given += ", frozen ones among them"
    return f"nothing to differentiate: expected at least one real or complex floating array, got {given}"


def _check_call(f: Any, argnums: Any) -> None:
    if not callable(f):
        raise TypeError(f"expected a function to differentiate, got {type(f).__name__}")
    if type(argnums) is not int and not (isinstance(argnums, tuple | list) and all(type(k) is int for k in argnums)):
        raise TypeError(
            f"argnums is the position of an argument or a tuple of them, got {type(argnums).__name__}; "
            "a transform gives a function, which is then called: grad(f)(x)"
        )


def _argnums(argnums: int | Sequence[int], args: Sequence[Any], f: Function) -> tuple[int, ...]:
    if argnums == 0 and args:
        return (0,)
    numbers = (argnums,) if isinstance(argnums, int) else tuple(argnums)
    if any(k >= len(args) or k < -len(args) for k in numbers):
        raise TypeError(f"argnums={argnums} but {_name(f)} was called with {len(args)} positional arguments")
    return tuple(k % len(args) for k in numbers)


def _name(f: Function) -> str:
    return getattr(f, "__name__", type(f).__name__)


# -- reverse mode


def value_and_grad(f: Function, argnums: int | Sequence[int] = 0, has_aux: bool = False) -> Function:
    """A function that computes ``f(*args)`` and its gradient.

    Parameters
    ----------
    f
        Function of pytrees of arrays that returns a real scalar (a 0-d array), or ``(scalar, aux)``.
    argnums
        Which positional arguments to differentiate; a tuple makes the gradient a tuple.
    has_aux
        Whether `f` returns a pair whose second part is passed through undifferentiated.

    Returns
    -------
    function
        ``(value, gradient)``, or ``((value, aux), gradient)``. The gradient has the structure of the argument
        (a net's gradient is a tree like the net), with plain arrays; None stands for integer arrays and frozen
        parameters.

    Raises
    ------
    TypeError
        If there is no floating-point array to differentiate, or the value is not a real scalar.

    Examples
    --------
    >>> bp.value_and_grad(lambda x: np.sum(x**2))(np.array([1.0, 2.0]))
    (np.float64(5.0), array([2., 4.]))
    """
    _check_call(f, argnums)

    @wraps(f, updated=())
    def differentiated(*args: Any, **kwargs: Any) -> Any:
        trace = Trace(f, args, kwargs, _argnums(argnums, args, f), keep=False)
        value, aux = _pair(trace.out, f) if has_aux else (trace.out, None)
        _check_scalar(value, f)
        cotangents: list[Any] = [None] * len(trace.records)
        if type(value) is Array and value.tape is trace.tape:
            one = value.data
            cotangents[value.node] = trace.tape.ns.ones_like(one) if type(one) is Array else one_like(one)  # type: ignore[index]
        value = trace.lower(value)
        trace.out = None  # the sweep frees what nobody else holds
        (*gradient,) = trace.gradients(trace.sweep(trace.records, cotangents))
        gradient = gradient[0] if isinstance(argnums, int) else tuple(gradient)  # type: ignore[assignment]
        return ((value, map_leaves(trace.lower, aux)), gradient) if has_aux else (value, gradient)

    return differentiated


def grad(f: Function, argnums: int | Sequence[int] = 0, has_aux: bool = False) -> Function:
    """A function that computes the gradient of `f`; see `value_and_grad`.

    Returns
    -------
    function
        The gradient, or ``(gradient, aux)``.

    Examples
    --------
    >>> bp.grad(lambda x: np.sum(x**2))(np.array([1.0, 2.0]))
    array([2., 4.])
    """
    both = value_and_grad(f, argnums, has_aux)

    @wraps(f, updated=())
    def gradient(*args: Any, **kwargs: Any) -> Any:
        value, found = both(*args, **kwargs)
        return (found, value[1]) if has_aux else found

    return gradient


def vjp(f: Function, *args: Any, has_aux: bool = False) -> Any:
    """The value of `f` and its pullback, the vector-Jacobian product.

    Parameters
    ----------
    f
        Function of pytrees of arrays, with a pytree of arrays as its result.
    *args
        Where it is evaluated. All are differentiated.
    has_aux
        Whether `f` returns a pair whose second part is passed through undifferentiated.

    Returns
    -------
    value, pullback[, aux]
        ``pullback(cotangent)`` takes a tree like the value and gives a tuple of trees, one for each argument.
        It may be called any number of times.

    Examples
    --------
    >>> value, pullback = bp.vjp(np.square, np.array([1.0, 2.0]))
    >>> pullback(np.array([1.0, 0.0]))
    (array([2., 0.]),)
    """
    return vjp_of(f, args, {}, range(len(args)), has_aux)


def vjp_of(f: Function, args: Any, kwargs: dict[str, Any], argnums: Sequence[int], has_aux: bool = False) -> Any:
    """`vjp` with keyword arguments and a choice of arguments, the others being constants."""
    trace = Trace(f, args, kwargs, argnums, keep=True)
    out, aux = _pair(trace.out, f) if has_aux else (trace.out, None)
    out = _frozen(out)
    outputs = leaves(out)
    value = map_leaves(trace.lower, out)
    ns = trace.tape.ns

    def pullback(cotangent: Any) -> tuple[Any, ...]:
        seeds = leaves_against(out, map_scalars(cotangent, ns), "cotangent")
        traced = any(type(g) is Array for g in seeds)
        cotangents: list[Any] = [None] * len(trace.records)
        for x, g in zip(outputs, seeds, strict=True):
            if g is None:
                continue
            if tuple(g.shape) != tuple(x.shape):
                raise ValueError(f"a cotangent of shape {tuple(g.shape)} for a value of shape {tuple(x.shape)}")
            if type(x) is Array and x.tape is trace.tape:
                if is_complex(g) and not is_complex(x):
                    raise TypeError(f"a cotangent of {g.dtype} for a value of {x.dtype}")
                if g.dtype != x.dtype:
                    g = ns.astype(g, x.dtype)
                if traced or trace.enclosed:
                    g = ns.constant(g)
                known = cotangents[x.node]  # type: ignore[index]
                cotangents[x.node] = g if known is None else known + g  # type: ignore[index]
        return tuple(trace.gradients(trace.sweep(trace.records[:], cotangents, traced)))

    return (value, pullback, map_leaves(trace.lower, aux)) if has_aux else (value, pullback)


def map_scalars(tree: Any, ns: Any = None) -> Any:
    """The same tree with 0-d arrays in the place of Python's floating-point numbers; layers are left alone."""
    if isinstance(tree, (dict, list, tuple)):
        return map_children(lambda child: map_scalars(child, ns), tree)
    return _scalar(tree, ns) if type(tree) is float or type(tree) is complex else tree


def _pair(out: Any, f: Function) -> Any:
    if not isinstance(out, tuple) or len(out) != 2:
        raise TypeError(f"has_aux=True expects {_name(f)} to return a pair (value, aux), got {type(out).__name__}")
    return out


def _check_scalar(value: Any, f: Function) -> None:
    if type(value) is Array:
        value = value.data
    shape = getattr(value, "shape", None)
    if shape == () and is_inexact(value.dtype) and not is_complex(value):
        return
    if shape is not None:
        raise TypeError(
            f"grad expects {_name(f)} to return a real floating scalar, got {value.dtype} of shape "
            f"{tuple(shape)}; reduce it (sum, mean), or use gpubp.vjp or gpubp.jacobian"
        )
    if not isinstance(value, (int, float)):
        raise TypeError(f"grad expects {_name(f)} to return a scalar array, got {type(value).__name__}")


# -- built from the pullback


def jvp(f: Function, primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[Any, Any]:
    """The value of `f` and its directional derivative, the Jacobian-vector product.

    Computed as the derivative of the pullback, which is linear in its cotangent: about the cost of two
    backward passes.

    Parameters
    ----------
    f
        Function of pytrees of arrays.
    primals, tangents
        Its arguments and the direction, two sequences of the same structure. None in the direction is no change;
        of an array that stands in several places of a layer tree the first tangent counts.

    Returns
    -------
    value, tangent

    Raises
    ------
    TypeError, ValueError
        If the direction has another structure than the arguments, or an array of another shape.

    Examples
    --------
    >>> bp.jvp(np.square, (np.array([1.0, 2.0]),), (np.array([1.0, 0.0]),))
    (array([1., 4.]), array([2., 0.]))
    """
    primals, tangents = _direction("jvp", primals, tangents)
    value, pullback, tangents = _vjp_and_direction(f, primals, tangents)
    zeros = map_leaves(lambda x: _namespace(x).zeros_like(x), value)
    _, pushforward = vjp(pullback, zeros)
    (tangent,) = pushforward(tangents)
    return value, tangent


def _direction(name: str, primals: Any, tangents: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Arguments and tangents, which must fit each other."""
    for what, given in (("primals", primals), ("tangents", tangents)):
        if not isinstance(given, tuple | list):
            raise TypeError(f"{name} expects a tuple of {what}, one for each argument, got {type(given).__name__}")
    if len(primals) != len(tangents):
        raise TypeError(f"{name} was given {len(primals)} primals and {len(tangents)} tangents")
    primals, tangents = map_scalars(tuple(primals)), map_scalars(tuple(tangents))
    for x, v in zip(leaves(primals), leaves_against(primals, tangents, "direction"), strict=True):
        if v is not None and tuple(v.shape) != tuple(x.shape):
            raise ValueError(f"{name} was given a tangent of shape {tuple(v.shape)} for a primal of {tuple(x.shape)}")
    return primals, tangents


def _vjp_and_direction(f: Function, primals: Any, tangents: Any) -> tuple[Any, Function, Any]:
    """`vjp`, and the tangents with None where an array stands again in a layer tree: it is one input."""
    inputs: list[Any] = []

    def watched(*args: Any) -> Any:
        inputs.extend(leaves(args))
        return f(*args)

    value, pullback = vjp(watched, *primals)
    first: dict[int, int] = {}
    flat = enumerate(leaves_against(primals, tangents, "direction"))
    distinct = [v if first.setdefault(id(inputs[k]), k) == k else None for k, v in flat]
    return value, pullback, rebuild(primals, distinct)


def _namespace(x: Any) -> Any:
    return x.tape.ns if type(x) is Array else twin_of(x).raw


def jacobian(f: Function, argnums: int | Sequence[int] = 0) -> Function:
    """A function that computes the Jacobian of `f`, one backward sweep for each element of the value.

    Returns
    -------
    function
        For an array-valued function of one array, an array of shape ``value.shape + argument.shape``. For
        trees, a tree like the value whose leaves are trees like the argument.

    Raises
    ------
    TypeError
        For complex values, whose Jacobian is no single complex matrix; use `vjp`.

    Examples
    --------
    >>> bp.jacobian(np.square)(np.array([1.0, 2.0]))
    array([[2., 0.],
           [0., 4.]])
    """
    _check_call(f, argnums)

    @wraps(f, updated=())
    def differentiated(*args: Any, **kwargs: Any) -> Any:
        numbers = _argnums(argnums, args, f)
        args = map_scalars(args)
        chosen = tuple(args[k] for k in numbers)
        value, pullback = vjp_of(f, args, kwargs, numbers)
        outputs = leaves(value)
        if not outputs:
            raise TypeError(f"jacobian expects {_name(f)} to return arrays, got {type(value).__name__}")
        zeros = [_namespace(x).zeros_like(x) for x in outputs]

        def rows(k: int) -> Any:
            out, xp = outputs[k], _namespace(outputs[k])
            if is_complex(out):
                raise TypeError("jacobian of a complex value; use gpubp.vjp")
            flat = xp.reshape(zeros[k], (-1,))
            found = []
            for i in range(flat.shape[0]):
                seed = xp.reshape(put(xp, flat, (i,), 1.0), out.shape)
                found.append(pullback(rebuild(value, [*zeros[:k], seed, *zeros[k + 1 :]])))
            columns = iter(zip(*map(leaves, found), strict=True))

            def block(x: Any) -> Any:
                if not is_inexact(x.dtype):
                    return None
                shape = (*out.shape, *x.shape)
                if not found:
                    return xp.zeros(shape, dtype=x.dtype, device=x.device)
                return xp.reshape(xp.stack(next(columns)), shape)

            tree = map_leaves(block, chosen)
            return tree[0] if isinstance(argnums, int) else tree

        return rows(0) if value is outputs[0] else rebuild(value, map(rows, range(len(outputs))))

    return differentiated


def hessian(f: Function, argnums: int | Sequence[int] = 0) -> Function:
    """A function that computes the matrix of second derivatives of a scalar `f`; see `jacobian`.

    Examples
    --------
    >>> bp.hessian(lambda x: x[0] * x[1] ** 2)(np.array([1.0, 2.0]))
    array([[0., 4.],
           [4., 2.]])
    """
    return jacobian(grad(f, argnums), argnums)


def hvp(f: Function, primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[Any, ...]:
    """The Hessian of a scalar `f` times a vector, without the Hessian: two nested backward passes.

    Parameters
    ----------
    f
        Function of pytrees of arrays that returns a real scalar.
    primals, tangents
        Its arguments and the direction, two sequences of the same structure. None in the direction is no change;
        of an array that stands in several places of a layer tree the first tangent counts.

    Returns
    -------
    tuple
        One tree for each argument.

    Examples
    --------
    >>> bp.hvp(lambda x: np.sum(x**3), (np.array([1.0, 2.0]),), (np.array([1.0, 0.0]),))
    (array([6., 0.]),)
    """
    primals, tangents = _direction("hvp", primals, tangents)
    _, pullback, tangents = _vjp_and_direction(grad(f, tuple(range(len(primals)))), primals, tangents)
    return pullback(tangents)  # type: ignore[no-any-return]  # a Hessian is its own transpose


def stop_gradient(tree: Any) -> Any:
    """The same values as constants of every enclosing transform.

    Examples
    --------
    >>> bp.grad(lambda x: np.sum(x * bp.stop_gradient(x)))(np.array([1.0, 2.0]))
    array([1., 2.])
    """
    return map_leaves(lambda x: box(strip(x), x.tape.ns.root, None) if type(x) is Array else x, tree)


# -- recomputation


class _Forgotten:
    """A record inside a checkpoint: it exists only while the checkpoint is recomputed."""

    def pull(self, xp: Any, g: Any, cotangents: list[Any], records: list[Any]) -> tuple[()]:
        if g is not None:
            raise RuntimeError("a value computed inside gpubp.checkpoint was used outside; return it instead")
        return ()


_FORGOTTEN = _Forgotten()


class _Checkpoint:
    """The record of a call whose intermediate values were not kept: the sweep runs it again.

    When the sweep comes here, the tape above has been used up; running the function again puts its records
    back on the tape, and the sweep goes on with them.
    """

    def __init__(self, tape: Tape, f: Function, args: Any, kwargs: Any, reads: list[Any], outputs: int) -> None:
        self.tape, self.f, self.args, self.kwargs, self.reads, self.outputs = tape, f, args, kwargs, reads, outputs

    def pull(self, xp: Any, g: Any, cotangents: list[Any], records: list[Any]) -> tuple[()]:
        seeds = of_outputs(cotangents, self.outputs, g)
        if seeds is None:
            return ()
        start = len(records)
        self.tape.records = records
        _thread.open_transforms += 1
        try:
            f, args, kwargs = _snapshot(self.f, self.args, self.kwargs)  # f may assign to items
            with remembered(self.reads):
                out = f(*args, **kwargs)
        finally:
            _thread.open_transforms -= 1
            self.tape.records = FINISHED
        cotangents.extend([None] * (len(records) - start))
        for x, c in zip(_made_since(out, self.tape, start), seeds, strict=True):
            known = cotangents[x.node]  # type: ignore[index]
            if c is not None:
                cotangents[x.node] = c if known is None else known + c  # type: ignore[index]
        return ()


def _frozen(tree: Any) -> Any:
    return map_leaves(lambda x: freeze(x) if type(x) is Array else x, tree)


def _snapshot(f: Any, args: Any, kwargs: Any) -> tuple[Any, Any, Any]:
    """A function and its arguments as they are now, whatever is assigned to their variables or items later."""
    f, args, kwargs = _frozen((f, args, kwargs))
    if isinstance(f, FunctionType) and f.__closure__:
        cells = tuple(map(_copy_of_cell, f.__closure__))
        keywords = f.__kwdefaults__
        f = FunctionType(f.__code__, f.__globals__, f.__name__, f.__defaults__, cells)
        f.__kwdefaults__ = keywords
    return f, args, kwargs


def _copy_of_cell(cell: CellType) -> CellType:
    try:
        return CellType(_frozen(cell.cell_contents))
    except ValueError:  # the variable has no value yet
        return cell


def _made_since(out: Any, tape: Tape, start: int) -> list[Array]:
    return [x for x in leaves(out) if type(x) is Array and x.tape is tape and x.node >= start]  # type: ignore[operator]


def checkpoint(f: Function) -> Function:
    """`f`, whose intermediate values are not kept for the backward pass but computed again in it.

    Memory falls from all values inside `f` to its arguments, for the price of a second forward pass. `f` must
    give the same values when called again, as cells (`gpubp.nn.State`) do; it may use traced values that are not its
    arguments. Variables that it captures are remembered as they are at the call, so a function made in a loop may use
    the loop's variables.

    Raises
    ------
    RuntimeError
        In the backward pass, if a value computed in `f` got out other than by being returned.
    """

    @wraps(f, updated=())
    def checkpointed(*args: Any, **kwargs: Any) -> Any:
        tapes = [x.tape for x in leaves((f, args, kwargs)) if type(x) is Array and x.node is not None]
        if not tapes:
            return f(*args, **kwargs)
        tape = max(tapes, key=lambda t: t.level)
        start = len(tape.records)
        before = _snapshot(f, args, kwargs)
        with remembered() as reads:
            out = f(*args, **kwargs)
        made = _made_since(out, tape, start)
        if any(type(x) is Array and x.tape.level > tape.level for x in leaves(out)):
            return out  # f uses values of a later transform, whose records hold values of this one
        records = tape.records
        records[start:] = [_FORGOTTEN] * (len(records) - start)
        if not made:
            return out
        first = len(records)
        records.extend([None] * (len(made) - 1))
        records.append(_Checkpoint(tape, *before, reads, outputs=len(made)))
        nodes = iter(range(first, len(records)))

        def renumber(x: Any) -> Any:
            if type(x) is Array and x.tape is tape and x.node >= start:  # type: ignore[operator]
                return box(x.data, tape, next(nodes))
            return x

        return map_leaves(renumber, out)

    return checkpointed
