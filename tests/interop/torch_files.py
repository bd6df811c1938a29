"""Writes files as `torch.save` does, without PyTorch; hostile ones too, since it writes any instructions it is told."""

import io
import struct
import zipfile
from typing import NamedTuple

import numpy as np

MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
KINDS = {
    "bool": "Bool", "uint8": "Byte", "int8": "Char", "int16": "Short", "int32": "Int", "int64": "Long",
    "float16": "Half", "float32": "Float", "float64": "Double", "complex64": "ComplexFloat",
    "complex128": "ComplexDouble",
}  # fmt: skip


class Raw(NamedTuple):
    """Instructions of a pickle, which leave one value on the stack."""

    code: bytes


class Name(NamedTuple):
    module: str
    name: str


class Call(NamedTuple):
    function: Name
    arguments: tuple


class Storage(NamedTuple):
    kind: str  # of the class: Float for torch.FloatStorage
    key: str
    data: bytes
    numel: int
    part: tuple = ()


def storage(array, key="0", kind=None):
    array = np.asarray(array)
    return Storage(kind or KINDS[array.dtype.name], key, array.astype(array.dtype.newbyteorder("<")).tobytes(),
                   array.size)  # fmt: skip


def tensor(of_storage, offset=0, size=None, stride=None, *more):
    """A tensor of a storage; by default all of it."""
    size = (of_storage.numel,) if size is None else size
    stride = tuple(int(np.prod(size[k + 1 :])) for k in range(len(size))) if stride is None else stride
    arguments = (of_storage, offset, size, stride, False, Call(Name("collections", "OrderedDict"), ()), *more)
    return Call(Name("torch._utils", "_rebuild_tensor_v2"), arguments)


def encode(x, storages, legacy=False):
    """Instructions that build a value; storages that it refers to are noted."""
    code = lambda v: encode(v, storages, legacy)  # noqa: E731
    if isinstance(x, Raw):
        return x.code
    if isinstance(x, Name):
        return f"c{x.module}\n{x.name}\n".encode()
    if isinstance(x, Call):
        return code(x.function) + code(tuple(x.arguments)) + b"R"
    if isinstance(x, Storage):
        storages[x.key] = x
        module = "torch.storage" if x.kind == "Untyped" else "torch"
        part = x.part or ((None,) if legacy else ())
        return code(("storage", Name(module, f"{x.kind}Storage"), x.key, "cpu", x.numel, *part)) + b"Q"
    if x is None or x is True or x is False:
        return {None: b"N", True: b"\x88", False: b"\x89"}[x]
    if isinstance(x, int):
        if -(2**31) <= x < 2**31:
            return b"J" + struct.pack("<i", x)
        n = x.bit_length() // 8 + 1
        return b"\x8a" + bytes([n]) + x.to_bytes(n, "little", signed=True)
    if isinstance(x, float):
        return b"G" + struct.pack(">d", x)
    if isinstance(x, bytes):
        return b"B" + struct.pack("<I", len(x)) + x
    if isinstance(x, str):
        return b"X" + struct.pack("<I", len(x.encode())) + x.encode()
    if isinstance(x, tuple):
        return b"(" + b"".join(map(code, x)) + b"t"
    if isinstance(x, list):
        return b"](" + b"".join(map(code, x)) + b"e"
    return b"}(" + b"".join(code(k) + code(v) for k, v in x.items()) + b"u"


def pickle_of(x, storages=None, legacy=False):
    return b"\x80\x02" + encode(x, {} if storages is None else storages, legacy) + b"."


def zip_file(content, *, order="little", prefix="archive", change=None, storages=None):
    """The bytes of a file of the zip format; ``change`` may alter its members, a dict."""
    storages = {} if storages is None else storages
    members = {"data.pkl": pickle_of(content, storages), "byteorder": order.encode(), "version": b"3\n"}
    members |= {f"data/{key}": s.data for key, s in storages.items()}
    if change is not None:
        change(members)
    return zip_of({f"{prefix}/{name}": data for name, data in members.items() if data is not None})


def zip_of(members, compression=zipfile.ZIP_STORED):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data, compression)
    return out.getvalue()


def legacy_file(content, *, protocol=1001, keys=None, storages=None):
    """The bytes of a file of the older format."""
    storages = {} if storages is None else storages
    body = pickle_of(content, storages, legacy=True)
    keys = sorted(storages) if keys is None else keys
    info = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    parts = [MAGIC, pickle_of(protocol), pickle_of(info), body, pickle_of(keys)]
    parts += [struct.pack("<q", storages[key].numel) + storages[key].data for key in keys if key in storages]
    return b"".join(parts)
