"""Optimizer steps on CuPy's arrays: one kernel for all parameters of a dtype, and one of a single block before it.

Parameters and state of a dtype are views of flat buffers. The gradients stay where they are: a kernel is handed their
addresses by value. What changes from step to step (learning rate, number of steps, norm, loss scale) is in device
memory, so that a step can be captured in a CUDA graph and launched again; the host reads none of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cupy
import numpy as np

from ...functions import update as definitions
from ...functions.update import Guard, State, Store, Update
from .common import FLOATS, Kernel, blocks

#: Elements that a warp takes at a time, four in a thread; every array begins at a multiple of it in the flat buffer.
TILE = 128
#: Gradients in the table of one launch. With it the arguments of a kernel stay below the 4096 bytes that all GPUs take.
MANY = 240
#: Warps in a block, and the most blocks of a launch: some waves of blocks on the largest GPUs.
WARPS, MOST, MOST_SUMS = 8, 16384, 4096

GIVEN = str.split("lr momentum nesterov beta1 beta2 eps decay decoupled clip_norm skip growth backoff interval dynamic")
MADE = str.split("steps skipped good norm factor rate root taken")

_GIVEN = np.dtype([(name, "f8") for name in GIVEN])
_TABLE = np.dtype([("gradient", "u8", MANY), ("first", "i4", MANY + 1), ("last", "i4", MANY), ("count", "i4")])

_STRUCTS = f"""
#define SMALLEST_SCALE {definitions.SMALLEST_SCALE!r}f
struct Given {{ double {", ".join(GIVEN)}; }};
struct Step {{ double {", ".join(MADE)}; }};
struct Table {{
    const T* gradient[{MANY}];  // null where the parameter is frozen
    int first[{MANY} + 1];      // tile of each
    int last[{MANY}];           // elements in its last tile
    int count;
}};
"""

# What a thread has of four neighbouring elements: `count` of them are there, and whole fours are aligned.
_FOURS = r"""
template <typename V> struct alignas(4 * sizeof(V) > 16 ? 16 : 4 * sizeof(V)) Four { V v[4]; };
template <typename V> __device__ void load(const V* x, int count, bool aligned, W (&y)[4])
{
    if (count == 4 && aligned) {
        Four<V> four = *reinterpret_cast<const Four<V>*>(x);
        for (int j = 0; j < 4; ++j) y[j] = W(four.v[j]);
    } else
        for (int j = 0; j < 4; ++j) y[j] = j < count ? W(x[j]) : W(0);
}
template <typename V> __device__ void store(V* x, int count, const W (&y)[4])
{
    if (count == 4) {
        Four<V> four;
        for (int j = 0; j < 4; ++j) four.v[j] = V(y[j]);
        *reinterpret_cast<Four<V>*>(x) = four;
    } else
        for (int j = 0; j < count; ++j) x[j] = V(y[j]);
}
__device__ bool is_aligned(const T* x) { return reinterpret_cast<size_t>(x) % alignof(Four<T>) == 0; }

// The gradients' elements of this thread, four by four: where(place in the flat buffer, gradient, count, aligned).
template <typename F> __device__ void each_four(const Table& table, F&& f)
{
    int lane = threadIdx.x % 32, warps = blockDim.x / 32, end = table.first[table.count];
    for (int tile = table.first[0] + blockIdx.x * warps + threadIdx.x / 32; tile < end; tile += gridDim.x * warps) {
        int a = 0;
        for (int b = table.count; b - a > 1;) {
            int middle = (a + b) / 2;
            if (table.first[middle] <= tile) a = middle;
            else b = middle;
        }
        const T* gradient = table.gradient[a];
        int there = tile + 1 == table.first[a + 1] ? table.last[a] : 128, count = min(there - 4 * lane, 4);
        if (!gradient || count <= 0) continue;
        gradient += (tile - table.first[a]) * 128ll + 4 * lane;
        f(tile * 128ll + 4 * lane, gradient, count, is_aligned(gradient));
    }
}
"""

# The sum of squares and the number of elements that are not finite, of each block.
look = Kernel(
    "optimizer_look",
    _STRUCTS
    + _FOURS
    + r"""
