"""Files of `torch.save`: what is in them comes out, and nothing else ever happens."""

import importlib.util
import io
import os
import pickle
import struct
import tracemalloc
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from gpubp.interop import read_torch_file

_spec = importlib.util.spec_from_file_location("torch_files", Path(__file__).with_name("torch_files.py"))
w = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(w)

FORMATS = {"zip": w.zip_file, "legacy": w.legacy_file}
X = np.arange(24, dtype="float32")
V3 = w.Name("torch._utils", "_rebuild_tensor_v3")


@pytest.fixture
def read(tmp_path):
    """``read(content)`` is what `read_torch_file` finds in a file with these bytes."""

    def read(content):
        file = tmp_path / "weights.pth"
        file.write_bytes(content)
        return read_torch_file(file)

    return read


@pytest.fixture(params=FORMATS)
def file_of(request):
    return FORMATS[request.param]


def ordered(*pairs):
    """A state dict as PyTorch writes it: an ordered dict whose items are set, and whose attributes are too."""
    storages = {}
    code = b"ccollections\nOrderedDict\n)R("
    code += b"".join(w.encode(key, storages) + w.encode(value, storages) for key, value in pairs)
    return w.Raw(code + b"u}(X\x09\x00\x00\x00_metadata}ub"), storages


# -- what is right


@pytest.mark.parametrize("form", FORMATS)
def test_a_state_dict(read, form):
    first, second = w.storage(X), w.storage(np.arange(3, dtype="int64"), "1")
    content, storages = ordered(("net.W", w.tensor(first, 0, (4, 6))), ("net.n", w.tensor(second)))
    found = read(FORMATS[form](content, storages=storages))
    assert type(found) is dict
    assert list(found) == ["net.W", "net.n"]
    np.testing.assert_array_equal(found["net.W"], X.reshape(4, 6), strict=True)
    np.testing.assert_array_equal(found["net.n"], np.arange(3), strict=True)
    assert all(x.flags.writeable and x.flags.aligned for x in found.values())


@pytest.mark.parametrize("dtype", w.KINDS)
def test_dtypes(read, file_of, dtype):
    values = np.array([0, 1, 1, 0, 2, 3]).astype(dtype) * (1 + 2j if dtype.startswith("complex") else 1)
    values = values.astype(dtype)
    found = read(file_of([w.tensor(w.storage(values))]))[0]
    np.testing.assert_array_equal(found, values, strict=True)


@pytest.mark.parametrize("dtype", ["uint16", "uint32", "uint64", "int16", "float64"])
def test_dtypes_without_a_storage_class(read, file_of, dtype):
    values = np.array([0, 1, 2**15, 7]).astype(dtype)
    untyped = w.Storage("Untyped", "0", values.astype(values.dtype.newbyteorder("<")).tobytes(), values.nbytes)
    arguments = (untyped, 1, (3,), (1,), False, {}, w.Name("torch", dtype))
    found = read(file_of(w.Call(V3, arguments)))
    np.testing.assert_array_equal(found, values[1:], strict=True)


def test_bfloat16_is_widened(read, file_of):
    bits = np.array([0x0000, 0x8000, 0x3F80, 0xC049, 0x7F80, 0xFF80, 0x7FC1, 0x0001], "<u2")
    values = (bits.astype("uint32") << 16).view("float32")
    bfloat16 = w.storage(bits.view("int16"), kind="BFloat16")
    whole, part = read(file_of([w.tensor(bfloat16), w.tensor(bfloat16, 1, (3,), (2,))]))
    np.testing.assert_array_equal(whole, values, strict=True)
    np.testing.assert_array_equal(part, values[1:6:2], strict=True)
    assert np.shares_memory(whole, part)


def test_any_byte_but_zero_is_true(read, file_of):
    found = read(file_of(w.tensor(w.Storage("Bool", "0", b"\x00\x01\x02\xff", 4))))
    np.testing.assert_array_equal(found.view("uint8"), [0, 1, 1, 1])


