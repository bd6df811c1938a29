"""What fused functions ask of their arguments before they compute; nothing here reads values."""

from __future__ import annotations

from typing import Any

from ..array import strip
from ..boundary import is_complex, is_inexact
from ..device import device_of, is_array, library


def check_alike(function: str, **arrays: Any) -> None:
    """Refuse arrays of several libraries, or that are not of one floating-point dtype.

    Raises
    ------
    TypeError
        Naming every array with its library or dtype.
    """
    check_one_library(function, **arrays)
    given = {name: strip(x) for name, x in arrays.items() if x is not None}
    dtypes = [x.dtype for x in given.values()]
    if any(dtype != dtypes[0] for dtype in dtypes) or not is_inexact(dtypes[0]):
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


def check_real(function: str, x: Any) -> None:
    """Refuse complex arrays, which have no order."""
    if is_complex(x):
        raise TypeError(f"{function} is defined for real arrays, got {x.dtype}")
