import os
import re
import subprocess
import sys

import pytest

from gpubp.training import progress
from tests.training.common import fit, train

CODE = """
import gpubp as bp
from tests.training.common import fit, train
fit(epochs=2, validation=train, progress=True)
"""


def test_plain_lines_where_stderr_is_no_terminal(capsys):
    fit(epochs=2, validation=train, progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    first, second = err.splitlines()
    figures = r"loss \d\.\d+, val_loss \d\.\d+, val_accuracy 0\.\d+"
    assert re.fullmatch(rf"epoch 1, step 7/14: {figures}, [\d.]+k? samples/s, \d:\d\d left", first)
    assert re.fullmatch(rf"epoch 2, step 14/14: {figures}, [\d.]+k? samples/s", second)
    assert err.isprintable() or set(err) - {c for c in err if c.isprintable()} == {"\n"}


def test_silence(capsys):
    fit(epochs=2, progress=False)
    assert capsys.readouterr() == ("", "")


def test_between_rows_a_line_comes_at_most_every_so_often(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    lines = progress.Lines(100, 1000)
    for k in range(1, 8):
        now[0] = 10.0 * k
        lines.show(f"step {k}", 100 + 100 * k, {"loss": 0.25})
    lines.row("row", 900, {"loss": 0.125, "confusion": [[1]]})
    assert capsys.readouterr().err.splitlines() == [
        "step 3: loss 0.25, 10 samples/s, 1:00 left",
        "step 6: loss 0.25, 10 samples/s, 0:30 left",
        "row: loss 0.125, 11.4 samples/s, 0:09 left",
    ]


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.4, "0:00"), (59.6, "1:00"), (3599, "59:59"), (3600, "1:00:00"), (360000, "100:00:00")]
)
def test_times(seconds, shown):
    assert progress._time(seconds) == shown


@pytest.mark.skipif(os.name != "posix", reason="pseudoterminals")
@pytest.mark.parametrize("columns", [0, 45, 200])
def test_a_bar_in_a_terminal(columns):
    import pty
    import termios

    terminal, end = pty.openpty()
    termios.tcsetwinsize(end, (24, columns))
    process = subprocess.Popen([sys.executable, "-c", CODE], stderr=end, stdout=subprocess.PIPE, env=_environment())
    os.close(end)
    shown = b""
    while True:
        try:
            part = os.read(terminal, 1 << 16)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        shown += part
    out, _ = process.communicate()
    os.close(terminal)
    assert process.returncode == 0
    assert out == b""
    text = shown.decode()
    assert "\r" in text
    last = text.rstrip().rpartition("\r")[2]
    figures = r"loss=\d\.\d+, val_loss=\d\.\d+, val_accuracy=0\.\d+"
    if columns == 45:  # what matters most is in sight
        assert re.fullmatch(r"epoch 2, step 14/14, loss=\d\.\d+, val_loss=\d.*", last)
        assert len(last) <= 45
    else:
        assert re.fullmatch(rf"epoch 2, step 14/14 \|█{{12}}\| [\d.]+k? samples/s, 00:00 left, {figures}", last)


def test_lines_in_a_pipe():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, env=_environment(), check=True)
    assert done.stdout == ""
    assert [line.partition(":")[0] for line in done.stderr.splitlines()] == [
        "epoch 1, step 7/14",
        "epoch 2, step 14/14",
    ]
    assert "\r" not in done.stderr


def _environment():
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "COLUMNS": "200"}


def test_a_bar_in_a_notebook(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ipykernel", object())
    monkeypatch.setitem(sys.modules, "IPython", object())
    shown = progress.Progress.of(True, 0, 100)
    assert isinstance(shown, progress.Bar)
    assert "{bar}" in shown.bar.bar_format
    shown.row("here", 100, {"loss": 1.0})
    shown.close()
    assert "here" in capsys.readouterr().err
    assert type(progress.Progress.of(False, 0, 100)) is progress.Progress


def test_without_a_stderr_nothing_is_shown(monkeypatch):
    monkeypatch.setattr("sys.stderr", None)
    _, history = fit(epochs=1, progress=True)
    assert len(history) == 1
