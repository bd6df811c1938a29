import gzip
import io
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpubp.data import batches, idx, npy, npz

CODES = {8: "u1", 9: "i1", 11: "i2", 12: "i4", 13: "f4", 14: "f8"}


def idx_bytes(array, code=8):
    header = bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(">" + CODES[code]).tobytes()


def npy_bytes(array):
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize("shape", [(5,), (2, 3, 4), (0, 3), (1, 1, 1, 1)])
def test_idx(tmp_path, code, pack, shape):
    array = np.random.default_rng(0).integers(0, 100, shape).astype(CODES[code]) * 3
    (tmp_path / "a").write_bytes(pack(idx_bytes(array, code)))
    found = idx(tmp_path / "a")
    assert found.dtype is np.dtype(array.dtype.type)  # of this machine's byte order
    np.testing.assert_array_equal(found, array)
    assert isinstance(found, np.memmap) == (pack is bytes and code in (8, 9) and array.size > 0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"a: this is no IDX file, which begins with 0, 0, a type and a rank: it does with b''"),
        (b"\0\0\x0a\1\0\0\0\0", "no IDX file"),
        (b"\0\0\x08\0\1", "no IDX file"),
        (b"\x89PNG\r\n", r"no IDX file, .* it does with b'\\x89PNG'"),
        (b"\0\0\x08\2\0\0\0\1", "this IDX file ends before the 2 sizes"),
        (idx_bytes(np.ones((2, 3))) + b"!", r"after an array of uint8 of shape \(2, 3\) there are 1 bytes more"),
        (idx_bytes(np.ones((2, 3)))[:-1], r"array of uint8 of shape \(2, 3\) takes 18 bytes, but the file has 17"),
        (gzip.compress(idx_bytes(np.ones((2, 3))) + b"!", mtime=0), "takes 6 bytes, but there are more"),
        (gzip.compress(idx_bytes(np.ones((2, 3)))[:-1], mtime=0), "takes 6 bytes, but there are 5"),
        (gzip.compress(idx_bytes(np.ones((2, 3))), mtime=0)[:-9], "a is no whole compressed file: "),
        (
            gzip.compress(idx_bytes(np.ones((2, 3))), mtime=0)[:-8] + bytes(8),
            "a is no whole compressed file: CRC check failed",
        ),
    ],
)
def test_files_that_are_no_whole_idx_file(tmp_path, content, message):
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        idx(tmp_path / "a")


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_header_that_claims_too_much_takes_no_memory(tmp_path, pack):
    (tmp_path / "a").write_bytes(pack(b"\0\0\x0e\2" + b"\0\x10\0\0" * 2 + bytes(1000)))  # 2**40 numbers
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"shape \(1048576, 1048576\) takes 87960930222\d+ bytes"):
        idx(tmp_path / "a")
    assert tracemalloc.get_traced_memory()[1] < 1e6
    tracemalloc.stop()


def test_a_bomb_takes_what_its_header_claims(tmp_path):
    (tmp_path / "a").write_bytes(gzip.compress(b"\0\0\x08\1\0\0\0\1" + bytes(10**8)))
    tracemalloc.start()
    with pytest.raises(ValueError, match="takes 1 bytes, but there are more"):
        idx(tmp_path / "a")
    assert tracemalloc.get_traced_memory()[1] < 2e6
    tracemalloc.stop()


def test_npy_is_mapped(tmp_path):
    array = np.arange(24.0).reshape(4, 6)
    np.save(tmp_path / "a.npy", array)
    found = npy(tmp_path / "a.npy")
    assert isinstance(found, np.memmap)
    assert not found.flags.writeable
    np.testing.assert_array_equal(found, array)
    np.save(tmp_path / "a.npy", np.asfortranarray(array))
    np.testing.assert_array_equal(npy(tmp_path / "a.npy"), array)
    for empty in (np.ones((0, 3)), np.ones(0, np.int8)):
        np.save(tmp_path / "a.npy", empty)
        np.testing.assert_array_equal(npy(tmp_path / "a.npy"), empty, strict=True)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_is_opened_lazily(tmp_path, save):
    arrays = {
        "x": np.arange(24.0).reshape(4, 6),
        "y": np.arange(4, dtype=np.int64),
        "f": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "none": np.ones((0, 2), np.float32),
        "scalar": np.array(2 + 1j),
    }
    save(tmp_path / "a.npz", **arrays)
    found = npz(tmp_path / "a.npz")
    assert list(found) == list(arrays)
    assert len(found) == 5
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array, strict=True)
    assert isinstance(found["x"], np.memmap) == (save is np.savez)
    with pytest.raises(KeyError, match="holds no array 'z'; there are x, y, f, none, scalar"):
        found["z"]
    assert "a.npz': x, y, f" in repr(found)


