"""Activations: one kernel forward, one backward."""

from __future__ import annotations

from typing import Any

from ...functions import activation
from ...functions.activation import SELU_ALPHA, SELU_SCALE, check_alpha
from .common import alike, contiguous, elementwise, is_floating, reduction
from .pointwise import Pointwise
from .totals import Sum

#: C++ for y, of z in W.
VALUE = {
    "identity": "z",
    "sigmoid": "W(1) / (W(1) + exp(-z))",
    "tanh": "tanh(z)",
    "relu": "z <= W(0) ? W(0) : z",
    "leaky_relu": "z > W(0) ? z : W(0.01) * z",
    "elu": "z > W(0) ? z : expm1(z)",
    "selu": f"z > W(0) ? W({SELU_SCALE}) * z : W({SELU_SCALE * SELU_ALPHA}) * expm1(z)",
}

#: C++ for the cotangent of z, of that of y and y itself, both in W.
COTANGENT = {
    "identity": "dy",
    "sigmoid": "dy * (y * (W(1) - y))",
    "tanh": "dy * (W(1) - y * y)",
    "relu": "y <= W(0) ? W(0) : dy",
    "leaky_relu": "y > W(0) ? dy : W(0.01) * dy",
    "elu": "y > W(0) ? dy : dy * (y + W(1))",
    "selu": f"dy * (y > W(0) ? W({SELU_SCALE}) : y + W({SELU_SCALE * SELU_ALPHA}))",
}

#: y = f(x), and dz, by activation.
PLAIN = {name: Pointwise(name, ("x",), f"W z = x; out = T({y})") for name, y in VALUE.items()}
BACKWARD = {
    name: Pointwise(f"{name}_backward", ("g", "v"), f"W dy = g; W y = v; out = T({dz})")
    for name, dz in COTANGENT.items()
}


def _override(name: str) -> None:
    def forward(xp: Any, needs: Any, x: Any, /) -> Any:
        if not is_floating(x):
            return NotImplemented
        y = PLAIN[name](x)
        return y, y

    def backward(xp: Any, needs: Any, dY: Any, y: Any) -> Any:
        return (BACKWARD[name](dY, y),)

    getattr(activation, name).override("cupy", forward, backward)


for _name in ("sigmoid", "relu", "selu"):
    _override(_name)


# -- with an option

_elu = Pointwise("elu_alpha", ("x",), "W z = x; out = T(z > W(0) ? z : W(alpha) * expm1(z))", ("alpha",))
_elu_cotangent = Pointwise(
    "elu_alpha_backward", ("g", "y"), "W dy = g; out = T(W(y) > W(0) ? dy : dy * (W(y) + W(alpha)))", ("alpha",)
)
_leaky = Pointwise("leaky", ("x",), "W z = x; out = T(z > W(0) ? z : W(slope) * z)", ("slope",))
_leaky_cotangent = Pointwise(
    "leaky_backward", ("g", "x"), "W dy = g; out = T(W(x) > W(0) ? dy : W(slope) * dy)", ("slope",)
)


def _elu_forward(xp: Any, needs: Any, x: Any, /, *, alpha: float = 1.0) -> Any:
    if not is_floating(x):
        return NotImplemented
    check_alpha(alpha)
    y = _elu(x, alpha)
    return y, y


def _elu_backward(xp: Any, needs: Any, dY: Any, y: Any, *, alpha: float = 1.0) -> Any:
    return (_elu_cotangent(dY, y, alpha),)


def _leaky_forward(xp: Any, needs: Any, x: Any, /, *, slope: float = 0.01) -> Any:
    return (_leaky(x, slope), x) if is_floating(x) else NotImplemented


def _leaky_backward(xp: Any, needs: Any, dY: Any, x: Any, *, slope: float = 0.01) -> Any:
    return (_leaky_cotangent(dY, x, slope),)


activation.elu.override("cupy", _elu_forward, _elu_backward)
activation.leaky_relu.override("cupy", _leaky_forward, _leaky_backward)


# -- with a parameter

_prelu = elementwise("prelu", "T x, T slope", "T out", "W z = x; out = T(z > W(0) ? z : W(slope) * z)")
_prelu_cotangent = elementwise(
    "prelu_backward", "T g, T x, T slope", "T out", "W dy = g; out = T(W(x) > W(0) ? dy : W(slope) * dy)"
)
_prelu_slope = "W(x) > W(0) ? W(0) : W(g) * W(x)"
_prelu_slopes = reduction("prelu_slopes", "T g, T x", "T out", _prelu_slope, "a + b", "out = T(a)", "0")
_prelu_one_slope = Sum("prelu_one_slope", ("g", "x"), _prelu_slope)


def _prelu_forward(xp: Any, needs: Any, x: Any, slope: Any, /) -> Any:
    if not alike(x, slope) or not x.ndim or slope.ndim != 1 or slope.shape[0] not in (1, x.shape[-1]):
        return NotImplemented
    return _prelu(x, slope), (x, slope)


def _prelu_backward(xp: Any, needs: Any, dY: Any, residuals: Any) -> Any:
    x, slope = residuals
    dx = _prelu_cotangent(dY, x, slope) if needs[0] else None
    if not needs[1]:
        return dx, None
    if slope.shape[0] == x.shape[-1] and x.ndim > 1:
        return dx, _prelu_slopes(dY, x, axis=tuple(range(x.ndim - 1)))
    if slope.shape[0] > 1:
        return dx, _prelu_slopes(dY[None], x[None], axis=0)
    return dx, _prelu_one_slope(contiguous(dY), contiguous(x)).reshape(1)


activation.prelu.override("cupy", _prelu_forward, _prelu_backward)
