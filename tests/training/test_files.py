import errno
import json
import os
import stat

import numpy as np
import pytest

import gpubp as bp
from gpubp import nn, optim
from gpubp.nn.surgery import state_of
from gpubp.training.files import write_atomically


def net_of(seed=0, width=4, dtype="float32"):
    return nn.Sequential(nn.Dense(3, width), nn.relu, nn.Dense(width, 2), seed=seed, dtype=dtype)


def values(net):
    return {path: x.copy() for path, x in net.parameters().items()}


def same(net, expected):
    assert list(net.parameters()) == list(expected)
    for path, x in net.parameters().items():
        np.testing.assert_array_equal(x, expected[path])


def test_what_is_saved_is_loaded(tmp_path):
    net, other = net_of(0), net_of(1)
    bp.save(net, tmp_path / "net.safetensors")
    assert bp.load(tmp_path / "net.safetensors", other) is other
    same(other, values(net))
    assert os.listdir(tmp_path) == ["net.safetensors"]


def test_other_programs_can_read_it(tmp_path):
    from safetensors.numpy import load_file

    net = net_of()
    bp.save(net, str(tmp_path / "net.safetensors"))
    same(net, load_file(tmp_path / "net.safetensors") | {})


def test_every_library_and_tree(tmp_path, backend):
    tree = {
        "a": [backend.asarray(np.arange(3)), backend.asarray(np.asarray(2.5))],
        "b": backend.asarray(np.ones((0, 2))),
    }
    bp.save(tree, tmp_path / "tree")
    new = bp.tree.map_leaves(lambda x: x * 0, tree)
    bp.load(tmp_path / "tree", new)
    assert type(new["a"][0]) is type(tree["a"][0])
    np.testing.assert_array_equal(backend.to_numpy(new["a"][0]), [0, 1, 2])
    assert float(backend.to_numpy(new["a"][1])) == 2.5


def test_arrays_of_any_layout(tmp_path):
    tree = {
        "F": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "strided": np.arange(10)[::3],
        "scalar": np.float64(3),
    }
    bp.save(tree, tmp_path / "tree")
    for path, x in bp.load(tmp_path / "tree", {k: np.zeros_like(v) for k, v in tree.items()}).items():
        np.testing.assert_array_equal(x, tree[path])


def test_a_shared_array_stays_shared(tmp_path):
    def tied(seed):
        layer = nn.Dense(2, 2)
        return nn.Sequential(layer, nn.tanh, layer, seed=seed)

    net, other = tied(0), tied(1)
    bp.save(net, tmp_path / "net")
    bp.load(tmp_path / "net", other)
    assert other.layers[0].W is other.layers[2].W
    np.testing.assert_array_equal(other.layers[0].W, net.layers[0].W)


def test_an_optimizer_notices(tmp_path):
    net, other = net_of(0), net_of(1)
    bp.save(net, tmp_path / "net")
    opt = optim.SGD(other, 1.0)
    bp.load(tmp_path / "net", other)
    opt.step(bp.tree.map_leaves(np.zeros_like, other))
    same(other, values(net))


def test_every_difference_is_named_and_nothing_is_changed(tmp_path):
    bp.save(net_of(width=5), tmp_path / "net")
    net = net_of(width=4)
    before = values(net)
    with pytest.raises(
        ValueError, match=r"layers\[0\]\.W is float32\[3, 5\], expected float32\[3, 4\]; layers\[0\]\.b"
    ):
        bp.load(tmp_path / "net", net)
    same(net, before)
    with pytest.raises(ValueError, match=r"layers\[0\]\.W is float32\[3, 5\], expected float64\[3, 5\]"):
        bp.load(tmp_path / "net", net_of(width=5, dtype="float64"))
    with pytest.raises(ValueError, match=r"\['a'\] is missing.*; layers\[2\]\.b is in the file and not in the net"):
        bp.load(tmp_path / "net", {"a": np.ones(2)})


def test_files_that_are_none(tmp_path):
    (tmp_path / "torn").write_bytes(b"\x10\x00\x00")
    with pytest.raises(ValueError, match="torn is not a whole safetensors file"):
        bp.load(tmp_path / "torn", net_of())
    with pytest.raises(FileNotFoundError):
        bp.load(tmp_path / "nothing", net_of())
    with pytest.raises(RuntimeError, match="no parameters yet.*seed=0"):
        bp.save(nn.Dense(2, 3), tmp_path / "net")
    with pytest.raises(RuntimeError, match="no parameters yet.*seed=0"):
        bp.load(tmp_path / "net", nn.Dense(2, 3))
    with pytest.raises(ValueError, match="nothing to save: dict holds no arrays"):
        bp.save({"a": 1}, tmp_path / "net")
    with pytest.raises(TypeError, match=r"name of a file, got Sequential; it is save\(net, file\)"):
        bp.load(net_of(), tmp_path / "net")


