"""The CuPy stand-in: an array library over NumPy, as strict as CuPy 14, for machines with no GPU.

The module is its own Array API namespace (2025.12, with ``linalg`` and ``fft``), as `cupy` is: it holds
NumPy's functions, as array-api-compat completes them, under the names that CuPy has too. Its `ndarray` computes
with NumPy and refuses what CuPy refuses, so that code which passes its tests on the stand-in does not meet these
errors first on a GPU.

It imitates CuPy in this:

- No implicit conversion to NumPy (``__array__`` raises), nor from it: operators and functions refuse NumPy arrays,
  lists in the place of arrays, and arrays of other libraries. Python and NumPy scalars are fine. `asarray` copies
  from the host, ``.get()`` to the host.
- Functions, reductions and indexing return 0-d arrays, never scalars; 0-d results of basic indexing are views.
- There are two devices, ``cuda:0`` and ``cuda:1``, one of them current in each thread (``with Device(1): ...``).
  Arrays are created on the current device; only `asarray`, `astype` and ``to_device`` heed ``device=``.
  To compute with an array of the other device is an error (as it is on GPUs without peer access).
- Operators leave objects with a higher ``__array_priority__`` or ``__array_ufunc__ = None`` to those objects'
  reflected operators; NumPy's ufuncs and functions dispatch to the stand-in where CuPy has them.
- Integer-array indices, also in `take`, wrap around instead of raising. ``ufunc.at``, ``reduce`` and
  ``accumulate`` exist for the functions and dtypes that CuPy has them for.
- There is no ``__index__``: an array cannot stand where Python wants an int. Use ``int(x)``, which reads.
- Sums and products of two matrices of 16-bit floats are computed in float32. bfloat16 is that of ml_dtypes: products
  of stacks of matrices and sorting refuse it, and `where` gives float32.
- What makes the host wait for the GPU is a *host read*: ``float()``, ``int()``, ``bool()``, ``.item()``,
  ``.tolist()``, ``.get()``, printing, boolean-mask indexing, ``nonzero``, ``unique`` and others whose result's
  shape hangs on values. `count_host_reads` lists them, `no_host_reads` makes them raise `HostReadError`.

It does not imitate kernels, streams, memory pools, random numbers, the order in which a GPU adds, its silence about
singular matrices, or the fact that a GPU computes while the host goes on. Arrays have three conveniences that CuPy's
lack: ``__array_namespace__``, ``to_device`` and a ``device`` whose text is ``cuda:0``.

Examples
--------
>>> from gpubp.testing import standin as xp
>>> x = xp.asarray([1.0, 2.0])
>>> with xp.count_host_reads() as reads:
...     total = float(xp.sum(x))
>>> total, reads
(3.0, ['float()'])
"""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum, auto
from types import ModuleType
from typing import Any, Final, Literal, NamedTuple

import array_api_compat.numpy as _numpy
import numpy as np

__array_api_version__: Final = "2025.12"

