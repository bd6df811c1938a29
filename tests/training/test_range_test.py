import sys

import numpy as np
import pytest

import gpubp as bp
from gpubp import losses, nn, optim
from gpubp.training import NotFinite, RangeTest, range_test
from gpubp.tree import leaves_with_paths, map_distinct

DIGITS = tuple(a[:300] for a in bp.data.digits()[0])


def loss(net, x, y):
    return losses.softmax_cross_entropy(net(x), y)


def net_of(*layers):
    return nn.Sequential(nn.Dense(64, 16), *layers, nn.relu, nn.Dense(16, 10), seed=0)


def everything(net, opt):
    arrays = {f"net {path}": x for path, x in net.state().items()} | {f"opt {n}": x for n, x in opt.state().items()}
    return {name: bp.to_numpy(x).copy() for name, x in arrays.items()}


def found_by(make=optim.Adam, net=None, **options):
    net = net_of() if net is None else net
    return bp.lr_finder(net, loss, make(net), DIGITS, **options)


def test_rates_are_those_of_the_range_and_losses_those_of_the_steps():
    found = found_by(low=1e-5, high=1e-3, steps=21)
    assert not found.diverged
    np.testing.assert_allclose(found.rates, np.geomspace(1e-5, 1e-3, 21))
    net = net_of()
    opt = optim.Adam(net)
    step, expected = 0, []
    for epoch in range(3):
        for x, y in bp.data.batches(DIGITS, 32, shuffle=True, seed=0, epoch=epoch):
            if step < 21:
                opt.lr = found.rates[step]
                value, grads = bp.value_and_grad(loss)(net, x, y)
                opt.step(grads)
                expected.append(float(value))
            step += 1
    np.testing.assert_allclose(found.losses, expected, rtol=1e-5)


def test_it_ends_where_the_loss_diverges():
    found = found_by(lambda net: optim.SGD(net, 0.1), high=1e9)
    assert found.diverged
    assert len(found.rates) == len(found.losses) < 90
    assert found.rates[-1] < 1e7
    assert np.all(np.isfinite(found.losses))


def test_the_suggestion_trains():
    for make in (lambda net: optim.SGD(net, 1.0, momentum=0.9), optim.Adam):
        net = net_of()
        opt = make(net)
        opt.lr = bp.lr_finder(net, loss, opt, DIGITS).suggestion
        history = bp.fit(net, loss, opt, DIGITS, epochs=10, progress=False)
        assert history[-1]["accuracy"] > 0.95


def test_the_suggestion_is_where_the_loss_falls_most_steeply():
    rates = np.geomspace(1e-4, 1.0, 81)
    at = np.log10(rates)
    down_and_up = 2 - 1 / (1 + np.exp(-4 * (at + 2))) + np.exp(6 * (at + 0.5))  # steepest at 1e-2
    noise = 0.02 * np.random.default_rng(0).normal(size=81)
    assert RangeTest(rates, down_and_up + noise, True).suggestion == pytest.approx(1e-2, rel=0.5)
    assert RangeTest(rates, np.exp(at), True).suggestion is None
    assert RangeTest(rates[:1], np.array([1.0]), True).suggestion is None


def test_smoothing_keeps_the_mean_and_moves_nothing():
    peak = np.zeros(101)
    peak[50] = 1.0
    smoothed = RangeTest(np.geomspace(1e-3, 1.0, 101), peak, False).smoothed
    assert smoothed.argmax() == 50
    np.testing.assert_allclose(smoothed, smoothed[::-1], rtol=1e-12)
    assert smoothed.sum() == pytest.approx(1.0, rel=1e-6)
    np.testing.assert_allclose(RangeTest(peak, np.full(101, 3.0), False).smoothed, 3.0, rtol=1e-12)


@pytest.mark.parametrize("high", [1e-2, 1e9])
def test_net_optimizer_and_cells_stay_as_they_were(backend, high):
    def prepared():
        net = map_distinct(backend.asarray, net_of(nn.BatchNorm(16), nn.Dropout(0.2)))
        opt = optim.Adam(net, 3e-3, nonfinite="skip")
        bp.fit(net, loss, opt, DIGITS, steps=3, progress=False)
        return net, opt

    net, opt = prepared()
    before, arrays = everything(net, opt), bp.tree.leaves(net)
    bp.lr_finder(net, loss, opt, DIGITS, high=high, steps=12)
    for name, x in everything(net, opt).items():
        np.testing.assert_array_equal(x, before[name], err_msg=name)
    assert all(a is b for a, b in zip(arrays, bp.tree.leaves(net), strict=True))
    assert (opt.lr, opt.calls) == (3e-3, 3)
    assert not any(layer.training for layer in net.layers if isinstance(layer, nn.Layer))
    other = prepared()
    for pair in ((net, opt), other):
        bp.fit(*(pair[0], loss, pair[1], DIGITS), steps=4, progress=False)
    after = everything(*other)
    for name, x in everything(net, opt).items():
        np.testing.assert_array_equal(x, after[name], err_msg=name)


