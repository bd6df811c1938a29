"""A run that was interrupted, anywhere, ends as one that was not."""

import shutil

import numpy as np
import pytest

import gpubp as bp
from gpubp import nn, optim
from gpubp.training import Callback, Checkpoints, CSVLog, EarlyStopping, ReduceOnPlateau
from gpubp.training.interrupt import Interrupt
from tests.training.common import fit, loss, net_of, parameters, same, train

data = tuple(x[:50] for x in train)
test = tuple(x[50:80] for x in train)


def drawing_net():
    layers = nn.Dense(64, 8), nn.BatchNorm(8), nn.relu, nn.Dropout(0.3), nn.Dense(8, 10)
    return nn.Sequential(*layers, seed=0)


class Press(Callback):
    """Ends the run after a step as Ctrl-C does."""

    def __init__(self, step):
        self.step = step

    def on_step(self, run):
        if run.step == self.step:
            Interrupt.asked = True


@pytest.fixture(autouse=True)
def interrupt(monkeypatch):
    """Let the attribute of the class say whether Ctrl-C was pressed."""
    monkeypatch.setattr(Interrupt, "__init__", lambda self: setattr(self, "_before", None))
    monkeypatch.setattr(Interrupt, "asked", False, raising=False)


def run(folder, presses, make, **options):
    """Train with interruptions after some steps, and resume with new objects each time."""
    for press in (*presses, None):
        Interrupt.asked = False
        kept = {"checkpoint": folder, "resume": True} if folder is not None else {}
        net, opt, more = make()
        callbacks = [*more.pop("callbacks", ()), *([Press(press)] if press is not None else [Press(-1)])]
        history = bp.fit(
            *(net, loss, opt, data),
            **{"progress": False, "validation": test, "seed": 3, "callbacks": callbacks, **kept, **options, **more},
        )
        assert history.interrupted == (press is not None)
    return net, opt, history, more


def plain():
    net = drawing_net()
    return net, optim.Adam(net, 0.01), {}


def everything():
    net = drawing_net()
    opt = optim.AdamW(net, optim.schedules.cosine(0.05, steps=20, warmup=3), clip_norm=1.0)
    stopping, plateau = EarlyStopping(patience=2), ReduceOnPlateau(patience=0, factor=0.5)
    transform = bp.data.transforms.Noise(0.1)
    average = optim.Average(net, 0.9)
    return (
        net,
        opt,
        {
            **{"callbacks": [stopping, plateau], "average": average},
            **{"balance": 1, "transform": transform, "prefetch": 1},
        },
    )


CASES = {
    "plain": (plain, {"epochs": 2, "batch_size": 16}),
    "rows within epochs": (plain, {"steps": 11, "batch_size": 16, "report_every": 3}),
    "accumulated": (plain, {"epochs": 2, "batch_size": 8, "accumulate": 3}),
    "padded": (plain, {"epochs": 2, "batch_size": 16, "last": "pad"}),
    "everything": (everything, {"epochs": 3, "batch_size": 16, "accumulate": 2, "last": "drop"}),
}


@pytest.mark.parametrize("case", CASES)
def test_interrupted_after_any_step(case, tmp_path):
    make, options = CASES[case]
    expected, opt, rows, whole = run(None, [], make, **options)
    steps = rows[-1]["step"]
    assert steps >= 6
    for press in range(1, steps):
        net, other, history, more = run(tmp_path / str(press), [press], make, **options)
        assert history == rows
        assert history.stopped == rows.stopped
        same(net, expected)
        for name, x in opt.state().items():
            np.testing.assert_array_equal(other.state()[name], x, err_msg=name)
        assert other.calls == opt.calls == steps
        assert other.lr_factor == opt.lr_factor
        if "average" in more:
            same(more["average"].net, whole["average"].net)


def test_interrupted_after_every_step(tmp_path):
    make, options = CASES["everything"]
    expected, _, rows, _ = run(None, [], make, **options)
    net, _, history, _ = run(tmp_path, range(1, rows[-1]["step"]), make, **options)
    assert history == rows
    same(net, expected)


def test_the_interruption_matters(tmp_path):
    """Without the checkpoint the rest of the run is another one."""
    expected, *_ = run(None, [], plain, epochs=2, batch_size=16)
    net, opt, _ = plain()
    Interrupt.asked = False
    for k in (3, 5):
        bp.fit(net, loss, opt, data, steps=k, batch_size=16, seed=3, progress=False)
    with pytest.raises(AssertionError):
        same(net, expected)


def test_a_run_of_another_library_goes_on(backend, tmp_path):
    def make():
        net = bp.tree.map_distinct(backend.asarray, drawing_net())
        return net, optim.Adam(net, 0.01), {}

    options = {"epochs": 2, "batch_size": 16, "capture": False}  # whose products may round otherwise
    expected, _, rows, _ = run(None, [], make, **options)
    net, _, history, _ = run(tmp_path, [3, 6], make, **options)
    assert history == rows
    same(net, expected)


def test_a_log_goes_on_in_the_columns_it_has(tmp_path):
    fit(epochs=3, callbacks=[CSVLog(tmp_path / "whole.csv")])
    for k in (1, 2, 3):
        fit(epochs=k, checkpoint=tmp_path / "run", resume=True, callbacks=[CSVLog(tmp_path / "rows.csv")])
    assert (tmp_path / "rows.csv").read_text() == (tmp_path / "whole.csv").read_text()


