"""What can go wrong, and the exit status that says so to a script."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["FAILED", "INTERRUPTED", "OK", "WRONG", "BadInput", "Failure", "mistakes", "told"]

OK, FAILED, WRONG, INTERRUPTED = 0, 1, 2, 130


class BadInput(Exception):
    """What the user gave cannot be: one line to stderr, status 2."""


class Failure(Exception):
    """The run did not come to its end, for no fault of its arguments: one line to stderr, status 1."""


@contextmanager
def mistakes(what: str = "") -> Iterator[None]:
    """Take the library's errors about what it was given for the user's, such as of a file that is no table."""
    try:
        yield
    except (ImportError, OSError, ValueError) as error:
        raise BadInput(what + told(error)) from error


def told(error: BaseException) -> str:
    """Return an error's message; of an OSError the name of its file, and what is the matter."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error) or type(error).__name__
