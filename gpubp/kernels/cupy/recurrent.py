"""Recurrent networks: for each step through time one product and one kernel, which does all else that the step does.

The inputs' products with their weights are one for all steps, (batch, time, gates · n). To these the states' products
are added, step by step: what lies there then is all that the backward pass needs of the gates, whose activations it
makes again (in 16 bits, what came to a gate near its end says more than its activation).

States lie time first, so that each is a matrix of its own: H is (time + 1, batch, n), with the initial state at one
end, by the direction; where nobody wants a gradient it is the last state alone. The cotangents of the gates lie time
first, too, for the products with them, one a step and one for all steps together. What adds up from step to step, as
the cell state does and the cotangents do, stays in W.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import cupy

from ...functions import recurrent
from ...functions.recurrent import check_sequence, check_step
from .common import Kernel, blocks, contiguous, is_floating, or_null, wide
from .product import product, repeated
from .sums import column_sums

THREADS = 128

# A thread for each sequence and unit, k = (row, j); `step` counts in (batch, time), `place` in a buffer (time, batch).
_PLACE = r"""
    long long size = batch * n, k = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (k >= size) return;
    unsigned row = (unsigned)k / (unsigned)n, j = (unsigned)k % (unsigned)n;
    long long step = row * time + t;
"""

_FUNCTIONS = r"""
__device__ W at(const T* x, long long k) { return x ? W(x[k]) : W(0); }
__device__ W logistic(W z) { return W(1) / (W(1) + exp(-z)); }
"""

_FORWARD = r"""
extern "C" __global__ void %s_forward(T* a, const T* b, T* h, W* c, T* y, const bool* mask, %s
    long long batch, long long time, long long n, long long t, long long before, long long after)
{
    %s
    const T* from = h + before * size + k;
    T* to = h + after * size + k;
    bool there = !mask || mask[step];
    W out = W(0);
    %s
    if (y) y[step * n + j] = T(there ? out : W(0));
    *to = there ? T(out) : *from;
}
"""

_BACKWARD = r"""
extern "C" __global__ void %s_backward(const T* a, const T* b, const T* h, const W* c, const T* dy, long long dy_row,
    long long dy_step, W* dh, W* dc, T* dz, const bool* mask, %s long long batch, long long time, long long n,
    const T* arrived, long long t, long long before, long long after)
{
    %s
    long long place = t * size + row * n;  // times the gates
    bool there = !mask || mask[step];
    W d = at(arrived, k) + (dh ? dh[k] : W(0)), direct = there ? W(0) : d;
    d = there ? d + (dy ? W(dy[row * dy_row + t * dy_step + j]) : W(0)) : W(0);
    %s
    if (dh) dh[k] = direct;
}
"""


def _kernels(name: str, also: tuple[str, str], forward: str, backward: str) -> tuple[Kernel, Kernel]:
    return (
        Kernel(f"{name}_forward", _FUNCTIONS + _FORWARD % (name, also[0], _PLACE, forward)),
        Kernel(f"{name}_backward", _FUNCTIONS + _BACKWARD % (name, also[1], _PLACE, backward)),
    )


class _Cell(NamedTuple):
    """A kind of network: the kernels of one step for all sequences."""

    gates: int
    columns: int
    """How many cotangents of gates the backward kernel writes for each unit."""
    forward: Kernel
    backward: Kernel


RNN = _Cell(
    1,
    1,
    *_kernels(
        "rnn",
        ("long long rectified,", "long long rectified,"),
        r"""
    W z = W(a[step * n + j]) + at(b, j);
    out = !rectified ? tanh(z) : z <= W(0) ? W(0) : z;
""",
        r"""
    W out = h[after * size + k];
    dz[place + j] = T(!rectified ? d * (W(1) - out * out) : out <= W(0) ? W(0) : d);
