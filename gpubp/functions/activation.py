"""Activation functions: those that are a function of their output or piecewise linear; others in `smooth`."""

# ruff: noqa: D103  (a fused function has the docstring of its reference)

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from ..boundary import conj
from ..fused import fused
from ..namespace import array_namespace
from .checks import check_alike, check_real


def identity(x: Any) -> Any:
    """Return `x` itself."""
    return x


def _sigmoid(x: Any, /) -> Any:
    """Logistic function 1 / (1 + exp(-x)), without overflow and with full relative precision on both sides.

    Parameters
    ----------
    x
        Real array of any shape.
    """
    check_real("sigmoid", x)
    xp = array_namespace(x)
    e = xp.exp(xp.where(x < 0, x, -x))
    return xp.where(x < 0, e, 1.0) / (1 + e)


@fused(_sigmoid)
def sigmoid(xp: Any, needs: Any, x: Any, /) -> Any:
    y = _sigmoid(x)
    return y, y


@sigmoid.backward
def sigmoid_backward(xp: Any, needs: Any, dY: Any, y: Any) -> Any:
    return (dY * (y * (1 - y)),)


def tanh(x: Any) -> Any:
    """Hyperbolic tangent.

    Parameters
    ----------
    x
        Array of any shape, real or complex.
    """
    return array_namespace(x).tanh(x)


def _relu(x: Any, /) -> Any:
    """Rectifier max(x, 0), whose derivative at 0 is 0. Not-a-number stays what it is.

    Parameters
    ----------
    x
        Real array of any shape.
    """
    check_real("relu", x)
    return array_namespace(x).where(x <= 0, 0, x)


@fused(_relu)
def relu(xp: Any, needs: Any, x: Any, /) -> Any:
    y = _relu(x)
    return y, y


@relu.backward
def relu_backward(xp: Any, needs: Any, dY: Any, y: Any) -> Any:
    return (xp.where(y <= 0, 0, dY),)


def _leaky_relu(x: Any, /, *, slope: float = 0.01) -> Any:
    """Leaky rectifier: x where x > 0, else ``slope * x`` (also for the derivative at 0).

    Parameters
    ----------
    x
        Real array of any shape.
    slope
        Derivative on the negative side.

    Notes
    -----
    Maas, Hannun, Ng, "Rectifier nonlinearities improve neural network acoustic models", 2013.
    """
    check_real("leaky_relu", x)
    return array_namespace(x).where(x > 0, x, slope * x)


@fused(_leaky_relu)
def leaky_relu(xp: Any, needs: Any, x: Any, /, *, slope: float = 0.01) -> Any:
    return _leaky_relu(x, slope=slope), x


@leaky_relu.backward
def leaky_relu_backward(xp: Any, needs: Any, dY: Any, x: Any, *, slope: float = 0.01) -> Any:
    return (xp.where(x > 0, dY, slope * dY),)


def _prelu(x: Any, slope: Any, /) -> Any:
    """Leaky rectifier with learned slopes: x where x > 0, else ``slope * x`` (also for the derivative at 0).

    Parameters
    ----------
    x
        Real array of shape (..., n).
    slope
        Derivatives on the negative side, of shape (n,), or (1,) for one that all share.

    Raises
    ------
    TypeError
        If the arrays are of several libraries or dtypes.
    ValueError
        If the shapes do not fit.

    Notes
    -----
    He, Zhang, Ren, Sun, "Delving deep into rectifiers", 2015, eq. 1.
    """
    _check_prelu(x, slope)
    xp = array_namespace(x, slope)
    return xp.where(x > 0, x, xp.multiply(slope, x))


@fused(_prelu)
def prelu(xp: Any, needs: Any, x: Any, slope: Any, /) -> Any:
    return _prelu(x, slope), (x, slope)


@prelu.backward
def prelu_backward(xp: Any, needs: Any, dY: Any, residuals: Any) -> Any:
    x, slope = residuals
    dx = xp.where(x > 0, dY, slope * dY) if needs[0] else None
    if not needs[1]:
        return dx, None
    dSlope = xp.where(x > 0, 0.0, dY * x)
    if slope.shape[0] != x.shape[-1]:
        return dx, xp.reshape(xp.sum(dSlope), (1,))
    return dx, xp.sum(dSlope, axis=tuple(range(x.ndim - 1))) if x.ndim > 1 else dSlope


