"""Recurrent networks: single steps, and whole sequences of one layer in one direction.

The reference of a sequence is a loop over that of a step. The hand-written passes take the products with the input
weights out of the loop, as one large product for all time steps; what is left in it are the recurrent product and
elementwise arithmetic, which a `Cell` describes.
"""

# ruff: noqa: D103  (a fused function has the docstring of its reference)

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from ..boundary import zeros
from ..fused import fused
from ..namespace import array_namespace
from .activation import _relu, _sigmoid
from .checks import check_alike, check_one_library, check_real

Arrays = tuple[Any, ...]


class Cell(NamedTuple):
    """One step between its products with the weights, a = x W + b and p = h U, as the hand-written passes need it."""

    step: Callable[..., tuple[Arrays, Arrays]]
    """``step(xp, a, p, states, b_hn)``: the new states, and what else `pull` reads."""
    pull: Callable[..., tuple[Any, Any, Arrays]]
    """``pull(xp, cotangents, new, states, kept)``: those of a and p, and of the states apart from their share in p."""


def _gates(z: Any, n: int) -> list[Any]:
    """Split the last axis into parts of length n."""
    return [z[..., k : k + n] for k in range(0, z.shape[-1], n)]


def _logistic(xp: Any, z: Any) -> Any:
    """Compute the sigmoid in few calls; small values are exact to an absolute, not a relative, error."""
    return 0.5 + 0.5 * xp.tanh(0.5 * z)


# -- the plain recurrent network


def _rnn_cell(x: Any, h: Any, W: Any, U: Any, b: Any = None, /, *, activation: str = "tanh") -> Any:
    """One step of a plain recurrent network, ``h' = activation(x @ W + h @ U + b)``.

    Parameters
    ----------
    x
        Inputs of shape (batch, n_in).
    h
        State of shape (batch, n).
    W
        Input weights of shape (n_in, n).
    U
        Recurrent weights of shape (n, n).
    b
        Biases of shape (n,), or None.
    activation
        ``"tanh"`` or ``"relu"`` (whose derivative at 0 is 0).

    Returns
    -------
    array
        The new state, of shape (batch, n).

    Raises
    ------
    TypeError
        If the arrays are of several libraries or dtypes, or complex.
    ValueError
        If the shapes do not fit, or the activation is neither.

    Notes
    -----
    Elman, "Finding structure in time", 1990.
    """
    f = _activation("rnn_cell", activation)
    check_step("rnn_cell", 1, x, W, U, b, h=h)
    z = x @ W + h @ U
    return f(z if b is None else z + b)


def _rnn(
    x: Any,
    W: Any,
    U: Any,
    b: Any = None,
    h0: Any = None,
    mask: Any = None,
    /,
    *,
    activation: str = "tanh",
    reverse: bool = False,
) -> Any:
    """Plain recurrent network over a sequence, ``h[t] = activation(x[t] @ W + h[t-1] @ U + b)``.

    Parameters
    ----------
    x
        Inputs of shape (batch, time, n_in).
    W
        Input weights of shape (n_in, n).
    U
        Recurrent weights of shape (n, n).
    b
        Biases of shape (n,), or None.
    h0
        Initial state of shape (batch, n), or None for zeros.
    mask
        Boolean array of shape (batch, time), False where a sequence has no step (padding), or None.
    activation
        ``"tanh"`` or ``"relu"`` (whose derivative at 0 is 0).
    reverse
        Whether to go through time from the last step to the first.

    Returns
    -------
    outputs
        The state after each step, of shape (batch, time, n); zero where there is no step.
    h
        The last state, of shape (batch, n): where there is no step the state is carried over unchanged. So
        sequences may be padded at either end, in either direction.

    Raises
    ------
    TypeError
        If the arrays are of several libraries or dtypes, or complex, or the mask is not boolean.
    ValueError
        If the shapes do not fit, there is no time step, or the activation is neither.

    Notes
    -----
    Elman, "Finding structure in time", 1990. Outputs and last states under a mask are those of PyTorch's packed
    sequences.
    """
    _activation("rnn", activation)
    check_sequence("rnn", 1, x, W, U, b, mask, h0=h0)

    def step(x: Any, h: Any) -> Arrays:
        return (_rnn_cell(x, h, W, U, b, activation=activation),)

    return _loop(step, x, _initial(x, U, h0), mask, reverse)


