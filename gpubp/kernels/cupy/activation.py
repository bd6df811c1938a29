"""Activations: one kernel forward, one backward, alone or with a bias added before."""

from __future__ import annotations

from typing import Any

from ...functions import activation
from ...functions.activation import SELU_ALPHA, SELU_SCALE, check_alpha
from .common import elementwise, is_floating

#: C++ for y, of z in W.
VALUE = {
    "identity": "z",
    "sigmoid": "z < W(0) ? exp(z) / (W(1) + exp(z)) : W(1) / (W(1) + exp(-z))",
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

#: y = f(x), y = f(x + b) with b broadcast, and dz, by activation.
PLAIN = {name: elementwise(name, "T x", "T out", f"W z = x; out = T({y})") for name, y in VALUE.items()}
BIASED = {
    name: elementwise(f"bias_{name}", "T x, T b", "T out", f"W z = W(x) + W(b); out = T({y})")
    for name, y in VALUE.items()
}
BACKWARD = {
    name: elementwise(f"{name}_backward", "T g, T v", "T out", f"W dy = g; W y = v; out = T({dz})")
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

_elu = elementwise("elu_alpha", "T x, float64 alpha", "T out", "W z = x; out = T(z > W(0) ? z : W(alpha) * expm1(z))")
_elu_cotangent = elementwise(
    "elu_alpha_backward",
    "T g, T y, float64 alpha",
    "T out",
    "W dy = g; out = T(W(y) > W(0) ? dy : dy * (W(y) + W(alpha)))",
)


def _elu_forward(xp: Any, needs: Any, x: Any, /, *, alpha: float = 1.0) -> Any:
    if not is_floating(x):
        return NotImplemented
    check_alpha(alpha)
    y = _elu(x, alpha)
    return y, y


def _elu_backward(xp: Any, needs: Any, dY: Any, y: Any, *, alpha: float = 1.0) -> Any:
    return (_elu_cotangent(dY, y, alpha),)


activation.elu.override("cupy", _elu_forward, _elu_backward)
