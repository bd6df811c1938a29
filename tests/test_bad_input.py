"""What a user may get wrong, and what the library then says: what was passed, what was expected, and where."""

import re
import warnings

import numpy as np
import pytest

import gpubp as bp
from gpubp import losses, nn, optim

X = np.ones((4, 3))
F = X.astype("float32")
LABELS = np.array([0, 1, 0, 1])
SCORES = np.ones((4, 2))


def net_of(**options):
    return nn.Sequential(nn.Dense(3, 5), nn.relu, nn.Dense(5, 2), **{"seed": 0, **options})


def loss(net, x, y):
    return losses.softmax_cross_entropy(net(x), y)


class Own(nn.Layer):
    def __init__(self):
        self.W = nn.Parameter((3, 2), nn.glorot_uniform)

    def __call__(self, x):
        return x @ self.W


def check(error, message, f, *args, **kwargs):
    with pytest.raises(error, match=message) as caught:
        f(*args, **kwargs)
    return caught


# -- transforms


def test_shapes_that_do_not_fit_are_the_librarys_own_error_at_the_users_line():
    def f(x):
        return np.sum(x + np.ones(5))

    caught = check(ValueError, r"could not be broadcast together with shapes \(4,3\) \(5,\)", bp.grad(f), X)
    assert any(str(entry.path) == __file__ and entry.name == "f" for entry in caught.traceback)


@pytest.mark.parametrize(
    ("f", "message"),
    [
        (lambda: bp.grad(np.sum)(np.arange(3)), r"real or complex floating array, got int64 array of shape \(3,\)"),
        (lambda: bp.grad(np.sum)("abc"), "floating array, got str"),
        (lambda: bp.grad(np.sum)(), "argnums=0 but sum was called with 0 positional arguments"),
        (lambda: bp.grad(np.sin)(X), r"sin to return a real floating scalar, got float64 of shape \(4, 3\); reduce it"),
        (lambda: bp.grad(lambda x: None)(X), "to return a scalar array, got NoneType"),
        (lambda: bp.grad(3), "expected a function to differentiate, got int"),
        (lambda: bp.grad(np.sum, X), r"argnums is the position .*, got ndarray; .* grad\(f\)\(x\)"),
        (lambda: bp.jacobian(np.sum, "x"), "argnums is the position .*, got str"),
        (lambda: bp.jvp(np.sin, X, X), "jvp expects a tuple of primals, one for each argument, got ndarray"),
        (lambda: bp.hvp(np.sum, (X,), X), "hvp expects a tuple of tangents"),
        (lambda: bp.hvp(np.sum, (X,), ()), "hvp was given 1 primals and 0 tangents"),
        (lambda: bp.jvp(np.sin, (X,), ([X],)), r"the direction has list where an array is expected at \[0\]"),
        (lambda: bp.grad(lambda n: 1.0)(net_of(seed=None)), r"got Sequential without arrays .*seed=0"),
    ],
)
def test_transforms(f, message):
    check(TypeError, message, f)


def test_directions_have_the_shape_of_the_arguments():
    check(
        ValueError,
        r"jvp was given a tangent of shape \(2,\) for a primal of \(4, 3\)",
        bp.jvp,
        np.sin,
        (X,),
        (X[0, :2],),
    )
    check(ValueError, r"hvp was given a tangent of shape \(2,\)", bp.hvp, lambda x: np.sum(x**3), (X,), (X[0, :2],))


def test_libraries_and_devices_are_not_mixed():
    strict = pytest.importorskip("array_api_strict")
    message = "several libraries: numpy and array_api_strict; move them to one with gpubp.to_device"
    check(TypeError, message, bp.grad(lambda x: np.sum(x * strict.ones((4, 3)))), X)
    y, labels = strict.ones((4, 2)), strict.asarray(LABELS)
    check(TypeError, "mse was given arrays of several libraries: y of numpy, target of array_", losses.mse, SCORES, y)
    for f in (losses.softmax_cross_entropy, losses.binary_cross_entropy):
        check(TypeError, "logits of numpy, targets of array_api_strict; move", f, SCORES, labels)
    net = net_of()
    check(TypeError, "input of array_api_strict, W of numpy", net, strict.ones((4, 3), dtype=strict.float32))
    on_device1 = strict.ones((4, 3), dtype=strict.float32, device=strict.Device("device1"))
    caught = check(
        ValueError,
        "input on array_api_strict/device1, W on array_api_strict/CPU_DEVICE, b on array_api_strict/CPU_DEVICE; move",
        net.to("array_api_strict"),
        on_device1,
    )
    assert caught.value.__notes__ == ["in layers[0] of Sequential"]