@pytest.mark.parametrize("dtype", ["bool", "int8", "int16", "float32", "float64", "complex64", "complex128"])
def test_big_endian(read, dtype):
    values = np.array([1, 0, 3]).astype(dtype) * (1 + 2j if dtype.startswith("complex") else 1)
    values = values.astype(dtype)
    big = w.Storage(w.KINDS[dtype], "0", values.astype(values.dtype.newbyteorder(">")).tobytes(), 3)
    np.testing.assert_array_equal(read(w.zip_file(w.tensor(big), order="big")), values, strict=True)


def test_big_endian_bfloat16(read):
    big = w.Storage("BFloat16", "0", b"\x3f\x80\xc0\x00", 2)
    np.testing.assert_array_equal(read(w.zip_file(w.tensor(big), order="big")), np.float32([1, -2]), strict=True)


def test_without_a_byte_order_it_is_little(read):
    content = w.zip_file(w.tensor(w.storage(X)), change=lambda members: members.update(byteorder=None))
    np.testing.assert_array_equal(read(content), X)


VIEWS = {
    "transposed": (0, (6, 4), (1, 6), X.reshape(4, 6).T),
    "sliced": (7, (3, 2), (6, 2), X.reshape(4, 6)[1:, 1:5:2]),
    "0-d": (23, (), (), X[23]),
    "empty": (0, (0, 3), (3, 1), np.empty((0, 3), "float32")),
    "empty at the end": (24, (0,), (1,), X[24:]),
    "expanded": (2, (3, 2), (0, 1), np.broadcast_to(X[2:4], (3, 2))),
    "overlapping": (0, (5, 3), (1, 1), np.lib.stride_tricks.sliding_window_view(X[:7], 3)),
    "any stride of a length of 1": (3, (1, 2), (2**70, 1), X[3:5].reshape(1, 2)),
    "64 axes": (0, (1,) * 63 + (24,), (24,) * 63 + (1,), X.reshape((1,) * 63 + (24,))),
}


@pytest.mark.parametrize(("offset", "size", "stride", "expected"), VIEWS.values(), ids=VIEWS)
def test_strides_and_offsets(read, file_of, offset, size, stride, expected):
    found = read(file_of(w.tensor(w.storage(X), offset, size, stride)))
    np.testing.assert_array_equal(found, expected, strict=True)


def test_an_expanded_tensor_takes_no_memory(read, file_of):
    tracemalloc.start()
    found = read(file_of(w.tensor(w.storage(X), 0, (2**20, 2**30), (0, 0))))
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()
    assert found.shape == (2**20, 2**30)
    assert found[-1, -1] == 0


def test_tensors_that_share_memory_do_so(read, file_of):
    shared = w.storage(X)
    tied = w.tensor(shared, 0, (4, 6))
    found = read(file_of({"a": tied, "b": tied, "row": w.tensor(shared, 6, (6,)), "c": w.tensor(w.storage(X, "1"))}))
    assert found["a"] is found["b"]
    assert np.shares_memory(found["a"], found["row"])
    assert not np.shares_memory(found["a"], found["c"])
    found["a"][1, 0] = -1
    assert found["row"][0] == -1


def test_parameters_are_arrays(read, file_of):
    data = w.tensor(w.storage(X))
    parameter = w.Call(w.Name("torch._utils", "_rebuild_parameter"), (data, True, {}))
    stateful = w.Call(w.Name("torch._utils", "_rebuild_parameter_with_state"), (data, True, {}, {"tag": 1}))
    v2, of_type = w.Name("torch._utils", "_rebuild_tensor_v2"), w.Name("torch._tensor", "_rebuild_from_type_v2")
    tagged = w.Call(of_type, (v2, w.Name("torch", "Tensor"), data.arguments, {"tag": 1}))
    for found in read(file_of([parameter, stateful, tagged])):
        np.testing.assert_array_equal(found, X, strict=True)