""",
    ),
)

LSTM = _Cell(
    4,
    4,
    *_kernels(
        "lstm",
        ("", ""),
        r"""
    W* cell = c + after * size + k;
    W old = c[before * size + k];
    if (there) {
        const T* gate = a + step * 4 * n + j;
        W i = logistic(W(gate[0]) + at(b, j));
        W f = logistic(W(gate[n]) + at(b, j + n));
        W g = tanh(W(gate[2 * n]) + at(b, j + 2 * n));
        W o = logistic(W(gate[3 * n]) + at(b, j + 3 * n));
        W now = f * old + i * g;
        *cell = now;
        out = o * tanh(now);
    } else {
        *cell = old;
    }
""",
        r"""
    W i = 0, f = 0, g = 0, o = 0, e = 0, tanh_c = 0, old = 0;
    if (there) {
        const T* gate = a + step * 4 * n + j;
        i = logistic(W(gate[0]) + at(b, j)), f = logistic(W(gate[n]) + at(b, j + n));
        g = tanh(W(gate[2 * n]) + at(b, j + 2 * n)), o = logistic(W(gate[3 * n]) + at(b, j + 3 * n));
        old = c[before * size + k];
        tanh_c = tanh(c[after * size + k]);
        e = dc[k] + d * o * (W(1) - tanh_c * tanh_c);
        dc[k] = e * f;
    }
    T* to = dz + place * 4 + j;
    to[0] = T(e * g * (i * (W(1) - i)));
    to[n] = T(e * old * (f * (W(1) - f)));
    to[2 * n] = T(e * i * (W(1) - g * g));
    to[3 * n] = T(d * tanh_c * (o * (W(1) - o)));
""",
    ),
)

GRU = _Cell(
    3,
    4,  # the candidate's recurrent product, r, z, the candidate: the last three belong to W, the first three to U
    *_kernels(
        "gru",
        ("const T* b_hn, T* q, const T* p,", "const T* q,"),
        r"""
    if (there) {
        T* gate = a + step * 3 * n + j;
        long long at_p = row * 3 * n + j;
        W of_r = W(gate[0]) + W(p[at_p]), of_z = W(gate[n]) + W(p[at_p + n]);
        W of_state = W(p[at_p + 2 * n]) + at(b_hn, j);
        W r = logistic(of_r + at(b, j)), z = logistic(of_z + at(b, j + n));
        W g = tanh(W(gate[2 * n]) + at(b, j + 2 * n) + r * of_state);
        W old = c ? c[k] : W(*from);
        out = g + z * (old - g);
        if (c) c[k] = out;
        if (q) gate[0] = T(of_r), gate[n] = T(of_z), q[step * n + j] = T(of_state);
    }
""",
        r"""
    W dr = 0, dz_ = 0, dg = 0, r = 0;
    if (there) {
        const T* gate = a + step * 3 * n + j;
        W of_state = q[step * n + j];
        r = logistic(W(gate[0]) + at(b, j));
        W z = logistic(W(gate[n]) + at(b, j + n));
        W g = tanh(W(gate[2 * n]) + at(b, j + 2 * n) + r * of_state);
        dz_ = d * (W(h[before * size + k]) - g) * (z * (W(1) - z));
        dg = d * (W(1) - z) * (W(1) - g * g);
        dr = dg * of_state * (r * (W(1) - r));
        direct = d * z;
    }
    T* to = dz + place * 4 + j;
    to[0] = T(dg * r), to[n] = T(dr), to[2 * n] = T(dz_), to[3 * n] = T(dg);
""",
    ),
)


class _Kept(NamedTuple):
    """What a forward pass leaves for the backward pass."""

    wanted: tuple[bool, ...]
    """Whose cotangents are: of x, W, U, b, b_hn, h0 and c0."""
    x: Any
    W: Any
    U: Any
    b: Any
    A: Any
    """What came to the gates before their biases, (batch · time, gates · n)."""
    H: Any
    C: Any
    """LSTM: the cell states, as H, in the wide dtype."""
    Q: Any
    """GRU: the candidate's recurrent products and their biases, (batch, time, n)."""
    mask: Any


