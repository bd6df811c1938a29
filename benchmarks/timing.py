"""Times of several steps, taken in turns, so that a busy machine disturbs all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

Step = Callable[[], Any]


def medians(
    steps: dict[str, Step], seconds: float, warm_up: int = 20, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Return the median time of each step in microseconds, by a clock, taken in turns."""
    sizes = {}
    for name, step in steps.items():
        for _ in range(warm_up):
            step()
        start = clock()
        step()
        sizes[name] = max(1, int(0.002 / max(clock() - start, 1e-7)))
    times: dict[str, list[float]] = {name: [] for name in steps}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[next(iter(times))]) < 5:
        for name, step in steps.items():
            n = sizes[name]
            start = clock()
            for _ in range(n):
                step()
            times[name].append((clock() - start) / n)
    return {name: statistics.median(values) * 1e6 for name, values in times.items()}
