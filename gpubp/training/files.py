"""Nets in safetensors files: their parameters and their cells."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ..device import to_numpy
from ..dtypes import bfloat16
from ..nn.parameter import check_built
from ..nn.surgery import load_state, state_of

__all__ = ["load", "save", "write_atomically"]

T = TypeVar("T")

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
    TypeError, ValueError
        If there is no array, or one of a dtype that these files cannot hold, such as complex128.
    OSError
        If the file cannot be written: no such folder, no permission, no space.
    """
    _check_name(file)
    check_built(net)
    arrays = {path: to_numpy(x) for path, x in state_of(net).items()}
    if not arrays:
        raise ValueError(f"nothing to save: {type(net).__name__} holds no arrays")
    write_atomically(file, serialized(arrays, "gpubp"))


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


# -- safetensors


def serialized(arrays: Mapping[str, Any], kind: str) -> bytes:
    """Return NumPy's arrays as the content of a safetensors file."""
    from safetensors import SafetensorError
    from safetensors.numpy import save as to_bytes

    try:
        return to_bytes({name: np.asarray(x, order="C") for name, x in arrays.items()}, metadata={"format": kind})
    except SafetensorError as error:
        raise TypeError(f"a safetensors file cannot hold this: {error}") from None


def read_arrays(file: str | os.PathLike[str]) -> tuple[dict[str, Any], str]:
    """Return the arrays of a safetensors file, and the SHA-256 of all its bytes."""
    from safetensors import SafetensorError, deserialize

    content = Path(file).read_bytes()
    try:  # the package's own function for NumPy knows no bfloat16
        found = deserialize(content)  # type: ignore[no-untyped-call]
        arrays = {name: np.frombuffer(x["data"], _dtype(x["dtype"])).reshape(x["shape"]) for name, x in found}
    except (SafetensorError, ValueError) as error:
        raise ValueError(f"{os.fspath(file)} is not a whole safetensors file: {error}") from None
    return arrays, hashlib.sha256(content).hexdigest()


def _dtype(name: str) -> Any:
    """NumPy's dtype for safetensors' name of one, such as BF16, F32, I64, U8, C64 or BOOL."""
    if name in ("BF16", "BOOL"):
        return bfloat16() if name == "BF16" else np.dtype("?")
    if not re.fullmatch("[IU](8|16|32|64)|F(16|32|64)|C64", name):
        raise ValueError(f"NumPy has no dtype for the {name} of safetensors")
    return np.dtype(f"<{name[0].lower()}{int(name[1:]) // 8}")


# -- writing


def write_atomically(file: str | os.PathLike[str], content: bytes) -> None:
    """Write a file so that at every moment, also after a crash, the old or the new one is there as a whole."""
    path = Path(file)
    remove_leftovers(path.parent, re.escape(path.name))
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(temporary, "wb") as stream:
            stream.write(content)
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