def _suitable(x: Any, U: Any) -> bool:
    return is_floating(x) and x.size > 0 and U.size > 0 and x.shape[0] * U.shape[0] < 2**31


def _steps(time: int, reverse: bool, keep: bool = True) -> Iterator[tuple[int, int, int]]:
    """Yield each step, and where the states before and after it lie."""
    for t in range(time - 1, -1, -1) if reverse else range(time):
        yield (t, t + reverse, t + (not reverse)) if keep else (t, 0, 0)


def _room(initial: Any, steps: int, like: tuple[Any, ...], dtype: Any, reverse: bool = False) -> Any:
    """Make room for the states before and after each step, with the first of them in its place."""
    S = cupy.empty((steps + 1, *like), dtype)
    S[-1 if reverse else 0] = 0 if initial is None else initial
    return S


# -- forward


def _forwards(
    cell: _Cell,
    wanted: tuple[bool, ...],
    x: Any,
    W: Any,
    U: Any,
    b: Any,
    h0: Any,
    c0: Any,
    mask: Any,
    reverse: bool,
    *also: Any,
    outputs: bool = True,
) -> tuple[Any, _Kept]:
    """Give the outputs, if they are asked for, and the last states; and what `_backwards` reads."""
    (batch, time, n_in), n, dtype, keep = x.shape, U.shape[0], x.dtype, any(wanted)
    x, b, mask, room = contiguous(x), contiguous(b), contiguous(mask), (batch, n)
    A = product(x.reshape(batch * time, n_in), W)
    H, Q = _room(h0, time * keep, room, dtype, reverse), None
    C: Any = None
    if cell is LSTM:
        C = _room(c0, time * keep, room, wide(x), reverse)
    elif cell is GRU:
        C = _room(h0, 0, room, wide(x)) if dtype.itemsize == 2 else None  # else H has all digits of the state
        Q, p = cupy.empty((batch, time, n), dtype) if keep else None, cupy.zeros((batch, 3 * n), dtype)
        also = (*also, Q, p)
    y = cupy.empty((batch, time, n), dtype) if outputs else None
    of_step = list(H), [p] * time if cell is GRU else list(A.reshape(batch, time, -1).transpose(1, 0, 2))
    launch, grid, threads = cell.forward.compiled(T=dtype), (blocks(batch * n, THREADS, 2**31 - 1),), (THREADS,)
    multiply = repeated(of_step[0][0], U, of_step[1][0], accumulate=cell is not GRU)
    args, zero = or_null(A, b, H, C, y, mask, *also, batch, time, n), h0 is None
    for t, before, after in _steps(time, reverse, keep):
        if not zero:
            multiply(of_step[0][before], of_step[1][t])
        launch(grid, threads, (*args, t, before, after))
        zero = False
    last = H[after].copy() if outputs and keep else H[after]  # a view would hold all states
    kept = _Kept(
        wanted, x if wanted[1] else None, W if wanted[0] else None, U, b, None if cell is RNN else A, H, C, Q, mask
    )
    return (y, last, C[after].astype(dtype)) if cell is LSTM else (y, last), kept


# -- backward


