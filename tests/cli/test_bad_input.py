"""What a user can do wrong: one line on stderr, the right status, no traceback."""

import json
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.cli.tables import flowers, lengths

FAILED, WRONG = 1, 2


def replaced(text, line, new):
    lines = text.splitlines()
    lines[line] = new
    return "\n".join(lines) + "\n"


def wrong(done, message, status=WRONG, *, lines=1):
    assert (done.status, done.out) == (status, ""), done.err
    assert message in done.err
    assert "Traceback" not in done.err
    told = [line for line in done.err.splitlines() if not line.startswith("gpubp: computing on")]
    assert len(told) == lines, told
    assert told[0].startswith("gpubp ")


TABLES = {
    "empty": ("", "a.csv: the file is empty"),
    "a header alone": ("a,b,y\n", "a.csv has no rows of data"),
    "one class only": ("a,b,y\n" + "1,2,yes\n3,5,yes\n" * 9, "the target 'y' of a.csv has one value only, 'yes'"),
    "one number only": ("a,b,y\n" + "1,2,0.5\n3,5,0.5\n" * 9, "the target 'y' of a.csv has one value only, 0.5"),
    "no target known": ("a,b,y\n" + "1,2,\n3,5,\n" * 9, "the target 'y'"),
    "a ragged row": (replaced(lengths(), 5, "1,2"), "a.csv: line 6 has 2 cells"),
    "text in a number column": (
        replaced(lengths(), 7, "big,0.5,3.0"),
        "column 'a' should be one of numbers: line 8 holds 'big' where 79 cells are numbers. Mend the cells, or give "
        "--category a or --ignore a",
    ),
    "text in a number target": (replaced(lengths(), 7, "1,0.5,big"), "line 8 holds 'big' where 79 cells are numbers"),
    "one column": ("y\n" + "1\n2\n3.5\n" * 9, "no column of a.csv is left to be an input"),
    "not text": (b"a,b\xff\n1,2\n", "a.csv: line 1 is not utf-8 text"),
}


@pytest.mark.parametrize("name", TABLES)
def test_tables(gpubp, tmp_path, name):
    text, message = TABLES[name]
    (tmp_path / "a.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    wrong(gpubp("train", "a.csv", "--device", "cpu"), message)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["nothing.csv"], "there is no file 'nothing.csv'"),
        (["mnits"], "there is no file and no data set called 'mnits'; did you mean 'mnist'?"),
        (["a.csv", "--target", "Y"], "a.csv has no column 'Y'; there are a, b, y"),
        (["a.csv", "--ignore", "aa"], "a.csv has no column 'aa'"),
        (["a.csv", "--category", "aa"], "kinds names a column 'aa', which is not there"),
        (["a.csv", "--task", "classes"], "the target 'y' of a.csv has numbers that are not whole: no classes"),
        (["a.csv", "--batch-size", "1000"], "--batch-size 1000 is larger than the 58 rows to learn from"),
        (["a.csv", "--test", "no.csv"], "no.csv'"),
        (["a.csv", "--test-fraction", "0.99", "--validation-fraction", "0.99"], "none is left to learn from"),
        (["a.csv", "--early-stopping", "3", "--validation-fraction", "0"], "needs rows for validation"),
        (["a.csv", "--config", "no.toml"], "no.toml: No such file or directory"),
        (["a.jpg"], "a.jpg: the name of a file should end in .npy, .npz, .csv"),
        (["x.npy"], "x.npy holds inputs alone: name the file of the targets, as in --target y.npy"),
        (["a.npz", "--inputs", "X"], "a.npz holds no array 'X'; there are x, y, z"),
        (["a.npz", "--target", "z"], "a.npz has 5 inputs, but 4 targets"),
        (["autoencoder8"], "the targets of the data set autoencoder8 must be one number or label a row"),
    ],
)  # fmt: skip
def test_options_that_do_not_fit_the_data(gpubp, tmp_path, argv, message):
    (tmp_path / "a.csv").write_text(lengths())
    (tmp_path / "a.jpg").write_text("")
    np.save(tmp_path / "x.npy", np.zeros((5, 2)))
    np.savez(tmp_path / "a.npz", x=np.zeros((5, 2)), y=np.arange(5) % 2, z=np.zeros(4))
    wrong(gpubp("train", *argv, "--device", "cpu"), message)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.zeros((0, 2)), np.zeros(0), "a.npz has no rows"),
        (np.full((9, 2), np.nan), np.arange(9) % 2, "the inputs of a.npz hold nan at (0, 0)"),
        (np.zeros((9, 2)), np.zeros(9, int), "the targets of a.npz have one value only, 0: nothing to learn"),
        (np.zeros((9, 2)), np.ones(9), "the targets of a.npz have one value only, 1.0: nothing to learn"),
        (np.zeros((9, 2)), np.full(9, np.inf), "the targets of a.npz hold inf at (0,)"),
        (
            np.zeros((9, 2)),
            np.zeros((9, 2)),
            "the targets of a.npz must be one number or label a row, got float64 (9, 2)",
        ),
        (np.zeros((9, 2), complex), np.arange(9), "the inputs of a.npz must be numbers, got complex128"),
    ],
)
def test_arrays(gpubp, tmp_path, x, y, message):
    np.savez(tmp_path / "a.npz", x=x, y=y)
    wrong(gpubp("train", "a.npz", "--device", "cpu"), message)


