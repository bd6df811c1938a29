"""Files of checkpoints: what is written comes back to the bit, and what is damaged is found out."""

import errno
import json
import math
import os
import re
import struct
import subprocess
from contextlib import suppress

import numpy as np
import pytest

import gpubp as bp
from gpubp import nn, optim
from gpubp.training import Broken, Checkpoints, checkpoint

SETTINGS = {"seed": 0, "batch_size": 32}


class Part:
    """Something with a state of its own."""

    def __init__(self, **state):
        self.held = state

    def state(self):
        return self.held

    def load_state(self, state):
        if state.get("bad"):
            raise ValueError("it is bad")
        self.held = dict(state)


def parts(seed=0, n=3, **state):
    net = nn.Sequential(nn.Dense(2, n), nn.BatchNorm(n), nn.Dropout(0.5), nn.Dense(n, 1), seed=seed)
    opt = optim.Adam(net, 0.1)
    opt.step(bp.grad(lambda net: np.sum(net(np.ones((4, 2), "float32")) ** 2))(net.train()))
    return {"net": net, "opt": opt, "run": Part(history=[{"loss": 0.1 + seed}], **state)}


def everything(parts):
    found = {}
    for name, part in parts.items():
        found |= {f"{name} {key}": np.asarray(x).tolist() for key, x in part.state().items()}
    return found


def save(checkpoints, step, **figures):
    row = {"step": step, **figures} if figures else {}
    checkpoints.save(step, parts(step), settings=SETTINGS, row=row)


def test_all_parts_come_back(tmp_path):
    state = {
        "best": math.inf,
        "worst": -math.inf,
        "none": math.nan,
        "tiny": 5e-324,
        "third": 1 / 3,
        "text": "ε \ud800",
        "other nan": struct.unpack(">d", bytes.fromhex("fff8000000000123"))[0],
        "x": np.arange(3),
    }
    before = parts(7, **state)
    Checkpoints(tmp_path).save(12, before, settings=SETTINGS, row={})
    after = parts(1)
    assert Checkpoints(tmp_path).resume(after, settings=SETTINGS) == 12
    np.testing.assert_equal(everything(after), everything(before))
    assert struct.pack(">d", after["run"].held["other nan"]).hex() == "fff8000000000123"
    for part in (before, after):
        part["opt"].step(part["net"])
    np.testing.assert_equal(everything(after), everything(before))


def test_nothing_is_there(tmp_path):
    for folder in (tmp_path, tmp_path / "none"):
        assert Checkpoints(folder).resume(parts(), settings=SETTINGS) is None
    with pytest.raises(FileNotFoundError, match="there is no checkpoint in"):
        Checkpoints(tmp_path).load_best(parts()["net"])


def test_the_newest_are_kept_and_the_best(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2, best="val_loss")
    for step, loss in enumerate([3.0, 1.0, math.nan, 2.0, 2.5], 1):
        save(checkpoints, step, val_loss=loss, loss=loss)
    assert checkpoints.steps() == [2, 4, 5]
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json"] * 3 + [".safetensors"] * 3
    net = parts()["net"]
    assert Checkpoints(tmp_path, best="val_loss").load_best(net) == 2
    np.testing.assert_array_equal(net.layers[0].W, parts(2)["net"].layers[0].W)
    assert Checkpoints(tmp_path, best="loss").load_best(net) == 2  # whatever was the best while they were kept
    assert Checkpoints(tmp_path, best="accuracy").load_best(net) == 5  # the newest: there is no such figure


def test_a_score_is_best_at_its_largest(tmp_path):
    for maximize, step in ((None, 1), (False, 2)):
        checkpoints = Checkpoints(tmp_path / str(step), keep=1, best="val_accuracy", maximize=maximize)
        for k, accuracy in enumerate([0.9, 0.5, 0.7], 1):
            save(checkpoints, k, val_accuracy=accuracy)
        assert checkpoints.steps() == [step, 3]


def test_when_one_is_due():
    none = {"at_row": False, "at_epoch": False, "at_end": False}
    at = Checkpoints("x", every=10).is_due
    assert at(20, **none)
    assert not at(21, **none | {"at_row": True, "at_epoch": True})
    assert at(21, **none | {"at_end": True})
    at = Checkpoints("x", best="loss").is_due
    assert at(20, **none | {"at_epoch": True})
    assert at(20, **none | {"at_row": True})
    assert not at(20, **none)


