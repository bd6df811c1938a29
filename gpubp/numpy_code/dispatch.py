"""Where NumPy, PyTorch and attribute access ask what to do with an `Array`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..array import Array, strip
from ..namespace import twin_of
from . import algebra, einsum, selection, shapes, statistics  # noqa: F401  (they fill the table)
from .registry import FUNCTIONS, call, namespace_of
from .ufuncs import UFUNCS

_IN_PLACE = {"copyto", "fill_diagonal", "place", "put", "put_along_axis", "putmask"}


def call_function(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """What a NumPy function does when it meets an `Array`."""
    name = f"{func.__module__}.{func.__name__}".removeprefix("numpy.")
    f = FUNCTIONS.get(name)
    if f is None:
        if name in _IN_PLACE:
            raise TypeError(f"numpy.{name} writes into an array, in which a traced value {_LOST}")
        raise TypeError(
            f"numpy.{name} is not among the NumPy functions gpubp differentiates (they are listed in docs/numpy.md); "
            "write it with functions of the array's namespace, or apply gpubp.stop_gradient first if none is meant"
        )
    return call(name, f, namespace_of(*args, *kwargs.values()), args, kwargs)


_LOST = "would lose its gradient; assign to items of a traced array, or use numpy.where, stack or broadcast_to"

# -- methods


def _reshape(xp: Any, x: Any, *shape: Any, order: str = "C") -> Any:
    return shapes._reshape(xp, x, shape[0] if len(shape) == 1 else shape, order)


def _transpose(xp: Any, x: Any, *axes: Any) -> Any:
    if len(axes) == 1 and (axes[0] is None or isinstance(axes[0], tuple | list)):
        (axes,) = axes
    return shapes._transpose(xp, x, axes or None)


_SAME = str.split(
    "all any argmax argmin argpartition argsort clip copy cumprod cumsum diagonal dot max mean min nonzero prod ravel "
    "repeat round searchsorted squeeze std sum swapaxes take trace var"
)

#: The methods of arrays, as functions ``f(xp, x, *args, **kwargs)``.
METHODS: dict[str, Callable[..., Any]] = {
    **{name: FUNCTIONS[name] for name in _SAME},
    "astype": lambda xp, x, dtype, order="K": FUNCTIONS["astype"](xp, x, dtype),
    "compress": lambda xp, x, condition, axis=None: selection._compress(xp, condition, x, axis),
    "conj": lambda xp, x: xp.conj(x),
    "conjugate": lambda xp, x: xp.conj(x),
    "flatten": FUNCTIONS["ravel"],
    "reshape": _reshape,
    "transpose": _transpose,
}
PROPERTIES: dict[str, Callable[[Array], Any]] = {
    "real": lambda x: FUNCTIONS["real"](x.tape.ns, x),
    "imag": lambda x: FUNCTIONS["imag"](x.tape.ns, x),
    "itemsize": lambda x: strip(x).itemsize,
    "nbytes": lambda x: x.size * strip(x).itemsize,
}
_METHODS_IN_PLACE = {"fill": "x[...] = value", "sort": "numpy.sort(x)", "partition": "numpy.partition(x, kth)",
                     "put": "x[i] = value", "resize": "numpy.reshape(x, shape)"}  # fmt: skip


def method(x: Array, name: str) -> Any:
    """The method or property `name` of an `Array`, one of those that NumPy and CuPy share."""
    if name.startswith("_"):
        raise AttributeError(name)
    if name in PROPERTIES:
        return PROPERTIES[name](x)
    f = METHODS.get(name)
    if f is None:
        advice = (
            f": it would change the array in place; write {_METHODS_IN_PLACE[name]}"
            if name in _METHODS_IN_PLACE
            else ""
        )
        raise AttributeError(f"a traced array has no attribute {name!r}{advice}")
    return lambda *args, **kwargs: call(name, f, namespace_of(x), (x, *args), kwargs)


# -- PyTorch

_REFLECTED = {
    "add": "radd", "sub": "rsub", "mul": "rmul", "div": "rtruediv", "true_divide": "rtruediv",
    "__floordiv__": "rfloordiv", "remainder": "rmod", "pow": "rpow", "matmul": "rmatmul",
    "__and__": "rand", "__or__": "ror", "__xor__": "rxor", "__lshift__": "rlshift", "__rshift__": "rrshift",
    "lt": "gt", "le": "ge", "gt": "lt", "ge": "le", "eq": "eq", "ne": "ne",
}  # fmt: skip


def call_torch_operator(func: Any, args: Any, kwargs: Any) -> Any:
    """An operator between a PyTorch tensor and an `Array`: the array's reflected operator."""
    name = func.__name__
    if name in _REFLECTED and not kwargs and len(args) == 2 and type(args[0]) is not Array:
        return getattr(args[1], f"__{_REFLECTED[name]}__")(args[0])
    if name == "__getitem__":
        return twin_of(args[0]).constant(args[0][strip(args[1])])
    if name == "__setitem__" or (name.endswith("_") and not name.startswith("_")):
        # no TypeError: after it Python would try the reflected operator
        raise RuntimeError(f"torch.Tensor.{name} writes into a tensor, in which a traced value {_LOST}")
    raise TypeError(
        f"torch.{name} was given a traced array; gpubp differentiates the functions of the Array API: use those of "
        "the array's namespace, or of gpubp.torch"
    )


def supported() -> dict[str, list[str]]:
    """What of NumPy works on traced arrays, by kind: ufuncs, functions, methods."""
    return {
        "ufuncs": sorted(ufunc.__name__ for ufunc in UFUNCS),
        "functions": sorted(name for name in FUNCTIONS if "." not in name),
        "linalg": sorted(name.removeprefix("linalg.") for name in FUNCTIONS if name.startswith("linalg.")),
        "fft": sorted(name.removeprefix("fft.") for name in FUNCTIONS if name.startswith("fft.")),
        "methods": sorted([*METHODS, *PROPERTIES]),
    }
