"""The dense layer."""

from __future__ import annotations

from typing import Any

from ..functions.activation import BY_OUTPUT, NAMES
from ..functions.dense import dense
from .initializers import Initializer, glorot_uniform, zeros
from .layer import Layer, explain, shown
from .parameter import Parameter

__all__ = ["Dense"]


class Dense(Layer):
    """Fully connected layer: ``activation(x @ W + b)``.

    Parameters
    ----------
    n_in, n_out
        Lengths of the last axis of the input and of the output. `n_in` may be None: it is then that of the first batch.
    activation
        One of `identity` (as None), `sigmoid`, `tanh`, `relu`, `leaky_relu`, `elu` and `selu`, as a function or by its
        name. Put any other function behind the layer in a `Sequential`.
    bias
        Whether there is a bias.
    W_init, b_init
        Initializers of the weights, W of shape (n_in, n_out), and the biases, b of shape (n_out,).
    seed
        For a layer that stands alone: draws the parameters at once. In a net it is the net's seed that does.
    dtype
        With `seed`: floating-point dtype of the parameters.

    Notes
    -----
    The defaults, W uniform with variance 2 / (n_in + n_out) and b zero, are those of Glorot and Bengio,
    "Understanding the difficulty of training deep feedforward neural networks", 2010.
    """

    W: Any
    b: Any

    def __init__(
        self,
        n_in: int | None,
        n_out: int,
        activation: Any = None,
        *,
        bias: bool = True,
        W_init: Initializer = glorot_uniform,
        b_init: Initializer = zeros,
        seed: int | None = None,
        dtype: str = "float32",
    ) -> None:
        self.W = Parameter((n_in, n_out), W_init)
        self.b = Parameter((n_out,), b_init) if bias else None
        self.activation = activation_name("Dense", activation)
        if seed is not None:
            self.build(seed, dtype)

    def __call__(self, x: Any, /) -> Any:
        """Compute the output of shape (..., n_out) for an input of shape (..., n_in)."""
        return self.before(x, self.activation)

    def before(self, x: Any, activation: str) -> Any:
        """Compute this layer and the activation that follows it in one call."""
        if type(self.W) is Parameter:
            self.complete(x)
        try:
            return dense(x, self.W, self.b, activation=activation)
        except (AttributeError, TypeError, ValueError):
            explain(self, x, (..., self.W.shape[0]))
            raise

    def __repr__(self) -> str:
        activation = [] if self.activation == "identity" else [self.activation]
        return shown(self, *self.W.shape, *activation, bias=(self.b is not None, True))


def activation_name(layer: str, activation: Any) -> str:
    """Give the name of an activation that a layer computes together with its product, or say that it is none."""
    if activation is None:
        return "identity"
    name = activation if isinstance(activation, str) else NAMES.get(activation)
    if name not in BY_OUTPUT:
        raise ValueError(
            f"{layer} expects an activation among {', '.join(BY_OUTPUT)}, got {activation!r}; "
            "in a Sequential any function may follow the layer"
        )
    return name
