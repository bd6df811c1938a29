"""Smooth activations. The forward pass computes the derivative beside the value, and keeps nothing else."""

# ruff: noqa: D103  (a fused function has the docstring of its reference)

from __future__ import annotations

import math
from typing import Any

from ..boundary import erf
from ..fused import fused
from ..namespace import array_namespace
from .activation import _sigmoid
from .checks import check_real

#: √½, 1/√2π, and the two constants of GELU's approximation.
ROOT_HALF, NORMAL_PEAK = math.sqrt(0.5), 1 / math.sqrt(2 * math.pi)
TANH_SCALE, TANH_CUBE = math.sqrt(2 / math.pi), 0.044715


def _gelu(x: Any, /, *, approximate: str = "none") -> Any:
    """Gaussian error linear unit x Φ(x), where Φ is the distribution function of the standard normal distribution.

    Parameters
    ----------
    x
        Real array of any shape.
    approximate
        ``"none"``, or ``"tanh"`` for ½ x (1 + tanh(√(2/π) (x + 0.044715 x³))), which is faster and differs by up to
        0.0005.

    Raises
    ------
    ValueError
        If `approximate` is neither.

    Notes
    -----
    Hendrycks, Gimpel, "Gaussian error linear units", 2016.
    """
    check_gelu(x, approximate)
    xp = array_namespace(x)
    if approximate == "tanh":
        return 0.5 * x * (1 + xp.tanh(TANH_SCALE * (x + TANH_CUBE * x * x * x)))
    return 0.5 * x * (1 + erf(xp, ROOT_HALF * x))


@fused(_gelu)
def gelu(xp: Any, needs: Any, x: Any, /, *, approximate: str = "none") -> Any:
    check_gelu(x, approximate)
    slope = None
    if approximate == "tanh":
        square = x * x
        t = xp.tanh(TANH_SCALE * x * (1 + TANH_CUBE * square))
        half = 0.5 * (1 + t)
        if needs[0]:
            slope = half * (1 + TANH_SCALE * x * (1 - t) * (1 + 3 * TANH_CUBE * square))
    else:
        half = 0.5 * (1 + erf(xp, ROOT_HALF * x))
        if needs[0]:
            slope = half + NORMAL_PEAK * x * xp.exp(-0.5 * x * x)
    return x * half, slope


def check_gelu(x: Any, approximate: str) -> None:
    """Refuse complex arrays and approximations that there are not."""
    check_real("gelu", x)
    if approximate not in ("none", "tanh"):
        raise ValueError(f"gelu expects approximate='none' or 'tanh', got {approximate!r}")


def _silu(x: Any, /) -> Any:
    """Sigmoid linear unit x σ(x), also known as swish.

    Parameters
    ----------
    x
        Real array of any shape.

    Notes
    -----
    Elfwing, Uchibe, Doya, "Sigmoid-weighted linear units for neural network function approximation in reinforcement
    learning", 2018, eq. 2.
    """
    check_real("silu", x)
    return x * _sigmoid(x)


@fused(_silu)
def silu(xp: Any, needs: Any, x: Any, /) -> Any:
    check_real("silu", x)
    s = _sigmoid(x)
    y = x * s
    return y, s + y * (1 - s) if needs[0] else None


def _softplus(x: Any, /) -> Any:
    """Smooth rectifier log(1 + exp(x)), without overflow; its derivative is the sigmoid.

    Parameters
    ----------
    x
        Real array of any shape.

    Notes
    -----
    Dugas, Bengio, Bélisle, Nadeau, Garcia, "Incorporating second-order functional knowledge for better option
    pricing", 2000.
    """
    check_real("softplus", x)
    xp = array_namespace(x)
    return xp.logaddexp(x, xp.zeros_like(x))


@fused(_softplus)
def softplus(xp: Any, needs: Any, x: Any, /) -> Any:
    check_real("softplus", x)
    e = xp.exp(xp.where(x < 0, x, -x))
    return xp.where(x < 0, 0, x) + xp.log1p(e), xp.where(x < 0, e, 1.0) / (1 + e) if needs[0] else None


def _softsign(x: Any, /) -> Any:
    """Sigmoid-like x / (1 + |x|), which nears ±1 as a power, not exponentially.

    Parameters
    ----------
    x
        Real array of any shape.

    Notes
    -----
    Bergstra, Desjardins, Lamblin, Bengio, "Quadratic polynomials learn better image features", 2009. The second
    derivative jumps at 0 and is taken as 0 there.
    """
    check_real("softsign", x)
    return x / (1 + array_namespace(x).abs(x))


@fused(_softsign)
def softsign(xp: Any, needs: Any, x: Any, /) -> Any:
    check_real("softsign", x)
    r = 1 / (1 + xp.abs(x))
    return x * r, r * r if needs[0] else None


@gelu.backward
@silu.backward
@softplus.backward
@softsign.backward
def times_slope(xp: Any, needs: Any, dY: Any, slope: Any, **_: Any) -> Any:
    return (dY * slope,)