def _check_prelu(x: Any, slope: Any) -> None:
    check_alike("prelu", x=x, slope=slope)
    check_real("prelu", x)
    if not x.ndim or slope.ndim != 1 or slope.shape[0] not in (1, x.shape[-1]):
        raise ValueError(
            f"prelu expects x of shape (..., n) and slope of shape (n,) or (1,), got {tuple(x.shape)} and "
            f"{tuple(slope.shape)}"
        )


def _elu(x: Any, /, *, alpha: float = 1.0) -> Any:
    """Exponential linear unit: x where x > 0, else ``alpha * (exp(x) - 1)``, whose derivative at 0 is alpha.

    Parameters
    ----------
    x
        Real array of any shape.
    alpha
        From 0; the result tends to -alpha on the negative side.

    Raises
    ------
    ValueError
        If `alpha` is negative.

    Notes
    -----
    Clevert, Unterthiner, Hochreiter, "Fast and accurate deep network learning by exponential linear units", 2016.
    """
    check_real("elu", x)
    check_alpha(alpha)
    xp = array_namespace(x)
    return xp.where(x > 0, x, alpha * xp.expm1(xp.where(x > 0, 0, x)))


def check_alpha(alpha: float) -> None:
    """Refuse negative ones, with which the sign of the result is not that of the argument."""
    if alpha < 0:
        raise ValueError(f"elu expects alpha from 0, got {alpha}")


@fused(_elu)
def elu(xp: Any, needs: Any, x: Any, /, *, alpha: float = 1.0) -> Any:
    y = _elu(x, alpha=alpha)
    return y, y


@elu.backward
def elu_backward(xp: Any, needs: Any, dY: Any, y: Any, *, alpha: float = 1.0) -> Any:
    return (xp.where(y > 0, dY, dY * (y + alpha)),)


SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805


def _selu(x: Any, /) -> Any:
    """Scaled ELU that keeps mean 0 and variance 1: 1.0507 x where x > 0, else 1.7581 (exp(x) - 1), also at 0.

    Parameters
    ----------
    x
        Real array of any shape.

    Notes
    -----
    Klambauer, Unterthiner, Mayr, Hochreiter, "Self-normalizing neural networks", 2017, eq. 2 and 14. Weights are
    drawn with variance 1 / fan-in, as by `gpubp.nn.lecun_normal`.
    """
    check_real("selu", x)
    return SELU_SCALE * _elu(x, alpha=SELU_ALPHA)


@fused(_selu)
def selu(xp: Any, needs: Any, x: Any, /) -> Any:
    y = _selu(x)
    return y, y


@selu.backward
def selu_backward(xp: Any, needs: Any, dY: Any, y: Any) -> Any:
    return (dY * xp.where(y > 0, SELU_SCALE, y + SELU_SCALE * SELU_ALPHA),)


class ByOutput(NamedTuple):
    """An elementwise activation whose derivative is a function of its output, so that a layer need keep no more."""

    function: Callable[[Any], Any]
    cotangent: Callable[[Any, Any, Any], Any]
    """``cotangent(xp, dY, y)``: that of the input, from that of the output y."""


def _alone(backward: Callable[..., Any]) -> Callable[[Any, Any, Any], Any]:
    """Give the one cotangent of a backward pass with default options; the sign of y is that of x."""
    return lambda xp, dY, y: backward(xp, (True,), dY, y)[0]


#: The activations that `dense` computes together with its matrix product, by name.
BY_OUTPUT: dict[str, ByOutput] = {
    "identity": ByOutput(identity, lambda xp, dY, y: dY),
    "sigmoid": ByOutput(_sigmoid, _alone(sigmoid_backward)),
    "tanh": ByOutput(tanh, lambda xp, dY, y: dY * conj(xp, 1 - y * y)),
    "relu": ByOutput(_relu, _alone(relu_backward)),
    "leaky_relu": ByOutput(_leaky_relu, _alone(leaky_relu_backward)),
    "elu": ByOutput(_elu, _alone(elu_backward)),
    "selu": ByOutput(_selu, _alone(selu_backward)),
}

#: Their names, by the functions that a user passes.
NAMES: dict[Any, str] = {
    identity: "identity",
    sigmoid: "sigmoid",
    tanh: "tanh",
    relu: "relu",
    leaky_relu: "leaky_relu",
    elu: "elu",
    selu: "selu",
}