def _backwards(cell: _Cell, dY: Any, dH: Any, dC: Any, kept: _Kept, reverse: bool, *also: Any) -> tuple[Any, ...]:
    """Give the cotangents of x, W, U, b, b_hn, h0 and c0."""
    wanted, H, mask = kept.wanted, kept.H, kept.mask
    steps, batch, n = H.shape
    time, room, dtype = steps - 1, (batch, n), H.dtype
    dh = cupy.zeros(room, wide(H)) if mask is not None or cell is GRU else None
    dc: Any = _room(dC, 0, room, wide(H))[0] if cell is LSTM else None
    dZ = cupy.empty((time, batch, cell.columns * n), dtype)
    U = kept.U if cell is not GRU else cupy.concatenate([kept.U[:, 2 * n :], kept.U[:, : 2 * n]], axis=1)
    of_step, U_T = list(dZ[:, :, : U.shape[1]]), U.T
    if dY is not None and dY.strides[2] != dY.itemsize:
        dY = cupy.ascontiguousarray(dY)
    strides = (0, 0) if dY is None else (dY.strides[0] // dY.itemsize, dY.strides[1] // dY.itemsize)
    if cell is GRU:
        also = (kept.Q,)
    launch, grid, threads = cell.backward.compiled(T=dtype), (blocks(batch * n, THREADS, 2**31 - 1),), (THREADS,)
    args = or_null(kept.A, kept.b, H, kept.C, dY, *strides, dh, dc, dZ, mask, *also, batch, time, n)
    arrived, into, last = contiguous(dH), cupy.empty(room, dtype), time - 1 if reverse else 0
    multiply = repeated(of_step[0], U_T, into)
    for t, after, before in _steps(time, not reverse):
        launch(grid, threads, (*args, *or_null(arrived), t, before, after))
        if t != last or wanted[5]:
            multiply(of_step[t], into)
            arrived = into
    if wanted[5] and dh is not None:
        dh += arrived.astype(dh.dtype, copy=False)
        arrived = dh.astype(dtype)
    return (
        *_of_weights(cell, kept, dZ.reshape(time * batch, -1), H[1:] if reverse else H[:-1]),
        arrived if wanted[5] else None,
        dc.astype(dtype) if wanted[6] else None,
    )


def _of_weights(cell: _Cell, kept: _Kept, dZ: Any, before: Any) -> tuple[Any, ...]:
    """Give the cotangents of x, W, U, b and b_hn, from those of the gates, as rows, and the states before each step."""
    wanted, (time, batch, n), gates = kept.wanted, before.shape, cell.gates
    of_W, of_U = dZ[:, (cell.columns - gates) * n :], dZ[:, : gates * n]
    dx = dW = dU = None
    if wanted[0]:
        dx = product(of_W, kept.W.T).reshape(time, batch, -1).transpose(1, 0, 2)
    if wanted[1]:
        dW = product(contiguous(kept.x.transpose(1, 0, 2)).reshape(time * batch, -1).T, of_W)
    if wanted[2]:
        dU = product(before.reshape(time * batch, n).T, of_U)
        dU = dU if cell is not GRU else cupy.concatenate([dU[:, n:], dU[:, :n]], axis=1)
    db: Any = column_sums(dZ) if wanted[3] or wanted[4] else None
    return dx, dW, dU, db if cell is not GRU or db is None else db[n:], db[:n] if wanted[4] else None


def _wanted(needs: Any, *positions: int | None) -> tuple[bool, ...]:
    """Say whose cotangents are wanted among x, W, U, b, b_hn, h0 and c0, given their positions."""
    chosen = [k is not None and k < len(needs) and needs[k] for k in positions]
    return (*chosen, *[False] * (7 - len(chosen)))


# -- sequences


def _rnn(
    xp: Any, needs: Any, x: Any, W: Any, U: Any, b: Any = None, h0: Any = None, mask: Any = None, /, *,
    activation: str = "tanh", reverse: bool = False,
) -> Any:  # fmt: skip
    if activation not in recurrent.ACTIVATIONS:
        return NotImplemented
    check_sequence("rnn", 1, x, W, U, b, mask, h0=h0)
    if not _suitable(x, U):
        return NotImplemented
    return _forwards(
        RNN, _wanted(needs, 0, 1, 2, 3, None, 4), x, W, U, b, h0, None, mask, reverse, int(activation == "relu")
    )


def _rnn_backward(
    xp: Any, needs: Any, cotangents: Any, kept: _Kept, *, activation: str = "tanh", reverse: bool = False
) -> Any:
    dx, dW, dU, db, _, dh, _ = _backwards(RNN, *cotangents, None, kept, reverse, int(activation == "relu"))
    return dx, dW, dU, db, dh


def _lstm(
    xp: Any, needs: Any, x: Any, W: Any, U: Any, b: Any = None, h0: Any = None, c0: Any = None, mask: Any = None, /, *,
    reverse: bool = False,
) -> Any:  # fmt: skip
    check_sequence("lstm", 4, x, W, U, b, mask, h0=h0, c0=c0)
    if not _suitable(x, U):
        return NotImplemented
    return _forwards(LSTM, _wanted(needs, 0, 1, 2, 3, None, 4, 5), x, W, U, b, h0, c0, mask, reverse)


def _lstm_backward(xp: Any, needs: Any, cotangents: Any, kept: _Kept, *, reverse: bool = False) -> Any:
    dx, dW, dU, db, _, *dstates = _backwards(LSTM, *cotangents, kept, reverse)
    return dx, dW, dU, db, *dstates


def _gru(
    xp: Any, needs: Any, x: Any, W: Any, U: Any, b: Any = None, b_hn: Any = None, h0: Any = None, mask: Any = None, /,
    *, reverse: bool = False,
) -> Any:  # fmt: skip
    check_sequence("gru", 3, x, W, U, b, mask, b_hn=b_hn, h0=h0)
    if not _suitable(x, U):
        return NotImplemented
    return _forwards(GRU, _wanted(needs, 0, 1, 2, 3, 4, 5), x, W, U, b, h0, None, mask, reverse, contiguous(b_hn))


def _gru_backward(xp: Any, needs: Any, cotangents: Any, kept: _Kept, *, reverse: bool = False) -> Any:
    return _backwards(GRU, *cotangents, None, kept, reverse)[:6]


recurrent.rnn.override("cupy", _rnn, _rnn_backward)
recurrent.lstm.override("cupy", _lstm, _lstm_backward)
recurrent.gru.override("cupy", _gru, _gru_backward)


# -- single steps: sequences of one


def _override_step(name: str, cell: _Cell, states: int) -> None:
    function = getattr(recurrent, f"{name}_cell")
    W, h, c = 1 + states, 1, 2 if cell is LSTM else None
    positions = (0, W, W + 1, W + 2, W + 3 if cell is GRU else None, h, c)

    def forward(xp: Any, needs: Any, x: Any, h: Any, *args: Any, activation: str = "tanh") -> Any:
        if activation not in recurrent.ACTIVATIONS:
            return NotImplemented
        c, (W, U, b, b_hn) = args[0] if cell is LSTM else None, (*args[states - 1 :], None, None)[:4]
        check_step(
            f"{name}_cell",
            cell.gates,
            x,
            W,
            U,
            b,
            **({"b_hn": b_hn} if cell is GRU else {}),
            h=h,
            **({"c": c} if cell is LSTM else {}),
        )
        if not _suitable(x, U):
            return NotImplemented
        also = (int(activation == "relu"),) if cell is RNN else (contiguous(b_hn),) if cell is GRU else ()
        wanted = _wanted(needs, *positions)
        (_, *last), kept = _forwards(cell, wanted, x[:, None], W, U, b, h, c, None, False, *also, outputs=False)
        return tuple(last) if cell is LSTM else last[0], kept

    def backward(xp: Any, needs: Any, cotangents: Any, kept: _Kept, *, activation: str = "tanh") -> Any:
        dH, dC = cotangents if cell is LSTM else (cotangents, None)
        also = (int(activation == "relu"),) if cell is RNN else ()
        dx, *dweights, dh, dc = _backwards(cell, None, dH, dC, kept, False, *also)
        return dx if dx is None else dx[:, 0], dh, *((dc,) if cell is LSTM else ()), *dweights

    function.override("cupy", forward, backward)


_override_step("rnn", RNN, 1)
_override_step("lstm", LSTM, 2)
_override_step("gru", GRU, 1)
