"""The proof kit: checks of gradients and of agreement between backends, for the library's code and for yours."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import backends as backends
    from . import standin as standin
    from . import strategies as strategies
    from .catalogue import CATALOGUE as CATALOGUE
    from .catalogue import Record as Record
    from .catalogue import Sample as Sample
    from .catalogue import record as record
    from .gradients import check_grads as check_grads
    from .parity import assert_parity as assert_parity

_HOMES = {
    "check_grads": "gradients",
    "assert_parity": "parity",
    "CATALOGUE": "catalogue",
    "Record": "catalogue",
    "Sample": "catalogue",
    "record": "catalogue",
}
_MODULES = ("backends", "standin", "strategies")
__all__ = [*_HOMES, *_MODULES]


def __getattr__(name: str) -> Any:  # on first use: the catalogue is large, and strategies need Hypothesis
    if name in _MODULES:
        return import_module(f".{name}", __name__)
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
