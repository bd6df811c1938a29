"""The arithmetic of the optimizers: one step of one parameter, and what is done to all gradients before it.

An update is ``update(xp, p, g, state, t=..., **settings) -> (p, state)``, in new arrays. `Store` keeps parameters and
state and steps them so; `gpubp.kernels` may register another for a library whose arrays are writable.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, ClassVar, NamedTuple

from ..boundary import is_complex
from ..device import raw_namespace

State = tuple[Any, ...]
Settings = dict[str, Any]
#: Whether an array of state is needed, from the settings.
Needed = Callable[[Mapping[str, Any]], bool]


class Update:
    """One optimizer's step.

    Attributes
    ----------
    slots : tuple of str
        The names of the arrays of state that it may have for each parameter.
    kernels : dict
        What computes the step for a library's own store, by library, without what `Update` does itself.
    """

    def __init__(self, definition: Callable[..., tuple[Any, State]], optional: Mapping[str, Needed | None]) -> None:
        self.__doc__, self.__name__ = definition.__doc__, definition.__name__
        self.definition, self.slots, self._needed = definition, tuple(optional), optional
        self.kernels: dict[str, Any] = {}

    def needed(self, settings: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the names of the arrays of state that a parameter has with these settings."""
        return tuple(name for name, needs in self._needed.items() if needs is None or needs(settings))

    def __call__(self, xp: Any, p: Any, g: Any, state: State, *, t: Any, **settings: Any) -> tuple[Any, State]:
        """Compute the parameter and the state after step number `t`, as new arrays.

        Real and imaginary parts are parameters each. First comes what all updates have in common: with ``maximize`` the
        gradient's sign is turned; ``weight_decay`` adds λ p to it, or where it is ``decoupled`` shrinks p by the factor
        1 - lr λ instead.
        """
        if not is_complex(p):
            return self._real(xp, p, g, state, t=t, **settings)
        re, im = (
            self._real(xp, part(p), part(g), tuple(map(part, state)), t=t, **settings) for part in (xp.real, xp.imag)
        )

        def join(a: Any, b: Any) -> Any:
            return xp.astype(a, p.dtype) + 1j * xp.astype(b, p.dtype)

        return join(re[0], im[0]), tuple(map(join, re[1], im[1]))

    def _real(
        self,
        xp: Any,
        p: Any,
        g: Any,
        state: State,
        *,
        maximize: bool = False,
        weight_decay: float = 0.0,
        decoupled: bool = False,
        **settings: Any,
    ) -> tuple[Any, State]:
        if maximize:
            g = -g
        if weight_decay and decoupled:
            p = p * (1 - settings["lr"] * weight_decay)
        elif weight_decay:
            g = g + weight_decay * p
        return self.definition(xp, p, g, state, **settings)


def update(*slots: str, **optional: Needed) -> Callable[[Callable[..., tuple[Any, State]]], Update]:
    """Make, as a decorator, an update of its definition and the names of its state, some needed with some settings."""
    return lambda definition: Update(definition, dict.fromkeys(slots) | optional)


@update(v=lambda settings: settings["momentum"] > 0)
def sgd(
    xp: Any, p: Any, g: Any, state: State, *, t: Any, lr: float, momentum: float, dampening: float, nesterov: bool
) -> tuple[Any, State]:
    """Gradient descent: v ← μ v + (1-τ) g, p ← p - lr v; with Nesterov's momentum p ← p - lr (g + μ v).

    The state is (v,), or () without momentum. As in PyTorch, lr is outside of v, and there is no dampening τ in the
    first step.

    Notes
    -----
    Sutskever, Martens, Dahl, Hinton, "On the importance of initialization and momentum in deep learning", 2013.
    """
    if state:
        v = momentum * state[0] + (g if not dampening else (1 - dampening * after_first(xp, t)) * g)
        state = (v,)
        g = g + momentum * v if nesterov else v
    return p - lr * g, state


def after_first(xp: Any, t: Any) -> Any:
    """Return whether step `t` is not the first one, as a number."""
    return float(t > 1) if isinstance(t, int) else xp.astype(t > 1, t.dtype)