def test_nan_and_infinity_go_where_they_do_in_the_library():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gradient = bp.grad(lambda x: np.sum(np.sqrt(x)))(np.array([0.0, 1.0, np.nan]))
    np.testing.assert_array_equal(gradient, [np.inf, 0.5, np.nan])


# -- nets and losses


def test_layers():
    net = net_of()
    for x, given in (([[1.0, 2.0, 3.0]], "list"), (None, "None"), ("x", "str")):
        caught = check(TypeError, rf"Dense\(3, 5\) expects arrays, got {given} as input", net, x)
        assert caught.value.__notes__ == ["in layers[0] of Sequential"]
    check(TypeError, r"Dense\(3, 5\) .* dtype, got input of int64, W of float32", net, np.ones((4, 3), int))
    check(
        ValueError, r"Dense\(3, 5\) expects an input of shape \(..., 3\), got \(4, 7\)", net, np.ones((4, 7), "float32")
    )


@pytest.mark.parametrize(
    ("f", "error", "message"),
    [
        (lambda: nn.Dense(3.0, 5), ValueError, r"whole numbers from 0, got \(3.0, 5\)"),
        (lambda: nn.Dense(3, 5, W_init=X), TypeError, r"function \(rng, shape\) -> array.*got ndarray"),
        (lambda: nn.Dense(3, 5, seed=0.5), ValueError, "seed must be from 0 .* got 0.5"),
        (lambda: nn.Dense(3, 5, seed=0, dtype="int32"), ValueError, "floating-point dtype .* got 'int32'"),
        (lambda: nn.Dense(3, 5, nn.softmax), ValueError, "got <fused function softmax>; in a Sequential any"),
        (lambda: nn.Sequential([nn.Dense(3, 5)]), TypeError, r"layers\[0\] is a list: .* Sequential\(\*layers\)"),
        (lambda: nn.Sequential(nn.Dense), TypeError, r"layers\[0\] is a class: .* Dense\(...\)"),
        (lambda: net_of().astype("foo"), ValueError, "floating-point dtype of numpy .* got 'foo'"),
        (lambda: net_of().astype(int), ValueError, "floating-point dtype of numpy .* got <class 'int'>"),
        (
            lambda: net_of().to("gpu"),
            ValueError,
            r"'gpu' is neither a device \('auto', .* nor a library \(numpy",
        ),
        (lambda: net_of().to(0), TypeError, "a device is named by a string .* got 0"),
        (lambda: bp.device(0), TypeError, "a device is named by a string .* got 0"),
    ],
)
def test_arguments_of_layers(f, error, message):
    check(error, message, f)


def test_sizes_and_dtypes_may_be_numpys():
    layer = nn.Dense(np.int64(3), np.int32(5), seed=0, dtype=np.float64)
    assert layer.W.dtype == "float64"
    assert repr(layer) == "Dense(3, 5)"
    assert layer.astype(np.float32).W.dtype == "float32"


def test_unbuilt_nets(tmp_path):
    net = net_of(seed=None)
    for f in (
        lambda: net(F),
        lambda: optim.Adam(net),
        lambda: bp.save(net, tmp_path / "net"),
        lambda: nn.summary(net, (1, 3)),
        lambda: bp.fit(net, loss, None, (F, LABELS), epochs=1),
        lambda: Own()(F),
        lambda: bp.grad(lambda x: np.sum(Own()(x)))(F),
    ):
        check(RuntimeError, r"has no (parameters|values) yet: give it, or the net it is part of, a seed", f)
    check(AttributeError, r"Parameter\(\(3, 2\)\) has no ndim: give it", lambda: Own().W.ndim)


