"""Optimizer steps on NumPy arrays, in place."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...functions.update import adam, adam_scales, sgd

_add, _multiply, _subtract = np.add, np.multiply, np.subtract


def _sgd(
    p: Any, g: Any, state: Any, temporary: Any, *, lr: float, momentum: float, nesterov: bool, weight_decay: float
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
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    decoupled: bool,
    t: int,
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
    step, root = adam_scales(lr, betas, t)
    np.sqrt(v, temporary)
    _multiply(temporary, 1 / root, temporary)
    _add(temporary, eps, temporary)
    np.divide(m, temporary, temporary)
    _subtract(p, _multiply(temporary, step, temporary), p)


sgd.in_place["numpy"] = _sgd
adam.in_place["numpy"] = _adam
