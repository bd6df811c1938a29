"""Recurrent networks on NumPy: buffers for all steps, time first, and no new array within the loops through time.

Activations lie gate by gate, in the shape (gates, time, batch, n), so that each elementwise call runs over contiguous
memory, and the recurrent product is one small product for each gate. A sigmoid is ½ + ½ tanh(z / 2), with the half
under the tanh drawn into the weights, so that one call of tanh serves all gates. The cotangents of the gates lie row
by row, (time · batch, gates · n), for the large products after the loop.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ...functions import recurrent
from ...functions.recurrent import check_sequence
from .common import HALF, ONE, ZERO, ndarray, ones

_add, _subtract, _multiply, _tanh, _matmul = np.add, np.subtract, np.multiply, np.tanh, np.matmul
_copyto, _sum = np.copyto, np.add.reduce


class _Kept(NamedTuple):
    """What a forward pass leaves for the backward pass."""

    rows: Any
    """The inputs, (time · batch, n_in), if W's gradient is wanted."""
    W: Any
    U: Any
    A: Any
    """The gates' activations, (gates, time, batch, n); of a plain network, None."""
    H: Any
    """The states before and after each step, (time + 1, batch, n)."""
    more: Any
    """LSTM: the cell states, as H. GRU: the candidate's recurrent products, (time, batch, n)."""
    gone: Any
    """Where sequences have no step, for each time: of shape (batch, 1), or None for nowhere."""


def _suitable(x: Any, mask: Any) -> bool:
    return type(x) is ndarray and x.dtype.char in "fd" and (mask is None or type(mask) is ndarray)


