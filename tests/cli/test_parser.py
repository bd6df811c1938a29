import os
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from gpubp.cli import info, main


def test_version(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"gpubp {metadata.version('gpubp')}\n"


def test_help_imports_nothing_that_is_slow():
    code = (
        "import sys; from gpubp.cli import main\ntry: main(['train', '--help'])\nexcept SystemExit: print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--batch-norm" in done.stdout
    loaded = done.stdout.splitlines()[-1].split()
    assert "gpubp.cli.parser" in loaded
    assert not {"gpubp.nn", "gpubp.data", "gpubp.training", "gpubp.testing", "tqdm", "safetensors"} & {*loaded}


def test_info_names_versions_devices_and_extras(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert main(["info"]) == 0
    out = capsys.readouterr().out
    assert f"NumPy {metadata.version('numpy')}" in out
    assert "no CUDA: CuPy is not installed" in out
    assert f"safetensors {metadata.version('safetensors')}" in out
    for extra in metadata.metadata("gpubp").get_all("Provides-Extra"):
        assert re.search(rf"^  {extra} +\w", out, re.MULTILINE)


def test_every_extra_has_a_purpose():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert set(info.PURPOSES) == set(project["optional-dependencies"])


def test_info_says_how_to_add_a_missing_extra(monkeypatch, capsys):
    installed = metadata.version

    def version(name):
        if name.startswith("matplotlib"):
            raise metadata.PackageNotFoundError(name)
        return installed(name)

    monkeypatch.setattr(metadata, "version", version)
    assert main(["info"]) == 0
    out = capsys.readouterr().out
    assert "matplotlib (missing)" in out
    assert "pip install 'gpubp[plot]'" in out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["train", "digits", "--epochs", "0"], "expected a whole number from 1, got '0'"),
        (["train", "digits", "--seed", "-1"], "expected a whole number from 0 to 9223372036854775807, got '-1'"),
        (["train", "digits", "--lr", "nan"], "expected a number above 0, got 'nan'"),
        (["train", "digits", "--lr", "0"], "expected a number above 0, got '0'"),
        (["train", "digits", "--dropout", "1"], "expected a number from 0 to below 1, got '1'"),
        (["train", "digits", "--hidden", "12x"], "expected a whole number from 1 to 1048575, got '12x'"),
        (["train", "digits", "--optimizer", "adamwe"], "it cannot be 'adamwe'; did you mean 'adamw'?"),
        (["train", "digits", "--device", "gpu"], "device 'gpu' (asked for) is not one of 'auto', 'cpu', 'cuda'"),
        (["train", "digits", "--device", "cuda"], "CuPy is not installed: pip install 'gpubp[cuda13]'"),
        (["train", "digits", "--model", "net.py"], "expected FILE.py:FUNCTION, got 'net.py'"),
        (["train", "digits", "--model", "no/such.py:net"], "there is no file 'no/such.py'"),
        (["train", "digits", "--quiet", "--json"], "not allowed with argument --quiet"),
        (["check", "layer.py"], "expected FILE.py:NAME, got 'layer.py'"),
        (["check", "no/such.py:Layer"], "there is no file 'no/such.py'"),
    ],
)
def test_bad_arguments(argv, message, monkeypatch, gpubp):
    monkeypatch.setitem(sys.modules, "cupy", None)
    done = gpubp(*argv)
    assert done.status == 2
    assert message in done.err


def test_the_installed_command_hands_on_the_status(tmp_path):
    code = "import sys; from gpubp.cli import main; sys.exit(main(['evaluate', 'nothing']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=os.environ)
    assert (done.returncode, done.stderr) == (2, "gpubp evaluate: nothing is no run folder: there is no such folder\n")


def test_python_m_gpubp_is_the_command():
    done = subprocess.run([sys.executable, "-m", "gpubp", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"gpubp {metadata.version('gpubp')}\n"


def test_a_wrong_option_is_told_in_one_line(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["train", "digits", "--epochs", "0"])
    assert caught.value.code == 2
    assert capsys.readouterr().err == (
        "gpubp train: argument --epochs: expected a whole number from 1, got '0' "
        "(gpubp train --help lists all options)\n"
    )


def test_a_model_is_a_python_file(capsys, tmp_path):
    (tmp_path / "cars.csv").write_text("a,b\n1,2\n")
    with pytest.raises(SystemExit) as caught:
        main(["train", "digits", "--model", f"{tmp_path / 'cars.csv'}:wide"])
    assert caught.value.code == 2
    assert "expected FILE.py:FUNCTION, got" in capsys.readouterr().err
