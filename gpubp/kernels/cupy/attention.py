"""Attention: blocks of queries, whose scores are made by a product and turned into weights by one kernel.

Scores and the cotangents of weights are kept in W, in which products of 16 bits are written, too; weights and the
cotangents of scores are of the arrays' dtype. In the backward pass the weights are made again from the scores and their
logarithmic sums. Queries, keys and values are laid out heads first, (sequences · heads, time, features), so that a
block's products are one call.

Where cuDNN can be had it does better in 16 bits: see `sdpa`, which is asked first.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import cupy

from ...functions.attention import attention, check, check_dropout, draw_rows, scale_of
from . import sdpa
from .common import Kernel, blocks, is_floating, wide
from .product import product
from .random import draw

#: How many queries of a sequence are dealt with at a time, and how many scores.
ROWS, SCORES = 512, 1 << 24

# A copy of x of shape (sequences, time, heads, features), by strides, as (sequences, heads, time, features), or back.
_copy = Kernel(
    "attention_copy",
    r"""
struct alignas(16) pack_ { T of[16 / sizeof(T)]; };

template <typename I> __device__ void copy(const T* x, T* y, I heads, I time, I features, I count,
    long long x_n, long long x_h, long long x_t, long long y_n, long long y_h, long long y_t, bool packed)
{
    for (I e = blockIdx.x * (I)blockDim.x + threadIdx.x; e < count; e += gridDim.x * (I)blockDim.x) {
        I f = e % features, row = e / features, h = row % heads, t = row / heads % time, n = row / heads / time;
        long long from = n * x_n + h * x_h + t * x_t, to = n * y_n + h * y_h + t * y_t;
        if (packed) reinterpret_cast<pack_*>(y + to)[f] = reinterpret_cast<const pack_*>(x + from)[f];
        else y[to + f] = x[from + f];
    }
}

extern "C" __global__ void attention_copy(const T* x, T* y, long long sequences, long long heads, long long time,
    long long features, long long x_n, long long x_h, long long x_t, long long y_n, long long y_h,
    long long y_t, long long packed)
{
    if (packed) features /= 16 / sizeof(T);
    long long count = sequences * heads * time * features;
    if (count + (long long)gridDim.x * blockDim.x < 1LL << 32)
        copy<unsigned>(x, y, heads, time, features, count, x_n, x_h, x_t, y_n, y_h, y_t, packed);
    else
        copy<unsigned long long>(x, y, heads, time, features, count, x_n, x_h, x_t, y_n, y_h, y_t, packed);
}
""",
)

# A warp for each query: `sequence` is of the sequences and heads together, `query` is that of the whole sequence, and
# the keys that it may attend to end at `stop`.
_ROW = r"""
struct Row {
    const bool* visible;
    const T* bias;
    long long step;  // from key to key in the mask
    const W* products;
    W factor;
    __device__ W operator[](long long j) const
    {
        W v = products[j] * factor;
        if (visible && !visible[j * step]) return -infinity();
        return bias ? v + W(bias[j * step]) : v;
    }
};

// The draw of which weights stay, which is made for a number of queries of all sequences at a time.
struct Draw { key_ key; long long largest, first; };