@update("s")
def adagrad(
    xp: Any, p: Any, g: Any, state: State, *, t: Any, lr: float, lr_decay: float, initial: float, eps: float
) -> tuple[Any, State]:
    """Adagrad: s ← s + g², p ← p - lr / (1 + (t-1) η) g / (√(s₀ + s) + ε), with decay η and initial sum s₀.

    Notes
    -----
    Duchi, Hazan, Singer, "Adaptive subgradient methods for online learning and stochastic optimization", 2011.
    """
    s = state[0] + g * g
    return p - lr / (1 + (t - 1) * lr_decay) * (g / (xp.sqrt(s + initial) + eps)), (s,)


@update(
    "v",
    mean=lambda settings: settings["centered"],
    momentum=lambda settings: settings["momentum"] > 0,
)
def rmsprop(
    xp: Any,
    p: Any,
    g: Any,
    state: State,
    *,
    t: Any,
    lr: float,
    alpha: float,
    eps: float,
    centered: bool,
    momentum: float,
) -> tuple[Any, State]:
    """RMSprop: v ← α v + (1-α) g², p ← p - lr g / (√v + ε).

    Centered, m ← α m + (1-α) g, and √(v - m²) takes the place of √v. With momentum, b ← μ b + g / (√v + ε) and
    p ← p - lr b. The state is (v, m, b), without m or b where these are not needed.

    Notes
    -----
    Tieleman, Hinton, "Lecture 6.5: rmsprop", 2012; centered: Graves, "Generating sequences with recurrent neural
    networks", 2013, equations 38 to 45. As in PyTorch, ε is outside of the root.
    """
    v, *others = state
    v = alpha * v + (1 - alpha) * (g * g)
    after, variance = [v], v
    if centered:
        m = alpha * others.pop(0) + (1 - alpha) * g
        after, variance = [v, m], v - m * m
        variance = xp.where(variance < 0, xp.zeros_like(v), variance)  # but for rounding it is not
    change = g / (xp.sqrt(variance) + eps)
    if others:
        change = momentum * others[0] + change
        after.append(change)
    return p - lr * change, tuple(after)


@update("m", "v", vmax=lambda settings: settings["amsgrad"])
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
    amsgrad: bool,
) -> tuple[Any, State]:
    """Adam's step number t, from 1: m ← β₁ m + (1-β₁) g, v ← β₂ v + (1-β₂) g², p ← p - lr m̂ / (√v̂ + ε).

    The state is (m, v); m̂ and v̂ are these without their bias towards 0. With AMSGrad the largest v so far, a third
    array of state, takes the place of v.

    Notes
    -----
    Kingma, Ba, "Adam: a method for stochastic optimization", 2015, algorithm 1. Its weight decay decoupled: Loshchilov,
    Hutter, "Decoupled weight decay regularization", 2019, algorithm 2. AMSGrad: Reddi, Kale, Kumar, "On the convergence
    of Adam and beyond", 2018, algorithm 2; as in PyTorch, the largest is taken of v before its bias is undone.
    """
    beta1, beta2 = betas
    m = beta1 * state[0] + (1 - beta1) * g
    v = beta2 * state[1] + (1 - beta2) * (g * g)
    largest = xp.maximum(state[2], v) if amsgrad else v
    step, root = adam_scales(math if isinstance(t, int) else xp, lr, betas, t)
    return p - step * (m / (xp.sqrt(largest) / root + eps)), (m, v, largest) if amsgrad else (m, v)


def adam_scales(xp: Any, lr: float, betas: tuple[float, float], t: Any) -> tuple[Any, Any]:
    """Return lr / (1 - β₁ᵗ) and √(1 - β₂ᵗ), which undo the bias of the running means.

    `xp` is `math` for a number t, the namespace for a floating 0-d array. Not to lose digits where 1 - βᵗ is small, it
    is computed as -expm1(t log β).
    """
    share1, share2 = (-xp.expm1(math.log(beta) * t) if beta else 1.0 for beta in betas)
    return lr / share1, xp.sqrt(share2) if betas[1] else 1.0


