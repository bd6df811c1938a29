"""Nets in safetensors files: their parameters and their cells."""

from __future__ import annotations

import os
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
    found = arrays_in(Path(file).read_bytes(), os.fspath(file))
    if any(name.startswith("net/") for name in found):
        found = {name.removeprefix("net/"): x for name, x in found.items() if name.startswith("net/")}
    load_state(net, found, os.fspath(file), "file")
    return net


def serialized(arrays: dict[str, Any], kind: str) -> bytes:
    """Return NumPy's arrays as the content of a safetensors file."""
    from safetensors.numpy import save as to_bytes

    return to_bytes({name: x.copy(order="C") for name, x in arrays.items()}, metadata={"format": kind})


def arrays_in(content: bytes, name: str) -> dict[str, Any]:
    """Return the arrays of a safetensors file. The package's own function for NumPy knows no bfloat16."""
    from safetensors import SafetensorError, deserialize

    try:
        found = deserialize(content)  # type: ignore[no-untyped-call]
    except SafetensorError as error:
        raise ValueError(f"{name} is not a whole safetensors file: {error}") from error
    return {name: np.frombuffer(x["data"], _dtype(x["dtype"])).reshape(x["shape"]) for name, x in found}


def _dtype(name: str) -> Any:
    """NumPy's dtype for safetensors' name of one, such as BF16, F32, I64, U8, C64 or BOOL."""
    if name == "BF16":
        return bfloat16()
    try:
        return np.dtype("?" if name == "BOOL" else f"<{name[0].lower()}{int(name[1:]) // 8}")
    except (TypeError, ValueError):
        raise ValueError(f"NumPy has no dtype for the {name} of safetensors") from None


def _check_name(file: Any) -> None:
    if not isinstance(file, str | os.PathLike):
        raise TypeError(
            f"expected the name of a file, got {type(file).__name__}; it is save(net, file) and load(file, net)"
        )


def write_atomically(file: str | os.PathLike[str], content: bytes) -> None:
    """Write a file so that at every moment, also after a crash, the old or the new one is there as a whole."""
    path = Path(file)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(temporary, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and error.errno is not None:  # it names the temporary file, or none
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise
    if os.name == "posix":  # the move itself must reach the disk too
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