def _tanh_step(xp: Any, a: Any, p: Any, states: Arrays, b_hn: Any) -> tuple[Arrays, Arrays]:
    return (xp.tanh(a + p),), ()


def _tanh_pull(xp: Any, cotangents: Arrays, new: Arrays, states: Arrays, kept: Arrays) -> tuple[Any, Any, Arrays]:
    dz = cotangents[0] * (1 - new[0] * new[0])
    return dz, dz, (None,)


def _relu_step(xp: Any, a: Any, p: Any, states: Arrays, b_hn: Any) -> tuple[Arrays, Arrays]:
    return (_relu(a + p),), ()


def _relu_pull(xp: Any, cotangents: Arrays, new: Arrays, states: Arrays, kept: Arrays) -> tuple[Any, Any, Arrays]:
    dz = xp.where(new[0] <= 0, 0, cotangents[0])
    return dz, dz, (None,)


#: The activations of the plain recurrent network, and the steps with them.
ACTIVATIONS: dict[str, Callable[[Any], Any]] = {"tanh": lambda z: array_namespace(z).tanh(z), "relu": _relu}
RNN = {"tanh": Cell(_tanh_step, _tanh_pull), "relu": Cell(_relu_step, _relu_pull)}


def _activation(name: str, activation: str) -> Callable[[Any], Any]:
    if activation not in ACTIVATIONS:
        raise ValueError(f"{name} expects an activation among {', '.join(ACTIVATIONS)}, got {activation!r}")
    return ACTIVATIONS[activation]


@fused(_rnn_cell)
def rnn_cell(xp: Any, needs: Any, x: Any, h: Any, W: Any, U: Any, b: Any = None, /, *, activation: str = "tanh") -> Any:
    _activation("rnn_cell", activation)
    check_step("rnn_cell", 1, x, W, U, b, h=h)
    (h,), residuals = _one_step(RNN[activation], xp, _wanted(needs, 0, 2, 3, 4), x, (h,), W, U, b)
    return h, residuals


@rnn_cell.backward
def rnn_cell_backward(xp: Any, needs: Any, dH: Any, residuals: Any, *, activation: str = "tanh") -> Any:
    (dx, *dweights), (dh,) = _back_one_step(RNN[activation], xp, (dH,), residuals)
    return dx, dh, *dweights


@fused(_rnn)
def rnn(
    xp: Any,
    needs: Any,
    x: Any,
    W: Any,
    U: Any,
    b: Any = None,
    h0: Any = None,
    mask: Any = None,
    /,
    *,
    activation: str = "tanh",
    reverse: bool = False,
) -> Any:
    _activation("rnn", activation)
    check_sequence("rnn", 1, x, W, U, b, mask, h0=h0)
    return _forwards(RNN[activation], xp, needs, _wanted(needs, 0, 1, 2, 3), x, W, U, b, None, (h0,), mask, reverse)


@rnn.backward
def rnn_backward(
    xp: Any, needs: Any, cotangents: Any, residuals: Any, *, activation: str = "tanh", reverse: bool = False
) -> Any:
    (dx, dW, dU, db, _), dstates = _backwards(RNN[activation], xp, cotangents, residuals, reverse)
    return dx, dW, dU, db, *dstates


# -- long short-term memory


def _lstm_cell(x: Any, h: Any, c: Any, W: Any, U: Any, b: Any = None, /) -> Any:
    """One step of long short-term memory.

    ::

        i, f, g, o = split(x @ W + h @ U + b)          # input gate, forget gate, candidate, output gate
        c' = sigmoid(f) * c + sigmoid(i) * tanh(g)
        h' = sigmoid(o) * tanh(c')

    Parameters
    ----------
    x
        Inputs of shape (batch, n_in).
    h, c
        State and cell state, of shape (batch, n).
    W
        Input weights of shape (n_in, 4 n), in the order i, f, g, o, which is PyTorch's.
    U
        Recurrent weights of shape (n, 4 n).
    b
        Biases of shape (4 n,), or None.

    Returns
    -------
    h, c
        The new state and cell state, of shape (batch, n).

    Raises
    ------
    TypeError
        If the arrays are of several libraries or dtypes, or complex.
    ValueError
        If the shapes do not fit.

    Notes
    -----
    Hochreiter, Schmidhuber, "Long short-term memory", 1997, with the forget gate of Gers, Schmidhuber, Cummins,
    "Learning to forget", 2000.
    """
    check_step("lstm_cell", 4, x, W, U, b, h=h, c=c)
    z = x @ W + h @ U
    i, f, g, o = _gates(z if b is None else z + b, h.shape[1])
    tanh = array_namespace(z).tanh
    c = _sigmoid(f) * c + _sigmoid(i) * tanh(g)
    return _sigmoid(o) * tanh(c), c


