"""The differentiable twin of the Array API namespace of numpy."""

import sys
from typing import Any

from .namespace import twin

sys.modules[__name__] = twin("numpy")


def __getattr__(name: str) -> Any:  # what a type checker sees of the twin
    raise AttributeError(name)
