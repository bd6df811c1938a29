import copy

import numpy as np
import pytest

import gpubp as bp
from gpubp import nn, optim
from gpubp.device import to_numpy
from gpubp.tree import map_distinct


def net_of(backend, dtype="float64"):
    net = nn.Sequential(nn.Dense(2, 3), nn.BatchNorm(3), nn.tanh, nn.Dense(3, 1), seed=0).astype(dtype)
    return map_distinct(backend.asarray, net).train()


def train(backend, net, opt, average, steps, seed=0, capture=False):
    rng = np.random.default_rng(seed)

    def step(x):
        grads = bp.grad(lambda net: bp.losses.mse(net(x), x[:, :1]))(net)
        opt.step(grads)
        average.update()

    step = bp.capture(step, required=backend.name == "cupy") if capture else step
    for _ in range(steps):
        step(backend.asarray(rng.normal(size=(4, 2))))


@pytest.mark.peers
def test_it_is_pytorchs(backend):
    torch = pytest.importorskip("torch")
    values = [np.random.default_rng(k).normal(size=(2, 3)) for k in range(20)]
    theirs = torch.nn.Linear(3, 2, bias=False, dtype=torch.float64)
    averaged = torch.optim.swa_utils.AveragedModel(theirs, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9))
    tree = {"W": backend.asarray(values[0])}
    average = optim.Average(tree, 0.9)
    for value in values:
        tree["W"] = backend.asarray(value)
        with torch.no_grad():
            theirs.weight[...] = torch.tensor(value)
        average.update()
        averaged.update_parameters(theirs)
    found = averaged.module.weight.detach().numpy()
    np.testing.assert_allclose(to_numpy(average.net["W"]), found, rtol=0, atol=1e-14)


def test_the_net_has_averages_and_the_cells_of_now(backend):
    net = net_of(backend)
    opt, average = optim.SGD(net, 0.1), optim.Average(net, 0.5)
    history = []
    for k in range(3):
        train(backend, net, opt, average, 1, seed=k)
        history.append([to_numpy(x).copy() for x in net.parameters().values()])
    for k, x in enumerate(average.net.parameters().values()):
        np.testing.assert_allclose(to_numpy(x), 0.25 * history[0][k] + 0.25 * history[1][k] + 0.5 * history[2][k])
    states = net.state(), average.net.state()
    for path in states[0].keys() - net.parameters().keys():
        np.testing.assert_array_equal(to_numpy(states[1][path]), to_numpy(states[0][path]))
    assert average.tree is net
    assert average.net is average.net is not net
    x = backend.asarray(np.ones((2, 2)))
    assert average.net.eval()(x).shape == (2, 1)
    assert net.training


def test_a_state_goes_to_another(backend):
    net = net_of(backend)
    opt, average = optim.Adam(net, 0.1), optim.Average(net, 0.7)
    train(backend, net, opt, average, 3)
    other = map_distinct(lambda x: backend.xp.asarray(x, copy=True), net)
    other_opt, resumed = optim.Adam(other, 0.1), optim.Average(other, 0.7)
    other_opt.load_state(opt.state())
    state = average.state()
    resumed.load_state(state)
    for a, b in ((net, average), (other, resumed)):
        train(backend, a, opt if a is net else other_opt, b, 4, seed=1)
    assert average.state().keys() == resumed.state().keys()
    for name, x in average.state().items():
        np.testing.assert_array_equal(to_numpy(resumed.state()[name]), to_numpy(x), err_msg=name)
    del state["average layers[0].W"]
    with pytest.raises(ValueError, match=r"the average does not fit this Sequential: layers\[0\].W is missing"):
        resumed.load_state(state)
    with pytest.raises(TypeError, match=r"arrays by name that state\(\) returned, got list"):
        resumed.load_state([])


def test_in_a_captured_step(backend):
    found = []
    for capture in (True, False):
        net = net_of(backend)
        average = optim.Average(net, 0.7)
        train(backend, net, optim.SGD(net, 0.05), average, 9, capture=capture)
        found.append([to_numpy(x) for x in average.net.parameters().values()])
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_averages_of_16_bits_are_kept_in_float32(dtype, backend):
    if backend.name not in ("numpy", "cupy", "torch"):
        pytest.skip("not all 16-bit floats there, or none that come from NumPy")
    if dtype == "bfloat16" and backend.name == "torch":
        pytest.skip("none that comes from NumPy")
    if dtype == "bfloat16":
        dtype = pytest.importorskip("ml_dtypes").bfloat16
    tree = [backend.asarray(np.ones(300).astype(dtype))]
    average = optim.Average(tree, 0.999)
    average.update()
    tree[0] = backend.asarray(np.full(300, 2.0).astype(dtype))
    for _ in range(500):
        average.update()
    expected = 2 - 0.999**500
    np.testing.assert_allclose(to_numpy(average.net[0]).astype("f8"), expected, rtol=5e-3)
    np.testing.assert_allclose(to_numpy(average.state()["a [0]"]), expected, rtol=1e-5)


def test_a_copy_goes_on_by_itself():
    tree = [np.ones(2)]
    average = optim.Average(tree, 0.5)
    average.update()
    other = copy.deepcopy(average)
    other.tree[0] = np.full(2, 3.0)
    other.update()
    np.testing.assert_array_equal(other.net[0], 2)
    np.testing.assert_array_equal(average.net[0], 1)


@pytest.mark.parametrize(
    ("decay", "error", "message"),
    [
        (1.0, ValueError, "decay must be from 0 to below 1, got 1.0"),
        (-0.1, ValueError, "decay must be from 0 to below 1, got -0.1"),
        ("0.9", TypeError, "decay must be a number, got '0.9'"),
    ],
)
def test_a_decay_that_is_refused(decay, error, message):
    with pytest.raises(error, match=message):
        optim.Average([np.ones(1)], decay)
