"""Floating-point dtypes of 16 bits, where libraries leave off: on NumPy and CuPy bfloat16 is that of ml_dtypes.

There ``isdtype`` and ``finfo`` raise on it, Python's floats and `where` promote it, sums accumulate in 16 bits (they
stop at 256), and products give another dtype or none. `completed` mends that, in a copy of the namespace, but not
operators between a plain array and a Python float: they give float32, but bfloat16 inside a transform.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

# By type and dtype: array-api-strict's dtypes hash as NumPy's do, and warn when compared with them.
_HALF: dict[tuple[type, Any], bool] = {}

#: In float32 for both dtypes of 16 bits, or for bfloat16 alone.
_IN_FLOAT32 = ("var", "std", "cumulative_sum", "cumulative_prod", "vecdot")
_PRODUCTS = ("matmul", "tensordot")
_SUMS = ("sum", "mean", "prod")  # which take a dtype
_BFLOAT16_IN_FLOAT32 = ("where", "clip", "sign", "sort", "argsort", "searchsorted")


def is_half(dtype: Any) -> bool:
    """Whether `dtype`, of any library, is float16 or bfloat16."""
    key = type(dtype), dtype
    found = _HALF.get(key)
    if found is None:
        found = _HALF[key] = name_of(dtype) in ("float16", "bfloat16")
    return found


def name_of(dtype: Any) -> str:
    """The name of a library's dtype: ``"float32"`` of ``torch.float32``."""
    return str(dtype).rpartition(".")[2]


def named(xp: Any, name: str) -> Any:
    """A namespace's dtype by its name; None if it has none of that name.

    Raises
    ------
    ModuleNotFoundError
        If it would be bfloat16 by ml_dtypes, which is not installed.
    """
    found = getattr(xp, name, None)
    return bfloat16() if found is None and name == "bfloat16" and getattr(xp, "float32", None) is np.float32 else found


def bfloat16() -> Any:
    """The bfloat16 of NumPy and CuPy.

    Raises
    ------
    ModuleNotFoundError
        If ml_dtypes is not installed.
    """
    try:
        import ml_dtypes
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "bfloat16 on NumPy and CuPy is that of the package ml_dtypes, which is not installed: "
            "pip install 'gpubp[bf16]'",
            name="ml_dtypes",
        ) from None
    return np.dtype(ml_dtypes.bfloat16)


def rounded(xp: Any, x: Any, dtype: Any) -> Any:
    """`x` in another floating-point dtype; what is too large becomes infinite without a warning."""
    if x.dtype == dtype:
        return x
    with np.errstate(over="ignore"):
        return xp.astype(x, dtype)


def widened(xp: Any, x: Any) -> Any:
    """`x` in float32, if it is an array of 16-bit floats."""
    dtype = getattr(x, "dtype", None)
    return xp.astype(x, xp.float32) if dtype is not None and is_half(dtype) else x


# -- namespaces of libraries whose dtypes are NumPy's


class FloatInfo(NamedTuple):
    """What the standard's `finfo` tells."""

    bits: int
    eps: float
    max: float
    min: float
    smallest_normal: float
    dtype: Any


def completed(base: Any, *, own_products: bool) -> ModuleType:
    """A namespace with NumPy's dtypes in which bfloat16 is a floating-point dtype, and 16-bit sums are good ones.

    `own_products` says whether its products are good: in float32, with a result of the arguments' dtype.
    """
    xp: Any = ModuleType(base.__name__, base.__doc__)
    vars(xp).update(vars(base))
    xp.isdtype, xp.result_type, xp.finfo = (_of_bfloat16(base, f) for f in (_isdtype, _result_type, _finfo))
    for name in _IN_FLOAT32:
        setattr(xp, name, _in_float32(base, getattr(base, name), _is_half))
    for name in _SUMS:
        setattr(xp, name, _summed_in_float32(base, getattr(base, name)))
    for name in () if own_products else _PRODUCTS:
        setattr(xp, name, _in_float32(base, getattr(base, name), _is_half))
    for name in _BFLOAT16_IN_FLOAT32:
        setattr(xp, name, _in_float32(base, getattr(base, name), _is_bfloat16))
    linalg: Any = ModuleType(base.linalg.__name__, base.linalg.__doc__)
    vars(linalg).update(vars(base.linalg))
    for name in getattr(base.linalg, "__all__", None) or dir(base.linalg):
        function = getattr(base.linalg, name)
        if not name.startswith("_") and callable(function) and not isinstance(function, type):
            known = name in _IN_FLOAT32 or name in _PRODUCTS
            setattr(linalg, name, getattr(xp, name) if known else _in_float32(base, function, _is_half))
    xp.linalg = linalg
    return xp  # type: ignore[no-any-return]