def _lstm(
    x: Any,
    W: Any,
    U: Any,
    b: Any = None,
    h0: Any = None,
    c0: Any = None,
    mask: Any = None,
    /,
    *,
    reverse: bool = False,
) -> Any:
    """Long short-term memory over a sequence; a step is that of `lstm_cell`.

    Parameters
    ----------
    x
        Inputs of shape (batch, time, n_in).
    W
        Input weights of shape (n_in, 4 n), in the order i, f, g, o, which is PyTorch's: input gate, forget gate,
        candidate, output gate.
    U
        Recurrent weights of shape (n, 4 n).
    b
        Biases of shape (4 n,), or None.
    h0, c0
        Initial state and cell state of shape (batch, n), or None for zeros.
    mask
        Boolean array of shape (batch, time), False where a sequence has no step (padding), or None.
    reverse
        Whether to go through time from the last step to the first.

    Returns
    -------
    outputs
        The state after each step, of shape (batch, time, n); zero where there is no step.
    h, c
        The last state and cell state, of shape (batch, n): where there is no step they are carried over unchanged.
        So sequences may be padded at either end, in either direction.

    Raises
    ------
    TypeError
        If the arrays are of several libraries or dtypes, or complex, or the mask is not boolean.
    ValueError
        If the shapes do not fit, or there is no time step.

    Notes
    -----
    Hochreiter, Schmidhuber, "Long short-term memory", 1997; Gers, Schmidhuber, Cummins, "Learning to forget", 2000.
    Outputs and last states under a mask are those of PyTorch's packed sequences.
    """
    check_sequence("lstm", 4, x, W, U, b, mask, h0=h0, c0=c0)
    return _loop(lambda x, h, c: _lstm_cell(x, h, c, W, U, b), x, _initial(x, U, h0, c0), mask, reverse)


def _lstm_step(xp: Any, a: Any, p: Any, states: Arrays, b_hn: Any) -> tuple[Arrays, Arrays]:
    h, c = states
    z, n = a + p, h.shape[1]
    i, f, _, o = _gates(_logistic(xp, z), n)
    g = xp.tanh(z[..., 2 * n : 3 * n])
    c = f * c + i * g
    return (o * xp.tanh(c), c), (i, f, g, o)


def _lstm_pull(xp: Any, cotangents: Arrays, new: Arrays, states: Arrays, kept: Arrays) -> tuple[Any, Any, Arrays]:
    dh, dc = cotangents
    i, f, g, o = kept
    t = xp.tanh(new[1])
    dc = dc + dh * o * (1 - t * t)
    dz = xp.concat(
        [dc * g * (i * (1 - i)), dc * states[1] * (f * (1 - f)), dc * i * (1 - g * g), dh * t * (o * (1 - o))], axis=-1
    )
    return dz, dz, (None, dc * f)


LSTM = Cell(_lstm_step, _lstm_pull)


@fused(_lstm_cell)
def lstm_cell(xp: Any, needs: Any, x: Any, h: Any, c: Any, W: Any, U: Any, b: Any = None, /) -> Any:
    check_step("lstm_cell", 4, x, W, U, b, h=h, c=c)
    return _one_step(LSTM, xp, _wanted(needs, 0, 3, 4, 5), x, (h, c), W, U, b)


@lstm_cell.backward
def lstm_cell_backward(xp: Any, needs: Any, cotangents: Any, residuals: Any) -> Any:
    (dx, *dweights), dstates = _back_one_step(LSTM, xp, cotangents, residuals)
    return dx, *dstates, *dweights


