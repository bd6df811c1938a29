"""Losses of pairs, element by element: a kernel (for many elements, two) for the sum, one for the cotangents."""

from __future__ import annotations

from typing import Any

from ...functions import loss
from ...functions.loss import REDUCTIONS
from .common import alike, contiguous, elementwise
from .sums import Sum

_SIGN = "(d > W(0) ? f : d < W(0) ? -f : f * d)"
_CLIPPED = "(d > W(delta) ? W(delta) : d < -W(delta) ? -W(delta) : d)"
_ACTIVE = "W(1) - W(y) * W(t) > W(0)"

#: C++ for the loss, and for the cotangents of y and t of that of the loss f; of y, t, and d = y - t, in W.
LOSSES = {
    "squares": ("d * d", "W(2) * f * d", "-W(2) * f * d"),
    "mae": ("fabs(d)", _SIGN, f"-{_SIGN}"),
    "huber": (f"{_CLIPPED} * (d - W(0.5) * {_CLIPPED})", f"f * {_CLIPPED}", f"-f * {_CLIPPED}"),
    "hinge": (
        f"{_ACTIVE} ? W(1) - W(y) * W(t) : W(0)",
        f"{_ACTIVE} ? -f * W(t) : W(0)",
        f"{_ACTIVE} ? -f * W(y) : W(0)",
    ),
}


class _Loss:
    """The kernels of one."""

    def __init__(self, name: str, value: str, dy: str, dt: str) -> None:
        d, f = "W d = W(y) - W(t)", "W f = W(g) * W(scale)"
        inputs = "T g, T y, T t, float64 scale, float64 delta"
        self.sum = Sum(f"{name}_sum", ("y", "t"), value, ("delta",), before=f"{d};")
        self.each = elementwise(f"{name}_each", "T y, T t, float64 delta", "T out", f"{d}; out = T({value})")
        self.backward = elementwise(f"{name}_backward", inputs, "T dy", f"{d}; {f}; dy = T({dy})")
        self.both = elementwise(f"{name}_both", inputs, "T dy, T dt", f"{d}; {f}; dy = T({dy}); dt = T({dt})")

    def forward(self, y: Any, t: Any, scale: float, reduction: str, delta: float) -> Any:
        if reduction == "none":
            return self.each(y, t, delta), (y, t, 1.0, delta)
        return self.sum(contiguous(y), contiguous(t), delta, scale=scale), (y, t, scale, delta)

    def cotangents(self, xp: Any, needs: Any, g: Any, residuals: Any, **_: Any) -> Any:
        if needs[1]:
            return self.both(g, *residuals)
        return self.backward(g, *residuals), None


_squares, _mae, _huber, _hinge = (_Loss(name, *expressions) for name, expressions in LOSSES.items())


def _suitable(y: Any, t: Any, reduction: str) -> bool:
    return alike(y, t) and y.shape == t.shape and y.size > 0 and reduction in REDUCTIONS


def _half_squared_error(xp: Any, needs: Any, y: Any, t: Any, /) -> Any:
    return _squares.forward(y, t, 0.5, "sum", 0.0) if _suitable(y, t, "sum") else NotImplemented


def _mean_half_squared_error(xp: Any, needs: Any, y: Any, t: Any, /) -> Any:
    if not _suitable(y, t, "mean") or not y.ndim:
        return NotImplemented
    return _squares.forward(y, t, 0.5 / y.shape[0], "sum", 0.0)


loss.half_squared_error.override("cupy", _half_squared_error, _squares.cotangents)
loss.mean_half_squared_error.override("cupy", _mean_half_squared_error, _squares.cotangents)


def _override(name: str, kernels: _Loss) -> None:
    def forward(xp: Any, needs: Any, y: Any, t: Any, /, *, delta: float = 1.0, reduction: str = "mean") -> Any:
        if not _suitable(y, t, reduction) or not delta > 0:
            return NotImplemented
        return kernels.forward(y, t, 1.0 / y.size if reduction == "mean" else 1.0, reduction, delta)

    getattr(loss, name).override("cupy", forward, kernels.cotangents)


for _name, _kernels in (("mse", _squares), ("mae", _mae), ("huber", _huber), ("hinge", _hinge)):
    _override(_name, _kernels)
