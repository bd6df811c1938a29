"""What a run is made of: epochs or steps, rows, accumulation, several inputs and outputs, a step of one's own."""

import threading
from contextlib import nullcontext

import numpy as np
import pytest

import gpubp as bp
from gpubp import losses, nn, optim
from gpubp.tree import map_distinct
from tests.training.common import batches_of, fit, loss, net_of, parameters, same, train

# -- epochs, steps, rows


def test_steps_may_end_within_an_epoch():
    net, history = fit(steps=10, batch_size=32)  # of 7 an epoch
    assert [(row["epoch"], row["step"]) for row in history] == [(1, 7), (2, 10)]
    expected, _ = fit(epochs=1, batch_size=32)
    opt = optim.Adam(other := net_of(), 0.01)
    for epoch, stop in ((0, 7), (1, 3)):
        for batch in batches_of(epoch)[:stop]:
            opt.step(bp.grad(loss)(other, *batch))
    same(net, other)
    with pytest.raises(AssertionError):
        same(net, expected)


def test_steps_are_epochs_where_they_fit():
    assert fit(steps=14, batch_size=32)[1] == fit(epochs=2, batch_size=32)[1]


def test_rows_every_so_many_steps_hold_the_loss_since_the_row_before():
    net, history = fit(epochs=2, report_every=5, batch_size=32)
    assert [(row["epoch"], row["step"]) for row in history] == [(1, 5), (2, 10), (2, 14)]
    found, opt = [], optim.Adam(other := net_of(), 0.01)
    for epoch in range(2):
        for batch in batches_of(epoch):
            value, grads = bp.value_and_grad(loss)(other, *batch)
            opt.step(grads)
            found.append((float(value), len(batch[0])))
    for row, steps in zip(history, (found[:5], found[5:10], found[10:]), strict=True):
        values, rows = zip(*steps, strict=True)
        assert row["loss"] == pytest.approx(np.average(values, weights=rows), rel=1e-12)
    same(net, other)


def test_a_batch_may_have_all_the_data():
    net, history = fit(epochs=3, batch_size=10_000)
    assert [row["step"] for row in history] == [1, 2, 3]
    opt = optim.Adam(other := net_of(), 0.01)
    for epoch in range(3):
        opt.step(bp.grad(loss)(other, *batches_of(epoch, 10_000)[0]))
    same(net, other)


@pytest.mark.parametrize(("last", "sizes"), [("keep", [64, 64, 64, 8]), ("drop", [64] * 3), ("pad", [64] * 4)])
def test_the_last_batch(last, sizes):
    seen = []

    def noted(net, x, y):
        seen.append(len(x))
        return loss(net, x, y)

    _, history = fit(noted, epochs=1, batch_size=64, last=last, metrics=())
    assert seen == sizes
    assert history[0]["step"] == len(sizes)


def test_figures_that_are_arrays_are_lists():
    _, history = fit(epochs=1, metrics=["confusion"])
    assert np.asarray(history[0]["confusion"]).sum() == len(train[0])
    assert isinstance(history[0]["confusion"][0][0], int)


# -- how batches are made


def test_transforms_of_steps_draw_and_those_of_measurements_do_not():
    normalize, noise = bp.data.transforms.Normalize.fit(train[0]), bp.data.transforms.Noise(0.5)
    seen = []

    def noted(net, x, y):
        seen.append(x)
        return loss(net, x, y)

    both = bp.data.transforms.Compose(normalize, noise)
    fit(noted, epochs=1, batch_size=1000, validation=train, transform=both, metrics=())
    (first,) = bp.data.batches(train, 1000, shuffle=True, seed=0, transform=both)
    np.testing.assert_array_equal(seen[0], first[0])
    np.testing.assert_array_equal(seen[1], normalize(train[0]))


