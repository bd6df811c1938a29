"""Optimizer steps on CuPy's arrays: one kernel for a group's parameters of a dtype, one of a single block before all.

Parameters and state of a group and dtype are views of flat buffers. The gradients stay where they are: a kernel is
handed their addresses by value. What changes from step to step (learning rate, number of steps, norm, loss scale) is in
device memory, so that a step can be captured in a CUDA graph and launched again; the host reads none of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cupy
import numpy as np

from ...device import raw_namespace
from ...functions import update as definitions
from ...functions.update import COUNTS, NONFINITE, Guard, Settings, State, Store, Update
from .common import FLOATS, Kernel, blocks

#: Elements that a warp takes at a time, four in a thread; every array begins at a multiple of it in the flat buffer.
TILE = 128
#: Gradients in the table of one launch. With it the arguments of a kernel stay below the 4096 bytes that all GPUs take.
MANY = 240
#: Warps in a block, and the most blocks of a launch: some waves of blocks on the largest GPUs.
WARPS, MOST, MOST_SUMS = 8, 16384, 4096

#: The numbers of a group that come from the host, and with them those of all; what a step makes of them for each group,
#: and for all.
SETTINGS = str.split(
    "lr maximize weight_decay decoupled momentum dampening nesterov lr_decay initial eps alpha beta1 beta2 bias decay"
)
GUARD = str.split("clip_norm clip_value nonfinite growth backoff interval dynamic")
RATES = str.split("rate root first")
MADE = str.split("steps skipped good failed norm factor taken")

_GIVEN = np.dtype([(name, "f8") for name in SETTINGS + GUARD])
_TABLE = np.dtype([("gradient", "u8", MANY), ("first", "i4", MANY + 1), ("last", "i4", MANY), ("count", "i4")])

_STRUCTS = f"""
#define SMALLEST_SCALE {definitions.SMALLEST_SCALE!r}f
#define SKIP {NONFINITE.index("skip")}
struct Given {{ double {", ".join(SETTINGS + GUARD)}; }};
struct Rates {{ double {", ".join(RATES)}; }};
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
extern "C" __global__ void optimizer_prepare(const Given* groups, Rates* rates, long long many, Step* step,
                                             float* scale, const double* value, const double* sums, long long count)
{
    double sum = 0, bad = 0, t = step->steps + 1;
    for (long long k = threadIdx.x; k < count; k += blockDim.x) {
        sum += sums[2 * k];
        bad += sums[2 * k + 1];
    }
    sum = block_sum(sum);
    bad = block_sum(bad);
    for (long long k = threadIdx.x; k < many; k += blockDim.x) {
        Given given = groups[k];
        bool is_biased = given.bias && given.beta1;
        rates[k].rate = given.lr / ((is_biased ? -expm1(log(given.beta1) * t) : 1) * (1 + (t - 1) * given.lr_decay));
        rates[k].root = given.bias && given.beta2 ? sqrt(-expm1(log(given.beta2) * t)) : 1;
        rates[k].first = t == 1;
    }
    if (threadIdx.x) return;
    Given given = groups[0];
    bool sound = !value || isfinite(*value), finite = bad == 0 && sound, lost = !finite, taken = true;
    double factor = scale ? 1 / double(*scale) : 1;
    if (sums) {
        double norm = sqrt(sum) * factor, clip = given.clip_norm / (norm + 1e-6);
        step->norm = norm;
        if (!isinf(given.clip_norm)) factor *= clip > 1 ? 1 : clip;  // NaN stays NaN
    }
    if (given.dynamic) {
        float grown = *scale * float(given.growth), less = *scale * float(given.backoff);
        lost = lost && !(sound && less >= SMALLEST_SCALE);
        step->good = finite ? step->good + 1 : 0;
        if (!finite && less >= SMALLEST_SCALE) *scale = less;
        if (step->good == given.interval) {
            step->good = 0;
            if (isfinite(grown)) *scale = grown;
        }
    }
    if (given.nonfinite) {
        if (lost && step->failed < 0) step->failed = step->steps + step->skipped;
        taken = finite && (given.nonfinite == SKIP || step->failed < 0);
    }
    step->steps += taken;
    step->skipped += !taken;
    step->taken = taken;
    step->factor = factor;
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


def elementwise_update(update: str, slots: str, numbers: str, body: str) -> tuple[Kernel, tuple[str, ...]]:
    """Make a kernel of an update of each element; return it with the names of the arrays of state that it takes.

    Parameters
    ----------
    update
        Its name.
    slots
        The names of the arrays of state, in the order of the update's; one that is null reads as 0. Each is a number
        of an element in the body, and as ``has_NAME`` whether there is such an array.
    numbers
        Declarations from ``given``, ``rates`` and ``step``, before the elements.
    body
        What changes the parameter ``p`` and the state, given the gradient ``g``; ``lr`` is the learning rate, and
        ``rate`` that without bias.
    """
    names = slots.split()

    def each(text: str) -> str:
        return "".join(text.replace("NAME", name) for name in names)

    pointers, are_there = each(" W* all_NAME,"), each("const bool has_NAME = all_NAME; ")
    arrays, elements = each(", NAME_[4] = {}"), each(", NAME = NAME_[j]")
    loads, kept = each("if (has_NAME) load(all_NAME + at, count, true, NAME_); "), each("NAME_[j] = NAME; ")
    stores = each("if (has_NAME) store(all_NAME + at, count, NAME_); ")
    kernel = Kernel(
        f"optimizer_{update}",
        _STRUCTS
        + _FOURS
        + f"""
extern "C" __global__ void optimizer_{update}(const __grid_constant__ Table table, T* parameters,{pointers}
                                         const Given* from_host, const Rates* group, const Step* step)
{{
    if (!step->taken) return;
    Given given = *from_host;
    Rates rates = *group;
    W factor = given.maximize ? -step->factor : step->factor, most = given.clip_value, lr = given.lr, rate = rates.rate;
    W l2 = given.decoupled ? 0 : given.weight_decay, keep = given.decoupled ? 1 - given.lr * given.weight_decay : 1;
    {are_there}
    {numbers}
    each_four(table, [&](long long at, const T* gradient, int count, bool aligned) {{
        W gs[4], ps[4]{arrays};
        load(gradient, count, aligned, gs);
        load(parameters + at, count, true, ps);
        {loads}
        for (int j = 0; j < 4; ++j) {{
            W p = ps[j] * keep, g = gs[j] * factor{elements};
            g = g > most ? most : g < -most ? -most : g;  // NaN stays NaN
            g += l2 * p;{body}
            ps[j] = p;
            {kept}
        }}
        store(parameters + at, count, ps);
        {stores}
    }});
}}
""",
    )
    return kernel, tuple(names)


sgd = elementwise_update(
    "sgd",
    "v",
    "W momentum = given.momentum, share = rates.first ? 1 : 1 - given.dampening; bool nesterov = given.nesterov;",
    """
            if (has_v) {
                v = momentum * v + share * g;
                g = nesterov ? g + momentum * v : v;
            }
            p -= lr * g;""",
)

adagrad = elementwise_update(
    "adagrad",
    "s",
    "W initial = given.initial, eps = given.eps;",
    """
            s += g * g;
            p -= rate * (g / (sqrt(s + initial) + eps));""",
)

rmsprop = elementwise_update(
    "rmsprop",
    "v mean momentum",
    "W alpha = given.alpha, rest = 1 - given.alpha, eps = given.eps, mu = given.momentum;",
    """
            v = alpha * v + rest * (g * g);
            mean = has_mean ? alpha * mean + rest * g : W(0);
            W variance = v - mean * mean;
            g /= sqrt(variance < 0 ? W(0) : variance) + eps;
            if (has_momentum) g = momentum = mu * momentum + g;
            p -= lr * g;""",
)

adam = elementwise_update(
    "adam",
    "m v vmax",
    """W inverse = 1 / rates.root, eps = given.eps;
    W keep1 = given.beta1, new1 = 1 - given.beta1, keep2 = given.beta2, new2 = 1 - given.beta2;""",
    """
            m = keep1 * m + new1 * g;
            v = keep2 * v + new2 * g * g;
            vmax = has_vmax && vmax > v ? vmax : v;
            p -= rate * (m / (sqrt(vmax) * inverse + eps));""",
)

lion = elementwise_update(
    "lion",
    "m",
    "W keep1 = given.beta1, new1 = 1 - given.beta1, keep2 = given.beta2, new2 = 1 - given.beta2;",
    """
            W u = keep1 * m + new1 * g;
            p -= lr * (u > 0 ? W(1) : u < 0 ? W(-1) : u);
            m = keep2 * m + new2 * g;""",
)

average = elementwise_update(
    "average",
    "a",
    "W old = rates.first ? 0 : given.decay, share = 1 - old;",
    """
            p = a = old * (has_a ? a : p) + share * g;""",
)

# Muon: the momentum, and what is made orthogonal of it; between them are products.
muon_momentum = elementwise_update(
    "muon_momentum",
    "m change",
    "W keep1 = given.momentum, new1 = 1 - given.momentum; bool nesterov = given.nesterov;",
    """
            m = keep1 * m + new1 * g;
            change = nesterov ? keep1 * m + new1 * g : m;
            p = ps[j];""",
)
muon = elementwise_update("muon", "m change", "", "p -= lr * change;")

for _name in ("sgd", "adagrad", "rmsprop", "adam", "lion", "average", "muon"):
    getattr(definitions, _name).kernels["cupy"] = globals()[_name]


class DeviceStore(Store):
    """Parameters as views of one flat buffer for each group and dtype; see this module."""

    replaces = False
    is_device = True

    def _prepare(self) -> None:
        given = self.arrays
        together: dict[tuple[int, str], list[int]] = {}
        for k, x in enumerate(given):
            together.setdefault((self.groups[k], str(x.dtype)), []).append(k)
        self.arrays, self.slots = [None] * len(given), [()] * len(given)
        self._flats = []
        for (group, _), members in together.items():
            names = self.names[members[0]]
            is_muon = self.update is definitions.muon
            make = _Matrices if is_muon and "v" not in names else _Flat
            kernel = adam if is_muon and "v" in names else self.update.kernels["cupy"]
            flat = make(kernel, group, members, [given[k] for k in members], names)
            self._flats.append(flat)
            for k, view, state in zip(members, flat.views, flat.states, strict=True):
                self.arrays[k], self.slots[k] = view, state
        many = 1 + max(self.groups)
        self._settings: list[Settings] = [{}] * many
        self._given = cupy.zeros((many, len(SETTINGS + GUARD)), dtype="float64")
        self._rates = cupy.zeros((many, len(RATES)), dtype="float64")
        self._step = cupy.zeros(len(MADE), dtype="float64")
        made = {name: self._step[k] for k, name in enumerate(MADE)}
        self.steps, self.skipped, self.good, self.failed = (made[name] for name in COUNTS)
        self.clear()
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

    def clear(self) -> None:
        self.failed[...] = -1

    def changed_arrays(self) -> list[Any]:
        buffers = [x for flat in self._flats for x in flat.buffers if x is not None]
        return [*buffers, self._step, self._rates, *([] if self.scale is None else [self.scale])]

    def refresh(self, settings: Sequence[Settings]) -> None:
        for k, new in enumerate(settings):
            if new != self._settings[k]:
                given = np.zeros(1, _GIVEN)
                for name, number in _numbers(self.update, new, self.guard).items():
                    given[name] = number
                give(1, 32, given, self._given[k], T="float64")
        self._settings = list(settings)

    def step(self, gradients: Sequence[Any], settings: Sequence[Settings], value: Any = None) -> None:
        kept = [flat.point([gradients[k] for k in flat.members]) for flat in self._flats]  # until they are launched
        done = 0
        if self._sums is not None:
            for flat in self._flats:
                for table in flat.tables:
                    look(table.sums, 32 * WARPS, table.data, self._sums, done, T=flat.dtype)
                    done += table.sums
        if value is not None:
            value = cupy.asarray(value, dtype="float64") if done else None
        every = self._given, self._rates, len(self._given), self._step
        prepare(1, 256 if done else 32, *every, self.scale, value, self._sums, done, T="float64")
        for flat in self._flats:
            numbers = self._given[flat.group], self._rates[flat.group], self._step
            flat.step(numbers, settings[flat.group])
        del kept


def _numbers(update: Update, settings: Settings, guard: Guard) -> dict[str, float]:
    """The numbers of `Given` from an update's settings."""
    numbers = {name: settings[name] for name in SETTINGS if name in settings}
    if "betas" in settings:
        numbers["beta1"], numbers["beta2"] = settings["betas"]
        numbers["bias"] = update is not definitions.lion
    numbers["nonfinite"] = NONFINITE.index(guard.nonfinite)
    for name in ("clip_norm", "clip_value"):
        bound = getattr(guard, name)
        numbers[name] = np.inf if bound is None else bound
    if (rule := guard.loss_scale) is not None:
        numbers |= {name: getattr(rule, name) for name in ("growth", "backoff", "interval", "dynamic")}
    return numbers


class _Flat:
    """All parameters of one group and dtype, with their state."""

    def __init__(self, kernel: Any, group: int, members: list[int], arrays: Sequence[Any], names: Any) -> None:
        (self.kernel, order), self.group, self.members, self.dtype = kernel, group, members, arrays[0].dtype
        tiles = [-(-x.size // TILE) for x in arrays]
        first = [0, *np.cumsum(tiles).tolist()]
        n = first[-1] * TILE
        flat, wide = cupy.zeros(n, dtype=self.dtype), cupy.float64 if self.dtype == cupy.float64 else cupy.float32
        state = {name: cupy.zeros(n, dtype=wide) for name in self.needed(names)}

        def views(buffer: Any) -> list[Any]:
            starts = [TILE * tile for tile in first[:-1]]
            return [buffer[s : s + x.size].reshape(x.shape) for s, x in zip(starts, arrays, strict=True)]

        self.views = views(flat)
        self.of_slot = {name: views(buffer) for name, buffer in state.items()}
        self.states = [tuple(self.of_slot[name][k] for name in names) for k in range(len(arrays))]
        self.buffers = [flat, *(state.get(name) for name in order)]
        self.tables = [
            _Table(first[k : k + MANY + 1], [x.size for x in arrays[k : k + MANY]]) for k in range(0, len(arrays), MANY)
        ]

    def needed(self, names: Sequence[str]) -> Sequence[str]:
        """The buffers beside that of the parameters."""
        return names

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

    def step(self, numbers: tuple[Any, ...], settings: Settings) -> None:
        """Launch the update's kernel."""
        self.launch(self.kernel, numbers)

    def launch(self, kernel: Any, numbers: tuple[Any, ...]) -> None:
        for table in self.tables:
            kernel(table.blocks, 32 * WARPS, table.data, *self.buffers, *numbers, T=self.dtype)


class _Matrices(_Flat):
    """Muon's; one more buffer holds the momentum, and then what is made orthogonal of it."""

    def needed(self, names: Sequence[str]) -> Sequence[str]:
        return (*names, "change")

    def step(self, numbers: tuple[Any, ...], settings: Settings) -> None:
        self.launch(muon_momentum[0], numbers)
        addresses = [address for table in self.tables for address in table.gradient]
        for change, address in zip(self.of_slot["change"], addresses, strict=True):
            if address:  # else it is frozen
                xp = raw_namespace(change)
                change[...] = definitions.muon_change(xp, change, settings["iterations"], settings["match_adam"])
        self.launch(self.kernel, numbers)


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


def make(update: Update, arrays: Sequence[Any], *others: Any) -> Store:
    """Make the store for arrays; the general one where the update or a dtype has no kernels."""
    has_kernels = "cupy" in update.kernels and all(str(x.dtype) in FLOATS for x in arrays)
    return (DeviceStore if has_kernels else Store)(update, arrays, *others)


Store.of_library["cupy"] = make
