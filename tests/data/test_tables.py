import csv as csv_module
import gzip
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpubp.data import csv

PEOPLE = "name,age,city\nAda,36,London\nAlan,41,\nEmmy,NA,Göttingen\n"


@pytest.fixture
def write(tmp_path):
    def write(content, name="table.csv"):
        file = tmp_path / name
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        return file

    return write


def test_numbers_and_categories(write):
    table = csv(write(PEOPLE))
    assert len(table) == 3
    assert table.names == ("name", "age", "city")
    assert table.kinds == {"name": "category", "age": "number", "city": "category"}
    np.testing.assert_array_equal(table["age"], [36, 41, np.nan])
    assert table["age"].dtype == np.float64
    assert table["city"].tolist() == ["London", "", "Göttingen"]
    assert table.missing == {"name": 0, "age": 1, "city": 1}
    assert table.categories("city") == ("London", "Göttingen")
    np.testing.assert_array_equal(table.codes, [[0, 0], [1, -1], [2, 1]])


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_delimiters_line_ends_and_byte_order_marks(write, delimiter, end, mark):
    text = mark + PEOPLE.replace(",", delimiter).replace("\n", end)
    table = csv(write(text))
    assert table.names == ("name", "age", "city")
    assert table["city"].tolist() == ["London", "", "Göttingen"]


def test_quotes_blank_lines_and_spaces(write):
    table = csv(write('\n  \n"a, b",c\n"1"," x ""y"" "\n\n2,"two\nlines"\n   \n'))
    assert table.names == ("a, b", "c")
    assert table["a, b"].tolist() == [1, 2]
    assert table["c"].tolist() == ['x "y"', "two\nlines"]


def test_compressed(write):
    assert csv(write(gzip.compress(PEOPLE.encode()), "table.csv.gz")).names == ("name", "age", "city")


def test_other_encodings(write):
    file = write(PEOPLE.encode("latin-1"))
    with pytest.raises(ValueError, match=r"table\.csv: line 4 is not utf-8 text \(.*0xf6.*\); give encoding=, such as"):
        csv(file)
    assert csv(file, encoding="latin-1")["city"][2] == "Göttingen"
    file = write(PEOPLE.encode("utf-16"))
    with pytest.raises(ValueError, match="this is UTF-16 text: give encoding='utf-16', or save it as UTF-8"):
        csv(file)
    assert csv(file, encoding="utf-16")["city"][2] == "Göttingen"


@pytest.mark.parametrize(
    ("text", "names", "rows"),
    [
        ("1,2\n3,4\n", ("c1", "c2"), 2),
        ("5.1,setosa\n4.9,setosa\n", ("c1", "c2"), 2),  # the first line is like the others
        ("0,1,y\n4,5,6\n7,8,9\n", ("0", "1", "y"), 2),  # only the last column tells
        ("a,b\nc,d\n", ("a", "b"), 1),
        (",b\n1,2\n", ("c1", "b"), 1),
        ("a\n1\n\n2\n", ("a",), 2),
        ("5,?,3\n1,2,3\n4,5,6\n", ("c1", "c2", "c3"), 3),  # what is missing is no name
        ("?,NA\n1,2\n", ("c1", "c2"), 2),
        ("2019,y\n1,\n2,NA\n", ("c1", "c2"), 3),  # nothing says that y names numbers
        ("2019,y\n1,4\n2,NA\n", ("2019", "y"), 2),
    ],
)
def test_header_is_found_out(write, text, names, rows):
    table = csv(write(text))
    assert table.names == names
    assert len(table) == rows


def test_header_that_is_told(write):
    assert csv(write("a,b\nc,d\n"), header=False)["c1"].tolist() == ["a", "c"]
    assert csv(write("2019,2020\n1,2\n"), header=True)["2020"].tolist() == [2]


def test_missing_spellings(write):
    table = csv(write("x,y\n1,a\nNaN,?\n null,N/A\n#N/A,none\n,  \n"))
    assert table.kinds["x"] == "number"
    np.testing.assert_array_equal(table["x"], [1, *[np.nan] * 4])
    assert table["y"].tolist() == ["a", "", "", "", ""]
    table = csv(write("x,y\n1,a\n-99,-99\n-99.0,-99.0\n,b\n"), missing=["-99", ""])  # by value, as text by spelling
    np.testing.assert_array_equal(table["x"], [1, *[np.nan] * 3])
    assert table["y"].tolist() == ["a", "", "-99.0", "b"]
    assert table.missing == {"x": 3, "y": 1}
    table = csv(write("x;y\n1,5;a\n-99,0;\n"), missing="-99,0", decimal=",")  # one alone
    np.testing.assert_array_equal(table["x"], [1.5, np.nan])
    table = csv(write("x\n1\nunknown\n"), missing=["Unknown"])
    np.testing.assert_array_equal(table["x"], [1, np.nan])


