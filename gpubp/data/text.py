"""Text as characters by number, also of files larger than memory."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import numpy as np

from .checks import check_at_least
from .opening import File, naming, opened_text, undecodable
from .tables import Store

__all__ = ["Text", "Windows", "text"]

_PIECE = 2**20


class Text:
    """A text as the numbers of its characters.

    Parameters
    ----------
    ids
        The numbers, of shape (n,): in memory, or memory-mapped.
    characters
        The different characters in order; number k stands for ``characters[k]``.
    """

    def __init__(self, ids: np.ndarray, characters: str) -> None:
        self.ids, self.characters = ids, characters

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        return f"Text({len(self)} characters, {len(self.characters)} different)"

    def encode(self, string: str) -> np.ndarray:
        """Return the numbers of a string's characters, int64; a ValueError names one that is not among them."""
        if unknown := set(string) - set(self.characters):
            raise ValueError(f"the character {min(unknown)!r} is not among the {len(self.characters)} of the text")
        return _numbers(string, _points(self.characters)).astype(np.int64)

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """Return the string of some numbers; a ValueError names one that stands for no character."""
        numbers = np.asarray(ids, np.int64)
        if numbers.size and not (numbers.min() >= 0 and numbers.max() < len(self.characters)):
            raise ValueError(
                f"characters have numbers from 0 to {len(self.characters) - 1}, got {numbers.min()} to {numbers.max()}"
            )
        return "".join(self.characters[k] for k in numbers.tolist())

    def windows(
        self, length: int, *, step: int | None = None, start: int = 0, stop: int | None = None
    ) -> tuple[Windows, Windows]:
        """Return inputs and targets to learn the next character from those before it.

        Parameters
        ----------
        length
            Characters of a window.
        step
            From the beginning of a window to that of the next; by default `length`, so that they do not overlap.
        start, stop
            The part of the text they are from, as in a slice, so that another part can be held out.

        Returns
        -------
        pair of Windows
            Sources of shape (windows, length); the second is one character ahead of the first.

        Raises
        ------
        ValueError
            If the part has no window of this length and a character more.
        """
        step = length if step is None else step
        check_at_least(1, "length", length)
        check_at_least(1, "step", step)
        ids = self.ids[start:stop]
        if len(ids) <= length:
            raise ValueError(f"{len(ids)} characters have no window of {length} and a character more")
        return Windows(ids[:-1], length, step), Windows(ids[1:], length, step)


class Windows:
    """A source of pieces of a text: int64 of shape (n, length).

    Parameters
    ----------
    ids
        Numbers of characters.
    length, step
        Of a piece, and to the next.
    """

    ndim, dtype = 2, np.dtype(np.int64)

    def __init__(self, ids: np.ndarray, length: int, step: int) -> None:
        self._ids, self._step = ids, step
        self.shape = ((len(ids) - length) // step + 1, length)

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"Windows(shape={self.shape})"

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Return these windows."""
        places = np.asarray(rows)[:, None] * self._step + np.arange(self.shape[1])
        return self._ids[places].astype(np.int64)


def text(
    file: File | Sequence[File], *, encoding: str = "utf-8", characters: str | None = None, memory: int = 2**28
) -> Text:
    """Read a text file, or several one after another, compressed by gzip or not, as numbers of its characters.

    Parameters
    ----------
    file
        Name of the file, or a sequence of names.
    encoding
        Of the characters.
    characters
        The characters that are numbered, such as those of an earlier text; by default those that there are.
    memory
        Bytes up to which the numbers are kept in memory. More go to a temporary file that is memory-mapped.

    Returns
    -------
    Text

    Raises
    ------
    ValueError
        If the text is empty, is not in this encoding, or holds a character that is not among those given.
    OSError
        If a file cannot be read.
    """
    files = [file] if isinstance(file, str | os.PathLike) else list(file)
    if characters is None:
        found: set[str] = set()
        for piece in _pieces(files, encoding):
            found.update(piece)
        characters = "".join(sorted(found))
    if list(characters) != sorted(set(characters)):
        raise ValueError(f"characters must be different and in order, got {characters!r}")
    points, store = _points(characters), Store(np.min_scalar_type(len(characters)), memory, None)
    for piece in _pieces(files, encoding):
        if unknown := set(piece) - set(characters):
            raise ValueError(f"{_named(files)}: the character {min(unknown)!r} is not among those given")
        store.append([_numbers(piece, points)], len(piece))
    ids = store.array()
    if not len(ids):
        raise ValueError(f"there is no text in {_named(files)}")
    return Text(ids[:, 0], characters)


def _pieces(files: Sequence[File], encoding: str) -> Iterator[str]:
    for file in files:
        with naming(file), opened_text(file, encoding) as stream:
            try:
                while piece := stream.read(_PIECE):
                    yield piece
            except UnicodeError:
                raise ValueError(undecodable(file, encoding)) from None


def _named(files: Sequence[File]) -> str:
    return ", ".join(os.fspath(file) for file in files[:3]) + (", ..." if len(files) > 3 else "") or "no file"


def _points(characters: str) -> np.ndarray:
    return np.frombuffer(characters.encode("utf-32-le", "surrogatepass"), np.uint32)


def _numbers(string: str, points: np.ndarray) -> np.ndarray:
    return np.searchsorted(points, _points(string))