@fused(_lstm)
def lstm(
    xp: Any,
    needs: Any,
    x: Any,
    W: Any,
    U: Any,
    b: Any = None,
    h0: Any = None,
    c0: Any = None,
    mask: Any = None,
    /,
    *,
    reverse: bool = False,
) -> Any:
    check_sequence("lstm", 4, x, W, U, b, mask, h0=h0, c0=c0)
    return _forwards(LSTM, xp, needs, _wanted(needs, 0, 1, 2, 3), x, W, U, b, None, (h0, c0), mask, reverse)


@lstm.backward
def lstm_backward(xp: Any, needs: Any, cotangents: Any, residuals: Any, *, reverse: bool = False) -> Any:
    (dx, dW, dU, db, _), dstates = _backwards(LSTM, xp, cotangents, residuals, reverse)
    return dx, dW, dU, db, *dstates


# -- gated recurrent unit


def _gru_cell(x: Any, h: Any, W: Any, U: Any, b: Any = None, b_hn: Any = None, /) -> Any:
    """One step of a gated recurrent unit, in the variant that applies the reset gate after the recurrent product.

    ::

        r = sigmoid(x @ W_r + b_r + h @ U_r)                # reset gate
        z = sigmoid(x @ W_z + b_z + h @ U_z)                # update gate
        n = tanh(x @ W_n + b_n + r * (h @ U_n + b_hn))      # candidate
        h' = (1 - z) * n + z * h

    Parameters
    ----------
    x
        Inputs of shape (batch, n_in).
    h
        State of shape (batch, n).
    W
        Input weights of shape (n_in, 3 n), in the order r, z, n, which is PyTorch's.
    U
        Recurrent weights of shape (n, 3 n).
    b
        Biases of shape (3 n,), or None.
    b_hn
        Bias of the candidate's recurrent product, of shape (n,), or None.

    Returns
    -------
    array
        The new state, of shape (batch, n).

    Raises
    ------
    TypeError
        If the arrays are of several libraries or dtypes, or complex.
    ValueError
        If the shapes do not fit.

    Notes
    -----
    Cho et al., "Learning phrase representations using RNN encoder-decoder for statistical machine translation", 2014.
    There the reset gate comes before the product, (r * h) @ U_n, and z and 1 - z change places, which only renames
    the gate's values. This variant, which PyTorch and cuDNN compute too, needs one recurrent product a step.
    """
    check_step("gru_cell", 3, x, W, U, b, b_hn=b_hn, h=h)
    a = x @ W if b is None else x @ W + b
    (a_r, a_z, a_n), (p_r, p_z, p_n) = _gates(a, h.shape[1]), _gates(h @ U, h.shape[1])
    r, z = _sigmoid(a_r + p_r), _sigmoid(a_z + p_z)
    n = array_namespace(a).tanh(a_n + r * (p_n if b_hn is None else p_n + b_hn))
    return (1 - z) * n + z * h


def _gru(
    x: Any,
    W: Any,
    U: Any,
    b: Any = None,
    b_hn: Any = None,
    h0: Any = None,
    mask: Any = None,
    /,
    *,
    reverse: bool = False,
) -> Any:
    """Gated recurrent unit over a sequence; a step is that of `gru_cell`, whose notes name the variant.

    Parameters
    ----------
    x
        Inputs of shape (batch, time, n_in).
    W
        Input weights of shape (n_in, 3 n), in the order r, z, n, which is PyTorch's: reset gate, update gate,
        candidate.
    U
        Recurrent weights of shape (n, 3 n).
    b
        Biases of shape (3 n,), or None.
    b_hn
        Bias of the candidate's recurrent product, of shape (n,), or None.
    h0
        Initial state of shape (batch, n), or None for zeros.
    mask
        Boolean array of shape (batch, time), False where a sequence has no step (padding), or None.
    reverse
        Whether to go through time from the last step to the first.

    Returns
    -------
    outputs
        The state after each step, of shape (batch, time, n); zero where there is no step.
    h
        The last state, of shape (batch, n): where there is no step the state is carried over unchanged. So
        sequences may be padded at either end, in either direction.

    Raises
    ------
    TypeError
        If the arrays are of several libraries or dtypes, or complex, or the mask is not boolean.
    ValueError
        If the shapes do not fit, or there is no time step.

    Notes
    -----
    Cho et al., 2014. Outputs and last states under a mask are those of PyTorch's packed sequences.
    """
    check_sequence("gru", 3, x, W, U, b, mask, b_hn=b_hn, h0=h0)
    return _loop(lambda x, h: (_gru_cell(x, h, W, U, b, b_hn),), x, _initial(x, U, h0), mask, reverse)


