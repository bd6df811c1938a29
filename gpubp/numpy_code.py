"""NumPy code, differentiable as it stands: ufuncs, functions and array methods called on an `Array`."""

from __future__ import annotations

from typing import Any

from .array import Array


def _namespace(values: Any) -> Any:
    return next(x.tape.ns for x in values if type(x) is Array)


_UFUNCS = {"absolute": "abs", "power": "pow", "true_divide": "divide"}


def call_ufunc(ufunc: Any, method: str, inputs: Any, kwargs: Any) -> Any:
    """What a NumPy ufunc does when it meets an `Array`."""
    if "out" in kwargs:
        raise TypeError(
            f"np.{ufunc.__name__} cannot write a traced value into a plain array (out=, or an operator like +=): "
            "its gradient would be lost; write x = x + y instead"
        )
    if method != "__call__" or kwargs:
        raise TypeError(f"np.{ufunc.__name__}.{method} with {sorted(kwargs)} is not differentiable here")
    name = ufunc.__name__
    return getattr(_namespace(inputs), _UFUNCS.get(name, name))(*inputs)


def call_function(func: Any, args: Any, kwargs: Any) -> Any:
    """What a NumPy function does when it meets an `Array`."""
    raise TypeError(f"numpy.{func.__name__} is not among the NumPy functions gpubp differentiates")


_TORCH_OPERATORS = {"add": "add"}


def call_torch_operator(func: Any, args: Any) -> Any:
    """An operator between a PyTorch tensor and an `Array`."""
    raise TypeError(f"torch.{func.__name__} of a traced array")


def method(x: Array, name: str) -> Any:
    """The method `name` of an `Array`, one of those that NumPy and CuPy share."""
    raise AttributeError(f"a traced array has no attribute {name!r}")
