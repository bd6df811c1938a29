"""Files that `torch.save` wrote, read without PyTorch and without executing anything."""

from __future__ import annotations

import io
import os
import struct
import sys
import zipfile
from typing import IO, Any, NamedTuple

import numpy as np

from .pickles import Function, NotPlain, as_dict, check_plain, clipped, read_pickle

__all__ = ["read_torch_file"]

_LEGACY_MAGIC, _LEGACY_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
#: The longest pickle that is read; that of a model's weights takes about a hundred bytes for each tensor.
_LONGEST_PICKLE = 16 * 2**20
_CHUNK = 2**20

# What a storage holds: the dtype in the file, of the byte order to come, and that of the array.
_DTYPES = {name: (name, name) for name in (
    "bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64",
    "float16", "float32", "float64", "complex64", "complex128",
)} | {"bfloat16": ("uint16", "float32")}  # fmt: skip
_STORAGES = {
    "BoolStorage": "bool", "ByteStorage": "uint8", "CharStorage": "int8", "ShortStorage": "int16",
    "IntStorage": "int32", "LongStorage": "int64", "HalfStorage": "float16", "BFloat16Storage": "bfloat16",
    "FloatStorage": "float32", "DoubleStorage": "float64", "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
}  # fmt: skip
#: By their stand-ins, the dtypes that storages of bytes are read as.
_WITHOUT_STORAGE = {f"torch.{name}": name for name in _DTYPES if name not in ("bool", "bfloat16")}
_LEAF = (np.ndarray, str, bytes, int, float, complex, bool, type(None))


def read_torch_file(file: str | os.PathLike[str]) -> Any:
    """Read a file that PyTorch's ``torch.save`` wrote, ``.pth`` or ``.pt``, of the zip format or the older one.

    PyTorch is not needed, and nothing in the file is executed: it is read as data, and a file that asks for more is
    refused, whatever it asks for. Memory is taken for what is in the file, never for what it claims to hold; its pickle
    may have 16 MiB and 2,000,000 instructions (a model's has about forty for each tensor).

    Parameters
    ----------
    file
        Name of the file.

    Returns
    -------
    dict
        Of a model's ``state_dict()``: its tensors as NumPy arrays by name, in their order. Of any other plain content
        that: tensors and parameters are arrays; dicts (ordered ones too), lists, tuples (``torch.Size`` too), numbers,
        strings, bytes and None are themselves; dtypes and devices are strings such as ``"torch.float32"``, ``"cpu"``.
        Arrays have the dtypes of the tensors, but bfloat16, which NumPy lacks, is widened to float32, exactly.
        Arrays share memory where tensors shared a storage, and one tensor that stands in several places is one array.

    Raises
    ------
    ValueError
        If this is no such file, is damaged or cut short, or holds what is not plain data, such as a whole module: then
        save ``model.state_dict()`` instead. Sparse, quantized and 8-bit floating-point tensors are not supported.
    OSError
        If the file cannot be read.

    Notes
    -----
    The zip format has a checksum for each storage, which is compared; in the older one a changed value goes unnoticed.
    """
    if not isinstance(file, str | os.PathLike):
        raise TypeError(f"expected the name of a file, got {type(file).__name__}")
    with open(file, "rb") as stream:
        try:
            content = _read(stream, os.fstat(stream.fileno()).st_size)
            check_plain(content, _LEAF)
        except NotPlain as error:
            raise ValueError(
                f"{os.fspath(file)} is not read: {error}. It was not executed. If it holds a whole module, or other "
                "objects, save the tensors alone, in PyTorch: torch.save(model.state_dict(), file)"
            ) from None
        except (ValueError, OverflowError) as error:
            raise ValueError(f"{os.fspath(file)} cannot be read as a PyTorch file: {error}") from error
    return content


def _read(stream: IO[bytes], size: int) -> Any:
    start = stream.read(262)
    stream.seek(0)
    if start.startswith(b"PK\x03\x04"):
        return _read_zip(stream, size)
    if start.endswith(b"ustar"):
        raise ValueError("it is of a format that PyTorch left in 2017 (a tar archive)")
    return _read_legacy(stream, size)


# -- the zip format: NAME/data.pkl, NAME/byteorder, and a member NAME/data/KEY for each storage, not compressed


def _read_zip(stream: IO[bytes], size: int) -> Any:
    try:
        with zipfile.ZipFile(stream) as archive:
            return _read_archive(archive, size)
    except (zipfile.BadZipFile, RuntimeError, EOFError, OSError, struct.error, IndexError) as error:
        raise ValueError(f"its zip archive is damaged: {clipped(error)}") from error


