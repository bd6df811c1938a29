"""The array libraries that tests run on, each behind the same few names.

A test takes a `Backend` (from the plugin's fixture ``backend``, or from `load`), makes its arrays with
``backend.asarray`` from NumPy's, computes, and compares ``backend.to_numpy`` of what comes out.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from ..device import cuda_devices, from_host, namespace_by_name, to_numpy

__all__ = ["BACKENDS", "Backend", "BackendMissing", "load", "why_missing"]


class BackendMissing(RuntimeError):
    """A backend cannot be used here; the message says why, and what would bring it."""


@dataclass(frozen=True)
class Backend:
    """An array library to test on.

    Parameters
    ----------
    name : str
        Its name in `BACKENDS`.
    xp : module
        The namespace of its plain arrays.
    supports_float64 : bool
        Whether it computes in float64, as gradient checks need.
    writable : bool
        Whether its arrays can be written in place.
    device : object, optional
        The library's own device on which `asarray` puts arrays; by default the library's default.
    """

    name: str
    xp: Any
    supports_float64: bool = True
    writable: bool = True
    device: Any = None

    def asarray(self, array: Any) -> Any:
        """Return a new array of the backend with the values, shape and dtype of a NumPy array (or scalar, or list)."""
        own = np.array(array)
        result = from_host(self.xp, own, **({} if self.device is None else {"device": self.device}))
        if isinstance(result, np.ndarray):
            result.setflags(write=self.writable)
        return result

    def to_numpy(self, array: Any) -> np.ndarray[Any, Any]:
        """Return an array of the backend as a NumPy array, perhaps of the same memory: do not write to it."""
        if self.device is not None:
            array = array.to_device(self.xp.__array_namespace_info__().default_device())
        return to_numpy(array)


def _numpy() -> Backend:
    return Backend("numpy", namespace_by_name("numpy"))


def _readonly_numpy() -> Backend:
    return Backend("readonly_numpy", namespace_by_name("numpy"), writable=False)


def _standin() -> Backend:
    return Backend("standin", namespace_by_name("gpubp.testing.standin"))


def _array_api_strict() -> Backend:
    return Backend("array_api_strict", _strict())


def _array_api_strict_device1() -> Backend:
    xp = _strict()
    return Backend("array_api_strict_device1", xp, device=xp.Device("device1"))


def _strict() -> Any:
    xp: Any = namespace_by_name("array_api_strict")
    xp.set_array_api_strict_flags(api_version="2025.12")
    return xp


def _torch() -> Backend:
    return Backend("torch", namespace_by_name("torch"))


def _jax() -> Backend:
    xp = namespace_by_name("jax")
    import jax

    jax.config.update("jax_enable_x64", True)  # JAX has no float64 otherwise; for the whole process
    return Backend("jax", xp, writable=False)


def _cupy() -> Backend:
    cuda_devices()
    return Backend("cupy", namespace_by_name("cupy"))


#: Every backend's name and loader.
#:
#: ``readonly_numpy`` refuses to write to the arrays it makes, ``standin`` is the CuPy stand-in (`standin`), and
#: ``array_api_strict_device1`` keeps its arrays on a device that is not the default one, so that arrays created
#: without ``device=`` are found out.
BACKENDS: Final[dict[str, Callable[[], Backend]]] = {
    "numpy": _numpy,
    "readonly_numpy": _readonly_numpy,
    "standin": _standin,
    "array_api_strict": _array_api_strict,
    "array_api_strict_device1": _array_api_strict_device1,
    "torch": _torch,
    "jax": _jax,
    "cupy": _cupy,
}


@functools.cache
def load(name: str) -> Backend:
    """Return a backend, importing its library.

    Parameters
    ----------
    name : str
        A name in `BACKENDS`.

    Raises
    ------
    ValueError
        If there is no backend of that name.
    BackendMissing
        If it cannot be used here.
    """
    if name not in BACKENDS:
        raise ValueError(f"no backend is called {name!r}; there are {', '.join(BACKENDS)}")
    try:
        return BACKENDS[name]()
    except (ImportError, RuntimeError) as problem:
        raise BackendMissing(str(problem)) from problem


def why_missing(name: str) -> str | None:
    """Return why a backend cannot be used here, or None where it can (its library is then imported)."""
    try:
        load(name)
    except BackendMissing as problem:
        return str(problem)
    return None
