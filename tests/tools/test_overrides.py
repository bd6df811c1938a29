"""The table of kernels in the documentation is that of the code."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import gpubp.functions  # noqa: F401  (which fills the table)
from gpubp.fused import FUSED

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "kernels.md"


def overrides(*arguments):
    command = [sys.executable, "-m", "tools.overrides", *arguments]  # a process without, or with the stand-in's, CuPy
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.skipif(find_spec("gpubp.kernels") is None, reason="the overrides have been taken away")
def test_the_page_is_up_to_date():
    done = overrides("--check")
    assert done.returncode == 0, done.stderr


def test_the_page_knows_kernels_and_functions_without_one():
    rows = dict(line.split(" | ", 1) for line in PAGE.read_text().splitlines() if line.startswith("| `"))
    assert rows["| `softmax`"] == "numpy/softmax.py | cupy/softmax.py |"
    assert rows["| `adam (optimizer)`"].startswith("numpy/update.py | ")
    assert {f"| `{name}`" for name in FUSED} <= set(rows)