extern "C" __global__ void optimizer_look(const __grid_constant__ Table table, double* sums, long long first)
{
    W sum = 0, bad = 0;
    each_four(table, [&](long long, const T* gradient, int count, bool aligned) {
        W g[4];
        load(gradient, count, aligned, g);
        for (int j = 0; j < 4; ++j) {
            sum += g[j] * g[j];
            bad += isfinite(g[j]) ? W(0) : W(1);
        }
    });
    sum = block_sum(sum);
    bad = block_sum(bad);
    if (threadIdx.x == 0) {
        sums[2 * (first + blockIdx.x)] = sum;
        sums[2 * (first + blockIdx.x) + 1] = bad;
    }
}
""",
)

# One block: the numbers of this step from the sums of all blocks.
prepare = Kernel(
    "optimizer_prepare",
    _STRUCTS
    + r"""
extern "C" __global__ void optimizer_prepare(const Given* from_host, Step* step, float* scale, const double* sums,
                                             long long count)
{
    double sum = 0, bad = 0;
    for (long long k = threadIdx.x; k < count; k += blockDim.x) {
        sum += sums[2 * k];
        bad += sums[2 * k + 1];
    }
    sum = block_sum(sum);
    bad = block_sum(bad);
    if (threadIdx.x) return;
    Given given = *from_host;
    bool finite = bad == 0, taken = finite || !given.skip;
    double factor = scale ? 1 / double(*scale) : 1;
    if (sums) {
        double norm = sqrt(sum) * factor, clip = given.clip_norm / (norm + 1e-6);
        step->norm = norm;
        if (!isinf(given.clip_norm)) factor *= clip > 1 ? 1 : clip;  // NaN stays NaN
    }
    if (given.dynamic) {
        float grown = *scale * float(given.growth), less = *scale * float(given.backoff);
        step->good = finite ? step->good + 1 : 0;
        if (!finite && less >= SMALLEST_SCALE) *scale = less;
        if (step->good == given.interval) {
            step->good = 0;
            if (isfinite(grown)) *scale = grown;
        }
    }
    double t = step->steps + 1;
    step->steps += taken;
    step->skipped += !taken;
    step->taken = taken;
    step->factor = factor;
    step->rate = given.lr / (given.beta1 ? -expm1(log(given.beta1) * t) : 1);
    step->root = given.beta2 ? sqrt(-expm1(log(given.beta2) * t)) : 1;
}
""",
    {"T": ("float64",)},
)

# New numbers from the host.
give = Kernel(
    "optimizer_give",
    _STRUCTS
    + r"""
extern "C" __global__ void optimizer_give(const __grid_constant__ Given given, Given* to)
{
    if (threadIdx.x == 0) *to = given;
}
""",
    {"T": ("float64",)},
)

sgd = Kernel(
    "optimizer_sgd",
    _STRUCTS
    + _FOURS
    + r"""
extern "C" __global__ void optimizer_sgd(const __grid_constant__ Table table, T* parameters, W* vs,
                                         const Given* given, const Step* step)
{
    if (!step->taken) return;
    W factor = step->factor, rate = step->rate, decay = given->decay, momentum = given->momentum;
    bool nesterov = given->nesterov;
    each_four(table, [&](long long at, const T* gradient, int count, bool aligned) {
        W g[4], p[4], v[4];
        load(gradient, count, aligned, g);
        load(parameters + at, count, true, p);
        if (vs) load(vs + at, count, true, v);
        for (int j = 0; j < 4; ++j) {
            g[j] = g[j] * factor + decay * p[j];
            if (vs) {
                v[j] = momentum * v[j] + g[j];
                g[j] = nesterov ? g[j] + momentum * v[j] : v[j];
            }
            p[j] -= rate * g[j];
        }
        store(parameters + at, count, p);
        if (vs) store(vs + at, count, v);
    });
}
""",
)

adam = Kernel(
    "optimizer_adam",
    _STRUCTS
    + _FOURS
    + r"""
