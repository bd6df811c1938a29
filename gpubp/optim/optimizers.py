"""The optimizers. Step for step they equal PyTorch's of the same names, where PyTorch has them."""

from __future__ import annotations

from typing import Any, Unpack

from ..device import raw_namespace
from ..functions import update as rules
from ..functions.update import check_number
from ..nn.parameter import check_built
from ..tree import cells_with_paths, map_distinct
from .optimizer import Options, Optimizer

__all__ = ["SGD", "Adagrad", "Adam", "AdamW", "Average", "Lion", "Muon", "RMSprop"]


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

    Parameters of two and more axes are such matrices, the last axis their columns; all others are stepped by AdamW.
    Embeddings and the last layer of a net are better stepped so too: ``groups={"layers[4]": {"orthogonal": False}}``.

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

    def of_shape(self, shape: tuple[int, ...]) -> dict[str, Any]:
        return {} if len(shape) >= 2 else {"orthogonal": False}


class Average(Optimizer):
    """The exponential moving average of a net's weights, a ← d a + (1-d) w, which is often better than the last ones.

    Parameters
    ----------
    source
        The net, or the dict or list of arrays, whose average is kept. Its arrays may be on any device, and be changed by
        an optimizer; make the average after that.
    decay
        The factor d. The first `update` takes the weights as they are.

    Notes
    -----
    Polyak, Juditsky, "Acceleration of stochastic approximation by averaging", 1992; with exponential weights as in
    Tarvainen, Valpola, "Mean teachers are better role models", 2017.

    Examples
    --------
    >>> net = nn.Sequential(nn.Dense(2, 2), seed=0)
    >>> opt, average = bp.optim.SGD(net, 0.1), bp.optim.Average(net, 0.99)
    >>> grads = bp.grad(lambda net: np.sum(net(np.ones((1, 2), "float32"))))(net)
    >>> opt.step(grads)
    >>> average.update()
    >>> y = average.net(np.ones((1, 2), "float32"))
    """

    rule = rules.average
    names = ("decay",)

    def __init__(self, source: Any, decay: float = 0.999) -> None:
        check_built(source)
        check_number("decay", decay)
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be from 0 to below 1, got {decay}")
        self.source, self.decay = source, decay
        super().__init__(map_distinct(lambda x: raw_namespace(x).asarray(x, copy=True), source), 0.0)

    def update(self) -> None:
        """Take the weights as they are now into the average; after each step of the optimizer."""
        self.step(self.source)

    @property
    def net(self) -> Any:
        """A net of the same kind whose parameters are the averages, and whose cells hold what the net's do now."""
        for (_, own), (_, cell) in zip(cells_with_paths(self.tree), cells_with_paths(self.source), strict=True):
            own.held = cell.held
        return self.tree