# Names of NumPy, and of array-api-compat's NumPy, that CuPy 14.2 does not have.
_NOT_IN_CUPY: Final = frozenset(
    str.split("""
    False_ ScalarType True_ asmatrix block bmat busday_count busday_offset busdaycalendar bytes_ character
    clongdouble complex256 datetime64 datetime_as_string datetime_data einsum_path errstate flexible float128
    frompyfunc fromregex geomspace get_include getbufsize geterr geterrcall histogram_bin_edges info insert
    is_busday isnat little_endian longdouble matrix matvec memmap multi_dot nanpercentile nanquantile ndenumerate
    nditer nested_iters object_ polyder polydiv polyint recarray record sctypeDict setbufsize seterr seterrcall
    show_runtime spacing str_ test timedelta64 typecodes vecmat void
    """)
)
# Functions (and methods) for which CuPy waits for the GPU, to learn a shape or to check values.
_READS: Final = frozenset(
    str.split("""
    argwhere bincount choose compress delete extract flatnonzero intersect1d nonzero setdiff1d setxor1d tobytes
    tolist trim_zeros union1d unique unique_all unique_counts unique_inverse unique_values
    """)
)
# Functions that wait only when they are given more arrays than this.
_READS_BEYOND: Final = {"arange": 0, "average": 1, "repeat": 1}
# Functions that launch no kernel, so that their argument may be on any device: their results are views of it ...
_VIEWS: Final = frozenset(
    str.split("""
    broadcast_to diagonal expand_dims matrix_transpose moveaxis permute_dims ravel reshape rollaxis squeeze
    swapaxes transpose unstack view
    """)
)
# ... or take only its shape and dtype.
_LIKE: Final = frozenset(
    str.split("""
    can_cast empty_like finfo full_like iinfo iscomplexobj isdtype isrealobj may_share_memory ndim ones_like
    result_type shape shares_memory size zeros_like
    """)
)
_BOOLEAN_ARRAYS: Final = frozenset({"allclose", "array_equal", "array_equiv"})  # where NumPy returns a Python bool
_METHODS: Final = str.split(
    """
    all any argmax argmin argpartition argsort astype choose clip compress conj conjugate cumprod cumsum diagonal
    dot fill flatten max mean min nonzero partition prod ptp put ravel repeat reshape round searchsorted sort
    squeeze std sum swapaxes take tobytes tolist trace transpose var view
    """
)
_OPERATORS: Final = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "truediv": np.true_divide,
    "floordiv": np.floor_divide,
    "mod": np.remainder,
    "divmod": np.divmod,
    "pow": np.power,
    "matmul": np.matmul,
    "lshift": np.left_shift,
    "rshift": np.right_shift,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
}
_COMPARISONS: Final = {
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
}
_UNARY: Final = {"neg": np.negative, "pos": np.positive, "abs": np.absolute, "invert": np.invert}
# The dtypes (as NumPy's characters) for which CuPy has atomic updates of elements chosen by integer arrays.
_ATOMIC: Final = {
    "add": "ilqILQefd",
    "subtract": "iI",
    "maximum": "ilqILQfd",
    "minimum": "ilqILQfd",
    "bitwise_and": "ilqILQ",
    "bitwise_or": "ilqILQ",
    "bitwise_xor": "ilqILQ",
}
_REDUCIBLE: Final = {"reduce": {"add", "multiply"}, "accumulate": {"add", "multiply"}, "reduceat": {"add"}}
_UFUNC_KEYWORDS: Final = frozenset({"out", "dtype", "casting"})
_GUFUNC_KEYWORDS: Final = _UFUNC_KEYWORDS | {"axis", "axes", "keepdims"}
_DTYPES: Final = "?bhilqBHILQefdFD"
_MISSING: Final = object()


# ------------------------------------------------------------------------------------------------- host reads


class HostReadError(RuntimeError):
    """The host read a device array inside `no_host_reads`."""


class _Thread(threading.local):
    """What CuPy keeps for each thread: the current device and, here, who watches the host reads."""

    def __init__(self) -> None:
        self.device = 0
        self.outer_devices: list[int] = []
        self.forbidden = False
        self.logs: list[list[str]] = []


_thread = _Thread()


@contextmanager
def count_host_reads() -> Iterator[list[str]]:
    """List this thread's host reads, such as ``float()`` or ``nonzero()``, as they happen.

    Yields
    ------
    list of str
        One entry for each read; its length is the count.
    """
    log: list[str] = []
    _thread.logs.append(log)
    try:
        yield log
    finally:
        _thread.logs = [other for other in _thread.logs if other is not log]


@contextmanager
def no_host_reads() -> Iterator[None]:
    """Make every host read of this thread raise `HostReadError`."""
    outer, _thread.forbidden = _thread.forbidden, True
    try:
        yield
    finally:
        _thread.forbidden = outer


def _read(what: str) -> None:
    for log in _thread.logs:
        log.append(what)
    if _thread.forbidden:
        raise HostReadError(
            f"{what} makes the host wait for the device, which no_host_reads() forbids here: "
            "keep the value on the device (0-d arrays, where, accumulators) and read it later"
        )


# ---------------------------------------------------------------------------------------------------- devices


_DEVICE_IDS: Final[dict[int | str, int]] = {0: 0, 1: 1, "cuda:0": 0, "cuda:1": 1}


