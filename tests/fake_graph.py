"""CUDA graphs, streams and memory pools for the stand-in that stands in CuPy's place.

While a stream captures, every operation is noted with the memory that it reads and writes. Then what was changed gets
back what it held, and what is new is poisoned: as on a GPU, nothing has been computed yet. A launch repeats the
operations in the same memory. So a number that became part of the graph, where it should have been an array, gives
wrong results; and memory that is not the graph's own may have been freed, which is an error.

A capture refuses what CuPy refuses: reads by the host, copies from it, cuBLAS and cuSOLVER.
"""

from __future__ import annotations

import functools
import gc
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np

from tests import fake_copies, host_cuda

#: Functions that CuPy gives to libraries which it refuses in a capture.
REFUSED = set(
    str.split("cholesky det dot eig eigh eigvals eigvalsh einsum inner inv lstsq matmul pinv qr slogdet solve svd")
    + str.split("tensordot vdot vecdot")
)

#: What new memory holds that is no floating-point number.
POISON = {"b": True, "i": -99, "u": 99}

_alive: dict[int, Any] = {}  # weak references to the memory of all arrays


class _Thread(threading.local):
    def __init__(self) -> None:
        self.streams: list[Stream] = []
        self.pools: list[MemoryPool] = []
        self.inside = False  # an operation, of whose parts nothing is noted

    @property
    def graph(self) -> Graph | None:
        return self.streams[-1].graph if self.streams and not self.inside else None


_thread = _Thread()


def install(cupy: Any) -> None:
    """Give the stand-in all this."""
    cuda = cupy.cuda
    cuda.Stream, cuda.MemoryPool, cuda.using_allocator = functools.partial(Stream, cupy), MemoryPool, using_allocator
    null = fake_copies.Null()
    cuda.get_current_stream = lambda: _thread.streams[-1] if _thread.streams else null
    cupy.get_default_memory_pool = lambda: SimpleNamespace(used_bytes=used_bytes)
    new, read = cupy._new, cupy._read

    def watched_new(data: Any, device: int) -> Any:
        base = owner(data)
        if id(base) not in _alive:
            _alive[id(base)] = weakref.ref(base, functools.partial(_forget, id(base)))
            if _thread.pools:
                _thread.pools[-1].take(base)
        return new(data, device)

    def watched_read(what: str) -> None:
        if _thread.graph is not None:
            raise RuntimeError(f"the current stream is capturing, so D2H transfers are disallowed ({what})")
        read(what)

    cupy._new, cupy._read = watched_new, watched_read
    fake_copies.install(cupy, owner, null)
    for name in ("_call", "_update_at", "asarray"):
        setattr(cupy, name, _noted(cupy, getattr(cupy, name)))
    for name in ("__getitem__", "__setitem__", "copy", "set"):
        setattr(cupy.ndarray, name, _noted(cupy, getattr(cupy.ndarray, name)))

    def launch(run: Any, arrays: Any) -> None:
        if _thread.graph is not None:
            _thread.graph.note(lambda _: run() or [], [], arrays)

    host_cuda.watchers.append(launch)


def used_bytes() -> int:
    """The bytes of all arrays there are."""
    return sum(x.nbytes for ref in list(_alive.values()) if (x := ref()) is not None)


def _forget(key: int, _: Any) -> None:
    del _alive[key]


def _noted(cupy: Any, function: Any) -> Any:
    """An operation of the stand-in that a capture notes."""

    @functools.wraps(function)
    def operation(*args: Any, **kwargs: Any) -> Any:
        graph = _thread.graph
        if graph is None:
            return function(*args, **kwargs)
        _check_allowed(cupy, function.__name__, args)
        _thread.inside = True
        try:
            result = function(*args, **kwargs)
        finally:
            _thread.inside = False
        places: list[Any] = []
        template = _with_slots(cupy, (args, kwargs), places)
        read = {id(owner(x._data)) for x in places}
        results: list[Any] = []
        _with_slots(cupy, result, results)
        made = [k for k, x in enumerate(results) if id(owner(x._data)) not in read]
        if made or not results:

            def again(arrays: list[Any]) -> list[Any]:
                args, kwargs = _without_slots(template, arrays)
                found: list[Any] = []
                _with_slots(cupy, function(*args, **kwargs), found)
                return [found[k] for k in made]

            graph.note(again, places, [results[k] for k in made])
        elif function.__name__ == "_call" and ("out" in args[3] or args[0] in ("sort", "fill")):
            graph.note(lambda arrays: _repeat(function, template, arrays), places, [])
        return result

    return operation


def _repeat(function: Any, template: Any, arrays: list[Any]) -> list[Any]:
    args, kwargs = _without_slots(template, arrays)
    function(*args, **kwargs)
    return []


def _check_allowed(cupy: Any, name: str, args: Any) -> None:
    if name == "_call" and args[0] in REFUSED:
        raise NotImplementedError("calling cuBLAS API during stream capture is currently unsupported")
    from_host = name == "asarray" and not isinstance(args[0], cupy.ndarray) and np.ndim(args[0])
    if from_host or name == "set":
        raise RuntimeError("the current stream is capturing, so H2D transfers are disallowed")


