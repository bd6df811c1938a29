"""The documentation is true: its Python blocks and the examples of the docstrings run.

A ``python`` block runs, all those of a file one after another; a ``pycon`` block shows its results too. What cannot
run stands behind a comment ``<!-- not run: why -->``.
"""

import doctest
import importlib
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import gpubp as bp
from gpubp import nn

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
SOURCES = [
    path
    for path in sorted((ROOT / "gpubp").rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8") and "kernels/cupy" not in path.as_posix()  # which need a GPU
]
UNTIMED = """from hypothesis import settings

settings.register_profile("page", deadline=None)
settings.load_profile("page")
"""
BLOCK = re.compile(r"(<!-- not run: .+ -->\n)?^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page, language):
    """The code of a page's blocks and the lines they start at."""
    text = page.read_text(encoding="utf-8")
    for found in BLOCK.finditer(text):
        if found[2] == language and not found[1]:
            yield found[3], text.count("\n", 0, found.start(3))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks(page, tmp_path):
    lines = [""] * len(page.read_text(encoding="utf-8").splitlines())  # so that errors have the page's line numbers
    for code, start in blocks(page, "python"):
        for k, line in enumerate(code.splitlines()):
            lines[start + k] = line
    if not any(lines):
        pytest.skip("no Python block")
    (tmp_path / "conftest.py").write_text(UNTIMED, encoding="utf-8")
    script = tmp_path / f"page_{page.stem}.py"
    script.write_text("\n".join(lines), encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", script]  # which runs the tests that a page shows, too
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED), done.stdout


def run(test):
    output = []
    failed, tried = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(test, out=output.append)
    assert tried > 0
    assert not failed, "".join(output)


@pytest.mark.parametrize("page", [p for p in PAGES if any(blocks(p, "pycon"))], ids=lambda page: page.name)
def test_shown_results(page):
    code = "\n".join(code for code, _ in blocks(page, "pycon"))
    run(doctest.DocTestParser().get_doctest(code, {}, page.name, str(page), 0))


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_docstrings(source, monkeypatch):
    if source.stem == "strategies":
        pytest.importorskip("hypothesis")
    if source.parent.name == "cupy":
        pytest.importorskip("cupy")
    name = ".".join(source.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    fused = sys.modules["gpubp.fused"]
    monkeypatch.setattr(fused, "FUSED", dict(fused.FUSED))  # examples of fused functions need no catalogue record
    module = importlib.import_module(name)
    names = {"np": np, "bp": bp, "nn": nn, **vars(module)}
    for test in doctest.DocTestFinder(exclude_empty=True).find(module, name, globs=names):
        if test.examples:
            run(test)
