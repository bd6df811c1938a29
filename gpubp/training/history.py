"""What a run has found, and where something was not finite."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

__all__ = ["History", "NotFinite", "Place"]


class Place(NamedTuple):
    """A step of a run, and what it was to learn from."""

    epoch: int  #: from 1
    step: int  #: from 1, of the whole run
    rows: list[int]  #: of the training data, in the step's batches

    def __str__(self) -> str:
        more = ", ..." if len(self.rows) > 16 else ""
        return f"step {self.step}, in epoch {self.epoch}, with the rows {', '.join(map(str, self.rows[:16]))}{more}"


class NotFinite(FloatingPointError):
    """A loss or a gradient is not finite; the net has the values that it had before that step.

    Attributes
    ----------
    place : Place
        The step, and the rows of the training data that it was to learn from.
    """

    def __init__(self, message: str, place: Place) -> None:
        super().__init__(message)
        self.place = place


class History(list[dict[str, Any]]):
    """The rows of a run, each a dict of figures by name, and how it ended.

    Attributes
    ----------
    interrupted : bool
        Whether Ctrl-C ended the run.
    stopped : str or None
        Why a callback ended it.
    skipped : int
        How many steps were skipped, since something was not finite.
    skips : list of Place
        Where, of the first `KEPT` of them.
    """

    KEPT = 32

    def __init__(self, rows: Iterable[dict[str, Any]] = ()) -> None:
        super().__init__(rows)
        self.interrupted = False
        self.stopped: str | None = None
        self.skipped = 0
        self.skips: list[Place] = []