def _read_archive(archive: zipfile.ZipFile, size: int) -> Any:
    members = {info.filename: info for info in archive.infolist()}
    prefixes = {name.split("/")[0] for name in members if name.count("/") == 1 and name.endswith("/data.pkl")}
    if len(prefixes) != 1:
        raise ValueError("it is a zip archive without PyTorch's member data.pkl")
    (prefix,) = prefixes
    if f"{prefix}/constants.pkl" in members:
        raise ValueError(
            "it is a TorchScript archive, a program; save the tensors alone, in PyTorch: "
            "torch.save(torch.jit.load(file).state_dict(), other_file)"
        )

    def member(name: str, length: int | None, most: int) -> IO[bytes]:
        info = members.get(f"{prefix}/{name}")
        if info is None:
            raise ValueError(f"its member {clipped(name)} is missing")
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
            raise ValueError(f"its member {clipped(name)} is compressed, as PyTorch never does")
        if info.file_size > most or (length is not None and info.file_size != length):
            expected = f"at most {most}" if length is None else length
            raise ValueError(f"its member {clipped(name)} has {info.file_size} bytes, expected {expected}")
        return archive.open(info)

    order = "little"
    if f"{prefix}/byteorder" in members:
        with member("byteorder", None, 6) as mark:
            order = mark.read().decode("ascii")
        if order not in ("little", "big"):
            raise ValueError(f"its byte order is {clipped(order)}, expected little or big")
    storages = _Storages(size, order)
    with member("data.pkl", None, _LONGEST_PICKLE) as pickle:
        content = read_pickle(io.BytesIO(pickle.read()), storages.names(), storages.persistent)
    for key, storage in storages.by_key.items():
        with member(f"data/{key}", storage.length, size) as data:
            storage.fill(data, order)
    return content


# -- the format before 2020: pickles of a magic number, the protocol, the system, the content and the storages' keys,
#    then for each key the number of elements (8 bytes) and the elements, little-endian on every system


def _read_legacy(stream: IO[bytes], size: int) -> Any:
    pickles = io.BytesIO(stream.read(_LONGEST_PICKLE))
    try:
        magic = read_pickle(pickles, {})
    except ValueError:
        magic = None
    if magic != _LEGACY_MAGIC:
        raise ValueError("it does not begin like one")
    if (protocol := read_pickle(pickles, {})) != _LEGACY_PROTOCOL:
        raise ValueError(f"it is of protocol {clipped(protocol)}, expected {_LEGACY_PROTOCOL}")
    read_pickle(pickles, {})
    storages = _Storages(size, "little")
    content = read_pickle(pickles, storages.names(), storages.persistent)
    keys = read_pickle(pickles, {})
    if type(keys) is not list or sorted(map(_key, keys)) != sorted(storages.by_key):
        raise ValueError("its list of storages is not that of its tensors")
    stream.seek(pickles.tell())
    for key in keys:
        storage = storages.by_key[_key(key)]
        (numel,) = struct.unpack("<q", _exactly(stream, 8))
        if numel != storage.numel:
            raise ValueError(f"a storage has {numel} elements, expected {storage.numel}")
        storage.fill(stream, "little")
    return content


def _exactly(stream: IO[bytes], n: int) -> bytes:
    found = stream.read(n)
    if len(found) != n:
        raise ValueError("it ends too early")
    return found


# -- tensors


class _Storage:
    """One-dimensional array that tensors are views of, filled when its bytes come."""

    __slots__ = ("array", "kind", "length", "numel")

    def __init__(self, kind: str, numel: int, array: np.ndarray | None = None) -> None:
        in_file, in_memory = (np.dtype(name) for name in _DTYPES["uint8" if kind == "untyped" else kind])
        self.kind, self.numel, self.length = kind, numel, numel * in_file.itemsize
        self.array = np.empty(numel, in_memory) if array is None else array

    def fill(self, stream: IO[bytes], order: str) -> None:
        """Read the bytes of the storage."""
        if self.kind == "bfloat16":  # the upper half of a float32
            bits = self.array.view(np.uint32)
            for k in range(0, self.numel, _CHUNK):
                some = bits[k : k + _CHUNK]
                some[...] = np.frombuffer(_exactly(stream, 2 * len(some)), "<u2" if order == "little" else ">u2")
                some <<= np.uint32(16)
            return
        raw = self.array.view(np.uint8)
        for k in range(0, len(raw), _CHUNK):
            part = raw[k : k + _CHUNK]
            part[...] = np.frombuffer(_exactly(stream, len(part)), np.uint8)
        if self.kind == "bool":  # of which any byte but 0 is true, and NumPy's must be 1
            np.not_equal(self.array.view(np.uint8), 0, out=self.array)
        elif order != sys.byteorder:
            self.array.byteswap(inplace=True)