def test_what_is_a_number(write):
    table = csv(write("a,b,c,d\n1e3,1_000,0x10,+.5\n-1.,2,3, 7 \n"), header=True)
    assert table.kinds == {"a": "number", "b": "category", "c": "category", "d": "number"}
    assert table["a"].tolist() == [1000, -1]
    assert table["d"].tolist() == [0.5, 7]
    assert table["b"].tolist() == ["1_000", "2"]


def test_text_in_a_number_column_is_reported(write):
    file = write("id,age\n" + "".join(f"{k},{'abc' if k == 15 else k % 7}\n" for k in range(40)))
    table = csv(file)
    assert table.kinds["age"] == "category"
    assert table["age"].tolist() == ["abc" if k == 15 else str(k % 7) for k in range(40)]
    assert table.doubt("age") == "line 17 holds 'abc' where 39 cells are numbers"
    assert table.doubt("id") is None
    assert table.remark("id") == "it counts the rows (ignore leaves it out)"
    assert "! line 17 holds 'abc' where 39 cells are numbers" in table.report()
    with pytest.raises(ValueError, match=r"table\.csv: line 17: column 'age' holds 'abc', which is no number"):
        csv(file, kinds={"age": "number"})
    assert csv(file, kinds={"age": "category"}).doubt("age") is None


def test_text_far_below_in_a_number_column(write, monkeypatch):
    monkeypatch.setattr("gpubp.data.tables._CELLS", 8)
    table = csv(write("x,y\n" + "1,2\n" * 50 + "a,2\n" + "3,b\n" * 2))
    assert table.doubt("x") == "line 52 holds 'a' where 52 cells are numbers"
    assert table.doubt("y") == "2 cells are no numbers where 51 are, the first in line 53: 'b'"
    assert table["x"].tolist() == ["1"] * 50 + ["a", "3", "3"]


def test_kinds_that_are_told(write):
    file = write("zip,n\n01,1\n02,2\n")
    table = csv(file, kinds={"zip": "category"})
    assert table["zip"].tolist() == ["01", "02"]
    assert csv(file, like=table).kinds == table.kinds
    assert csv(write("n,zip\n1,7\n"), like=table).kinds == {"n": "number", "zip": "category"}
    with pytest.raises(ValueError, match="kinds names a column 'zap', which is not there; did you mean 'zip'\\?"):
        csv(file, kinds={"zap": "number"})
    with pytest.raises(ValueError, match="kind of 'n' must be one of number, category, text, got 'float'"):
        csv(file, kinds={"n": "float"})


def test_text_of_many_values_is_not_kept(write):
    file = write("id,x\n" + "".join(f" u{k},{k % 3}\n" for k in range(30)) + "NA,0\n")
    table = csv(file, max_categories=20)
    assert table.kinds["id"] == "text"
    assert "more than 20 different values" in table.report()
    assert table["id"].tolist() == [*(f"u{k}" for k in range(30)), ""]  # read from the file
    assert table["x"].tolist() == [*(k % 3 for k in range(30)), 0]
    assert csv(file, max_categories=30).kinds["id"] == "category"


def test_dates_and_decimal_commas_are_reported(write):
    file = write("day;time;x\n2020-01-31;1.2.99 10:00;3,14\n2020-02-01;2.2.99 11:00;-1\n")
    table = csv(file, decimal=".")
    assert table.remark("day") == "'2020-01-31' looks like a date"
    assert table.remark("time") == "'1.2.99 10:00' looks like a date"
    assert table.remark("x") == "'3,14' looks like a number with a decimal comma (decimal=',')"
    assert csv(write('x\n"1,234"\n"12,345,678.5"\n')).remark("x") == (
        "'1,234' looks like a number with commas between its thousands"
    )


@pytest.mark.parametrize("options", [{}, {"decimal": ","}, {"delimiter": ";"}])
@pytest.mark.parametrize("header", ["", "x;y\n", "x, m;y, kg\n"])
def test_decimal_commas(write, header, options):
    table = csv(write(header + "1,5;2,5\n3,25;-4\n1e1;1,0E-1\n"), **options)
    assert len(table.names) == 2
    assert table.numbers.tolist() == [[1.5, 2.5], [3.25, -4], [10, 0.1]]


@pytest.mark.parametrize("text", ["x;y\n1,5;2.5\n", "x;y\n1,500;2\n", "x;y\na,5;2\n", 'x\n"1,500"\n'])
def test_commas_that_may_be_no_decimal_ones(write, text):
    assert csv(write(text)).kinds["x"] == "category"