def _gru_step(xp: Any, a: Any, p: Any, states: Arrays, b_hn: Any) -> tuple[Arrays, Arrays]:
    (h,) = states
    m = h.shape[1]
    r, z = _gates(_logistic(xp, a[..., : 2 * m] + p[..., : 2 * m]), m)
    q = p[..., 2 * m :] if b_hn is None else p[..., 2 * m :] + b_hn
    n = xp.tanh(a[..., 2 * m :] + r * q)
    return (n + z * (h - n),), (r, z, n, q)


def _gru_pull(xp: Any, cotangents: Arrays, new: Arrays, states: Arrays, kept: Arrays) -> tuple[Any, Any, Arrays]:
    (dh,), (h,) = cotangents, states
    r, z, n, q = kept
    dz = dh * (h - n) * (z * (1 - z))
    dn = dh * (1 - z) * (1 - n * n)
    dr = dn * q * (r * (1 - r))
    return xp.concat([dr, dz, dn], axis=-1), xp.concat([dr, dz, dn * r], axis=-1), (dh * z,)


GRU = Cell(_gru_step, _gru_pull)


@fused(_gru_cell)
def gru_cell(xp: Any, needs: Any, x: Any, h: Any, W: Any, U: Any, b: Any = None, b_hn: Any = None, /) -> Any:
    check_step("gru_cell", 3, x, W, U, b, b_hn=b_hn, h=h)
    (h,), residuals = _one_step(GRU, xp, _wanted(needs, 0, 2, 3, 4, 5), x, (h,), W, U, b, b_hn)
    return h, residuals


@gru_cell.backward
def gru_cell_backward(xp: Any, needs: Any, dH: Any, residuals: Any) -> Any:
    (dx, *dweights), (dh,) = _back_one_step(GRU, xp, (dH,), residuals)
    return dx, dh, *dweights


@fused(_gru)
def gru(
    xp: Any,
    needs: Any,
    x: Any,
    W: Any,
    U: Any,
    b: Any = None,
    b_hn: Any = None,
    h0: Any = None,
    mask: Any = None,
    /,
    *,
    reverse: bool = False,
) -> Any:
    check_sequence("gru", 3, x, W, U, b, mask, b_hn=b_hn, h0=h0)
    return _forwards(GRU, xp, needs, _wanted(needs, 0, 1, 2, 3, 4), x, W, U, b, b_hn, (h0,), mask, reverse)


@gru.backward
def gru_backward(xp: Any, needs: Any, cotangents: Any, residuals: Any, *, reverse: bool = False) -> Any:
    dweights, dstates = _backwards(GRU, xp, cotangents, residuals, reverse)
    return *dweights, *dstates


# -- through time: the reference


def _initial(x: Any, U: Any, *states: Any) -> Arrays:
    """Give the initial states, zeros where there is none."""
    xp, shape = array_namespace(x, U), (x.shape[0], U.shape[0])
    return tuple(zeros(xp, x, shape) if s is None else s for s in states)


def _loop(step: Callable[..., Any], x: Any, states: Any, mask: Any, reverse: bool) -> Arrays:
    """Go through time, step by step."""
    outputs: list[Any] = []
    for t in _times(x.shape[1], reverse):
        new = step(x[:, t, :], *states)
        xp = array_namespace(*new)
        if mask is None:
            states = new
            outputs.append(new[0])
        else:
            there = mask[:, t : t + 1]
            states = _where(xp, there, new, states)
            outputs.append(xp.where(there, new[0], 0))
    return xp.stack(_in_time(outputs, reverse), axis=1), *states


# -- the hand-written passes