@pytest.mark.parametrize("suffix", ["json", "safetensors"])
@pytest.mark.parametrize("damage", ["cut", "empty", "gone", "longer"])
def test_what_is_damaged_is_named_and_passed_over(suffix, damage, tmp_path):
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, 1)
    save(checkpoints, 2)
    file = tmp_path / f"step-00000002.{suffix}"
    content = file.read_bytes()
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes({"cut": content[:-1], "empty": b"", "longer": content + b"x"}[damage])
    after = parts()
    if (suffix, damage) == ("json", "gone"):  # as after a crash before it was written
        assert Checkpoints(tmp_path).resume(after, settings=SETTINGS) == 1
    else:
        with pytest.warns(RuntimeWarning, match=r"step-00000002.*taken is the one before, of step 1"):
            assert Checkpoints(tmp_path).resume(after, settings=SETTINGS) == 1
    assert everything(after) == everything(parts(1))
    again = Checkpoints(tmp_path)
    again.resume(after, settings=SETTINGS) if damage == "gone" and suffix == "json" else None
    save(again, 2)
    assert Checkpoints(tmp_path).resume(after, settings=SETTINGS) == 2


@pytest.mark.parametrize("suffix", ["json", "safetensors"])
def test_any_flipped_bit_is_found(suffix, tmp_path):
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, 1)
    file = tmp_path / f"step-00000001.{suffix}"
    content, rng = file.read_bytes(), np.random.default_rng(0)
    before = everything(parts(5))
    for _ in range(200):
        flipped = bytearray(content)
        flipped[rng.integers(len(content))] ^= 1 << rng.integers(8)
        file.write_bytes(flipped)
        after = parts(5)
        with pytest.raises(Broken, match=re.escape(f"no checkpoint in {tmp_path} is whole: {tmp_path}")):
            Checkpoints(tmp_path).resume(after, settings=SETTINGS)
        assert everything(after) == before


def test_other_settings_are_named(tmp_path):
    save(Checkpoints(tmp_path), 1)
    with pytest.raises(ValueError, match=r"cannot go on with other settings: batch_size is 64, and was 32$"):
        Checkpoints(tmp_path).resume(parts(), settings=SETTINGS | {"batch_size": 64})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p | {"net": parts(n=4)["net"]},
         r"does not fit this run: net.*layers\[0\].W is float32\[2, 3\], expected float32\[2, 4\]"),
        (lambda p: p | {"net": p["net"].astype("float64")},
         r"layers\[0\].W is float32\[2, 3\], expected float64\[2, 3\]"),
        (lambda p: p | {"opt": optim.SGD(p["net"], 0.1)},
         "does not fit this run: opt: the state is of another optimizer"),
        (lambda p: p | {"average": Part()}, "holds net, opt, run, but this run has net, opt, run, average"),
    ],
)  # fmt: skip
def test_what_does_not_fit_leaves_all_as_it_is(change, message, tmp_path):
    save(Checkpoints(tmp_path), 1)
    after = change(parts(5))
    before = everything(after)
    with pytest.raises(ValueError, match=message):
        Checkpoints(tmp_path).resume(after, settings=SETTINGS)
    assert everything(after) == before


def test_a_part_that_fails_late_leaves_all_as_it_is(tmp_path):
    Checkpoints(tmp_path).save(1, parts(1, bad=True), settings=SETTINGS, row={})
    after = parts(5)
    before = everything(after)
    with pytest.raises(ValueError, match="does not fit this run: run: it is bad"):
        Checkpoints(tmp_path).resume(after, settings=SETTINGS)
    assert everything(after) == before


def test_a_net_is_loaded_from_a_checkpoint(tmp_path):
    save(Checkpoints(tmp_path), 3)
    net = bp.load(tmp_path / "step-00000003.safetensors", parts()["net"])
    np.testing.assert_array_equal(net.layers[0].W, parts(3)["net"].layers[0].W)


def test_other_files_are_left_alone(tmp_path):
    mine = {"notes.txt", "step-1.json", "step-000000x1.json", "step-000000001.json", "step-٠٠٠٠٠٠٠٣.json"}
    for name in mine:
        (tmp_path / name).write_text("mine")
    checkpoints = Checkpoints(tmp_path, keep=1)
    for step in (1, 2):
        save(checkpoints, step)
    assert {path.name for path in tmp_path.iterdir()} == mine | {"step-00000002.json", "step-00000002.safetensors"}
    assert Checkpoints(tmp_path).resume(parts(), settings=SETTINGS) == 2


@pytest.mark.parametrize("suffix", ["json", "safetensors"])
def test_a_folder_of_that_name_is_no_checkpoint(suffix, tmp_path):
    save(Checkpoints(tmp_path), 1)
    save(Checkpoints(tmp_path), 2)
    (tmp_path / f"step-00000002.{suffix}").unlink()
    (tmp_path / f"step-00000002.{suffix}").mkdir()
    with pytest.warns(RuntimeWarning, match=r"Is a directory: .*step-00000002.*taken is the one before, of step 1"):
        assert Checkpoints(tmp_path).resume(parts(), settings=SETTINGS) == 1