def test_infinite_numbers(write):
    table = csv(write("x,y\n1,inf\n2,inf\n3,-1e400\n"))
    assert table["y"].tolist() == [np.inf, np.inf, -np.inf]
    assert (table.remark("x"), table.remark("y")) == (None, None)


def test_a_column_without_cells(write):
    table = csv(write("x,y\n1,\n2,NA\n"))
    assert table.kinds["y"] == "number"
    assert "no cell is known, 2 missing" in table.report()


def test_thousands_of_columns(write):
    width = 3000
    table = csv(write("\n".join([",".join(f"x{k}" for k in range(width)), *[",".join(map(str, range(width)))] * 60])))
    np.testing.assert_array_equal(table.numbers, np.tile(np.arange(float(width)), (60, 1)))


def test_report(write):
    report = csv(write("x,city\n1,A\n2.5,B\n,A\n4,\n")).report().splitlines()
    assert report[0].endswith("table.csv: 4 rows, 2 columns")
    assert report[1:] == [
        "  x     number    1 to 4, 1 missing",
        "  city  category  2 different: 'A' (2), 'B' (1), 1 missing",
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "table.csv: the file is empty"),
        (" \n\n", "table.csv: the file is empty"),
        ("a,b\n", "table.csv has no rows of data"),
        ("a,b\n1,2\n\n3\n", "table.csv: line 4 has 1 cell, but there are names for 2: '3'"),
        ("a,b\n1,2\n3,4,5\n", "table.csv: line 3 has 3 cells, but there are names for 2: '3,4,5'"),
        ("1,2\n3,4,5\n", "table.csv: line 2 has 3 cells, but the first line has 2: '3,4,5'"),
        ('a,b\n1,"2\n3"\n4\n', "table.csv: line 4 has 1 cell, but"),
        ("a,b,a\n1,2,3\n", "table.csv: columns 1 and 3 are both named 'a'"),
        ("a,b\n1," + 200_000 * "x" + "\n", "table.csv: line 2: field larger than field limit"),
        ('a,b\n1,"2\n' + 70_000 * "3,4\n", "field limit (131072); is there a quote that is never closed?"),
        (gzip.compress(PEOPLE.encode(), mtime=0)[:-20], "table.csv is no whole compressed file: "),
        (b"\x1f\x8bnothing", "table.csv is no whole compressed file: "),
        (gzip.compress(PEOPLE.encode(), mtime=0)[:-8] + bytes(8), "table.csv is no whole compressed file: "),
    ],
)
def test_bad_files(write, content, message):
    with pytest.raises((ValueError, OSError)) as caught:
        csv(write(content))
    assert message in str(caught.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing.csv"):
        csv(tmp_path / "nothing.csv")


def test_bad_options(write):
    with pytest.raises(ValueError, match="delimiter must be one character, got ', '"):
        csv(write(PEOPLE), delimiter=", ")
    with pytest.raises(TypeError, match="like must be a Table or an Encoding, got 3"):
        csv(write(PEOPLE), like=3)
    with pytest.raises(ValueError, match="Python knows no encoding 'utf-9'"):
        csv(write(PEOPLE), encoding="utf-9")


def test_a_line_without_end(write, monkeypatch):
    monkeypatch.setattr(sys.modules["gpubp.data.csv"], "LINE", 100)
    with pytest.raises(ValueError, match="line 2: a row has more than 100 characters; this is no table"):
        csv(write("a\n" + "1" * 100))
    with pytest.raises(ValueError, match="line 27: a row has more than 100 characters"):
        csv(write("a\n" + '"\n",' * 100))
    assert len(csv(write("a\n" + "1\n" * 1000))) == 1000


def test_a_column_that_is_not_there(write):
    with pytest.raises(ValueError, match=r"has no column 'Age'; did you mean 'age'\? There are name, age, city"):
        csv(write(PEOPLE))["Age"]


def test_cache(write, tmp_path):
    table = csv(write(PEOPLE), cache=tmp_path / "cache")
    np.testing.assert_array_equal(np.load(tmp_path / "cache" / "numbers.npy"), table.numbers)
    np.testing.assert_array_equal(np.load(tmp_path / "cache" / "codes.npy"), table.codes)
    assert table["city"].tolist() == ["London", "", "Göttingen"]
    again = csv(write("a,b\n1,x\n"), cache=tmp_path / "cache")  # takes the place of the files, not of the table
    assert again["a"].tolist() == [1]
    np.testing.assert_array_equal(table["age"], [36, 41, np.nan])
    with pytest.raises(ValueError, match="line 3 has 1 cell"):
        csv(write("a,b\n1,x\n2\n"), cache=tmp_path / "cache")
    assert sorted(file.name for file in (tmp_path / "cache").iterdir()) == ["codes.npy", "numbers.npy"]


def test_threads_that_share_a_cache(write, tmp_path):
    files = [write("a,b\n" + f"{k},{'xyz'[k]}\n" * 20_000, f"{k}.csv") for k in range(3)]
    with ThreadPoolExecutor() as threads:
        tables = list(threads.map(lambda file: csv(file, cache=tmp_path / "cache"), files))
    for k, table in enumerate(tables):
        assert (table.numbers == k).all()
        assert table.categories("b") == ("xyz"[k],)
    assert sorted(file.name for file in (tmp_path / "cache").iterdir()) == ["codes.npy", "numbers.npy"]


@pytest.mark.slow
def test_more_than_memory(tmp_path):
    rng, file = np.random.default_rng(0), tmp_path / "large.csv"
    with open(file, "w") as stream:
        stream.write(",".join(f"x{k}" for k in range(20)) + ",city\n")
        block = [",".join(f"{x:.16f}" for x in row) for row in rng.normal(size=(1000, 20))]
        for _ in range(60):
            stream.writelines(f"{line},{'ABC'[k % 3]}\n" for k, line in enumerate(block))
    assert file.stat().st_size > 20e6
    tracemalloc.start()
    table = csv(file, memory=2**20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert table.numbers.nbytes > 9e6
    assert peak < 1e7, peak  # of which 2**15 cells as strings are the most
    np.testing.assert_array_equal(table.numbers[:1000], table.numbers[-1000:])
    assert f"{table['x3'][1]:.16f}" == block[1].split(",")[3]


@pytest.mark.slow
def test_long_texts_are_not_kept(tmp_path):
    file, text = tmp_path / "long.csv", "x" * 50_000
    with open(file, "w") as stream:
        stream.write("x,text\n")
        stream.writelines(f"{k},{k}{text}\n" for k in range(1000))
    assert file.stat().st_size > 50e6
    tracemalloc.start()
    table = csv(file, max_categories=20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert table["x"].tolist() == [*range(1000)]
    assert table.kinds["text"] == "text"
    assert peak < 20e6, peak


cells = st.text(st.sampled_from('a1.-e,;\t"\n\r ?é\x00N'), max_size=6)


@settings(max_examples=300, deadline=None)
@given(text=st.one_of(st.binary(max_size=300), st.lists(cells, max_size=40).map(lambda x: ",".join(x).encode())))
def test_any_bytes(text, tmp_path_factory):
    file = tmp_path_factory.getbasetemp() / "any.csv"
    file.write_bytes(text)
    tracemalloc.start()
    try:
        table = csv(file)
    except (ValueError, OSError) as error:
        assert "any.csv" in str(error)  # noqa: PT017
    else:
        assert len(table) > 0
        assert "any.csv" in table.report()
        for name in table.names:
            assert len(table[name]) == len(table)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**22


values = st.one_of(st.floats(-1e9, 1e9), st.integers(-(10**6), 10**6), st.none())
strings = st.one_of(st.text(st.sampled_from("abc ,;\t|\"\n'é0"), min_size=1, max_size=5), st.none())


@settings(max_examples=150, deadline=None)
@given(
    kinds=st.lists(st.booleans(), min_size=2, max_size=4),
    rows=st.integers(1, 8),
    delimiter=st.sampled_from(",;\t|"),
    end=st.sampled_from(["\n", "\r\n"]),
    data=st.data(),
)
def test_what_is_written_is_read(kinds, rows, delimiter, end, data, tmp_path_factory):
    columns = [data.draw(st.lists(values if number else strings, min_size=rows, max_size=rows)) for number in kinds]
    file = tmp_path_factory.getbasetemp() / "written.csv"
    with open(file, "w", newline="", encoding="utf-8") as stream:
        writer = csv_module.writer(stream, delimiter=delimiter, lineterminator=end, quoting=csv_module.QUOTE_ALL)
        writer.writerow([f"column {k}" for k in range(len(kinds))])
        writer.writerows(zip(*columns, strict=True))
    told = {f"column {k}": "number" if number else "category" for k, number in enumerate(kinds)}
    for table in (csv(file, kinds=told), csv(file, kinds=told, delimiter=delimiter, header=True, memory=0)):
        for name, number, column in zip(table.names, kinds, columns, strict=True):
            if number:
                np.testing.assert_array_equal(table[name], np.array(column, float))
            else:
                assert table[name].tolist() == [(cell or "").strip() for cell in column]
