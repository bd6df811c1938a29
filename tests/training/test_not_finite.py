"""What is not finite stops the run, or is left out: the net is then as if that step had never been tried."""

import signal

import numpy as np
import pytest

import gpubp as bp
from gpubp import losses, nn, optim
from gpubp.training import Callback, NotFinite, run
from gpubp.tree import map_distinct
from tests.training.common import fit, loss, net_of, parameters, same, train

X, Y = train
pytestmark = pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid value", "ignore:divide by zero")


def marked(*rows):
    """Return the data with a mark, a number that no pixel has, in some rows."""
    x = X.copy()
    x[list(rows), 0] = 99.0
    return x, Y


def bad_loss(net, x, y):
    """The loss; NaN with a marked row in the batch."""
    xp = bp.array_namespace(x)
    return loss(net, x, y) + xp.where(xp.max(x) > 50, xp.asarray(np.nan, dtype=x.dtype), xp.zeros((), dtype=x.dtype))


def bad_gradient(net, x, y):
    """The loss; with a marked row in the batch a gradient is that of a root at 0, times 0."""
    xp = bp.array_namespace(x)
    c = xp.where(xp.max(x) > 50, xp.zeros((), dtype=x.dtype), xp.ones((), dtype=x.dtype))
    return loss(net, x, y) + (c + 0 * net.layers[-1].b[0]) ** 0.5 - c


def drawing_net():
    layers = nn.Dense(64, 8, bias=False), nn.BatchNorm(8), nn.relu, nn.Dropout(0.3), nn.Dense(8, 10)
    return nn.Sequential(*layers, seed=0)


def place_of(row, epoch=0, batch_size=32):
    """Return the number of the batch that a row is in, from 0, and that batch's rows."""
    made = bp.data.batches(train, batch_size, shuffle=True, seed=0, epoch=epoch)
    return next((i, made.rows(i)) for i in range(len(made)) if row in made.rows(i))


@pytest.mark.parametrize("objective", [bad_loss, bad_gradient])
def test_it_stops_with_the_net_from_before(objective, backend):
    at, rows = place_of(123)
    net = map_distinct(backend.asarray, drawing_net())
    with pytest.raises(NotFinite) as caught:
        fit(objective, net=net, data=marked(123), epochs=2, opt=lambda net: optim.Adam(net, 0.01))
    error = caught.value
    assert isinstance(error, FloatingPointError)
    assert (error.place.epoch, error.place.step) == (1, at + 1)
    assert error.place.rows == rows.tolist()
    assert f"is not finite at step {at + 1}, in epoch 1, with the rows {rows[0]}, {rows[1]}, " in str(error)
    assert "the net has the values from before that step" in str(error)
    expected = map_distinct(backend.asarray, drawing_net())
    if at:
        fit(objective, net=expected, data=marked(123), steps=at, opt=lambda net: optim.Adam(net, 0.01), metrics=())
    same(net, expected)


def test_it_is_named_with_its_epoch(monkeypatch):
    """Also where losses are read rarely, and batches are accumulated."""
    monkeypatch.setattr(run, "READ_EVERY", 1e9)
    steps = []

    def worse(net, opt, x, y):  # the first row of the second epoch's third batch
        steps.append(1)
        value, grads = bp.value_and_grad(loss)(net, x, y)
        opt.step(grads, value * np.nan if len(steps) == 10 else value)
        return value

    net = net_of()
    with pytest.raises(NotFinite, match=r"at step 10, in epoch 2, .* the mean loss before it was 2\.\d+"):
        fit(step=worse, net=net, epochs=3)
    assert len(steps) == 14  # till the end of the epoch
    same(net, fit(steps=9)[0])


def test_accumulated_batches_are_named_together():
    at, _ = place_of(50, batch_size=20)
    made = bp.data.batches(train, 20, shuffle=True, seed=0)
    first = at // 3 * 3
    with pytest.raises(NotFinite) as caught:
        fit(bad_loss, data=marked(50), epochs=1, batch_size=20, accumulate=3)
    assert caught.value.place.step == at // 3 + 1
    assert caught.value.place.rows == [i for k in range(first, min(first + 3, 10)) for i in made.rows(k).tolist()]


