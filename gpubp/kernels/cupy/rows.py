"""Kernels that work on rows: each is read once by a team of threads, a few of them or a whole block.

A row is an axis of an array of shape (outer, n, inner), so that row r has the elements ``x[r // inner, :, r % inner]``.
`RowKernel` writes the loop over rows; the loop's body is CUDA in which stand

- ``row``, ``at`` (where it starts in x), ``step`` (from one element to the next) and ``here``: false for a team that is
  beyond the last row, and only takes part in sums;
- ``V``, the number of elements that a thread takes at once: all of 16 bytes, or one. ``EACH_PACK`` is the loop over the
  number ``j`` of the packs of this thread, the one of this ``rank`` in its ``team``;
- ``load(p, j)`` and ``store(p, j, pack)``, a pack of the row of an array p; its elements are ``pack.of[k]``, and
  ``EACH_ONE`` is the loop over k;
- ``room``: null, or a place in shared memory where ``keep(pack, j)`` puts packs that ``kept(j)`` then gives the same
  thread; ``again(p, j)`` takes it from there or loads it once more;
- ``team.sum(w)``, ``team.max(w)``, and `Peak`, a running sum of exponentials.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import cupy

from .common import Kernel, wide
from .sums import PACK
from .totals import ALONE, CONCLUDE, MOST, Result

ROWS = (
    PACK
    + r"""
// A part of a block, of 1, 2, 4 ... 32 threads of a warp, or the whole of it.
struct team_ {
    int size, rank;
    template <typename Op> __device__ W all(W v, W nothing) const
    {
        if (size > 32) return block_<Op>(v, nothing);
        for (int k = size / 2; k; k /= 2) v = Op::of(v, __shfl_xor_sync(0xffffffffu, v, k));
        return v;
    }
    __device__ W sum(W v) const { return all<add_>(v, W(0)); }
    __device__ W max(W v) const { return all<maximum_>(v, -infinity()); }
};