def test_every_dtype_as_others_write_and_read_it(tmp_path):
    from ml_dtypes import bfloat16
    from safetensors.numpy import load_file, save_file

    names = ["bool", "uint8", "int8", "int16", "uint16", "int32", "int64", "uint64", "float16", "float32", "complex64"]
    arrays = {name: np.arange(3).astype(name) for name in names} | {"empty": np.ones((0, 4)), "scalar": np.asarray(2.0)}
    bp.save(arrays, tmp_path / "ours")
    theirs = load_file(tmp_path / "ours")
    for path, x in state_of(arrays).items():
        np.testing.assert_array_equal(theirs[path], x, strict=True)
    save_file(state_of(arrays), tmp_path / "theirs")
    zeros = bp.tree.map_leaves(np.zeros_like, arrays)
    bp.load(tmp_path / "theirs", zeros)
    for name, x in arrays.items():
        np.testing.assert_array_equal(zeros[name], x, strict=True)
    narrow = {"a": np.arange(3).astype(bfloat16), "c": np.arange(2.0).astype(">f8")}
    bp.save(narrow, tmp_path / "narrow")
    zeros = bp.load(tmp_path / "narrow", {"a": np.zeros(3, bfloat16), "c": np.zeros(2)})
    assert [x.tolist() for x in zeros.values()] == [[0, 1, 2], [0, 1]]
    with pytest.raises(TypeError, match="a safetensors file cannot hold this: .*complex128"):
        bp.save({"x": np.ones(3, "complex128")}, tmp_path / "wide")


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2", "F128"])
def test_other_dtypes_are_named(dtype, tmp_path):
    text = json.dumps({"x": {"dtype": dtype, "shape": [1], "data_offsets": [0, 1]}}).encode()
    (tmp_path / "net").write_bytes(len(text).to_bytes(8, "little") + text + b"1")
    with pytest.raises(ValueError, match=f"net is not a whole safetensors file: .*{dtype}"):
        bp.load(tmp_path / "net", net_of())


def test_permissions_are_those_of_other_new_files(tmp_path):
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "file", b"content")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == (0o640 if os.name == "posix" else 0o666)


def test_what_a_dead_process_left_is_removed(tmp_path):
    for name in (".file.4194305.part", ".file2.4194305.part"):
        (tmp_path / name).write_text("half")
    write_atomically(tmp_path / "file", b"content")
    assert sorted(os.listdir(tmp_path)) == [".file2.4194305.part", "file"]


def test_a_file_system_that_cannot_sync_folders(tmp_path, monkeypatch):
    sync = os.fsync

    def fail(number, code):
        if stat.S_ISDIR(os.fstat(number).st_mode):
            raise OSError(code, os.strerror(code))
        sync(number)

    monkeypatch.setattr(os, "fsync", lambda number: fail(number, errno.EINVAL))
    write_atomically(tmp_path / "file", b"content")
    assert (tmp_path / "file").read_bytes() == b"content"
    monkeypatch.setattr(os, "fsync", lambda number: fail(number, errno.EIO))
    with pytest.raises(OSError, match="Input/output error: '.*file'"):
        write_atomically(tmp_path / "file", b"content")


def test_an_error_names_the_file_that_was_asked_for(tmp_path):
    for file, error in (("no/net", FileNotFoundError), (".", IsADirectoryError)):
        with pytest.raises(error) as caught:
            bp.save(net_of(), tmp_path / file)
        assert caught.value.filename == str(tmp_path / file)
        assert ".part" not in str(caught.value)
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="file/net'$"):
        bp.save(net_of(), tmp_path / "file" / "net")


def test_a_read_only_folder(read_only):
    with pytest.raises(PermissionError) as caught:
        bp.save(net_of(), read_only / "net")
    assert caught.value.filename == str(read_only / "net")
    assert os.listdir(read_only) == []


def test_a_failed_write_leaves_the_previous_file(tmp_path, disk_full):
    file = tmp_path / "net"
    bp.save(net_of(0), file)
    before = file.read_bytes()
    with disk_full, pytest.raises(OSError, match=r"No space left on device: '.*net'") as caught:
        bp.save(net_of(1), file)
    assert caught.value.errno == errno.ENOSPC
    assert file.read_bytes() == before
    assert os.listdir(tmp_path) == ["net"]


def test_the_file_is_on_the_disk_before_it_takes_the_others_place(tmp_path, monkeypatch):
    calls = []
    for name in ("fsync", "replace"):
        original = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, n=name, f=original: (calls.append(n), f(*a))[1])
    write_atomically(tmp_path / "file", b"content")
    assert calls[:2] == ["fsync", "replace"]
    assert (tmp_path / "file").read_bytes() == b"content"
