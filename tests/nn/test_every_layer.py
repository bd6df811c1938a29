"""What every layer does: its gradients of first and second order, on every library, in training, from files, in steps.

A layer without a record here fails the suite.
"""

import copy
import pickle
import tracemalloc

import numpy as np
import pytest

import gpubp as bp
from gpubp import nn, optim
from gpubp.testing import assert_parity, check_grads
from gpubp.testing.backends import load
from gpubp.tree import map_distinct

rng = np.random.default_rng(0)
NUMBERS = np.array([[0, 2, 1], [1, 1, 3]])


def values(*shape):
    """Draw numbers without ties, away from 0."""
    return rng.permuted(
        np.linspace(-2, 2, int(np.prod(shape)) + int(np.prod(shape)) % 2)[: int(np.prod(shape))]
    ).reshape(shape)


#: For each layer how to make it, and an input; more than one where its options lead different ways.
LAYERS = {
    "AdaptiveAvgPool": [(lambda: nn.AdaptiveAvgPool(2), values(2, 5, 3, 2))],
    "AvgPool": [(lambda: nn.AvgPool(2, padding="same"), values(2, 5, 4, 2))],
    "BatchNorm": [(lambda: nn.BatchNorm(3), values(6, 3)), (lambda: nn.BatchNorm(None), values(2, 2, 2, 2))],
    "Conv": [(lambda: nn.Conv(2, 4, (2, 3), padding="same", groups=2), values(1, 3, 4, 2))],
    "Conv1d": [(lambda: nn.Conv1d(None, 3, 2, stride=2), values(2, 5, 2))],
    "Conv2d": [(lambda: nn.Conv2d(2, 3, 2, dilation=2), values(1, 4, 4, 2))],
    "Conv3d": [(lambda: nn.Conv3d(2, 2, 2), values(1, 2, 3, 3, 2))],
    "ConvTranspose": [(lambda: nn.ConvTranspose(2, 2, (2, 2), stride=2), values(1, 2, 3, 2))],
    "ConvTranspose1d": [(lambda: nn.ConvTranspose1d(2, 3, 3), values(2, 4, 2))],
    "ConvTranspose2d": [(lambda: nn.ConvTranspose2d(2, 1, 2, padding=1), values(1, 3, 3, 2))],
    "ConvTranspose3d": [(lambda: nn.ConvTranspose3d(1, 2, 2), values(1, 2, 2, 2, 1))],
    "Dense": [(lambda: nn.Dense(3, 2, nn.tanh), values(4, 3)), (lambda: nn.Dense(None, 2), values(2, 2, 3))],
    "Dropout": [(lambda: nn.Dropout(0.4), values(4, 3))],
    "Embedding": [(lambda: nn.Embedding(4, 3), NUMBERS)],
    "Flatten": [(lambda: nn.Flatten(), values(2, 3, 2))],
    "GlobalAvgPool": [(lambda: nn.GlobalAvgPool(), values(2, 3, 2, 2))],
    "GroupNorm": [(lambda: nn.GroupNorm(2, 4), values(2, 3, 4))],
    "GRU": [(lambda: nn.GRU(2, 3, layers=2, bidirectional=True, dropout=0.3), values(2, 3, 2))],
    "GRUCell": [(lambda: nn.GRUCell(2, 3), values(2, 2))],
    "Lambda": [(lambda: nn.Lambda(np.sin), values(3, 2))],
    "LayerNorm": [(lambda: nn.LayerNorm(4), values(3, 4))],
    "LSTM": [(lambda: nn.LSTM(None, 2, layers=2, dropout=0.3), values(2, 3, 2))],
    "LSTMCell": [(lambda: nn.LSTMCell(2, 3), values(2, 2))],
    "MaxPool": [
        (lambda: nn.MaxPool(2), values(2, 4, 4, 2)),
        (lambda: nn.MaxPool(3, stride=2, padding=1), values(1, 5, 2)),
    ],
    "MultiHeadAttention": [(lambda: nn.MultiHeadAttention(4, 2, causal=True, rotary=True), values(2, 3, 4))],
    "PReLU": [(lambda: nn.PReLU(2), values(4, 2))],
    "Residual": [(lambda: nn.Residual(nn.Dense(3, 3)), values(2, 3))],
    "RMSNorm": [(lambda: nn.RMSNorm(4), values(3, 4))],
    "RNN": [(lambda: nn.RNN(2, 3, activation="tanh", bidirectional=True), values(2, 3, 2))],
    "RNNCell": [(lambda: nn.RNNCell(2, 3), values(2, 2))],
    "Sequential": [(lambda: nn.Sequential(nn.Dense(None, 3), nn.tanh, nn.Dropout(0.5)), values(3, 2))],
    "SinusoidalPositions": [(lambda: nn.SinusoidalPositions(), values(2, 3, 4))],
    "TransformerBlock": [(lambda: nn.TransformerBlock(4, 2, 5, causal=True, dropout=0.3), values(1, 3, 4))],
}  # fmt: skip
CASES = [pytest.param(make, x, id=name) for name, cases in LAYERS.items() for make, x in cases]
each = pytest.mark.parametrize(("make", "x"), CASES)


def built(make, x, dtype="float64"):
    net = make().build(0, dtype)
    return net.build(x if x is NUMBERS else x.astype(dtype)).train()