def test_a_compressed_array_of_another_byte_order(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", x=np.arange(5, dtype=">f8"))
    found = npz(tmp_path / "a.npz")["x"]
    assert found.dtype is np.dtype("float64")
    assert found.tolist() == [0, 1, 2, 3, 4]


def test_mapped_arrays_give_batches(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.arange(12.0).reshape(6, 2), y=np.arange(6))
    file = npz(tmp_path / "a.npz")
    for x, y in batches((file["x"], file["y"]), 4, shuffle=True, seed=0, dtype="float32"):
        np.testing.assert_array_equal(x[:, 0], 2 * y)


def test_nothing_is_unpickled(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{}, None]), allow_pickle=True)
    np.savez(tmp_path / "a.npz", x=np.array([{}, None]))
    for read in (lambda: npy(tmp_path / "a.npy"), lambda: npz(tmp_path / "a.npz")["x"]):
        with pytest.raises(ValueError, match=r"a\.np[yz]: an array of numbers is expected, but this is one of object"):
            read()


def test_files_that_are_none(tmp_path):
    file = tmp_path / "a"
    for content in (b"", b"\x93NUMPY", b"PK\3\4", npy_bytes(np.ones(3))[:-1], b"\x93NUMPY\1\0\2\0(\n"):
        file.write_bytes(content)
        with pytest.raises(ValueError, match="a: "):
            npy(file)
        with pytest.raises(ValueError, match="a: this is no whole .npz file: "):
            npz(file)
    file.write_bytes(npy_bytes(np.array(["text"])))
    with pytest.raises(ValueError, match="an array of numbers is expected, but this is one of <U4"):
        npy(file)


def test_an_npz_of_something_else(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("read.me", "nothing")
    with pytest.raises(ValueError, match="a.zip: this is no .npy file: "):
        npz(tmp_path / "a.zip")["read.me"]


def test_an_npy_header_that_claims_too_much(tmp_path):
    header = npy_bytes(np.ones(3))
    for shape in (b"(2**40, )", b"(1099511627776,)", b"(-1,)", b"(1.5,)", b"'a'"):
        content = header[:10] + (b"{'descr': '|i1', 'fortran_order': False, 'shape': %b}" % shape).ljust(117) + b"\n"
        (tmp_path / "a.npy").write_bytes(content + bytes(1000))
        with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("x.npy", content + bytes(1000))
        tracemalloc.start()
        for read in (lambda: npy(tmp_path / "a.npy"), lambda: npz(tmp_path / "a.npz")["x"]):
            with pytest.raises(ValueError, match=r"a\.np[yz]: "):
                read()
        assert tracemalloc.get_traced_memory()[1] < 1e6
        tracemalloc.stop()


GOOD = np.arange(12, dtype=np.float32).reshape(3, 4)


def zip_bytes(method):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        archive.writestr("x.npy", npy_bytes(GOOD))
    return stream.getvalue()


FILES = {
    "idx": idx_bytes(GOOD, 13),
    "gz": gzip.compress(idx_bytes(GOOD, 8), mtime=0),
    "npy": npy_bytes(GOOD),
    "npz": zip_bytes(zipfile.ZIP_DEFLATED),
    "stored": zip_bytes(zipfile.ZIP_STORED),
}


@pytest.mark.parametrize("kind", FILES)
@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_damaged_files(kind, data, tmp_path_factory):
    """Bytes changed, cut off or added: an array, or a ValueError that names the file, in little memory."""
    content = bytearray(FILES[kind])
    for _ in range(data.draw(st.integers(0, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, 2 * len(content)))] + data.draw(st.binary(max_size=3))
    file = tmp_path_factory.getbasetemp() / f"damaged.{kind}"
    file.write_bytes(content)
    read = {"idx": idx, "gz": idx, "npy": npy}.get(kind, npz)
    tracemalloc.start()
    try:
        found = read(file)
        for array in found.values() if read is npz else [found]:
            assert array.nbytes <= 2000
    except ValueError as error:
        assert "damaged" in str(error)  # noqa: PT017
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**22