def test_plain_values_of_a_checkpoint(read, file_of):
    plain = {
        "epoch": 3, "best": 0.5, "big": 2**63, "none": None, "flag": True, "name": "net ∂", "bytes": b"\x00\xff",
        "list": [1, [2.5, (3, ())], {}], "state": {0: {"step": 4}}, "minus": -5,
    }  # fmt: skip
    checkpoint = {"state_dict": {"W": w.tensor(w.storage(X))}, **plain}
    found = read(file_of(checkpoint))
    np.testing.assert_array_equal(found.pop("state_dict")["W"], X)
    assert found == plain
    assert type(found["flag"]) is bool


def test_stand_ins_for_pytorchs_own_values(read, file_of):
    names = {
        "size": w.Call(w.Name("torch", "Size"), ((2, 3),)),
        "dtype": w.Name("torch", "bfloat16"),
        "cuda": w.Call(w.Name("torch", "device"), ("cuda", 1)),
        "cpu": w.Call(w.Name("torch", "device"), ("cpu",)),
        "complex": w.Call(w.Name("__builtin__", "complex"), (1.0, -2.0)),
        "bytes": w.Call(w.Name("_codecs", "encode"), ("\x00ÿ", "latin1")),
        "ordered": w.Call(w.Name("collections", "OrderedDict"), ([["a", 1], ["b", 2]],)),
    }
    assert read(file_of(names)) == {
        "size": (2, 3), "dtype": "torch.bfloat16", "cuda": "cuda:1", "cpu": "cpu", "complex": 1 - 2j,
        "bytes": b"\x00\xff", "ordered": {"a": 1, "b": 2},
    }  # fmt: skip


def test_parts_of_storages_in_old_files(read):
    whole = w.storage(X)
    part = whole._replace(part=(("view", 6, 12),))
    view = w.tensor(part, 1, (2,))
    found = read(w.legacy_file([w.tensor(whole._replace(part=(None,))), view, view]))
    np.testing.assert_array_equal(found[1], X[7:9], strict=True)
    assert np.shares_memory(found[0], found[1])
    assert found[1] is found[2]
    with pytest.raises(ValueError, match="reaches beyond the end"):
        read(w.legacy_file(w.tensor(part, 11, (2,))))
    with pytest.raises(ValueError, match="part of storage 0 reaches beyond"):
        read(w.legacy_file(w.tensor(whole._replace(part=(("view", 13, 12),)))))


@pytest.mark.parametrize("protocol", range(6))
def test_every_protocol_of_pickles(read, protocol):
    plain = {"a": [1, 2, 300, 70000, 2**40, -1, True, False, None, 1.5], "b": ("x", ("é", ()), (1, 2), (1, 2, 3, 4))}
    plain["c"] = plain["a"]
    content = w.zip_file(None, change=lambda members: members.update({"data.pkl": pickle.dumps(plain, protocol)}))
    found = read(content)
    assert found == plain
    assert found["c"] is found["a"]


def test_text_of_python_2(read):
    content = w.zip_file({w.Raw(b"U\x06weight"): w.Raw(b"S'plain'\n"), w.Raw(b"T\x01\x00\x00\x00b"): w.Raw(b"I01\n")})
    assert read(content) == {"weight": "plain", "b": True}


def test_the_name_inside_the_archive_is_free(read):
    assert read(w.zip_file([1], prefix="my.model v2")) == [1]


# -- what is refused

EVIL = {
    "system": b"cos\nsystem\n(X\x04\x00\x00\x00evilt",
    "eval": b"cbuiltins\neval\n(X\x04\x00\x00\x00evilt",
    "getattr": b"cbuiltins\ngetattr\n(ccollections\nOrderedDict\nX\x08\x00\x00\x00fromkeyst",
    "torch load": b"ctorch\nload\n(X\x04\x00\x00\x00evilt",
    "a class of the whitelist's module": b"ccollections\ndefaultdict\n)",
    "dotted": b"\x8c\x0bcollections\x8c\x14OrderedDict.__init__\x93)",
    "numpy": b"cnumpy.core.multiarray\nscalar\n)",
}


@pytest.mark.parametrize("code", EVIL.values(), ids=EVIL)
def test_hostile_calls(read, file_of, code):
    with pytest.raises(ValueError, match=r"weights\.pth is not read: it refers to .*It was not executed.*state_dict"):
        read(file_of([w.tensor(w.storage(X)), w.Raw(code + b"R")]))


