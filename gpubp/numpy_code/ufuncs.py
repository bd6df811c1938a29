"""NumPy's ufuncs: calls, reductions, accumulations, outer products."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..boundary import conj, is_complex, is_inexact
from .registry import ADVICE, Function, array, flat, namespace_of, native, normal_axis, part

LN2, DEGREE = math.log(2), math.pi / 180


def _standard(name: str) -> Function:
    return lambda xp, *args: getattr(xp, name)(*args)


def _fmax(xp: Any, x: Any, y: Any) -> Any:
    return xp.where(xp.isnan(x), y, xp.where(xp.isnan(y), x, xp.maximum(x, y)))


def _fmin(xp: Any, x: Any, y: Any) -> Any:
    return xp.where(xp.isnan(x), y, xp.where(xp.isnan(y), x, xp.minimum(x, y)))


def _fmod(xp: Any, x: Any, y: Any) -> Any:
    size = xp.abs(y)
    return xp.where(x < 0, -xp.remainder(-x, size), xp.remainder(x, size))


def _heaviside(xp: Any, x: Any, at_zero: Any) -> Any:
    return xp.where(x == 0, at_zero, xp.astype(x > 0, x.dtype))


def _float_power(xp: Any, x: Any, y: Any) -> Any:
    return xp.pow(*(xp.astype(v, _double(xp, v)) if hasattr(v, "dtype") else v for v in (x, y)))


def _double(xp: Any, x: Any) -> Any:
    return xp.complex128 if is_complex(x) else xp.float64


def _vecdot(xp: Any, x: Any, y: Any, *, axis: int = -1) -> Any:
    return xp.vecdot(x, y, axis=axis)


#: The name of each ufunc, and its definition: the name it has in the standard, or a function ``f(xp, *args)``.
_TABLE: dict[str, str | Function] = {
    **dict.fromkeys(
        str.split("""
        add subtract multiply divide floor_divide remainder negative positive square sqrt reciprocal
        exp expm1 log log1p log2 log10 logaddexp sin cos tan sinh cosh tanh hypot copysign sign maximum minimum
        floor ceil trunc signbit nextafter isfinite isinf isnan equal not_equal less less_equal greater greater_equal
        logical_and logical_or logical_xor logical_not bitwise_and bitwise_or bitwise_xor matmul
        """),
        "",
    ),
    "absolute": "abs",
    "fabs": "abs",
    "power": "pow",
    "float_power": _float_power,
    "rint": "round",
    "conjugate": "conj",
    "invert": "bitwise_invert",
    "left_shift": "bitwise_left_shift",
    "right_shift": "bitwise_right_shift",
    "arcsin": "asin",
    "arccos": "acos",
    "arctan": "atan",
    "arctan2": "atan2",
    "arcsinh": "asinh",
    "arccosh": "acosh",
    "arctanh": "atanh",
    "exp2": lambda xp, x: xp.pow(2.0, x),
    "logaddexp2": lambda xp, x, y: xp.logaddexp(x * LN2, y * LN2) / LN2,
    "cbrt": lambda xp, x: xp.copysign(xp.pow(xp.abs(x), 1 / 3), x),
    "deg2rad": lambda xp, x: x * DEGREE,
    "radians": lambda xp, x: x * DEGREE,
    "rad2deg": lambda xp, x: x / DEGREE,
    "degrees": lambda xp, x: x / DEGREE,
    "fmax": _fmax,
    "fmin": _fmin,
    "fmod": _fmod,
    "heaviside": _heaviside,
    "ldexp": lambda xp, x, i: x * xp.pow(2.0, xp.astype(array(xp, i), x.dtype)),
    "divmod": lambda xp, x, y: (xp.floor_divide(x, y), xp.remainder(x, y)),
    "modf": lambda xp, x: (x - xp.trunc(x), xp.trunc(x)),
    "vecdot": _vecdot,
    "matvec": lambda xp, x, y: xp.squeeze(xp.matmul(x, xp.expand_dims(y, axis=-1)), axis=-1),
    "vecmat": lambda xp, x, y: xp.squeeze(xp.matmul(xp.expand_dims(conj(xp, x), axis=-2), y), axis=-2),
}

#: The definitions by the ufunc itself, for the names that this NumPy has.
UFUNCS: dict[Any, Function] = {
    getattr(np, name): _standard(f or name) if isinstance(f, str) else f
    for name, f in _TABLE.items()
    if hasattr(np, name)
}

_REDUCTIONS = {
    "add": "sum", "multiply": "prod", "maximum": "max", "minimum": "min", "logical_and": "all", "logical_or": "any",
}  # fmt: skip
_ACCUMULATIONS = {"add": "cumulative_sum", "multiply": "cumulative_prod"}


def call_ufunc(ufunc: Any, method: str, inputs: Any, kwargs: dict[str, Any]) -> Any:
    """What a NumPy ufunc does when it meets an `Array`."""
    name = ufunc.__name__
    f = UFUNCS.get(ufunc)
    if f is None:
        owner = f"numpy.{name}" if getattr(np, name, None) is ufunc else f"the compiled ufunc {name!r}"
        raise TypeError(
            f"{owner} is not among the ufuncs gpubp differentiates (they are listed in docs/numpy.md); write it with "
            "functions of the array's namespace, or apply gpubp.stop_gradient first if no gradient is meant"
        )
    if "out" in kwargs or method == "at":
        raise TypeError(
            f"numpy.{name} cannot write a traced value into an array (out=, ufunc.at, or an operator like +=): {ADVICE}"
        )
    for key, default in (("casting", "same_kind"), ("order", "K"), ("subok", True), ("where", True)):
        if key in kwargs and kwargs.pop(key) is not default and key == "where":
            raise TypeError(f"numpy.{name} with where= leaves undefined values: use numpy.where on its result")
    xp = namespace_of(*inputs, *kwargs.values())
    if "dtype" in kwargs:
        dtype = native(xp, kwargs.pop("dtype"))
        if dtype is not None:
            inputs = [_cast(xp, name, x, dtype) for x in inputs]
    if method == "__call__":
        inputs = [xp.asarray(x) if isinstance(x, list | tuple) else x for x in inputs]
        if "axes" in kwargs or (kwargs and name != "vecdot"):
            raise TypeError(f"numpy.{name} of a traced array does not take {', '.join(sorted(kwargs))}")
        return f(xp, *inputs, **kwargs)
    if method not in _METHODS or ufunc.nin != 2 or ufunc.signature is not None:
        raise TypeError(f"numpy.{name}.{method} of a traced array has no derivative here")
    return _METHODS[method](xp, ufunc, *inputs, **kwargs)


def _cast(xp: Any, name: str, x: Any, dtype: Any) -> Any:
    if not is_inexact(dtype):
        raise TypeError(f"numpy.{name} of a traced array takes a floating dtype, got dtype={dtype}")
    return xp.astype(array(xp, x), dtype)


def _reduce(xp: Any, ufunc: Any, x: Any, axis: Any = 0, *, keepdims: bool = False) -> Any:
    if ufunc.__name__ in _REDUCTIONS:
        return getattr(xp, _REDUCTIONS[ufunc.__name__])(x, axis=axis, keepdims=keepdims)
    if axis is None:
        x, axis = flat(xp, x), 0
    out = _running(xp, ufunc, x, axis)[-1]
    return xp.expand_dims(out, axis=axis) if keepdims else out


def _accumulate(xp: Any, ufunc: Any, x: Any, axis: int = 0) -> Any:
    if ufunc.__name__ in _ACCUMULATIONS:
        return getattr(xp, _ACCUMULATIONS[ufunc.__name__])(x, axis=axis)
    return xp.stack(_running(xp, ufunc, x, axis), axis=axis)


def _running(xp: Any, ufunc: Any, x: Any, axis: int) -> list[Any]:
    """``[x0, f(x0, x1), f(f(x0, x1), x2), ...]`` along an axis."""
    if not x.shape[normal_axis(axis, x.ndim)]:
        raise ValueError(f"numpy.{ufunc.__name__} has no identity to give for an empty axis")
    first, *rest = (xp.squeeze(part(x, axis, k, k + 1), axis=axis) for k in range(x.shape[axis]))
    found = [first]
    for item in rest:
        found.append(UFUNCS[ufunc](xp, found[-1], item))
    return found


def _outer(xp: Any, ufunc: Any, x: Any, y: Any) -> Any:
    x, y = array(xp, x), array(xp, y)
    return UFUNCS[ufunc](xp, xp.reshape(x, (*x.shape, *(1,) * y.ndim)), y)


_METHODS: dict[str, Callable[..., Any]] = {"reduce": _reduce, "accumulate": _accumulate, "outer": _outer}
for _name, _f in _METHODS.items():
    _f.__qualname__ = f"gpubp's ufunc.{_name}"
