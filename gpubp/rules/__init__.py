"""The derivative of every function of the standard, one file a chapter."""

from functools import cache
from importlib import import_module

from .registry import RULES, Rule

CHAPTERS = (
    "creation",
    "elementwise",
    "fft",
    "indexing",
    "linear_algebra",
    "manipulation",
    "sorting_searching",
    "statistical",
)


@cache
def all_rules() -> dict[str, Rule]:
    """The registry, with every chapter in it: they are imported when a twin is first used."""
    for chapter in CHAPTERS:
        import_module(f".{chapter}", __name__)
    return RULES
