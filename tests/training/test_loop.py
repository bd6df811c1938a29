import numpy as np
import pytest

import gpubp as bp
from gpubp import losses, nn, optim
from gpubp.capture import NotCapturable
from tests.training import common
from tests.training.common import loss, net_of, train

test = tuple(x[:200] for x in bp.data.digits().test)


def fit(seed=0, **options):
    return common.fit(epochs=2, seed=seed, **options)


def test_history_holds_a_row_for_each_epoch():
    net, history = fit(validation=test)
    assert [list(row) for row in history] == [["epoch", "step", "loss", "val_loss", "val_accuracy"]] * 2
    assert history[1]["epoch"] == 2
    assert history[1]["loss"] < history[0]["loss"]
    found = bp.evaluate(net, loss, test)
    assert found["accuracy"] == pytest.approx(history[1]["val_accuracy"], rel=1e-6)
    assert found["accuracy"] == pytest.approx((net(test[0]).argmax(1) == test[1]).mean(), rel=1e-6)


def test_without_validation_the_training_data_are_measured():
    net, history = fit()
    assert list(history[1]) == ["epoch", "step", "loss", "accuracy"]
    assert history[1]["accuracy"] == pytest.approx((net(train[0]).argmax(1) == train[1]).mean(), rel=1e-6)
    assert list(fit(metrics=())[1][0]) == ["epoch", "step", "loss"]


def test_one_seed_one_run():
    assert fit(3)[1] == fit(3)[1]
    assert fit(3)[1] != fit(4)[1]


def test_the_loss_of_an_epoch_is_the_mean_over_its_examples():
    net = net_of()
    before = bp.evaluate(net, loss, train)["loss"]
    history = bp.fit(net, loss, optim.SGD(net, 0.0), train, epochs=1, batch_size=64, progress=False)
    assert history[0]["loss"] == pytest.approx(before, rel=1e-5)


def test_it_is_the_loop_one_would_write():
    net = net_of()
    opt = optim.Adam(net, 0.01)
    for epoch in range(2):
        for x, y in bp.data.batches(train, 32, shuffle=True, seed=0, epoch=epoch):
            opt.step(bp.grad(loss)(net, x, y))
    for a, b in zip(net.parameters().values(), fit()[0].parameters().values(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_data_are_cast_to_the_nets_dtype():
    net = net_of().astype("float64")
    bp.fit(net, loss, optim.SGD(net, 0.1), train, epochs=1, progress=False)
    assert net.layers[0].W.dtype == "float64"


def test_every_library_trains_alike(backend):
    net = bp.tree.map_leaves(backend.asarray, net_of())
    history = bp.fit(net, loss, optim.Adam(net, 0.01), train, epochs=2, progress=False)
    for row, expected in zip(history, fit()[1], strict=True):
        assert row == pytest.approx(expected, rel=1e-3)


def test_nets_of_several_inputs():
    class Masked(nn.Layer):
        def __init__(self):
            self.out = nn.Dense(None, 10)

        def __call__(self, x, mask):
            return self.out(x * mask)

    def masked_loss(net, x, mask, y):
        return losses.softmax_cross_entropy(net(x, mask), y)

    def kept(data):
        return data[0], np.ones_like(data[0]), data[1]

    def adam(net):
        return optim.Adam(net, 0.01)

    net, plain = Masked().build(0), nn.Sequential(nn.Dense(None, 10)).build(0)
    plain.layers[0].W = net.out.W  # waits, with its path, for the first batch
    rows = bp.fit(net, masked_loss, adam, kept(train), epochs=2, validation=kept(test), progress=False)
    assert rows == bp.fit(plain, loss, adam, train, epochs=2, validation=test, progress=False)
    assert bp.evaluate(net, masked_loss, kept(test))["accuracy"] == rows[-1]["val_accuracy"]


def test_a_progress_bar_shows_the_figures(capsys):
    net = net_of()
    bp.fit(net, loss, optim.SGD(net, 0.1), train, epochs=2, validation=test)
    shown = capsys.readouterr().err
    assert "epoch 2, step 14/14" in shown
    assert "val_accuracy 0." in shown


def test_labels_beyond_the_outputs_are_found_before_training():
    net = net_of(classes=9)
    with pytest.raises(ValueError, match="the label 9, but the net has 9 outputs"):
        bp.fit(net, loss, optim.SGD(net, 0.1), train, epochs=1, progress=False)
    with pytest.raises(ValueError, match="epochs must be at least 1, got 0"):
        bp.fit(net, loss, optim.SGD(net, 0.1), train, epochs=0)


def test_xor_is_learned():
    x, y = bp.data.xor()
    net = nn.Sequential(nn.Dense(2, 8), nn.tanh, nn.Dense(8, 1), seed=0)
    history = bp.fit(
        net,
        lambda net, x, y: losses.binary_cross_entropy(net(x), y),
        optim.Adam(net, 0.1),
        (x, y),
        epochs=100,
        batch_size=4,
        progress=False,
    )
    assert history[-1]["accuracy"] == 1
    assert history[-1]["loss"] < 0.05


def test_capture_is_left_out_on_the_cpu_and_insisted_on_in_vain():
    assert fit(capture=False)[1] == fit()[1]
    with pytest.raises(NotCapturable, match="since its arrays are not on a GPU, through CuPy"):
        fit(capture=True)
    with pytest.raises(ValueError, match="capture must be True, False or 'auto', got 'yes'"):
        fit(capture="yes")