// Do something with each column of a row that is this thread's, told whether it stays.
template <typename F> __device__ void each(const Draw& draw, long long stop, F f)
{
    int lane = threadIdx.x % 32;
    if (draw.largest < 0) {
        for (long long j = lane; j < stop; j += 32) f(j, true);
        return;
    }
    for (long long m = draw.first / 8 + lane; 8 * m < draw.first + stop; m += 32) {
        unsigned bits = kept8(draw.key, m, draw.largest);
        for (int k = 0; k < 8; ++k) {
            long long j = 8 * m + k - draw.first;
            if (j >= 0 && j < stop) f(j, bits >> k & 1);
        }
    }
}
"""
_PARAMETERS = """const W* products, W* log_sums, const bool* visible, const T* bias, long long of_n, long long of_h,
    long long of_q, long long of_k, long long heads, long long queries, long long keys, long long causal,
    long long draw_rows, long long dropped, long long largest, long long a, long long b, const long long* at,
    long long number, double scale, double factor, long long sequences, long long first, long long start,
    long long rows, long long end"""
_PLACE = r"""
    int lane = threadIdx.x % 32;
    long long place = blockIdx.x * (long long)(blockDim.x / 32) + threadIdx.x / 32;
    if (place >= sequences * rows) return;
    long long sequence = first + place / rows, query = start + place % rows;
    long long stop = causal ? min(end, max(keys - queries + query + 1, 0LL)) : end;
    long long in_mask = sequence / heads * of_n + sequence % heads * of_h + query * of_q;
    Row row = {visible ? visible + in_mask : nullptr, bias ? bias + in_mask : nullptr, of_k, products + place * end,
        W(factor)};
    Draw draw = {{}, -1, 0};
    if (dropped) {
        long long block = query / draw_rows, from = block * draw_rows, drawn = min(draw_rows, queries - from);
        long long columns = causal ? max(keys - queries + from + drawn, 1LL) : keys;
        draw.key = {(unsigned long long)a, (unsigned long long)b, at ? *at : number, block};
        draw.largest = largest;
        draw.first = (sequence * drawn + query - from) * columns;
    }
    W* log_sum = log_sums + sequence * queries + query;
"""

_weights = Kernel(
    "attention_weights",
    _ROW
    + r"""
extern "C" __global__ void attention_weights("""
    + _PARAMETERS
    + r""", T* weights)
{"""
    + _PLACE
    + r"""
    W top = -infinity(), total = 0;
    for (long long j = lane; j < stop; j += 32) {
        W v = row[j];
        if (v > top) total = total * exp(top - v) + W(1), top = v;
        else if (v != -infinity()) total += exp(v - top);  // NaN stays
    }
    W highest = warp_max(top);
    if (highest == -infinity()) highest = W(0);
    total = warp_sum(total * exp(top - highest)) + (highest - highest);  // an infinite score is not a number's
    if (total == W(0)) total = W(1);
    if (lane == 0) *log_sum = highest + log(total);
    W share = W(scale) / total;
    T* to = weights + place * end;
    each(draw, stop, [&](long long j, bool stays) { to[j] = T(stays ? exp(row[j] - highest) * share : W(0)); });
    for (long long j = stop + lane; j < end; j += 32) to[j] = T(0);
}
""",
)

_weights_backward = Kernel(
    "attention_weights_backward",
    _ROW
    + r"""
