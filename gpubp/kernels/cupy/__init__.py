"""CuPy: kernels of CUDA, each for any floating dtype.

An override takes CuPy's float16, bfloat16, float32 and float64 arrays and declines others.
"""

from . import activation, softmax, update

__all__ = ["activation", "softmax", "update"]
