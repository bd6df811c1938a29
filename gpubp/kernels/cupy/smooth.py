"""Smooth activations: one kernel forward, one backward, which computes the derivative anew from the input."""

from __future__ import annotations

from typing import Any

from ...functions import smooth
from ...functions.smooth import NORMAL_PEAK, ROOT_HALF, TANH_CUBE, TANH_SCALE, check_gelu
from .common import is_floating
from .pointwise import Pointwise

_TANH = f"W t = tanh(W({TANH_SCALE}) * z * (W(1) + W({TANH_CUBE}) * z * z))"
_SIGMOID = "W s = W(1) / (W(1) + exp(-z))"

#: C++ for f(z) and its derivative, of z in W: statements before, and the two expressions.
FUNCTION = {
    "gelu": (
        f"W half = W(0.5) * erfc(W({-ROOT_HALF}) * z)",
        "z * half",
        f"half + W({NORMAL_PEAK}) * z * exp(W(-0.5) * z * z)",
    ),
    "gelu_tanh": (
        f"{_TANH}; W half = W(0.5) * (W(1) + t)",
        "z * half",
        f"half * (W(1) + W({TANH_SCALE}) * z * (W(1) - t) * (W(1) + W({3 * TANH_CUBE}) * z * z))",
    ),
    "silu": (_SIGMOID, "z * s", "s + z * s * (W(1) - s)"),
    "softplus": (
        "W e = exp(z < W(0) ? z : -z)",
        "(z < W(0) ? W(0) : z) + log1p(e)",
        "(z < W(0) ? e : W(1)) / (W(1) + e)",
    ),
    "softsign": ("W r = W(1) / (W(1) + fabs(z))", "z * r", "r * r"),
}

PLAIN = {
    name: Pointwise(name, ("x",), f"W z = x; {before}; out = T({value})")
    for name, (before, value, _) in FUNCTION.items()
}
BACKWARD = {
    name: Pointwise(f"{name}_backward", ("g", "x"), f"W z = x; {before}; out = T(W(g) * ({slope}))")
    for name, (before, _, slope) in FUNCTION.items()
}


def _override(name: str) -> None:
    def forward(xp: Any, needs: Any, x: Any, /) -> Any:
        return (PLAIN[name](x), x) if is_floating(x) else NotImplemented

    def backward(xp: Any, needs: Any, dY: Any, x: Any) -> Any:
        return (BACKWARD[name](dY, x),)

    getattr(smooth, name).override("cupy", forward, backward)


for _name in ("silu", "softplus", "softsign"):
    _override(_name)

_GELU = {"none": "gelu", "tanh": "gelu_tanh"}


def _gelu(xp: Any, needs: Any, x: Any, /, *, approximate: str = "none") -> Any:
    if not is_floating(x):
        return NotImplemented
    check_gelu(x, approximate)
    return PLAIN[_GELU[approximate]](x), x


def _gelu_backward(xp: Any, needs: Any, dY: Any, x: Any, *, approximate: str = "none") -> Any:
    return (BACKWARD[_GELU[approximate]](dY, x),)


smooth.gelu.override("cupy", _gelu, _gelu_backward)