class Weights(NamedTuple):
    """What the backward pass reads of the weights; `wanted` says whether it makes dx, dW, dU, db and db_hn."""

    wanted: tuple[bool, ...]
    W: Any
    U: Any


def _wanted(needs: tuple[bool, ...], *positions: int) -> tuple[bool, ...]:
    """Say whose cotangents are needed among x, W, U, b and b_hn, given their positions."""
    chosen = [k < len(needs) and needs[k] for k in positions]
    return (*chosen, *[False] * (5 - len(chosen)))


def _affine(xp: Any, x: Any, W: Any, b: Any) -> Any:
    return xp.matmul(x, W) if b is None else xp.matmul(x, W) + b


def _one_step(
    cell: Cell, xp: Any, wanted: tuple[bool, ...], x: Any, states: Arrays, W: Any, U: Any, b: Any, b_hn: Any = None
) -> tuple[Arrays, Any]:
    new, kept = cell.step(xp, _affine(xp, x, W, b), xp.matmul(states[0], U), states, b_hn)
    return new, (x, states, new, kept, Weights(wanted, W, U))


def _back_one_step(cell: Cell, xp: Any, cotangents: Any, residuals: Any) -> tuple[list[Any], Arrays]:
    """Give the cotangents of x, W, U, b and b_hn, and those of the states."""
    x, states, new, kept, weights = residuals
    cotangents = [xp.zeros_like(s) if d is None else d for d, s in zip(cotangents, new, strict=True)]
    da, dp, direct = cell.pull(xp, cotangents, new, states, kept)
    return _of_weights(xp, weights, x, states[0], da, dp), _of_states(xp, dp, direct, weights.U)


def _of_states(xp: Any, dp: Any, direct: Arrays, U: Any) -> Arrays:
    dh = xp.matmul(dp, xp.matrix_transpose(U))
    return dh if direct[0] is None else dh + direct[0], *direct[1:]


def _of_weights(xp: Any, weights: Weights, x: Any, h: Any, da: Any, dp: Any) -> list[Any]:
    """Give the cotangents of x, W, U, b and b_hn, from those of a = x W + b and p = h U, all with two axes."""
    wanted, W, U = weights
    return [
        xp.matmul(da, xp.matrix_transpose(W)) if wanted[0] else None,
        xp.matmul(xp.matrix_transpose(x), da) if wanted[1] else None,
        xp.matmul(xp.matrix_transpose(h), dp) if wanted[2] else None,
        xp.sum(da, axis=0) if wanted[3] else None,
        xp.sum(dp[:, dp.shape[1] - U.shape[0] :], axis=0) if wanted[4] else None,
    ]


def _forwards(
    cell: Cell,
    xp: Any,
    needs: tuple[bool, ...],
    wanted: tuple[bool, ...],
    x: Any,
    W: Any,
    U: Any,
    b: Any,
    b_hn: Any,
    states: Any,
    mask: Any,
    reverse: bool,
) -> tuple[Arrays, Any]:
    """Give the outputs and the last states, and what `_backwards` reads."""
    batch, time, n_in = x.shape
    rows = xp.reshape(xp.permute_dims(x, (1, 0, 2)), (time * batch, n_in))
    a = xp.reshape(_affine(xp, rows, W, b), (time, batch, W.shape[1]))
    states = _initial(x, U, *states)
    keep, steps, outputs = any(needs), [], []
    for t in _times(time, reverse):
        new, kept = cell.step(xp, a[t, ...], xp.matmul(states[0], U), states, b_hn)
        if keep:
            steps.append((states, new, kept))
        if mask is None:
            states = new
            outputs.append(new[0])
        else:
            states = _where(xp, mask[:, t : t + 1], new, states)
            outputs.append(xp.where(mask[:, t : t + 1], new[0], 0))
    y = xp.stack(_in_time(outputs, reverse), axis=1)
    return (y, *states), (rows if wanted[1] else None, mask, steps, Weights(wanted, W if wanted[0] else None, U))


