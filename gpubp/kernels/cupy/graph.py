"""CUDA graphs: what a step launches, recorded once and launched again as one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final

import cupy

from . import product


class Recorder:
    """Records on one device. All its graphs use one memory pool: each is done with it when the next one begins.

    Parameters
    ----------
    like
        An array on that device.
    """

    library: Final = "cupy"

    def __init__(self, like: Any) -> None:
        self.device = like.device
        with self.device:
            self.stream = cupy.cuda.Stream(non_blocking=True)
        self.pool = cupy.cuda.MemoryPool()

    def place(self, x: Any) -> Any:
        """Return `x` on the device; from the host it is copied through pinned memory, while the host goes on."""
        if isinstance(x, cupy.ndarray):
            return x
        with self.device:
            return cupy.asarray(x)

    def overlap(self, a: Any, b: Any) -> bool:
        """Whether two arrays may have memory in common; those of the host have none."""
        return isinstance(a, cupy.ndarray) and bool(cupy.may_share_memory(a, b))

    #: A context in which a step computes with the kernels of a recording: to the same bits, but for sums by atomics.
    #: It must have done so before a recording, in which kernels should not be loaded.
    as_recorded = staticmethod(product.as_captured)

    def record(self, run: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
        """Record what `run` launches, none of which is computed now.

        Returns
        -------
        function
            Launches the graph on the current stream.
        result
            What `run` returned: arrays that each launch fills.

        Raises
        ------
        Exception
            What `run` raised, or CUDA when `run` had done what no graph can hold.
        """
        with self.device, self.stream, cupy.cuda.using_allocator(self.pool.malloc):
            product.prepare()
            self.stream.begin_capture()  # in the relaxed mode, in which the pool may ask for more memory
            try:
                result = run()
            except BaseException:
                with suppress(Exception):  # CUDA says once more that there is no graph
                    self.stream.end_capture()
                raise
            graph = self.stream.end_capture()
        return partial(self.launch, graph), result

    def launch(self, graph: Any) -> None:
        """Launch a graph on the current stream; the pool, in which it works, lives as long as the recorder."""
        with self.device:
            graph.launch()