def outputs(y):
    """The arrays of an output: cells of recurrent nets give a state."""
    return bp.tree.leaves(y)


def loss(net, x):
    xp = bp.array_namespace(*outputs(y := net(x)))
    return sum(xp.sum(v * v * (0.5 + v)) for v in outputs(y))


def test_every_layer_has_a_record():
    layers = {
        name for name in nn.__all__ if isinstance(getattr(nn, name), type) and issubclass(getattr(nn, name), nn.Layer)
    }
    assert layers - {"Layer"} == set(LAYERS)


@each
def test_first_and_second_derivatives(make, x):
    check_grads(lambda net, x: outputs(net(x)), (built(make, x), x), directions=1)


@each
def test_training_is_the_same_on_every_library(make, x, backend):
    if backend.name == "numpy":
        pytest.skip("this is what the others are compared with")
    net = built(make, x, "float32")
    x = x if x is NUMBERS else x.astype("float32")
    assert_parity(net, x, backends=["numpy", backend], steps=2 if net.parameters() else 0, lr=0.05)


@each
def test_a_step_reads_nothing_on_the_host(make, x):
    backend = load("standin")
    net = map_distinct(backend.asarray, built(make, x, "float32"))
    there = backend.asarray(x if x is NUMBERS else x.astype("float32"))
    opt = optim.Adam(net, 0.01) if net.parameters() else None
    with backend.xp.no_host_reads():
        for _ in range(2):
            grads, _ = bp.grad(loss, argnums=(0, 1))(net, there)
            if opt is not None:
                opt.step(grads)


@each
def test_it_can_be_captured(make, x, backend):
    """Steps as a CUDA graph are the steps, with what is random in them and what they count."""
    if backend.name != "cupy":
        pytest.skip("steps are captured on CuPy alone")
    runs = []
    for capture in (bp.capture, lambda step, required: step):
        net = map_distinct(backend.asarray, built(make, x, "float32"))
        opt = optim.SGD(net, 1e-3, momentum=0.5) if net.parameters() else None

        def train_step(x, net=net, opt=opt):
            value, grads = bp.value_and_grad(loss)(net, x) if opt is not None else (loss(net, x), None)
            if opt is not None:
                opt.step(grads)
            return value

        step = capture(train_step, required=True)
        batches = [x if x is NUMBERS else (x * (1 - 0.1 * k)).astype("float32") for k in range(3)]
        values = [backend.to_numpy(step(backend.asarray(batches[k % 3]))) for k in range(7)]
        runs.append((values, {path: backend.to_numpy(a) for path, a in net.state().items()}))
        if capture is bp.capture:
            assert step.launches == 4
    (values, state), (expected, expected_state) = runs
    np.testing.assert_allclose(values, expected, rtol=1e-4)
    for path, a in expected_state.items():
        np.testing.assert_allclose(state[path], a, rtol=1e-4, atol=1e-5 * np.max(np.abs(a), initial=0), err_msg=path)


@each
def test_it_goes_through_copies_files_and_pickles(make, x, tmp_path):
    net = built(make, x)
    loss(net, x)  # counts, and moves running statistics
    net.eval()
    others = [net.copy(), copy.deepcopy(net), pickle.loads(pickle.dumps(net))] if "lambda" not in repr(net) else []
    if net.state():
        bp.save(net, tmp_path / "net.safetensors")
        others.append(bp.load(tmp_path / "net.safetensors", built(make, x).eval()))
        others.append(make().build(1, "float64").build(x).load_state(net.state()))
    for other in others:
        for a, b in zip(outputs(other(x)), outputs(net(x)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-13, atol=1e-15)


@each
def test_checkpoint_gives_the_same_gradient_and_counts_once(make, x):
    kept, again = built(make, x), built(make, x)
    expected = bp.grad(loss, argnums=(0, 1))(kept, x)
    found = bp.grad(lambda net, x: loss(bp.checkpoint(net), x), argnums=(0, 1))(again, x)
    for a, b in zip(outputs(found), outputs(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)
    for a, b in zip(again.state().values(), kept.state().values(), strict=True):
        np.testing.assert_array_equal(a, b)


@each
def test_a_frozen_layer_still_passes_gradients_on(make, x):
    net = built(make, x)
    if not net.parameters() or x is NUMBERS:
        pytest.skip("nothing to freeze, or no gradient to pass on")
    net.freeze()
    assert np.any(bp.grad(lambda x: loss(net, x))(x))
    grads, dx = bp.grad(loss, argnums=(0, 1))(net, x)
    assert not grads.parameters()
    assert np.any(dx)


@each
def test_an_input_of_another_dtype_is_refused_by_name(make, x):
    net = built(make, x)
    if not net.parameters() or x is NUMBERS:
        pytest.skip("takes any dtype")
    with pytest.raises(TypeError, match=rf"{type(net).__name__}|Dense") as caught:
        net(x.astype("float32"))
    assert "float32" in str(caught.value)
    assert "float64" in str(caught.value)


def test_a_forward_pass_keeps_nothing():
    """Outside a transform what a layer computed is gone when the next has used it."""
    width, depth = 256, 20
    net = nn.Sequential(*[part for _ in range(depth) for part in (nn.Dense(width, width), nn.tanh)], seed=0)
    x = np.ones((1000, width), "float32")
    net(x)
    tracemalloc.start()
    net(x)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3.5 * x.nbytes