class Evil:
    def __reduce__(self):
        return os.mkdir, ("made-by-a-pickle",)


class Stateful:
    pass


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("make", [Evil, Stateful])
def test_nothing_of_pythons_pickles_of_objects_is_run(read, tmp_path, monkeypatch, make, protocol):
    monkeypatch.chdir(tmp_path)
    evil = make()
    evil.state = 1
    content = w.zip_file(None, change=lambda members: members.update({"data.pkl": pickle.dumps(evil, protocol)}))
    with pytest.raises(ValueError, match=f"refers to (posix.mkdir|nt.mkdir|{make.__module__}|copyreg|copy_reg)"):
        read(content)
    assert not Path("made-by-a-pickle").exists()


INSTRUCTIONS = {
    "INST": b"(ios\nsystem\n", "OBJ": b"(ccollections\nOrderedDict\no", "NEWOBJ": b"ccollections\nOrderedDict\n)\x81",
    "NEWOBJ_EX": b"ccollections\nOrderedDict\n)}\x92", "EXT1": b"\x82\x01", "EXT4": b"\x84\x01\x00\x00\x00",
    "PERSID": b"P0\n", "BYTEARRAY8": b"\x96\x01" + bytes(7) + b"x", "NEXT_BUFFER": b"\x97", "EMPTY_SET": b"\x8f",
    "FROZENSET": b"(\x91", "LONG4": b"\x8b\x01\x00\x00\x00\x01",
}  # fmt: skip


@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_instructions_that_data_do_not_need(read, file_of, name):
    with pytest.raises(ValueError, match=f"instruction {name}, which plain data do not need"):
        read(file_of(w.Raw(INSTRUCTIONS[name])))


FLOATS = w.Name("torch", "FloatStorage")


def pid(*values):
    """A reference to an object outside the pickle, with any content."""
    return w.Raw(w.encode(values, {}) + b"Q")


