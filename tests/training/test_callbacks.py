import csv
import json
import math

import numpy as np
import pytest

import gpubp as bp
from gpubp import nn, optim
from gpubp.training import Callback, CSVLog, EarlyStopping, History, JSONLines, ReduceOnPlateau
from tests.training.common import fit, loss, net_of, parameters, same, train


class Noted(Callback):
    def __init__(self):
        self.calls = []

    def on_start(self, run):
        self.calls.append(("start", run.step, run.steps))

    def on_step(self, run):
        self.calls.append(("step", run.step, run.epoch, run.batch, float(run.value)))

    def on_report(self, run):
        self.calls.append(("report", run.step, dict(run.history[-1])))

    def on_end(self, run):
        self.calls.append(("end", run.step))


def test_a_callback_is_told_what_happens():
    noted = Noted()
    _, history = fit(epochs=2, batch_size=100, callbacks=[noted])
    kinds = [call[:2] for call in noted.calls]
    assert kinds == [
        ("start", 0),
        ("step", 1),
        ("step", 2),
        ("report", 2),
        ("step", 3),
        ("step", 4),
        ("report", 4),
        ("end", 4),
    ]
    assert noted.calls[0][2] == 4
    assert [call[2:4] for call in noted.calls if call[0] == "step"] == [(0, 1), (1, 0), (1, 1), (2, 0)]
    assert [call[2] for call in noted.calls if call[0] == "report"] == history
    values = [call[4] for call in noted.calls if call[0] == "step"]
    assert np.mean(values[:2]) == pytest.approx(history[0]["loss"], rel=1e-12)


def test_a_callback_sees_net_and_optimizer():
    class Decay(Callback):
        def on_step(self, run):
            run.opt.lr = 0.01 / (1 + run.step)

    net, _ = fit(epochs=1, callbacks=[Decay()])
    opt = optim.Adam(other := net_of(), 0.01)
    for k, batch in enumerate(bp.data.batches(train, 32, shuffle=True, seed=0)):
        opt.lr = 0.01 / (1 + k)
        opt.step(bp.grad(loss)(other, *batch))
    same(net, other)


@pytest.mark.parametrize(("hook", "steps"), [("on_step", 3), ("on_report", 7)])
def test_a_callback_ends_the_run(hook, steps):
    class Stop(Callback):
        pass

    setattr(Stop, hook, lambda self, run: run.stop("enough") if run.step >= 3 else None)
    _, history = fit(epochs=5, callbacks=[Stop()])
    assert [row["step"] for row in history] == [steps]  # what was done since the last row gives one
    assert history.stopped == "enough"
    assert not history.interrupted
    assert fit(epochs=1)[1].stopped is None


# -- early stopping


def given(figures, name="val_loss"):
    """Return a callback that puts figures into the history's rows."""

    class Given(Callback):
        def on_report(self, run):
            run.history[-1][name] = figures[len(run.history) - 1]

    return Given()


@pytest.mark.parametrize(
    ("figures", "options", "rows"),
    [
        ([5.0, 4.0, 4.5, 4.2, 3.0, 1.0], {"patience": 2}, 4),
        ([5.0, 4.0, 4.5, 3.9, 4.2, 3.0], {"patience": 2}, 6),
        ([5.0, 4.0, 4.5, 3.9, 4.2, 4.1], {"patience": 2, "threshold": 0.5}, 4),
        ([5.0, math.nan, 4.5, math.nan, math.nan, 1.0], {"patience": 2}, 5),
        ([1.0, 2.0, 3.0, 2.5, 2.9, 9.0], {"patience": 2, "maximize": True}, 5),
        ([5.0, 5.0, 5.0, 5.0, 5.0, 5.0], {"patience": 4}, 5),
    ],
)
def test_early_stopping_waits_for_a_better_row(figures, options, rows):
    _, history = fit(epochs=6, batch_size=200, metrics=(), callbacks=[given(figures), EarlyStopping(**options)])
    assert len(history) == rows
    assert history.stopped == (f"val_loss has not got better for {options['patience']} rows" if rows < 6 else None)


@pytest.mark.parametrize("name", ["val_accuracy", "accuracy", "val_top5", "r2", "val_f1_macro[1]", "recall"])
def test_scores_are_the_better_the_larger(name):
    stopping = EarlyStopping(name, patience=1)
    _, history = fit(epochs=4, batch_size=200, callbacks=[given([0.1, 0.2, 0.1, 0.3], name), stopping], metrics=())
    assert len(history) == 3


