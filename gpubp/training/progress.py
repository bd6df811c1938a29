"""What a run shows while it runs: a bar in a terminal or a notebook, plain lines in a file."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from typing import Any

__all__ = ["Progress"]

FORMAT = "{desc} |{bar:12}| {rate_fmt}, {remaining} left{postfix}"  #: of the bar,
NARROW = "{desc}{postfix}, {remaining} left"  #: and of what stands for it in a terminal of less than 80 columns
EVERY = 30.0  #: seconds between two plain lines, but for those of the history's rows


class Progress:
    """How far a run is, on stderr; this one shows nothing. `Progress.of` chooses.

    Parameters
    ----------
    done
        Examples that were learned from before it was resumed.
    total
        Examples of the whole run.
    """

    def __init__(self, done: int, total: int) -> None:
        self.total, self.done, self.begun = total, done, done
        self.start = time.monotonic()

    @staticmethod
    def of(shown: bool, done: int, total: int) -> Progress:
        """Return the kind that suits where stderr goes."""
        if not shown or sys.stderr is None:  # as in a Windows program without a console
            return Progress(done, total)
        return Bar(done, total) if _in_notebook() or sys.stderr.isatty() else Lines(done, total)

    def show(self, where: str, done: int, figures: Mapping[str, Any]) -> None:
        """Show how far the run is, with figures by name."""

    def row(self, where: str, done: int, figures: Mapping[str, Any]) -> None:
        """Show a row of the history."""

    def say(self, text: str) -> None:
        """Show a line of text."""

    def close(self) -> None:
        """End the display."""

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Bar(Progress):
    """A bar of tqdm: examples, examples a second, time left for the whole run, and the last figures."""

    def __init__(self, done: int, total: int) -> None:
        super().__init__(done, total)
        from tqdm.auto import tqdm

        self.known: dict[str, Any] = {}  # figures of the last row stay in sight
        columns = _columns()
        size: dict[str, Any] = {"dynamic_ncols": True} if columns else {"ncols": 120, "nrows": 20}
        look = {"unit": " samples", "unit_scale": True, "bar_format": NARROW if 0 < columns < 80 else FORMAT}
        if _in_notebook():  # where the bar is drawn, and is of any width
            look["bar_format"] = FORMAT.replace("{bar:12}", "{bar}")
        self.bar = tqdm(total=total, initial=done, file=sys.stderr, **look, **size)

    def show(self, where: str, done: int, figures: Mapping[str, Any]) -> None:
        self.known |= figures
        self.bar.set_description_str(where, refresh=False)
        self.bar.set_postfix_str(_told(self.known, "="), refresh=False)
        self.bar.update(done - self.done)
        self.done = done

    def row(self, where: str, done: int, figures: Mapping[str, Any]) -> None:
        self.show(where, done, figures)
        self.bar.refresh()

    def say(self, text: str) -> None:
        self.bar.write(text, file=sys.stderr)

    def close(self) -> None:
        self.bar.close()


class Lines(Progress):
    """Plain lines, for a log file: one for each row of the history, and between rows at most one in 30 seconds."""

    def __init__(self, done: int, total: int) -> None:
        super().__init__(done, total)
        self.last = self.start

    def show(self, where: str, done: int, figures: Mapping[str, Any]) -> None:
        if time.monotonic() - self.last >= EVERY:
            self.row(where, done, figures)

    def row(self, where: str, done: int, figures: Mapping[str, Any]) -> None:
        self.done, self.last = done, time.monotonic()
        rate = (self.done - self.begun) / max(self.last - self.start, 1e-9)
        left = "" if self.done >= self.total or not rate else f", {_time((self.total - self.done) / rate)} left"
        self.say(f"{where}: {_told(figures, ' ')}, {_short(rate)} samples/s{left}")

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)


def _in_notebook() -> bool:
    """Whether this process is a notebook's kernel, in which tqdm has widgets."""
    return "ipykernel" in sys.modules and "IPython" in sys.modules


def _columns() -> int:
    """Columns of the terminal; 0 in one that does not say, as a pseudoterminal may, where tqdm would show nothing."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns
    except (OSError, ValueError):  # no terminal, such as a notebook
        return 80


def _told(figures: Mapping[str, Any], joint: str) -> str:
    """The figures that are single numbers."""
    return ", ".join(f"{name}{joint}{x:.4g}" for name, x in figures.items() if isinstance(x, float))


def _short(x: float) -> str:
    return next((f"{x / size:.3g}{unit}" for size, unit in ((1e6, "M"), (1e3, "k")) if x >= size), f"{x:.3g}")


def _time(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