extern "C" __global__ void optimizer_adam(const __grid_constant__ Table table, T* parameters, W* ms, W* vs,
                                          const Given* from_host, const Step* step)
{
    if (!step->taken) return;
    Given given = *from_host;
    W factor = step->factor, rate = step->rate, inverse = 1 / step->root, eps = given.eps;
    W keep1 = given.beta1, new1 = 1 - given.beta1, keep2 = given.beta2, new2 = 1 - given.beta2;
    W decay = given.decoupled ? 0 : given.decay, keep = given.decoupled ? 1 - given.lr * given.decay : 1;
    each_four(table, [&](long long at, const T* gradient, int count, bool aligned) {
        W g[4], p[4], m[4], v[4];
        load(gradient, count, aligned, g);
        load(parameters + at, count, true, p);
        load(ms + at, count, true, m);
        load(vs + at, count, true, v);
        for (int j = 0; j < 4; ++j) {
            g[j] = g[j] * factor + decay * p[j];
            m[j] = keep1 * m[j] + new1 * g[j];
            v[j] = keep2 * v[j] + new2 * g[j] * g[j];
            p[j] = keep * p[j] - rate * (m[j] / (sqrt(v[j]) * inverse + eps));
        }
        store(parameters + at, count, p);
        store(ms + at, count, m);
        store(vs + at, count, v);
    });
}
""",
)

definitions.sgd.kernels["cupy"], definitions.adam.kernels["cupy"] = sgd, adam


class DeviceStore(Store):
    """Parameters as views of one flat buffer for each dtype; see this module."""

    replaces = False
    is_device = True

    def _prepare(self, slots: int) -> None:
        given = self.arrays
        groups: dict[str, list[int]] = {}
        for k, x in enumerate(given):
            groups.setdefault(str(x.dtype), []).append(k)
        self.arrays, self.slots = [None] * len(given), [()] * len(given)
        self._flats = [_Flat(members, [given[k] for k in members], slots, self.update) for members in groups.values()]
        for flat in self._flats:
            for k, view, state in zip(flat.members, flat.views, flat.states, strict=True):
                self.arrays[k], self.slots[k] = view, state
        self._kernel = self.update.kernels["cupy"]
        self._settings: dict[str, Any] | None = None
        self._given = cupy.zeros(len(GIVEN), dtype="float64")
        self._step = cupy.zeros(len(MADE), dtype="float64")
        made = {name: self._step[k] for k, name in enumerate(MADE)}
        self.steps, self.skipped, self.good = made["steps"], made["skipped"], made["good"]
        self._sums = None
        if self.guard.looks:
            self.norm = made["norm"]
            self._sums = cupy.zeros(2 * sum(t.sums for f in self._flats for t in f.tables), dtype="float64")
        if (rule := self.guard.loss_scale) is not None:
            self.scale = cupy.full((), rule.init, dtype="float32")
        self.load(given)

    def load(self, arrays: Sequence[Any]) -> None:
        for view, x in zip(self.arrays, arrays, strict=True):
            if x is not view:
                view[...] = x

    def restore(self, slots: Sequence[State], counts: Mapping[str, Any], scale: Any) -> None:
        for own, new in zip(self.slots, slots, strict=True):
            for view, x in zip(own, new, strict=True):
                view[...] = x
        for name, count in counts.items():
            getattr(self, name)[...] = count
        if scale is not None:
            self.scale[...] = scale

    def changed_arrays(self) -> list[Any]:
        buffers = [x for flat in self._flats for x in flat.buffers if x is not None]
        return [*buffers, self._step, *([] if self.scale is None else [self.scale])]

    def refresh(self, settings: dict[str, Any]) -> None:
        if settings == self._settings:
            return
        self._settings = dict(settings)
        given = np.zeros(1, _GIVEN)
        for name, value in _numbers(settings, self.guard).items():
            given[name] = value
        give(1, 32, given, self._given, T="float64")

    def step(self, gradients: Sequence[Any], settings: dict[str, Any]) -> None:
        kept = [flat.point([gradients[k] for k in flat.members]) for flat in self._flats]  # until they are launched
        done = 0
        if self._sums is not None:
            for flat in self._flats:
                for table in flat.tables:
                    look(table.sums, 32 * WARPS, table.data, self._sums, done, T=flat.dtype)
                    done += table.sums
        prepare(1, 256 if done else 32, self._given, self._step, self.scale, self._sums, done, T="float64")
        for flat in self._flats:
            for table in flat.tables:
                self._kernel(table.blocks, 32 * WARPS, table.data, *flat.buffers, self._given, self._step, T=flat.dtype)
        del kept


def _numbers(settings: dict[str, Any], guard: Guard) -> dict[str, float]:
    """The numbers of `Given` from an update's settings."""
    beta1, beta2 = settings.get("betas", (0.0, 0.0))
    numbers = {name: settings.get(name, 0.0) for name in ("lr", "momentum", "nesterov", "eps", "decoupled")}
    numbers |= {"beta1": beta1, "beta2": beta2, "decay": settings["weight_decay"], "skip": guard.skip}
    numbers["clip_norm"] = np.inf if guard.clip_norm is None else guard.clip_norm
    if (rule := guard.loss_scale) is not None:
        numbers |= {name: getattr(rule, name) for name in ("growth", "backoff", "interval", "dynamic")}
    return numbers