class Device:
    """One of the two pretended GPUs; as a context manager it makes itself current.

    Parameters
    ----------
    device : int, str, Device or None
        ``1`` or ``"cuda:1"``; None is the current device.
    """

    def __init__(self, device: int | str | Device | None = None) -> None:
        if device is not None and not isinstance(device, Device) and device not in _DEVICE_IDS:
            raise ValueError(f"the CuPy stand-in has the devices 'cuda:0' and 'cuda:1', not {device!r}")
        self.id: int = (
            _thread.device if device is None else device.id if isinstance(device, Device) else _DEVICE_IDS[device]
        )

    def use(self) -> None:
        """Make the device current in this thread."""
        _thread.device = self.id

    def __enter__(self) -> Device:
        _thread.outer_devices.append(_thread.device)
        self.use()
        return self

    def __exit__(self, *exception: object) -> None:
        _thread.device = _thread.outer_devices.pop()

    def __int__(self) -> int:
        return self.id

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device) and self.id == other.id

    def __hash__(self) -> int:
        return hash((Device, self.id))

    def __str__(self) -> str:
        return f"cuda:{self.id}"

    def __repr__(self) -> str:
        return f"<stand-in CUDA Device {self.id}>"


class _MemoryPointer(NamedTuple):
    ptr: int
    device_id: int


# ---------------------------------------------------------------------------------------------------- calling


def _new(data: Any, device: int) -> ndarray:
    if data.dtype.char not in _DTYPES and data.dtype.name != "bfloat16":
        raise ValueError(f"Unsupported dtype {data.dtype}")
    array = object.__new__(ndarray)
    array._data = data
    array._device = device
    return array


def _is_foreign(value: Any) -> bool:
    """Whether `value` is an array, but none of the stand-in's (NumPy scalars are scalars)."""
    return hasattr(value, "__array__") and not isinstance(value, ndarray | np.generic | type)


def _unwrap(value: Any, found: list[ndarray]) -> Any:
    """Put NumPy arrays in the place of the stand-in's, also in sequences, and note those in `found`."""
    if isinstance(value, ndarray):
        found.append(value)
        return value._data
    if type(value) in (list, tuple):
        return type(value)([_unwrap(item, found) for item in value])
    if _is_foreign(value):
        raise TypeError(f"Unsupported type {type(value)}")
    return value