class _StorageType(NamedTuple):
    """Stand-in for a class such as ``torch.FloatStorage``."""

    kind: str


class _TensorType(NamedTuple):
    """Stand-in for the classes of tensors."""


class _Storages:
    """The storages of a file, and the stand-ins for what PyTorch's pickles call."""

    def __init__(self, size: int, order: str) -> None:
        self.left = self.copies_left = size  # what a file names, once or many times, is no more than it has bytes
        self.order = order
        self.by_key: dict[str, _Storage] = {}
        self.parts: dict[tuple[str, int, int], _Storage] = {}
        self.tensors: dict[tuple[Any, ...], np.ndarray] = {}
        self.v2, self.v3 = Function(self.tensor), Function(self.tensor_of_dtype)

    def names(self) -> dict[tuple[str, str], Any]:
        """Stand-ins by module and name: whatever is not here is refused."""
        parameter = Function(_parameter)
        names: dict[tuple[str, str], Any] = {
            ("collections", "OrderedDict"): Function(self.ordered_dict),
            ("_codecs", "encode"): Function(self.latin1),
            ("torch", "Size"): Function(_size),
            ("torch", "device"): Function(_device),
            ("torch._utils", "_rebuild_tensor"): self.v2,
            ("torch._utils", "_rebuild_tensor_v2"): self.v2,
            ("torch._utils", "_rebuild_tensor_v3"): self.v3,
            ("torch._utils", "_rebuild_parameter"): parameter,
            ("torch._utils", "_rebuild_parameter_with_state"): parameter,
            ("torch._tensor", "_rebuild_from_type_v2"): Function(self.of_type),
            ("torch.nn.parameter", "Parameter"): _TensorType(),
            ("torch", "Tensor"): _TensorType(),
            ("torch.storage", "UntypedStorage"): _StorageType("untyped"),
        }
        for module in ("builtins", "__builtin__"):
            names[module, "complex"] = Function(_complex)
        for module in ("torch", "torch.cuda"):
            names |= {(module, name): _StorageType(kind) for name, kind in _STORAGES.items()}
        return names | {("torch", name): f"torch.{name}" for name in _DTYPES}

    def persistent(self, pid: Any) -> _Storage:
        """Give the storage that a pickle refers to; its bytes come later."""
        if type(pid) is not tuple or len(pid) not in (5, 6) or pid[0] != "storage":
            raise ValueError("its pickle refers to something other than a storage")
        _, of_type, key, _, numel, *part = pid
        if type(of_type) is not _StorageType or not _is_count(numel):
            raise ValueError("its pickle refers to a storage of no known type or length")
        key = _key(key)
        storage = self.by_key.get(key)
        if storage is None:
            new = numel * np.dtype(_DTYPES["uint8" if of_type.kind == "untyped" else of_type.kind][0]).itemsize
            if new > self.left:
                raise ValueError(f"its storages have more bytes than the whole file: {clipped(new)} in one")
            self.left -= new
            storage = self.by_key[key] = _Storage(of_type.kind, numel)
        elif (storage.kind, storage.numel) != (of_type.kind, numel):
            raise ValueError(f"its storage {clipped(key)} is given as two different ones")
        return storage if not part or part[0] is None else self.part(key, storage, part[0])

    def part(self, key: str, storage: _Storage, which: Any) -> _Storage:
        """Give a part of a storage that is a storage of its own, as early versions of PyTorch had it."""
        if type(which) is not tuple or len(which) != 3 or not (_is_count(which[1]) and _is_count(which[2])):
            raise ValueError("its pickle refers to a part of a storage that is none")
        _, start, numel = which
        if start + numel > storage.numel:
            raise ValueError(f"a part of storage {clipped(key)} reaches beyond its end")
        found = self.parts.get((key, start, numel))
        if found is None:
            found = _Storage(storage.kind, numel, storage.array[start : start + numel])
            self.parts[key, start, numel] = found
        return found

    def tensor(
        self, storage: Any, offset: Any, size: Any, stride: Any, _grad: Any = None, _hooks: Any = None, meta: Any = None
    ) -> np.ndarray:
        """Give the view of a storage that is a tensor, with the arguments of ``_rebuild_tensor_v2``."""
        if type(storage) is not _Storage or storage.kind == "untyped":
            raise ValueError("a tensor has no storage of a known type")
        return self.view(storage, storage.array, offset, size, stride, meta)

    def tensor_of_dtype(
        self, storage: Any, offset: Any, size: Any, stride: Any, _grad: Any, _hooks: Any, dtype: Any, meta: Any = None
    ) -> np.ndarray:
        """Give a tensor of a dtype without a storage class of its own, with the arguments of ``_rebuild_tensor_v3``."""
        name = _WITHOUT_STORAGE.get(dtype) if type(dtype) is str else None
        if name is None:
            raise ValueError(f"a tensor is of dtype {clipped(dtype)}, which is not supported here")
        if type(storage) is not _Storage or storage.kind != "untyped":
            raise ValueError("a tensor has no untyped storage, as its dtype demands")
        if self.order == "big":
            raise ValueError(f"a tensor of dtype {name} comes from a big-endian system, which is not supported")
        whole = storage.numel - storage.numel % np.dtype(name).itemsize
        return self.view(storage, storage.array[:whole].view(name), offset, size, stride, meta)

    def view(self, storage: _Storage, array: np.ndarray, offset: Any, size: Any, stride: Any, meta: Any) -> np.ndarray:
        """Give a view of the array of a storage, always the same for the same arguments, after checking its bounds."""
        if meta:
            raise ValueError("a tensor is conjugated or negated when read; save its resolve_conj().resolve_neg()")
        size, stride = _size(size), _size(stride)
        if len(size) != len(stride) or len(size) > 64 or not _is_count(offset):
            raise ValueError("a tensor has no valid size, stride and offset")
        last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
        if 0 in size:
            return np.empty(size, array.dtype)
        if last >= array.size:
            raise ValueError(f"a tensor of size {clipped(size)} reaches beyond the end of its storage")
        key = (id(storage), array.dtype.name, offset, size, stride)
        if key not in self.tensors:
            strides = tuple(s * array.itemsize if n > 1 else 0 for n, s in zip(size, stride, strict=True))
            self.tensors[key] = np.ndarray(size, array.dtype, array, offset * array.itemsize, strides)
        return self.tensors[key]

    def charge(self, n: int) -> None:
        """Count what is made of arguments, which a pickle can give again and again."""
        self.copies_left -= n
        if self.copies_left < 0:
            raise ValueError("it makes more of its strings and lists than the file has bytes")

    def latin1(self, text: Any, codec: Any) -> bytes:
        """Give the bytes that pickles for Python 2 hold as text."""
        self.charge(len(text))
        if type(text) is not str or codec != "latin1":
            raise ValueError("bytes are made of something other than text in latin1")
        return text.encode("latin1")

    def ordered_dict(self, pairs: Any = ()) -> dict[str | int, Any]:
        """Give a dict; only Python 2 put the items among the arguments."""
        self.charge(len(pairs))
        if type(pairs) not in (tuple, list) or not all(
            type(pair) in (tuple, list) and len(pair) == 2 for pair in pairs
        ):
            raise ValueError("an ordered dict is made of other things than pairs")
        return as_dict([x for pair in pairs for x in pair])

    def of_type(self, rebuild: Any, of_type: Any, arguments: Any, _state: Any) -> np.ndarray:
        """Give a tensor that has attributes, without them."""
        if rebuild not in (self.v2, self.v3) or type(of_type) is not _TensorType or type(arguments) is not tuple:
            raise ValueError("a tensor with attributes is made of other things than a tensor")
        return _parameter(rebuild.call(*arguments))


def _parameter(data: Any, *_: Any) -> np.ndarray:
    if type(data) is not np.ndarray:
        raise ValueError("a parameter is made of something other than a tensor")
    return data


def _size(size: Any) -> tuple[int, ...]:
    if type(size) is not tuple or len(size) > 64 or not all(_is_count(n) for n in size):
        raise ValueError("a size or stride is none: expected at most 64 whole numbers from 0")
    return size


def _device(kind: Any, index: Any = None) -> str:
    if type(kind) is not str or len(kind) > 20 or not (index is None or _is_count(index)):
        raise ValueError("a device is none")
    return kind if index is None else f"{kind}:{index}"


def _complex(real: Any, imaginary: Any) -> complex:
    return complex(float(real), float(imaginary))


def _key(key: Any) -> str:
    if type(key) not in (str, int):
        raise ValueError(f"the key of a storage is a {type(key).__name__}, expected a string")
    return str(key)


def _is_count(n: Any) -> bool:
    return type(n) is int and n >= 0
