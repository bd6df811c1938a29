import gzip

import numpy as np
import pytest

from gpubp.data import Npz, Table, Text, read


def test_the_name_says_how_a_file_is_read(tmp_path):
    x = np.arange(6, dtype=np.uint8)
    np.save(tmp_path / "a.npy", x)
    np.savez(tmp_path / "a.npz", x=x)
    for name, pack in (("a.idx", bytes), ("train-labels-idx1-ubyte", bytes), ("a-idx1-ubyte.gz", gzip.compress)):
        (tmp_path / name).write_bytes(pack(b"\0\0\x08\1\0\0\0\6" + x.tobytes()))
        np.testing.assert_array_equal(read(tmp_path / name), x)
    np.testing.assert_array_equal(read(tmp_path / "a.npy"), x)
    assert isinstance(read(tmp_path / "a.npz"), Npz)
    for name, text in (("A.CSV", "x,y\n1,2\n"), ("a.tsv", "x\ty\n1\t2\n")):
        (tmp_path / name).write_text(text)
        assert isinstance(read(str(tmp_path / name)), Table)
        assert read(tmp_path / name, header=False).names == ("c1", "c2")
    (tmp_path / "a.txt").write_text("text")
    assert isinstance(read(tmp_path / "a.txt"), Text)


def test_a_folder(tmp_path):
    pytest.importorskip("PIL")
    with pytest.raises(ValueError, match="there are no pictures in"):
        read(tmp_path)


def test_other_names(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"a\.doc"):
        read(tmp_path / "a.doc")
    (tmp_path / "a.doc").write_text("")
    with pytest.raises(ValueError, match=r"a\.doc: the name of a file should end in \.npy, \.npz, \.csv, "):
        read(tmp_path / "a.doc")