def test_early_stopping_gives_back_the_best_net(backend):
    states = []

    class Keep(Callback):
        def on_report(self, run):
            states.append(parameters(run.net))

    def net():
        made = nn.Sequential(nn.Dense(64, 8), nn.BatchNorm(8), nn.relu, nn.Dense(8, 10), seed=0)
        return bp.tree.map_distinct(backend.asarray, made)

    figures = [3.0, 1.0, 2.0, 2.0, 2.0]
    found, _ = fit(net=net(), epochs=5, batch_size=100, callbacks=[given(figures), Keep(), EarlyStopping(patience=9)])
    for path, x in parameters(found).items():
        np.testing.assert_array_equal(x, states[1][path], err_msg=path)
        if x.size > 1:
            assert not np.array_equal(x, states[-1][path])
    last, _ = fit(net=net(), epochs=5, batch_size=100, callbacks=[given(figures), EarlyStopping(restore=False)])
    for path, x in parameters(last).items():
        np.testing.assert_array_equal(x, states[5 - 1][path], err_msg=path)


def test_the_monitored_figure_must_be_there():
    with pytest.raises(ValueError, match="no figure 'val_loss' to monitor in the history: there are loss, accuracy$"):
        fit(epochs=1, callbacks=[EarlyStopping()])


# -- the learning rate


FIGURES = [3.0, 2.0, 2.0, 2.5, 2.0, 1.9, 1.8, 1.9, 1.9, 1.9, 1.9, 1.9, 1.7, 1.9, 1.9, 2.0, math.nan, 1.6, 1.7, 1.7]


@pytest.mark.peers
@pytest.mark.parametrize(
    "options",
    [
        {"patience": 0},
        {"patience": 2, "factor": 0.5},
        {"patience": 1, "cooldown": 2, "threshold": 0.05},
        {"patience": 1, "factor": 0.3, "min_lr": 2e-3},
        {"patience": 0, "maximize": True, "factor": 0.9},
    ],
    ids=str,
)
def test_the_learning_rate_is_lowered_as_by_pytorch(options):
    torch = pytest.importorskip("torch")
    rates = []

    class Keep(Callback):
        def on_report(self, run):
            rates.append(run.opt.lr * run.opt.lr_factor)

    callbacks = [given(FIGURES), ReduceOnPlateau(**options), Keep()]
    fit(epochs=len(FIGURES), batch_size=200, metrics=(), callbacks=callbacks)
    options = {"threshold": 0.0, "threshold_mode": "abs", "eps": 0.0, **options}
    mode = "max" if options.pop("maximize", False) else "min"
    opt = torch.optim.SGD([torch.zeros(1)], lr=0.01)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(opt, mode, **options)
    for figure, rate in zip(FIGURES, rates, strict=True):
        plateau.step(figure)
        assert rate == pytest.approx(opt.param_groups[0]["lr"], rel=1e-12)
    assert rates[-1] < 0.01


@pytest.mark.parametrize(("lr", "expected"), [(0.01, 0.004), (0.001, 0.001)])
def test_the_least_learning_rate_is_none_to_rise_to(lr, expected):
    callbacks = [given([1.0] * 5), ReduceOnPlateau(patience=0, min_lr=0.004)]
    made = []
    fit(epochs=5, batch_size=200, callbacks=callbacks, opt=lambda net: made.append(optim.SGD(net, lr)) or made[0])
    assert made[0].lr_factor * lr == pytest.approx(expected)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_two_plateaus_are_resumed_as_one_factor(order, tmp_path):
    def run(epochs, **options):
        made, plateaus = [], [ReduceOnPlateau("loss", patience=0, threshold=9.0), ReduceOnPlateau("loss", patience=1)]
        plateaus[1].factor = 0.5
        callbacks = [plateaus[k] for k in order]
        opt = lambda net: made.append(optim.SGD(net, 1e3)) or made[0]  # noqa: E731  (which learns nothing)
        fit(epochs=epochs, batch_size=200, callbacks=callbacks, opt=opt, metrics=(), **options)
        return made[0].lr_factor

    for epochs in (2, 4, 6):
        found = run(epochs, checkpoint=tmp_path, resume=True)
    assert found == run(6) < 1


# -- files


