"""The optimizers. Step for step they equal PyTorch's of the same names, where PyTorch has them."""

from __future__ import annotations

from typing import Any, Unpack

from ..boundary import is_complex
from ..functions import update as rules
from .optimizer import Optimizer, Options

__all__ = ["SGD", "Adagrad", "Adam", "AdamW", "Lion", "Muon", "RMSprop"]


class SGD(Optimizer):
    """Stochastic gradient descent; see `gpubp.functions.update.sgd`.

    Parameters
    ----------
    tree
        A built net, or a dict or list that holds arrays; see `Optimizer`.
    lr
        Learning rate, or a schedule.
    momentum
        Factor μ by which past gradients keep moving the parameters.
    dampening
        Share τ of a new gradient that does not go into the momentum.
    nesterov
        Whether to look ahead along the momentum.
    weight_decay
        Factor λ of an L2 penalty ½ λ ‖p‖² on every parameter.
    decoupled
        Whether parameters shrink by the factor 1 - lr λ instead.
    **options
        See `Optimizer`.
    """

    rule = rules.sgd
    names = ("lr", "momentum", "dampening", "nesterov", "weight_decay", "decoupled")

    def __init__(
        self,
        tree: Any,
        lr: Any,
        *,
        momentum: float = 0.0,
        dampening: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        decoupled: bool = False,
        **options: Unpack[Options],
    ) -> None:
        self.momentum, self.dampening, self.nesterov = momentum, dampening, nesterov
        self.weight_decay, self.decoupled = weight_decay, decoupled
        super().__init__(tree, lr, **options)


class Adagrad(Optimizer):
    """Adagrad; see `gpubp.functions.update.adagrad`.

    Parameters
    ----------
    tree
        A built net, or a dict or list that holds arrays; see `Optimizer`.
    lr
        Learning rate, or a schedule.
    lr_decay
        Decay η of the learning rate.
    initial
        The sum s₀ of squares at the start; PyTorch calls it ``initial_accumulator_value``.
    eps
        Added to the denominator.
    weight_decay, decoupled
        See `SGD`.
    **options
        See `Optimizer`.
    """

    rule = rules.adagrad
    names = ("lr", "lr_decay", "initial", "eps", "weight_decay", "decoupled")

    def __init__(
        self,
        tree: Any,
        lr: Any = 1e-2,
        *,
        lr_decay: float = 0.0,
        initial: float = 0.0,
        eps: float = 1e-10,
        weight_decay: float = 0.0,
        decoupled: bool = False,
        **options: Unpack[Options],
    ) -> None:
        self.lr_decay, self.initial, self.eps = lr_decay, initial, eps
        self.weight_decay, self.decoupled = weight_decay, decoupled
        super().__init__(tree, lr, **options)


class RMSprop(Optimizer):
    """RMSprop; see `gpubp.functions.update.rmsprop`.

    Parameters
    ----------
    tree
        A built net, or a dict or list that holds arrays; see `Optimizer`.
    lr
        Learning rate, or a schedule.
    alpha
        Decay rate α of the running means.
    eps
        Added to the denominator.
    centered
        Whether to divide by the standard deviation of the gradient instead of the root of its mean square.
    momentum
        Factor μ by which past steps keep moving the parameters.
    weight_decay, decoupled
        See `SGD`.
    **options
        See `Optimizer`.
    """

    rule = rules.rmsprop
    names = ("lr", "alpha", "eps", "centered", "momentum", "weight_decay", "decoupled")

    def __init__(
        self,
        tree: Any,
        lr: Any = 1e-2,
        *,
        alpha: float = 0.99,
        eps: float = 1e-8,
        centered: bool = False,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        decoupled: bool = False,
        **options: Unpack[Options],
    ) -> None:
        self.alpha, self.eps, self.centered, self.momentum = alpha, eps, centered, momentum
        self.weight_decay, self.decoupled = weight_decay, decoupled
        super().__init__(tree, lr, **options)