def test_the_best_is_kept_where_a_later_one_was_broken(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=3, best="loss")
    for step, loss in ((1, 1.0), (2, 2.0), (6, 0.5)):
        save(checkpoints, step, loss=loss)
    (tmp_path / "step-00000006.safetensors").unlink()
    again = Checkpoints(tmp_path, keep=1, best="loss")
    save(again, 3, loss=3.0)  # as after a return to step 2
    assert again.steps() == [1, 3]


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"x": {"a": [1, {2}]}}, "run x a is of set, but a checkpoint holds arrays and what JSON can hold"),
        ({"x": {1: 2}}, r"run x has names that are no text, which a checkpoint cannot hold: \[1\]"),
    ],
)
def test_what_a_checkpoint_cannot_hold_is_named(state, message, tmp_path):
    with pytest.raises(TypeError, match=message):
        Checkpoints(tmp_path).save(1, parts(**state), settings=SETTINGS, row={})
    assert list(tmp_path.iterdir()) == []


def test_leftovers_of_dead_processes_are_removed(tmp_path):
    for process in (2**22 + 1, 10**30, os.getpid(), 1):  # beyond Linux's largest, none at all, this, always running
        (tmp_path / f".step-00000009.json.{process}.part").write_text("half")
    save(Checkpoints(tmp_path), 1)
    running = tmp_path / ".step-00000009.json.1.part"
    assert list(tmp_path.glob(".*")) == [running]
    os.utime(running, (0, 0))
    save(Checkpoints(tmp_path), 2)
    assert list(tmp_path.glob(".*")) == []


def test_json_is_plain(tmp_path):
    save(Checkpoints(tmp_path), 4)
    text = (tmp_path / "step-00000004.json").read_text()
    about = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert about["step"] == 4
    assert about["parts"]["run"]["history"] == [{"loss": 4.1}]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"folder": None}, TypeError, "expects the name of a folder, got NoneType"),
        ({"every": "step"}, ValueError, "every must be a number of steps or 'epoch', got 'step'"),
        ({"every": 0}, ValueError, "every must be at least 1, got 0"),
        ({"keep": 0}, ValueError, "keep must be at least 1, got 0"),
        ({"best": True}, TypeError, "best must be the name of a figure, as 'val_loss', got True"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        Checkpoints(**{"folder": "x"} | arguments)


def test_an_unknown_figure(tmp_path):
    with pytest.raises(ValueError, match="best='val_loss' is no figure of the history: there are loss"):
        save(Checkpoints(tmp_path, best="val_loss"), 1, loss=1.0)


def test_a_history_that_could_not_be_read_again(tmp_path, monkeypatch):
    save(Checkpoints(tmp_path), 1)
    monkeypatch.setattr(checkpoint, "MOST_JSON", (tmp_path / "step-00000001.json").stat().st_size)
    with pytest.raises(ValueError, match=r"history may have \d+ bytes in a checkpoint, and has \d+: report less"):
        Checkpoints(tmp_path).save(2, parts(2, x=["long"] * 9), settings=SETTINGS, row={})
    assert Checkpoints(tmp_path).resume(parts(), settings=SETTINGS) == 1


# -- no place to write


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path, disk_full):
    checkpoints = Checkpoints(tmp_path, keep=1)
    save(checkpoints, 1)
    with disk_full, pytest.raises(OSError, match=r"No space left on device: '.*step-00000002"):
        save(checkpoints, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000001.json", "step-00000001.safetensors"]
    after = parts()
    assert Checkpoints(tmp_path).resume(after, settings=SETTINGS) == 1
    save(checkpoints, 3)
    assert checkpoints.steps() == [3]


def test_a_disk_that_is_full_before_the_second_file(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path, keep=1)
    save(checkpoints, 1)
    write = checkpoint.write_atomically

    def only_arrays(file, content):
        if file.suffix == ".json":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file))
        write(file, content)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write_atomically", only_arrays)
        with pytest.raises(OSError, match="No space left"):
            save(checkpoints, 2)
    assert Checkpoints(tmp_path).resume(parts(), settings=SETTINGS) == 1
    save(checkpoints, 3)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_real_full_disk(tmp_path):
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", tmp_path], capture_output=True)
    if mounted.returncode:
        pytest.skip("whoever runs this may not mount a small disk")
    try:
        checkpoints = Checkpoints(tmp_path / "run", keep=1)
        save(checkpoints, 1)
        filler = tmp_path / "filler"
        with suppress(OSError), open(filler, "wb", buffering=0) as stream:
            while True:
                stream.write(bytes(4096))
        with pytest.raises(OSError, match="No space left on device: .*step-00000002"):
            save(checkpoints, 2)
        assert Checkpoints(tmp_path / "run").resume(parts(), settings=SETTINGS) == 1
        filler.unlink()
        save(checkpoints, 3)
        assert checkpoints.steps() == [3]
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_a_read_only_folder(read_only):
    with pytest.raises(PermissionError, match="step-00000001.safetensors'$"):
        save(Checkpoints(read_only), 1)
    with pytest.raises(PermissionError, match="run'$"):
        save(Checkpoints(read_only / "run"), 1)


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError, match="file'$"):
        save(Checkpoints(tmp_path / "file"), 1)
    with pytest.raises(NotADirectoryError, match="file'$"):
        Checkpoints(tmp_path / "file").resume(parts(), settings=SETTINGS)
