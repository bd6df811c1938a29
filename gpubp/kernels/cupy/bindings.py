"""nvmath-python's bindings of cuBLAS and cuBLASLt, where that is installed (the extra ``nvmath``).

Unlike CuPy's they can be told the stream and the workspace, and do not refuse a stream that is captured.
"""

from __future__ import annotations

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
    """Return the bindings of ``"cublas"`` or ``"cublasLt"``, or None where they are not there or do not work."""
    if find_spec("nvmath") is None:
        return None
    try:
        found = import_module(f"nvmath.bindings.{library}")
        found.destroy(found.create())  # which loads the library
    except Exception as error:  # of many kinds: no such library, no such function in it, another version of CUDA
        warnings.warn(f"nvmath-python is installed but its {library} does not work: {error}", stacklevel=2)
        return None
    return found


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