def test_the_history_goes_to_files_row_by_row(tmp_path):
    seen = []

    class Read(Callback):
        def on_report(self, run):
            seen.append(len((tmp_path / "rows.jsonl").read_text().splitlines()))

    files = [CSVLog(tmp_path / "rows.csv"), JSONLines(tmp_path / "rows.jsonl"), Read()]
    (tmp_path / "rows.csv").write_text("what was there before")
    _, history = fit(epochs=3, metrics=["accuracy", "confusion"], callbacks=files)
    assert seen == [1, 2, 3]
    assert [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()] == history
    with open(tmp_path / "rows.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [float(row["loss"]) for row in rows] == [row["loss"] for row in history]
    assert [json.loads(row["confusion"]) for row in rows] == [row["confusion"] for row in history]


def test_columns_stay_when_a_run_is_resumed_with_other_metrics(tmp_path):
    for epochs, metrics in ((1, ["accuracy"]), (2, ["top2", "accuracy"])):
        log = CSVLog(tmp_path / "rows.csv")
        _, history = fit(epochs=epochs, metrics=metrics, checkpoint=tmp_path / "run", resume=True, callbacks=[log])
    with open(tmp_path / "rows.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [float(row["accuracy"]) for row in rows] == [row["accuracy"] for row in history]
    assert list(rows[1]) == ["epoch", "step", "loss", "accuracy"]


def test_what_json_has_no_number_for_is_null(tmp_path):
    fit(epochs=1, callbacks=[given([math.inf]), JSONLines(tmp_path / "rows")], batch_size=200)
    assert json.loads((tmp_path / "rows").read_text())["val_loss"] is None


def test_a_log_goes_on_from_the_rows_that_there_are(tmp_path):
    class Resumed:
        history = History([{"epoch": 1, "loss": 2.0}])

    log = CSVLog(tmp_path / "rows.csv")
    (tmp_path / "rows.csv").write_text("epoch,loss\n1,2.0\n2,1.0\n")  # from after what is resumed
    log.on_start(Resumed)
    assert (tmp_path / "rows.csv").read_text() == "epoch,loss\n1,2.0\n"


# -- what is refused


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: EarlyStopping(3), TypeError, "monitor must be the name of a figure, as 'val_loss', got 3"),
        (lambda: EarlyStopping(patience=0), ValueError, "patience must be at least 1, got 0"),
        (lambda: EarlyStopping(threshold=-1.0), ValueError, "threshold must not be negative, got -1.0"),
        (lambda: EarlyStopping(threshold="x"), TypeError, "threshold must be a number, got 'x'"),
        (lambda: ReduceOnPlateau(factor=1.0), ValueError, "factor must be between 0 and 1, got 1.0"),
        (lambda: ReduceOnPlateau(min_lr=-1), ValueError, "min_lr must not be negative, got -1"),
        (lambda: ReduceOnPlateau(patience=None), TypeError, "patience must be a number, got None"),
        (lambda: CSVLog(3), TypeError, "CSVLog expects the name of a file, got int"),
    ],
)
def test_bad_options(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    ("callbacks", "message"),
    [
        (EarlyStopping(), "callbacks must be a list or tuple, got EarlyStopping"),
        ([EarlyStopping], r"a callback must be a Callback, got the class EarlyStopping: write EarlyStopping\(\)"),
        ([print], "a callback must be a Callback, got builtin_function_or_method"),
    ],
)
def test_what_is_no_callback(callbacks, message):
    with pytest.raises(TypeError, match=message):
        fit(epochs=1, callbacks=callbacks)


def test_early_stopping_gives_back_the_best_average_too():
    net = net_of()
    average = optim.Average(net, 0.5)
    states = []

    class Keep(Callback):
        def on_report(self, run):
            states.append([parameters(part) for part in run.nets])

    callbacks = [given([3.0, 1.0, 2.0]), Keep(), EarlyStopping(patience=9)]
    fit(net=net, epochs=3, average=average, callbacks=callbacks, metrics=())
    for part, state in zip((net, average.net), states[1], strict=True):
        for path, x in parameters(part).items():
            np.testing.assert_array_equal(x, state[path], err_msg=path)
    assert not np.array_equal(states[1][1]["layers[0].W"], states[2][1]["layers[0].W"])


def test_a_state_that_is_none(tmp_path):
    class Bad(Callback):
        def state(self):
            return 3

    with pytest.raises(TypeError, match=r"state\(\) of Bad must return a dict, got int"):
        fit(epochs=1, checkpoint=tmp_path, callbacks=[Bad()])
