import gzip
import tracemalloc

import numpy as np
import pytest

from gpubp.data import batches, text


def test_characters_by_number(tmp_path):
    (tmp_path / "a.txt").write_text("abra\nça 😀", encoding="utf-8")
    found = text(tmp_path / "a.txt")
    assert found.characters == "\n abrç😀"
    assert len(found) == 9
    assert repr(found) == "Text(9 characters, 7 different)"
    assert repr(found.windows(2)[0]) == "Windows(shape=(4, 2))"
    assert found.ids.dtype == np.uint8
    assert found.ids.tolist() == [2, 3, 4, 2, 0, 5, 2, 1, 6]
    assert found.decode(found.ids) == "abra\nça 😀"
    ids = found.encode("bar")
    assert ids.dtype == np.int64
    assert ids.tolist() == [3, 2, 4]
    with pytest.raises(ValueError, match="the character 'e' is not among the 7 of the text"):
        found.encode("zebra")
    with pytest.raises(ValueError, match="characters have numbers from 0 to 6, got -1 to 7"):
        found.decode([7, -1])


def test_several_files_compressed_or_not(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"ab\r\n")
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(b"ba"))
    found = text([tmp_path / "a.txt", tmp_path / "b.txt.gz"])
    assert found.decode(found.ids) == "ab\nba"


def test_characters_that_are_given(tmp_path):
    (tmp_path / "a.txt").write_text("ba")
    assert text(tmp_path / "a.txt", characters="abc").ids.tolist() == [1, 0]
    with pytest.raises(ValueError, match=r"a\.txt: the character 'a' is not among those given"):
        text(tmp_path / "a.txt", characters="b")
    with pytest.raises(ValueError, match="characters must be different and in order, got 'ba'"):
        text(tmp_path / "a.txt", characters="ba")


def test_windows(tmp_path):
    (tmp_path / "a.txt").write_text("0123456789")
    found = text(tmp_path / "a.txt")
    x, y = found.windows(3)
    assert (len(x), x.shape, x.ndim, x.dtype) == (3, (3, 3), 2, np.int64)
    assert x.take(np.arange(3)).tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert y.take(np.array([2, 0])).tolist() == [[7, 8, 9], [1, 2, 3]]
    x, y = found.windows(3, step=1, start=4)
    assert x.take(np.arange(len(x))).tolist() == [[4, 5, 6], [5, 6, 7], [6, 7, 8]]
    assert y.shape == x.shape
    assert found.windows(2, stop=4)[1].take(np.arange(1)).tolist() == [[1, 2]]
    with pytest.raises(ValueError, match="3 characters have no window of 3 and a character more"):
        found.windows(3, stop=3)
    with pytest.raises(ValueError, match="step must be at least 1, got 0"):
        found.windows(3, step=0)
    for a, b in batches(found.windows(2, step=2), 2, shuffle=True, seed=0):
        np.testing.assert_array_equal(a + 1, b)


def test_a_text_larger_than_the_memory_it_is_given(tmp_path):
    line = "".join(map(chr, range(32, 127))) * 1000
    with open(tmp_path / "a.txt", "w") as stream:
        stream.writelines([line] * 200)
    tracemalloc.start()
    found = text(tmp_path / "a.txt", memory=2**20)
    window = found.windows(95)[0].take(np.array([0, 77, 199_998]))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(found) == 200 * 95_000
    assert window.tolist() == [list(range(95))] * 3
    assert peak < 2.5e7, peak


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"there is no text in .*a\.txt"),
        (b"a\nb\xff\n", r"a\.txt: line 2 is not utf-8 text \(.*\); give encoding=, such as 'latin-1'"),
        ("é".encode("utf-16"), "this is UTF-16 text"),
        (gzip.compress(b"text", mtime=0)[:-1], "a.txt is no whole compressed file"),
    ],
)
def test_bad_files(tmp_path, content, message):
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        text(tmp_path / "a.txt")