@pytest.mark.parametrize("name", sorted(set(losses.__all__) - {"multiclass_hinge"}))
def test_losses(name):
    f = getattr(losses, name)
    check(ValueError, r"\(4, 2\) and \(2, 4\); it does not broadcast", f, SCORES, SCORES.T)
    check(TypeError, "of float64, targets? of float32; cast", f, SCORES, np.ones((4, 2), "float32"))
    check(TypeError, f"{name} expects arrays, got ", f, SCORES, [0, 1, 0, 1])
    check(TypeError, f"{name} expects arrays, got ", bp.grad(lambda z: f(z, [0, 1, 0, 1])), SCORES)
    check(TypeError, f"{name} expects arrays, got list, list", f, [1.0], [1.0])
    check(TypeError, f"{name} expects arrays, got none by position", f, a=SCORES, b=SCORES)


def test_labels():
    f = losses.softmax_cross_entropy
    check(TypeError, r"expects integer labels, got float64 of shape \(4,\); cast them", f, SCORES, LABELS * 1.0)
    check(ValueError, "labels from 0 to 1 .* got labels from 0 to 9", bp.grad(f), SCORES, np.array([0, 1, 9, 0]))
    check(ValueError, "labels from 0 to 1 .* to 7", losses.binary_cross_entropy, np.ones(3), np.array([0, 1, 7]))


# -- data and training


@pytest.mark.parametrize(
    ("args", "options", "error", "message"),
    [
        (((X,), -1), {}, ValueError, "batch_size must be at least 1, got -1"),
        (((X,), 2.5), {}, TypeError, "batch_size must be a whole number, got 2.5"),
        ((X, 2), {}, TypeError, r"data must be a tuple of arrays, got one of shape \(4, 3\)"),
        ((([1, 2],), 2), {}, TypeError, r"a tuple of arrays with one example a row, got \(list\)"),
        (((X, LABELS[:2]), 2), {}, ValueError, "same length, got lengths 4, 2"),
        (((X,), 2), {"dtype": "foo"}, ValueError, "floating-point dtype such as 'float32', got 'foo'"),
        (((X,), 2), {"dtype": int}, ValueError, "floating-point dtype such as 'float32', got <class 'int'>"),
        (((X,), 2), {"shuffle": True, "seed": 0.5}, TypeError, "whole numbers, got seed=0.5"),
        (((X,), 2), {"prefetch": 0.5}, TypeError, "prefetch must be a whole number, got 0.5"),
        (((X,), 2), {"transform": 3}, TypeError, r"a transform is one of .*, or a function of \(x\) or .*, got 3"),
        (((X,), 2), {"transform": lambda: 0}, TypeError, r"a function of \(x\) or of \(x, draw\), got one of \(\)"),
        (((X,), 2), {"transform": (None, None)}, ValueError, "there are 2 transforms for 1 array"),
        (((X,), 2), {"start": 0.5}, TypeError, "start must be a whole number, got 0.5"),
        (((X,), 2), {"device": "gpu"}, ValueError, "'gpu' is neither a device"),
    ],
)
def test_batches(args, options, error, message):
    check(error, message, bp.data.batches, *args, **options)