class _Slot(int):
    """Stands for an array of a list."""


def _with_slots(cupy: Any, x: Any, found: list[Any]) -> Any:
    if isinstance(x, cupy.ndarray):
        found.append(x)
        return _Slot(len(found) - 1)
    if isinstance(x, list | tuple):
        return [type(x) is list, *(_with_slots(cupy, part, found) for part in x)]
    if isinstance(x, dict):
        return {key: _with_slots(cupy, part, found) for key, part in x.items()}
    return x


def _without_slots(x: Any, arrays: list[Any]) -> Any:
    if type(x) is _Slot:
        return arrays[x]
    if isinstance(x, list):
        parts = [_without_slots(part, arrays) for part in x[1:]]
        return parts if x[0] else tuple(parts)
    if isinstance(x, dict):
        return {key: _without_slots(part, arrays) for key, part in x.items()}
    return x


def owner(data: Any) -> Any:
    """The array that is not a view, in the end."""
    while isinstance(data.base, np.ndarray):
        data = data.base
    return data


class _Place:
    """Where an array stands: its memory, which is kept only if it is the graph's own, and its form there."""

    def __init__(self, array: Any, own: dict[int, Any]) -> None:
        data, base = array._data, owner(array._data)
        self.base = (lambda: base) if id(base) in own else weakref.ref(base)
        self.offset = data.ctypes.data - base.ctypes.data
        self.shape, self.dtype, self.strides, self.device = data.shape, data.dtype, data.strides, array._device

    def data(self) -> Any:
        base = self.base()
        if base is None:
            raise AssertionError("a graph uses memory that was freed")
        return np.ndarray(self.shape, self.dtype, _bytes(base), self.offset, self.strides)


def _bytes(base: Any) -> Any:
    return base.ravel(order="K").view("u1") if base.size else np.empty(1, "u1")


class Graph:
    """The operations of one capture; see `cupy.cuda.Graph`."""

    def __init__(self, cupy: Any) -> None:
        gc.collect()
        self.cupy = cupy
        self.operations: list[Any] = []
        self.before = [(x, x.copy()) for ref in list(_alive.values()) if (x := ref()) is not None]
        self.old = {id(x) for x, _ in self.before}
        self.own: dict[int, Any] = {}

    def note(self, again: Any, places: list[Any], results: list[Any]) -> None:
        """Note an operation: a function of the arrays that returns results, and where these go."""
        for x in (*places, *results):
            base = owner(x._data)
            if id(base) not in self.old:
                self.own[id(base)] = base
        where = [[_Place(x, self.own) for x in arrays] for arrays in (places, results)]
        self.operations.append((again, *where))

    def end(self) -> Graph:
        """Undo all that was computed in the capture."""
        for x, known in self.before:
            x[...] = known
        self.before.clear()
        for base in self.own.values():
            base[...] = POISON.get(base.dtype.kind, np.nan)
        return self

    def launch(self, stream: Any = None) -> None:
        """Repeat the operations."""
        for again, places, results in self.operations:
            found = again([self.cupy._new(place.data(), place.device) for place in places])
            for place, value in zip(results, found or (), strict=bool(found)):
                place.data()[...] = value._data


class Stream(fake_copies.Ordered):
    """See `cupy.cuda.Stream`."""

    def __init__(self, cupy: Any, non_blocking: bool = False) -> None:
        self.cupy, self.non_blocking, self.device_id = cupy, non_blocking, cupy.Device().id
        self.ptr = id(self)
        self.graph: Graph | None = None

    def __enter__(self) -> Stream:
        if self.device_id != self.cupy.Device().id:
            raise RuntimeError(f"The device that the stream is created on ({self.device_id}) does not match")
        _thread.streams.append(self)
        return self

    def __exit__(self, *exception: object) -> None:
        _thread.streams.pop()

    def begin_capture(self, mode: int | None = None) -> None:
        if not self.non_blocking or self.graph is not None or mode is not None:
            raise RuntimeError(
                "a capture needs a stream of its own, and the pool the relaxed mode, which is the default"
            )
        self.graph = Graph(self.cupy)

    def end_capture(self) -> Graph:
        if self.graph is None:
            raise RuntimeError("cudaErrorIllegalState: the stream is not capturing")
        graph, self.graph = self.graph, None
        return graph.end()

    def is_capturing(self) -> bool:
        return self.graph is not None


class MemoryPool:
    """See `cupy.cuda.MemoryPool`; it only counts, and nothing is used again."""

    def __init__(self) -> None:
        self.taken = 0

    def take(self, base: Any) -> None:
        self.taken += base.nbytes

    def total_bytes(self) -> int:
        return self.taken

    def malloc(self, size: int) -> None:
        raise NotImplementedError


@contextmanager
def using_allocator(allocator: Any) -> Iterator[None]:
    """See `cupy.cuda.using_allocator`."""
    _thread.pools.append(allocator.__self__)
    try:
        yield
    finally:
        _thread.pools.pop()