DAMAGED = {
    "calls data": (w.Call("os.system", ("evil",)), "calls os.system, which is no function"),
    "calls a class": (w.Call(w.Name("torch", "FloatStorage"), (2**40,)), "calls a value of type _StorageType"),
    "calls with a list": (w.Raw(b"ccollections\nOrderedDict\n]R"), "calls"),
    "name is no text": (w.Raw(b"K\x01K\x01\x93"), "refers to 1.1"),
    "state of a list": (w.Raw(b"]}b"), "sets the state of a value of type list"),
    "state of a tensor": (w.Raw(w.encode(w.tensor(w.storage(X)), {}) + b"}b"), "state of a value of type ndarray"),
    "state that is no dict": (w.Raw(b"}K\x01b"), "sets the state of a value of type dict"),
    "appends to a tuple": (w.Raw(b")K\x01a"), "appends to a value of type tuple"),
    "sets items of a list": (w.Raw(b"]K\x01K\x01s"), "sets items of a value of type list"),
    "odd items": (w.Raw(b"}(K\x01u"), "sets items"),
    "a tuple as key": ({(1, 2): 3}, "a key of a dict is a tuple"),
    "a list as key": (w.Raw(b"}]K\x01s"), "a key of a dict is a list"),
    "a huge key": ({2**63: 3}, "a key of a dict is a int, expected a string or a 64-bit integer"),
    "empty stack": (w.Raw(b"0000"), "damaged"),
    "no mark": (w.Raw(b"K\x01t"), "damaged"),
    "unknown memo": (w.Raw(b"h\x07"), "damaged"),
    "two values": (w.Raw(b"K\x01K\x01"), "too many values"),
    "too few": (w.Raw(b"K\x01\x86"), "damaged"),
    "too few arguments": (w.Call(w.Name("torch._utils", "_rebuild_tensor_v2"), ()), "damaged"),
    "no pairs": (w.Call(w.Name("collections", "OrderedDict"), ([1],)), "other things than pairs"),
    "no text": (w.Call(w.Name("_codecs", "encode"), ([1], "latin1")), "other than text in latin1"),
    "another codec": (w.Call(w.Name("_codecs", "encode"), ("a", "rot13")), "other than text in latin1"),
    "no device": (w.Call(w.Name("torch", "device"), ("x" * 21, 1)), "a device is none"),
    "no size": (w.Call(w.Name("torch", "Size"), ((1.5,),)), "a size or stride is none"),
    "no parameter": (w.Call(w.Name("torch._utils", "_rebuild_parameter"), (1, True, {})), "a parameter is made of"),
    "a tagged dict": (
        w.Call(w.Name("torch._tensor", "_rebuild_from_type_v2"), (w.Name("torch", "Size"), 1, (), {})),
        "a tensor with attributes is made of other things",
    ),
    "a huge complex": (w.Call(w.Name("builtins", "complex"), (10**400, 0)), "damaged"),
    "left a function": ([w.Name("collections", "OrderedDict")], "a value of type Function, which is no data"),
    "left a storage": ([w.storage(X)], "a value of type _Storage, which is no data"),
    "left a class": ({"x": (w.Name("torch", "FloatStorage"),)}, "a value of type _StorageType, which is no data"),
    "a persistent id": (w.Raw(b"K\x01Q"), "other than a storage"),
    "a module": (pid("module", "x", "y", "z", "w"), "other than a storage"),
    "a type": (pid("storage", "FloatStorage", "0", "cpu", 4), "no known type"),
    "a length": (pid("storage", FLOATS, "0", "cpu", -4), "no known type or length"),
    "a key": (pid("storage", FLOATS, (), "cpu", 4), "the key of a storage is a tuple"),
    "a part": (w.tensor(w.storage(X)._replace(part=(("view", -1, 3),))), "a part of a storage that is none"),
    "a tensor of data": (w.tensor(w.Raw(b"}"), 0, (1,), (1,)), "no storage of a known type"),
    "an untyped tensor": (w.tensor(w.Storage("Untyped", "0", b"1234", 4)), "no storage of a known type"),
    "a conjugated tensor": (w.tensor(w.storage(X), 0, (2,), (1,), {"conj": True}), "conjugated or negated"),
    "an 8-bit dtype": (
        w.Call(V3, (w.storage(X), 0, (1,), (1,), 0, {}, "torch.float8_e5m2")),
        "dtype torch.float8_e5m2, which is not supported",
    ),
    "a typed storage": (
        w.Call(V3, (w.storage(X), 0, (1,), (1,), 0, {}, "torch.int16")),
        "no untyped storage",
    ),
    "two dtypes": ([w.storage(X), w.storage(X, kind="Int")], "storage 0 is given as two different ones"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "message"), DAMAGED.values(), ids=DAMAGED)
def test_damaged_pickles(read, file_of, content, message):
    with pytest.raises(ValueError, match=message) as error:
        read(file_of(content))
    assert "weights.pth" in str(error.value)


BEYOND = {
    "offset": (24, (1,), (1,)), "length": (0, (25,), (1,)), "stride": (0, (5, 6), (6, 1)), "by two": (1, (13,), (2,)),
    "huge": (0, (2**62,), (1,)), "huge stride": (0, (2,), (2**62,)), "overflowing": (0, (2**32, 2**32), (2**32, 1)),
    "negative offset": (-1, (1,), (1,)), "negative length": (0, (-1,), (1,)), "negative stride": (23, (3,), (-1,)),
    "lengths": (0, (2, 3), (1,)), "no tuple": (0, [2], (1,)), "float": (0, (2.0,), (1,)), "bool": (0, (True,), (1,)),
    "65 axes": (0, (1,) * 65, (1,) * 65), "expanded beyond memory": (0, (2**40, 2**40), (0, 0)),
    "empty beyond memory": (0, (0, 2**63), (1, 1)), "no offset": (None, (1,), (1,)),
}  # fmt: skip


@pytest.mark.parametrize("view", BEYOND.values(), ids=BEYOND)
def test_tensors_beyond_their_storage(read, file_of, view):
    with pytest.raises(ValueError, match="cannot be read"):
        read(file_of(w.tensor(w.storage(X), *view)))


