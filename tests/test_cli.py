import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from gpubp import cli
from gpubp.cli import main


def test_version(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"gpubp {metadata.version('gpubp')}\n"


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
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    assert set(cli._PURPOSES) == set(project["optional-dependencies"])


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


def test_a_run_folder_that_cannot_be_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit, match="^gpubp train: .*file/run'$"):
        main(["train", "digits", "--out", str(tmp_path / "file" / "run"), "--device", "cpu"])


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["train", "mnist"], "invalid choice: 'mnist'"),
        (["train", "digits", "--epochs", "0"], "expected a whole number from 1, got '0'"),
        (["train", "digits", "--seed", "-1"], "expected a whole number from 0, got '-1'"),
        (["train", "digits", "--device", "gpu"], "device 'gpu' (asked for) is not one of 'auto', 'cpu', 'cuda'"),
        (["train", "digits", "--device", "cuda"], "CuPy is not installed: pip install 'gpubp[cuda13]'"),
        (["check", "layer.py"], "expected FILE.py:NAME, got 'layer.py'"),
        (["check", "no/such.py:Layer"], "there is no file 'no/such.py'"),
    ],
)
def test_bad_arguments(argv, message, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(SystemExit) as stop:
        main(argv)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
