"""Opening files that may be compressed; errors that name the file; arrays that are parts of files."""

from __future__ import annotations

import codecs
import gzip
import io
import math
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO, TypeAlias

import numpy as np

__all__ = ["LINE", "File", "mapped", "naming", "opened", "opened_text", "read_array", "undecodable"]

File: TypeAlias = str | os.PathLike[str]

LINE = 2**24  #: bytes of a line at most
_GROWTH = 1032  # how much longer data may become that are no longer compressed by deflate
_PIECE = 2**20


def opened(file: File) -> BinaryIO:
    """Open a file, compressed by gzip or not, to read bytes."""
    stream = open(file, "rb")  # noqa: SIM115
    if stream.read(2) != b"\x1f\x8b":
        stream.seek(0)
        return stream
    stream.close()
    return gzip.open(file)  # type: ignore[return-value]


def opened_text(file: File, encoding: str, newline: str | None = None) -> io.TextIOWrapper:
    """Open a file, compressed by gzip or not, to read characters; a byte order mark is none of them."""
    try:
        name = codecs.lookup(encoding).name
    except LookupError:
        raise ValueError(f"Python knows no encoding {encoding!r}") from None
    stream = opened(file)
    try:
        start = stream.read(2)
        stream.seek(0)
        if start in (b"\xff\xfe", b"\xfe\xff") and not name.startswith("utf-16"):
            raise ValueError("this is UTF-16 text: give encoding='utf-16', or save it as UTF-8")
        return io.TextIOWrapper(stream, encoding="utf-8-sig" if name == "utf-8" else name, newline=newline)
    except BaseException:
        stream.close()
        raise


def undecodable(file: File, encoding: str) -> str:
    """Say which line of a file is not in the encoding."""
    with suppress(EOFError, OSError, zlib.error), opened(file) as stream:
        for number, line in enumerate(iter(lambda: stream.readline(LINE), b""), 1):
            try:
                line.decode(encoding)
            except UnicodeError as error:
                return f"line {number} is not {encoding} text ({error}); give encoding=, such as 'latin-1'"
    return f"this is not {encoding} text"


@contextmanager
def naming(file: File) -> Iterator[None]:
    """Have the errors of what is read name the file; those of compressed data are ValueErrors then."""
    name = os.fspath(file)
    try:
        yield
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{name} is no whole compressed file: {error}") from None
    except ValueError as error:
        if str(error).startswith(name):
            raise
        raise ValueError(f"{name}: {error}") from None


def mapped(file: File, dtype: np.dtype[Any], shape: tuple[int, ...], start: int, order: Any = "C") -> np.ndarray:
    """Return the array that stands in a file from a byte on, memory-mapped and to be read only."""
    size, wanted = os.path.getsize(file), start + math.prod(shape) * dtype.itemsize
    if size < wanted:
        raise ValueError(f"an array of {dtype} of shape {shape} takes {wanted} bytes, but the file has {size}")
    if not math.prod(shape):
        return np.empty(shape, dtype)
    return np.memmap(file, dtype, "r", start, shape, order)


def read_array(stream: Any, dtype: np.dtype[Any], shape: tuple[int, ...], compressed: int) -> np.ndarray:
    """Read an array from a compressed stream, which must end with it; memory is touched as data come.

    What claims to be larger than so many compressed bytes can ever become is refused before.
    """
    wanted = math.prod(shape) * dtype.itemsize
    if wanted > compressed * _GROWTH + _PIECE:
        raise ValueError(
            f"an array of {dtype} of shape {shape} takes {wanted} bytes, more than {compressed} compressed ones hold"
        )
    array = np.empty(shape, dtype)
    space, at = array.reshape(-1).view(np.uint8).data, 0
    while at < wanted and (got := stream.readinto(space[at : at + _PIECE])):
        at += got
    if at < wanted or stream.read(1):
        raise ValueError(
            f"an array of {dtype} of shape {shape} takes {wanted} bytes, but there are {at if at < wanted else 'more'}"
        )
    return array if dtype.isnative else array.astype(dtype.type)
