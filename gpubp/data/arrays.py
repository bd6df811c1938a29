"""Arrays in files: IDX, .npy and .npz; what is not compressed is memory-mapped and never read as a whole."""

from __future__ import annotations

import gzip
import io
import os
import struct
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from .opening import File, mapped, naming, opened, read_array

__all__ = ["Npz", "idx", "npy", "npz"]

_HEADER = 10_000  # bytes, the most that NumPy reads
_IDX = {8: "u1", 9: "i1", 11: "i2", 12: "i4", 13: "f4", 14: "f8"}


def idx(file: File) -> np.ndarray:
    """Read an array from an IDX file, as those of MNIST are, compressed by gzip or not.

    Parameters
    ----------
    file
        Name of the file.

    Returns
    -------
    ndarray
        Of one-byte numbers that are not compressed: a memory-mapped array, to be read only.

    Raises
    ------
    ValueError
        If it is no whole IDX file, or longer than it says.
    OSError
        If the file cannot be read.

    Notes
    -----
    The format is described with Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits".
    """
    with naming(file), opened(file) as stream:
        magic = stream.read(4)
        if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _IDX or not magic[3]:
            raise ValueError(f"this is no IDX file, which begins with 0, 0, a type and a rank: it does with {magic!r}")
        sizes = stream.read(4 * magic[3])
        if len(sizes) < 4 * magic[3]:
            raise ValueError(f"this IDX file ends before the {magic[3]} sizes that it should begin with")
        shape = struct.unpack(f">{magic[3]}I", sizes)
        dtype = np.dtype(">" + _IDX[magic[2]])
        size = os.path.getsize(file)
        if isinstance(stream, gzip.GzipFile):
            array = read_array(stream, dtype, shape, size)
        else:
            array = mapped(file, dtype, shape, stream.tell())
            if (rest := size - stream.tell() - array.nbytes) > 0:
                raise ValueError(f"after an array of {dtype} of shape {shape} there are {rest} bytes more")
        return array if dtype.isnative else np.array(array, dtype.type)


def npy(file: File) -> np.ndarray:
    """Map the array of an ``.npy`` file.

    Parameters
    ----------
    file
        Name of the file.

    Returns
    -------
    ndarray
        A memory-mapped array, to be read only.

    Raises
    ------
    ValueError
        If it is no whole ``.npy`` file of numbers. Objects, which would have to be unpickled, are never read.
    OSError
        If the file cannot be read.
    """
    with naming(file), open(file, "rb") as stream:
        dtype, shape, order = _header(stream)
        return mapped(file, dtype, shape, stream.tell(), order)


def npz(file: File) -> Npz:
    """Open an ``.npz`` file, as ``np.savez`` writes, without reading its arrays.

    Parameters
    ----------
    file
        Name of the file.

    Returns
    -------
    Npz
        A mapping from names to arrays.

    Raises
    ------
    ValueError
        If it is no whole ``.npz`` file; when an array is asked for, also if that is not one of numbers.
    OSError
        If the file cannot be read.
    """
    return Npz(file)


class Npz(Mapping[str, np.ndarray]):
    """The arrays of an ``.npz`` file: ``npz(file)["x"]`` maps an array, or reads it if it is compressed.

    Parameters
    ----------
    file
        Name of the file.
    """

    def __init__(self, file: File) -> None:
        self.file = os.fspath(file)
        with self._archive() as archive:
            self._members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}

    @contextmanager
    def _archive(self) -> Iterator[zipfile.ZipFile]:
        with naming(self.file):
            try:
                with zipfile.ZipFile(self.file) as archive:
                    yield archive
            except (zipfile.BadZipFile, NotImplementedError, RuntimeError, struct.error) as error:
                raise ValueError(f"this is no whole .npz file: {error}") from None
            except OSError as error:
                if error.filename is not None:
                    raise
                raise ValueError(f"this is no whole .npz file: {error}") from None  # which asks for impossible places

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __repr__(self) -> str:
        return f"Npz({self.file!r}: {', '.join(self)})"

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._members:
            raise KeyError(f"{self.file} holds no array {name!r}; there are {', '.join(self) or 'none'}")
        info = self._members[name]
        with self._archive() as archive, archive.open(info) as stream:
            dtype, shape, order = _header(stream)
            if info.compress_type == zipfile.ZIP_STORED:
                with open(self.file, "rb") as whole:
                    whole.seek(info.header_offset + 26)  # where the lengths of two further parts of the header stand
                    start = info.header_offset + 30 + sum(struct.unpack("<2H", whole.read(4))) + stream.tell()
                return mapped(self.file, dtype, shape, start, order)
            array = read_array(stream, dtype, shape if order == "C" else shape[::-1], info.compress_size)
            return array if order == "C" else array.T


def _header(stream: Any) -> tuple[np.dtype[Any], tuple[int, ...], str]:
    """Read what stands before the data of an array: dtype, shape and order."""
    start = stream.read(12)
    is_first = start[6:7] == b"\1"  # version, whose length of the header has two bytes
    length = int.from_bytes(start[8 : 10 if is_first else 12], "little")
    if length > _HEADER:
        raise ValueError(f"this is no .npy file: its header claims to have {length} bytes")
    header = io.BytesIO(start + stream.read(max(0, length - 2 * is_first)))
    try:
        version = np.lib.format.read_magic(header)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, is_fortran, dtype = read(header)
    except Exception as error:  # NumPy evaluates the header as Python's literals, with many a way to fail
        raise ValueError(f"this is no .npy file: {error}") from None
    if dtype.kind not in "?biufc":
        raise ValueError(f"an array of numbers is expected, but this is one of {dtype}")
    if any(size < 0 for size in shape):
        raise ValueError(f"an array cannot have the shape {shape}")
    return dtype, shape, "F" if is_fortran else "C"
