"""Whatever happens to a run or to its newest checkpoint, it ends bit for bit as one to which nothing happened."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest

from gpubp import nn, optim
from gpubp.optim import schedules
from gpubp.training import Broken, Checkpoints
from gpubp.training.checkpoint import _signed
from tests.training.common import fit, parameters, same, train

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_killed_at_50_moments():
    """Half of them within the work on files: the program asserts that all ends are the same, and warns of nothing."""
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None  # survives the process, as a disk does, and is faster
    with TemporaryDirectory(dir=memory) as folder:
        program = [sys.executable, "-m", "tests.training.killing", folder, "50"]
        done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["kills"] >= 50
    kinds = "anywhere", "json", "safetensors", "rows", "fsync", "replace", "unlink"
    assert all(found["in"][kind] >= 3 for kind in kinds)
    assert found["half written"] >= 5
    assert found["runs"] >= 5


data = tuple(x[:50] for x in train)


def run(folder, steps):
    """Train a net with all that has a state, for so many steps of 8; return net, averages and history."""
    layers = nn.Dense(64, 6), nn.BatchNorm(6), nn.Dropout(0.3), nn.Dense(6, 10)
    net = nn.Sequential(*layers, seed=0)
    average = optim.Average(net, 0.9)
    kept = None if folder is None else Checkpoints(folder, every=1, best="accuracy")
    _, history = fit(
        net=net,
        opt=lambda net: optim.Adam(net, schedules.cosine(0.05, steps=8)),
        average=average,
        **{"data": data, "batch_size": 16, "steps": steps, "checkpoint": kept, "resume": kept is not None},
    )
    return net, average.net, history


def ends_the_same(found, expected):
    for net, other in zip(found[:2], expected[:2], strict=True):
        same(net, other)
    assert found[2] == expected[2]


def damaged(content, rng):
    """Bytes with one bit flipped, or of which the end is cut off."""
    k = int(rng.integers(len(content)))
    if rng.integers(3) == 0:
        return content[:k]
    return content[:k] + bytes([content[k] ^ 1 << int(rng.integers(8))]) + content[k + 1 :]


@pytest.mark.parametrize("suffix", ["json", "safetensors"])
def test_damage_to_the_newest_is_found_and_the_one_before_taken(suffix, tmp_path):
    expected = run(None, steps=8)
    run(tmp_path / "first", steps=5)
    newest = f"step-00000005.{suffix}"
    content, rng = (tmp_path / "first" / newest).read_bytes(), np.random.default_rng(0)
    for k in range(25):
        folder = tmp_path / str(k)
        shutil.copytree(tmp_path / "first", folder)
        (folder / newest).write_bytes(damaged(content, rng))
        with pytest.warns(RuntimeWarning, match="step-00000005.*taken is the one before, of step 4") as warned:
            found = run(folder, steps=8)
        assert len(warned) == 1
        ends_the_same(found, expected)


def test_damage_to_several_and_to_all(tmp_path):
    expected = run(None, steps=8)
    run(tmp_path / "run", steps=5)
    for step in (5, 4):
        (tmp_path / "run" / f"step-0000000{step}.json").write_bytes(b"")
    with pytest.warns(RuntimeWarning, match="step-00000005.*step-00000004.*the one before, of step 3"):
        ends_the_same(run(tmp_path / "run", steps=8), expected)
    for file in (tmp_path / "run").glob("*.safetensors"):
        file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(Broken, match="no checkpoint in .* is whole: .*step-00000008.*step-00000007.*step-00000006"):
        run(tmp_path / "run", steps=9)


def test_a_disk_that_fills_up(tmp_path, disk_full, monkeypatch):
    """The run ends with an error that names the file; what was kept before is whole, and goes on to the same end."""
    expected = run(None, steps=8)
    save = Checkpoints.save

    def full_at_6(self, step, *args, **options):
        if step < 6:
            return save(self, step, *args, **options)
        with disk_full:
            save(self, step, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", full_at_6)
        with pytest.raises(OSError, match="No space left on device: .*step-00000006.safetensors"):
            run(tmp_path, steps=8)
    assert Checkpoints(tmp_path).steps()[-1] == 5
    ends_the_same(run(tmp_path, steps=8), expected)


@pytest.mark.parametrize(
    "change",
    [{"epoch": -1}, {"batch": 99}, {"batch": 1.0}, {"step": True}, {"step": None}, {"skipped": -1}, {"sums": {"a": 1}},
     {"sums": [1]}, {"history": 3}, {"skips": [[1]]}, {"skips": [1]}],
)  # fmt: skip
def test_a_position_that_no_run_has(change, tmp_path):
    run(tmp_path, steps=2)
    file = tmp_path / "step-00000002.json"
    about = json.loads(file.read_bytes())
    del about["sha256"]
    about["parts"]["run"] |= change
    file.write_bytes(_signed(about))
    with pytest.raises(ValueError, match="step-00000002.json does not fit this run: run: "):
        run(tmp_path, steps=8)


def test_averages_are_the_best(tmp_path):
    net, average, _ = run(tmp_path, steps=8)
    other = net.copy()
    assert Checkpoints(tmp_path).load_best(other) == 8
    same(other, average)
    assert not np.array_equal(parameters(net)["layers[0].W"], parameters(average)["layers[0].W"])
