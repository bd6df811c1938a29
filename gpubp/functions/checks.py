"""What fused functions ask of their arguments before they compute; nothing here reads values."""

from __future__ import annotations

from typing import Any

from ..array import strip
from ..boundary import is_complex, is_inexact
from ..device import CPU, device_of, is_array, library


def check_alike(function: str, **arrays: Any) -> None:
    """Refuse arrays of several libraries, or that are not of one floating-point dtype.

    Raises
    ------
    TypeError
        Naming every array with its library or dtype.
    """
    given = {name: strip(x) for name, x in arrays.items() if x is not None}
    first: Any = next(iter(given.values()))
    kind, dtype = type(first), getattr(first, "dtype", None)
    if is_inexact(dtype) and all(type(x) is kind and x.dtype is dtype for x in given.values()):
        return  # at once, as nearly always
    check_one_library(function, **arrays)
    if any(x.dtype != dtype for x in given.values()) or not is_inexact(dtype):
        listed = ", ".join(f"{name} of {x.dtype}" for name, x in given.items())
        raise TypeError(f"{function} expects arrays of one floating-point dtype, got {listed}; cast them to one")


def check_one_library(function: str, **arrays: Any) -> None:
    """Refuse arrays of several libraries, and what is no array.

    Raises
    ------
    TypeError
        Naming every array with its library.
    """
    given = {name: strip(x) for name, x in arrays.items() if x is not None}
    for name, x in given.items():
        if not is_array(x):
            raise TypeError(f"{function} expects arrays, got {type(x).__name__} as {name}")
    libraries = {name: library(x) for name, x in given.items()}
    if len(set(libraries.values())) > 1:
        listed = ", ".join(f"{name} of {lib}" for name, lib in libraries.items())
        raise TypeError(f"{function} was given arrays of several libraries: {listed}; move them to one")


def check_one_device(function: str, **arrays: Any) -> None:
    """Refuse arrays on several devices.

    Raises
    ------
    ValueError
        Naming every array with its device.
    """
    devices = {name: device_of(strip(x)) for name, x in arrays.items() if x is not None}
    if len(set(devices.values())) > 1:
        listed = ", ".join(f"{name} on {device}" for name, device in devices.items())
        raise ValueError(f"{function} was given arrays on several devices: {listed}; move them to one")


def check_range(function: str, what: str, numbers: Any, count: int, of: str) -> None:
    """Refuse numbers that are not from 0 to below `count` where looking at them costs no wait: NumPy arrays.

    Raises
    ------
    ValueError
        Naming the range and what is in it; `of` says where the count comes from.
    """
    if device_of(numbers) == CPU and numbers.size and not 0 <= numbers.min() <= numbers.max() < count:
        raise ValueError(
            f"{function} expects {what} from 0 to {count - 1} with {of}, got {what} from {numbers.min()} to "
            f"{numbers.max()}"
        )


def broadcasts(shape: Any, to: Any) -> bool:
    """Whether a shape broadcasts to another, which stays as it is."""
    pairs = zip(reversed(shape), reversed(to), strict=False)
    return len(shape) <= len(to) and all(n in (1, length) for n, length in pairs)


def check_real(function: str, x: Any) -> None:
    """Refuse complex arrays, which have no order."""
    if is_complex(x):
        raise TypeError(f"{function} is defined for real arrays, got {x.dtype}")
