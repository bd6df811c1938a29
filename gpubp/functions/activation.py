"""Activation functions."""

# ruff: noqa: D103  (a fused function has the docstring of its reference)

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from ..boundary import conj
from ..fused import fused
from ..namespace import array_namespace
from .checks import check_real


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


def _softmax(x: Any, /, *, axis: int = -1) -> Any:
    """Exponentials that add up to 1 along an axis.

    Parameters
    ----------
    x
        Real array of any shape but ().
    axis
        The axis along which the result adds up to 1.
    """
    check_real("softmax", x)
    xp = array_namespace(x)
    e = xp.exp(x - xp.max(x, axis=axis, keepdims=True))
    return e / xp.sum(e, axis=axis, keepdims=True)


@fused(_softmax)
def softmax(xp: Any, needs: Any, x: Any, /, *, axis: int = -1) -> Any:
    y = _softmax(x, axis=axis)
    return y, y


@softmax.backward
def softmax_backward(xp: Any, needs: Any, dY: Any, y: Any, *, axis: int = -1) -> Any:
    return (y * (dY - xp.sum(dY * y, axis=axis, keepdims=True)),)


class ByOutput(NamedTuple):
    """An elementwise activation whose derivative is a function of its output, so that a layer need keep no more."""

    function: Callable[[Any], Any]
    cotangent: Callable[[Any, Any, Any], Any]
    """``cotangent(xp, dY, y)``: that of the input, from that of the output y."""


#: The activations that `dense` computes together with its matrix product, by name.
BY_OUTPUT: dict[str, ByOutput] = {
    "identity": ByOutput(identity, lambda xp, dY, y: dY),
    "sigmoid": ByOutput(_sigmoid, lambda xp, dY, y: dY * (y * (1 - y))),
    "tanh": ByOutput(tanh, lambda xp, dY, y: dY * conj(xp, 1 - y * y)),
    "relu": ByOutput(_relu, lambda xp, dY, y: xp.where(y <= 0, 0, dY)),
    "leaky_relu": ByOutput(_leaky_relu, lambda xp, dY, y: xp.where(y > 0, dY, 0.01 * dY)),
}

#: Their names, by the functions that a user passes.
NAMES: dict[Any, str] = {
    identity: "identity",
    sigmoid: "sigmoid",
    tanh: "tanh",
    relu: "relu",
    leaky_relu: "leaky_relu",
}
