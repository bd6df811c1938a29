"""Optimizer steps on NumPy arrays, in place."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ...functions import update as definitions
from ...functions.update import (
    SMALLEST_SCALE,
    LossScale,
    Settings,
    State,
    Store,
    Update,
    adam_scales,
    is_narrow,
)

_add, _divide, _multiply, _sqrt, _subtract = np.add, np.divide, np.multiply, np.sqrt, np.subtract

#: Arrays of up to this many elements share one buffer; larger ones are updated alone, in chunks that fit a cache.
SMALL, CHUNK = 16384, 32768

# ``in_place(p, g, state, temporary, t=..., **settings)`` overwrites p and every array of state, may overwrite g, and
# has one more array of the shape of p to work in.
InPlace = Callable[..., None]


def _sgd(
    p: Any, g: Any, state: Any, temporary: Any, *, t: int, lr: float, momentum: float, dampening: float, nesterov: bool
) -> None:
    if state:
        (v,) = state
        _multiply(v, momentum, v)
        _add(v, _multiply(g, 1 - dampening, temporary) if dampening and t > 1 else g, v)
        if nesterov:
            _add(g, _multiply(v, momentum, temporary), g)
        else:
            g = v
    _subtract(p, _multiply(g, lr, temporary), p)


def _adagrad(
    p: Any, g: Any, state: Any, temporary: Any, *, t: int, lr: float, lr_decay: float, initial: float, eps: float
) -> None:
    (s,) = state
    _add(s, _multiply(g, g, temporary), s)
    _sqrt(_add(s, initial, temporary), temporary)
    _divide(g, _add(temporary, eps, temporary), g)
    _subtract(p, _multiply(g, lr / (1 + (t - 1) * lr_decay), g), p)


def _rmsprop(
    p: Any,
    g: Any,
    state: Any,
    temporary: Any,
    *,
    t: int,
    lr: float,
    alpha: float,
    eps: float,
    centered: bool,
    momentum: float,
) -> None:
    v, *others = state
    _multiply(v, alpha, v)
    _multiply(g, g, temporary)
    _add(v, _multiply(temporary, 1 - alpha, temporary), v)
    variance = v
    if centered:
        m = others.pop(0)
        _multiply(m, alpha, m)
        _add(m, _multiply(g, 1 - alpha, temporary), m)
        variance = _subtract(v, _multiply(m, m, temporary), temporary)
        np.maximum(variance, 0, out=variance)
    _sqrt(variance, temporary)
    _divide(g, _add(temporary, eps, temporary), g)
    if others:
        _multiply(others[0], momentum, others[0])
        g = _add(others[0], g, others[0])
    _subtract(p, _multiply(g, lr, temporary), p)


def _adam(
    p: Any,
    g: Any,
    state: Any,
    temporary: Any,
    *,
    t: int,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    amsgrad: bool,
) -> None:
    m, v, *largest = state
    beta1, beta2 = betas
    _multiply(m, beta1, m)
    _add(m, _multiply(g, 1 - beta1, temporary), m)
    _multiply(g, g, g)
    _multiply(v, beta2, v)
    _add(v, _multiply(g, 1 - beta2, g), v)
    step, root = adam_scales(math, lr, betas, t)
    _sqrt(np.maximum(largest[0], v, out=largest[0]) if amsgrad else v, temporary)
    _divide(m, _add(temporary, eps * root, temporary), temporary)
    _subtract(p, _multiply(temporary, step * root, temporary), p)


def _lion(p: Any, g: Any, state: Any, temporary: Any, *, t: int, lr: float, betas: tuple[float, float]) -> None:
    (m,), (beta1, beta2) = state, betas
    _subtract(m, g, temporary)
    _add(_multiply(temporary, beta1, temporary), g, temporary)  # β₁ m + (1-β₁) g
    _multiply(m, beta2, m)
    _add(m, _multiply(g, 1 - beta2, g), m)
    np.sign(temporary, g)  # in place it is ten times as slow
    _subtract(p, _multiply(g, lr, g), p)


def _muon(
    p: Any,
    g: Any,
    state: Any,
    temporary: Any,
    *,
    t: int,
    lr: float,
    momentum: float,
    nesterov: bool,
    iterations: int,
    match_adam: bool,
    betas: tuple[float, float],
    eps: float,
    orthogonal: bool,
) -> None:
    if not orthogonal:
        _adam(p, g, state, temporary, t=t, lr=lr, betas=betas, eps=eps, amsgrad=False)
        return
    (m,) = state
    _multiply(m, momentum, m)
    _multiply(g, 1 - momentum, g)
    _add(m, g, m)
    x = _add(_multiply(m, momentum, temporary), g, g) if nesterov else m
    change = definitions.muon_change(np, x, iterations, match_adam, _newton_schulz)
    _subtract(p, _multiply(change, lr, change), p)


def _newton_schulz(xp: Any, x: Any, iterations: int) -> Any:
    """As its definition; NumPy does half the work for a product with the transpose of the same matrix."""
    a, b, c = definitions.NEWTON_SCHULZ
    x, other = np.array(x, order="C"), np.empty(x.shape, x.dtype)
    square, fourth = (np.empty((len(x), len(x)), x.dtype) for _ in range(2))
    for _ in range(iterations):
        np.matmul(x, x.T, square)
        np.matmul(square, square.T, fourth)
        _add(_multiply(square, b, square), _multiply(fourth, c, fourth), square)
        np.matmul(square, x, other)
        x, other = _add(_multiply(x, a, x), other, other), x
    return x


def _average(p: Any, g: Any, state: Any, temporary: Any, *, t: int, decay: float, narrow: bool = False) -> None:
    d = decay if t > 1 else 0.0
    a = state[0] if state else p
    _multiply(a, d, a)
    _add(a, _multiply(g, 1 - d, temporary), a)
    if state:
        p[...] = a


for _definition, _in_place in (
    (definitions.sgd, _sgd),
    (definitions.adagrad, _adagrad),
    (definitions.rmsprop, _rmsprop),
    (definitions.adam, _adam),
    (definitions.lion, _lion),
    (definitions.muon, _muon),
    (definitions.average, _average),
):
    _definition.kernels["numpy"] = _in_place


class FlatStore(Store):
    """Parameters as views of flat buffers: one for all small arrays of a dtype, one for each large array and matrix."""

    replaces = False

    def _prepare(self) -> None:
        given = self.arrays
        together: dict[Any, list[int]] = {}
        is_matrix = [self.update is definitions.muon and "v" not in names for names in self.names]
        for k, x in enumerate(given):
            alone = k if x.size > SMALL or is_matrix[k] else None
            together.setdefault((x.dtype, self.groups[k], alone), []).append(k)
        self.members: list[list[int]] = list(together.values())
        in_place, clip_value = self.update.kernels["numpy"], self.guard.clip_value
        self.buffers = [
            (_Matrix if is_matrix[members[0]] else _Buffer)(
                in_place, [given[k] for k in members], len(self.names[members[0]]), clip_value
            )
            for members in self.members
        ]
        self.arrays, self.slots = [None] * len(given), [()] * len(given)
        for buffer, members in zip(self.buffers, self.members, strict=True):
            for k, part, view in zip(members, buffer.parts, buffer.views, strict=True):
                self.arrays[k] = view
                self.slots[k] = tuple(s[part].reshape(view.shape) for s in buffer.state)
        self._guarded = self.guard.looks or self.guard.loss_scale is not None
        if (rule := self.guard.loss_scale) is not None:
            self.scale = np.asarray(rule.init, np.float32)
        self.load(given)

    def load(self, arrays: Sequence[Any]) -> None:
        for view, x in zip(self.arrays, arrays, strict=True):
            if x is not view:
                view[...] = x

    def restore(self, slots: Sequence[State], counts: Mapping[str, Any], scale: Any) -> None:
        for own, new in zip(self.slots, slots, strict=True):
            for view, x in zip(own, new, strict=True):
                view[...] = x
        super().restore(self.slots, counts, scale)

    def step(self, gradients: Sequence[Any], settings: Sequence[Settings], value: Any = None) -> None:
        buffers, factor = self.buffers, 1.0
        for buffer, members in zip(buffers, self.members, strict=True):
            buffer.take(gradients if len(buffers) == 1 else [gradients[k] for k in members])
        if self._guarded:
            factor, taken = self._look(value)
            if not taken:
                self.skipped += 1
                return
        self.steps += 1
        for buffer, members in zip(buffers, self.members, strict=True):
            buffer.step(factor, self.steps, settings[self.groups[members[0]]])

    def _look(self, value: Any) -> tuple[float, bool]:
        """Look through the gradients: return by what they are multiplied, and whether the step is taken."""
        guard, rule = self.guard, self.guard.loss_scale
        factor = 1.0 if rule is None else 1.0 / float(self.scale)
        if not guard.looks:
            return factor, True
        given = [buffer.given for buffer in self.buffers if buffer.given is not None]
        norm = math.sqrt(sum(map(_square, given))) * factor
        finite = math.isfinite(norm) or all(bool(np.isfinite(g).all()) for g in given)
        self.norm = np.asarray(norm)
        clip_norm = guard.clip_norm
        if clip_norm is not None and not math.isinf(clip_norm):
            clip = clip_norm / (norm + 1e-6)
            factor *= 1.0 if clip > 1.0 else clip  # NaN stays NaN
        return factor, guard.nonfinite == "ignore" or self._judge(finite, value)

    def _judge(self, finite: bool, value: Any) -> bool:
        rule = self.guard.loss_scale
        sound = value is None or math.isfinite(value)
        finite = finite and sound
        lost = not finite
        if rule is not None and rule.dynamic:
            lost = lost and not (sound and self.scale * np.float32(rule.backoff) >= SMALLEST_SCALE)
            self._rescale(rule, finite)
        if lost and self.failed < 0:
            self.failed = self.steps + self.skipped
        return finite and (self.guard.nonfinite == "skip" or self.failed < 0)

    def _rescale(self, rule: LossScale, finite: bool) -> None:
        by = 1.0
        self.good += 1
        if not finite:
            self.good, by = 0, rule.backoff
        elif self.good == rule.interval:
            self.good, by = 0, rule.growth
        if by != 1.0:
            with np.errstate(over="ignore"):
                scale = np.asarray(self.scale * np.float32(by))
            if SMALLEST_SCALE <= scale < np.inf:
                self.scale = scale


def _square(g: Any) -> float:
    """The sum of an array's squares; infinite or NaN is rather that than a warning."""
    flat = g.reshape(-1)
    if flat.itemsize == 2:
        flat = flat.astype(np.float32)
    return float(np.vdot(flat, flat).real)