@update("m")
def lion(xp: Any, p: Any, g: Any, state: State, *, t: Any, lr: float, betas: tuple[float, float]) -> tuple[Any, State]:
    """Lion: p ← p - lr sign(β₁ m + (1-β₁) g), then m ← β₂ m + (1-β₂) g.

    Notes
    -----
    Chen et al., "Symbolic discovery of optimization algorithms", 2023, algorithm 2.
    """
    (m,), (beta1, beta2) = state, betas
    return p - lr * xp.sign(beta1 * m + (1 - beta1) * g), (beta2 * m + (1 - beta2) * g,)


@update("m", v=lambda settings: not settings["orthogonal"])
def muon(
    xp: Any,
    p: Any,
    g: Any,
    state: State,
    *,
    t: Any,
    lr: float,
    momentum: float,
    nesterov: bool,
    iterations: int,
    match_adam: bool,
    betas: tuple[float, float],
    eps: float,
    orthogonal: bool,
) -> tuple[Any, State]:
    """Muon: m ← μ m + (1-μ) g, p ← p - lr s O, with O the `orthogonalized` m or, by Nesterov, μ m + (1-μ) g.

    A parameter is a matrix of n = its last axis columns and of rows that are all its other axes; s = √max(1, n / rows),
    or 0.2 √max(n, rows), which matches the size of Adam's steps. What is not `orthogonal` is stepped by Adam.

    Notes
    -----
    Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024. 0.2: Liu et al., "Muon is scalable
    for LLM training", 2025, equation 4.
    """
    if not orthogonal:
        return adam.definition(xp, p, g, state, t=t, lr=lr, betas=betas, eps=eps, amsgrad=False)
    m = momentum * state[0] + (1 - momentum) * g
    change = momentum * m + (1 - momentum) * g if nesterov else m
    return p - lr * muon_change(xp, change, iterations, match_adam), (m,)


def muon_change(
    xp: Any, x: Any, iterations: int, match_adam: bool, iterate: Callable[[Any, Any, int], Any] | None = None
) -> Any:
    """Return s O of a momentum; see `muon`."""
    n = x.shape[-1]
    rows = math.prod(x.shape[:-1])
    scale = 0.2 * math.sqrt(max(n, rows)) if match_adam else math.sqrt(max(1.0, n / max(1, rows)))
    return scale * xp.reshape(orthogonalized(xp, xp.reshape(x, (rows, n)), iterations, iterate), x.shape)


def orthogonalized(xp: Any, x: Any, iterations: int, iterate: Callable[[Any, Any, int], Any] | None = None) -> Any:
    """Return about the nearest matrix with orthonormal rows or columns: singular values of some 0.7 to 1.2.

    It is made of x / ‖x‖ by `newton_schulz`, in the dtype of x, or by what is given as `iterate`.
    """
    is_tall = x.shape[0] > x.shape[1]
    x = x.mT if is_tall else x
    norm = xp.sqrt(xp.sum(x * x))
    x = x / xp.where(norm > 1e-7, norm, xp.full_like(norm, 1e-7))
    x = (iterate or newton_schulz)(xp, x, iterations)
    return x.mT if is_tall else x


#: Of Newton-Schulz iteration, chosen for a steep slope at 0 by Jordan et al. 2024.
NEWTON_SCHULZ = 3.4445, -4.7750, 2.0315


def newton_schulz(xp: Any, x: Any, iterations: int) -> Any:
    """Repeat x ← a x + b (x xᵀ) x + c (x xᵀ)² x."""
    a, b, c = NEWTON_SCHULZ
    for _ in range(iterations):
        square = xp.matmul(x, x.mT)
        x = a * x + xp.matmul(b * square + c * xp.matmul(square, square), x)
    return x


