"""Elementwise functions of the standard and their derivatives.

Complex arrays follow PyTorch's convention: the cotangent of z = x + iy for a real loss L is ∂L/∂x + i ∂L/∂y, so
a holomorphic f contributes ``g * conj(f'(z))`` and a step against the gradient descends.
"""

from __future__ import annotations

import math
from typing import Any

from ..boundary import conj, is_complex, is_inexact
from .registry import constant, elementwise, primitive, undifferentiable

LN2, LN10 = math.log(2), math.log(10)

# Arithmetic
elementwise("add", lambda xp, g, *_: g, lambda xp, g, *_: g)
elementwise("subtract", lambda xp, g, *_: g, lambda xp, g, *_: -g)
elementwise("multiply", lambda xp, g, _, __, y: g * conj(xp, y), lambda xp, g, _, x, __: g * conj(xp, x))
elementwise(
    "divide",
    lambda xp, g, _, __, y: g / conj(xp, y),
    lambda xp, g, out, _, y: -g * conj(xp, out / y),
)
elementwise("negative", lambda xp, g, *_: -g)
elementwise("positive", lambda xp, g, *_: g)
elementwise("square", lambda xp, g, _, x: g * (2 * conj(xp, x)))
elementwise("sqrt", lambda xp, g, out, _: g / (2 * conj(xp, out)))
elementwise("reciprocal", lambda xp, g, out, _: -g * conj(xp, out * out))
elementwise(
    "remainder",
    lambda xp, g, *_: g,
    lambda xp, g, _, x, y: -g * xp.floor_divide(x, y),
)


def _pow_base(xp: Any, g: Any, _: Any, x: Any, y: Any) -> Any:
    if isinstance(y, int | float | complex):
        return g * conj(xp, y * x ** (y - 1)) if y != 0 else xp.zeros_like(g)
    if not is_inexact(y.dtype):
        y = xp.astype(y, x.dtype)
    zero = y == 0  # where x may be 0 too, and y * x**(y-1) not a number
    return g * conj(xp, xp.where(zero, 0.0, y) * x ** xp.where(zero, 1.0, y - 1))


def _pow_exponent(xp: Any, g: Any, out: Any, x: Any, y: Any) -> Any:
    x = x + xp.zeros_like(y)  # x may be a Python scalar
    flat = xp.logical_and(x == 0, (xp.real(y) if is_complex(y) else y) >= 0)  # 0**y is 0 for every y > 0
    return g * conj(xp, out * xp.log(xp.where(flat, 1.0, x)))


elementwise("pow", _pow_base, _pow_exponent)

# Exponentials and logarithms
elementwise("exp", lambda xp, g, out, _: g * conj(xp, out))
elementwise("expm1", lambda xp, g, out, _: g * conj(xp, out + 1))
elementwise("log", lambda xp, g, _, x: g / conj(xp, x))
elementwise("log1p", lambda xp, g, _, x: g / conj(xp, 1 + x))
elementwise("log2", lambda xp, g, _, x: g / (LN2 * conj(xp, x)))
elementwise("log10", lambda xp, g, _, x: g / (LN10 * conj(xp, x)))


def _share(xp: Any, x: Any, y: Any) -> Any:
    """The weight exp(x) / (exp(x) + exp(y)) of x in logaddexp(x, y); of equal infinities one half."""
    d = y - x
    d = xp.where(xp.logical_and(x == y, xp.isnan(d)), 0.0, d)
    return xp.exp(-xp.logaddexp(xp.zeros_like(d), d))


elementwise("logaddexp", lambda xp, g, _, x, y: g * _share(xp, x, y), lambda xp, g, _, x, y: g * _share(xp, y, x))
elementwise("_erf", lambda xp, g, _, x: g * (2 / math.sqrt(math.pi) * xp.exp(-x * x)))