NAN = np.where(np.arange(12).reshape(4, 3) == 7, np.nan, F)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"epochs": 1.5}, TypeError, "epochs must be a whole number, got 1.5"),
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1, got 0"),
        ({"train": F}, TypeError, r"train must be a tuple of arrays \(inputs, targets\), got one array"),
        ({"train": (F,)}, TypeError, r"train must be .* got tuple of length 1; to learn x itself, give \(x, x\)"),
        (
            {"validation": (F, F, F)},
            TypeError,
            r"validation holds 3 arrays, so loss is called as loss\(net, x1, x2, y\), but loss takes \(net, x, y\)$",
        ),
        (
            {"loss": lambda net, x, lengths, y: 0},
            TypeError,
            r"train holds 2 arrays, so loss is called as loss\(net, x, y\), but <lambda> takes \(net, x, lengths, y\)",
        ),
        ({"train": (F, NAN, LABELS), "loss": lambda *_: 0}, ValueError, r"the inputs of train hold nan at \(2, 1\)"),
        ({"train": (NAN, LABELS)}, ValueError, r"the inputs of train hold nan at \(2, 1\)"),
        ({"validation": (F * np.inf, LABELS)}, ValueError, r"the inputs of validation hold inf at \(0, 0\)"),
        ({"train": (F, LABELS + 5)}, ValueError, "the targets hold the label 6, but the net has 2 outputs"),
        ({"train": (F, LABELS - 1)}, ValueError, r"data\[1\] is an integer array \(int64\) and holds -1 at \(0,\)"),
        ({"train": (np.ones((4, 7)), LABELS)}, ValueError, r"Dense\(3, 5\) expects an input of shape \(..., 3\)"),
        ({"metrics": ("f2",)}, ValueError, r"there is no metric 'f2': there are accuracy, confusion"),
        ({"metrics": "accuracy"}, TypeError, r"a list or tuple, got 'accuracy' alone: write \['accuracy'\]"),
        (
            {"loss": losses.mse},
            TypeError,
            r"called as loss\(net, x, y\), but mse takes \(y, target, red",
        ),
        (
            {"loss": losses.softmax_cross_entropy},
            TypeError,
            r"takes \(logits, targets, weights, class",
        ),
        ({"loss": 1}, TypeError, r"loss must be a function \(net, x, y\) -> scalar, got int"),
        ({"loss": lambda net, x, y: net(x)}, TypeError, "to return a real floating scalar, got float32 of shape"),
        ({"opt": 0.1}, TypeError, r"an optimizer, as in optim.Adam\(net\), got float"),
        ({"opt": optim.SGD(net_of(), 0.1)}, ValueError, r"made for another net: .* after net.to\(...\)"),
        (
            {"loss": lambda net, x, y: losses.softmax_cross_entropy(net(x) * np.float32(np.inf), y)},
            FloatingPointError,
            "the loss or a gradient is not finite at step 1, in epoch 1, with the rows 0, 2, 1, 3; .* learning rate",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value")
def test_fit(options, error, message):
    net = net_of()
    given = {"loss": loss, "opt": optim.SGD(net, 0.1), "train": (F, LABELS), "epochs": 1, "progress": False, **options}
    check(error, message, bp.fit, net, given.pop("loss"), given.pop("opt"), given.pop("train"), **given)


def test_evaluate_computes_as_fit_does():
    assert bp.evaluate(net_of(), loss, (X, LABELS)) == bp.evaluate(net_of(), loss, (F, LABELS))


def test_a_metric_that_does_not_fit_the_net_is_named():
    y = np.ones((4, 2, 2), "float32")
    caught = check(
        ValueError, "accuracy expects an output", bp.evaluate, net_of(), lambda net, x, y: np.mean(net(x)), (F, y)
    )
    assert "in the metric 'accuracy' of an output of shape (4, 2)" in caught.value.__notes__[0]


LAST = "; the channels come last: of (batch, channels, ...) make x.transpose("


@pytest.mark.parametrize(
    ("layer", "shape", "advice"),
    [
        (nn.Conv2d(3, 2, 3, seed=0), (5, 3, 8, 8), LAST + "0, 2, 3, 1)"),
        (nn.Conv1d(3, 2, 3, seed=0), (5, 3, 8), LAST + "0, 2, 1)"),
        (nn.Conv2d(1, 2, 3, seed=0), (5, 8, 8), "; the one channel has an axis too: x[..., None]"),
        (nn.Conv2d(3, 2, 3, seed=0), (8, 8, 3), "; of one example make a batch of one: x[None]"),
        (nn.Conv2d(3, 2, 3, seed=0), (5, 8, 8, 4), ""),
        (nn.LSTM(3, 2, seed=0), (8, 3), "; of one example make a batch of one: x[None]"),
        (nn.MultiHeadAttention(4, 2, seed=0), (5, 7), ""),
    ],
)  # fmt: skip
def test_the_advice_for_other_layouts(layer, shape, advice):
    check(ValueError, "(?m)" + re.escape(f"got {shape}{advice}") + "$", layer, np.ones(shape, "float32"))


def test_pytorchs_names():
    check(AttributeError, "has no attribute 'Linear': it is nn.Dense here", lambda: nn.Linear)
    check(AttributeError, "has no attribute 'Foo'$", lambda: nn.Foo)
    assert not any(hasattr(nn, name) for name in nn._FROM_PYTORCH)
    places = {"nn": nn, "losses": losses, "gpubp": bp}
    for here in nn._FROM_PYTORCH.values():
        module, _, name = here.partition(".")
        assert module not in places or hasattr(places[module], name)


def test_the_package_lists_what_it_has():
    assert {"nn", "losses", "optim", "data", "fit", "save", "load", "testing", "to_device", "grad"} <= set(dir(bp))
    assert all(hasattr(bp, name) for name in bp.__all__)
    check(AttributeError, "module 'gpubp' has no attribute 'foo'", lambda: bp.foo)
