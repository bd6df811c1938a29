"""Every kernel under compute-sanitizer, where there is one; and the command that runs it, where there is none."""

import subprocess
import sys

import pytest

import gpubp.functions  # noqa: F401  (which fills the table)
from gpubp.fused import FUSED
from tools import sanitize

FAKE = """#!/bin/sh
echo "$@"
exit 99
"""


@pytest.mark.slow
@pytest.mark.parametrize("tool", ["memcheck", "racecheck", "synccheck"])
def test_a_tool_finds_nothing(tool, backend):
    if backend.name != "cupy" or hasattr(sys.modules["cupy"], "no_host_reads"):
        pytest.skip("kernels run on a GPU only")
    if sanitize.sanitizer() is None:
        pytest.skip("compute-sanitizer is not installed: it comes with the CUDA toolkit")
    status, output = sanitize.run(tool)
    assert status == 0, output[-20000:]
    assert " passed" in output


@pytest.fixture
def fake(tmp_path, monkeypatch):
    program = tmp_path / "compute-sanitizer"
    program.write_text(FAKE)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")


def test_what_is_run(fake):
    status, output = sanitize.run("memcheck")
    assert status == sanitize.FOUND
    assert "--tool memcheck --error-exitcode 99" in output
    assert "-m pytest -q -p tests.unpooled --backends cupy tests/test_catalogue.py" in output
    assert "-k softmax" in sanitize.run("racecheck", ["-k", "softmax"])[1]


def test_what_is_selected_is_there():
    """Every fused function, and the optimizers; collected with the stand-in in CuPy's place."""
    command = ["-m", "pytest", "-q", "--collect-only", "-p", "tests.fake_cupy", "--backends", "cupy"]
    done = subprocess.run(
        [sys.executable, *command, *sanitize.SELECTED], cwd=sanitize.ROOT, capture_output=True, text=True
    )
    for name in FUSED:
        assert f"test_hand_written_passes_agree_with_the_reference[cupy-{name}]" in done.stdout
    assert "tests/optim/" in done.stdout
    assert "tests/kernels/" in done.stdout


def test_the_command_ends_with_what_was_found(fake, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["sanitize", "--tool", "synccheck", "racecheck"])
    assert sanitize.main() == 99
    assert capsys.readouterr().out.count("=== ") == 2


def test_where_there_is_none_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(sanitize, "sanitizer", lambda: None)
    assert sanitize.run("memcheck") == (127, "compute-sanitizer is not installed: it comes with the CUDA toolkit")


def test_where_there_is_none_the_command_says_so_once(monkeypatch, capsys):
    monkeypatch.setattr(sanitize, "sanitizer", lambda: None)
    monkeypatch.setattr(sys, "argv", ["sanitize"])
    assert sanitize.main() == 127
    assert capsys.readouterr().err == sanitize.ABSENT + "\n"
