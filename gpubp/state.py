"""Cells: arrays that a net carries along and changes, but does not learn, such as running statistics and counters."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .array import strip


class _Thread(threading.local):
    def __init__(self) -> None:
        self.runs: list[_Run] = []
        self.written: dict[State, Any] | None = None


class _Run:
    """A call whose reads of cells are remembered, or come from such a memory."""

    def __init__(self, reads: list[Any] | None = None) -> None:
        self.reads: list[Any] = [] if reads is None else reads
        self.next = None if reads is None else iter(reads)  # where reads come from, in a repetition


_thread = _Thread()


class State:
    """A cell that holds an array and is shared by reference between a net and the copies that transforms make of it.

    What is read is a constant of every transform; what is written loses its gradient. While `gpubp.checkpoint` computes
    a call again, reads give what they gave the first time and writes are left out. Moving, casting, copying, saving
    and loading a net take its cells along.

    Parameters
    ----------
    value
        An array, or a `gpubp.nn.Parameter` that the net draws when it is built.

    Attributes
    ----------
    value : array
        What the cell holds. It is replaced, never changed in place.

    Examples
    --------
    >>> class Counting(nn.Layer):
    ...     def __init__(self):
    ...         self.calls = nn.State(np.zeros((), dtype="int64"))
    ...
    ...     def __call__(self, x):
    ...         self.calls.value = self.calls.value + 1
    ...         return x
    >>> layer = Counting()
    >>> _ = bp.grad(lambda x: np.sum(layer(x)))(np.ones(3))
    >>> int(layer.calls.value)
    1
    """

    __slots__ = ("held",)

    def __init__(self, value: Any) -> None:
        self.held = value

    @property
    def value(self) -> Any:
        runs = _thread.runs
        if not runs:
            return self.held
        k = next((k for k in reversed(range(len(runs))) if runs[k].next is not None), -1)
        try:
            value = self.held if k < 0 else next(runs[k].next)  # type: ignore[arg-type]
        except StopIteration:
            raise RuntimeError("a checkpointed function read other cells when it was computed again") from None
        for run in runs[k + 1 :]:
            run.reads.append(value)
        return value

    @value.setter
    def value(self, new: Any) -> None:
        if not any(run.next is not None for run in _thread.runs):
            if _thread.written is not None:
                _thread.written.setdefault(self, self.held)
            self.held = strip(new)

    def __repr__(self) -> str:
        return f"State({self.held!r})"


@contextmanager
def remembered(reads: list[Any] | None = None) -> Iterator[list[Any]]:
    """Remember what is read from cells in a block; or, given what was remembered, repeat the block."""
    run = _Run(reads)
    _thread.runs.append(run)
    try:
        yield run.reads
    finally:
        _thread.runs.remove(run)


@contextmanager
def writes() -> Iterator[dict[State, Any]]:
    """Note the cells that are written to in a block, with what they held before."""
    outer, _thread.written = _thread.written, {}
    try:
        yield _thread.written
    finally:
        _thread.written = outer
