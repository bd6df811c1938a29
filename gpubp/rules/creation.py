"""Creation of arrays, data types, and questions about namespaces."""

from __future__ import annotations

from copy import copy as copied
from operator import index
from typing import Any

from ..boundary import to_device
from .registry import composite, creation, primitive, query

creation("empty", "empty_like", "eye", "ones", "ones_like", "zeros", "zeros_like")


def _scalars_and_arrays(obj: Any) -> list[Any]:
    return [leaf for item in obj for leaf in _scalars_and_arrays(item)] if isinstance(obj, list | tuple) else [obj]


def _asarray(xp: Any, obj: Any, /, *, dtype: Any = None, device: Any = None, copy: bool | None = None) -> Any:
    if not isinstance(obj, list | tuple):
        moved = obj if device in (None, obj.device) else xp._to_device(obj, device)
        cast = moved if dtype in (None, obj.dtype) else xp._astype(moved, dtype)
        if copy is False and cast is not obj:
            raise ValueError(
                f"asarray with copy=False cannot give {dtype} on {device} from {obj.dtype} on {obj.device}"
            )
        return copied(cast) if copy and cast is obj else cast
    if copy is False:
        raise ValueError("asarray with copy=False cannot join several arrays")
    leaves = _scalars_and_arrays(obj)
    arrays = [leaf for leaf in leaves if hasattr(leaf, "dtype")]
    dtype = xp.result_type(*leaves) if dtype is None else dtype
    device = arrays[0].device if device is None else device
    return xp.stack([xp.asarray(item, dtype=dtype, device=device) for item in obj])


def _full(xp: Any, shape: Any, fill_value: Any, *, dtype: Any = None, device: Any = None) -> Any:
    shape = tuple(map(index, shape)) if isinstance(shape, tuple | list) else (index(shape),)
    if not hasattr(fill_value, "dtype"):
        return xp.full(shape, fill_value, dtype=dtype, device=device)
    return xp.broadcast_to(xp.asarray(fill_value, dtype=dtype, device=device), shape)


def _full_like(xp: Any, x: Any, /, fill_value: Any, *, dtype: Any = None, device: Any = None) -> Any:
    return xp.full(
        x.shape, fill_value, dtype=x.dtype if dtype is None else dtype, device=x.device if device is None else device
    )


def _linspace(
    xp: Any, start: Any, stop: Any, /, num: int, *, dtype: Any = None, device: Any = None, endpoint: bool = True
) -> Any:
    like = start if hasattr(start, "dtype") else stop
    parts = max(num - 1 if endpoint else num, 1)
    inner = xp.result_type(start, stop)
    ndim = max(getattr(x, "ndim", 0) for x in (start, stop))
    steps = xp.astype(xp.arange(num, device=like.device), inner)
    t = xp.reshape(steps / parts, (num, *(1 for _ in range(ndim))))
    return xp.asarray(start * (1 - t) + stop * t, dtype=dtype, device=device)


def _arange(xp: Any, start: Any, /, stop: Any = None, step: Any = 1, *, dtype: Any = None, device: Any = None) -> Any:
    if stop is None:
        start, stop = 0, start
    given = [x for x in (start, stop, step) if hasattr(x, "dtype")]
    if not any(xp.isdtype(x.dtype, "real floating") for x in given):
        start, stop, step = (index(x) if hasattr(x, "dtype") else x for x in (start, stop, step))
        return xp.arange(start, stop, step, dtype=dtype, device=device)
    count = max(int(xp.ceil((stop - start) / step)), 0)
    steps = xp.astype(xp.arange(count, device=given[0].device), given[0].dtype)
    return xp.asarray(start + step * steps, dtype=dtype, device=device)


def _from_dlpack(xp: Any, x: Any, /, *, device: Any = None, copy: bool | None = None) -> Any:
    return xp.asarray(x, device=device, copy=copy)


creation("asarray", body=_asarray)
creation("full", body=_full)
creation("full_like", body=_full_like)
creation("linspace", body=_linspace)
creation("arange", body=_arange)
creation("from_dlpack", body=_from_dlpack)

# Data types and devices: the engine casts each cotangent to the dtype of its argument.


@composite("astype")
def _astype(xp: Any, x: Any, dtype: Any, /, *, copy: bool = True, device: Any = None) -> Any:
    if device is not None:
        x = xp._to_device(x, device)
    return xp._astype(x, dtype, copy=copy)


primitive("_astype", lambda xp, g, *_, **__: g)
primitive("_to_device", lambda xp, g, _, x, *__, **___: to_device(g, x.device))

query("can_cast", "finfo", "iinfo", "isdtype", "result_type", "__array_namespace_info__")
