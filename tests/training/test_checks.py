"""What `fit` and `evaluate` refuse, before the first step, and what they say."""

import numpy as np
import pytest

import gpubp as bp
from gpubp import losses, nn, optim
from gpubp.training import Checkpoints, EarlyStopping, ReduceOnPlateau
from tests.training.common import fit, loss, net_of, train

X, Y = train


def no_step(*_):
    raise AssertionError("a step was made")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({}, ValueError, "give epochs or steps, one of the two: got neither"),
        ({"epochs": 1, "steps": 5}, ValueError, "one of the two: got epochs=1 and steps=5"),
        ({"epochs": 0}, ValueError, "epochs must be at least 1, got 0"),
        ({"steps": -1}, ValueError, "steps must be at least 1, got -1"),
        ({"steps": 2.5}, TypeError, "steps must be a whole number, got 2.5"),
        ({"epochs": 1, "batch_size": 0}, ValueError, "batch_size must be at least 1, got 0"),
        ({"epochs": 1, "accumulate": 0}, ValueError, "accumulate must be at least 1, got 0"),
        ({"epochs": 1, "accumulate": None}, TypeError, "accumulate must be a whole number, got None"),
        ({"epochs": 1, "report_every": 0}, ValueError, "report_every must be at least 1, got 0"),
        ({"epochs": 1, "targets": 0}, ValueError, "targets must be at least 1, got 0"),
        ({"epochs": 1, "targets": 2}, TypeError, r"train must be .*\(inputs, 2 of targets\), got tuple of length 2$"),
        ({"epochs": 1, "targets": "y"}, TypeError, "targets must be a whole number, got 'y'"),
        ({"epochs": 1, "nonfinite": "ignore"}, ValueError, "nonfinite must be 'stop', 'skip' or 'scale', got 'ignore'"),
        ({"epochs": 1, "capture": 1}, ValueError, "capture must be True, False or 'auto', got 1"),
        ({"epochs": 1, "last": "cut"}, ValueError, "last must be 'keep', 'drop' or 'pad', got 'cut'"),
        ({"epochs": 1, "last": "drop", "batch_size": 999}, ValueError, "would drop all 200 rows: batch_size is 999"),
        ({"epochs": 1, "seed": 0.5}, TypeError, "seed must be a whole number, got 0.5"),
        ({"epochs": 1, "seed": None}, TypeError, "seed must be a whole number, got None"),
        ({"epochs": 1, "balance": 2}, ValueError, "the place of an array in data, got 2"),
        ({"epochs": 1, "transform": 3}, TypeError, "transform"),
        ({"epochs": 1, "prefetch": -1}, ValueError, "prefetch must be at least 0, got -1"),
        ({"epochs": 1, "metrics": ["f7"]}, ValueError, "there is no metric 'f7'"),
        ({"epochs": 1, "metrics": [bp.metrics.Metric("loss", len, len)]}, ValueError, "no metric .* the name 'loss'"),
        ({"epochs": 1, "metrics": None}, TypeError, "metrics must be a list or tuple, got None$"),
        ({"epochs": 1, "metrics": "mae"}, TypeError, r"a list or tuple, got 'mae' alone"),
        ({"epochs": 1, "metrics": ["accuracy[1]"]}, ValueError, r"accuracy\[1\] is of output 1 and target 1"),
        ({"epochs": 1, "average": 0.999}, TypeError, "average must be an optim.Average of the net, got float"),
        ({"epochs": 1, "validation": X}, TypeError, "validation must be a tuple of arrays .* got one"),
        ({"epochs": 1, "validation": (X, Y[:5])}, ValueError, "same length, got lengths 200, 5"),
        ({"epochs": 1, "validation": (X[:0], Y[:0])}, ValueError, "data has no rows"),
        ({"epochs": 1, "validation": (X, Y + 1)}, ValueError, "the label 10, but the net has 10 outputs"),
        ({"epochs": 1, "data": iter([])}, TypeError, "train must be a tuple of arrays .* got list_iterator"),
        ({"epochs": 1, "data": (X[:0], Y[:0])}, ValueError, "data has no rows"),
        ({"epochs": 1, "data": ([1.0], [2.0])}, TypeError, r"one example a row, got \(list, list\)"),
        ({"epochs": 1, "device": "gpu"}, ValueError, "'gpu' is neither a device"),
        ({"epochs": 1, "precision": "int8"}, ValueError, "precision must be 'float16', 'bfloat16' or None, got 'int8'"),
        ({"epochs": 1, "opt": lambda net: None}, TypeError, "opt must be an optimizer, .* got NoneType"),
        ({"epochs": 1, "opt": nn.Dense(2, 2, seed=0)}, TypeError, "opt must be an optimizer, .* got Dense"),
        ({"epochs": 1, "opt": optim.SGD(net_of(), 0.1)}, ValueError, "the optimizer was made for another net"),
        ({"epochs": 1, "objective": None}, TypeError, "loss must be a function .* got NoneType"),
        ({"epochs": 1, "objective": lambda net, x: 0}, TypeError, r"called as loss\(net, x, y\), but .* \(net, x"),
        ({"epochs": 1, "step": 3}, TypeError, r"step must be a function \(net, opt, \*arrays\) -> loss, got int"),
        ({"epochs": 1, "step": lambda x, y: 0}, TypeError, r"as step\(net, opt, x, y\), but .* \(x, y\)"),
        ({"epochs": 1, "step": no_step, "accumulate": 2}, ValueError, "accumulate=2 is for steps that fit makes"),
        ({"epochs": 1, "step": no_step, "precision": "float16"}, ValueError, "precision='float16' is for steps"),
    ],
    ids=lambda x: ", ".join(x) if isinstance(x, dict) else "",
)  # fmt: skip
def test_what_fit_refuses(options, error, message):
    with pytest.raises(error, match=message):
        fit(**{"objective": loss, **options})