def test_an_array_file_that_is_none(gpubp, tmp_path):
    (tmp_path / "a.npz").write_text("nothing")
    wrong(gpubp("train", "a.npz", "--device", "cpu"), "a.npz: this is no whole .npz file")


def test_missing_numbers_are_reported(gpubp, tmp_path):
    (tmp_path / "a.csv").write_text(replaced(replaced(lengths(), 7, "NaN,0.5,3.0"), 9, "1.0,0.5,"))
    done = gpubp("train", "a.csv", "--epochs", 1, "--device", "cpu", "--test-fraction", 0, "--validation-fraction", 0)
    assert done.status == 0, done.err
    assert "79 rows to learn from" in done.out
    assert "note: column 'a': 1 missing; the mean stands in, and an input says so" in done.out
    assert "note: 1 row has no target" in done.out


@pytest.fixture
def run(gpubp, tmp_path):
    """A trained run folder."""
    (tmp_path / "flowers.csv").write_text(flowers())
    done = gpubp("train", "flowers.csv", "--epochs", 1, "--device", "cpu", "--quiet", "--out", "run")
    assert done.status == 0, done.err
    return tmp_path / "run"


def test_a_run_folder_that_exists(gpubp, run, tmp_path):
    again = ["train", "flowers.csv", "--epochs", 1, "--device", "cpu", "--quiet", "--out"]
    before = (run / "model.safetensors").read_bytes()
    wrong(gpubp(*again, "run"), "run holds a run already: go on with it by `gpubp resume ")
    assert (run / "model.safetensors").read_bytes() == before
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("")
    wrong(gpubp(*again, "other"), "exists and holds no run: give another folder with --out")
    wrong(gpubp(*again, "other", "--overwrite"), "exists and holds no run")
    wrong(gpubp(*again, "flowers.csv"), "flowers.csv is no folder: give another one with --out")
    assert gpubp(*again, "run", "--overwrite", "--hidden", 3).status == 0
    assert (run / "model.safetensors").read_bytes() != before


def test_a_run_folder_that_cannot_be(gpubp, tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "a.csv").write_text(lengths())
    wrong(gpubp("train", "a.csv", "--out", "file/run", "--device", "cpu", "--quiet"), "Not a directory")


def test_a_read_only_folder(gpubp, tmp_path, monkeypatch):
    (tmp_path / "a.csv").write_text(lengths())

    def refused(file, *_):  # which even root meets
        raise PermissionError(13, "Permission denied", str(file))

    monkeypatch.setattr("gpubp.cli.runs.write_atomically", refused)
    done = gpubp("train", "a.csv", "--out", "run", "--device", "cpu", "--quiet")
    wrong(done, "run/encoding.json: Permission denied")