def _by_gate(W: Any, gates: int, halved: tuple[int, ...]) -> Any:
    """Return weights or biases (m, gates · n) as (gates, m, n), the halves of some of them."""
    W = W.reshape(-1, gates, W.shape[-1] // gates).transpose(1, 0, 2).copy()
    for k in halved:
        _multiply(W[k], HALF[W.dtype.char], W[k])
    return W


def _affine(x: Any, W: Any, b: Any, gates: int, halved: tuple[int, ...] = ()) -> tuple[Any, Any]:
    """Return the inputs as rows, and all gates' shares of the input, (gates, time, batch, n)."""
    batch, time, n_in = x.shape
    rows = np.ascontiguousarray(x.transpose(1, 0, 2)).reshape(time * batch, n_in)
    A = _matmul(rows, _by_gate(W, gates, halved))
    if b is not None:
        _add(A, _by_gate(b, gates, halved), A)
    return rows, A.reshape(gates, time, batch, A.shape[2])


def _room(A: Any, initial: Any, reverse: bool) -> Any:
    """Make room for the states before and after each step, with the first of them in its place."""
    _, time, batch, n = A.shape
    S = np.empty((time + 1, batch, n), A.dtype)
    S[-1 if reverse else 0] = ZERO[A.dtype.char] if initial is None else initial
    return S


def _last(S: Any, reverse: bool) -> Any:
    return S[0 if reverse else -1].copy()


def _gone(mask: Any, time: int) -> list[Any]:
    if mask is None:
        return [None] * time
    return [None if whole else gone[:, None] for whole, gone in zip(mask.all(0).tolist(), ~mask.T, strict=True)]


def _before_and_after(S: Any, reverse: bool) -> tuple[Any, Any]:
    return (S[1:], S[:-1]) if reverse else (S[:-1], S[1:])


def _ordered(backwards: bool, *arrays: Any) -> Any:
    """Go through arrays along their first axis, or through the views in lists."""
    lists = map(list, arrays)
    return zip(*(map(reversed, lists) if backwards else lists), strict=True)


def _outputs(H: Any, mask: Any, reverse: bool) -> Any:
    y = _before_and_after(H, reverse)[1].transpose(1, 0, 2)
    return y if mask is None else np.where(mask[:, :, None], y, ZERO[H.dtype.char])


def _sigmoids(a: Any, half: Any) -> None:
    """Finish the sigmoids, of which the tanh of half the argument stands in a."""
    _multiply(a, half, a)
    _add(a, half, a)


# -- backward, what all share


def _arrived(dY: Any, H: Any, reverse: bool) -> list[Any]:
    """Return the cotangents of the outputs by step."""
    return [None] * (len(H) - 1) if dY is None else list(dY.transpose(1, 0, 2))


def _seed(d: Any, like: Any) -> Any:
    """Return a cotangent of a last state in memory of our own."""
    own = np.empty(like.shape, like.dtype)
    own[...] = ZERO[like.dtype.char] if d is None else d
    return own


def _of_weights(needs: Any, kept: _Kept, dA: Any, dP: Any, reverse: bool) -> tuple[Any, Any, Any, Any]:
    """Return the cotangents of x, W, U and b from those of the gates, as rows."""
    before = _before_and_after(kept.H, reverse)[0]
    time, batch, n = before.shape
    return (
        _matmul(dA, kept.W.T).reshape(time, batch, len(kept.W)).transpose(1, 0, 2) if needs[0] else None,
        _matmul(kept.rows.T, dA) if needs[1] else None,
        _matmul(before.reshape(time * batch, n).T, dP) if needs[2] else None,
        ones(dA.dtype.char, len(dA)).dot(dA) if len(needs) > 3 and needs[3] else None,
    )


# -- the plain recurrent network


def _rnn(
    xp: Any, needs: Any, x: Any, W: Any, U: Any, b: Any = None, h0: Any = None, mask: Any = None, /, *,
    activation: str = "tanh", reverse: bool = False,
) -> Any:  # fmt: skip
    if not _suitable(x, mask) or activation not in recurrent.ACTIVATIONS:
        return NotImplemented
    check_sequence("rnn", 1, x, W, U, b, mask, h0=h0)
    rows, A = _affine(x, W, b, 1)
    H = _room(A, h0, reverse)
    before, after = _before_and_after(H, reverse)
    gone = _gone(mask, len(before))
    zero, rectified = ZERO[x.dtype.char], activation == "relu"
    for a, h, new, away in _ordered(reverse, A[0], before, after, gone):
        _matmul(h, U, new)
        _add(new, a, new)
        if rectified:
            np.maximum(new, zero, out=new)
        else:
            _tanh(new, new)
        if away is not None:
            _copyto(new, h, where=away)
    return (_outputs(H, mask, reverse), _last(H, reverse)), _Kept(rows if needs[1] else None, W, U, None, H, None, gone)


def _rnn_backward(
    xp: Any, needs: Any, cotangents: Any, kept: _Kept, *, activation: str = "tanh", reverse: bool = False
) -> Any:
    dY, dH = cotangents
    H, char = kept.H, kept.H.dtype.char
    _, after = _before_and_after(H, reverse)
    dh, d, U_T, one, zero = _seed(dH, H[0]), np.empty_like(H[0]), np.ascontiguousarray(kept.U.T), ONE[char], ZERO[char]
    dZ = np.empty(after.shape, H.dtype)
    for dz, dy, new, away in _ordered(not reverse, dZ, _arrived(dY, H, reverse), after, kept.gone):
        _add(dh, zero if dy is None else dy, dz)
        if activation == "relu":
            _copyto(dz, zero, where=new <= zero)
        else:
            _multiply(new, new, d)
            _subtract(one, d, d)
            _multiply(dz, d, dz)
        if away is None:
            _matmul(dz, U_T, dh)
        else:
            _copyto(dz, zero, where=away)
            _matmul(dz, U_T, d)
            _copyto(dh, d, where=~away)
    rows = dZ.reshape(len(dZ) * len(dh), dZ.shape[2])
    return *_of_weights(needs, kept, rows, rows, reverse), dh


recurrent.rnn.override("numpy", _rnn, _rnn_backward)


# -- long short-term memory


def _lstm(
    xp: Any, needs: Any, x: Any, W: Any, U: Any, b: Any = None, h0: Any = None, c0: Any = None, mask: Any = None, /, *,
    reverse: bool = False,
) -> Any:  # fmt: skip
    if not _suitable(x, mask):
        return NotImplemented
    check_sequence("lstm", 4, x, W, U, b, mask, h0=h0, c0=c0)
    rows, A = _affine(x, W, b, 4, (0, 1, 3))
    U_by_gate, half = _by_gate(U, 4, (0, 1, 3)), HALF[x.dtype.char]
    H, C = _room(A, h0, reverse), _room(A, c0, reverse)
    gone = _gone(mask, x.shape[1])
    p, t = np.empty_like(A[:, 0]), np.empty_like(H[0])
    states = *_before_and_after(H, reverse), *_before_and_after(C, reverse)
    for a, h, new_h, c, new_c, away in _ordered(reverse, A.transpose(1, 0, 2, 3), *states, gone):
        _matmul(h, U_by_gate, p)
        _add(a, p, a)
        _tanh(a, a)
        _sigmoids(a[:2], half)
        i, f, g, o = a
        _sigmoids(o, half)
        _multiply(f, c, new_c)
        _multiply(i, g, t)
        _add(new_c, t, new_c)
        _tanh(new_c, t)
        _multiply(o, t, new_h)
        if away is not None:
            _copyto(new_h, h, where=away)
            _copyto(new_c, c, where=away)
    last = _last(H, reverse), _last(C, reverse)
    return (_outputs(H, mask, reverse), *last), _Kept(rows if needs[1] else None, W, U, A, H, C, gone)


def _lstm_backward(xp: Any, needs: Any, cotangents: Any, kept: _Kept, *, reverse: bool = False) -> Any:
    dY, dH, dC = cotangents
    A, H, C, one, zero = kept.A, kept.H, kept.more, ONE[kept.H.dtype.char], ZERO[kept.H.dtype.char]
    _, time, batch, n = A.shape
    U_T = _by_gate(kept.U, 4, ()).transpose(0, 2, 1).copy()
    dh, dc = _seed(dH, H[0]), _seed(dC, H[0])
    d, s, t = np.empty((4, batch, n), H.dtype), np.empty((4, batch, n), H.dtype), np.empty_like(dh)
    ahead: Any = None
    dZ = np.empty((time, batch, 4 * n), H.dtype)
    by_gate = dZ.reshape(time, batch, 4, n).transpose(0, 2, 1, 3)
    steps = A.transpose(1, 0, 2, 3), *_before_and_after(C, reverse), _arrived(dY, H, reverse), kept.gone
    for dz, a, c, new_c, dy, away in _ordered(not reverse, by_gate, *steps):
        i, f, g, o = a
        if away is not None:
            ahead = dh.copy(), dc.copy()
        if dy is not None:
            _add(dh, dy, dh)
        _tanh(new_c, t)
        di, df, dg, do = d
        _multiply(dh, t, do)
        _multiply(t, t, t)
        _subtract(one, t, t)
        _multiply(t, o, t)
        _multiply(t, dh, t)
        _add(dc, t, dc)
        _multiply(dc, g, di)
        _multiply(dc, c, df)
        _multiply(dc, i, dg)
        _multiply(dc, f, dc)
        _multiply(a, a, s)  # slopes: a - a² of a sigmoid, 1 - a² of a tanh
        _subtract(a[:2], s[:2], s[:2])
        _subtract(one, s[2], s[2])
        _subtract(o, s[3], s[3])
        _multiply(d, s, dz)
        if away is not None:
            _copyto(dz, zero, where=away)
        _matmul(dz, U_T, s)
        _sum(s, 0, None, dh)
        if away is not None:
            _copyto(dh, ahead[0], where=away)
            _copyto(dc, ahead[1], where=away)
    rows = dZ.reshape(time * batch, 4 * n)
    return *_of_weights(needs, kept, rows, rows, reverse), dh, dc


recurrent.lstm.override("numpy", _lstm, _lstm_backward)


# -- gated recurrent unit


def _gru(
    xp: Any, needs: Any, x: Any, W: Any, U: Any, b: Any = None, b_hn: Any = None, h0: Any = None, mask: Any = None, /,
    *, reverse: bool = False,
) -> Any:  # fmt: skip
    if not _suitable(x, mask):
        return NotImplemented
    check_sequence("gru", 3, x, W, U, b, mask, b_hn=b_hn, h0=h0)
    rows, A = _affine(x, W, b, 3, (0, 1))
    U_by_gate, half = _by_gate(U, 3, (0, 1)), HALF[x.dtype.char]
    H, Q = _room(A, h0, reverse), np.empty_like(A[0])
    gone = _gone(mask, x.shape[1])
    p, t = np.empty_like(A[:2, 0]), np.empty_like(H[0])
    states = _before_and_after(H, reverse)
    for a, q, h, new, away in _ordered(reverse, A.transpose(1, 0, 2, 3), Q, *states, gone):
        gates, (r, z, n) = a[:2], a
        _matmul(h, U_by_gate[:2], p)
        _matmul(h, U_by_gate[2], q)
        if b_hn is not None:
            _add(q, b_hn, q)
        _add(gates, p, gates)
        _tanh(gates, gates)
        _sigmoids(gates, half)
        _multiply(r, q, t)
        _add(n, t, n)
        _tanh(n, n)
        _subtract(h, n, new)
        _multiply(new, z, new)
        _add(new, n, new)
        if away is not None:
            _copyto(new, h, where=away)
    return (_outputs(H, mask, reverse), _last(H, reverse)), _Kept(rows if needs[1] else None, W, U, A, H, Q, gone)


def _gru_backward(xp: Any, needs: Any, cotangents: Any, kept: _Kept, *, reverse: bool = False) -> Any:
    dY, dH = cotangents
    A, H, Q, char = kept.A, kept.H, kept.more, kept.H.dtype.char
    _, time, batch, n = A.shape
    one, zero, U_T = ONE[char], ZERO[char], _by_gate(kept.U, 3, ()).transpose(0, 2, 1).copy()
    ahead: Any = None
    dh, d, s = _seed(dH, H[0]), np.empty((3, batch, n), char), np.empty((3, batch, n), char)
    dn, t = np.empty_like(dh), np.empty_like(dh)
    dZ = np.empty((time, batch, 4 * n), char)  # of the candidate, r, z, and the candidate's recurrent product
    by_gate = dZ.reshape(time, batch, 4, n).transpose(0, 2, 1, 3)
    steps = A.transpose(1, 0, 2, 3), Q, _before_and_after(H, reverse)[0], _arrived(dY, H, reverse), kept.gone
    for dz, a, q, h, dy, away in _ordered(not reverse, by_gate, *steps):
        (r, z, c), (dr, du, dq) = a, d
        if away is not None:
            ahead = dh.copy()
        if dy is not None:
            _add(dh, dy, dh)
        _subtract(h, c, du)
        _multiply(du, dh, du)
        _multiply(a, a, s)  # slopes: a - a² of a sigmoid, 1 - a² of a tanh
        _subtract(a[:2], s[:2], s[:2])
        _subtract(one, s[2], s[2])
        _subtract(one, z, dn)
        _multiply(dn, dh, dn)
        _multiply(dn, s[2], dn)
        _multiply(dn, q, dr)
        _multiply(dn, r, dq)
        _multiply(d[:2], s[:2], d[:2])
        _multiply(dh, z, dh)
        if away is not None:
            _copyto(d, zero, where=away)
            _copyto(dn, zero, where=away)
        _copyto(dz[0], dn)
        _copyto(dz[1:], d)
        _matmul(d, U_T, s)
        _add(dh, _sum(s, 0, None, t), dh)
        if away is not None:
            _copyto(dh, ahead, where=away)
    rows = dZ.reshape(time * batch, 4 * n)
    kept = kept._replace(W=np.roll(kept.W, n, 1))  # the candidate first, as in dZ
    dx, dW, dU, db = _of_weights(needs, kept, rows[:, : 3 * n], rows[:, n:], reverse)
    return (
        dx,
        np.roll(dW, -n, 1) if needs[1] else None,
        dU,
        None if db is None else np.roll(db, -n),
        ones(char, len(rows)).dot(rows[:, 3 * n :]) if len(needs) > 4 and needs[4] else None,
        dh,
    )


recurrent.gru.override("numpy", _gru, _gru_backward)
