import importlib
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def example(monkeypatch):
    """``example(name)`` imports a script of ``examples/`` as running it would: with that folder on the path."""
    monkeypatch.syspath_prepend(EXAMPLES)
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:  # another test may import a changed one, or one of the same name
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(EXAMPLES)):
            del sys.modules[name]


@pytest.fixture
def fetched():
    """``fetched(find, ...)`` is what ``find(...)`` returns; without the files the test is skipped and says why."""

    def get(find, *args, **kwargs):
        try:
            return find(*args, **kwargs)
        except FileNotFoundError as error:
            pytest.skip(str(error).splitlines()[0])

    return get
