"""A hundred steps of training are the same on every library: whatever differs a little in a step has time to grow."""

import sys

import numpy as np
import pytest

import gpubp as bp
from gpubp import losses, nn, optim
from gpubp.device import device_of
from gpubp.tree import map_distinct

STEPS = 100
FEW = 12  # on libraries that only imitate another, which are slow
#: How far losses, and at the end parameters and cells, may be apart, relative to the largest of each.
TOLERANCES = {"float64": 1e-9, "float32": 2e-3}


def _mlp():
    return nn.Sequential(nn.Dense(8, 16), nn.relu, nn.Dropout(0.2), nn.Dense(16, 12), nn.tanh, nn.Dense(12, 4))


def _pictures():  # without a bias whose gradient is 0 but for rounding
    return nn.Sequential(
        *(nn.Conv2d(1, 4, 3, padding="same", bias=False), nn.BatchNorm(4), nn.relu, nn.MaxPool(2)),
        *(nn.Residual(nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.silu)), nn.AvgPool(2)),
        *(nn.Flatten(), nn.Dense(16, 4)),
    )


def _recurrent():
    return nn.Sequential(nn.LSTM(3, 6), nn.GRU(6, 5, bidirectional=True, last=True), nn.Dense(10, 4))


def _transformer():
    blocks = [nn.TransformerBlock(8, 2, causal=True, rotary=True, bias=False) for _ in range(1)]
    return nn.Sequential(nn.Embedding(9, 8), *blocks, nn.RMSNorm(8), nn.Dense(8, 4))


#: How a net is made, the shape of an example (or of its symbols), that of a label, and its optimizer.
NETS = {
    "mlp": (_mlp, (8,), (), lambda net: optim.Adam(net, 3e-3)),
    "pictures": (_pictures, (8, 8, 1), (), lambda net: optim.SGD(net, 0.02, momentum=0.9, nesterov=True)),
    "recurrent": (_recurrent, (6, 3), (), lambda net: optim.SGD(net, 0.1, momentum=0.9, weight_decay=1e-3)),
    "transformer": (_transformer, (5,), (5,), lambda net: optim.AdamW(net, 2e-3, weight_decay=0.1)),
}


def steps_on(backend):
    """How many steps are taken."""
    imitated = backend.name == "cupy" and hasattr(sys.modules["cupy"], "no_host_reads")
    return FEW if imitated or backend.name.startswith(("standin", "array_api_strict")) else STEPS


def train(name, backend, dtype, steps, captured=False):
    """Return the loss of every step, and parameters and cells at the end, on the host."""
    make, shape, label, optimizer = NETS[name]
    rng = np.random.default_rng(0)
    net = map_distinct(backend.asarray, make().build(0, dtype)).train()
    batches = []
    for _ in range(5):
        x = rng.integers(0, 9, (6, *shape)) if name == "transformer" else rng.normal(size=(6, *shape)).astype(dtype)
        batches.append((backend.asarray(x), backend.asarray(rng.integers(0, 4, (6, *label)))))
    opt = optimizer(net)
    gradient = bp.value_and_grad(lambda net, x, y: losses.softmax_cross_entropy(net(x), y))

    def step(x, y):
        value, grads = gradient(net, x, y)
        opt.step(grads)
        return value

    step = bp.capture(step) if captured else step
    values = [step(*batches[k % len(batches)]) for k in range(steps)]
    return [backend.to_numpy(v) for v in values], {path: bp.to_numpy(x) for path, x in net.state().items()}


def compare(found, expected, dtype):
    tolerance = TOLERANCES[dtype]
    np.testing.assert_allclose(found[0], expected[0], rtol=tolerance, atol=tolerance)
    assert found[1].keys() == expected[1].keys()
    for path, wanted in expected[1].items():
        assert found[1][path].dtype == wanted.dtype
        scale = np.max(np.abs(wanted))
        np.testing.assert_allclose(found[1][path], wanted, rtol=0, atol=tolerance * scale, err_msg=path)


def is_cupy(backend):
    """Whether arrays are CuPy's, on a GPU or by the stand-in in its place: only those are captured."""
    return device_of(backend.asarray(np.zeros(1))).library == "cupy"


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("name", NETS)
def test_steps_are_those_of_numpy(name, dtype, backend, numpy_trajectories):
    if backend.name == "numpy":
        pytest.skip("this is what the others are compared with")
    steps = steps_on(backend)
    compare(train(name, backend, dtype, steps), numpy_trajectories(name, dtype, steps), dtype)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("name", NETS)
def test_captured_steps_are_those_of_numpy(name, dtype, backend, numpy_trajectories):
    if backend.name != "numpy" and not is_cupy(backend):
        pytest.skip(f"steps on {backend.name} run as they are")
    steps = steps_on(backend)
    compare(train(name, backend, dtype, steps, captured=True), numpy_trajectories(name, dtype, steps), dtype)


@pytest.fixture(scope="session")
def numpy_trajectories():
    from gpubp.testing.backends import load

    known = {}

    def found(*case):
        if case not in known:
            name, dtype, steps = case
            known[case] = train(name, load("numpy"), dtype, steps)
        return known[case]

    return found


@pytest.mark.parametrize("name", NETS)
def test_the_nets_learn(name, numpy_trajectories):
    values, _ = numpy_trajectories(name, "float64", STEPS)
    assert np.mean(values[-5:]) < 0.9 * np.mean(values[:5])


def test_a_difference_in_one_step_is_found(numpy_trajectories):
    expected = numpy_trajectories("mlp", "float64", FEW)
    with pytest.raises(AssertionError):
        compare(([*expected[0][:-1], expected[0][-1] * (1 + 1e-8)], expected[1]), expected, "float64")
    path = next(iter(expected[1]))
    with pytest.raises(AssertionError, match=path.replace("[", r"\[")):
        compare((expected[0], {**expected[1], path: expected[1][path] + 1e-7}), expected, "float64")
