import json
from types import SimpleNamespace

import pytest

from gpubp.cli import main


@pytest.fixture
def gpubp(tmp_path, monkeypatch, capsys):
    """The command: status, stdout and stderr of a call in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*argv):
        try:
            status = main([*map(str, argv)])
        except SystemExit as stop:
            status = stop.code
        out, err = capsys.readouterr()
        return SimpleNamespace(status=status, out=out, err=err)

    return run


@pytest.fixture
def train(gpubp):
    """``gpubp train`` for a few epochs, as its events and the result."""

    def run(*argv, epochs=3):
        done = gpubp("train", *argv, "--epochs", epochs, "--json", "--device", "cpu")
        assert done.status == 0, done.err
        events = [json.loads(line) for line in done.out.splitlines()]
        assert events[-1]["event"] == "result"
        return events

    return run