// The highest number seen and the sum of exponentials of the distances from it. Where nothing but -inf has been seen,
// distances are from 0.
struct Peak {
    W top = -infinity(), total = 0;
    static __device__ W base(W top) { return top == -infinity() ? W(0) : top; }
    // Raise the top to that of some numbers; how far the base has moved.
    template <int V> __device__ W raise(const W* v)
    {
        W high = v[0];
#pragma unroll
        for (int k = 1; k < V; ++k) high = maximum_::of(high, v[k]);
        if (high <= top) return W(0);
        W from = top;
        top = maximum_::of(high, top);
        total *= exp(from - base(top));
        return base(top) - base(from);
    }
    template <int V> __device__ W see(const W* v)
    {
        W moved = raise<V>(v), b = base(top);
#pragma unroll
        for (int k = 0; k < V; ++k) total += exp(v[k] - b);
        return moved;
    }
    __device__ W join(team_ team)  // with those of the other threads
    {
        W from = top;
        top = team.max(top);
        total = team.sum(from == top ? total : total * exp(from - base(top)));
        return base(top) - base(from);
    }
};
"""
)

_LOOP = r"""
    const team_ team = {(int)threads_, (int)(threadIdx.x % (int)threads_)};
    const int size = team.size, rank = team.rank, per = blockDim.x / size, mine = threadIdx.x / size, length = (int)n;
    const long long step = inner;
    DYNAMIC_SHARED(T, shared_);
    T* const room = room_ ? shared_ + mine * (int)room_ * length : nullptr;
    for (long long first = (long long)blockIdx.x * per; first < rows; first += (long long)gridDim.x * per) {
        const long long row = first + mine, at = inner == 1 ? row * n : row / inner * n * inner + row % inner;
        const bool here = row < rows;
        const int packs = here ? length / V : 0;
"""

_ACCESS = r"""
#define load(p, j) (V > 1 ? reinterpret_cast<const pack_<V>*>((p) + at)[j] : pack_<V>{{(p)[at + (j) * step]}})
#define store(p, j, pack) \
    do { if (V > 1) reinterpret_cast<pack_<V>*>((p) + at)[j] = pack; else (p)[at + (j) * step] = pack.of[0]; } while (0)
#define keep(pack, j) reinterpret_cast<pack_<V>*>(room)[j] = pack
#define kept(j) reinterpret_cast<const pack_<V>*>(room)[j]
#define again(p, j) (room ? kept(j) : load(p, j))
#define EACH_PACK for (int j = rank; j < packs; j += size)
#define EACH_ONE _Pragma("unroll") for (int k = 0; k < V; ++k)
"""

#: The most threads of a block.
THREADS = 512
#: The bytes of shared memory that a launch may ask for: a block has 48 KiB, of which `block_sum` has some for itself.
SHARED = (48 << 10) - 32 * 8


class RowKernel:
    """A kernel whose teams of threads take one row after another; see above.

    Parameters
    ----------
    name
        Of the kernel.
    parameters
        Those of its own, as of a `Kernel`.
    body
        What is done with each row.
    before, after
        What stands before and after the loop over rows.
    room
        How many rows of T the body would keep in shared memory.
    sums
        Whether it ends with `gpubp.kernels.cupy.totals.CONCLUDE`: then one block takes all rows, if they are not many.
    types
        As of a `Kernel`.
    """

    def __init__(
        self,
        name: str,
        parameters: str,
        body: str,
        *,
        before: str = "",
        after: str = "",
        room: int = 0,
        sums: bool = False,
        types: dict[str, tuple[str, ...]] | None = None,
    ) -> None:
        shape = "long long rows, long long n, long long inner, long long threads_, long long room_"
        parameters = f"{parameters}, {shape}".replace("* ", "* __restrict__ ")
        names = ", ".join(p.split()[-1] for p in parameters.split(","))
        self._room, self._sums = room, sums
        self._kernel = Kernel(
            name,
            f"""{CONCLUDE if sums else ""}{ROWS}{_ACCESS}
template <int V> __device__ void {name}_({parameters})
{{
{before}{_LOOP}{body}
    }}
{after}
}}
extern "C" __global__ void __launch_bounds__({THREADS}) {name}({parameters}, long long wide_)
{{
    if (wide_) {name}_<WIDE>({names});
    else {name}_<1>({names});
}}
""",
            types,
        )

    def grid(self, rows: int, n: int, dtype: Any, inner: int = 1) -> int:
        """Return how many blocks take the rows."""
        return _plan(rows, n, inner, dtype.itemsize, self._room, self._sums)[0]

    def __call__(self, rows: int, n: int, *args: Any, inner: int = 1, T: Any, **types: Any) -> None:
        """Launch with the kernel's own arguments, the arrays of which are in C's order."""
        size = T.itemsize
        grid, threads, team, room, shared = _plan(rows, n, inner, size, self._room, self._sums)
        wide = inner == 1 and not n * size % 16 and all(x.data.ptr % 16 == 0 for x in args if type(x) is cupy.ndarray)
        self._kernel(grid, threads, *args, rows, n, inner, team, room, int(wide), shared=shared, T=T, **types)


@lru_cache(maxsize=1024)
def _plan(rows: int, n: int, inner: int, itemsize: int, room: int, sums: bool) -> tuple[int, int, int, int, int]:
    """Return blocks, threads of a block and of a team, rows to keep and the bytes of shared memory for them."""
    if n > 1024:
        threads = team = 256 if n <= 4096 else THREADS
    elif inner >= 32 and rows >= 4096:
        threads, team = 256, 1  # neighbouring threads take neighbouring rows, and read neighbouring elements
    else:
        threads, team = 256, min(32, 1 << max(0, -(-n // 4) - 1).bit_length())
    if sums and rows * n <= ALONE and team <= 32:
        threads = min(THREADS, -(-rows * team // 32) * 32)
    kept = n * itemsize * room if inner == 1 else 0
    while team <= 32 < threads and threads // team * kept > SHARED:
        threads //= 2
    shared = threads // team * kept
    if shared > SHARED:
        kept = shared = 0
    grid = -(-rows // (threads // team))
    if sums:
        grid = 1 if rows * n <= ALONE else min(MOST, grid)
    return grid, threads, team, room if kept else 0, shared


# -- kernels whose rows have losses

#: What such a kernel is told beside its inputs: ``losses`` is null where the sum is wanted.
OUTPUTS = "W* losses, W* parts, W* out, W* total, double scale"

#: The end of its body, after which `w` times `loss` is in the sum; and what stands around the loop.
COUNT = r"""
        if (here && rank == 0) {
            if (losses) losses[row] = loss * w;
            sum += loss * w;
        }
"""
SUMS: Any = {
    "before": "W sum = 0, weight = 0;",
    "after": "conclude(sum, weight, parts, out, total, scale);",
    "sums": True,
}


def summed(
    kernel: RowKernel, x: Any, given: tuple[Any, ...], reduction: str, weighted: bool = False, **types: Any
) -> tuple[Any, Result]:
    """Launch a kernel with `OUTPUTS` on the rows of x; return the reduced losses and the place of the sum."""
    n = x.shape[-1]
    count, each = x.size // n, reduction == "none"
    losses = cupy.empty(x.shape[:-1], wide(x)) if each else None
    result = Result(x, kernel.grid(count, n, x.dtype), weighted, 1.0 / count if reduction == "mean" else 1.0)
    kernel(count, n, *given, losses, *result.args, T=x.dtype, **types)
    return losses if each else result.finish(), result


def shape(x: Any, axis: int) -> tuple[int, int, int]:
    """Return how many rows there are along an axis of an array, their length, and how far apart their elements are."""
    n, inner = x.shape[axis], math.prod(x.shape[axis + 1 :]) if axis != -1 else 1
    return x.size // n, n, inner
