"""The differentiable twin of the Array API namespace of array_api_strict."""

import sys
from typing import Any

from .namespace import twin

sys.modules[__name__] = twin("array_api_strict")


def __getattr__(name: str) -> Any:  # what a type checker sees of the twin
    raise AttributeError(name)