# Trigonometric and hyperbolic functions
elementwise("sin", lambda xp, g, _, x: g * conj(xp, xp.cos(x)))
elementwise("cos", lambda xp, g, _, x: -g * conj(xp, xp.sin(x)))
elementwise("tan", lambda xp, g, out, _: g * conj(xp, 1 + out * out))
elementwise("asin", lambda xp, g, _, x: g / conj(xp, xp.sqrt(1 - x) * xp.sqrt(1 + x)))
elementwise("acos", lambda xp, g, _, x: -g / conj(xp, xp.sqrt(1 - x) * xp.sqrt(1 + x)))
elementwise("atan", lambda xp, g, _, x: g / conj(xp, 1 + x * x))
elementwise("sinh", lambda xp, g, _, x: g * conj(xp, xp.cosh(x)))
elementwise("cosh", lambda xp, g, _, x: g * conj(xp, xp.sinh(x)))
elementwise("tanh", lambda xp, g, out, _: g * conj(xp, 1 - out * out))
elementwise("asinh", lambda xp, g, _, x: g / conj(xp, xp.sqrt(x * x + 1)))
elementwise("acosh", lambda xp, g, _, x: g / conj(xp, xp.sqrt(x - 1) * xp.sqrt(x + 1)))
elementwise("atanh", lambda xp, g, _, x: g / conj(xp, 1 - x * x))
elementwise(
    "atan2",
    lambda xp, g, _, y, x: g * (x / (x * x + y * y)),
    lambda xp, g, _, y, x: -g * (y / (x * x + y * y)),
)
elementwise(
    "hypot",
    lambda xp, g, out, x, _: g * (x / xp.where(out == 0, 1.0, out)),
    lambda xp, g, out, _, y: g * (y / xp.where(out == 0, 1.0, out)),
)

# Sign, magnitude, complex parts
elementwise("abs", lambda xp, g, _, x: g * xp.sign(x))
elementwise("copysign", lambda xp, g, out, x, _: g * (xp.sign(x) * xp.sign(out)), None)
elementwise("conj", lambda xp, g, *_: conj(xp, g))
elementwise("real", lambda xp, g, *_: g)
elementwise("imag", lambda xp, g, _, x: g * 1j if is_complex(x) else xp.zeros_like(g))


def _sign(xp: Any, g: Any, out: Any, x: Any) -> Any:
    if not is_complex(x):
        return xp.zeros_like(g)
    along = xp.real(xp.conj(out) * g)  # the radial part moves z along its own direction, and sign(z) not at all
    zero = x == 0
    return xp.where(zero, 0.0, (g - out * along) / xp.where(zero, 1.0, xp.abs(x)))


elementwise("sign", _sign)

# Choice: a tie of two arguments gives each half the gradient; clip passes the gradient at its bounds.
elementwise(
    "maximum",
    lambda xp, g, _, x, y: xp.where(x == y, g / 2, xp.where(x > y, g, 0.0)),
    lambda xp, g, _, x, y: xp.where(x == y, g / 2, xp.where(y > x, g, 0.0)),
)
elementwise(
    "minimum",
    lambda xp, g, _, x, y: xp.where(x == y, g / 2, xp.where(x < y, g, 0.0)),
    lambda xp, g, _, x, y: xp.where(x == y, g / 2, xp.where(y < x, g, 0.0)),
)
primitive(
    "where",
    None,
    lambda xp, g, _, condition, *__: xp.where(condition, g, 0.0),
    lambda xp, g, _, condition, *__: xp.where(condition, 0.0, g),
    broadcasts=True,
)


def _clip(xp: Any, g: Any, _: Any, x: Any, low: Any = None, high: Any = None) -> Any:
    if low is not None:
        g = xp.where(x >= low, g, 0.0)
    return g if high is None else xp.where(x <= high, g, 0.0)


def _clip_low(xp: Any, g: Any, _: Any, x: Any, low: Any, high: Any = None) -> Any:
    g = xp.where(x < low, g, 0.0)
    return g if high is None else xp.where(low <= high, g, 0.0)


def _clip_high(xp: Any, g: Any, _: Any, x: Any, low: Any, high: Any) -> Any:
    above = x > high
    if low is not None:
        above = xp.logical_or(above, low > high)
    return xp.where(above, g, 0.0)


primitive("clip", _clip, _clip_low, _clip_high, positional=("x", "min", "max"), broadcasts=True)

# Flat almost everywhere
constant(
    "ceil", "floor", "floor_divide", "round", "trunc", "signbit",
    "equal", "not_equal", "less", "less_equal", "greater", "greater_equal",
    "isfinite", "isinf", "isnan",
    "logical_and", "logical_not", "logical_or", "logical_xor",
    "bitwise_and", "bitwise_invert", "bitwise_left_shift", "bitwise_or", "bitwise_right_shift", "bitwise_xor",
)  # fmt: skip
undifferentiable("it steps between floating-point numbers", "nextafter")