@update(a=lambda settings: settings.get("narrow", False))
def average(xp: Any, p: Any, g: Any, state: State, *, t: Any, decay: float, narrow: bool = False) -> tuple[Any, State]:
    """Exponential moving average p of values g: p ← d p + (1-d) g; the first time p ← g.

    Where p is `narrow`, of 16 bits, the state is (a,), the same in float32.
    """
    d = decay * after_first(xp, t)
    p = d * (state[0] if state else p) + (1 - d) * g
    return p, (p,) if state else ()


# -- what is done to the gradients of all parameters before a step


#: Below it float32 loses digits, and on a GPU is 0.
SMALLEST_SCALE = 2.0**-126


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
            object.__setattr__(self, name, int(value) if isinstance(value, Integral) else float(value))
        if not SMALLEST_SCALE <= self.init < 2.0**128:
            raise ValueError(f"a loss scale must be from 2**-126 to below 2**128, as a normal float32, got {self.init}")
        if not isinstance(self.interval, int):
            raise TypeError(f"interval must be a whole number, got {self.interval}")
        if not (1 <= self.growth < math.inf and 0 < self.backoff <= 1 and self.interval >= 1):
            raise ValueError(
                "a loss scale needs a finite growth from 1, backoff from above 0 to 1 and an interval from 1, got "
                f"{self.growth}, {self.backoff}, {self.interval}"
            )

    @property
    def dynamic(self) -> bool:
        """Whether it ever changes."""
        return self.growth != 1 or self.backoff != 1


def check_number(name: str, value: Any) -> None:
    """Refuse a setting that is no real number."""
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number, got {value!r}")


class Guard(NamedTuple):
    """What is done to all gradients before a step: unscaled, looked through, clipped.

    Attributes
    ----------
    clip_norm
        The norm over all gradients to which they are brought if theirs is larger; infinity only measures it.
    clip_value
        The largest absolute value of any element, to which larger ones are brought.
    nonfinite
        What is done if a gradient is not finite: one of `NONFINITE`.
    loss_scale
        The factor that is in the gradients, or None.
    """

    clip_norm: float | None = None
    clip_value: float | None = None
    nonfinite: str = "ignore"
    loss_scale: LossScale | None = None

    @property
    def looks(self) -> bool:
        """Whether the gradients must be looked through before the step."""
        return self.clip_norm is not None or self.nonfinite != "ignore"


