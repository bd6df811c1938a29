"""The arithmetic of the optimizers: one step of one parameter, and what is done to all gradients before it.

An update is ``update(xp, p, g, state, t=..., **settings) -> (p, state)``, in new arrays. `Store` keeps parameters and
state and steps them so; `gpubp.kernels` may register another for a library whose arrays are writable.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, ClassVar, NamedTuple

from ..boundary import is_complex
from ..device import raw_namespace

State = tuple[Any, ...]


class Update:
    """One optimizer's step.

    Attributes
    ----------
    slots : tuple of str
        The names of the arrays of state that it may have for each parameter.
    kernels : dict
        What computes the step for a library's own store, by library.
    """

    def __init__(self, definition: Callable[..., tuple[Any, State]], slots: tuple[str, ...]) -> None:
        self.__doc__, self.__name__ = definition.__doc__, definition.__name__
        self.definition, self.slots = definition, slots
        self.kernels: dict[str, Any] = {}

    def __call__(self, xp: Any, p: Any, g: Any, state: State, *, t: Any, **settings: Any) -> tuple[Any, State]:
        """Compute the parameter and the state after step number `t`, as new arrays."""
        return self.definition(xp, p, g, state, t=t, **settings)


def update(*slots: str) -> Callable[[Callable[..., tuple[Any, State]]], Update]:
    """Make, as a decorator, an update of its definition and the names of its state."""
    return lambda definition: Update(definition, slots)


@update("v")
def sgd(
    xp: Any, p: Any, g: Any, state: State, *, t: Any, lr: float, momentum: float, nesterov: bool, weight_decay: float
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


@update("m", "v")
def adam(
    xp: Any,
    p: Any,
    g: Any,
    state: State,
    *,
    t: Any,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    decoupled: bool,
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
    step, root = adam_scales(math if isinstance(t, int) else xp, lr, betas, t)
    return p - step * (m / (xp.sqrt(v) / root + eps)), (m, v)


def adam_scales(xp: Any, lr: float, betas: tuple[float, float], t: Any) -> tuple[Any, Any]:
    """Return lr / (1 - β₁ᵗ) and √(1 - β₂ᵗ), which undo the bias of the running means.

    `xp` is `math` for a number t, the namespace for a floating 0-d array. Not to lose digits where 1 - βᵗ is small, it
    is computed as -expm1(t log β).
    """
    share1, share2 = (-xp.expm1(math.log(beta) * t) if beta else 1.0 for beta in betas)
    return lr / share1, xp.sqrt(share2) if betas[1] else 1.0


# -- what is done to the gradients of all parameters before a step


@dataclass(frozen=True)
class LossScale:
    """A factor of the loss that keeps 16-bit gradients from underflowing; the optimizer divides it out again.

    A step with a gradient that is not finite is skipped and the factor backs off; after a number of good steps in a row
    it grows. The factor is a float32.

    Parameters
    ----------
    init
        The factor at first.
    growth, backoff
        By which it is multiplied when it grows and when it backs off. Both 1: it stays what it is.
    interval
        Good steps in a row until it grows.

    Notes
    -----
    Micikevicius et al., "Mixed precision training", 2018, section 3.2; the rule and its defaults are those of PyTorch's
    GradScaler.
    """

    init: float = 2.0**16
    growth: float = 2.0
    backoff: float = 0.5
    interval: int = 2000

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            check_number(name, value)
        if not (self.init > 0 and math.isfinite(self.init)):
            raise ValueError(f"a loss scale must be above 0 and finite, got {self.init}")
        if not (self.growth >= 1 and 0 < self.backoff <= 1 and self.interval >= 1):
            raise ValueError(
                "a loss scale needs growth from 1, backoff from above 0 to 1 and an interval from 1, got "
                f"{self.growth}, {self.backoff}, {self.interval}"
            )

    @property
    def dynamic(self) -> bool:
        """Whether it ever changes."""
        return self.growth != 1 or self.backoff != 1


def check_number(name: str, value: Any) -> None:
    """Refuse a setting that is no real number."""
    if not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {value!r}")


class Guard(NamedTuple):
    """What is done to all gradients before a step: unscaled, looked through, clipped.

    Attributes
    ----------
    clip_norm
        The norm over all gradients to which they are brought if theirs is larger; infinity only measures it.
    skip
        Whether a step is left out if a gradient is not finite.
    loss_scale
        The factor that is in the gradients, or None.
    """

    clip_norm: float | None = None
    skip: bool = False
    loss_scale: LossScale | None = None

    @property
    def looks(self) -> bool:
        """Whether the gradients must be looked through before the step."""
        return self.clip_norm is not None or self.skip


def measure(xp: Any, gradients: Sequence[Any], dtype: Any) -> tuple[Any, Any]:
    """Return the norm over all gradients, none of 16 bits, in `dtype`; and whether all is finite: 0-d arrays."""
    total, finite = None, None
    for g in gradients:
        squares = xp.real(g * xp.conj(g)) if is_complex(g) else g * g
        part, fine = xp.astype(xp.sum(squares), dtype), xp.all(xp.isfinite(g))
        total = part if total is None else total + part
        finite = fine if finite is None else finite & fine
    return xp.sqrt(total), finite


def clip_factor(xp: Any, norm: Any, clip_norm: float) -> Any:
    """Return by what gradients of a norm are multiplied: min(1, clip_norm / (norm + 1e-6)), as in PyTorch."""
    if math.isinf(clip_norm):
        return xp.ones_like(norm)
    factor = clip_norm / (norm + 1e-6)
    return xp.where(factor > 1, xp.ones_like(factor), factor)


#: Below it float32 loses digits, and on a GPU is 0.
SMALLEST_SCALE = 2.0**-126


def rescale(xp: Any, rule: LossScale, scale: Any, good: Any, finite: Any) -> tuple[Any, Any]:
    """Return the loss scale and the number of good steps in a row after a step whose gradients were `finite`."""
    good = xp.where(finite, good + 1, xp.zeros_like(good))
    grows = good == rule.interval
    grown, less = scale * rule.growth, scale * rule.backoff
    larger = xp.where(grows & xp.isfinite(grown), grown, scale)
    smaller = xp.where(less >= SMALLEST_SCALE, less, scale)
    return xp.where(finite, larger, smaller), xp.where(grows, xp.zeros_like(good), good)


# -- where parameters and state are kept

#: What a store counts.
COUNTS = ("steps", "skipped", "good")


def is_narrow(dtype: Any) -> bool:
    """Whether a dtype is a 16-bit float, whose arithmetic and state are float32."""
    return "float16" in str(dtype)


class Store:
    """Parameters and what an optimizer remembers of them; this one makes new arrays at every step.

    Parameters
    ----------
    update
        The arithmetic of a step.
    arrays
        The parameters: distinct real or complex floating-point arrays of one library and device.
    slots
        The number of arrays of state for each.
    guard
        What is done to the gradients first.

    Attributes
    ----------
    arrays : list of array
        The parameters as they are now, to be put in their places.
    slots : list of tuple of array
        The state of each.
    names : tuple of str
        What the arrays of a state are.
    replaces : bool
        Whether `arrays` are others after each step.
    is_device : bool
        Whether a step only launches what a CUDA graph can repeat, provided that `refresh` was called before it.
    steps, skipped, good : int or 0-d array
        Steps taken, steps skipped since a gradient was not finite, and steps taken since the loss scale last changed.
    norm : 0-d array or None
        The norm of the last gradients, if they were looked through.
    scale : 0-d array or None
        The loss scale, a float32.
    """

    #: The store of each library that has one of its own, by `gpubp.device.library`.
    of_library: ClassVar[dict[str, Callable[..., Store]]] = {}

    replaces = True
    is_device = False

    def __init__(self, update: Update, arrays: Sequence[Any], slots: int, guard: Guard) -> None:
        self.update, self.guard, self.names = update, guard, update.slots[:slots]
        self.arrays: list[Any] = list(arrays)
        self.xp: Any = raw_namespace(arrays[0])
        self.steps: Any = 0
        self.skipped: Any = 0
        self.good: Any = 0
        self.norm: Any = None
        self.scale: Any = None
        self._prepare(slots)

    def _prepare(self, slots: int) -> None:
        xp, like = self.xp, self.arrays[0]
        self._narrow = [is_narrow(x.dtype) for x in self.arrays]
        wide = self._widened(self.arrays)
        self.slots: list[State] = [tuple(xp.zeros_like(x) for _ in range(slots)) for x in wide]
        self._real = [xp.real(x).dtype if is_complex(x) else x.dtype for x in wide]
        self._dtype = xp.float64 if any(str(dtype).endswith("float64") for dtype in self._real) else xp.float32
        if self.guard.looks or self.guard.loss_scale:
            zero = xp.zeros((), dtype=xp.int32, device=like.device)
            self.steps, self.skipped, self.good = zero, zero, zero
        if (rule := self.guard.loss_scale) is not None:
            self.scale = xp.full((), rule.init, dtype=xp.float32, device=like.device)

    def load(self, arrays: Sequence[Any]) -> None:
        """Take over the values of other arrays, of the same shapes and dtypes."""
        self.arrays = list(arrays)

    def refresh(self, settings: dict[str, Any]) -> None:
        """Put the settings where steps read them, if that is on the device."""

    def changed_arrays(self) -> list[Any]:
        """Return the arrays that a step changes in place."""
        return []

    def count(self, name: str) -> Any:
        """Return one of `COUNTS` as a 0-d int32 array where the parameters are."""
        count, xp = getattr(self, name), self.xp
        if isinstance(count, int):
            return xp.asarray(count, dtype=xp.int32, device=self.arrays[0].device)
        return xp.astype(count, xp.int32)

    def restore(self, slots: Sequence[State], counts: Mapping[str, Any], scale: Any) -> None:
        """Take over state, counts and loss scale: arrays where the parameters are, which are not changed later."""
        self.slots = list(slots)
        for name, count in counts.items():
            setattr(self, name, int(count) if isinstance(getattr(self, name), int) else count)
        self.scale = scale

    def step(self, gradients: Sequence[Any], settings: dict[str, Any]) -> None:
        """Change the parameters and their state; where the gradient is None, leave them as they are."""
        xp, (clip_norm, skip, rule) = self.xp, self.guard
        gradients = self._widened(gradients)
        if not (self.guard.looks or rule):
            self.steps += 1
            self._update(gradients, settings, self.steps, None, None)
            return
        factor = take = None
        if rule is not None:
            factor = 1 / xp.astype(self.scale, self._dtype)
        if self.guard.looks:
            self.norm, finite = measure(xp, [g for g in gradients if g is not None], self._dtype)
            if factor is not None:
                self.norm = self.norm * factor
            if clip_norm is not None:
                clip = clip_factor(xp, self.norm, clip_norm)
                factor = clip if factor is None else factor * clip
            if skip:
                take = finite
                self.skipped = self.skipped + xp.astype(~finite, xp.int32)
            if rule is not None and rule.dynamic:
                self.scale, self.good = rescale(xp, rule, self.scale, self.good, finite)
        t = self.steps + 1
        self._update(gradients, settings, t, factor, take)
        self.steps = t if take is None else xp.where(take, t, self.steps)

    def _update(self, gradients: Sequence[Any], settings: dict[str, Any], t: Any, factor: Any, take: Any) -> None:
        xp = self.xp
        for k, (p, g) in enumerate(zip(self._widened(self.arrays), gradients, strict=True)):
            if g is None:
                continue
            state, dtype = self.slots[k], self._real[k]
            if factor is not None:
                g = g * xp.astype(factor, dtype)
            number = t if isinstance(t, int) else xp.astype(t, dtype)
            new, after = self.update(xp, p, g, state, t=number, **settings)
            if take is not None:
                new = xp.where(take, new, p)
                after = tuple(xp.where(take, a, s) for a, s in zip(after, state, strict=True))
            self.arrays[k] = xp.astype(new, self.arrays[k].dtype) if self._narrow[k] else new
            self.slots[k] = after

    def _widened(self, arrays: Sequence[Any]) -> list[Any]:
        """The arrays, those of 16 bits as float32."""
        xp = self.xp
        return [
            xp.astype(x, xp.float32) if narrow and x is not None else x
            for x, narrow in zip(arrays, self._narrow, strict=True)
        ]
