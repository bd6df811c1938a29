"""Recurrent layers: over whole sequences, and single steps."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral
from typing import Any

import numpy as np

from ..array import strip
from ..boundary import zeros as zeros_on
from ..device import CPU, device_of, is_array, raw_namespace
from ..functions.activation import NAMES
from ..functions.checks import check_one_library
from ..functions.recurrent import ACTIVATIONS, gru, gru_cell, lstm, lstm_cell, rnn, rnn_cell
from ..namespace import array_namespace
from .dropout import Dropout
from .initializers import Initializer, Shape, glorot_uniform, orthogonal, side_by_side, zeros
from .layer import Layer, explain, shown
from .parameter import Parameter

__all__ = ["GRU", "LSTM", "RNN", "GRUCell", "LSTMCell", "RNNCell"]


ORTHOGONAL = orthogonal()


def open_forget_gate(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """Return the biases of long short-term memory, in the order i, f, g, o: 1 for the forget gate, 0 for the others."""
    b = np.zeros(shape)
    b[..., shape[-1] // 4 : shape[-1] // 2] = 1.0
    return b


# -- single steps


class _Cell(Layer):
    """What the cells share: the weights W (n_in, gates · n), U (n, gates · n) and b (gates · n,)."""

    W: Any
    U: Any
    b: Any
    gates = 1

    def __init__(
        self, n_in: int | None, n_hidden: int, bias: bool, W_init: Initializer, U_init: Initializer, b_init: Initializer
    ) -> None:
        width = self.gates * n_hidden
        self.W = Parameter((n_in, width), side_by_side(W_init, self.gates))
        self.U = Parameter((n_hidden, width), side_by_side(U_init, self.gates))
        self.b = Parameter((width,), b_init) if bias else None

    def __call__(self, x: Any, state: Any = None, /) -> Any:
        """Compute the new state from an input of shape (batch, n_in) and the old state, by default zeros."""
        return self._guarded(x, ("batch",), lambda: self.step(x, self.states(x, state)))

    def over(self, x: Any, state: Any, mask: Any, reverse: bool) -> tuple[Any, Any]:
        """Compute the outputs for a sequence of shape (batch, time, n_in), and the last state."""
        return self._guarded(x, ("batch", "time"), lambda: self.steps(x, state, mask, reverse))  # type: ignore[no-any-return]

    def _guarded(self, x: Any, axes: tuple[str, ...], compute: Callable[[], Any]) -> Any:
        if type(self.W) is Parameter:
            self.complete(x)
        try:
            return compute()
        except (AttributeError, TypeError, ValueError):
            explain(self, x, (*axes, self.W.shape[0]))
            raise

    def states(self, x: Any, state: Any) -> tuple[Any, ...]:
        """Give the arrays of a state."""
        return (self._zeros(x) if state is None else state,)

    def _zeros(self, x: Any) -> Any:
        return zeros_on(array_namespace(x), x, (x.shape[0], self.U.shape[0]))

    def step(self, x: Any, states: tuple[Any, ...]) -> Any:
        """Compute one step."""
        raise NotImplementedError

    def steps(self, x: Any, state: Any, mask: Any, reverse: bool) -> tuple[Any, Any]:
        """Compute all steps of a sequence."""
        raise NotImplementedError

    def _arguments(self) -> tuple[Any, ...]:
        """Give the arguments that a `repr` shows."""
        return self.W.shape[0], self.U.shape[0]

    def __repr__(self) -> str:
        return shown(self, *self._arguments(), bias=(self.b is not None, True))


def _activation_name(activation: Any) -> str:
    name = activation if isinstance(activation, str) else NAMES.get(activation)
    if name not in ACTIVATIONS:
        raise ValueError(
            f"a plain recurrent network expects an activation among {', '.join(ACTIVATIONS)}, got {activation!r}"
        )
    return name


class RNNCell(_Cell):
    """One step of a plain recurrent network: ``cell(x, h)`` is ``activation(x @ W + h @ U + b)``.

    Parameters
    ----------
    n_in, n_hidden
        Lengths of the input and of the state. `n_in` may be None: it is then that of the first batch.
    activation
        ``"tanh"`` or ``"relu"``, or these functions.
    bias
        Whether there is a bias.
    W_init, U_init, b_init
        Initializers of W (n_in, n_hidden), U (n_hidden, n_hidden) and b (n_hidden,).
    seed, dtype
        As for `Dense`.

    Notes
    -----
    Elman, "Finding structure in time", 1990. By default W is drawn as by Glorot and Bengio, 2010, U is orthogonal, so
    that signals neither grow nor shrink on their way through time (Saxe, McClelland, Ganguli, 2014), and b is zero.
    """

    def __init__(
        self, n_in: int | None, n_hidden: int, activation: Any = "tanh", *, bias: bool = True,
        W_init: Initializer = glorot_uniform, U_init: Initializer = ORTHOGONAL, b_init: Initializer = zeros,
        seed: int | None = None, dtype: str = "float32",
    ) -> None:  # fmt: skip
        super().__init__(n_in, n_hidden, bias, W_init, U_init, b_init)
        self.activation = _activation_name(activation)
        if seed is not None:
            self.build(seed, dtype)

    def step(self, x: Any, states: tuple[Any, ...]) -> Any:
        (h,) = states
        return rnn_cell(x, h, self.W, self.U, self.b, activation=self.activation)

    def steps(self, x: Any, state: Any, mask: Any, reverse: bool) -> tuple[Any, Any]:
        return rnn(x, self.W, self.U, self.b, state, mask, activation=self.activation, reverse=reverse)  # type: ignore[no-any-return]

    def _arguments(self) -> tuple[Any, ...]:
        return *super()._arguments(), *([] if self.activation == "tanh" else [self.activation])


class LSTMCell(_Cell):
    """One step of long short-term memory: ``cell(x, (h, c))`` is the new ``(h, c)``; see `gpubp.functions.lstm_cell`.

    Parameters
    ----------
    n_in, n_hidden
        Lengths of the input and of the state. `n_in` may be None: it is then that of the first batch.
    bias
        Whether there is a bias.
    W_init, U_init
        Initializers of the matrices of each gate, which stand side by side in W (n_in, 4 n_hidden) and
        U (n_hidden, 4 n_hidden), in the order input gate, forget gate, candidate, output gate.
    b_init
        Initializer of b (4 n_hidden,).
    seed, dtype
        As for `Dense`.

    Notes
    -----
    Hochreiter, Schmidhuber, "Long short-term memory", 1997; Gers, Schmidhuber, Cummins, "Learning to forget", 2000. By
    default W is drawn as by Glorot and Bengio, 2010, and U is orthogonal (Saxe, McClelland, Ganguli, 2014), both gate
    by gate; b is 1 for the forget gate, so that the cell remembers at first (Jozefowicz, Zaremba, Sutskever, "An
    empirical exploration of recurrent network architectures", 2015), and 0 for the others.

    PyTorch's weights are ``W = weight_ih.T``, ``U = weight_hh.T``, ``b = bias_ih + bias_hh``.
    """

    gates = 4

    def __init__(
        self, n_in: int | None, n_hidden: int, *, bias: bool = True, W_init: Initializer = glorot_uniform,
        U_init: Initializer = ORTHOGONAL, b_init: Initializer = open_forget_gate, seed: int | None = None,
        dtype: str = "float32",
    ) -> None:  # fmt: skip
        super().__init__(n_in, n_hidden, bias, W_init, U_init, b_init)
        if seed is not None:
            self.build(seed, dtype)

    def states(self, x: Any, state: Any) -> tuple[Any, ...]:
        if state is None:
            return self._zeros(x), self._zeros(x)
        return self._pair(state)

    def _pair(self, state: Any) -> tuple[Any, Any]:
        if not isinstance(state, tuple | list) or len(state) != 2:
            raise TypeError(f"{self!r} expects a state (h, c), got {type(state).__name__}")
        return state[0], state[1]

    def step(self, x: Any, states: tuple[Any, ...]) -> Any:
        h, c = states
        return lstm_cell(x, h, c, self.W, self.U, self.b)

    def steps(self, x: Any, state: Any, mask: Any, reverse: bool) -> tuple[Any, Any]:
        h, c = (None, None) if state is None else self._pair(state)
        y, h, c = lstm(x, self.W, self.U, self.b, h, c, mask, reverse=reverse)
        return y, (h, c)


class GRUCell(_Cell):
    """One step of a gated recurrent unit: ``cell(x, h)`` is the new state; see `gpubp.functions.gru_cell`.

    Parameters
    ----------
    n_in, n_hidden
        Lengths of the input and of the state. `n_in` may be None: it is then that of the first batch.
    bias
        Whether there are biases.
    W_init, U_init
        Initializers of the matrices of each gate, which stand side by side in W (n_in, 3 n_hidden) and
        U (n_hidden, 3 n_hidden), in the order reset gate, update gate, candidate.
    b_init
        Initializer of b (3 n_hidden,) and of b_hn (n_hidden,), the bias of the candidate's recurrent product.
    seed, dtype
        As for `Dense`.

    Notes
    -----
    Cho et al., "Learning phrase representations using RNN encoder-decoder for statistical machine translation", 2014,
    in the variant with the reset gate after the recurrent product, which is PyTorch's too. By default W is drawn as by
    Glorot and Bengio, 2010, and U is orthogonal (Saxe, McClelland, Ganguli, 2014), both gate by gate; the biases are 0.

    PyTorch's weights are ``W = weight_ih.T``, ``U = weight_hh.T``, ``b = bias_ih + bias_hh`` for the first two gates
    and ``bias_ih`` for the candidate, whose ``bias_hh`` is b_hn.
    """

    gates = 3
    b_hn: Any

    def __init__(
        self, n_in: int | None, n_hidden: int, *, bias: bool = True, W_init: Initializer = glorot_uniform,
        U_init: Initializer = ORTHOGONAL, b_init: Initializer = zeros, seed: int | None = None,
        dtype: str = "float32",
    ) -> None:  # fmt: skip
        super().__init__(n_in, n_hidden, bias, W_init, U_init, b_init)
        self.b_hn = Parameter((n_hidden,), b_init) if bias else None
        if seed is not None:
            self.build(seed, dtype)

    def step(self, x: Any, states: tuple[Any, ...]) -> Any:
        (h,) = states
        return gru_cell(x, h, self.W, self.U, self.b, self.b_hn)

    def steps(self, x: Any, state: Any, mask: Any, reverse: bool) -> tuple[Any, Any]:
        return gru(x, self.W, self.U, self.b, self.b_hn, state, mask, reverse=reverse)  # type: ignore[no-any-return]


# -- sequences


class _Recurrent(Layer):
    """What the recurrent layers share: a cell for each layer and direction, and the way through them."""

    cells: tuple[_Cell, ...]
    reverse_cells: tuple[_Cell, ...]
    dropout: Dropout | None
    last: bool

    def __init__(
        self, cell: Callable[[int | None], _Cell], n_in: int | None, n_hidden: int, layers: int, bidirectional: bool,
        dropout: float, last: bool, seed: int | None, dtype: str,
    ) -> None:  # fmt: skip
        name = type(self).__name__
        if not isinstance(layers, Integral) or layers < 1:
            raise ValueError(f"{name} expects a whole number of layers from 1, got {layers!r}")
        if dropout and layers == 1:
            raise ValueError(f"{name} drops out between layers, and there is one; put nn.Dropout behind it")
        widths = [n_in, *[n_hidden * (2 if bidirectional else 1)] * (int(layers) - 1)]
        self.cells = tuple(map(cell, widths))
        self.reverse_cells = tuple(map(cell, widths)) if bidirectional else ()
        self.dropout = Dropout(dropout) if dropout else None
        self.last = last
        if seed is not None:
            self.build(seed, dtype)

    def __call__(self, x: Any, /, state: Any = None, *, lengths: Any = None, mask: Any = None) -> Any:
        """Compute the output alone: what `run` returns first."""
        return self.run(x, state, lengths=lengths, mask=mask)[0]

    def run(
        self, x: Any, /, state: Any = None, *, lengths: Any = None, mask: Any = None
    ) -> tuple[Any, tuple[Any, ...]]:
        """Compute the output and the last state.

        Parameters
        ----------
        x
            Sequences of shape (batch, time, n_in).
        state
            The state to start from, as a run before returned it, or None for zeros.
        lengths
            How many steps each sequence has, the rest being padding: a list, or an integer array of shape (batch,).
        mask
            Instead of lengths, a boolean array of shape (batch, time): where there is a step.

        Returns
        -------
        output
            Of shape (batch, time, n), and zero where there is padding; or, of a layer with ``last=True``, what it is
            after the last step (of the reverse direction: after the first), of shape (batch, n). n is n_hidden, or
            twice that in both directions, first the forward one.
        state
            A tuple with the last state of each cell: the first layer's, that of its reverse direction if there is one,
            then the next layer's. Padding leaves a state as it is.

        Raises
        ------
        TypeError
            If dtypes or libraries differ, or the state is none.
        ValueError
            If shapes do not fit, or lengths are out of range (which on a device is not checked).
        """
        mask = self._mask(x, lengths, mask)
        states = iter(self._states(state))
        after: list[Any] = []
        for k, cell in enumerate(self.cells):
            if k and self.dropout is not None:
                x = self.dropout(x)
            outputs = []
            try:
                for reverse, one in enumerate((cell, *self.reverse_cells[k : k + 1])):
                    y, s = one.over(x, next(states), mask, bool(reverse))
                    outputs.append(y)
                    after.append(s)
            except Exception as error:
                error.add_note(f"in layer {k} of {self!r}")
                raise
            x = _joined(outputs)
        if self.last:
            directions = after[-len(outputs) :]
            x = _joined([s[0] if isinstance(s, tuple) else s for s in directions])
        return x, tuple(after)

    def _states(self, state: Any) -> Any:
        """Give the initial state of each cell."""
        count = len(self.cells) + len(self.reverse_cells)
        if state is None:
            return (None,) * count
        if not isinstance(state, tuple | list) or len(state) != count:
            given = f"{len(state)}" if isinstance(state, tuple | list) else type(state).__name__
            raise TypeError(f"{self!r} expects a state as run returns it, a tuple of {count}, got {given}")
        return state

    def _mask(self, x: Any, lengths: Any, mask: Any) -> Any:
        if lengths is None or mask is not None:
            if lengths is not None:
                raise TypeError(f"{self!r} takes lengths or a mask, got both")
            return mask
        like = strip(x)
        if not is_array(like) or like.ndim != 3:
            return None  # the cell says what is wrong
        xp, (batch, time) = raw_namespace(like), like.shape[:2]
        n = strip(lengths) if is_array(strip(lengths)) else xp.asarray(lengths, device=like.device)
        check_one_library(repr(self), input=like, lengths=n)
        if tuple(n.shape) != (batch,) or "int" not in str(n.dtype):
            raise ValueError(
                f"{self!r} expects lengths of shape ({batch},), integers, got {tuple(n.shape)} of {n.dtype}"
            )
        if device_of(n) == CPU and batch and not 0 <= n.min() <= n.max() <= time:
            raise ValueError(f"{self!r} expects lengths from 0 to {time}, got from {n.min()} to {n.max()}")
        n = xp.astype(n, xp.int64, copy=False)  # 8 bits may not count all steps
        return xp.arange(time, dtype=n.dtype, device=like.device) < xp.expand_dims(n, axis=1)

    def __repr__(self) -> str:
        first = self.cells[0]
        return shown(
            self, *first._arguments(), layers=(len(self.cells), 1), bidirectional=(bool(self.reverse_cells), False),
            dropout=(self.dropout.rate if self.dropout is not None else 0, 0), last=(self.last, False),
            bias=(first.b is not None, True),
        )  # fmt: skip


def _joined(arrays: list[Any]) -> Any:
    return arrays[0] if len(arrays) == 1 else array_namespace(*arrays).concat(arrays, axis=-1)


class RNN(_Recurrent):
    """Plain recurrent network over sequences: (batch, time, n_in) becomes (batch, time, n_hidden).

    Parameters
    ----------
    n_in, n_hidden
        Lengths of the input and of the state. `n_in` may be None: it is then that of the first batch.
    activation
        ``"tanh"`` or ``"relu"``, or these functions.
    layers
        How many layers stand one above the other.
    bidirectional
        Whether each layer also goes through time from the end; its outputs then stand behind those of the forward
        direction, 2 n_hidden in all.
    dropout
        The rate of dropout between layers, in training.
    last
        Whether the output is that after the last step alone, of shape (batch, n).
    bias, W_init, U_init, b_init
        As for `RNNCell`, whose defaults they are; the parameters are those of ``cells[k]``, and of
        ``reverse_cells[k]`` in the other direction.
    seed, dtype
        As for `Dense`.
    """

    def __init__(
        self, n_in: int | None, n_hidden: int, activation: Any = "tanh", *, layers: int = 1,
        bidirectional: bool = False, dropout: float = 0.0, last: bool = False, bias: bool = True,
        W_init: Initializer = glorot_uniform, U_init: Initializer = ORTHOGONAL, b_init: Initializer = zeros,
        seed: int | None = None, dtype: str = "float32",
    ) -> None:  # fmt: skip
        def cell(n: int | None) -> RNNCell:
            return RNNCell(n, n_hidden, activation, bias=bias, W_init=W_init, U_init=U_init, b_init=b_init)

        super().__init__(cell, n_in, n_hidden, layers, bidirectional, dropout, last, seed, dtype)


class LSTM(_Recurrent):
    """Long short-term memory over sequences: (batch, time, n_in) becomes (batch, time, n_hidden).

    Parameters
    ----------
    n_in, n_hidden
        Lengths of the input and of the state. `n_in` may be None: it is then that of the first batch.
    layers
        How many layers stand one above the other.
    bidirectional
        Whether each layer also goes through time from the end; its outputs then stand behind those of the forward
        direction, 2 n_hidden in all.
    dropout
        The rate of dropout between layers, in training.
    last
        Whether the output is that after the last step alone, of shape (batch, n).
    bias, W_init, U_init, b_init
        As for `LSTMCell`, whose defaults they are; the parameters are those of ``cells[k]``, and of
        ``reverse_cells[k]`` in the other direction.
    seed, dtype
        As for `Dense`.

    Examples
    --------
    A long sequence in pieces, with the state carried on and the gradient not (truncated backpropagation through time;
    Williams, Peng, "An efficient gradient-based algorithm for on-line training of recurrent network trajectories",
    1990): what is returned beside the loss is plain.

    >>> net = nn.LSTM(3, 4, seed=0)
    >>> def loss(net, x, state):
    ...     y, state = net.run(x, state)
    ...     return np.mean(y**2), state
    >>> step, state = bp.value_and_grad(loss, has_aux=True), None
    >>> for piece in np.split(np.ones((2, 20, 3), dtype="float32"), 5, axis=1):
    ...     (value, state), grads = step(net, piece, state)
    """

    def __init__(
        self, n_in: int | None, n_hidden: int, *, layers: int = 1, bidirectional: bool = False, dropout: float = 0.0,
        last: bool = False, bias: bool = True, W_init: Initializer = glorot_uniform,
        U_init: Initializer = ORTHOGONAL, b_init: Initializer = open_forget_gate, seed: int | None = None,
        dtype: str = "float32",
    ) -> None:  # fmt: skip
        def cell(n: int | None) -> LSTMCell:
            return LSTMCell(n, n_hidden, bias=bias, W_init=W_init, U_init=U_init, b_init=b_init)

        super().__init__(cell, n_in, n_hidden, layers, bidirectional, dropout, last, seed, dtype)


class GRU(_Recurrent):
    """Gated recurrent unit over sequences: (batch, time, n_in) becomes (batch, time, n_hidden).

    Parameters
    ----------
    n_in, n_hidden
        Lengths of the input and of the state. `n_in` may be None: it is then that of the first batch.
    layers
        How many layers stand one above the other.
    bidirectional
        Whether each layer also goes through time from the end; its outputs then stand behind those of the forward
        direction, 2 n_hidden in all.
    dropout
        The rate of dropout between layers, in training.
    last
        Whether the output is that after the last step alone, of shape (batch, n).
    bias, W_init, U_init, b_init
        As for `GRUCell`, whose defaults they are; the parameters are those of ``cells[k]``, and of
        ``reverse_cells[k]`` in the other direction.
    seed, dtype
        As for `Dense`.
    """

    def __init__(
        self, n_in: int | None, n_hidden: int, *, layers: int = 1, bidirectional: bool = False, dropout: float = 0.0,
        last: bool = False, bias: bool = True, W_init: Initializer = glorot_uniform,
        U_init: Initializer = ORTHOGONAL, b_init: Initializer = zeros, seed: int | None = None,
        dtype: str = "float32",
    ) -> None:  # fmt: skip
        def cell(n: int | None) -> GRUCell:
            return GRUCell(n, n_hidden, bias=bias, W_init=W_init, U_init=U_init, b_init=b_init)

        super().__init__(cell, n_in, n_hidden, layers, bidirectional, dropout, last, seed, dtype)