def test_a_finished_run_returns_its_history(tmp_path):
    net, history = fit(epochs=2, checkpoint=tmp_path)
    calls = []
    other = net_of()
    _, again = fit(net=other, epochs=2, checkpoint=tmp_path, resume=True, step=lambda *_: calls.append(1))
    assert again == history
    assert not calls
    same(net, other)


def test_a_run_that_was_stopped_early_stays_stopped(tmp_path):
    options = {"epochs": 9, "validation": test, "data": data, "opt": lambda net: optim.SGD(net, 30.0)}
    net, history = fit(callbacks=[EarlyStopping(patience=1)], checkpoint=tmp_path, **options)
    assert history.stopped
    other, again = fit(callbacks=[EarlyStopping(patience=1)], checkpoint=tmp_path, resume=True, **options)
    assert (again, again.stopped) == (history, history.stopped)
    same(other, net)  # the best one, not the last


def test_a_reason_to_stop_can_be_taken_back(tmp_path):
    class Clock(Callback):
        def on_start(self, run):
            run.history.stopped, self.end = None, run.step + 3

        def on_step(self, run):
            if run.step == self.end:
                run.stop("out of time")

    for steps in (3, 6, 7):
        net, history = fit(epochs=1, checkpoint=tmp_path, resume=True, callbacks=[Clock()])
        assert history[-1]["step"] == steps
    assert history.stopped is None
    same(net, fit(epochs=1)[0])


def test_more_epochs_go_on(tmp_path):
    fit(epochs=1, checkpoint=tmp_path)
    net, history = fit(epochs=3, checkpoint=tmp_path, resume=True)
    expected, rows = fit(epochs=3)
    assert history == rows
    same(net, expected)


def test_checkpoints_come_when_they_say(tmp_path):
    fit(epochs=2, checkpoint=Checkpoints(tmp_path / "epochs", keep=9))
    assert Checkpoints(tmp_path / "epochs").steps() == [7, 14]
    fit(steps=11, checkpoint=Checkpoints(tmp_path / "steps", every=4, keep=9))
    assert Checkpoints(tmp_path / "steps").steps() == [4, 8, 11]
    kept = Checkpoints(tmp_path / "best", every=100, keep=1, best="val_loss")
    _, history = fit(epochs=4, checkpoint=kept, validation=test, opt=lambda net: optim.SGD(net, 3.0))
    best = min(history, key=lambda row: row["val_loss"])
    assert kept.steps() == sorted({best["step"], history[-1]["step"]})
    net = net_of()
    assert kept.load_best(net) == best["step"]
    assert bp.evaluate(net, loss, test)["loss"] == best["val_loss"]


def test_checkpoints_may_be_used_again(tmp_path):
    kept = Checkpoints(tmp_path / "run")
    for _ in range(2):
        fit(epochs=1, checkpoint=kept)
        assert kept.steps() == [7]
        shutil.rmtree(kept.folder)


def test_what_is_said(tmp_path, capsys):
    fit(steps=3, checkpoint=tmp_path, resume=True, progress=True)
    assert "no checkpoint yet: from the beginning" in capsys.readouterr().err
    fit(epochs=1, checkpoint=tmp_path, resume=True, progress=True)
    assert "goes on after epoch 1, step 3/7" in capsys.readouterr().err


# -- what is refused


def test_another_run_is_not_mixed_in(tmp_path):
    fit(epochs=1, checkpoint=tmp_path)
    with pytest.raises(FileExistsError, match="of another run in .* of step 7: resume=True goes on with it"):
        fit(epochs=1, checkpoint=tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 16}, "cannot go on with other settings: batch_size is 16, and was 32"),
        ({"seed": 1}, "seed is 1, and was 0"),
        ({"data": data}, r"data is \[\[\[50, 64\], 'float32'\], \[\[50\], 'int64'\]\], and was \[\[\[200, 64\]"),
        (
            {"callbacks": [EarlyStopping("loss")]},
            r"holds net, opt, run, but .* callbacks\[0\]: EarlyStopping",
        ),
        ({"opt": lambda net: optim.AdamW(net, 0.01)}, "optimizer is 'AdamW', and was 'Adam'"),
        (
            {"opt": lambda net: optim.Adam(net, 0.01, loss_scale="dynamic")},
            "does not fit this run: opt: .* of another optimizer",
        ),
        ({"net": net_of(classes=11)}, r"does not fit this run: net: .*layers\[2\].W is float32\[16, 10\]"),
    ],
    ids=lambda x: str(x)[:20] if isinstance(x, dict) else "",
)
def test_another_run_cannot_go_on(options, message, tmp_path):
    fit(epochs=1, checkpoint=tmp_path)
    net = options.get("net") or net_of()
    before = parameters(net)
    with pytest.raises(ValueError, match=message):
        fit(**{"epochs": 2, "checkpoint": tmp_path, "resume": True, "net": net, **options})
    for path, x in parameters(net).items():
        np.testing.assert_array_equal(x, before[path])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"resume": True}, ValueError, "resume=True goes on from a checkpoint: say where they are"),
        ({"resume": "yes", "checkpoint": "x"}, ValueError, "resume must be True or False, got 'yes'"),
        ({"checkpoint": 3}, TypeError, "Checkpoints expects the name of a folder, got int"),
    ],
)
def test_bad_options(options, error, message):
    with pytest.raises(error, match=message):
        fit(epochs=1, **options)