extern "C" __global__ void attention_weights_backward("""
    + _PARAMETERS
    + r""", const W* dweights, T* weights, T* dscores)
{"""
    + _PLACE
    + r"""
    W sum = *log_sum, dot = 0;
    const W* d = dweights + place * end;
    if (dscores)
        each(draw, stop, [&](long long j, bool stays) { if (stays) dot += exp(row[j] - sum) * d[j]; });
    dot = warp_sum(dot) * W(scale);
    each(draw, stop, [&](long long j, bool stays) {
        W p = exp(row[j] - sum), dp = dscores && stays ? d[j] * W(scale) : W(0);  // read first: what is written may be
        if (weights) weights[place * end + j] = T(stays ? p * W(scale) : W(0));   // in the place of what was read
        if (dscores) dscores[place * end + j] = T(p * (dp - dot) * row.factor);
    });
    for (long long j = stop + lane; j < end; j += 32) {
        if (weights) weights[place * end + j] = T(0);
        if (dscores) dscores[place * end + j] = T(0);
    }
}
""",
)


def _four(x: Any) -> Any:
    """Give an array one batch axis."""
    return x if x.ndim == 4 else x.reshape(-1, *x.shape[-3:])


def _copied(x: Any, y: Any) -> Any:
    """Write x into y; both have axes (sequences, heads, time, features) and features without gaps."""
    size, (sequences, heads, time, features) = x.itemsize, x.shape
    steps = [s // size for s in (*x.strides[:3], *y.strides[:3])]
    many = 16 // size
    packed = features % many == 0 and not any(s % many for s in steps) and not (x.data.ptr | y.data.ptr) % 16
    count = x.size // many if packed else x.size
    _copy(blocks(count, 256), 256, x, y, sequences, heads, time, features, *steps, int(packed), T=x.dtype)
    return y


def _heads_first(x: Any) -> Any:
    """Lay out (sequences, time, heads, features) as (sequences · heads, time, features)."""
    x = _four(x)
    sequences, time, heads, features = x.shape
    if x.flags.c_contiguous and (heads == 1 or time == 1):
        return x.reshape(sequences * heads, time, features)
    if x.strides[3] != x.itemsize:
        x = cupy.ascontiguousarray(x)
    y = cupy.empty((sequences, heads, time, features), x.dtype)
    return _copied(x.transpose(0, 2, 1, 3), y).reshape(sequences * heads, time, features)


def _heads_last(x: Any, shape: tuple[int, ...]) -> Any:
    """Lay out (sequences · heads, time, features) as an array of shape (..., time, heads, features)."""
    time, heads, features = shape[-3:]
    if heads == 1 or time == 1:
        return x.reshape(shape)
    y = cupy.empty((x.shape[0] // heads, time, heads, features), x.dtype)
    _copied(x.reshape(-1, heads, time, features), y.transpose(0, 2, 1, 3))
    return y.reshape(shape)


class _Kept(NamedTuple):
    """What a forward pass leaves for the backward pass: arrays with their heads first."""

    q: Any
    k: Any
    v: Any
    log_sums: Any
    args: tuple[Any, ...]
    """What kernels are told of the mask, the shapes and the dropout."""


def _told(
    q: Any, k: Any, mask: Any, step: Any, causal: bool, factor: float, dropout: float, key: Any
) -> tuple[Any, ...]:
    """Give the kernels' parameters from `visible` to `factor`."""
    batch, queries, heads, keys = q.shape[:-3], q.shape[-3], q.shape[-2], k.shape[-3]
    visible = bias = None
    steps: tuple[int, ...] = (0, 0, 0, 0)
    if mask is not None:
        mask = mask.reshape((1,) * (3 + len(batch) - mask.ndim) + mask.shape)
        inner = mask.shape[-3:]
        if mask.ndim != 4:  # the batch axes become one
            mask = cupy.broadcast_to(mask, (*batch, *inner)).reshape(-1, *inner)
        steps = tuple(0 if n == 1 else s // mask.itemsize for n, s in zip(mask.shape, mask.strides, strict=True))
        visible, bias = (mask, None) if mask.dtype == bool else (None, mask)
    drawn = draw(1 - dropout, key, step) if dropout else (0, 0, 0, None, 0)
    return (
        *(visible, bias, *steps, heads, queries, keys, int(causal)),
        *(draw_rows(), int(dropout > 0), *drawn, 1 / (1 - dropout), float(factor)),
    )


def _parts(sequences: int, queries: int, keys: int, causal: bool) -> Iterator[tuple[slice, slice, int]]:
    """Yield sequences and queries, and how many keys these may attend to; the last queries first."""
    rows = min(queries, ROWS)
    together = max(1, SCORES // (rows * keys))
    for first in range(0, sequences, together):
        some = slice(first, min(first + together, sequences))
        for start in reversed(range(0, queries, rows)):
            stop = min(start + rows, queries)
            yield some, slice(start, stop), max(1, keys - queries + stop) if causal else keys


class _Buffers:
    """Room for the scores of a block, and more like it."""

    def __init__(self, number: int) -> None:
        self.rooms: list[Any] = [None] * number

    def of(self, k: int, shape: tuple[int, ...], dtype: Any) -> Any:
        """Give the k-th buffer this shape."""
        size = math.prod(shape)
        if self.rooms[k] is None or self.rooms[k].size < size:
            self.rooms[k] = cupy.empty(size, dtype)
        return self.rooms[k][:size].reshape(shape)


def _launch(kernel: Kernel, scores: Any, kept: _Kept, some: slice, rows: slice, *arrays: Any) -> None:
    n, m, end = scores.shape
    args = scores, kept.log_sums, *kept.args, n, some.start, rows.start, m, end, *arrays
    kernel(-(-n * m // 4), 128, *args, T=kept.q.dtype)


def _forward(
    xp: Any,
    needs: Any,
    q: Any,
    k: Any,
    v: Any,
    mask: Any = None,
    step: Any = None,
    /,
    *,
    causal: bool = False,
    scale: float | None = None,
    dropout: float = 0.0,
    key: Any = None,
) -> Any:
    check(q, k, v, mask)
    check_dropout(dropout, key, step)
    if not is_floating(q) or not (q.size and v.size) or (mask is not None and len(needs) > 3 and needs[3]):
        return NotImplemented
    factor = scale_of(q, scale)
    if mask is None and not dropout:
        found = sdpa.attend(any(needs), q, k, v, causal, factor)
        if found is not None:
            return found
    args, shape = _told(q, k, mask, step, causal, factor, dropout, key), (*q.shape[:-1], v.shape[-1])
    q, k, v = map(_heads_first, (q, k, v))
    kept = _Kept(q, k, v, cupy.empty(q.shape[:2], wide(q)), args)
    out, buffers, narrow = cupy.empty((*q.shape[:2], v.shape[2]), q.dtype), _Buffers(2), q.dtype.itemsize == 2
    for some, rows, end in _parts(len(q), q.shape[1], k.shape[1], causal):
        size = (some.stop - some.start, rows.stop - rows.start, end)
        s = product(q[some, rows], k[some, :end].transpose(0, 2, 1), out=buffers.of(0, size, wide(q)))
        weights = buffers.of(1, size, q.dtype) if narrow else s
        _launch(_weights, s, kept, some, rows, weights)
        product(weights, v[some, :end], out=out[some, rows])
    return _heads_last(out, shape), (kept, shape)


def _backward(
    xp: Any,
    needs: Any,
    dY: Any,
    residuals: Any,
    *,
    causal: bool = False,
    scale: float | None = None,
    dropout: float = 0.0,
    key: Any = None,
) -> Any:
    if type(residuals) is sdpa.Kept:
        return sdpa.cotangents(dY, residuals)
    kept, shape = residuals
    q, k, v = kept.q, kept.k, kept.v
    dO = _heads_first(dY)
    gradients: list[Any] = [cupy.empty(x.shape, x.dtype) if needs[i] else None for i, x in enumerate((q, k, v))]
    dq, dk, dv = gradients
    weights: Any = None
    dscores: Any = None
    buffers, narrow, of_scores = _Buffers(4), q.dtype.itemsize == 2, needs[0] or needs[1]
    for some, rows, end in _parts(len(q), q.shape[1], k.shape[1], causal):
        size = (some.stop - some.start, rows.stop - rows.start, end)
        here, more = dO[some, rows], rows.stop < q.shape[1]
        s = product(q[some, rows], k[some, :end].transpose(0, 2, 1), out=buffers.of(0, size, wide(q)))
        dweights = None
        if of_scores:
            dweights = product(here, v[some, :end].transpose(0, 2, 1), out=buffers.of(1, size, wide(q)))
            dscores = buffers.of(2, size, q.dtype) if narrow else dweights
        if needs[2]:
            weights = buffers.of(3, size, q.dtype) if narrow else s
        _launch(_weights_backward, s, kept, some, rows, dweights, weights, dscores)
        if needs[0]:
            product(dscores, k[some, :end], out=dq[some, rows])
        if needs[1]:
            product(dscores.transpose(0, 2, 1), q[some, rows], out=dk[some, :end], accumulate=more)
        if needs[2]:
            product(weights.transpose(0, 2, 1), here, out=dv[some, :end], accumulate=more)
    *batch, queries, heads, _ = shape
    return (
        _heads_last(dq, (*batch, queries, heads, q.shape[2])) if needs[0] else None,
        _heads_last(dk, (*batch, k.shape[1], heads, k.shape[2])) if needs[1] else None,
        _heads_last(dv, (*batch, v.shape[1], heads, v.shape[2])) if needs[2] else None,
    )


attention.override("cupy", _forward, _backward)