@pytest.mark.parametrize("what", ["gpubp.cli.train.save", "gpubp.training.Checkpoints.save"])
def test_a_full_disk(gpubp, tmp_path, monkeypatch, what):
    (tmp_path / "a.csv").write_text(lengths())

    def full(*_, **__):
        raise OSError(28, "No space left on device", "run/some.safetensors")

    with monkeypatch.context() as patch:
        patch.setattr(what, full)
        done = gpubp("train", "a.csv", "--epochs", 1, "--out", "run", "--device", "cpu", "--quiet")
    wrong(done, "run/some.safetensors: No space left on device", FAILED)
    assert done.err.endswith(f"gpubp resume {tmp_path / 'run'}\n")
    assert gpubp("resume", "run", "--quiet").status == 0
    assert (tmp_path / "run" / "result.json").is_file()


@pytest.mark.parametrize("command", ["predict", "evaluate", "resume"])
def test_no_run_folder(gpubp, tmp_path, command):
    argv = ["nothing", "a.csv"] if command != "resume" else ["nothing"]
    wrong(gpubp(command, *argv), "nothing is no run folder: there is no such folder")
    (tmp_path / "nothing").mkdir()
    wrong(gpubp(command, *argv), "nothing is no run folder")


def test_a_table_that_lacks_a_column(gpubp, run, tmp_path):
    (tmp_path / "b.csv").write_text("length,colour\n1,red\n")
    wrong(gpubp("predict", "run", "b.csv"), "b.csv has no column 'width'")
    (tmp_path / "b.csv").write_text("length,width,colour\n1,wide,red\n")
    wrong(gpubp("predict", "run", "b.csv"), "b.csv: line 2: column 'width' holds 'wide', which is no number")
    (tmp_path / "b.csv").write_text("length,width,colour\n1,2,red\n")
    wrong(gpubp("evaluate", "run", "b.csv"), "b.csv has no column 'kind'")
    (tmp_path / "b.csv").write_text("length,width,colour,kind\n1,2,red,z\n")
    wrong(gpubp("evaluate", "run", "b.csv"), "the target 'kind' of b.csv is 'z' in row 0 (from 0), which is none of")


def test_other_inputs_than_those_learned_from(gpubp, run, tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros((9, 2)), y=np.arange(9) % 2)
    wrong(gpubp("predict", "run", "a.npz"), "a.npz is no table, but the net has learned from one")
    wrong(gpubp("evaluate", "run", "xor"), "the data set xor is no table, but the net has learned from one")
    assert gpubp("train", "a.npz", "--epochs", 1, "--device", "cpu", "--out", "other").status == 0
    wrong(gpubp("predict", "other", "flowers.csv"), "flowers.csv is a table, but the net has learned from arrays")
    np.savez(tmp_path / "b.npz", x=np.zeros((9, 8, 8)), y=np.arange(9) % 3)
    wrong(
        gpubp("predict", "other", "b.npz"), "the inputs of b.npz are of shape (8, 8, 1), but the net has learned from"
    )
    np.savez(tmp_path / "c.npz", x=np.zeros((9, 2)), y=np.arange(9) % 3)
    wrong(gpubp("evaluate", "other", "c.npz"), "c.npz has the label '2', which is none of the classes 0, 1")


def test_a_broken_run_folder(gpubp, run):
    whole = {name: (run / name).read_bytes() for name in ("config.json", "encoding.json", "model.safetensors")}
    for name, content in whole.items():
        for broken in (content[: len(content) // 2], b"", b"[]", b"\xff"):
            (run / name).write_bytes(broken)
            wrong(gpubp("predict", "run", "flowers.csv"), "run")
        (run / name).write_bytes(content)
    (run / "config.json").write_bytes(whole["config.json"].replace(b'"seed"', b'"sead"'))
    wrong(gpubp("predict", "run", "flowers.csv"), "run is no whole run folder")


@pytest.fixture
def arrays_run(gpubp, tmp_path):
    np.savez(tmp_path / "a.npz", x=np.random.default_rng(0).normal(size=(20, 3)), y=np.arange(20) % 2)
    assert gpubp("train", "a.npz", "--epochs", 1, "--device", "cpu", "--hidden", 2, "--out", "arrays").status == 0
    return tmp_path / "arrays"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=3), x, max_size=3),
    max_leaves=5,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(data=st.data())
