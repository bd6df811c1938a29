"""Layers that normalize."""

from __future__ import annotations

import math
from typing import Any

from ..array import strip
from ..functions.checks import check_alike
from ..functions.normalization import (
    batch_norm,
    batch_norm_inference,
    check_eps,
    check_groups,
    group_norm,
    layer_norm,
    rms_norm,
)
from ..state import State
from .initializers import Initializer, constant, zeros
from .layer import Layer, explain, shown
from .parameter import Parameter

__all__ = ["BatchNorm", "GroupNorm", "LayerNorm", "RMSNorm"]

ones = constant(1.0)


class _Normalization(Layer):
    """What they share: n channels, each with a gain and most with a bias, or without."""

    gain: Any
    bias: Any

    def _set_up(self, n: int | None, eps: float, **initializers: Initializer | None) -> None:
        check_eps(type(self).__name__, eps)
        self.n, self.eps = n, eps
        for name, initializer in initializers.items():
            setattr(self, name, None if initializer is None else Parameter((n,), initializer))

    def complete(self, x: Any) -> None:
        super().complete(x)
        self.n = self.sizes(x)

    def _prepare(self, x: Any) -> None:
        """Draw what waits for the first batch; without parameters it is here that a wrong length shows."""
        own = [vars(self).get(name) for name in ("gain", "bias")]
        if any(type(v) is Parameter for v in own):
            self.complete(x)
        elif all(v is None for v in own):
            self._explain(x)

    def _explain(self, x: Any) -> None:
        explain(self, x, (..., "n" if self.n is None else self.n))

    def _shown(self, *arguments: Any, **options: tuple[Any, Any]) -> str:
        has = {name: (vars(self).get(name, True) is not None, True) for name in ("gain", "bias")}
        return shown(self, *arguments, **options, eps=(self.eps, 1e-5), **has)

    def __repr__(self) -> str:
        return self._shown(self.n)


class LayerNorm(_Normalization):
    """Layer normalization: mean 0 and variance 1 over the last axis, then a gain and a bias.

    Parameters
    ----------
    n
        Length of the last axis; None for that of the first batch.
    eps
        Added to the variance.
    gain, bias
        Whether the layer has them.
    gain_init, bias_init
        Their initializers; both are of shape (n,).
    seed
        For a layer that stands alone: draws the parameters at once. In a net it is the net's seed that does.
    dtype
        With `seed`: floating-point dtype of the parameters.

    Notes
    -----
    Ba, Kiros, Hinton, "Layer normalization", 2016; the gain starts as 1, the bias as 0.
    """

    def __init__(
        self, n: int | None, *, eps: float = 1e-5, gain: bool = True, bias: bool = True,
        gain_init: Initializer = ones, bias_init: Initializer = zeros, seed: int | None = None, dtype: str = "float32",
    ) -> None:  # fmt: skip
        self._set_up(n, eps, gain=gain_init if gain else None, bias=bias_init if bias else None)
        if seed is not None:
            self.build(seed, dtype)

    def __call__(self, x: Any, /) -> Any:
        """Compute the output, of the shape (..., n) of the input."""
        self._prepare(x)
        try:
            return layer_norm(x, self.gain, self.bias, eps=self.eps)
        except (AttributeError, TypeError, ValueError):
            self._explain(x)
            raise


class RMSNorm(_Normalization):
    """Root mean square normalization: mean square 1 over the last axis, then a gain.

    Parameters
    ----------
    n
        Length of the last axis; None for that of the first batch.
    eps
        Added to the mean square.
    gain_init
        Initializer of the gain, of shape (n,).
    seed
        For a layer that stands alone: draws the parameters at once. In a net it is the net's seed that does.
    dtype
        With `seed`: floating-point dtype of the parameters.

    Notes
    -----
    Zhang, Sennrich, "Root mean square layer normalization", 2019; the gain starts as 1.
    """

    def __init__(
        self, n: int | None, *, eps: float = 1e-5, gain_init: Initializer = ones,
        seed: int | None = None, dtype: str = "float32",
    ) -> None:  # fmt: skip
        self._set_up(n, eps, gain=gain_init)
        if seed is not None:
            self.build(seed, dtype)

    def __call__(self, x: Any, /) -> Any:
        """Compute the output, of the shape (..., n) of the input."""
        self._prepare(x)
        try:
            return rms_norm(x, self.gain, eps=self.eps)
        except (AttributeError, TypeError, ValueError):
            self._explain(x)
            raise


