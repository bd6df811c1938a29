import json
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpubp.data import Encoding, csv

PETS = """age,weight,kind,colour,sold
1,2.5,cat,black,yes
2,,dog,,no
3,4.5,cat,white,yes
6,3.5,,black,no
100,100,bird,red,no
"""
TRAIN = np.arange(4)


@pytest.fixture
def read(tmp_path):
    def read(text, name="pets.csv", **options):
        (tmp_path / name).write_text(text, encoding="utf-8")
        return csv(tmp_path / name, **options)

    return read


def test_inputs_of_the_training_rows_statistics(read):
    table = read(PETS)
    encoding = Encoding.fit(table, "sold", TRAIN)
    assert encoding.features == (
        "age", "weight", "weight is missing", "kind=cat", "kind=dog", "kind is missing",
        "colour=black", "colour=white", "colour is missing",
    )  # fmt: skip
    age, weight = np.array([1, 2, 3, 6, 100.0]), np.array([2.5, 3.5, 4.5, 3.5, 100])
    expected = np.array([[0] * 9] * 5, np.float64)
    expected[:, 0] = (age - age[:4].mean()) / age[:4].std()
    expected[:, 1] = (weight - 3.5) / np.std([2.5, 4.5, 3.5])
    expected[1, 2] = expected[[0, 2], 3] = expected[1, 4] = expected[3, 5] = 1
    expected[[0, 3], 6] = expected[2, 7] = expected[1, 8] = 1
    x = encoding.inputs(table)
    assert x.dtype == np.float32
    np.testing.assert_allclose(x, expected, rtol=1e-6)
    np.testing.assert_array_equal(encoding.inputs(table, np.array([4, 0, 4])), x[[4, 0, 4]])
    assert encoding.unknown(table) == {"kind": 1, "colour": 1}
    assert encoding.unknown(table, TRAIN) == {}
    assert repr(encoding) == "Encoding(4 columns, 9 inputs, binary of 'sold')"
    assert repr(Encoding.fit(table)) == "Encoding(5 columns, 13 inputs)"


def test_source(read):
    table = read(PETS)
    encoding = Encoding.fit(table, "sold")
    source = encoding.source(table, np.array([3, 1, 0]))
    assert (len(source), source.shape, source.ndim, source.dtype) == (3, (3, len(encoding.features)), 2, np.float32)
    np.testing.assert_array_equal(source.take(np.array([2, 0])), encoding.inputs(table)[[0, 3]])


def test_labels(read):
    table = read(PETS)
    encoding = Encoding.fit(table, "sold")
    assert (encoding.task, encoding.classes, encoding.outputs) == ("binary", ("no", "yes"), 2)
    labels = encoding.targets(table, TRAIN)
    assert labels.dtype == np.int64
    assert labels.tolist() == [1, 0, 1, 0]
    encoding = Encoding.fit(table, "kind", TRAIN)
    assert (encoding.task, encoding.classes) == ("classes", ("bird", "cat", "dog"))  # of all rows
    assert encoding.notes[0] == "1 rows are left out: their target 'kind' is missing"
    assert encoding.known(table).tolist() == [0, 1, 2, 4]
    assert encoding.targets(table, encoding.known(table)).tolist() == [1, 2, 1, 0]


def test_a_number_to_be_predicted(read):
    table = read(PETS)
    encoding = Encoding.fit(table, "weight", np.array([0, 1, 2, 3]))
    assert (encoding.task, encoding.outputs, encoding.classes) == ("regression", 1, ())
    y = encoding.targets(table, np.array([0, 2, 3]))
    assert (y.shape, y.dtype) == ((3, 1), np.float32)
    np.testing.assert_allclose(y[:, 0], np.array([-1, 1, 0]) / np.std([-1, 1, 0]), rtol=1e-6)
    np.testing.assert_allclose(encoding.decode(y)["prediction"], [2.5, 4.5, 3.5], rtol=1e-6)


