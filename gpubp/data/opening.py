"""Opening files that may be compressed; errors that name the file; arrays that are parts of files."""

from __future__ import annotations

import gzip
import math
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, TypeAlias

import numpy as np

__all__ = ["File", "mapped", "naming", "opened", "read_array"]

File: TypeAlias = str | os.PathLike[str]

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
    return array
