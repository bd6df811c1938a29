"""cuBLAS and cuBLASLt by bindings that are told the stream and the workspace, and do not refuse one that is captured.

nvmath-python has them (the extra ``nvmath``). Without it cuBLAS is called as CuPy has loaded it, through ctypes.
"""

from __future__ import annotations

import ctypes
import os
import threading
import warnings
from collections import OrderedDict
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import cupy
import numpy as np


@cache
def bindings(library: str) -> Any:
    """Return bindings of ``"cublas"`` or ``"cublasLt"``, or None where none are there or work."""
    if find_spec("nvmath") is not None:
        try:
            found: Any = import_module(f"nvmath.bindings.{library}")
            found.destroy(found.create())  # which loads the library
            return found
        except Exception as error:  # of many kinds: no such library, no such function in it, another version of CUDA
            warnings.warn(f"nvmath-python is installed but its {library} does not work: {error}", stacklevel=2)
    if library != "cublas":
        return None
    try:
        found = CuBLAS()
        found.destroy(found.create())
    except (AttributeError, OSError, RuntimeError):
        return None
    return found


class CuBLAS:
    """The cuBLAS that CuPy has loaded, with the functions and names of nvmath-python's bindings.

    Raises
    ------
    OSError
        If none is loaded under a known name.
    """

    NAMES = ("libcublas.so.13", "libcublas.so.12")

    def __init__(self) -> None:
        library = self._loaded()
        # handle, operations, m, n, k, then scalar, address, type, line and step of each matrix, and how to compute
        head, left, more = "p ii iii p", "p i i", "q"
        for name, symbol, parameters in (
            ("set_stream", "cublasSetStream_v2", "p p"),
            ("set_workspace", "cublasSetWorkspace_v2", "p p z"),
            ("destroy", "cublasDestroy_v2", "p"),
            ("gemm_ex", "cublasGemmEx", f"{head} {left} {left} p {left} ii"),
            (
                "gemm_strided_batched_ex",
                "cublasGemmStridedBatchedEx",
                f"{head} {left} {more} {left} {more} p {left} {more} iii",
            ),
        ):
            setattr(self, name, _function(library, symbol, parameters))
        self._create = library.cublasCreate_v2

    def _loaded(self) -> ctypes.CDLL:
        for name in self.NAMES:
            try:
                return ctypes.CDLL(name, mode=os.RTLD_NOLOAD | os.RTLD_NOW)
            except OSError:
                continue
        raise OSError(f"none of {', '.join(self.NAMES)} is loaded")

    def create(self) -> int:
        """Make a handle."""
        made = ctypes.c_void_p()
        _check(self._create(ctypes.byref(made)))
        return int(made.value or 0)


def _function(library: ctypes.CDLL, symbol: str, parameters: str) -> Any:
    found = getattr(library, symbol)
    kinds = {"p": ctypes.c_void_p, "i": ctypes.c_int, "q": ctypes.c_longlong, "z": ctypes.c_size_t}
    found.argtypes = [kinds[letter] for letter in parameters.replace(" ", "")]
    found.restype = ctypes.c_int
    found.errcheck = lambda status, *_: _check(status)
    return found


def _check(status: int) -> None:
    if status:
        raise RuntimeError(f"cuBLAS reports the status {status}")


class _Thread(threading.local):
    def __init__(self) -> None:
        self.handles: dict[tuple[str, int], int] = {}
        self.plans: OrderedDict[Any, Any] = OrderedDict()


#: What each thread has of its own: handles by library and device, plans of `lt` by form, the last used last.
of_thread = _Thread()


def handle(library: str) -> int:
    """Return this thread's handle of a library for the current device; it stays."""
    key = library, cupy.cuda.runtime.getDevice()
    found = of_thread.handles.get(key)
    if found is None:
        found = of_thread.handles[key] = bindings(library).create()
    return found


def room(size: int) -> Any:
    """Bytes to work in, None for none.

    They may be given back at once: what follows on the stream, or in the captured step whose pool they are of, comes
    after the work in them.
    """
    return cupy.empty(size, np.uint8) if size else None
