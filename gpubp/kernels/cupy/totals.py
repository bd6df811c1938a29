"""Sums over all elements, the same at every call: each block adds up its part, and one block the parts."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import cupy

from .common import Kernel, wide

#: Up to how many elements one block takes by itself, its most threads, and the most blocks of 256 threads beyond.
ALONE, THREADS, MOST = 8192, 512, 528

#: What a kernel does with its threads' parts of a sum, and of the sum of the weights that it is divided by.
CONCLUDE = r"""
__device__ void conclude(W sum, W weight, W* parts, W* out, W* total, double scale)
{
    sum = block_sum(sum);
    if (total) weight = block_sum(weight);
    if (threadIdx.x) return;
    if (gridDim.x > 1) {  // the others' parts are missing: see `finish`
        parts[2 * blockIdx.x] = sum, parts[2 * blockIdx.x + 1] = weight;
    } else if (total) {
        *total = weight = weight == W(0) ? W(1) : weight;
        *out = sum / weight;
    } else {
        *out = sum * W(scale);
    }
}
"""

_finish = Kernel(
    "finish",
    CONCLUDE
    + r"""
extern "C" __global__ void __launch_bounds__(512) finish(
    const W* parts, long long count, W* out, W* total, double scale)
{
    W sum = 0, weight = 0;
    for (long long k = threadIdx.x; k < count; k += blockDim.x) sum += parts[2 * k], weight += parts[2 * k + 1];
    conclude(sum, weight, nullptr, out, total, scale);
}
""",
)


class Result:
    """Where a kernel that ends with `conclude` puts its sum.

    Parameters
    ----------
    like
        An array of the kernel's T; the sum is of W.
    grid
        The number of blocks.
    weighted
        Whether the sum is divided by that of the weights (by 1 where it is 0), which is `total` then.
    scale
        What the sum is multiplied by otherwise.
    """

    __slots__ = ("_grid", "args", "out", "scale", "total")

    def __init__(self, like: Any, grid: int, weighted: bool = False, scale: float = 1.0) -> None:
        W = wide(like)
        self.out, self.scale = cupy.empty((), W), float(scale)
        self.total = cupy.empty((), W) if weighted else None
        self.args = cupy.empty((grid, 2), W) if grid > 1 else None, self.out, self.total, self.scale
        self._grid = grid

    def finish(self) -> Any:
        """Add up the parts, if there are several; return the sum."""
        if self._grid > 1:
            parts, out, total, scale = self.args
            _finish(1, min(THREADS, -(-self._grid // 32) * 32), parts, self._grid, out, total, scale, T=out.dtype)
        return self.out


@lru_cache(maxsize=1024)
def launch(n: int) -> tuple[int, int]:
    """Return the blocks and threads that add up n elements."""
    if n <= ALONE:
        return 1, min(THREADS, max(32, -(-n // 64) * 32))
    return min(MOST, -(-n // 1024)), 256


class Sum:
    """The sum of an expression over the elements of arrays that are alike and in C's order.

    Parameters
    ----------
    name
        Of the kernel.
    inputs
        The names that the arrays' elements, of dtype T, have in the expression.
    expression
        C++, of type W.
    numbers
        The names of further numbers in the expression, which are doubles.
    before
        C++ statements before it.
    """

    def __init__(
        self, name: str, inputs: tuple[str, ...], expression: str, numbers: tuple[str, ...] = (), before: str = ""
    ) -> None:
        arrays = ", ".join(f"const T* {x}_" for x in inputs)
        elements = " ".join(f"const T {x} = {x}_[k];" for x in inputs)
        doubles = "".join(f", double {x}" for x in numbers)
        self._kernel = Kernel(
            name,
            CONCLUDE
            + f"""
extern "C" __global__ void __launch_bounds__({THREADS}) {name}(
    {arrays}, long long n{doubles}, W* parts, W* out, W* total, double scale)
{{
    W sum = 0;
    EACH(k, n) {{
        {elements} {before}
        sum += {expression};
    }}
    conclude(sum, W(0), parts, out, total, scale);
}}
""",
        )

    def __call__(self, *args: Any, scale: float = 1.0) -> Any:
        """Return the sum times `scale`, in W, of the arrays and then the numbers of the expression."""
        x = args[0]
        n, dtype = x.size, x.dtype
        grid, threads = launch(n)
        if not n:
            return cupy.zeros((), wide(x))
        result = Result(x, grid, scale=scale)
        arrays = [y for y in args if type(y) is cupy.ndarray]
        self._kernel(grid, threads, *arrays, n, *map(float, args[len(arrays) :]), *result.args, T=dtype)
        return result.finish()