def _backwards(cell: Cell, xp: Any, cotangents: Any, residuals: Any, reverse: bool) -> tuple[list[Any], Arrays]:
    """Give the cotangents of x, W, U, b and b_hn, and those of the initial states."""
    rows, mask, steps, weights = residuals
    dY = cotangents[0]
    dstates = tuple(xp.zeros_like(s) if d is None else d for d, s in zip(cotangents[1:], steps[0][0], strict=True))
    da_by_step, dp_by_step = [], []
    for t, (states, new, kept) in zip(_times(len(steps), not reverse), reversed(steps), strict=True):
        there = None if mask is None else mask[:, t : t + 1]
        after = dstates
        if dY is not None:
            dstates = (dstates[0] + dY[:, t, :], *dstates[1:])
        if there is not None:
            dstates = tuple(xp.where(there, d, 0) for d in dstates)
        da, dp, direct = cell.pull(xp, dstates, new, states, kept)
        da_by_step.append(da)
        dp_by_step.append(dp)
        dstates = _of_states(xp, dp, direct, weights.U)
        if there is not None:
            dstates = _where(xp, there, dstates, after)
    da = xp.concat(_in_time(da_by_step, not reverse))
    dp = da if dp_by_step[0] is da_by_step[0] else xp.concat(_in_time(dp_by_step, not reverse))
    h = xp.concat(_in_time([states[0] for states, _, _ in steps], reverse)) if weights.wanted[2] else None
    dx, *others = _of_weights(xp, weights, rows, h, da, dp)
    if dx is not None:
        batch = dstates[0].shape[0]
        dx = xp.permute_dims(xp.reshape(dx, (len(steps), batch, dx.shape[1])), (1, 0, 2))
    return [dx, *others], dstates


def _times(time: int, reverse: bool) -> range:
    return range(time - 1, -1, -1) if reverse else range(time)


def _in_time(by_step: list[Any], reverse: bool) -> list[Any]:
    return by_step[::-1] if reverse else by_step


def _where(xp: Any, there: Any, new: Arrays, old: Arrays) -> Arrays:
    return tuple(xp.where(there, n, o) for n, o in zip(new, old, strict=True))


# -- checks


def check_step(name: str, gates: int, x: Any, W: Any, U: Any, b: Any, **others: Any) -> None:
    _check(name, gates, ("batch",), x, W, U, b, **others)


def check_sequence(name: str, gates: int, x: Any, W: Any, U: Any, b: Any, mask: Any, **others: Any) -> None:
    _check(name, gates, ("batch", "time"), x, W, U, b, **others)
    if not x.shape[1]:
        raise ValueError(f"{name} expects at least one time step, got x of shape {tuple(x.shape)}")
    if mask is None:
        return
    check_one_library(name, x=x, mask=mask)
    if "bool" not in str(mask.dtype):
        raise TypeError(f"{name} expects a boolean mask, got {mask.dtype}")
    if tuple(mask.shape) != tuple(x.shape[:2]):
        raise ValueError(
            f"{name} expects a mask of shape (batch, time) = {tuple(x.shape[:2])}, got {tuple(mask.shape)}"
        )


def _check(name: str, gates: int, axes: Any, x: Any, W: Any, U: Any, b: Any, **others: Any) -> None:
    check_alike(name, x=x, W=W, U=U, b=b, **others)
    check_real(name, x)
    times = f"{gates} n" if gates > 1 else "n"
    if x.ndim != len(axes) + 1:
        raise ValueError(f"{name} expects x of shape ({', '.join(axes)}, n_in), got {tuple(x.shape)}")
    n = U.shape[0] if U.ndim == 2 else -1
    if tuple(U.shape) != (n, gates * n) or tuple(W.shape) != (x.shape[-1], gates * n):
        raise ValueError(
            f"{name} expects x of shape ({', '.join(axes)}, n_in), W of shape (n_in, {times}) and U of shape "
            f"(n, {times}), got {tuple(x.shape)}, {tuple(W.shape)} and {tuple(U.shape)}"
        )
    expected = {"b": (gates * n,), "b_hn": (n,)}
    for key, value in {"b": b, **others}.items():
        shape = expected.get(key, (x.shape[0], n))
        if value is not None and tuple(value.shape) != shape:
            raise ValueError(
                f"{name} expects {key} of shape {shape} with x of shape {tuple(x.shape)} and U of shape "
                f"{tuple(U.shape)}, got {tuple(value.shape)}"
            )
