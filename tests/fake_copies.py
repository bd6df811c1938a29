"""Streams that copy from the host while the host goes on, for the stand-in that stands in CuPy's place.

A copy on a stream other than the current one is put off: what it writes is poisoned, and it takes place only when
something waits for an event that was recorded after it. It reads the host's memory at that time, so what was written
over too early comes out wrong. It is an error if it begins without waiting for the stream on which the memory it writes
was allocated, since that may still be working there, and if that memory has been freed when it takes place.
"""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

POISON = {"b": True, "i": -99, "u": 99}  # what memory holds that is no floating-point number

_lock = threading.RLock()
_ticks = 0  # of a clock that goes on with every event and allocation
_allocated: dict[int, tuple[int, Any]] = {}  # memory: when, and on which stream
_streams: weakref.WeakSet[Any] = weakref.WeakSet()


def _tick() -> int:
    global _ticks
    _ticks += 1
    return _ticks


class Ordered:
    """What streams have in common: work that was put off, how much of it is done, and for what they have waited."""

    work: list[Callable[[], None]]
    done: int
    seen: dict[Ordered, int]

    def __new__(cls, *_: Any, **__: Any) -> Any:
        self = super().__new__(cls)
        self.work, self.done, self.seen = [], 0, {}
        _streams.add(self)
        return self

    def run(self, until: int) -> None:
        """Do what was put off, up to some number of it since the beginning."""
        with _lock:
            while self.done < until:
                self.done += 1
                self.work.pop(0)()

    def record(self, event: Any) -> Any:
        event.stream, event.after, event.tick = self, self.done + len(self.work), _tick()
        return event

    def wait_event(self, event: Any) -> None:
        if event.stream is not None:
            event.stream.run(event.after)
            self.seen[event.stream] = max(self.seen.get(event.stream, 0), event.tick)

    def synchronize(self) -> None:
        self.run(self.done + len(self.work))


class Null(Ordered):
    """The stream on which all is done where no other is current."""

    ptr = 0

    def is_capturing(self) -> bool:
        return False


class Event:
    """See `cupy.cuda.Event`."""

    def __init__(self, block: bool = False, disable_timing: bool = False) -> None:
        self.stream: Any = None
        self.after = self.tick = 0

    def synchronize(self) -> None:
        from cupy import _read  # the stand-in

        _read("Event.synchronize()")
        if self.stream is not None:
            self.stream.run(self.after)


class Pinned(bytearray):
    """See `cupy.cuda.PinnedMemoryPointer`."""

    def size(self) -> int:
        return len(self)


def waiting() -> int:
    """How many copies nothing has waited for yet."""
    return sum(len(stream.work) for stream in list(_streams))


def forget() -> None:
    """Leave undone what nothing has waited for."""
    for stream in list(_streams):
        stream.work.clear()


def install(cupy: Any, owner: Callable[[Any], Any], null: Null) -> None:
    """Give the stand-in all this; `owner` finds the memory of an array."""
    cuda = cupy.cuda
    cuda.Event, cuda.alloc_pinned_memory = Event, Pinned
    new, put = cupy._new, cupy.ndarray.set
    cuda.Stream.null = null

    def watched_new(data: Any, device: int) -> Any:
        base = owner(data)
        if id(base) not in _allocated:
            _allocated[id(base)] = _tick(), cuda.get_current_stream()
            weakref.finalize(base, _allocated.pop, id(base), None).atexit = False
        return new(data, device)

    @functools.wraps(put)
    def set_(self: Any, arr: Any, stream: Any = None) -> None:
        if stream is None or stream is cuda.get_current_stream():
            return put(self, arr)
        when, on = _allocated[id(owner(self._data))]
        if on is not stream and stream.seen.get(on, 0) < when:
            raise AssertionError("a copy did not wait for the stream whose memory it writes")
        self._data[...] = POISON.get(self._data.dtype.kind, np.nan)
        memory = weakref.ref(self._data)

        def copy() -> None:
            data = memory()
            if data is None:
                raise AssertionError("a copy wrote to memory that was freed")
            data[...] = arr

        stream.work.append(copy)
        return None

    cupy._new, cupy.ndarray.set = watched_new, set_
