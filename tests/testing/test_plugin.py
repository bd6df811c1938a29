"""The pytest plugin, run on small test files."""

import subprocess
import sys
from pathlib import Path

import pytest

import gpubp

pytest_plugins = ["pytester"]

TEST = """
    import numpy as np

    def test_sum(backend):
        total = backend.xp.sum(backend.asarray(np.ones(3)))
        assert backend.to_numpy(total) == 3
"""


@pytest.fixture
def run(pytester, monkeypatch):
    """Run pytest on a test file with no plugin but gpubp's and those named, in a process of its own."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTHONPATH", str(Path(gpubp.__file__).parents[1]))
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)

    def run_(*options, source=TEST):
        pytester.makepyfile(source)
        return pytester.runpytest_subprocess("-p", "gpubp.testing.plugin", "-p", "no:cacheprovider", *options)

    return run_


@pytest.fixture
def absent(pytester):
    """Have three backends, of which the one called absent cannot be used."""
    pytester.makeconftest("""
        from gpubp.testing import backends

        def loader():
            raise RuntimeError("its driver is missing")

        own = backends.BACKENDS
        backends.BACKENDS = {"numpy": own["numpy"], "absent": loader, "standin": own["standin"]}
    """)


def test_default_backends(run):
    pytest.importorskip("array_api_strict")
    result = run("-v")
    result.assert_outcomes(passed=3)
    for name in ("numpy", "standin", "array_api_strict"):
        result.stdout.fnmatch_lines([f"*test_sum?{name}? PASSED*"])
    result.stdout.fnmatch_lines(
        ["backends: numpy, standin, array_api_strict", "backends not asked for (--backends): *torch, jax, cupy"]
    )


def test_the_mark_selects_the_tests_that_take_the_fixture(run):
    result = run("-v", "-m", "backends", "--backends", "numpy", source=TEST + "\n    def test_other():\n        pass\n")
    result.assert_outcomes(passed=1, deselected=1)
    result.stdout.fnmatch_lines(["*test_sum?numpy? PASSED*"])


def test_chosen_backends(run):
    result = run("--backends", "standin, readonly_numpy", "-v")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["backends: standin, readonly_numpy", "*test_sum?readonly_numpy? PASSED*"])


def test_a_backend_asked_for_that_cannot_be_used_ends_the_run(run, absent):
    result = run("--backends", "numpy,absent")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--backends: absent cannot be used: its driver is missing"])
    result.stdout.no_fnmatch_line("*passed*")


def test_an_unknown_backend_ends_the_run(run):
    result = run("--backends", "numpy,numpi")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--backends: no backend is called 'numpi'; there are numpy, *"])


def test_all_backends_are_those_that_can_be_used(run, absent):
    result = run("--backends", "all")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["backends: numpy, standin", "backend left out: absent: its driver is missing"])


def test_a_default_backend_that_is_not_installed_is_left_out_and_named(run, pytester):
    pytester.makeconftest("from gpubp.testing import plugin; plugin.find_spec = lambda name: None")
    result = run()
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(
        ["backends: numpy, standin", "backend left out: array_api_strict: array_api_strict is not installed"]
    )


def test_a_project_s_own_fixture_wins_and_nothing_is_printed(run):
    source = """
        import pytest

        @pytest.fixture(params=[1, 2])
        def backend(request):
            return request.param

        def test_own(backend):
            assert backend in (1, 2)

        @pytest.mark.parametrize("backend", [3, 4, 5])
        def test_parametrized(backend):
            assert backend in (3, 4, 5)
    """
    result = run(source=source)
    result.assert_outcomes(passed=5)
    result.stdout.no_fnmatch_line("*backends*")


def test_the_summary_comes_through_pytest_xdist(run):
    pytest.importorskip("xdist")
    result = run("-p", "xdist.plugin", "-n", "1", "--backends", "numpy")
    result.assert_outcomes(passed=1)
    lines = result.outlines
    assert "backends: numpy" in lines[lines.index("backends: numpy") + 1 :]  # in the header and in the summary


def test_the_plugin_imports_nothing_beyond_gpubp():
    code = """if True:
        import sys, gpubp, importlib.util, pytest
        before = set(sys.modules)
        import gpubp.testing.plugin
        print(sorted(set(sys.modules) - before))
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['gpubp.testing', 'gpubp.testing.plugin']"
