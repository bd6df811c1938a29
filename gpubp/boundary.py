"""The few things the Array API standard lacks, for plain arrays of any library.

Each has a fallback written in the standard alone. Inside a transform the differentiable twin carries its own
version of each (an attribute of the same name with a leading underscore), which is what a rule reaches.
"""

from __future__ import annotations

from typing import Any

_COMPLEX: dict[Any, bool] = {}
_INEXACT: dict[Any, bool] = {}


def is_complex(x: Any) -> bool:
    """Whether `x` (an array, a `Spec` or a Python scalar) is of a complex dtype."""
    dtype = getattr(x, "dtype", None)
    if dtype is None:
        return isinstance(x, complex)
    found = _COMPLEX.get(dtype)
    if found is None:
        found = _COMPLEX[dtype] = "complex" in str(dtype)
    return found


def is_inexact(dtype: Any) -> bool:
    """Whether `dtype` is real or complex floating, so that a gradient exists (bfloat16 included)."""
    found = _INEXACT.get(dtype)
    if found is None:
        name = str(dtype)
        found = _INEXACT[dtype] = "float" in name or "complex" in name
    return found


def conj(xp: Any, x: Any) -> Any:
    """Complex conjugate; real values, Python scalars among them, are returned as they are."""
    if not is_complex(x):
        return x
    return x.conjugate() if isinstance(x, complex) else xp.conj(x)


_ONES: dict[Any, Any] = {}


def one_like(x: Any) -> Any:
    """A scalar 1 of the dtype of the 0-d array `x`, where it lives: the seed of a backward pass."""
    if type(x).__module__ == "numpy":
        found = _ONES.get(x.dtype)
        if found is None:
            found = _ONES[x.dtype] = x.dtype.type(1)
        return found
    from array_api_compat import array_namespace

    return array_namespace(x).ones_like(x)


def to_device(x: Any, device: Any, /, *, stream: Any = None) -> Any:
    """`x` on another device of its library."""
    from array_api_compat import to_device as move

    return move(x, device, stream=stream)


def put(xp: Any, x: Any, key: Any, value: Any) -> Any:
    """A copy of `x` in which ``x[key]`` is `value`: item assignment as a function."""
    if (traced := getattr(xp, "_put", None)) is not None:
        return traced(x, value, key=key)
    if hasattr(x, "at"):  # JAX: arrays are immutable
        return x.at[key].set(value)
    out = xp.asarray(x, copy=True)
    out[key] = value
    return out


def add_at(xp: Any, x: Any, key: Any, value: Any) -> Any:
    """A copy of `x` with `value` added at ``x[key]``, repeated indices adding up."""
    if (traced := getattr(xp, "_add_at", None)) is not None:
        return traced(x, value, key=key)
    raise NotImplementedError


def take_at(xp: Any, x: Any, key: Any) -> Any:
    """``x[key]``, as a function of the namespace."""
    if (traced := getattr(xp, "_take_at", None)) is not None:
        return traced(x, key=key)
    return x[key]