@pytest.mark.parametrize(
    ("objective", "error", "message"),
    [
        (lambda net, x, y: net(x), TypeError, r"to return a real floating scalar, got float32 of shape \(32, 10\)"),
        (lambda net, x, y: None, TypeError, "to return a scalar array, got NoneType"),
        (lambda net, x, y: 1.0, TypeError, "value must be the loss, a 0-d array, got float"),
        (lambda net, x, y: (loss(net, x, y), 1), TypeError, "to return a scalar array, got tuple"),
    ],
)
def test_losses_that_are_none(objective, error, message):
    with pytest.raises(error, match=message):
        fit(objective, epochs=1)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "a step must return the loss, a 0-d floating-point array, got NoneType"),
        (1.0, "a step must return the loss, a 0-d floating-point array, got float"),
        (np.ones(3), r"a step must return the loss, .* got ndarray of dtype float64 and shape \(3,\)"),
        (np.ones((), int), "a step must return the loss, .* got ndarray of dtype int64"),
    ],
)
def test_steps_of_ones_own_that_return_no_loss(value, message):
    with pytest.raises(TypeError, match=message):
        fit(epochs=1, step=lambda net, opt, x, y: value)


class Fed(nn.Layer):
    """A net that is not called with the inputs alone."""

    def __init__(self):
        self.out = nn.Dense(64, 10)

    def __call__(self, x, y):
        return self.out(x)


class Unfed(nn.Layer):
    def __init__(self):
        self.out = nn.Dense(64, 10)