class GroupNorm(_Normalization):
    """Group normalization: mean 0 and variance 1 over all positions and a group's channels, then a gain and a bias.

    ``GroupNorm(1, n)`` is layer normalization over the whole example, ``GroupNorm(n, n)`` instance normalization.

    Parameters
    ----------
    groups
        How many groups of neighbouring channels there are; it divides n.
    n
        Number of channels, the length of the last axis; None for that of the first batch.
    eps
        Added to the variance.
    gain, bias
        Whether the layer has them.
    gain_init, bias_init
        Their initializers; both are of shape (n,).
    seed
        For a layer that stands alone: draws the parameters at once. In a net it is the net's seed that does.
    dtype
        With `seed`: floating-point dtype of the parameters.

    Notes
    -----
    Wu, He, "Group normalization", 2018; the gain starts as 1, the bias as 0.
    """

    def __init__(
        self, groups: int, n: int | None, *, eps: float = 1e-5, gain: bool = True, bias: bool = True,
        gain_init: Initializer = ones, bias_init: Initializer = zeros, seed: int | None = None, dtype: str = "float32",
    ) -> None:  # fmt: skip
        if n is not None:
            check_groups("GroupNorm", groups, n)
        self.groups = groups
        self._set_up(n, eps, gain=gain_init if gain else None, bias=bias_init if bias else None)
        if seed is not None:
            self.build(seed, dtype)

    def sizes(self, x: Any) -> int:
        """Give the number of channels, which the groups must divide."""
        n = super().sizes(x)
        check_groups(repr(self), self.groups, n)
        return n

    def __call__(self, x: Any, /) -> Any:
        """Compute the output, of the shape (batch, ..., n) of the input."""
        self._prepare(x)
        try:
            return group_norm(x, self.gain, self.bias, groups=self.groups, eps=self.eps)
        except (AttributeError, TypeError, ValueError):
            self._explain(x)
            raise

    def __repr__(self) -> str:
        return self._shown(self.groups, self.n)


class BatchNorm(_Normalization):
    """Batch normalization: mean 0 and variance 1 of each channel over the batch, then a gain and a bias.

    In training the mean and variance are those of the batch, taken over all axes but the last, and running averages of
    both are kept. In evaluation these averages take their place, so that an example's output depends on it alone.

    Parameters
    ----------
    n
        Number of channels, the length of the last axis; None for that of the first batch.
    momentum
        The weight of a new batch in the running averages, ``(1 - momentum) * average + momentum * new``; None for the
        average of all batches so far.
    eps
        Added to the variance.
    gain, bias
        Whether the layer has them.
    gain_init, bias_init
        Their initializers; both are of shape (n,).
    seed
        For a layer that stands alone: draws the parameters at once. In a net it is the net's seed that does.
    dtype
        With `seed`: floating-point dtype of the parameters.

    Attributes
    ----------
    mean, variance : State
        The running averages, of shape (n,), 0 and 1 before the first batch. A batch enters with the unbiased estimate
        of the variance, while it is normalized with its own, biased one.
    batches : State or None
        Without a momentum: how many batches there were.

    Notes
    -----
    Ioffe, Szegedy, "Batch normalization: accelerating deep network training by reducing internal covariate shift",
    2015; the gain starts as 1, the bias as 0. A step waits for no value. When `gpubp.checkpoint` computes a batch again
    it is not counted again.
    """

    def __init__(
        self, n: int | None, *, momentum: float | None = 0.1, eps: float = 1e-5, gain: bool = True, bias: bool = True,
        gain_init: Initializer = ones, bias_init: Initializer = zeros, seed: int | None = None, dtype: str = "float32",
    ) -> None:  # fmt: skip
        if momentum is not None and not 0 <= momentum <= 1:
            raise ValueError(f"BatchNorm expects a momentum from 0 to 1, or None, got {momentum!r}")
        self.momentum = momentum
        self._set_up(n, eps, gain=gain_init if gain else None, bias=bias_init if bias else None)
        self.mean, self.variance = State(Parameter((n,), zeros)), State(Parameter((n,), ones))
        self.batches = State(Parameter((), zeros)) if momentum is None else None
        if seed is not None:
            self.build(seed, dtype)

    def __call__(self, x: Any, /) -> Any:
        """Compute the output, of the shape (batch, ..., n) of the input."""
        if type(self.mean.held) is Parameter:
            self.complete(x)
        self._prepare(x)
        try:
            if not self.training:
                running = self.mean.value, self.variance.value
                return batch_norm_inference(x, *running, self.gain, self.bias, eps=self.eps)
            count = math.prod(x.shape[:-1])
            if count == 1:
                raise ValueError(f"{self!r} expects several examples or positions in training, got {tuple(x.shape)}")
            y, mean, variance = batch_norm(x, self.gain, self.bias, eps=self.eps)
            self._count(strip(mean), strip(variance) * (count / (count - 1)))
        except (AttributeError, TypeError, ValueError):
            self._explain(x)
            raise
        return y

    def _count(self, mean: Any, variance: Any) -> None:
        """Let a batch enter the running averages."""
        old_mean, old_variance = self.mean.value, self.variance.value
        if mean.dtype != old_mean.dtype:
            check_alike(repr(self), input=mean, mean=old_mean)
        weight: Any = self.momentum
        if self.batches is not None:
            self.batches.value = batches = self.batches.value + 1
            weight = 1 / batches
        self.mean.value = (1 - weight) * old_mean + weight * mean
        self.variance.value = (1 - weight) * old_variance + weight * variance

    def __repr__(self) -> str:
        return self._shown(self.n, momentum=(self.momentum, 0.1))
