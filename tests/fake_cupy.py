"""Puts the CuPy stand-in in the place of CuPy: all that gpubp does for CuPy then runs where there is no GPU.

``python -m pytest -p tests.fake_cupy --backends cupy`` runs the tests as they run on a GPU. gpubp recognises the arrays
as CuPy's, chooses and moves between devices in CuPy's way, and computes with array-api-compat's functions for CuPy;
what these call is the stand-in, with NumPy's functions where the stand-in otherwise has array-api-compat's for NumPy.
"""

import sys
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import array_api_compat.numpy as np_compat

from gpubp.testing import backends
from tests import fake_cublas, fake_graph, host_cuda

LACKING = {"unstack", "vecdot", "matrix_norm", "svdvals", "vector_norm"}  # NumPy has them, CuPy 14.2 has not


def install() -> None:
    path = Path(backends.__file__).with_name("standin.py")
    source = path.read_text().replace("import array_api_compat.numpy as", "import numpy as")
    cupy: Any = module_from_spec(ModuleSpec("cupy", None, is_package=True))
    sys.modules["cupy"] = cupy
    exec(compile(source, path, "exec"), vars(cupy))
    cupy._NOT_IN_CUPY |= LACKING
    cupy._OWN |= {name: getattr(np_compat.linalg, name) for name in ("eig", "eigvals")}  # always complex
    del cupy.ndarray.__array_namespace__, cupy.ndarray.to_device
    cupy.__version__ = "14.2.0"
    cupy.cuda = _cuda(cupy.Device)
    host_cuda.install(cupy)
    fake_graph.install(cupy)
    sys.modules |= fake_cublas.install(cupy)
    for module in (cupy, cupy.linalg, cupy.fft):
        module.__all__ = [name for name in dir(module) if not name.startswith("_") and hasattr(module, name)]
        sys.modules[module.__name__] = module
    backends.BACKENDS["standin"] = backends.BACKENDS["cupy"]  # for the tests that watch for host reads


def _cuda(device: Any) -> ModuleType:
    cuda: Any = ModuleType("cupy.cuda")
    cuda.Device, cuda.device, cuda.is_available = device, SimpleNamespace(Device=device), lambda: True
    cuda.runtime = SimpleNamespace(
        driverGetVersion=lambda: 13000,
        getDevice=lambda: device().id,
        getDeviceCount=lambda: 2,
        getDeviceProperties=lambda index: {"name": b"the CuPy stand-in"},
    )
    sys.modules |= {"cupy.cuda": cuda, "cupy.cuda.device": cuda.device}
    return cuda


install()