def _is_half(dtype: Any) -> bool:
    """`is_half` of NumPy's dtypes, at once for nearly all."""
    return bool(dtype.itemsize == 2 and is_half(dtype))


def _is_bfloat16(dtype: Any) -> bool:
    return bool(dtype.itemsize == 2 and dtype.name == "bfloat16")


def _in_float32(base: Any, function: Callable[..., Any], concerns: Callable[[Any], bool]) -> Callable[..., Any]:
    """A function that computes in float32 where it is given arrays of such dtypes, and rounds its results."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        for x in args:
            dtype = getattr(x, "dtype", None)
            if dtype is not None and concerns(dtype):
                break
        else:
            return function(*args, **kwargs)
        out = function(*(widened(base, x) for x in args), **{k: widened(base, x) for k, x in kwargs.items()})
        if kwargs.get("dtype") is not None or any(_wider(x, dtype) for x in (*args, *kwargs.values())):
            return out
        return _rounded_all(base, out, dtype)

    return call


def _summed_in_float32(base: Any, function: Callable[..., Any]) -> Callable[..., Any]:
    """The same for sums, which need no copy of their argument."""

    @functools.wraps(function)
    def call(x: Any, /, **kwargs: Any) -> Any:
        dtype = x.dtype
        if kwargs.get("dtype") is not None or not _is_half(dtype):
            return function(x, **kwargs)
        return rounded(base, function(x, **kwargs | {"dtype": base.float32}), dtype)

    return call


def _wider(x: Any, dtype: Any) -> bool:
    """Whether `x` is an inexact array of another dtype."""
    own = getattr(x, "dtype", None)
    return own is not None and own != dtype and (own.kind in "fc" or is_half(own))


def _rounded_all(base: Any, out: Any, dtype: Any) -> Any:
    if isinstance(out, tuple):
        parts = [_rounded_all(base, x, dtype) for x in out]
        return type(out)(*parts) if hasattr(out, "_fields") else tuple(parts)
    return rounded(base, out, dtype) if out.dtype == np.float32 else out


def _of_bfloat16(base: Any, function: Callable[..., Any]) -> Callable[..., Any]:
    """The namespace's function, or ours where bfloat16 is among its arguments."""
    original = getattr(base, function.__name__[1:])

    @functools.wraps(original)
    def call(*args: Any, **kwargs: Any) -> Any:
        if any(_is_bfloat16(d) for d in _dtypes(args)):
            return function(base, *args, **kwargs)
        return original(*args, **kwargs)

    return call


def _dtypes(values: Iterable[Any]) -> Iterable[Any]:
    """The dtypes among arrays, dtypes and scalars, as NumPy's objects."""
    for x in values:
        if isinstance(x, type):
            yield np.dtype(x)
        elif isinstance(dtype := getattr(x, "dtype", x), np.dtype):
            yield dtype


def _isdtype(base: Any, dtype: Any, kind: Any) -> bool:
    kinds = kind if isinstance(kind, tuple) else (kind,)
    return any(k in ("real floating", "numeric") if isinstance(k, str) else np.dtype(k) == dtype for k in kinds)


def _result_type(base: Any, *values: Any) -> Any:
    dtypes, scalars = [*_dtypes(values)], [x for x in values if type(x) in (bool, int, float, complex)]
    if all(map(_is_bfloat16, dtypes)) and complex not in map(type, scalars):
        return bfloat16()
    return base.result_type(*(np.dtype(np.float32) if _is_bfloat16(d) else d for d in dtypes), *scalars)


def _finfo(base: Any, dtype: Any, /) -> FloatInfo:
    from ml_dtypes import finfo

    found = finfo(bfloat16())  # type: ignore[no-untyped-call]
    eps, most, least, normal = map(float, (found.eps, found.max, found.min, found.smallest_normal))
    return FloatInfo(16, eps, most, least, normal, bfloat16())