@pytest.mark.parametrize("objective", [bad_loss, bad_gradient])
def test_skipped_steps_leave_no_trace(objective, backend, capsys):
    at, rows = place_of(123)
    net = map_distinct(backend.asarray, drawing_net())
    options = {"epochs": 1, "nonfinite": "skip", "metrics": ()}
    _, history = fit(objective, net=net, data=marked(123), progress=True, **options)
    assert history[0]["skipped"] == history.skipped == 1
    assert history.skips == [(1, at + 1, rows.tolist())]
    assert f"1 steps were skipped, not being finite: step {at + 1}, in epoch 1" in capsys.readouterr().err
    other, opt = map_distinct(backend.asarray, drawing_net()).train(), None
    opt, values = optim.Adam(other, 0.01), []
    for k, (x, y) in enumerate(bp.data.batches(train, 32, shuffle=True, seed=0)):
        if k != at:
            value, grads = bp.value_and_grad(loss)(other, backend.asarray(x), backend.asarray(y))
            opt.step(grads)
            values.append((float(bp.to_numpy(value)), len(x)))
    losses_, n = zip(*values, strict=True)
    assert history[0]["loss"] == pytest.approx(np.average(losses_, weights=n), rel=1e-6)
    for path, x in parameters(other).items():
        np.testing.assert_allclose(parameters(net)[path], x, rtol=1e-5, atol=1e-7, err_msg=path)


def test_the_list_of_skipped_steps_is_bounded():
    rows = range(0, 200, 2)
    _, history = fit(bad_loss, data=marked(*rows), epochs=2, batch_size=2, nonfinite="skip")
    assert history.skipped == sum(row["skipped"] for row in history) > history.KEPT == len(history.skips)


def test_a_run_in_which_every_step_fails_is_given_up(monkeypatch):
    monkeypatch.setattr(run, "HOPELESS", 10)
    with pytest.raises(NotFinite, match="at step 10, .*the last of 10 in a row"):
        fit(lambda net, x, y: loss(net, x, y) * np.float32(np.nan), epochs=3, nonfinite="skip")
    _, history = fit(bad_loss, data=marked(*range(0, 200, 3)), epochs=3, batch_size=2, nonfinite="skip")
    assert history.skipped > 10


def test_a_row_of_skipped_steps_has_no_loss():
    _, history = fit(lambda net, x, y: loss(net, x, y) * np.float32(np.inf), epochs=1, nonfinite="skip")
    assert np.isnan(history[0]["loss"])
    assert history[0]["skipped"] == 7


# -- loss scales


def overflowing(net, x, y):
    """A loss whose gradient is large."""
    return 50 * loss(net, x, y)


@pytest.mark.parametrize("nonfinite", ["stop", "scale"])
def test_a_gradient_that_overflows_lowers_the_scale(nonfinite):
    opt = lambda net: optim.SGD(net, 1e-3, loss_scale=optim.LossScale(2.0**126, interval=1000))  # noqa: E731
    made = []

    def keep(net):
        made.append(opt(net))
        return made[0]

    _, history = fit(overflowing, epochs=4, opt=keep, nonfinite=nonfinite)
    assert float(made[0].scale) < 2.0**126
    assert made[0].skipped > 0
    assert history.skipped == (made[0].skipped if nonfinite == "scale" else 0)
    assert history[-1]["loss"] < history[0]["loss"] or nonfinite == "scale"


def test_scale_makes_a_scale():
    made = []
    fit(epochs=1, nonfinite="scale", opt=lambda net: made.append(optim.Adam(net)) or made[0])
    assert made[0].rescales
    assert made[0].nonfinite == "skip"


@pytest.mark.parametrize("nonfinite", ["stop", "scale", "skip"])
def test_a_loss_that_is_nan_stops_in_spite_of_a_scale(nonfinite):
    at, _ = place_of(123)
    options = {"data": marked(123), "epochs": 1, "nonfinite": nonfinite}
    opt = lambda net: optim.SGD(net, 0.1, loss_scale="dynamic")  # noqa: E731
    if nonfinite == "stop":
        with pytest.raises(NotFinite, match=f"at step {at + 1}, in epoch 1"):
            fit(bad_loss, opt=opt, **options)
    else:
        assert fit(bad_loss, opt=opt, **options)[1].skipped == 1