class _Buffer:
    """One flat buffer of parameters, with its state and room for the gradient.

    16-bit ones are computed in float32. Complex numbers are pairs of real ones to an update.
    """

    shared = True  #: whether an array that is small does not stand alone

    def __init__(self, in_place: InPlace, arrays: Sequence[Any], slots: int, clip_value: float | None) -> None:
        dtype = arrays[0].dtype
        n = sum(x.size for x in arrays)
        self.in_place, self.clip_value, self.n = in_place, clip_value, n
        self.flat = np.empty(n, dtype)
        self.narrow = is_narrow(dtype)
        self.real = self.flat.real.dtype if dtype.kind == "c" else None
        self.alone = not self.shared or (n > SMALL and len(arrays) == 1)
        self.given: Any = None
        self.frozen: list[slice] = []
        wide = np.float32 if self.narrow else dtype
        self.state = tuple(np.zeros(n, wide) for _ in range(slots))
        room = min(n, CHUNK) if self.alone else n
        self.gradient, self.temporary = np.empty(room, wide), np.empty(room, wide)
        self.parts, self.views, self.gradient_views = [], [], []
        start = 0
        for x in arrays:
            part = slice(start, start + x.size)
            self.parts.append(part)
            self.views.append(self.flat[part].reshape(x.shape))
            if not self.alone:
                self.gradient_views.append(self.gradient[part].reshape(x.shape))
            start += x.size

    def take(self, gradients: Sequence[Any]) -> None:
        """Take the gradients of the next step: one that stands alone as it is, small ones as one."""
        if self.alone:
            self.given = gradients[0]
            return
        self.given, self.frozen = self.gradient, []
        for part, view, g in zip(self.parts, self.gradient_views, gradients, strict=True):
            if g is None:
                self.frozen.append(part)
                view[...] = 0  # what an update leaves there would grow from step to step
            else:
                view[...] = g

    def step(self, factor: float, t: int, settings: Settings) -> None:
        """Make a step with the gradients taken, which are given up."""
        given, self.given = self.given, None
        if self.alone:
            if given is not None:
                self._step_alone(given, factor, t, settings)
            return
        before = [(flat[part], flat[part].copy()) for part in self.frozen for flat in (self.flat, *self.state)]
        self._update(self.flat, self.gradient, self.state, self.temporary, factor, t, settings)
        for view, old in before:
            view[...] = old

    def _step_alone(self, gradient: Any, factor: float, t: int, settings: Settings) -> None:
        gradient = gradient.reshape(-1)
        for start in range(0, self.n, CHUNK):
            part = slice(start, min(start + CHUNK, self.n))
            g = self.gradient[: part.stop - start]
            g[...] = gradient[part]
            state = tuple(s[part] for s in self.state)
            self._update(self.flat[part], g, state, self.temporary[: len(g)], factor, t, settings)

    def _update(self, p: Any, g: Any, state: Any, temporary: Any, factor: float, t: int, settings: Settings) -> None:
        if self.real is not None:
            p, g, temporary, *state = (x.view(self.real) for x in (p, g, temporary, *state))
        if factor != 1.0:
            _multiply(g, factor, g)
        if self.clip_value is not None:
            np.clip(g, -self.clip_value, self.clip_value, g)
        wide = p.astype(np.float32) if self.narrow else p
        self._own(wide, g, state, temporary, t=t, **settings)
        if self.narrow:
            p[...] = wide

    def _own(
        self,
        p: Any,
        g: Any,
        state: Any,
        temporary: Any,
        *,
        maximize: bool = False,
        weight_decay: float = 0.0,
        decoupled: bool = False,
        **settings: Any,
    ) -> None:
        """What `Update` does itself, and then the update's own arithmetic."""
        if maximize:
            np.negative(g, g)
        if weight_decay and decoupled:
            _multiply(p, 1 - settings["lr"] * weight_decay, p)
        elif weight_decay:
            _add(g, _multiply(p, weight_decay, temporary), g)
        self.in_place(p, g, state, temporary, **settings)


class _Matrix(_Buffer):
    """The buffer of one matrix, which is updated as a whole."""

    shared = False

    def _step_alone(self, gradient: Any, factor: float, t: int, settings: Settings) -> None:
        (p,) = self.views
        g = np.array(gradient, self.gradient.dtype, order="C")
        self._update(p, g, tuple(s.reshape(p.shape) for s in self.state), np.empty_like(g), factor, t, settings)


def make(update: Update, *arguments: Any) -> Store:
    """Make the store for arrays; the general one where the update is not known here."""
    return (FlatStore if "numpy" in update.kernels else Store)(update, *arguments)


Store.of_library["numpy"] = make
