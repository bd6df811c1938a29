"""The arithmetic of the optimizers: one step of one parameter.

An update is ``update(xp, p, g, state, **settings) -> (p, state)``, in new arrays. Where a library's arrays are
writable, `gpubp.kernels` may register the same step in place: ``in_place(p, g, state, temporary, **settings)``
overwrites p and every array of state, may overwrite g, and has one more array of the shape of p to work in.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

State = tuple[Any, ...]


class Update:
    """One optimizer's step and its overrides by library."""

    def __init__(self, definition: Callable[..., tuple[Any, State]]) -> None:
        self.__doc__ = definition.__doc__
        self.definition = definition
        self.in_place: dict[str, Callable[..., None]] = {}

    def __call__(self, xp: Any, p: Any, g: Any, state: State, **settings: Any) -> tuple[Any, State]:
        """Compute the parameter and the state after the step, as new arrays."""
        return self.definition(xp, p, g, state, **settings)


@Update
def sgd(
    xp: Any, p: Any, g: Any, state: State, *, lr: float, momentum: float, nesterov: bool, weight_decay: float
) -> tuple[Any, State]:
    """Gradient descent: v ← μ v + g, p ← p - lr v; with Nesterov's momentum p ← p - lr (g + μ v).

    The state is (v,), or () without momentum. Weight decay adds λ p to g. As in PyTorch, lr is outside of v.

    Notes
    -----
    Sutskever, Martens, Dahl, Hinton, "On the importance of initialization and momentum in deep learning", 2013.
    """
    if weight_decay:
        g = g + weight_decay * p
    if state:
        v = momentum * state[0] + g
        state = (v,)
        g = g + momentum * v if nesterov else v
    return p - lr * g, state


@Update
def adam(
    xp: Any,
    p: Any,
    g: Any,
    state: State,
    *,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    decoupled: bool,
    t: int,
) -> tuple[Any, State]:
    """Adam's step number t, from 1: m ← β₁ m + (1-β₁) g, v ← β₂ v + (1-β₂) g², p ← p - lr m̂ / (√v̂ + ε).

    The state is (m, v); m̂ and v̂ are these without their bias towards 0. Weight decay adds λ p to g, or where
    `decoupled` shrinks p by the factor 1 - lr λ instead.

    Notes
    -----
    Kingma, Ba, "Adam: a method for stochastic optimization", 2015, algorithm 1. Loshchilov, Hutter, "Decoupled
    weight decay regularization", 2019, algorithm 2.
    """
    beta1, beta2 = betas
    if decoupled:
        p = p * (1 - lr * weight_decay)
    elif weight_decay:
        g = g + weight_decay * p
    m = beta1 * state[0] + (1 - beta1) * g
    v = beta2 * state[1] + (1 - beta2) * (g * g)
    step, root = adam_scales(lr, betas, t)
    return p - step * (m / (xp.sqrt(v) / root + eps)), (m, v)


def adam_scales(lr: float, betas: tuple[float, float], t: int) -> tuple[float, float]:
    """Return lr / (1 - β₁ᵗ) and √(1 - β₂ᵗ), which undo the bias of the running means."""
    return lr / (1 - betas[0] ** t), math.sqrt(1 - betas[1] ** t)
