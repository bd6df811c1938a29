"""The command ``gpubp check``."""

from __future__ import annotations

import pytest

from gpubp.cli import main
from gpubp.testing import backends

SOURCE = """
import numpy as np
import gpubp as bp
from gpubp import nn

def right(x, y):
    return np.sum(np.tanh(x) @ y)

right_args = (np.ones((2, 3), dtype=np.float32), np.ones((3, 2)))

wrong = bp.custom_vjp(lambda x: x * x)
wrong.defvjp(lambda x: (x * x, x), lambda x, g: (3 * x * g,))

net = nn.Sequential(nn.Dense(3, 4), nn.tanh, nn.Dense(4, 2), seed=0)

def only_numpy(x):
    return x * np.asarray(2.0) + np.ones(3)

def check_args():
    return np.arange(3.0)
"""


@pytest.fixture
def run(tmp_path, capsys):
    file = tmp_path / "mine.py"
    file.write_text(SOURCE)

    def run(name, *options):
        try:
            status = main(["check", f"{file}:{name}", *options])
        except SystemExit as stop:
            status = stop.code
        return status, "".join(capsys.readouterr())

    return run


def test_a_right_function(run):
    status, out = run("right")
    assert status == 0
    assert "ok      derivatives to order 2, against finite differences" in out
    assert "ok      values, gradients on numpy, standin" in out


def test_a_net_is_trained_on_every_backend(run):
    status, out = run("net", "--shape", "5,3", "--backends", "numpy,standin", "--order", "1")
    assert status == 0
    assert "derivatives to order 1" in out
    assert "gradients and 3 training steps on numpy, standin: at most" in out


def test_a_wrong_derivative_fails_and_is_shown(run):
    status, out = run("wrong", "--shape", "3")
    assert status == 1
    assert "FAILED  derivatives" in out
    assert "wrong derivative of order 1" in out
    assert "relative 0.5" in out


def test_code_that_is_not_for_every_library_fails(run):
    status, out = run("only_numpy", "--backends", "numpy,standin")
    assert status == 1
    assert "ok      derivatives" in out
    assert "FAILED  parity" in out
    assert "several libraries: standin and numpy" in out


def test_an_error_of_the_users_code_has_its_line(run):
    status, out = run("right", "--shape", "2,3", "--shape", "4")
    assert status == 1
    assert "FAILED  derivatives\nValueError: matmul" in out
    assert "mine.py:7\n" in out


def test_backends_are_looked_up_first(run):
    assert "no backend is called 'nonesuch'; there are numpy, " in run("right", "--backends", "numpy,nonesuch")[1]
    assert "parity is between two backends or more, got numpy" in run("right", "--backends", "numpy")[1]
    if (why := backends.why_missing("cupy")) is not None:
        assert f"backend cupy cannot be used here: {why}" in run("right", "--backends", "numpy,cupy")[1]


def test_what_is_missing_is_said(run):
    assert "what shall net be called with? Give a shape" not in run("net")[1]  # check_args is there
    assert "has no nothing; it has np, bp, nn, right" in run("nothing")[1]
    assert "nn is a module; check expects a function or a net" in run("nn")[1]
    assert run("right", "--shape", "a,b")[0] == 2


def test_arguments_must_come_from_somewhere(tmp_path, capsys):
    (tmp_path / "bare.py").write_text("def f(x):\n    return x\n")
    assert main(["check", f"{tmp_path / 'bare.py'}:f"]) == 2
    assert "gpubp check: what shall f be called with? Give a shape for each argument" in capsys.readouterr().err
