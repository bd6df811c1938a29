import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpubp.cli.problems import BadInput
from gpubp.cli.settings import NAMES, read_toml, settings_of
from tests.cli.tables import flowers


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    file = tmp_path_factory.mktemp("config") / "a.toml"

    def write(content):
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(file)

    return write


def test_a_file_holds_what_the_command_line_can_say(config):
    file = config('data = "a.csv"\nhidden = [12, 7]\nlr = 1\nbatch_norm = true\nignore = ["id", "name"]\nseed = 3\n')
    found = settings_of({"data": None}, file)
    assert (found.data, found.hidden, found.lr, found.batch_norm) == ("a.csv", (12, 7), 1.0, True)
    assert (found.ignore, found.seed, found.epochs) == (("id", "name"), 3, None)


def test_the_command_line_wins(config):
    file = config('data = "a.csv"\nhidden = [12, 7]\nbatch_norm = true\nepochs = 5\n')
    found = settings_of({"data": "b.csv", "hidden": [3], "batch_norm": False}, file)
    assert (found.data, found.hidden, found.batch_norm, found.epochs) == ("b.csv", (3,), False, 5)


def test_options_win_over_the_file_in_the_command(gpubp, config, tmp_path):
    (tmp_path / "flowers.csv").write_text(flowers())
    file = config('data = "flowers.csv"\nhidden = [12, 7]\nbatch_norm = true\nepochs = 1\ndevice = "cpu"\n')
    done = gpubp("train", "--config", file, "--hidden", 9, "--no-batch-norm")
    assert done.status == 0, done.err
    assert "Dense(4, 9)" in done.out
    assert "BatchNorm" not in done.out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs = ", "a.toml is no TOML file of settings: Invalid value (at end of document)"),
        (b"\xff\xfe", "a.toml is no TOML file of settings: 'utf-8' codec can't decode"),
        ("epoch = 3", "there is no setting 'epoch'; did you mean 'epochs'?"),
        ("[net]\nhidden = [3]", "there is no setting 'net'"),
        ("epochs = 0", "epochs: expected a whole number from 1, got '0'"),
        ("epochs = 1.5", "epochs: expected a whole number, got '1.5'"),
        ("epochs = true", "epochs: expected a whole number, got 'True'"),
        ('epochs = "3"', "epochs: expected a whole number, got '3'"),
        ("hidden = 3", "hidden: expected a list, as in [128, 64], got 3"),
        ('hidden = [3, "a"]', "hidden: expected a whole number, got 'a'"),
        ("lr = nan", "lr: expected a number above 0, got 'nan'"),
        ('batch_norm = "yes"', "batch_norm: expected true or false, got 'yes'"),
        ('activation = "rely"', "activation: it cannot be 'rely'; did you mean 'relu'?"),
        ('model = "no.py:net"', "model: there is no file 'no.py'"),
        ("x = " + "[" * 20000, "it is nested too deeply"),
        ("# " + "x" * 2**20, "it is larger than 1048576 bytes"),
    ],
)
def test_what_is_no_settings(config, text, message):
    with pytest.raises(BadInput) as problem:
        settings_of({"data": "digits"}, config(text))
    assert message in str(problem.value)


def test_no_such_file():
    with pytest.raises(BadInput, match="no/such.toml: No such file or directory"):
        read_toml("no/such.toml")


def test_nothing_to_learn_from(gpubp):
    done = gpubp("train")
    assert done.status == 2
    assert "expected a file, a folder, or the name of a data set" in done.err


scalars = st.one_of(
    st.integers(-(2**70), 2**70).map(str),
    st.floats().map(lambda x: f"{x:f}" if abs(x) < 1e9 else repr(x).replace("+", "")),
    st.sampled_from(["true", "false", "1979-05-27", "0xffff", '"relu"', '"a\\u0000b"', "''", '"""x\ny"""', "1e400"]),
    st.text(max_size=5).map(lambda s: repr(s)),
)
values = st.recursive(scalars, lambda x: st.lists(x, max_size=3).map(lambda xs: f"[{', '.join(xs)}]"), max_leaves=6)
lines = st.tuples(st.sampled_from([*NAMES, "net", "a.b", "[x]"]), values).map(lambda pair: f"{pair[0]} = {pair[1]}")


@given(st.one_of(st.binary(max_size=200), st.text(max_size=200), st.lists(lines, max_size=4).map("\n".join)))
def test_any_file_gives_settings_or_a_message(config, content):
    file = config(content if isinstance(content, bytes) else content.encode("utf-8", "replace"))
    try:
        found, message = read_toml(file), file
    except BadInput as problem:
        found, message = {}, str(problem)
    assert {*found} <= {*NAMES}
    assert message.startswith(file)
    assert len(message) < 2000
