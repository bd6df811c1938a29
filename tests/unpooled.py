"""Every array of CuPy an allocation of its own, so that compute-sanitizer sees where one ends: ``-p tests.unpooled``."""

import cupy

cupy.cuda.set_allocator(None)
