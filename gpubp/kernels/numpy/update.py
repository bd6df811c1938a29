"""Optimizer steps on NumPy arrays, in place."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ...functions.update import (
    SMALLEST_SCALE,
    Guard,
    LossScale,
    State,
    Store,
    Update,
    adam,
    adam_scales,
    is_narrow,
    sgd,
)

_add, _multiply, _subtract = np.add, np.multiply, np.subtract

#: Arrays of up to this many elements share one buffer; larger ones are updated alone, in chunks that fit a cache.
SMALL, CHUNK = 16384, 16384

# ``in_place(p, g, state, temporary, t=..., **settings)`` overwrites p and every array of state, may overwrite g, and
# has one more array of the shape of p to work in.
InPlace = Callable[..., None]


def _sgd(
    p: Any,
    g: Any,
    state: Any,
    temporary: Any,
    *,
    t: int,
    lr: float,
    momentum: float,
    nesterov: bool,
    weight_decay: float,
) -> None:
    if weight_decay:
        _add(g, _multiply(p, weight_decay, temporary), g)
    if state:
        (v,) = state
        _multiply(v, momentum, v)
        _add(v, g, v)
        if nesterov:
            _add(g, _multiply(v, momentum, temporary), g)
        else:
            g = v
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
    weight_decay: float,
    decoupled: bool,
) -> None:
    m, v = state
    beta1, beta2 = betas
    if decoupled:
        _multiply(p, 1 - lr * weight_decay, p)
    elif weight_decay:
        _add(g, _multiply(p, weight_decay, temporary), g)
    _multiply(m, beta1, m)
    _add(m, _multiply(g, 1 - beta1, temporary), m)
    _multiply(g, g, g)
    _multiply(v, beta2, v)
    _add(v, _multiply(g, 1 - beta2, g), v)
    step, root = adam_scales(math, lr, betas, t)
    np.sqrt(v, temporary)
    _multiply(temporary, 1 / root, temporary)
    _add(temporary, eps, temporary)
    np.divide(m, temporary, temporary)
    _subtract(p, _multiply(temporary, step, temporary), p)


sgd.kernels["numpy"], adam.kernels["numpy"] = _sgd, _adam


class FlatStore(Store):
    """Parameters as views of flat buffers, one for all small arrays of a dtype and one for each large array."""

    replaces = False

    def _prepare(self, slots: int) -> None:
        given = self.arrays
        groups: dict[Any, list[int]] = {}
        for k, x in enumerate(given):
            groups.setdefault((x.dtype, k if x.size > SMALL else None), []).append(k)
        in_place = self.update.kernels["numpy"]
        self.buffers = [_Buffer(in_place, [given[k] for k in members], slots) for members in groups.values()]
        self.members: list[list[int]] = list(groups.values())
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

    def step(self, gradients: Sequence[Any], settings: dict[str, Any]) -> None:
        factor = 1.0
        if self._guarded:
            factor, taken = self._look(gradients)
            if not taken:
                self.skipped += 1
                return
        self.steps += 1
        buffers, t = self.buffers, self.steps
        if len(buffers) == 1:
            buffers[0].step(gradients, factor, t, settings)
            return
        for buffer, members in zip(buffers, self.members, strict=True):
            buffer.step([gradients[k] for k in members], factor, t, settings)

    def _look(self, gradients: Sequence[Any]) -> tuple[float, bool]:
        """Look through the gradients: return by what they are multiplied, and whether the step is taken."""
        clip_norm, skip, rule = self.guard
        factor = 1.0 if rule is None else 1.0 / float(self.scale)
        if not self.guard.looks:
            return factor, True
        given = [g for g in gradients if g is not None]
        norm = math.sqrt(sum(map(_square, given))) * factor
        finite = math.isfinite(norm) or all(bool(np.isfinite(g).all()) for g in given)
        self.norm = np.asarray(norm)
        if clip_norm is not None and not math.isinf(clip_norm):
            clip = clip_norm / (norm + 1e-6)
            factor *= 1.0 if clip > 1.0 else clip  # NaN stays NaN
        if rule is not None and rule.dynamic:
            self._rescale(rule, finite)
        return factor, finite or not skip

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
    """One flat buffer of parameters, with its state and room for the gradient. 16-bit ones are computed in float32."""

    def __init__(self, in_place: InPlace, arrays: Sequence[Any], slots: int) -> None:
        dtype = arrays[0].dtype
        n = sum(x.size for x in arrays)
        self.in_place, self.n = in_place, n
        self.narrow = is_narrow(dtype)
        self.large = len(arrays) == 1 and n > SMALL
        self.flat = np.empty(n, dtype)
        wide = np.float32 if self.narrow else dtype
        self.state = tuple(np.zeros(n, wide) for _ in range(slots))
        room = CHUNK if self.large else n
        self.gradient, self.temporary = np.empty(room, wide), np.empty(room, wide)
        self.parts, self.views, self.gradient_views = [], [], []
        start = 0
        for x in arrays:
            part = slice(start, start + x.size)
            self.parts.append(part)
            self.views.append(self.flat[part].reshape(x.shape))
            if not self.large:
                self.gradient_views.append(self.gradient[part].reshape(x.shape))
            start += x.size

    def step(self, gradients: Sequence[Any], factor: float, t: int, settings: dict[str, Any]) -> None:
        if self.large:
            if gradients[0] is not None:
                self._step_in_chunks(gradients[0].reshape(-1), factor, t, settings)
            return
        frozen = []
        for part, view, g in zip(self.parts, self.gradient_views, gradients, strict=True):
            if g is None:
                frozen += [(flat[part], flat[part].copy()) for flat in (self.flat, *self.state)]
                view[...] = 0  # what an update leaves there would grow from step to step
            else:
                view[...] = g
        self._update(self.flat, self.gradient, self.state, self.temporary, factor, t, settings)
        for view, old in frozen:
            view[...] = old

    def _step_in_chunks(self, gradient: Any, factor: float, t: int, settings: dict[str, Any]) -> None:
        for start in range(0, self.n, CHUNK):
            part = slice(start, min(start + CHUNK, self.n))
            g = self.gradient[: part.stop - start]
            g[...] = gradient[part]
            state = tuple(s[part] for s in self.state)
            self._update(self.flat[part], g, state, self.temporary[: len(g)], factor, t, settings)

    def _update(
        self, p: Any, g: Any, state: Any, temporary: Any, factor: float, t: int, settings: dict[str, Any]
    ) -> None:
        if factor != 1.0:
            _multiply(g, factor, g)
        wide = p.astype(np.float32) if self.narrow else p
        self.in_place(wide, g, state, temporary, t=t, **settings)
        if self.narrow:
            p[...] = wide


def make(update: Update, arrays: Sequence[Any], slots: int, guard: Guard) -> Store:
    """Make the store for arrays; the general one where the update is not known here."""
    return (FlatStore if "numpy" in update.kernels else Store)(update, arrays, slots, guard)


Store.of_library["numpy"] = make