class _Flat:
    """All parameters of one dtype, with their state."""

    def __init__(self, members: list[int], arrays: Sequence[Any], slots: int, update: Update) -> None:
        self.members, self.dtype = members, arrays[0].dtype
        tiles = [-(-x.size // TILE) for x in arrays]
        first = [0, *np.cumsum(tiles).tolist()]
        n = first[-1] * TILE
        flat = cupy.zeros(n, dtype=self.dtype)
        wide = cupy.float64 if self.dtype == cupy.float64 else cupy.float32
        state = [cupy.zeros(n, dtype=wide) for _ in range(slots)]

        def views(buffer: Any) -> list[Any]:
            starts = [TILE * tile for tile in first[:-1]]
            return [buffer[s : s + x.size].reshape(x.shape) for s, x in zip(starts, arrays, strict=True)]

        self.views = views(flat)
        self.states = list(zip(*map(views, state), strict=True)) if slots else [()] * len(arrays)
        self.buffers = [flat, *state, *[None] * (len(update.slots) - slots)]
        self.tables = [
            _Table(first[k : k + MANY + 1], [x.size for x in arrays[k : k + MANY]]) for k in range(0, len(arrays), MANY)
        ]

    def point(self, gradients: Sequence[Any]) -> list[Any]:
        """Put the addresses of the gradients in the tables; return the arrays at these."""
        dtype = self.dtype
        arrays = [
            g if g is None or (g.dtype == dtype and g.flags.c_contiguous) else cupy.ascontiguousarray(g, dtype)
            for g in gradients
        ]
        addresses = [0 if g is None else g.data.ptr for g in arrays]
        for k, table in enumerate(self.tables):
            table.gradient[:] = addresses[MANY * k : MANY * (k + 1)]
        return arrays


class _Table:
    """Where up to `MANY` gradients are, as a kernel is told by value."""

    def __init__(self, first: list[int], sizes: list[int]) -> None:
        self.data = np.zeros(1, _TABLE)
        self.data["count"] = len(sizes)
        self.data["first"][0, : len(first)] = first
        self.data["last"][0, : len(sizes)] = [(n - 1) % TILE + 1 for n in sizes]
        self.gradient = self.data["gradient"][0, : len(sizes)]
        self.blocks = blocks(first[-1] - first[0], WARPS, MOST)
        self.sums = min(self.blocks, MOST_SUMS)


def make(update: Update, arrays: Sequence[Any], slots: int, guard: Guard) -> Store:
    """Make the store for arrays; the general one where the update or a dtype has no kernels."""
    has_kernels = "cupy" in update.kernels and all(str(x.dtype) in FLOATS for x in arrays)
    return (DeviceStore if has_kernels else Store)(update, arrays, slots, guard)


Store.of_library["cupy"] = make