@pytest.mark.parametrize(
    ("values", "task", "classes"),
    [
        ([0, 1] * 3, "binary", ("0", "1")),
        ([2, 1, 1], "binary", ("1", "2")),
        ([-1, 10, 9] * 10, "classes", ("-1", "9", "10")),
        ([1, 2, 3] * 9, "regression", ()),  # too few rows of each
        ([0.5, 1] * 30, "regression", ()),
        (list(range(21)) * 10, "regression", ()),
    ],
)
def test_the_task_follows_from_the_target(read, values, task, classes):
    table = read("x,y\n" + "".join(f"{k},{y}\n" for k, y in enumerate(values)))
    encoding = Encoding.fit(table, "y")
    assert (encoding.task, encoding.classes) == (task, classes)
    if classes:
        assert [float(classes[k]) for k in encoding.targets(table)] == values


def test_a_task_that_is_told(read):
    table = read("x,y\n1,3\n2,1\n3,2\n")
    assert Encoding.fit(table, "y", task="classes").classes == ("1", "2", "3")
    assert Encoding.fit(read("x,y\n1,0\n2,1\n"), "y", task="regression").task == "regression"
    with pytest.raises(ValueError, match="the task 'binary' has two classes, but the target 'y' has 3"):
        Encoding.fit(table, "y", task="binary")
    with pytest.raises(ValueError, match="task must be one of regression, binary, classes, got 'sorting'"):
        Encoding.fit(table, "y", task="sorting")
    with pytest.raises(ValueError, match="the target 'y' of .* has numbers that are not whole: no classes"):
        Encoding.fit(read("x,y\n1,0.5\n2,1\n"), "y", task="classes")


def test_decode(read):
    encoding = Encoding.fit(read(PETS), "sold")
    columns = encoding.decode(np.array([[0, np.log(3)], [1000, 0]], np.float32))
    assert list(columns) == ["prediction", "p(no)", "p(yes)"]
    assert columns["prediction"].tolist() == ["yes", "no"]
    np.testing.assert_allclose(columns["p(yes)"], [0.75, 0], rtol=1e-6)
    np.testing.assert_allclose(columns["p(no)"], [0.25, 1], rtol=1e-6)
    single = encoding.decode(np.array([[np.log(3)], [-1000]]))
    np.testing.assert_allclose(single["p(yes)"], [0.75, 0], rtol=1e-6)
    with pytest.raises(ValueError, match=r"expected outputs of shape \(rows, 2\), got \(4, 3\)"):
        encoding.decode(np.ones((4, 3)))


@pytest.mark.parametrize("target", ["sold", "weight", "kind", None])
def test_json(read, target):
    table = read(PETS)
    encoding = Encoding.fit(table, target)
    again = Encoding.from_dict(json.loads(json.dumps(encoding.to_dict())))
    assert again == encoding
    assert again != Encoding.fit(table, target, ignore=["age"])
    np.testing.assert_array_equal(again.inputs(table), encoding.inputs(table))
    if target:
        rows = encoding.known(table)
        np.testing.assert_array_equal(again.targets(table, rows), encoding.targets(table, rows))


@pytest.mark.parametrize(
    "d",
    [
        {},
        {"columns": 3},
        {"columns": [{"name": "x"}]},
        {"columns": [], "colour": 1},
        5,
        {"columns": [], "target": "y", "task": "sorting"},
        {"columns": [], "task": "binary"},
        {"columns": [], "target": "y", "task": "regression", "mean": "1e"},
    ],
)
def test_json_of_something_else(d):
    with pytest.raises(ValueError, match="this describes no encoding: "):
        Encoding.from_dict(d)


