"""Gives every array of CuPy an allocation of its own, whose end compute-sanitizer sees: ``-p tests.unpooled``."""

import cupy

cupy.cuda.set_allocator(None)
