"""A run that was interrupted goes on as if it had not been."""

import os
import re
import signal

import pytest

from gpubp.cli.train import _Tell
from tests.cli.tables import flowers

OPTIONS = ["--epochs", 6, "--checkpoint-every", 1, "--device", "cpu", "--dropout", 0.2, "--quiet"]


@pytest.fixture
def interrupted(gpubp, tmp_path, monkeypatch):
    """A run folder of a run that had Ctrl-C in its third epoch, beside one that had not."""
    (tmp_path / "flowers.csv").write_text(flowers())
    assert gpubp("train", "flowers.csv", *OPTIONS, "--out", "whole").status == 0

    def interrupt(self, run):
        if run.step == 5:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(_Tell, "on_step", interrupt)
        done = gpubp("train", "flowers.csv", *OPTIONS, "--out", "run")
    assert (done.status, done.out) == (130, "")
    assert done.err.endswith(f"gpubp: stopped by Ctrl-C; to go on: gpubp resume {tmp_path / 'run'}\n")
    return tmp_path / "run"


def test_the_end_is_bit_for_bit_that_of_a_run_without_interruption(gpubp, interrupted, tmp_path):
    assert not (interrupted / "model.safetensors").exists()
    assert gpubp("predict", "run", "flowers.csv").err.endswith("has no model.safetensors yet: gpubp resume run\n")
    done = gpubp("resume", "run", "--quiet")
    assert (done.status, done.out) == (0, "")
    for name in ("model.safetensors", "metrics.jsonl"):
        assert (interrupted / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    again = gpubp("resume", "run")
    assert (again.status, again.out) == (0, "run is complete: there is nothing to go on with\n")


def test_a_run_goes_on_from_another_folder(gpubp, interrupted, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path.parent)
    assert gpubp("resume", interrupted, "--quiet").status == 0


def test_the_newest_checkpoint_is_damaged(gpubp, interrupted, tmp_path):
    newest = max((interrupted / "checkpoints").glob("*.safetensors"))
    newest.write_bytes(newest.read_bytes()[:-1])
    done = gpubp("resume", "run", "--quiet")
    assert done.status == 0
    assert re.fullmatch(rf"gpubp: .*{newest.name} is not .*: taken is the one before, of step 4\n", done.err)
    assert (interrupted / "model.safetensors").read_bytes() == (tmp_path / "whole" / "model.safetensors").read_bytes()


def test_no_checkpoint_is_whole(gpubp, interrupted):
    for file in (interrupted / "checkpoints").glob("*.json"):
        file.write_text("{")
    done = gpubp("resume", "run", "--quiet")
    assert (done.status, done.out) == (2, "")
    assert "gpubp resume: no checkpoint in" in done.err


def test_the_data_have_changed(gpubp, interrupted, tmp_path):
    (tmp_path / "flowers.csv").write_text(flowers(90))
    done = gpubp("resume", "run", "--quiet")
    assert (done.status, done.out) == (2, "")
    assert "cannot go on with other settings: data is" in done.err


def test_a_run_without_a_checkpoint_begins(gpubp, interrupted, tmp_path):
    for file in (interrupted / "checkpoints").iterdir():
        file.unlink()
    assert gpubp("resume", "run", "--quiet").status == 0
    assert (interrupted / "model.safetensors").read_bytes() == (tmp_path / "whole" / "model.safetensors").read_bytes()
