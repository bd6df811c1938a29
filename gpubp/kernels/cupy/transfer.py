"""Batches from the host to a GPU: through pinned memory, on a stream of their own, while the device computes."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import closing
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

import cupy
import numpy as np

from ...device import Device, to_numpy


class _Pinned:
    """Pinned memory for one batch, and the event after which it may be written again."""

    def __init__(self) -> None:
        self.memory: list[Any] = []
        self.copied: Any = None

    def hold(self, batch: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        """Copy host arrays here, when what was here before has left."""
        if self.copied is not None:
            self.copied.synchronize()
        self.memory += [None] * (len(batch) - len(self.memory))
        return tuple(self._held(k, x) for k, x in enumerate(batch))

    def _held(self, k: int, x: np.ndarray) -> np.ndarray:
        size = max(1, math.prod(x.shape) * x.dtype.itemsize)
        if self.memory[k] is None or self.memory[k].size() < size:
            self.memory[k] = cupy.cuda.alloc_pinned_memory(size)
        held: np.ndarray = np.ndarray(x.shape, x.dtype, self.memory[k])
        held[...] = x
        return held


class _Sent(NamedTuple):
    """A batch that is being copied: its arrays, when they are there, and the stream whose memory they have."""

    arrays: tuple[Any, ...]
    copied: Any
    stream: Any


class Uploader:
    """Copies batches to a device; the copy of each begins when the one before it is handed out.

    The arrays get memory of the stream that is going to use them, since a block of CuPy's pool goes back to the stream
    it was allocated on when its array is freed. So the copy, which is on another stream, waits for what that one does
    with the memory until then; and that one waits for the copy, also if nobody takes the batch. Pinned memory is kept
    for the batches to come, and not written before the copy from it is done: the thread that makes them waits for that.

    Parameters
    ----------
    device
        Which one.
    """

    def __init__(self, device: Device) -> None:
        self.device = device
        with device.activate():
            self.stream = cupy.cuda.Stream(non_blocking=True)
            self.allocated = cupy.cuda.Event(disable_timing=True)
        self.unused: SimpleQueue[_Pinned] = SimpleQueue()

    def stage(self, batch: tuple[Any, ...]) -> tuple[_Pinned, tuple[np.ndarray, ...]]:
        """Put a batch into pinned memory; for the thread that makes it."""
        with self.device.activate():
            try:
                pinned = self.unused.get_nowait()
            except Empty:
                pinned = _Pinned()
            return pinned, pinned.hold(tuple(map(to_numpy, batch)))

    def sent(self, staged: Generator[Any, None, None]) -> Iterator[tuple[Any, ...]]:
        """Yield the batches that were staged as arrays of the device."""
        under_way: deque[_Sent] = deque()
        try:
            with closing(staged):
                for pinned, batch in staged:
                    under_way.append(self.send(pinned, batch))
                    if len(under_way) > 1:
                        yield self.receive(under_way.popleft())
            while under_way:
                yield self.receive(under_way.popleft())
        finally:
            for sent in under_way:
                sent.stream.wait_event(sent.copied)

    def send(self, pinned: _Pinned, batch: tuple[np.ndarray, ...]) -> _Sent:
        """Begin the copy of a batch."""
        with self.device.activate():
            current = cupy.cuda.get_current_stream()
            arrays = tuple(cupy.empty(x.shape, x.dtype) for x in batch)
            current.record(self.allocated)
            self.stream.wait_event(self.allocated)
            for array, x in zip(arrays, batch, strict=True):
                array.set(x, stream=self.stream)
            copied = pinned.copied = self.stream.record(cupy.cuda.Event(block=True, disable_timing=True))
        self.unused.put(pinned)
        return _Sent(arrays, copied, current)

    def receive(self, sent: _Sent) -> tuple[Any, ...]:
        """Make the current stream wait for a batch."""
        with self.device.activate():
            cupy.cuda.get_current_stream().wait_event(sent.copied)
        return sent.arrays