def test_a_tensor_may_not_reach_beyond_the_storage_of_another_dtype(read):
    untyped = w.Storage("Untyped", "0", b"12345", 5)
    call = w.Call(V3, (untyped, 0, (3,), (1,), False, {}, w.Name("torch", "int16")))
    with pytest.raises(ValueError, match="beyond the end"):
        read(w.zip_file(call))
    with pytest.raises(ValueError, match="big-endian system"):
        read(w.zip_file(call, order="big"))


@pytest.mark.parametrize("numel", [25, 2**38, 2**60, 2**62, 2**80])
def test_a_claimed_size_is_not_allocated(read, file_of, numel):
    tracemalloc.start()
    with pytest.raises(ValueError, match="more bytes than the whole file|bytes, expected|list of storages|is missing"):
        read(file_of([w.tensor(w.storage(X)), pid("storage", FLOATS, "1", "cpu", numel)]))
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()


def test_members_may_not_lie_on_each_other(read):
    """Members of an archive that share their bytes would unfold a small file to any size."""
    data = np.zeros(2**18, "float32")
    content = w.zip_file([w.tensor(w.storage(data, str(k))) for k in range(8)],
                         change=lambda m: m.update({f"data/{k}": None for k in range(1, 8)}))  # fmt: skip
    directory = content.index(b"PK\x01\x02")
    entries = content[directory : content.rindex(b"PK\x05\x06")]
    entry = entries[entries.rindex(b"PK\x01\x02") :]
    assert entry.endswith(b"/data/0")
    more = b"".join(entry[:-1] + str(k).encode() for k in range(1, 8))
    n, end = 4 + 7, content[content.rindex(b"PK\x05\x06") :]
    end = end[:8] + struct.pack("<HHI", n, n, len(entries + more)) + end[16:]
    tracemalloc.start()
    with pytest.raises(ValueError, match="more bytes than the whole file"):
        read(content[:directory] + entries + more + end)
    assert tracemalloc.get_traced_memory()[1] < 10 * len(content)
    tracemalloc.stop()


def test_compressed_members_are_refused(read):
    bomb = w.zip_of({"a/data.pkl": w.pickle_of([0] * 10**5)}, zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match=r"data\.pkl is compressed"):
        read(bomb)
    bomb = w.zip_of({"a/data.pkl": w.pickle_of(None) + bytes(17 * 2**20)})
    with pytest.raises(ValueError, match=r"data\.pkl has 178\d+ bytes, expected at most 16777216"):
        read(bomb)


def test_references_do_not_unfold(read, file_of):
    """Twenty lists of ten references each, to the list before: 1e20 values for whoever walks through them."""
    code = b"]q\x00" + b"".join(b"](" + b"h" + bytes([k]) + (b"h" + bytes([k])) * 9 + b"eq" + bytes([k + 1])
                                for k in range(20))  # fmt: skip
    with pytest.raises(ValueError, match=r"holds more than 10,000,000 values"):
        read(file_of(w.Raw(b"(" + code + b"l")))


def test_long_programs(read, file_of):
    with pytest.raises(ValueError, match="more than 2,000,000 instructions"):
        read(file_of(w.Raw(b"N0" * 10**6 + b"N")))


def test_containers_that_hold_themselves(read, file_of):
    for code in (b"]q\x00h\x00a", b"}q\x00X\x01\x00\x00\x00ah\x00s", b"]q\x00(h\x00ta", b"]q\x00]q\x01h\x00aa"):
        with pytest.raises(ValueError, match="a container in it holds itself"):
            read(file_of(w.Raw(code)))


@pytest.mark.parametrize("depth", [99, 101, 10**5])
def test_depth(read, file_of, depth):
    content = file_of(w.Raw(b"(" * depth + b"t" * depth))
    if depth < 100:
        assert str(read(content)) == "(" * (depth - 1) + "()" + ",)" * (depth - 1)
    else:
        with pytest.raises(ValueError, match="nested more than 100 deep"):
            read(content)


