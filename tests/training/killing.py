"""Training that is killed at moments drawn from a seed, and resumed until it is finished: the program of its test.

It forks the processes that train, so that each begins at once; what is killed has computed and written as any other.
"""

import json
import os
import signal
import sys
import time
import traceback
import warnings
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np

from gpubp import data, fit, losses, nn, optim
from gpubp.optim import schedules
from gpubp.training import Checkpoints, EarlyStopping, JSONLines, callbacks, files

rng = np.random.default_rng(0)
x = rng.standard_normal((44, 6)).astype("float32")
y = rng.integers(0, 3, 44)


def train(folder):
    """One run of a net with all that has a state; return its arrays and its history."""
    layers = nn.Dense(6, 8), nn.BatchNorm(8), nn.relu, nn.Dropout(0.3), nn.Dense(8, 3)
    net = nn.Sequential(*layers, seed=0)
    opt = optim.Adam(net, schedules.cosine(0.05, steps=12, warmup=4))
    average = optim.Average(net, 0.9)
    history = fit(
        net,
        lambda net, x, y: losses.softmax_cross_entropy(net(x), y),
        opt,
        (x[:34], y[:34]),
        epochs=4,
        batch_size=8,
        validation=(x[34:], y[34:]),
        average=average,
        transform=data.transforms.Noise(0.1),
        callbacks=[EarlyStopping(patience=100), JSONLines(folder / "rows")],
        checkpoint=Checkpoints(folder / "checkpoints", every=1, keep=2, best="val_loss"),
        resume=True,
        progress=False,
    )
    return net.state() | opt.state() | average.state(), history


class Moment:
    """Counts what is done to files, by its kind, and kills the process at one moment, such as the third in "json"."""

    def __init__(self, kind=None, at=0):
        self.kind, self.at, self.counts = kind, at, Counter()

    def __call__(self, kind):
        self.counts[kind] += 1
        if kind == self.kind and self.counts[kind] == self.at:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(self, name):
        call = getattr(os, name)

        def called(*args):
            self(name)
            result = call(*args)
            self(name)
            return result

        setattr(os, name, called)

    def open(self, file, *args, **options):
        found = [kind for kind in ("json", "safetensors", "rows") if kind in Path(file).name]
        return Stream(open(file, *args, **options), partial(self, *found))

    def watch(self):
        """Have it called wherever something is done with a file."""
        files.open = callbacks.open = self.open
        for name in ("fsync", "replace", "unlink"):
            self.around(name)


class Stream:
    """A file of which each piece is written in two."""

    def __init__(self, stream, moment):
        self._stream, self._moment = stream, moment

    def write(self, piece):
        half = len(piece) // 2
        for part in (piece[:half], piece[half:]):
            self._stream.write(part)
            self._stream.flush()
            self._moment()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._stream.close()

    def __getattr__(self, name):
        return getattr(self._stream, name)


def start(folder, *moment):
    """Begin or resume a run in a process of its own, which leaves its end in the folder."""
    process = os.fork()
    if process:
        return process
    try:
        warnings.simplefilter("error")  # a process that is killed leaves no broken checkpoint
        moment = Moment(*moment)
        moment.watch()
        arrays, history = train(folder)
        np.savez(folder / "end.npz", **arrays)
        (folder / "end.json").write_text(json.dumps({"rows": history, "moments": moment.counts}))
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def was_killed(process):
    status = os.waitpid(process, 0)[1]
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    if os.WEXITSTATUS(status):
        sys.exit("a run has failed")
    return False


def end_of(folder):
    """What a finished run has left: its rows, its log, and its arrays to the bit."""
    with np.load(folder / "end.npz") as found:
        arrays = {name: (found[name].dtype.str, found[name].shape, found[name].tobytes()) for name in found.files}
    return json.loads((folder / "end.json").read_text())["rows"], (folder / "rows").read_text(), arrays


def main(folder, kills):
    """Kill runs so often, half of them in the midst of files, and print what was found."""
    (folder / "whole").mkdir()
    began = time.perf_counter()
    assert not was_killed(start(folder / "whole"))
    duration = time.perf_counter() - began
    expected = end_of(folder / "whole")
    moments = json.loads((folder / "whole" / "end.json").read_text())["moments"]
    found = {"kills": 0, "half written": 0, "runs": 0, "in": Counter()}
    while found["kills"] < kills:
        run = folder / str(found["runs"])
        run.mkdir()
        finished, reached = False, 0
        while not finished:
            if found["kills"] % 2 == 0:
                kind = sorted(moments)[found["kills"] // 2 % len(moments)]
                process = start(run, kind, int(rng.integers(1, moments[kind] + 1)))
            else:
                kind, process = "anywhere", start(run)
                time.sleep(rng.uniform(0, duration))
                os.kill(process, signal.SIGKILL)
            finished = not was_killed(process)
            found["kills"] += not finished
            found["in"][kind] += not finished
            before, reached = reached, max(Checkpoints(run / "checkpoints").steps(), default=0)
            assert reached >= before, f"{run} had come to step {before}, and now to {reached}"
            found["half written"] += any((run / "checkpoints").glob(f".*.{process}.part"))
        assert end_of(run) == expected, f"{run} ended otherwise"
        assert not any((run / "checkpoints").glob(".*"))
        found["runs"] += 1
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
