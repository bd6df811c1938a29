"""Times of steps by the events of the device, or by the host's clock; and the most memory of a step."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable
from typing import Any, NamedTuple

Step = Callable[[], Any]


class Sample(NamedTuple):
    """One measurement: milliseconds a step of the device, and of the host until it had asked for it."""

    device: float
    host: float


class Clock:
    """The host's clock, for libraries that compute while one waits."""

    def wait(self, out: Any) -> None:
        """Wait until everything asked for, `out` the last of it, is computed."""

    def sample(self, step: Step, n: int) -> Sample:
        """Take n steps and return the mean time of one."""
        self.wait(None)
        begin = time.perf_counter()
        out = None
        for _ in range(n):
            out = step()
        asked = time.perf_counter()
        self.wait(out)
        return Sample(1e3 * (time.perf_counter() - begin) / n, 1e3 * (asked - begin) / n)

    def peak(self, step: Step) -> float | None:
        """Return the most memory of arrays that is held at once in a step, in bytes, or None if it cannot be known."""
        return None


class TracedClock(Clock):
    """That of NumPy, whose memory tracemalloc counts."""

    def peak(self, step: Step) -> float | None:
        # What was held before is not seen: parameters, optimizer and batch are no part of the figure.
        tracemalloc.start()
        step()
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return float(found)


class CudaClock(Clock):
    """Events recorded on the stream that is current, of CuPy or PyTorch."""

    event: Callable[[], Any]

    def between(self, begin: Any, end: Any) -> float:
        """Return the milliseconds between two events that have happened."""
        raise NotImplementedError

    def sample(self, step: Step, n: int) -> Sample:
        begin, end = self.event(), self.event()
        self.wait(None)
        begin.record()
        start = time.perf_counter()
        for _ in range(n):
            step()
        asked = time.perf_counter()
        end.record()
        end.synchronize()
        return Sample(self.between(begin, end) / n, 1e3 * (asked - start) / n)


class CupyClock(CudaClock):
    """CuPy's events; memory as its pool hands it out, and `graphs`, the bytes that graphs keep for themselves."""

    def __init__(self, graphs: Callable[[], int] = lambda: 0) -> None:
        import cupy

        self.graphs = graphs
        self.cupy, self.event = cupy, cupy.cuda.Event

    def wait(self, out: Any) -> None:
        self.cupy.cuda.Device().synchronize()

    def between(self, begin: Any, end: Any) -> float:
        return float(self.cupy.cuda.get_elapsed_time(begin, end))

    def peak(self, step: Step) -> float | None:
        before = self.cupy.get_default_memory_pool().used_bytes()
        with _watch(self.cupy) as seen:
            step()
        self.wait(None)
        return float(before + seen.most + self.graphs())


def _watch(cupy: Any) -> Any:
    class Watch(cupy.cuda.MemoryHook):  # type: ignore[misc, name-defined]
        """Counts what is allocated and freed while it stands."""

        name = "gpubp benchmark"
        now = most = 0

        def malloc_postprocess(self, **given: Any) -> None:
            self.now += given["mem_size"]
            self.most = max(self.most, self.now)

        def free_postprocess(self, **given: Any) -> None:
            self.now -= given["mem_size"]

    return Watch()


class TorchClock(CudaClock):
    """PyTorch's events and statistics of memory; with `graphs`, what they keep for themselves is counted too."""

    def __init__(self, graphs: bool) -> None:
        import torch

        self.cuda, self.graphs = torch.cuda, graphs

    def event(self) -> Any:
        return self.cuda.Event(enable_timing=True)

    def wait(self, out: Any) -> None:
        self.cuda.synchronize()

    def between(self, begin: Any, end: Any) -> float:
        return float(begin.elapsed_time(end))

    def peak(self, step: Step) -> float | None:
        self.wait(None)
        self.cuda.reset_peak_memory_stats()
        step()
        self.wait(None)
        if self.graphs:
            self.cuda.empty_cache()
            return float(self.cuda.memory_reserved())
        return float(self.cuda.max_memory_allocated())


class JaxClock(Clock):
    """JAX, which is asked to wait for the parameters; its memory where the device keeps statistics."""

    def __init__(self, contender: Any) -> None:
        self.contender = contender

    def wait(self, out: Any) -> None:
        import jax

        jax.block_until_ready((self.contender.params, out))

    def peak(self, step: Step) -> float | None:
        self.wait(step())
        found = (self.contender.device.memory_stats() or {}).get("peak_bytes_in_use")
        return None if found is None else float(found)  # since the process began: JAX cannot forget it
