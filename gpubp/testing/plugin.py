"""The pytest plugin: ``--backends`` and the fixture ``backend``.

A test that takes the fixture ``backend`` runs once on each chosen backend (see `gpubp.testing.backends`):

- by default on NumPy, the CuPy stand-in and array-api-strict, those of them that are installed;
- with ``--backends numpy,torch,cupy`` on these, and it is an error if one of them cannot be used;
- with ``--backends all`` on every backend that can be used here.

Such tests bear the mark ``backends``: ``-m backends --backends torch`` runs these alone. The summary at the end says
which backends were left out, and why. pytest loads this module in every run once gpubp is installed, so it imports
nothing before it must.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from .backends import Backend

__all__ = ["DEFAULT"]

#: The backends that tests run on by default.
DEFAULT: Final = ("numpy", "standin", "array_api_strict")


class _Choice:
    """The backends of this run."""

    def __init__(self, chosen: list[str], left_out: dict[str, str]) -> None:
        self.chosen = chosen
        self.left_out = left_out
        self.used = False


def _fixture_over(choice: _Choice) -> object:
    """Return a plugin that holds the fixture: pytest looks for fixtures in the class of a plugin."""

    class Fixture:
        @pytest.fixture(params=choice.chosen, scope="session")
        @classmethod
        def backend(cls, request: pytest.FixtureRequest) -> Backend:
            """Return each chosen backend in turn: an array library to test on."""
            from .backends import load

            choice.used = True
            return load(request.param)

    return Fixture()


_CHOICE: Final = pytest.StashKey[_Choice]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--backends``."""
    parser.getgroup("gpubp").addoption(
        "--backends",
        metavar="NAMES",
        help="array libraries that the fixture `backend` stands for, such as numpy,standin,array_api_strict,torch,"
        f"jax,cupy, or all that can be used (default: {','.join(DEFAULT)})",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Choose the backends and offer the fixture over them."""
    choice = _choose(config.getoption("--backends"))
    config.stash[_CHOICE] = choice
    config.pluginmanager.register(_fixture_over(choice), "gpubp-backends")
    config.addinivalue_line("markers", "backends: takes the fixture `backend` (the mark is set by gpubp's plugin)")


def _choose(asked: str | None) -> _Choice:
    if asked is None:
        missing = {name: f"{name} is not installed" for name in DEFAULT[2:] if find_spec(name) is None}
        return _Choice([name for name in DEFAULT if name not in missing], missing)

    from .backends import BACKENDS, why_missing

    names = list(BACKENDS) if asked == "all" else [name.strip() for name in asked.split(",")]
    if unknown := [name for name in names if name not in BACKENDS]:
        raise pytest.UsageError(f"--backends: no backend is called {unknown[0]!r}; there are {', '.join(BACKENDS)}")
    missing = {name: why for name in names if (why := why_missing(name)) is not None}
    if missing and asked != "all":
        raise pytest.UsageError("\n".join(f"--backends: {name} cannot be used: {why}" for name, why in missing.items()))
    return _Choice([name for name in names if name not in missing], missing)


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that take the fixture."""
    for item in items:
        if "backend" in getattr(item, "fixturenames", ()):
            item.add_marker("backends")


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Say which backends were asked for."""
    return [] if config.getoption("--backends") is None else _lines(config.stash[_CHOICE])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say which backends the tests ran on and which were left out, if any test took the fixture."""
    choice = config.stash[_CHOICE]
    if choice.used:
        for line in _lines(choice):
            terminalreporter.write_line(line)


def _lines(choice: _Choice) -> list[str]:
    lines = [f"backends: {', '.join(choice.chosen)}"]
    lines += [f"backend left out: {name}: {why}" for name, why in choice.left_out.items()]
    if not_asked := _others(choice):
        lines.append(f"backends not asked for (--backends): {', '.join(not_asked)}")
    return lines


def _others(choice: _Choice) -> list[str]:
    from .backends import BACKENDS

    return [name for name in BACKENDS if name not in choice.chosen and name not in choice.left_out]


# With pytest-xdist the tests run in workers, and only the process that started them prints.


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Let the process that prints know that a test of this worker took the fixture."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["gpubp_backends_used"] = session.config.stash[_CHOICE].used


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: Any) -> None:
    """Hear of it."""
    if getattr(node, "workeroutput", {}).get("gpubp_backends_used"):
        node.config.stash[_CHOICE].used = True