# -- a step of one's own, and averages


def test_the_loss_of_ones_own_step_is_watched():
    def step(net, opt, x, y):
        value, grads = bp.value_and_grad(loss)(net, x, y)
        opt.step(grads)  # without the value
        return value * np.float32(np.nan) if 99.0 in x else value

    at, rows = place_of(123)
    with pytest.raises(NotFinite) as caught:
        fit(step=step, data=marked(123), epochs=1)
    assert caught.value.place == (1, at + 1, rows.tolist())
    assert "the step was taken, as opt.step was not given the loss" in str(caught.value)
    _, history = fit(step=step, data=marked(123), epochs=1, nonfinite="skip")
    assert history.skipped == 1


@pytest.mark.parametrize("nonfinite", ["stop", "skip"])
def test_the_average_leaves_such_steps_out_too(nonfinite, backend):
    at, _ = place_of(123)

    def averaged(data, **options):
        net = map_distinct(backend.asarray, drawing_net())
        average = optim.Average(net, 0.8)
        try:
            fit(bad_loss, net=net, data=data, average=average, opt=lambda net: optim.Adam(net, 0.01), **options)
        except NotFinite:
            assert nonfinite == "stop"
        return average

    assert at > 1
    found = averaged(marked(123), steps=at + 1, nonfinite=nonfinite, metrics=())
    expected = averaged(train, steps=at, metrics=())
    same(found.net, expected.net)


def test_the_average_is_what_is_measured():
    net = net_of()
    average = optim.Average(net, 0.8)
    _, history = fit(net=net, epochs=2, average=average, validation=train, opt=lambda net: optim.SGD(net, 1.0))
    assert history[-1]["val_loss"] == bp.evaluate(average.net, loss, train)["loss"]
    assert history[-1]["val_loss"] != bp.evaluate(net, loss, train)["loss"]
    expected = optim.Average(other := net_of(), 0.8)
    opt = optim.SGD(other, 1.0)
    for epoch in range(2):
        for batch in bp.data.batches(train, 32, shuffle=True, seed=0, epoch=epoch):
            opt.step(bp.grad(loss)(other, *batch))
            expected.update()
    same(average.net, expected.net)


# -- afterwards


def test_an_optimizer_that_was_stopped_goes_on_in_the_next_run():
    net = net_of()
    opt = optim.Adam(net, 0.01)
    with pytest.raises(NotFinite):
        bp.fit(net, bad_loss, opt, marked(123), epochs=1, progress=False)
    before = parameters(net)
    bp.fit(net, loss, opt, train, steps=1, progress=False)
    assert not np.array_equal(before["layers[0].W"], parameters(net)["layers[0].W"])


def test_nothing_is_waited_for_at_each_step():
    """Losses are read once a while: a thousand steps of a device are not a thousand waits."""
    reads = []

    class Count(Callback):
        def on_start(self, run):
            read = run.read
            run.read = lambda: (reads.append(run.step), read())

    fit(epochs=10, batch_size=2, callbacks=[Count()], metrics=())
    assert len(reads) < 60
    assert losses  # 1000 steps


def test_an_interruption_does_not_hide_it(monkeypatch):
    monkeypatch.setattr(run, "READ_EVERY", 1e9)

    class Press(Callback):
        def on_step(self, run):
            if run.step == 6:
                signal.raise_signal(signal.SIGINT)

    at, _ = place_of(123)
    assert at < 6
    with pytest.raises(NotFinite):
        fit(bad_loss, data=marked(123), epochs=1, callbacks=[Press()])


def test_what_files_hold_is_not_read_beforehand(tmp_path):
    x = X.copy()
    x[123, 0] = np.nan
    np.save(tmp_path / "x.npy", x)
    with pytest.raises(NotFinite) as caught:
        fit(data=(bp.data.npy(tmp_path / "x.npy"), Y), epochs=1)
    assert 123 in caught.value.place.rows