def _wrap(value: Any, device: int, found: list[ndarray]) -> Any:
    """Undo `_unwrap`: a NumPy array that came in goes out as the array it came from."""
    if isinstance(value, np.ndarray | np.generic):
        for array in found:
            if array._data is value:
                return array
        return _new(np.asarray(value), device)
    if isinstance(value, list | tuple):
        items = [_wrap(item, device, found) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return value


def _require_current(arrays: list[ndarray]) -> None:
    for array in arrays:
        if array._device != _thread.device:
            raise ValueError(
                f"The device where the array resides ({array._device}) is different from the current device "
                f"({_thread.device}). Peer access is unavailable between these devices."
            )


def _call(name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call a NumPy function with the stand-in's arrays."""
    if isinstance(function, np.ufunc):
        if unknown := kwargs.keys() - (_GUFUNC_KEYWORDS if function.signature else _UFUNC_KEYWORDS):
            raise TypeError(f"Wrong arguments {sorted(unknown)}")
        for value in args:
            if isinstance(value, list | tuple):
                raise TypeError(f"Unsupported type {type(value)}")
    found: list[ndarray] = []
    args = _unwrap(args, found)
    kwargs = {key: _unwrap(value, found) for key, value in kwargs.items() if key != "device"}
    if name not in _VIEWS and name not in _LIKE:
        _require_current(found)
    if name in _READS or len(found) > _READS_BEYOND.get(name, len(found)):
        _read(f"{name}()")
    if function is np.matmul:
        function = _matmul
    value = function(*args, **kwargs)
    if name in _BOOLEAN_ARRAYS:
        value = np.asarray(value)
    return _wrap(value, found[0]._device if name in _VIEWS and found else _thread.device, found)


def _function(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a NumPy function, and its methods if it is a ufunc, a face for the stand-in's arrays."""
    function = _OWN.get(name, function)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return _call(name, function, args, kwargs)

    if isinstance(function, np.ufunc):
        for method in ("outer", "at", "reduce", "accumulate", "reduceat"):
            setattr(call, method, functools.partial(_ufunc_method, function, method))
    return call


def _ufunc_method(ufunc: np.ufunc, method: str, *args: Any, **kwargs: Any) -> Any:
    name = ufunc.__name__
    if name not in (_ATOMIC if method == "at" else _REDUCIBLE.get(method, {name})):
        raise NotImplementedError(f"`cupy_{name}.{method}` is not supported yet")
    if method == "at":
        return _update_at(ufunc, *args, **kwargs)
    return _call(name, getattr(ufunc, method), args, kwargs)


def _update_at(ufunc: np.ufunc, a: ndarray, indices: Any, b: Any) -> None:
    key, kind = _index(a, indices)
    if kind is _Index.ADVANCED and a.dtype.char not in _ATOMIC[ufunc.__name__]:
        names = dict.fromkeys(np.dtype(char).name for char in _ATOMIC[ufunc.__name__])
        raise TypeError(f"cupy.{ufunc.__name__}.at only supports {', '.join(names)} as data type, not {a.dtype}")
    found: list[ndarray] = [a]
    value = _unwrap(b, found)
    _require_current(found)
    ufunc.at(a._data, key, np.asarray(value).astype(a.dtype))


def _take(x: Any, indices: Any, /, axis: int | None = None, out: Any = None) -> Any:
    return np.take(x, indices, axis=axis, out=out, mode="wrap")


def _take_along_axis(x: Any, indices: Any, /, axis: int = -1) -> Any:
    return np.take_along_axis(x, _around(indices, x.shape[axis]), axis=axis)


def _around(indices: Any, size: int) -> Any:
    """Wrap indices that are out of bounds around an axis of `size`."""
    return np.remainder(indices, size, dtype=np.int64, casting="same_kind") if size else indices


def _is_half(x: Any) -> bool:
    return bool(x.dtype.char == "e" or x.dtype.name == "bfloat16")


def _in_float32(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def summed(x: Any, *args: Any, dtype: Any = None, **kwargs: Any) -> Any:
        if dtype is not None or not hasattr(x, "dtype") or not _is_half(x):
            return function(x, *args, **kwargs if dtype is None else kwargs | {"dtype": dtype})
        return function(x, *args, dtype=np.float32, **kwargs).astype(x.dtype)

    return summed


def _matmul(x1: Any, x2: Any, /, *args: Any, **kwargs: Any) -> Any:
    if x1.dtype.name != "bfloat16" or x2.dtype != x1.dtype:
        return np.matmul(x1, x2, *args, **kwargs)
    if max(x1.ndim, x2.ndim) > 2:
        raise ValueError(f"invalid dtype {x1.dtype}")
    return np.asarray(np.matmul(x1, x2)).astype(x1.dtype)


def _where(condition: Any, x1: Any = None, x2: Any = None, /) -> Any:
    args = [x.astype(np.float32) if getattr(x, "dtype", None) == "bfloat16" else x for x in (x1, x2)]
    return _numpy.nonzero(condition) if x1 is None else _numpy.where(condition, *args)


def _not_of_bfloat16(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(x: Any, *args: Any, **kwargs: Any) -> Any:
        if x.dtype.name == "bfloat16":
            raise NotImplementedError(f"Sorting arrays with dtype '{x.dtype}' is not supported")
        return function(x, *args, **kwargs)

    return call


_OWN: Final[dict[str, Callable[..., Any]]] = {
    "take": _take,
    "take_along_axis": _take_along_axis,
    "matmul": _matmul,
    "where": _where,
    **{name: _in_float32(getattr(_numpy, name)) for name in ("sum", "mean", "prod")},
    **{name: _not_of_bfloat16(getattr(_numpy, name)) for name in ("sort", "argsort")},
}


# --------------------------------------------------------------------------------------------------- indexing


class _Index(Enum):
    BASIC = auto()  # gives a view
    ADVANCED = auto()  # gives a copy
    MASK = auto()  # gives a copy whose shape hangs on values


def _index(array: ndarray, key: Any) -> tuple[tuple[Any, ...], _Index]:
    """Translate `key` for NumPy, with integer arrays wrapped around, and say what kind of index it is."""
    items: list[Any] = []
    found: list[ndarray] = []
    for item in key if isinstance(key, tuple) else (key,):
        if isinstance(item, list | tuple | bool | np.bool | np.ndarray):  # copied from the host, as CuPy does
            empty_list = isinstance(item, list | tuple) and np.size(item) == 0
            item = asarray(item, dtype=np.int64 if empty_list else None)
        if isinstance(item, ndarray):
            found.append(item)
        elif _is_foreign(item):
            raise TypeError(f"Unsupported type {type(item)}")
        items.append(item._data if isinstance(item, ndarray) else item)
    if not found:
        whole = () if any(item is Ellipsis for item in items) else (...,)  # a view, even of one element
        return (*items, *whole), _Index.BASIC
    _require_current([array, *found])

    taken = [_axes_taken(item) for item in items]
    axis = 0
    for place, item in enumerate(items):
        if item is Ellipsis:
            axis += array.ndim - sum(taken)
        elif isinstance(item, np.ndarray) and item.dtype.kind in "iu" and axis < array.ndim:
            items[place] = _around(item, array.shape[axis])
        axis += taken[place]
    masked = any(array.dtype == np.bool for array in found)
    return tuple(items), _Index.MASK if masked else _Index.ADVANCED


def _axes_taken(item: Any) -> int:
    if item is None or item is Ellipsis:
        return 0
    return item.ndim if isinstance(item, np.ndarray) and item.dtype == np.bool else 1


# -------------------------------------------------------------------------------------------------- the array


class ndarray:
    """An array that pretends to be on a GPU: see the module's documentation.

    Parameters
    ----------
    shape : int or tuple of int
        The shape; the values are arbitrary. Use `asarray` to make arrays of given values.
    dtype : dtype
        Any numeric dtype of NumPy.
    """

    __slots__ = ("__weakref__", "_data", "_device")
    __array_priority__ = 100
    __hash__ = None  # type: ignore[assignment]

    _data: np.ndarray[Any, Any]
    _device: int
    shape: tuple[int, ...]  # this and more is added by _furnish
    dtype: np.dtype[Any]
    ndim: int
    size: int
    view: Callable[..., Any]

    def __new__(cls, shape: int | tuple[int, ...], dtype: Any = float) -> ndarray:
        """Make an uninitialised array on the current device."""
        return _new(np.empty(shape, dtype), _thread.device)

    def __array_namespace__(self, api_version: str | None = None) -> ModuleType:
        if api_version not in (None, "2021.12", "2022.12", "2023.12", "2024.12", "2025.12"):
            raise ValueError(f"the CuPy stand-in has no version {api_version!r} of the Array API standard")
        return sys.modules[__name__]

    # ---- properties

    @property
    def device(self) -> Device:
        """Where the array pretends to be."""
        return Device(self._device)

    @property
    def data(self) -> _MemoryPointer:
        """The address of the first element, as ``.data.ptr``, and the device's number."""
        return _MemoryPointer(self._data.ctypes.data, self._device)

    # ---- to the host and between devices

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. "
            "Please use `.get()` to construct a NumPy array explicitly."
        )

    def get(
        self, stream: None = None, order: Literal["C", "F", "A"] = "C", out: Any = None, blocking: bool = True
    ) -> Any:
        """Copy to the host, as a NumPy array or into the NumPy array `out`."""
        _read(".get()")
        if out is None:
            return self._data.copy(order)
        if out.dtype != self.dtype or out.shape != self.shape:
            raise ValueError(f"a {self.dtype}{self.shape} array does not go into {out.dtype}{out.shape}")
        out[...] = self._data
        return out

    def set(self, arr: Any, stream: None = None) -> None:
        """Copy a NumPy array of the same shape and dtype from the host."""
        if not isinstance(arr, np.ndarray):
            raise TypeError("Only numpy.ndarray can be set to cupy.ndarray")
        if arr.dtype != self.dtype or arr.shape != self.shape:
            raise ValueError(f"a {arr.dtype}{arr.shape} array does not go into {self.dtype}{self.shape}")
        self._data[...] = arr

    def item(self) -> Any:
        """Read the only element, as a Python scalar."""
        _read(".item()")
        return self._data.item()

    def to_device(self, device: Any, /, *, stream: None = None) -> Any:
        """Copy to another device; ``"cpu"`` gives a NumPy array."""
        return self.get() if device == "cpu" else asarray(self, device=device)

    def copy(self, order: Literal["C", "F", "A", "K"] = "C") -> ndarray:
        """Copy to the current device, from any."""
        return _new(self._data.copy(order), _thread.device)

    def __copy__(self) -> ndarray:
        return self.copy()

    def __deepcopy__(self, memo: Any) -> ndarray:
        with self.device:
            return self.copy()

    def __reduce__(self) -> tuple[Any, ...]:
        return asarray, (self.get(),)

    def __dlpack__(
        self, *, stream: Any = None, max_version: Any = None, dl_device: Any = None, copy: bool | None = None
    ) -> Any:
        if dl_device is None or tuple(dl_device) != (1, 0):
            raise BufferError("the stand-in only pretends that its memory is a GPU's: it exports to the CPU alone")
        return self.get().__dlpack__(max_version=max_version)

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, self._device  # kDLCUDA

    def __bool__(self) -> bool:
        _read("bool()")
        return bool(self._data)

    def __int__(self) -> int:
        _read("int()")
        return int(self._data)

    def __float__(self) -> float:
        _read("float()")
        return float(self._data)

    def __complex__(self) -> complex:
        _read("complex()")
        return complex(self._data)

    def __repr__(self) -> str:
        _read("repr()")
        return repr(self._data)

    def __str__(self) -> str:
        _read("str()")
        return str(self._data)

    def __format__(self, format_spec: str) -> str:
        _read("format()")
        return format(self._data, format_spec)

    # ---- as a container

    def __len__(self) -> int:
        return len(self._data)

    def __iter__(self) -> Iterator[ndarray]:
        if self.ndim == 0:
            raise TypeError("iteration over a 0-d array")
        return (self[i] for i in range(len(self)))

    def __getitem__(self, key: Any) -> ndarray:
        key, kind = _index(self, key)
        if kind is _Index.MASK:
            _read("boolean-mask indexing")
        return _new(np.asarray(self._data[key]), self._device)

    def __setitem__(self, key: Any, value: Any) -> None:
        key, kind = _index(self, key)
        if kind is _Index.MASK:
            _read("boolean-mask assignment")
        if isinstance(value, ndarray):
            _require_current([self, value])
            self._data[key] = value._data
            return
        host = np.asarray(value, dtype=self.dtype)
        if kind is _Index.BASIC and host.shape != ():
            raise ValueError("non-scalar numpy.ndarray cannot be used for fill")
        self._data[key] = host

    # ---- NumPy's protocols

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        outputs = kwargs.get("out", (None,))
        if len(outputs) != 1:
            raise ValueError("The 'out' parameter must have exactly one array value")
        if ufunc.__name__ in _NOT_IN_CUPY:
            return NotImplemented
        for value in (*inputs, *outputs) if method != "at" else inputs[:1]:
            if not isinstance(value, _OPERANDS):
                return NotImplemented
        if ufunc in _COMPARISONS.values():
            inputs = tuple(x.item() if isinstance(x, np.ndarray) and x.ndim == 0 else x for x in inputs)
        if method == "__call__":
            return _call(ufunc.__name__, ufunc, inputs, kwargs)
        return _ufunc_method(ufunc, method, *inputs, **kwargs)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        namespace: Any = sys.modules[__name__]
        try:
            for name in (*func.__module__.split(".")[1:], func.__name__):
                namespace = getattr(namespace, name)
        except AttributeError:
            return NotImplemented
        if not all(issubclass(t, ndarray | np.ndarray) for t in types):
            return NotImplemented
        return _call(func.__name__, _OWN.get(func.__name__, func), args, kwargs)


_OPERANDS: Final = (ndarray, np.ndarray, np.generic, int, float, complex, type(None))


def _defers(x: ndarray, other: Any) -> bool:
    """Whether ``x + other`` is left to `other`'s reflected operator."""
    if isinstance(other, ndarray):
        return False
    theirs = getattr(other, "__array_ufunc__", _MISSING)
    if theirs is not _MISSING:
        return theirs is None
    return bool(x.__array_priority__ < getattr(other, "__array_priority__", 0))


_SAME_OBJECT: Final[Any] = object.__eq__


def _never_equal(other: Any) -> bool:
    return other is None or type(other).__eq__ is _SAME_OBJECT


def _operator(ufunc: np.ufunc, reflected: bool = False) -> Callable[[Any, Any], Any]:
    def operate(self: ndarray, other: Any) -> Any:
        if _defers(self, other):
            return NotImplemented
        return ufunc(other, self) if reflected else ufunc(self, other)

    return operate


def _in_place(ufunc: np.ufunc) -> Callable[[ndarray, Any], ndarray]:
    def operate(self: ndarray, other: Any) -> ndarray:
        result: ndarray = _call(ufunc.__name__, ufunc, (self, other), {"out": self})
        return result

    return operate


def _comparison(ufunc: np.ufunc) -> Callable[[ndarray, Any], Any]:
    def compare(self: ndarray, other: Any) -> Any:
        if _defers(self, other):
            return NotImplemented
        if ufunc in (np.equal, np.not_equal) and _never_equal(other):
            return _new(np.full(self.shape, ufunc is np.not_equal), _thread.device)
        return ufunc(self, other)

    return compare


def _unary(ufunc: np.ufunc) -> Callable[[ndarray], Any]:
    return lambda self: _call(ufunc.__name__, ufunc, (self,), {})


def _method(name: str) -> Callable[..., Any]:
    function = _OWN.get(name) or getattr(np.ndarray, name, None) or getattr(np, name)

    @functools.wraps(function, assigned=("__name__", "__qualname__"))
    def call(*args: Any, **kwargs: Any) -> Any:
        return _call(name, function, args, kwargs)

    return call


def _attribute(name: str, is_array: bool) -> property:
    if is_array:
        return property(lambda self: _new(getattr(self._data, name), self._device))
    return property(lambda self: getattr(self._data, name))


def _furnish(cls: type[ndarray]) -> None:
    """Give the class the operators, methods and properties that are alike."""
    for name, ufunc in _OPERATORS.items():
        setattr(cls, f"__{name}__", _operator(ufunc))
        setattr(cls, f"__r{name}__", _operator(ufunc, reflected=True))
        if name not in ("divmod", "matmul"):
            setattr(cls, f"__i{name}__", _in_place(ufunc))
    for name, ufunc in _COMPARISONS.items():
        setattr(cls, f"__{name}__", _comparison(ufunc))
    for name, ufunc in _UNARY.items():
        setattr(cls, f"__{name}__", _unary(ufunc))
    for name in _METHODS:
        setattr(cls, name, _method(name))
    for name in ("T", "mT", "real", "imag"):
        setattr(cls, name, _attribute(name, is_array=True))
    for name in ("shape", "dtype", "ndim", "size", "itemsize", "nbytes", "strides", "flags"):
        setattr(cls, name, _attribute(name, is_array=False))


_furnish(ndarray)


# ---------------------------------------------------------------------------------------------- the namespace


def asarray(
    obj: Any,
    /,
    *,
    dtype: Any = None,
    device: int | str | Device | None = None,
    copy: bool | None = None,
    order: Literal["C", "F", "A", "K"] = "K",
) -> Any:
    """Make an array of the stand-in on `device`, by default the current one: the copy from the host.

    Parameters
    ----------
    obj : stand-in array, numpy.ndarray, scalar or nested sequence
        The values. A nested sequence may hold stand-in arrays, if it holds nothing else.
    dtype : dtype, optional
        By default what NumPy would choose.
    device : int, str or Device, optional
        ``"cuda:0"`` or ``"cuda:1"``.
    copy : bool, optional
        Whether to copy; by default only where needed. From the host it is always needed.
    order : {"C", "F", "A", "K"}
        Memory layout of a copy.

    Raises
    ------
    ValueError
        If ``copy=False`` and a copy is needed, or the dtype is one that CuPy does not have.
    TypeError
        If a sequence mixes stand-in arrays with other things.
    """
    target = Device(device).id
    if isinstance(obj, ndarray):
        if obj._device == target and dtype in (None, obj.dtype) and not copy:
            return obj
        data: Any = obj._data
    else:
        found: list[ndarray] = []
        leaves = list(_leaves(obj))
        if leaves and all(isinstance(leaf, ndarray) for leaf in leaves):
            data = np.array(_unwrap(obj, found))
            _require_current(found)
        else:
            data = obj  # NumPy refuses it if some leaves are stand-in arrays
    if copy is False:
        raise ValueError("Unable to avoid copy while creating an array as requested")
    return _new(np.array(data, dtype=dtype, order=order), target)


def _leaves(obj: Any) -> Iterator[Any]:
    if isinstance(obj, list | tuple):
        for item in obj:
            yield from _leaves(item)
    else:
        yield obj


def array(obj: Any, dtype: Any = None, copy: bool | None = True, order: Literal["C", "F", "A", "K"] = "K") -> Any:
    """Make an array of the stand-in, by default a copy."""
    return asarray(obj, dtype=dtype, copy=copy or None, order=order)


def astype(x: ndarray, dtype: Any, /, *, copy: bool = True, device: Any = None) -> Any:
    """Cast to `dtype`; ``copy=False`` returns `x` itself where nothing changes."""
    if device is None:
        return _call("astype", np.ndarray.astype, (x, dtype), {"copy": copy})
    return asarray(x, dtype=dtype, device=device, copy=copy or None)


def from_dlpack(x: Any, /, *, device: Any = None, copy: bool | None = None) -> Any:
    """Take over an array of the stand-in; host memory is refused, as by CuPy."""
    if not isinstance(x, ndarray):
        raise ValueError("CPU arrays cannot be directly imported to CuPy: use asarray, which copies")
    return asarray(x if copy else x.view(), device=x.device if device is None else device, copy=copy)


def scatter_add(a: ndarray, slices: Any, value: Any) -> None:
    """Add `value` into ``a[slices]`` in place, repeated indices adding up, as ``cupyx.scatter_add`` does."""
    _update_at(np.add, a, slices, value)


class __array_namespace_info__:
    """What the standard lets one ask of a namespace: capabilities, dtypes and devices."""

    def __init__(self) -> None:
        self._numpy = _numpy.__array_namespace_info__()

    def capabilities(self) -> Any:
        """Describe what the library can do."""
        return self._numpy.capabilities()

    def default_device(self) -> Device:
        """Return the current device."""
        return Device()

    def devices(self) -> tuple[Device, ...]:
        """Return the two devices."""
        return Device(0), Device(1)

    def default_dtypes(self, *, device: Any = None) -> Any:
        """Return the default dtypes, which are the same on every device."""
        return self._numpy.default_dtypes()

    def dtypes(self, *, device: Any = None, kind: Any = None) -> Any:
        """Return the standard's dtypes of a kind, which are the same on every device."""
        return self._numpy.dtypes(kind=kind)


@functools.cache
def _member(source: ModuleType, name: str) -> Any:
    value = _MISSING if name.startswith("__") or name in _NOT_IN_CUPY else getattr(source, name, _MISSING)
    if isinstance(value, type | float | None):
        return value  # dtypes, result classes and constants
    if callable(value) and value is not _MISSING:
        return _function(name, value)
    raise AttributeError(f"the CuPy stand-in has no {name!r}: CuPy has not, or the stand-in does not imitate it")


class _Chapter(ModuleType):
    """`linalg` and `fft`."""

    def __init__(self, source: ModuleType) -> None:
        super().__init__(f"{__name__}.{source.__name__.rpartition('.')[2]}", source.__doc__)
        self._source = source

    def __getattr__(self, name: str) -> Any:
        return _member(self._source, name)

    def __dir__(self) -> list[str]:
        return _names(self._source)


linalg: Final = _Chapter(_numpy.linalg)
fft: Final = _Chapter(_numpy.fft)


def __getattr__(name: str) -> Any:
    return _member(_numpy, name)  # and not kept in this module, where `any` and `bool` are Python's


def __dir__() -> list[str]:
    return sorted({*globals(), *_names(_numpy)})


def _names(source: ModuleType) -> list[str]:
    modules = {name for name in dir(source) if isinstance(getattr(source, name), ModuleType)}
    return sorted(name for name in set(dir(source)) - _NOT_IN_CUPY - modules if not name.startswith("_"))