def test_columns_that_are_left_out(read):
    rows = [f"u{k},{k},7,same,,{k % 4},{'abc' if k == 9 else k % 5}" for k in range(50)]
    table = read("id,n,seven,same,empty,x,age\n" + "\n".join(rows))
    encoding = Encoding.fit(table, "x")
    assert encoding.features == ("n", *(f"age={k}" for k in (0, 1, 2, 3, 4, "abc")))
    assert encoding.notes == (
        "column 'id' is left out: 50 different values in 50 rows look like identifiers",
        "column 'n': it counts the rows (ignore leaves it out)",
        "column 'seven' is left out: all cells are 7",
        "column 'same' is left out: all cells are 'same'",
        "column 'empty' is left out: no cell is known",
        "column 'age': line 11 holds 'abc' where 49 cells are numbers",
    )
    with pytest.raises(ValueError, match="no column of .* is left to be an input: column 'id' is left out: 50 .*; col"):
        Encoding.fit(table, "x", ignore=["n", "age", "empty"])


def test_categories_are_capped(read):
    table = read("x,y\n" + "".join(f"v{max(k - 300, 0)},{k % 2}\n" for k in range(450)))
    encoding = Encoding.fit(table, "y")
    assert len(encoding.features) == 100
    assert encoding.features[0] == "x=v0"
    assert encoding.notes == ("of column 'x' the 100 most frequent of 150 values are kept",)
    assert encoding.unknown(table) == {"x": 50}
    table = read("x,y\n" + "".join(f"v{k},{k % 2}\n" for k in range(30)), max_categories=20)
    with pytest.raises(ValueError, match="no column .* is left .*'x' is left out: it is text of too many different"):
        Encoding.fit(table, "y")


def test_new_rows(read):
    encoding = Encoding.fit(read("a,b,c\n1,x,0\n2,y,1\n"), "c")
    new = read("more,b,a\n9,y,2\n9,z,inf\n9,,\n", "new.csv", like=encoding)
    np.testing.assert_array_equal(encoding.inputs(new), [[1, 0, 1], [0, 0, 0], [0, 0, 0]])
    assert encoding.unknown(new) == {"b": 1}
    with pytest.raises(ValueError, match=r"new\.csv has no column 'a'; there are b"):
        encoding.inputs(read("b\nx\n", "new.csv"))
    with pytest.raises(ValueError, match="column 'a' of .* must be one of numbers: line 3 holds 'u' where 2 cells are"):
        encoding.inputs(read("a,b\n1,x\nu,x\n3,x\n", "new.csv"))
    with pytest.raises(ValueError, match="line 3: column 'a' holds 'u', which is no number"):
        read("a,b\n1,x\nu,x\n3,x\n", "new.csv", like=encoding)


def test_numbers_that_were_categories(read):
    encoding = Encoding.fit(read("a,c\n1,0\nx,1\nx,1\n"), "c")
    assert encoding.features == ("a=x", "a=1")
    new = read("a\n1\n2\n\n", "new.csv")
    assert new.kinds == {"a": "number"}
    np.testing.assert_array_equal(encoding.inputs(new), [[0, 1], [0, 0]])
    many = read("a\n1\n" + "".join(f"u{k}\n" for k in range(9)), "new.csv", max_categories=3)
    assert many.kinds == {"a": "text"}
    np.testing.assert_array_equal(encoding.inputs(many), [[0, 1]] + [[0, 0]] * 9)
    assert encoding.unknown(many) == {"a": 9}


def test_labels_that_are_numbers_keep_their_kind(read):
    assert Encoding.fit(read("x,y\n1,0\n2,1\n"), "y").kinds == {"x": "number", "y": "number"}
    table = read("x,y\n1,00\n2,01\n", kinds={"y": "category"})
    encoding = Encoding.fit(table, "y")
    assert encoding.kinds == {"x": "number", "y": "category"}
    assert encoding.targets(table).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("Sold", r"pets\.csv has no column 'Sold'; did you mean 'sold'\? There are sold, one, none, age"),
        ("one", "the target 'one' of .*pets.csv has one value only, 'a': nothing to learn"),
        ("none", "the target 'none' is missing in all rows"),
        ("age", "the target 'age' of .* should be a column of numbers or of classes: line 5 holds 'abc' where 3 cells"),
    ],
)
def test_bad_targets(read, target, message):
    table = read("sold,one,none,age\n1,a,,1\n2,a,,2\n3,,,3\n4,a,,abc\n")
    with pytest.raises(ValueError, match=message):
        Encoding.fit(table, target)