#: A step that is not finite is taken like others; or is skipped; or is skipped with all further ones, if it is lost.
NONFINITE = ("ignore", "skip", "stop")


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
COUNTS = ("steps", "skipped", "good", "failed")


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
    groups
        The number of the group of each.
    settings
        The settings of each group, which say what state there is.
    guard
        What is done to the gradients first.

    Attributes
    ----------
    arrays : list of array
        The parameters as they are now, to be put in their places.
    slots : list of tuple of array
        The state of each.
    names : list of tuple of str
        What the arrays of the state of each are.
    replaces : bool
        Whether `arrays` are others after each step.
    is_device : bool
        Whether a step only launches what a CUDA graph can repeat, provided that `refresh` was called before it.
    steps, skipped, good : int or 0-d array
        Steps taken, steps skipped since a gradient was not finite, and steps taken since the loss scale last changed.
    failed : int or 0-d array
        The number of the first step that was lost, counting from 0 those taken and skipped, or -1. Lost is one that is
        not finite, if not for the loss scale, which can be lowered.
    norm : 0-d array or None
        The norm of the last gradients, if they were looked through.
    scale : 0-d array or None
        The loss scale, a float32.
    """

    #: The store of each library that has one of its own, by `gpubp.device.library`.
    of_library: ClassVar[dict[str, Callable[..., Store]]] = {}

    replaces = True
    is_device = False

    def __init__(
        self, update: Update, arrays: Sequence[Any], groups: Sequence[int], settings: Sequence[Settings], guard: Guard
    ) -> None:
        self.update, self.guard, self.groups = update, guard, groups
        self.names = [update.needed(settings[group]) for group in groups]
        self.arrays: list[Any] = list(arrays)
        self.xp: Any = raw_namespace(arrays[0])
        self.steps: Any = 0
        self.skipped: Any = 0
        self.good: Any = 0
        self.failed: Any = -1
        self.norm: Any = None
        self.scale: Any = None
        self._prepare()

    def _prepare(self) -> None:
        xp, like = self.xp, self.arrays[0]
        self._narrow = [is_narrow(x.dtype) for x in self.arrays]
        wide = self._widened(self.arrays)
        self.slots: list[State] = [
            tuple(xp.zeros_like(x) for _ in names) for x, names in zip(wide, self.names, strict=True)
        ]
        self._real = [xp.real(x).dtype if is_complex(x) else x.dtype for x in wide]
        self._dtype = xp.float64 if any(str(dtype).endswith("float64") for dtype in self._real) else xp.float32
        if self.guard.looks or self.guard.loss_scale:
            zero = xp.zeros((), dtype=xp.int32, device=like.device)
            self.steps, self.skipped, self.good, self.failed = zero, zero, zero, zero - 1
        if (rule := self.guard.loss_scale) is not None:
            self.scale = xp.full((), rule.init, dtype=xp.float32, device=like.device)

    def load(self, arrays: Sequence[Any]) -> None:
        """Take over the values of other arrays, of the same shapes and dtypes."""
        self.arrays = list(arrays)

    def refresh(self, settings: Sequence[Settings]) -> None:
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

    def clear(self) -> None:
        """Forget that a step was lost."""
        self.failed = self.failed * 0 - 1

    def step(self, gradients: Sequence[Any], settings: Sequence[Settings], value: Any = None) -> None:
        """Change the parameters and their state; where the gradient is None, leave them as they are.

        The `value`, a 0-d array or None, must be finite as they must.
        """
        xp, guard, rule = self.xp, self.guard, self.guard.loss_scale
        gradients = self._widened(gradients)
        if not (guard.looks or rule):
            self.steps += 1
            self._update(gradients, settings, self.steps, None, None)
            return
        factor = take = None
        if rule is not None:
            factor = 1 / xp.astype(self.scale, self._dtype)
        if guard.looks:
            self.norm, finite = measure(xp, [g for g in gradients if g is not None], self._dtype)
            if factor is not None:
                self.norm = self.norm * factor
            if guard.clip_norm is not None:
                clip = clip_factor(xp, self.norm, guard.clip_norm)
                factor = clip if factor is None else factor * clip
            if guard.nonfinite != "ignore":
                take = self._judge(finite, value)
        t = self.steps + 1
        self._update(gradients, settings, t, factor, take)
        if take is None:
            self.steps = t
        else:
            self.steps = xp.where(take, t, self.steps)
            self.skipped = self.skipped + xp.astype(~take, xp.int32)

    def _judge(self, finite: Any, value: Any) -> Any:
        """Return whether a step is taken whose gradients are `finite`; set the loss scale by it, and `failed`."""
        xp, rule = self.xp, self.guard.loss_scale
        sound = xp.ones_like(finite) if value is None else xp.isfinite(value)
        finite = finite & sound
        lost = ~finite
        if rule is not None and rule.dynamic:
            lost = lost & ~(sound & (self.scale * rule.backoff >= SMALLEST_SCALE))
            self.scale, self.good = rescale(xp, rule, self.scale, self.good, finite)
        self.failed = xp.where(lost & (self.failed < 0), self.steps + self.skipped, self.failed)
        return finite if self.guard.nonfinite == "skip" else finite & (self.failed < 0)

    def _update(self, gradients: Sequence[Any], settings: Sequence[Settings], t: Any, factor: Any, take: Any) -> None:
        xp, clip_value = self.xp, self.guard.clip_value
        for k, (p, g) in enumerate(zip(self._widened(self.arrays), gradients, strict=True)):
            if g is None:
                continue
            state, dtype = self.slots[k], self._real[k]
            if factor is not None:
                g = g * xp.astype(factor, dtype)
            if clip_value is not None:
                g = xp.clip(g, -clip_value, clip_value)
            number = t if isinstance(t, int) else xp.astype(t, dtype)
            new, after = self.update(xp, p, g, state, t=number, **settings[self.groups[k]])
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