def test_copies_are_counted(read, file_of):
    """One long list, or text, that a short program would copy again and again."""
    pairs = w.encode([["a", 1]] * 1000, {})
    calls = b"".join(b"ccollections\nOrderedDict\nh\x00\x85R0" for _ in range(100))
    with pytest.raises(ValueError, match="more of its strings and lists than the file has bytes"):
        read(file_of(w.Raw(pairs + b"q\x000" + calls * 10 + b"N")))
    text = w.encode("a" * 10**5, {})
    calls = b"".join(b"c_codecs\nencode\nh\x00X\x06\x00\x00\x00latin1\x86R0" for _ in range(10))
    with pytest.raises(ValueError, match="more of its strings and lists than the file has bytes"):
        read(file_of(w.Raw(text + b"q\x000" + calls + b"N")))


@pytest.mark.parametrize("code", [
    b"r\xff\xff\xff\xffK\x01",  # LONG_BINPUT, on which Python's machine makes a table of 32 GB
    b"K\x01r\xff\xff\xff\xff0N", b"p99999999999999999999999\nN",
    b"\x8d" + b"\xff" * 7 + b"\x7f", b"X\xff\xff\xff\xff", b"B\xff\xff\xff\xff", b"\x8e" + b"\xff" * 8,  # long text
    b"\x95" + b"\xff" * 8 + b"N", b"\x8a\xff\x01", b"L" + b"9" * 10**5 + b"L\n", b"I1" + b"_0" * 9 + b"\n", b"F\n",
    b"(" * 10**5, b"S\n", b"S'a\n", b"V\\ud800\n", b"X\x01\x00\x00\x00\xff", b"c\xff\n\xff\n", b"\xff", b"",
], ids=repr)  # fmt: skip
def test_claims_of_pickles(tmp_path, file_of, code):
    file = tmp_path / "file.pth"
    file.write_bytes(file_of(w.Raw(code)))
    tracemalloc.start()
    with suppress(ValueError):
        read_torch_file(file)
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()


def test_names_are_printed_safely(read, file_of):
    name = w.Raw(w.encode("os", {}) + w.encode("\x1b[2J" + "x" * 1000, {}) + b"\x93")
    with pytest.raises(ValueError, match="refers to os") as error:
        read(file_of(name))
    assert "\x1b" not in str(error.value)
    assert len(str(error.value)) < 600


ZIPS = {
    "no pickle": (lambda m: m.update({"data.pkl": None}), "zip archive without PyTorch's member data.pkl"),
    "a program": (lambda m: m.update({"constants.pkl": b""}), r"TorchScript archive.*load\(file\)\.state_dict"),
    "no storage": (lambda m: m.update({"data/0": None}), "its member data/0 is missing"),
    "short storage": (lambda m: m.update({"data/0": b"1234"}), "its member data/0 has 4 bytes, expected 96"),
    "long storage": (lambda m: m.update({"data/0": bytes(97)}), "its member data/0 has 97 bytes, expected 96"),
    "byte order": (lambda m: m.update({"byteorder": b"middle"}), "its byte order is middle, expected little or big"),
    "long byte order": (lambda m: m.update({"byteorder": b"little\n"}), "byteorder has 7 bytes, expected at most 6"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "message"), ZIPS.values(), ids=ZIPS)
def test_damaged_archives(read, change, message):
    with pytest.raises(ValueError, match=message):
        read(w.zip_file(w.tensor(w.storage(X)), change=change))


def test_a_changed_byte_in_an_archive_is_noticed(read):
    content = bytearray(w.zip_file(w.tensor(w.storage(X))))
    content[content.index(X.tobytes()) + 5] ^= 1
    with pytest.raises(ValueError, match="its zip archive is damaged: Bad CRC-32"):
        read(bytes(content))


def test_damaged_files_of_the_older_format(read):
    x = w.tensor(w.storage(X))
    with pytest.raises(ValueError, match="it is of protocol 1000, expected 1001"):
        read(w.legacy_file(x, protocol=1000))
    for keys in ([], ["0", "0"], ["1"], "0", [None]):
        with pytest.raises(ValueError, match="its list of storages|the key of a storage"):
            read(w.legacy_file(x, keys=keys))
    with pytest.raises(ValueError, match="a storage has 24 elements, expected 12"):
        read(w.legacy_file(x).replace(b"J\x18\x00\x00\x00", b"J\x0c\x00\x00\x00"))