def test_targets_that_differ_in_most_rows(read):
    table = read("x,y\n" + "".join(f"{k % 7},n{k}\n" for k in range(30)))
    with pytest.raises(ValueError, match="'y' of .* numbers or of classes: it has 30 different values in 30 rows"):
        Encoding.fit(table, "y")
    assert len(Encoding.fit(table, "y", task="classes").classes) == 30
    table = read("x;y\n" + "".join(f"{k % 7};{k},5\n" for k in range(30)), decimal=".")
    with pytest.raises(ValueError, match="of numbers or of classes: '0,5' looks like a number with a decimal comma"):
        Encoding.fit(table, "y")


def test_a_regression_of_one_value(read):
    table = read("x,y\n1,0.1\n2,0.1\n3,0.5\n")
    with pytest.raises(ValueError, match="the target 'y' of .* has one value only, 0.1: nothing to learn"):
        Encoding.fit(table, "y", np.arange(2))
    with pytest.raises(ValueError, match="column 'z' of .* must be one of numbers: it holds none"):
        Encoding.fit(read("x,z\n1,a\n2,b\n3,b\n"), "z", task="regression")


def test_targets_of_new_rows(read):
    encoding = Encoding.fit(read(PETS), "kind")
    with pytest.raises(ValueError, match=r"the target 'kind' of .* is missing in 1 rows, row 3 \(from 0\) the first"):
        encoding.targets(read(PETS))
    with pytest.raises(ValueError, match=r"'kind' of .* is 'fish' in row 1 .*none of the classes bird, cat, dog"):
        encoding.targets(read("kind\ncat\nfish\n"))
    with pytest.raises(ValueError, match="has no column 'kind'"):
        encoding.targets(read("a\n1\n"))
    with pytest.raises(ValueError, match="the encoding was made without a target"):
        Encoding.fit(read(PETS)).targets(read(PETS))


def test_rows_that_are_none(read):
    table = read(PETS)
    with pytest.raises(TypeError, match=r"the numbers of rows, got an array of bool of shape \(5,\); np.flatnonzero"):
        Encoding.fit(table, "sold", np.ones(5, bool))
    with pytest.raises(ValueError, match="there are no rows to learn from"):
        Encoding.fit(table, "sold", np.arange(0))
    encoding = Encoding.fit(table, "sold")
    for use in (encoding.source, encoding.inputs, encoding.targets, encoding.known, encoding.unknown):
        with pytest.raises(ValueError, match="rows must be from 0 to 4, got 0 to 5"):
            use(table, np.array([0, 5]))
        with pytest.raises(ValueError, match="rows must be from 0 to 4, got -1 to -1"):
            use(table, np.array([-1]))


NUMBERS, KINDS = st.sampled_from(["", "0", "1", "2.5", "-1e9"]), st.sampled_from(["", "a", "b", "c"])
CELLS = st.lists(st.tuples(NUMBERS, KINDS, NUMBERS), min_size=5, max_size=5)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(train=CELLS, one=CELLS, other=CELLS, chosen=st.permutations(range(10)))
def test_rows_to_test_with_do_not_matter(read, train, one, other, chosen):
    rows = np.sort(chosen[:5])
    cells = np.empty((10, 3), "U8")
    cells[rows] = train

    def learned(test):
        cells[np.setdiff1d(np.arange(10), rows)] = test
        table = read(
            "x,kind,y\n" + "\n".join(map(",".join, cells)), kinds={"x": "number", "kind": "category", "y": "number"}
        )
        try:
            found = Encoding.fit(table, "y", rows, "regression").to_dict()
        except ValueError as error:
            return str(error)
        return found | {"notes": None}  # which also say what is strange in the file

    assert learned(one) == learned(other)