def test_a_run_folder_that_was_tampered_with(gpubp, run, arrays_run, data):
    run, file = data.draw(st.sampled_from([(run, "flowers.csv"), (arrays_run, "a.npz")]))
    name = data.draw(st.sampled_from(["config.json", "encoding.json"]))
    whole = (run / name).read_bytes()
    content = json.loads(whole)
    place = content
    while data.draw(st.booleans()) and isinstance(place, dict | list) and place:
        inner = place[data.draw(st.sampled_from([*place] if isinstance(place, dict) else [*range(len(place))]))]
        if not isinstance(inner, dict | list) or not inner:
            break
        place = inner
    place[data.draw(st.sampled_from([*place] if isinstance(place, dict) else [*range(len(place))]))] = data.draw(JSON)
    (run / name).write_text(json.dumps(content))
    try:
        done = gpubp("predict", run, file, "--device", "cpu")
    finally:
        (run / name).write_bytes(whole)
    assert done.status in (0, FAILED, WRONG)
    assert "Traceback" not in done.err


def test_a_loss_that_is_not_finite(gpubp, tmp_path):
    (tmp_path / "a.csv").write_text(lengths())
    argv = ["--optimizer", "sgd", "--lr", "1e18", "--epochs", 3, "--device", "cpu", "--quiet"]
    wrong(gpubp("train", "a.csv", *argv), "not finite", FAILED)


# -- a net of the user's own

NET = """
from gpubp import nn

def net(shape, outputs):
    return nn.Sequential(nn.Dense(shape[0], 5), nn.tanh, nn.Dense(5, outputs))

def wide(shape, outputs):
    return nn.Sequential(nn.Dense(shape[0], outputs + 1))

def narrow(shape, outputs):
    return nn.Sequential(nn.Dense(shape[0] + 1, outputs))

def nothing():
    return None

def asks(width):
    return None

def fails(seed):
    return 1 / 0

class Bad(nn.Layer):
    def __init__(self):
        self.w = nn.Parameter((4, 3), nn.zeros)

    def __call__(self, x):
        return x @ self.ww

def bad():
    return Bad()
"""


def model(gpubp, tmp_path, name, text=NET):
    (tmp_path / "flowers.csv").write_text(flowers())
    (tmp_path / "net.py").write_text(text)
    return gpubp("train", "flowers.csv", "--epochs", 1, "--device", "cpu", "--quiet", "--model", f"net.py:{name}")


def test_a_net_of_ones_own(gpubp, tmp_path):
    assert model(gpubp, tmp_path, "net").status == 0
    (tmp_path / "net.py").unlink()  # the run folder has a copy
    assert gpubp("evaluate", "runs/flowers", "flowers.csv").status == 0
    assert gpubp("predict", "runs/flowers", "flowers.csv").out.count("\n") == 61


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nett", "net.py has no function 'nett'; there are net, wide, narrow, nothing, asks, fails, bad"),
        ("wide", "the net must make 3 outputs of each input, for classes: of 2 inputs (4,) an array (2, 3)"),
        ("narrow", "the net does not fit the data: "),
        ("nothing", "nothing of"),
        ("asks", "asks for 'width'; it can be given shape, outputs, task, seed"),
    ],
)  # fmt: skip
def test_a_function_that_makes_no_net_for_the_data(gpubp, tmp_path, name, message):
    done = model(gpubp, tmp_path, name)
    assert (done.status, done.out) == (WRONG, "")
    assert message in done.err
    assert not (tmp_path / "runs").exists()
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("name", "line", "error"),
    [("fails", 20, "ZeroDivisionError: division by zero"), ("bad", 27, "AttributeError: 'Bad' object has no")],
)
def test_faults_of_ones_own_code_come_with_their_traceback(gpubp, tmp_path, name, line, error):
    done = model(gpubp, tmp_path, name)
    assert (done.status, done.out) == (FAILED, "")
    assert f"net.py:{line}: {error}" in done.err
    assert "Traceback" in done.err
    assert "gpubp/cli" not in done.err


def test_a_file_that_is_no_python(gpubp, tmp_path):
    done = model(gpubp, tmp_path, "net", "def net(:\n")
    assert done.status == FAILED
    assert "net.py:1: SyntaxError: invalid syntax" in done.err


def test_no_cuda(gpubp, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    (tmp_path / "a.toml").write_text('device = "cuda"')
    wrong(
        gpubp("train", "digits", "--config", "a.toml"), "a.toml: device: device 'cuda' was asked for, but CuPy is not"
    )
