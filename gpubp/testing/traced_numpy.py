"""The differentiable twin of NumPy's namespace with every array traced, for the standard's official suite.

Run the suite with ``ARRAY_API_TESTS_MODULE=gpubp.testing.traced_numpy``.
"""

import sys
from typing import Any

from ..device import namespace_by_name
from .traced import TracedNamespace

sys.modules[__name__] = TracedNamespace(__name__, namespace_by_name("numpy"))


def __getattr__(name: str) -> Any:  # what a type checker sees of the twin
    raise AttributeError(name)
