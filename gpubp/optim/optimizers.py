"""Gradient descent and Adam. Step for step they equal PyTorch's optimizers of the same names."""

from __future__ import annotations

from typing import Any

from ..functions.update import LossScale, adam, check_number, sgd
from .optimizer import Optimizer

__all__ = ["SGD", "Adam", "AdamW"]


class SGD(Optimizer):
    """Stochastic gradient descent; see `gpubp.functions.update.sgd`.

    Parameters
    ----------
    tree
        A built net, or a dict or list that holds arrays; see `Optimizer`.
    lr
        Learning rate.
    momentum
        Factor μ by which past gradients keep moving the parameters.
    nesterov
        Whether to look ahead along the momentum.
    weight_decay
        Factor λ of an L2 penalty ½ λ ‖p‖² on every parameter.
    clip_norm, skip_nonfinite, loss_scale
        See `Optimizer`.
    """

    update = sgd

    def __init__(
        self,
        tree: Any,
        lr: float,
        *,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        clip_norm: float | None = None,
        skip_nonfinite: bool = False,
        loss_scale: LossScale | float | str | None = None,
    ) -> None:
        _check_not_negative(lr=lr, momentum=momentum, weight_decay=weight_decay)
        if nesterov and not momentum:
            raise ValueError("nesterov=True needs a momentum above 0")
        self.momentum, self.nesterov, self.weight_decay = momentum, nesterov, weight_decay
        self.slots = 1 if momentum else 0
        super().__init__(tree, lr, clip_norm=clip_norm, skip_nonfinite=skip_nonfinite, loss_scale=loss_scale)

    def settings(self) -> dict[str, Any]:
        """Return the keyword arguments of the update."""
        return {
            "lr": self.lr,
            "momentum": self.momentum,
            "nesterov": self.nesterov,
            "weight_decay": self.weight_decay,
        }


class Adam(Optimizer):
    """Adam; see `gpubp.functions.update.adam`.

    Parameters
    ----------
    tree
        A built net, or a dict or list that holds arrays; see `Optimizer`.
    lr
        Learning rate.
    betas
        Decay rates β₁, β₂ of the running means of the gradient and of its square.
    eps
        Added to the denominator.
    weight_decay
        Factor λ of an L2 penalty ½ λ ‖p‖² on every parameter.
    clip_norm, skip_nonfinite, loss_scale
        See `Optimizer`.
    """

    update = adam
    slots = 2
    decoupled = False

    def __init__(
        self,
        tree: Any,
        lr: float = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        clip_norm: float | None = None,
        skip_nonfinite: bool = False,
        loss_scale: LossScale | float | str | None = None,
    ) -> None:
        _check_not_negative(lr=lr, eps=eps, weight_decay=weight_decay)
        if not all(0.0 <= beta < 1.0 for beta in betas):
            raise ValueError(f"betas must be from 0 to below 1, got {betas}")
        self.betas, self.eps, self.weight_decay = betas, eps, weight_decay
        super().__init__(tree, lr, clip_norm=clip_norm, skip_nonfinite=skip_nonfinite, loss_scale=loss_scale)

    def settings(self) -> dict[str, Any]:
        """Return the keyword arguments of the update."""
        return {
            "lr": self.lr,
            "betas": self.betas,
            "eps": self.eps,
            "weight_decay": self.weight_decay,
            "decoupled": self.decoupled,
        }


class AdamW(Adam):
    """Adam with decoupled weight decay: parameters shrink by the factor 1 - lr λ at each step.

    Parameters
    ----------
    tree
        A built net, or a dict or list that holds arrays; see `Optimizer`.
    lr
        Learning rate.
    betas
        Decay rates β₁, β₂ of the running means of the gradient and of its square.
    eps
        Added to the denominator.
    weight_decay
        Factor λ.
    clip_norm, skip_nonfinite, loss_scale
        See `Optimizer`.
    """

    decoupled = True

    def __init__(
        self,
        tree: Any,
        lr: float = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        clip_norm: float | None = None,
        skip_nonfinite: bool = False,
        loss_scale: LossScale | float | str | None = None,
    ) -> None:
        super().__init__(
            tree,
            lr,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            clip_norm=clip_norm,
            skip_nonfinite=skip_nonfinite,
            loss_scale=loss_scale,
        )


def _check_not_negative(**settings: float) -> None:
    for name, value in settings.items():
        check_number(name, value)
        if not value >= 0:
            raise ValueError(f"{name} must not be negative, got {value}")