def test_the_task_does_not_hang_on_the_split(read):
    table = read("x,y\n" + "".join(f"{k * k % 31},{k % 20}\n" for k in range(205)))
    assert Encoding.fit(table, "y").task == Encoding.fit(table, "y", np.arange(150)).task == "classes"


def test_columns_to_ignore(read):
    table = read(PETS)
    assert Encoding.fit(table, "sold", ignore="age") == Encoding.fit(table, "sold", ignore=["age"])
    with pytest.raises(ValueError, match="has no column 'ages'; did you mean 'age'"):
        Encoding.fit(table, "sold", ignore="ages")


def test_inputs_are_finite(read):
    table = read("x,y\n" + "".join(f"{k * 1e-12 if k < 59 else 1e100},{k % 2}\n" for k in range(60)) + "1e149,1\n")
    encoding = Encoding.fit(table, "y", np.arange(50))
    assert encoding.inputs(table)[59:].tolist() == [[0], [0]]  # as missing ones
    encoding = Encoding.fit(table, "x", np.arange(50))
    with pytest.raises(
        ValueError, match="'x' of .* is 1e\\+100 in row 59 .*, but about 2.45e-11 in the rows .* too far"
    ):
        encoding.targets(table)


def test_large_and_far_away_numbers(read):
    table = read("x,y,z\n" + "".join(f"{1e9 + k},{k % 2},{1e200 if k == 3 else k % 3}\n" for k in range(1000)))
    encoding = Encoding.fit(table, "y")
    x = np.arange(1000.0)
    np.testing.assert_allclose(encoding.inputs(table)[:, 0], (x - x.mean()) / x.std(), rtol=1e-6, atol=1e-6)
    assert encoding.features == ("x", "z", "z is missing")
    assert encoding.inputs(table)[3].tolist()[1:] == [0, 1]


def test_statistics_of_many_pieces(read, monkeypatch):
    table = read("x,y\n" + "".join(f"{(k * 37) % 101},{k % 2}\n" for k in range(1000)))
    expected = Encoding.fit(table, "y").columns[0]
    monkeypatch.setattr("gpubp.data.encoding._CELLS", 15)
    column = Encoding.fit(table, "y").columns[0]
    np.testing.assert_allclose([column.mean, column.deviation], [expected.mean, expected.deviation], rtol=1e-12)
    np.testing.assert_allclose(column.deviation, table["x"].std(), rtol=1e-12)


@pytest.mark.slow
def test_a_file_larger_than_the_memory_it_is_given(tmp_path):
    """Twenty megabytes are read, encoded and taken by rows, in less than half of that."""
    file, rows = tmp_path / "large.csv", 10_000
    line = np.random.default_rng(0).normal(size=(rows, 24))
    text = "".join(",".join(f"{x:.7f}" for x in row) + f",{'ABC'[k % 3]},{k % 2}\n" for k, row in enumerate(line))
    with open(file, "w") as stream:
        stream.write(",".join(f"x{k}" for k in range(24)) + ",city,y\n")
        stream.writelines([text] * 8)
    assert file.stat().st_size > 19e6
    tracemalloc.start()
    table = csv(file, memory=2**18)
    encoding = Encoding.fit(table, "y", np.arange(0, len(table), 2))
    source = encoding.source(table)
    batch = source.take(np.array([5, rows + 5, 79_999]))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8e6, peak
    assert source.shape == (8 * rows, 24 + 3)
    np.testing.assert_array_equal(batch[0], batch[1])
    column = encoding.columns[0]
    np.testing.assert_allclose(batch[0, 0], (line[5, 0] - column.mean) / column.deviation, rtol=1e-5)
