"""Nets in safetensors files: their parameters and their cells."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np

from ..device import to_numpy
from ..dtypes import bfloat16
from ..nn.parameter import check_built
from ..nn.surgery import load_state, state_of

__all__ = ["load", "save", "write_atomically"]

T = TypeVar("T")

MOST_HEADER = 100_000_000  #: bytes, as in the format's own reader
NUMBERS = "[IU](8|16|32|64)|F(16|32|64)|C(64|128)"  #: dtypes
OLD = 86400.0  #: seconds after which nobody is still writing a temporary file


def save(net: Any, file: str | os.PathLike[str]) -> None:
    """Write the arrays of a net (its cells too), or of any tree, to a safetensors file under their paths.

    The file is complete or not there: it takes the place of an older one in one move, which stays whole until then. An
    array that stands in several places is written once, under its first path.

    Parameters
    ----------
    net
        A built net, or a tree of arrays of any library.
    file
        Name of the file; by custom it ends in ``.safetensors``.

    Raises
    ------
    ValueError
        If there is no array.
    OSError
        If the file cannot be written: no such folder, no permission, no space.
    """
    _check_name(file)
    check_built(net)
    arrays = {path: to_numpy(x) for path, x in state_of(net).items()}
    if not arrays:
        raise ValueError(f"nothing to save: {type(net).__name__} holds no arrays")
    write_atomically(file, in_pieces(arrays, "gpubp"))


def load(file: str | os.PathLike[str], net: T) -> T:
    """Put the arrays of a file that `save` wrote in the places of a net's, on the device where those are.

    It may be the file of a checkpoint too, of which the net is loaded.

    Parameters
    ----------
    file
        Name of the file.
    net
        A built net of the same structure; it is changed, or, where anything differs, left as it is.

    Returns
    -------
    net
        The same net.

    Raises
    ------
    ValueError
        If paths, shapes or dtypes differ; the message names all that do. Or if this is no safetensors file.
    """
    _check_name(file)
    check_built(net)
    found, _ = read_arrays(file)
    if any(name.startswith("net/") for name in found):
        found = {name.removeprefix("net/"): x for name, x in found.items() if name.startswith("net/")}
    load_state(net, found, os.fspath(file), "file")
    return net


def _check_name(file: Any) -> None:
    if not isinstance(file, str | os.PathLike):
        raise TypeError(
            f"expected the name of a file, got {type(file).__name__}; it is save(net, file) and load(file, net)"
        )


# -- safetensors: the length of a header, the header in JSON, the bytes of the arrays one after another. Written and
# read piece by piece here: the package of that name makes copies of all, and for NumPy it knows no bfloat16.


def in_pieces(arrays: Mapping[str, Any], kind: str) -> list[Any]:
    """Return NumPy's arrays as the pieces of a safetensors file, without copies of those that are contiguous."""
    header: dict[str, Any] = {"__metadata__": {"format": kind}}
    pieces: list[Any] = []
    end = 0
    for name, x in sorted(arrays.items(), key=lambda item: -item[1].dtype.itemsize):  # so each stands at its multiple
        start, end = end, end + x.nbytes
        header[name] = {"dtype": _name(x.dtype), "shape": list(x.shape), "data_offsets": [start, end]}
        pieces.append(_bytes_of(np.asarray(x, x.dtype.newbyteorder("<"), order="C")))
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return [len(text).to_bytes(8, "little") + text, *pieces]


def read_arrays(file: str | os.PathLike[str]) -> tuple[dict[str, Any], str]:
    """Return the arrays of a safetensors file, and the SHA-256 of all its bytes.

    Nothing is set aside before it is known that the file is as large as its header says.
    """
    with open(file, "rb") as stream:
        try:
            return _read(stream, os.fstat(stream.fileno()).st_size)
        except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
            raise ValueError(f"{os.fspath(file)} is not a whole safetensors file: {error}") from None