@pytest.mark.parametrize("content", [b"", b"PK", b"PK\x03\x04", b"PK\x05\x06" + bytes(18), b"\x80\x02}.", b"text" * 99,
                                     pickle.dumps({"W": 1}), bytes(1000), w.MAGIC], ids=repr)  # fmt: skip
def test_other_files(read, content):
    with pytest.raises(ValueError, match=r"weights\.pth cannot be read as a PyTorch file"):
        read(content)


def test_tar_files_of_2017(read):
    with pytest.raises(ValueError, match="a format that PyTorch left in 2017"):
        read(bytes(257) + b"ustar" + bytes(300))


def test_names_of_files(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_torch_file(tmp_path / "none.pth")
    with pytest.raises(TypeError, match="expected the name of a file, got BytesIO"):
        read_torch_file(io.BytesIO())


def test_every_file_cut_short_is_refused(read, file_of):
    content = file_of({"a": w.tensor(w.storage(X[:3])), "b": w.tensor(w.storage(X[:2], "1"), 1, (1,))})
    for n in range(len(content)):
        with pytest.raises(ValueError, match="cannot be read"):
            read(content[:n])


# -- PyTorch's own files


def pytorch_content(torch):
    base = torch.arange(24.0).reshape(4, 6)
    tagged = torch.ones(2)
    tagged.note = "attributes are left out"
    content = {
        "base": base, "t": base.t(), "slice": base[1:, ::2], "same": base, "parameter": torch.nn.Parameter(base[0]),
        "0-d": torch.tensor(3), "empty": torch.empty(0, 3), "expanded": torch.zeros(1).expand(7, 5), "tagged": tagged,
    }  # fmt: skip
    for name in [*w.KINDS, "uint16", "uint32", "uint64", "bfloat16"]:
        content[name] = (torch.arange(5) * 0.7).to(getattr(torch, name))
    return content


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", range(2, 6))
def test_files_of_pytorch(tmp_path, zipped, protocol):
    torch = pytest.importorskip("torch")
    content, file = pytorch_content(torch), tmp_path / "content.pt"
    options = {"_use_new_zipfile_serialization": zipped, "pickle_protocol": protocol}
    torch.save(content | {"plain": [1, (2.5, None), "s", b"b"], "size": content["base"].shape}, file, **options)
    found = read_torch_file(file)
    assert found.pop("plain") == [1, (2.5, None), "s", b"b"]
    assert found.pop("size") == (4, 6)
    assert list(found) == list(content)
    for name, x in content.items():
        x = x.detach()
        np.testing.assert_array_equal(found[name], (x.float() if x.dtype == torch.bfloat16 else x).numpy(), strict=True)
    assert found["base"] is found["same"]
    assert np.shares_memory(found["base"], found["t"])
    assert found["expanded"].strides == (0, 0)


@pytest.mark.peers
@pytest.mark.parametrize("zipped", [True, False])
def test_modules_and_their_state(tmp_path, zipped):
    torch = pytest.importorskip("torch")
    net = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3), torch.nn.Linear(3, 2))
    file = tmp_path / "net.pt"
    torch.save(net.state_dict(), file, _use_new_zipfile_serialization=zipped)
    found = read_torch_file(file)
    assert list(found) == list(net.state_dict())
    for name, x in net.state_dict().items():
        np.testing.assert_array_equal(found[name], x.numpy(), strict=True)
    optimizer = torch.optim.Adam(net.parameters())
    torch.save({"net": net.state_dict(), "opt": optimizer.state_dict(), "epoch": 3}, file)
    assert read_torch_file(file)["epoch"] == 3
    assert read_torch_file(file)["opt"]["param_groups"][0]["betas"] == (0.9, 0.999)
    torch.save(net, file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"refers to torch\.nn\.modules\.container\.Sequential.*state_dict\(\), file"):
        read_torch_file(file)