def test_they_stay_also_where_an_error_ends_it():
    net = net_of()
    opt = optim.Adam(net, 3e-3)
    before, calls = everything(net, opt), iter(range(5))

    def broken(net, x, y):
        if next(calls) == 4:
            raise RuntimeError("broken")
        return loss(net, x, y)

    with pytest.raises(RuntimeError, match="broken"):
        bp.lr_finder(net, broken, opt, DIGITS)
    for name, x in everything(net, opt).items():
        np.testing.assert_array_equal(x, before[name], err_msg=name)
    assert opt.lr == 3e-3


def test_a_function_that_makes_the_optimizer_and_a_step_of_ones_own():
    def step(net, opt, x, y):
        value, grads = bp.value_and_grad(loss)(net, x, y)
        opt.step(grads)
        return value

    net = net_of()
    own = bp.lr_finder(net, None, optim.Adam, DIGITS, step=step, steps=10)
    np.testing.assert_array_equal(own.losses, found_by(steps=10).losses)
    np.testing.assert_array_equal(net.layers[0].W, net_of().layers[0].W)


def test_mixed_precision_leaves_no_loss_scale_behind():
    net = net_of()
    opt = optim.Adam(net)
    bp.lr_finder(net, loss, opt, DIGITS, steps=5, precision="float16")
    assert opt.scale is None
    new = net_of()
    pairs = (net, opt), (new, optim.Adam(new))
    again, expected = (bp.fit(net, loss, opt, DIGITS, steps=5, progress=False) for net, opt in pairs)
    assert again == expected


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
def test_steps_that_only_lower_the_loss_scale_do_not_end_it():
    net = net_of()
    opt = optim.Adam(net, loss_scale=optim.LossScale(2.0**30))
    found = bp.lr_finder(net, loss, opt, DIGITS, steps=40, high=1e-3, precision="float16")
    assert len(found.losses) == len(found.rates) == 40
    assert not found.diverged
    assert float(opt.scale) == 2.0**30
    assert opt.skipped == 0


def test_a_plot(tmp_path):
    pytest.importorskip("matplotlib")
    found_by().plot(tmp_path / "rates.png")
    assert (tmp_path / "rates.png").read_bytes().startswith(b"\x89PNG")
    RangeTest(np.array([0.1]), np.array([1.0]), True).plot(tmp_path / "one.svg")
    assert "<svg" in (tmp_path / "one.svg").read_text()


def test_a_plot_without_matplotlib(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ModuleNotFoundError, match=r"needs matplotlib, .*: pip install 'gpubp\[plot\]'"):
        RangeTest(np.array([0.1]), np.array([1.0]), True).plot(tmp_path / "rates.png")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"low": 0.0}, ValueError, r"0 < low < high, got 0.0 and 10.0"),
        ({"low": 1.0, "high": 0.1}, ValueError, r"0 < low < high, got 1.0 and 0.1"),
        ({"high": np.inf}, ValueError, r"0 < low < high, got 1e-07 and inf"),
        ({"low": "x"}, TypeError, "low must be a number, got 'x'"),
        ({"steps": 3.5}, TypeError, "steps must be a whole number, got 3.5"),
        ({"steps": 2}, ValueError, "steps must be at least 3, got 2"),
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1, got 0"),
        ({"make": lambda net: 0.1}, TypeError, r"opt must be an optimizer, as in optim.Adam\(net\), got float"),
        ({"make": lambda net: optim.Adam(net_of())}, ValueError, "made for another net"),
        (
            {"net": nn.Sequential(nn.Dense(None, 10), seed=0), "make": lambda net: optim.Adam},
            RuntimeError,
            r"call the net's build\(x\)",
        ),
    ],
)
def test_bad_arguments(options, error, message):
    with pytest.raises(error, match=message):
        found_by(**options)


def test_a_first_loss_that_is_not_finite():
    net = net_of()
    net.layers[0].W = np.full_like(net.layers[0].W, np.nan)
    with pytest.raises(NotFinite, match="not finite at step 1, in epoch 1"):
        found_by(net=net)


def test_divergence_of_losses_that_are_small_or_negative():
    def steps_until_divergence(values):
        test = range_test._Test(np.geomspace(1e-3, 1.0, len(values)))
        for k, value in enumerate(values):
            test._note(float(value))
            if test.diverged:
                return k
        return None

    falling = 10.0 ** -np.arange(0.0, 8.0, 0.1)
    jitter = falling * np.where(np.arange(80) % 2, 3.0, 0.3)
    assert steps_until_divergence(jitter) is None
    assert steps_until_divergence([*falling, *[10.0] * 5]) == 82  # the third of five in a row
    assert steps_until_divergence(-np.arange(1.0, 9.0)) is None
    assert steps_until_divergence([1.0, np.nan]) == 1


def test_a_function_that_makes_the_optimizer_is_given_the_copy():
    net = net_of(nn.Dropout(0.5), nn.BatchNorm(16))
    before, nets = {path: (x, x.copy()) for path, x in leaves_with_paths(net)}, []

    def make(its):
        nets.append(its)
        return optim.SGD(its, 0.1)

    bp.lr_finder(net, loss, make, DIGITS, steps=5)
    assert [its is net for its in nets] == [False]
    for path, x in leaves_with_paths(net):
        assert x is before[path][0]
        np.testing.assert_array_equal(x, before[path][1])