class Adam(Optimizer):
    """Adam; see `gpubp.functions.update.adam`.

    Parameters
    ----------
    tree
        A built net, or a dict or list that holds arrays; see `Optimizer`.
    lr
        Learning rate, or a schedule.
    betas
        Decay rates β₁, β₂ of the running means of the gradient and of its square.
    eps
        Added to the denominator.
    amsgrad
        Whether to divide by the largest mean square so far.
    weight_decay, decoupled
        See `SGD`.
    **options
        See `Optimizer`.
    """

    rule = rules.adam
    names = ("lr", "betas", "eps", "amsgrad", "weight_decay", "decoupled")

    def __init__(
        self,
        tree: Any,
        lr: Any = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        amsgrad: bool = False,
        weight_decay: float = 0.0,
        decoupled: bool = False,
        **options: Unpack[Options],
    ) -> None:
        self.betas, self.eps, self.amsgrad = betas, eps, amsgrad
        self.weight_decay, self.decoupled = weight_decay, decoupled
        super().__init__(tree, lr, **options)


class AdamW(Adam):
    """Adam with decoupled weight decay: parameters shrink by the factor 1 - lr λ at each step.

    Parameters
    ----------
    tree
        A built net, or a dict or list that holds arrays; see `Optimizer`.
    lr
        Learning rate, or a schedule.
    betas, eps, amsgrad
        See `Adam`.
    weight_decay
        Factor λ.
    **options
        See `Optimizer`.
    """

    def __init__(
        self,
        tree: Any,
        lr: Any = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        amsgrad: bool = False,
        weight_decay: float = 1e-2,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(
            tree, lr, betas=betas, eps=eps, amsgrad=amsgrad, weight_decay=weight_decay, decoupled=True, **options
        )


class Lion(Optimizer):
    """Lion, whose steps have the sign of an interpolated momentum alone; see `gpubp.functions.update.lion`.

    Parameters
    ----------
    tree
        A built net, or a dict or list that holds arrays; see `Optimizer`.
    lr
        Learning rate, or a schedule: some 3 to 10 times smaller than for AdamW.
    betas
        β₁ and β₂, by which the momentum is interpolated and kept.
    weight_decay, decoupled
        See `SGD`.
    **options
        See `Optimizer`.
    """

    rule = rules.lion
    names = ("lr", "betas", "weight_decay", "decoupled")

    def __init__(
        self,
        tree: Any,
        lr: Any = 1e-4,
        *,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        decoupled: bool = True,
        **options: Unpack[Options],
    ) -> None:
        self.betas, self.weight_decay, self.decoupled = betas, weight_decay, decoupled
        super().__init__(tree, lr, **options)


class Muon(Optimizer):
    """Muon, whose steps of a matrix are its orthogonalized momentum; see `gpubp.functions.update.muon`.

    Real parameters of two and more axes are such matrices, the last axis their columns. All others are stepped by
    AdamW, and so should be embeddings and the last layer of a net: ``groups={"layers[4]": {"orthogonal": False}}``.

    Parameters
    ----------
    tree
        A built net, or a dict or list that holds arrays; see `Optimizer`.
    lr
        Learning rate, or a schedule.
    momentum
        Decay rate μ of the running mean of the gradient.
    nesterov
        Whether to look ahead along the momentum.
    iterations
        Of the Newton-Schulz iteration, which is computed in the parameter's own precision.
    match_adam
        Whether the steps of matrices are as large as Adam's, so that one learning rate fits all parameters; else they
        are scaled as in the definition, by √max(1, columns / rows), and learning rates of some 0.02 are usual.
    betas, eps
        Of AdamW; see `Adam`.
    weight_decay, decoupled
        See `SGD`.
    **options
        See `Optimizer`.
    """

    rule = rules.muon
    names = ("lr", "momentum", "nesterov", "iterations", "match_adam", "betas", "eps", "orthogonal",
             "weight_decay", "decoupled")  # fmt: skip
    orthogonal = True

    def __init__(
        self,
        tree: Any,
        lr: Any = 1e-3,
        *,
        momentum: float = 0.95,
        nesterov: bool = True,
        iterations: int = 5,
        match_adam: bool = True,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.1,
        decoupled: bool = True,
        **options: Unpack[Options],
    ) -> None:
        self.momentum, self.nesterov, self.iterations, self.match_adam = momentum, nesterov, iterations, match_adam
        self.betas, self.eps, self.weight_decay, self.decoupled = betas, eps, weight_decay, decoupled
        super().__init__(tree, lr, **options)

    def fixed_numbers(self) -> Any:
        """Return the numbers that became part of a captured step."""
        names = "iterations", "match_adam"
        return [tuple(other.get(name, getattr(self, name)) for name in names) for other in self._others]

    def settings_for(self, p: Any) -> dict[str, Any]:
        """Have AdamW for what is no matrix."""
        return {} if p.ndim >= 2 and not is_complex(p) else {"orthogonal": False}
