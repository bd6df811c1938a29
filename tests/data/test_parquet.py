import datetime
import sys
import tracemalloc
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpubp.data import Encoding, parquet


def test_without_pyarrow(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ModuleNotFoundError, match=r"read with PyArrow: pip install 'gpubp\[parquet\]'"):
        parquet(tmp_path / "a.parquet")


@pytest.fixture
def write(tmp_path):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")

    def write(columns, **options):
        pq.write_table(pa.table(columns), tmp_path / "a.parquet", **options)
        return tmp_path / "a.parquet"

    return write


COLUMNS = {
    "age": [36, None, 41],
    "weight": [1.5, 2.5, float("nan")],
    "city": ["London", None, " Rome "],
    "zip": ["01", "02", "02"],
    "sold": [True, False, None],
    "day": [datetime.date(2020, 1, 2)] * 3,
    "empty": [None, None, None],
}


def test_columns(write):
    table = parquet(write(COLUMNS))
    assert table.kinds == dict.fromkeys(COLUMNS, "category") | dict.fromkeys(("age", "weight", "empty"), "number")
    np.testing.assert_array_equal(table["age"], [36, np.nan, 41])
    np.testing.assert_array_equal(table["weight"], [1.5, 2.5, np.nan])
    assert table["city"].tolist() == ["London", "", "Rome"]
    assert table["zip"].tolist() == ["01", "02", "02"]
    assert table["sold"].tolist() == ["True", "False", ""]
    assert table["day"].tolist() == ["2020-01-02"] * 3
    assert "  age     number    36 to 41, 1 missing" in table.report()


def test_kinds_that_are_told(write):
    file = write(COLUMNS)
    table = parquet(file, kinds={"age": "category", "zip": "number"})
    assert table["age"].tolist() == ["36", "", "41"]
    assert table["zip"].tolist() == [1, 2, 2]
    assert parquet(file, like=table).kinds == table.kinds
    with pytest.raises(ValueError, match=r"a\.parquet: row 1: column 'city' holds 'London', which is no number"):
        parquet(file, kinds={"city": "number"})
    with pytest.raises(ValueError, match="kinds names a column 'town', which is not there"):
        parquet(file, kinds={"town": "number"})


def test_large_and_decimal_numbers(write):
    file = write({"id": [2**62 + 1, 2**62 + 2], "price": [Decimal("1.50"), Decimal(2)], "n": [1.0, float("nan")]})
    table = parquet(file)
    assert table.kinds == dict.fromkeys(("id", "price", "n"), "number")
    assert table["price"].tolist() == [1.5, 2]
    table = parquet(file, kinds=dict.fromkeys(("id", "price", "n"), "category"))
    assert table["id"].tolist() == [str(2**62 + 1), str(2**62 + 2)]
    assert table["price"].tolist() == ["1.5", "2"]
    assert table["n"].tolist() == ["1", ""]


def test_text_is_read_when_asked_for(write):
    table = parquet(write({"id": [f"u{k}" for k in range(30)]}), max_categories=20)
    assert table.kinds == {"id": "text"}
    assert table["id"].tolist() == [f"u{k}" for k in range(30)]


def test_encoding(write):
    table = parquet(write({"x": list(range(20)), "y": ["a", "b"] * 10}))
    encoding = Encoding.fit(table, "y")
    assert encoding.classes == ("a", "b")
    assert encoding.inputs(table).shape == (20, 1)


def test_more_than_memory(write):
    x = np.random.default_rng(0).normal(size=(400_000, 8))
    file = write({f"x{k}": x[:, k] for k in range(8)}, row_group_size=20_000)
    tracemalloc.start()  # which counts what Python holds, not PyArrow's own row group
    table = parquet(file, memory=2**20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4e6, peak
    np.testing.assert_array_equal(table.numbers, x)


def test_what_is_no_table(write, tmp_path):
    with pytest.raises(ValueError, match="column 'x' holds list<.*>, neither numbers nor categories"):
        parquet(write({"x": [[1], [2]]}))
    with pytest.raises(ValueError, match=r"a\.parquet has no rows of data"):
        parquet(write({"x": np.ones(0)}))
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"a\.parquet is no whole Parquet file: "):
        parquet(tmp_path / "a.parquet")
    with pytest.raises(FileNotFoundError, match="b.parquet"):
        parquet(tmp_path / "b.parquet")


@settings(max_examples=60, deadline=None, database=None)
@given(data=st.data())
def test_damaged_files(data, tmp_path_factory):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    file = tmp_path_factory.getbasetemp() / "damaged.parquet"
    pq.write_table(pa.table({"x": [1.5, 2.5], "y": ["a", "b"]}), file)
    content = file.read_bytes()
    file.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    with pytest.raises(ValueError, match="damaged"):
        parquet(file)
