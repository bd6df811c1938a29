"""CuPy: kernels of CUDA, each for any floating dtype.

An override takes CuPy's float16, bfloat16, float32 and float64 arrays and declines others.
"""

from importlib import import_module
from pkgutil import iter_modules

__all__ = [module.name for module in iter_modules(__path__)]

for _name in __all__:
    import_module(f"{__name__}.{_name}")