def test_balance_and_prefetch():
    labels = train[1] % 7 // 6  # few of one kind
    _, plain = fit(net=net_of(classes=2), data=(train[0], labels), epochs=1, balance=1)
    _, ahead = fit(net=net_of(classes=2), data=(train[0], labels), epochs=1, balance=1, prefetch=3)
    assert plain == ahead
    assert plain[0]["step"] > -(-len(labels) // 32)


def test_labels_to_ignore():
    y = np.where(np.arange(200) % 3 == 0, -100, train[1])

    def ignoring(net, x, y):
        return losses.softmax_cross_entropy(net(x), y, ignore_index=-100)

    metric = bp.metrics.accuracy(ignore_index=-100)
    net, history = fit(ignoring, data=(train[0], y), epochs=2, ignore_index=-100, metrics=[metric])
    assert history[1]["accuracy"] == (net(train[0]).argmax(1) == y)[y >= 0].mean()
    found = bp.evaluate(net, ignoring, (train[0], y), ignore_index=-100, metrics=[metric])
    assert found["accuracy"] == history[1]["accuracy"]
    with pytest.raises(ValueError, match="holds -100 at .* ignore_index says which label the loss ignores"):
        fit(ignoring, data=(train[0], y), epochs=1)
    with pytest.raises(ValueError, match="holds -1 at"):
        fit(ignoring, data=(train[0], np.where(y == -100, -1, y)), epochs=1, ignore_index=-100)


# -- accumulation


@pytest.mark.parametrize("batch_size", [16, 20, 200])
def test_accumulated_batches_step_as_one(batch_size, backend):
    options = {"epochs": 2, "metrics": ()}
    net, history = fit(backend=backend, batch_size=batch_size, accumulate=3, **options)
    expected, rows = fit(backend=backend, batch_size=3 * batch_size, **options)
    for a, b in zip(history, rows, strict=True):
        assert a == pytest.approx(b, rel=1e-5)
    for path, x in parameters(expected).items():
        np.testing.assert_allclose(parameters(net)[path], x, rtol=1e-3, atol=1e-5, err_msg=path)


def test_accumulation_counts_rows_not_batches():
    """The last batch of an epoch has 8 rows: its gradient counts as much less as it has fewer."""
    net, _ = fit(epochs=1, batch_size=64, accumulate=4, opt=lambda net: optim.SGD(net, 1.0), metrics=())
    other = net_of()
    grads = bp.grad(loss)(other, *train)
    for path, x in parameters(other).items():
        np.testing.assert_allclose(parameters(net)[path], x - parameters(grads)[path], rtol=1e-4, atol=1e-6)


def test_accumulation_with_frozen_and_shared_parameters():
    def tied():
        layer = nn.Dense(64, 64)
        net = nn.Sequential(layer, nn.tanh, layer, nn.Dense(64, 10), seed=0)
        net.layers[-1].freeze()
        return net

    net, _ = fit(net=tied(), epochs=1, batch_size=50, accumulate=2)
    expected, _ = fit(net=tied(), epochs=1, batch_size=100)
    assert net.layers[0].W is net.layers[2].W
    np.testing.assert_array_equal(net.layers[-1].W, tied().layers[-1].W)
    np.testing.assert_allclose(net.layers[0].W, expected.layers[0].W, rtol=1e-3, atol=1e-5)


# -- several inputs and outputs


class Two(nn.Layer):
    """A label and a number of two inputs."""

    def __init__(self):
        self.hidden, self.label, self.number = nn.Dense(64, 16), nn.Dense(16, 10), nn.Dense(16, 1)

    def __call__(self, x, scale):
        h = nn.tanh(self.hidden(x * scale))
        return self.label(h), self.number(h)


def both_losses(net, x, scale, label, number):
    z, y = net(x, scale)
    return losses.softmax_cross_entropy(z, label) + losses.mse(y, number)


def test_several_outputs():
    data = train[0], np.ones((200, 1), "float32"), train[1], train[0][:, 20:21]
    net = Two().build(0)
    options = {"targets": 2, "metrics": ["accuracy[0]", "mae[1]"]}
    opt = optim.Adam(net, 0.01)
    history = bp.fit(net, both_losses, opt, data, epochs=5, validation=data, progress=False, **options)
    assert list(history[0]) == ["epoch", "step", "loss", "val_loss", "val_accuracy[0]", "val_mae[1]"]
    z, y = net(*data[:2])
    assert history[-1]["val_accuracy[0]"] == (z.argmax(1) == data[2]).mean()
    assert history[-1]["val_mae[1]"] == pytest.approx(np.abs(y - data[3]).mean(), rel=1e-5)
    assert history[-1]["val_loss"] == pytest.approx(float(both_losses(net, *data)), rel=1e-5)
    assert history[-1]["val_loss"] < history[0]["val_loss"]
    assert bp.evaluate(net, both_losses, data, **options)["loss"] == history[-1]["val_loss"]


def test_several_outputs_in_mixed_precision_keep_all_targets():
    seen = []

    def noted(net, x, scale, label, number):
        seen.append((str(x.dtype), str(number.dtype)))
        return both_losses(net, x, scale, label, number)

    data = train[0], np.ones((200, 1), "float32"), train[1], train[0][:, 20:21]
    net = Two().build(0)
    bp.fit(net, noted, optim.Adam(net), data, steps=1, targets=2, metrics=(), precision="float16", progress=False)
    assert seen == [("float16", "float32")]


def test_labels_of_every_output_are_checked():
    data = train[0], np.ones((200, 1), "float32"), train[1] + 1, train[0][:, 20:21]
    net = Two().build(0)
    with pytest.raises(ValueError, match="the label 10, but the net has 10 outputs"):
        bp.fit(net, both_losses, optim.Adam(net), data, epochs=1, targets=2, metrics=(), progress=False)


# -- a step of one's own


def own_step(net, opt, x, y):
    value, grads = bp.value_and_grad(loss)(net, x, y)
    opt.step(grads)
    return value


def test_a_step_of_ones_own(backend):
    net, history = fit(backend=backend, step=own_step, epochs=2)
    expected, rows = fit(backend=backend, epochs=2)
    assert history == rows
    same(net, expected)


def test_a_step_of_ones_own_needs_no_loss():
    net, history = fit(None, step=own_step, epochs=1, validation=train)
    assert list(history[0]) == ["epoch", "step", "loss", "val_accuracy"]
    same(net, fit(epochs=1)[0])


# -- batch normalization, and lengths that the first batch tells


def normalized():
    return nn.Sequential(nn.Dense(64, 8), nn.BatchNorm(8), nn.relu, nn.Dense(8, 10), seed=0)


def test_a_last_batch_of_one_row_is_refused_at_the_start_where_it_must_be():
    data = tuple(x[:65] for x in train)
    steps = []
    with pytest.raises(ValueError, match="batch") as caught:
        fit(net=normalized(), data=data, epochs=1, step=lambda *_: steps.append(1))
    assert "give last='drop' or last='pad'" in caught.value.__notes__[-1]
    assert not steps
    for last in ("drop", "pad"):
        assert len(fit(net=normalized(), data=data, epochs=1, last=last)[1]) == 1
    net = nn.Sequential(nn.Dense(64, 8), nn.Dropout(0.5), nn.Dense(8, 10), seed=0)  # which has a cell, and no objection
    assert len(fit(net=net, data=data, epochs=1)[1]) == 1
    plain = nn.Sequential(nn.Dense(64, 8), nn.Dropout(0.5), nn.Dense(8, 10), seed=0)
    opt = optim.Adam(plain.train(), 0.01)
    for batch in bp.data.batches(data, 32, shuffle=True, seed=0):
        opt.step(bp.grad(loss)(plain, *batch))
    same(net, plain)  # the check at the start left no trace


# -- one run, one result


@pytest.mark.parametrize(
    "options",
    [{}, {"accumulate": 2}, {"transform": bp.data.transforms.Noise(0.1)}, {"last": "pad", "prefetch": 2}],
    ids=lambda options: ", ".join(options) or "plain",
)
def test_two_runs_are_bitwise_equal(options, backend):
    def run():
        net = nn.Sequential(nn.Dense(64, 8), nn.BatchNorm(8), nn.relu, nn.Dropout(0.3), nn.Dense(8, 10), seed=0)
        return fit(net=map_distinct(backend.asarray, net), epochs=2, batch_size=50, validation=train, **options)

    (net, history), (other, rows) = run(), run()
    assert history == rows
    same(net, other)


class Losses(bp.training.Callback):
    """Keeps the loss of every step."""

    def __init__(self):
        self.values = []

    def on_step(self, run):
        self.values.append(float(bp.to_numpy(run.value)))


def hundred_losses(asarray):
    layers = nn.Dense(64, 16), nn.relu, nn.Dropout(0.2), nn.Dense(16, 16), nn.tanh, nn.Dense(16, 10)
    net = map_distinct(asarray, nn.Sequential(*layers, seed=0))
    kept = Losses()
    fit(net=net, steps=100, batch_size=16, opt=lambda net: optim.AdamW(net, 2e-3), callbacks=[kept], metrics=())
    return kept.values


def test_a_hundred_losses_are_those_of_numpy(backend):
    found, expected = hundred_losses(backend.asarray), hundred_losses(lambda x: x)
    assert len(expected) == 100
    assert np.mean(expected[-10:]) < 0.8 * np.mean(expected[:10])
    np.testing.assert_allclose(found, expected, rtol=1e-5)


class Rows:
    """A source: rows that are made when they are asked for."""

    def __init__(self, x):
        self.x, self.shape, self.dtype, self.ndim = x, x.shape, x.dtype, x.ndim

    def __len__(self):
        return len(self.x)

    def take(self, rows):
        return self.x[rows]


def test_sources_and_mapped_files_train_as_arrays_do(tmp_path):
    for k, x in enumerate(train):
        np.save(tmp_path / f"{k}.npy", x)
    mapped = tuple(bp.data.npy(tmp_path / f"{k}.npy") for k in range(2))
    expected, rows = fit(epochs=2, validation=train)
    for data in (tuple(map(Rows, train)), mapped):
        net, history = fit(epochs=2, data=data, validation=data)
        assert history == rows
        same(net, expected)


def test_images_that_are_integers_are_cast_by_a_transform():
    data = (train[0] * 16).astype("uint8"), train[1]
    normalize = bp.data.transforms.Normalize.fit(data[0])
    _, history = fit(epochs=2, data=data, transform=normalize)
    assert history[-1]["loss"] < history[0]["loss"]
    with pytest.raises(TypeError, match="uint8"):
        fit(epochs=1, data=data)


@pytest.mark.parametrize("end", ["stop", "error", "whole"])
def test_no_thread_is_left(end):
    class End(bp.training.Callback):
        def on_step(self, run):
            if run.step == 3 and end == "stop":
                run.stop("enough")
            if run.step == 3 and end == "error":
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) if end == "error" else nullcontext():
        fit(epochs=1, batch_size=5, prefetch=4, callbacks=[End()])
    assert not [thread for thread in threading.enumerate() if thread.name == "gpubp prefetch"]