@pytest.mark.parametrize(
    ("net", "objective", "message"),
    [
        ({"W": net_of().layers[0].W}, lambda net, x, y: losses.softmax_cross_entropy(x @ net["W"], y), "dict has no"),
        ([nn.Dense(64, 10, seed=0)], lambda net, x, y: losses.softmax_cross_entropy(net[0](x), y), "list has no"),
        (Fed().build(0), lambda net, x, y: losses.softmax_cross_entropy(net(x, y), y), r"Fed takes \(x, y\)"),
        (Unfed().build(0), lambda net, x, y: losses.softmax_cross_entropy(net.out(x), y), "Unfed has no __call__"),
    ],
    ids=["dict", "list", "of x and y", "without __call__"],
)
def test_a_net_is_called_for_metrics_only(net, objective, message):
    _, history = fit(objective, net=net, epochs=3, validation=train, metrics=())
    assert history[-1]["val_loss"] < history[0]["val_loss"]
    with pytest.raises(TypeError, match=rf"called as net\(x\) for metrics, .* leaves out; but {message}"):
        fit(objective, net=net, epochs=1)


def test_a_net_that_is_not_called_must_know_its_lengths():
    net = Fed()
    net.out = nn.Dense(None, 10)
    with pytest.raises(TypeError, match=r"called as net\(x\) for the lengths that it was not given; but Fed takes"):
        fit(net=net.build(0), epochs=1, metrics=())


@pytest.mark.parametrize(("data", "note"), [((X[:, :30], Y), "validation"), ((X, Y[:, None] / 2), "validation")])
def test_validation_is_tried_before_the_first_step(data, note):
    with pytest.raises(ValueError, match="expects") as caught:
        fit(epochs=1, step=no_step, validation=data)
    assert caught.value.__notes__[-1] == "with the first batch of validation"


@pytest.mark.parametrize("watch", [{"callbacks": [EarlyStopping()]}, {"callbacks": [ReduceOnPlateau("val_acc")]}])
def test_a_figure_that_no_row_will_have_is_refused_before_the_first_step(watch):
    with pytest.raises(ValueError, match="no figure 'val_.*' to monitor in the history: there are loss, accuracy$"):
        fit(epochs=1, step=no_step, **watch)


def test_a_best_figure_that_no_row_will_have_is_refused_before_the_first_step(tmp_path):
    with pytest.raises(ValueError, match="'val_acc' to monitor .* there are loss, val_accuracy$"):
        fit(None, epochs=1, step=no_step, validation=train, checkpoint=Checkpoints(tmp_path, best="val_acc"))


def test_data_of_every_library(backend):
    data = tuple(map(backend.asarray, train))
    _, history = fit(epochs=1, data=data, validation=data, backend=backend)
    assert history[0] == pytest.approx(fit(epochs=1, validation=train)[1][0], rel=1e-4)


def test_targets_that_are_text():
    with pytest.raises(TypeError, match=r"the targets of train must be numbers, got <U21: np.unique"):
        fit(epochs=1, data=(X, Y.astype(str)))


def test_nan_in_data_is_named_with_its_place():
    x = X.copy()
    x[7, 3] = np.nan
    with pytest.raises(ValueError, match=r"the inputs of train hold nan at \(7, 3\)"):
        fit(epochs=1, data=(x, Y))
    with pytest.raises(ValueError, match=r"the targets of validation hold nan at \(7, 3\)"):
        fit(lambda net, x, y: losses.mse(net(x), y), epochs=1, data=(X, X), validation=(X, x), metrics=())
    with pytest.raises(ValueError, match=r"the targets of train hold nan at \(7, 3\)"):
        fit(lambda net, x, y, z: 0, epochs=1, data=(X, X, x), targets=2, metrics=())


def test_what_evaluate_refuses():
    for options, error, message in (
        ({"metrics": ["f7"]}, ValueError, "there is no metric 'f7'"),
        ({"targets": 2}, TypeError, "data must be a tuple of arrays"),
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1, got 0"),
        ({"precision": "half"}, ValueError, "precision must be"),
    ):
        with pytest.raises(error, match=message):
            bp.evaluate(net_of(), loss, train, **options)


def test_nothing_is_measured_where_nothing_is_asked():
    assert bp.evaluate(lambda x: 1 / 0, None, train, metrics=()) == {}
    assert list(bp.evaluate(net_of(), None, train)) == ["accuracy"]