def _read(stream: BinaryIO, size: int) -> tuple[dict[str, Any], str]:
    first = stream.read(8)
    length = int.from_bytes(first, "little")
    if size < 8 + length or length > MOST_HEADER:
        raise ValueError(f"it has {size} bytes, and a header of {length}")
    text = stream.read(length)
    header = json.loads(text)
    header.pop("__metadata__", None)
    digest = hashlib.sha256(first + text)
    places = sorted((_place(name, entry) for name, entry in header.items()), key=lambda place: place[:2])
    end = 0
    for start, stop, name, _, _ in places:
        if start != end:
            raise ValueError(f"{name} begins at byte {start}, where {end} is expected")
        end = stop
    if size != 8 + length + end:
        raise ValueError(f"it has {size} bytes, and should have {8 + length + end}")
    arrays = {}
    for start, stop, name, dtype, shape in places:
        arrays[name] = x = np.empty(shape, dtype)
        if stream.readinto(_bytes_of(x)) != stop - start:  # type: ignore[attr-defined]
            raise ValueError("it has become shorter while it was read")
        digest.update(_bytes_of(x))
    return arrays, digest.hexdigest()


def _place(name: str, entry: dict[str, Any]) -> tuple[int, int, str, Any, list[int]]:
    """Where an array begins and ends, its name, dtype and shape; place and size agree."""
    (start, stop), shape, dtype = entry["data_offsets"], entry["shape"], _dtype(entry["dtype"])
    if len(shape) > 64 or not all(type(n) is int and 0 <= n < 1 << 63 for n in (start, stop, *shape)):
        raise ValueError(f"{name} has no shape or place that an array can have")
    if stop - start != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{name} has {stop - start} bytes, which are no {dtype}{shape}")
    return start, stop, name, dtype, shape


def _bytes_of(x: Any) -> memoryview:
    """The bytes of a contiguous array."""
    return memoryview(x.reshape(-1).view(np.uint8))


def _name(dtype: Any) -> str:
    """Safetensors' name of a dtype of NumPy, such as BF16, F32, I64, U8, C64 or BOOL; by the same rule, C128."""
    if dtype.name in ("bool", "bfloat16"):
        return {"bool": "BOOL", "bfloat16": "BF16"}[dtype.name]
    name = f"{dtype.kind.upper()}{8 * dtype.itemsize}"
    if not re.fullmatch(NUMBERS, name):
        raise TypeError(f"safetensors files hold numbers of the common sizes, not {dtype}")
    return name


def _dtype(name: Any) -> Any:
    if name == "BF16":
        return bfloat16()
    if name == "BOOL":
        return np.dtype("?")
    if not re.fullmatch(NUMBERS, name):
        raise ValueError(f"NumPy has no dtype for the {name} of safetensors")
    return np.dtype(f"<{name[0].lower()}{int(name[1:]) // 8}")


# -- writing


def write_atomically(file: str | os.PathLike[str], content: bytes | Sequence[Any]) -> None:
    """Write a file so that at every moment, also after a crash, the old or the new one is there as a whole.

    Parameters
    ----------
    file
        Its name.
    content
        Bytes, or pieces of them.

    Raises
    ------
    OSError
        If it cannot be written; the old one is still there.
    """
    path = Path(file)
    pieces: Sequence[Any] = [content] if isinstance(content, bytes) else content
    remove_leftovers(path.parent, re.escape(path.name))
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(temporary, "wb") as stream:
            for piece in pieces:
                stream.write(piece)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and error.errno is not None:  # it names the temporary file, or none
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise


def _sync_folder(folder: Path) -> None:
    """See that a move in it reaches the disk, if the file system can say so."""
    if os.name != "posix":
        return
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(number)


def remove_leftovers(folder: Path, names: str) -> None:
    """Remove what processes that were killed have left of files whose names match: in theirs is their number.

    One with the number of this process is from an earlier one.
    """
    with suppress(OSError):
        for file in list(folder.iterdir()):
            found = re.fullmatch(rf"\.{names}\.([0-9]+)\.part", file.name)
            if found and not (_is_running(int(found[1])) and time.time() - file.stat().st_mtime < OLD):
                file.unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    """Whether another process of that number may be running."""
    if os.name != "posix":  # where os.kill would end it
        return process != os.getpid()
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return process != os.getpid()
