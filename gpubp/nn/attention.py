"""Attention with several heads, and the block that a Transformer repeats."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..functions import attention, dense, gelu, rotary
from ..namespace import array_namespace
from .dense import Dense
from .dropout import Dropout
from .initializers import Initializer, glorot_uniform, side_by_side, zeros
from .layer import Layer, explain, shown
from .normalization import LayerNorm
from .parameter import Parameter

__all__ = ["MultiHeadAttention", "TransformerBlock"]


class MultiHeadAttention(Layer):
    """Attention of a sequence to itself, or to another, with several heads.

    Parameters
    ----------
    n
        Length of the vectors, of the input as of the output.
    heads
        How many heads there are, each with n / heads features.
    causal
        Whether a vector attends to itself and earlier ones only.
    rotary
        Whether queries and keys are turned by their positions (`gpubp.functions.rotary`).
    dropout
        In training, the probability of setting a weight to 0.
    bias
        Whether the projections have biases.
    W_init, b_init
        Initializers of weights and biases.
    seed
        For a layer that stands alone: draws the parameters at once. In a net it is the net's seed that does.
    dtype
        With `seed`: floating-point dtype of the parameters.

    Attributes
    ----------
    W, b : array
        The projections to queries, keys and values, side by side: of shape (n, 3n) and (3n,).
    W_out, b_out : array
        The projection of what the heads give: of shape (n, n) and (n,).

    Notes
    -----
    Vaswani et al., "Attention is all you need", 2017, section 3.2.2. By default each of the four matrices is drawn by
    itself as Glorot and Bengio, 2010, do, and the biases are zero.
    """

    W: Any
    b: Any
    W_out: Any
    b_out: Any

    def __init__(
        self,
        n: int,
        heads: int,
        *,
        causal: bool = False,
        rotary: bool = False,
        dropout: float = 0.0,
        bias: bool = True,
        W_init: Initializer = glorot_uniform,
        b_init: Initializer = zeros,
        seed: int | None = None,
        dtype: str = "float32",
    ) -> None:
        features = n // heads if heads > 0 else 0
        if features * heads != n or not n or (rotary and features % 2):
            even = ", an even number" if rotary else ""
            raise ValueError(f"MultiHeadAttention expects n / heads to be whole{even}, got n={n} and heads={heads}")
        self.W = Parameter((n, 3 * n), side_by_side(W_init, 3))
        self.b = Parameter((3 * n,), b_init) if bias else None
        self.W_out = Parameter((n, n), W_init)
        self.b_out = Parameter((n,), b_init) if bias else None
        self.heads, self.causal, self.rotary = heads, causal, rotary
        self.dropout = Dropout(dropout)
        if seed is not None:
            self.build(seed, dtype)

    def __call__(self, x: Any, memory: Any = None, /, mask: Any = None) -> Any:
        """Attend from `x` to itself, or to `memory`.

        Parameters
        ----------
        x
            Sequences of shape (..., time, n).
        memory
            Sequences of shape (..., other time, n) that keys and values are made of; those of `x` where it is None.
        mask
            As for `gpubp.functions.attention`: boolean, True where a position may be seen (or real numbers, added to
            the scores), of a shape that broadcasts to (..., heads, time, other time). To hide the padding of sequences,
            make ``mask[:, None, None, :]`` of a mask of shape (batch, other time).

        Returns
        -------
        array
            Of the shape of `x`.
        """
        if type(self.W) is Parameter:
            self.complete(x)
        try:
            q, k, v = self._projected(x, memory)
            rate, key = (self.dropout.rate, self.dropout.key) if self.training else (0.0, None)
            step = self.dropout.next_call() if rate else None
            y = attention(q, k, v, mask, step, causal=self.causal, dropout=rate, key=key)
            return dense(array_namespace(y).reshape(y, (*y.shape[:-2], self.W_out.shape[0])), self.W_out, self.b_out)
        except (AttributeError, TypeError, ValueError):
            wanted = (..., "time", self.W_out.shape[0])
            explain(self, x, wanted)
            if memory is not None:
                explain(self, memory, wanted, "input memory")
            raise

    def _projected(self, x: Any, memory: Any) -> Any:
        """Compute queries, keys and values of shape (..., time, heads, features)."""
        if memory is None:
            q, k, v = self._split(dense(x, self.W, self.b), 3)
            return (rotary(q), rotary(k), v) if self.rotary else (q, k, v)
        if self.rotary:
            raise ValueError(f"{self!r} has rotary positions, which are those of one sequence, but was given a memory")
        n = x.shape[-1]
        b, b_memory = (None, None) if self.b is None else (self.b[:n], self.b[n:])
        (q,) = self._split(dense(x, self.W[:, :n], b), 1)
        return (q, *self._split(dense(memory, self.W[:, n:], b_memory), 2))

    def _split(self, y: Any, parts: int) -> Any:
        xp = array_namespace(y)
        shape = (*y.shape[:-1], parts, self.heads, y.shape[-1] // (parts * self.heads))
        return xp.unstack(xp.reshape(y, shape), axis=-3)

    def __repr__(self) -> str:
        return shown(self, self.W_out.shape[0], self.heads, **self._options())

    def _options(self) -> dict[str, tuple[Any, Any]]:
        """Give the options that a `repr` shows, with their defaults."""
        return {
            "causal": (self.causal, False),
            "rotary": (self.rotary, False),
            "dropout": (self.dropout.rate, 0),
            "bias": (self.b is not None, True),
        }


def gelu_tanh(x: Any) -> Any:
    """Compute the Gaussian error linear unit by its approximation with tanh."""
    return gelu(x, approximate="tanh")


class TransformerBlock(Layer):
    """Attention and a network for each vector, each behind a norm and with a way past it.

    ``h = x + attention(norm1(x))`` and ``h + down(activation(up(norm2(h))))``, called pre-norm.

    Parameters
    ----------
    n
        Length of the vectors.
    heads
        How many heads the attention has.
    hidden
        How many units the network has between `up` and `down`: 4n where it is None.
    activation
        A function of one array.
    causal, rotary
        See `MultiHeadAttention`.
    dropout
        In training, the probability of setting a weight of the attention, and a number that is added to the way past,
        to 0.
    bias
        Whether the projections have biases.
    seed
        For a layer that stands alone: draws the parameters at once. In a net it is the net's seed that does.
    dtype
        With `seed`: floating-point dtype of the parameters.

    Notes
    -----
    Vaswani et al., "Attention is all you need", 2017; norms before the layers: Xiong et al., "On layer normalization in
    the Transformer architecture", 2020; GELU: Hendrycks, Gimpel, "Gaussian error linear units", 2016. Weights are drawn
    as those of `MultiHeadAttention` and `Dense`.
    """

    def __init__(
        self,
        n: int,
        heads: int,
        hidden: int | None = None,
        activation: Callable[[Any], Any] = gelu_tanh,
        *,
        causal: bool = False,
        rotary: bool = False,
        dropout: float = 0.0,
        bias: bool = True,
        seed: int | None = None,
        dtype: str = "float32",
    ) -> None:
        hidden = 4 * n if hidden is None else hidden
        self.norm1, self.norm2 = LayerNorm(n), LayerNorm(n)
        self.attention = MultiHeadAttention(n, heads, causal=causal, rotary=rotary, dropout=dropout, bias=bias)
        self.up, self.down = Dense(n, hidden, bias=bias), Dense(hidden, n, bias=bias)
        self.activation = activation
        self.dropout1, self.dropout2 = Dropout(dropout), Dropout(dropout)
        if seed is not None:
            self.build(seed, dtype)

    def __call__(self, x: Any, /, mask: Any = None) -> Any:
        """Compute the output, of the shape (..., time, n) of `x`; for `mask` see `MultiHeadAttention`."""
        try:
            h = x + self.dropout1(self.attention(self.norm1(x), mask=mask))
            return h + self.dropout2(self.down(self.activation(self.up(self.norm2(h)))))
        except Exception as error:
            error.add_note(f"in {self!r}")
            raise

    def __repr__(self) -> str:
        n, hidden = self.up.W.shape
        return shown(self, n, self.attention.heads, hidden, **self.attention._options())
