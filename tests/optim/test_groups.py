"""Settings of one's own for some parameters, and learning rates by the number of the call."""

import copy
import math

import numpy as np
import pytest

import gpubp as bp
from gpubp import nn, optim
from gpubp.device import to_numpy
from gpubp.functions.update import Store
from gpubp.fused import load_kernels
from gpubp.tree import map_leaves


def net_of(backend=None):
    net = nn.Sequential(nn.Dense(2, 3), nn.tanh, nn.Dense(3, 1), seed=0, dtype="float64")
    return net if backend is None else map_leaves(backend.asarray, net)


def ones(net):
    return map_leaves(lambda x: x * 0 + 1, net)


def moved(groups, **options):
    """By how much each parameter of a net moves in a step of gradients that are 1."""
    net = net_of()
    before = {path: x.copy() for path, x in net.parameters().items()}
    optim.SGD(net, 1.0, groups=groups, **options).step(ones(net))
    found = {path: before[path] - x for path, x in net.parameters().items()}
    assert all(np.ptp(x) < 1e-12 for x in found.values())
    return {path: round(float(x.mean()), 12) for path, x in found.items()}


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        (None, (1, 1, 1, 1)),
        ({"*.b": {"lr": 2.0}}, (1, 2, 1, 2)),
        ({"layers[0]": {"lr": 2.0}}, (2, 2, 1, 1)),
        ({"layers[0].W": {"lr": 2.0}}, (2, 1, 1, 1)),
        ({"layers[*].W": {"lr": 2.0}, "layers[2]": {"lr": 3.0}}, (2, 1, 3, 3)),
        ({"layers[2]": {"lr": 3.0}, "layers[*].W": {"lr": 2.0}}, (2, 1, 2, 3)),
        ({"*": {"lr": 2.0}, "*.b": {"maximize": True}}, (2, -2, 2, -2)),
        ({"layers[2]": {"lr": lambda k: 5.0 + k}}, (1, 1, 5, 5)),
    ],
)
def test_which_parameters_a_group_has(groups, expected):
    assert tuple(moved(groups).values()) == expected


def test_one_norm_and_one_decision_for_all_groups(backend):
    groups = {"*.b": {"lr": 2.0, "momentum": 0.0}}
    net = net_of(backend)
    opt = optim.SGD(net, 1.0, momentum=0.9, groups=groups, clip_norm=0.1, nonfinite="skip")
    before = [to_numpy(x).copy() for x in net.parameters().values()]
    grads = ones(net)
    opt.step(grads)
    np.testing.assert_allclose(to_numpy(opt.norm), math.sqrt(13))
    for x, old, lr in zip(net.parameters().values(), before, (1, 2, 1, 2), strict=True):
        np.testing.assert_allclose(to_numpy(x), old - lr * 0.1 / math.sqrt(13), rtol=1e-6)
    before = [to_numpy(x).copy() for x in net.parameters().values()]
    grads.layers[0].b = grads.layers[0].b * math.nan
    opt.step(grads)
    for x, old in zip(net.parameters().values(), before, strict=True):
        np.testing.assert_array_equal(to_numpy(x), old)
    assert [name for name in opt.state() if name.startswith("v ")] == ["v layers[0].W", "v layers[2].W"]


def test_a_shared_array_is_in_the_groups_of_all_its_places():
    tree = {"a": np.zeros(1)}
    tree["b"] = tree["a"]
    optim.SGD(tree, 1.0, groups={"['b']": {"lr": 2.0}}).step({"a": np.ones(1), "b": np.ones(1)})
    assert tree["a"] is tree["b"]
    assert tree["a"] == -2


@pytest.mark.parametrize(
    ("groups", "error", "message"),
    [
        (
            {"layers[1]": {"lr": 1.0}},
            ValueError,
            r"groups: there is no parameter at 'layers\[1\]'; there are layers\[0\].W",
        ),
        ({"b": {"lr": 1.0}}, ValueError, "groups: there is no parameter at 'b'"),
        ({"*.b": {"rate": 1.0}}, ValueError, r"groups: '\*.b' sets rate; what may differ are lr, momentum, dampening"),
        ({"*.b": {"clip_norm": 1.0}}, ValueError, r"groups: '\*.b' sets clip_norm; what may differ are lr"),
        ({"*.b": {"lr": -1.0}}, ValueError, "lr must be finite and not negative, got -1.0"),
        ({"*.b": {"lr": "1"}}, TypeError, "lr must be a number, got '1'"),
        ({"*.b": {"nesterov": True}}, ValueError, "nesterov=True needs a momentum above 0"),
        ({"*.b": {"nesterov": 1}}, TypeError, "nesterov must be True or False, got 1"),
        ([{"lr": 1.0}], TypeError, r"groups must be a dict of dicts such as"),
        ({"*.b": 1.0}, TypeError, r"groups must be a dict of dicts such as"),
        ({3: {"lr": 1.0}}, TypeError, r"groups must be a dict of dicts such as"),
    ],
)
def test_groups_that_are_refused(groups, error, message):
    with pytest.raises(error, match=message):
        optim.SGD(net_of(), 1.0, groups=groups)


# -- learning rates by the number of the call


def test_a_schedule_is_asked_for_each_call(backend):
    asked = []

    def schedule(k):
        asked.append(k)
        return 10.0**-k

    tree = [backend.asarray(np.zeros(1))]
    opt = optim.SGD(tree, schedule, nonfinite="skip")
    asked.clear()
    for g in (1.0, math.nan, 1.0):
        opt.step([backend.asarray(np.full(1, g))])
    assert asked == [0, 1, 2]
    assert opt.calls == 3
    np.testing.assert_allclose(to_numpy(tree[0]), -1.01, rtol=1e-15)
    opt.lr_factor = 0.5
    opt.step([backend.asarray(np.ones(1))])
    np.testing.assert_allclose(to_numpy(tree[0]), -1.0105, rtol=1e-15)


def test_rates_of_numpys_leave_dtypes_as_they_are(backend, monkeypatch):
    load_kernels("numpy")
    monkeypatch.setattr(Store, "of_library", {})
    for lr in (np.float64(0.1), lambda k: np.cos(k)):
        tree = [backend.asarray(np.zeros(2, "f4"))]
        optim.AdamW(tree, lr).step([backend.asarray(np.ones(2, "f4"))])
        assert str(tree[0].dtype).endswith("float32")


def test_a_schedule_goes_on_where_the_state_was(backend):
    def run(opt, tree, n):
        for _ in range(n):
            opt.step([x * 0 + 1 for x in tree])

    def made(values):
        tree = [backend.asarray(values)]
        return tree, optim.Adam(tree, lambda k: 1 / (1 + k))

    tree, opt = made(np.zeros(3))
    run(opt, tree, 3)
    other, resumed = made(to_numpy(tree[0]).copy())
    resumed.load_state(opt.state())
    assert resumed.calls == 3
    run(opt, tree, 4)
    run(resumed, other, 4)
    np.testing.assert_array_equal(to_numpy(other[0]), to_numpy(tree[0]))


def test_a_schedule_in_a_captured_step(backend):
    def run(capture):
        tree = [backend.asarray(np.zeros(2))]
        groups = {"*": {"lr": lambda k: 10.0 ** -(k % 3)}}
        opt = optim.SGD(tree, 1.0, groups=groups, nonfinite="stop")

        def step(g):
            opt.step([g], backend.xp.sum(g))

        step = bp.capture(step, required=backend.name == "cupy") if capture else step
        failed = []
        for k in range(12):
            if k == 11:
                opt.clear()
            step(backend.asarray(np.full(2, math.inf if k == 8 else 1.0)))
            failed.append(int(to_numpy(opt.failed)))
        return to_numpy(tree[0]), opt.calls, opt.steps, failed

    (x, *others), (expected, *rest) = run(True), run(False)
    np.testing.assert_allclose(x, expected, rtol=1e-14)
    assert others == rest == [12, 9, [-1] * 8 + [8] * 3 + [-1]]


# -- stopping


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_value_that_is_not_finite_counts_as_a_gradient(value, backend):
    tree = [backend.asarray(np.zeros(2))]
    good = [backend.asarray(np.ones(2))]
    for nonfinite, expected in (("ignore", -4), ("skip", -3), ("stop", -1)):
        tree[0] = backend.asarray(np.zeros(2))
        opt = optim.SGD(tree, 1.0, nonfinite=nonfinite)
        for k in range(4):
            opt.step(good, backend.asarray(np.asarray(value if k == 1 else 0.5, "f4")))
        np.testing.assert_array_equal(to_numpy(tree[0]), expected)
        assert opt.failed.shape == ()
        assert int(to_numpy(opt.failed)) == (-1 if nonfinite == "ignore" else 1)
        assert (opt.steps, opt.skipped, opt.nonfinite) == (-expected, 4 + expected, nonfinite)
    other = optim.SGD([backend.asarray(np.zeros(2))], 1.0, nonfinite="stop")
    other.load_state(opt.state())  # has stopped too
    other.step(good)
    assert (other.steps, other.skipped, other.calls) == (1, 4, 5)
    other.clear()
    other.step(good)
    assert (other.steps, other.skipped, int(to_numpy(other.failed))) == (2, 4, -1)
    with pytest.raises(TypeError, match=r"value must be the loss, a 0-d array, got shape \(2,\)"):
        opt.step(good, good[0])
    with pytest.raises(TypeError, match="value must be the loss, a 0-d array, got float"):
        opt.step(good, 1.0)


def test_a_loss_scale_that_can_be_lowered_is_no_failure(backend):
    tree = [backend.asarray(np.zeros(1))]
    opt = optim.SGD(tree, 1.0, nonfinite="stop", loss_scale=optim.LossScale(init=2.0**-124))
    inf, one = backend.asarray(np.full(1, np.inf)), backend.asarray(np.full(1, 2.0**-126))
    opt.step([inf])
    opt.step([inf])
    opt.step([one], backend.asarray(np.asarray(0.0)))
    assert (opt.steps, opt.skipped, int(to_numpy(opt.failed))) == (1, 2, -1)
    opt.step([inf])  # at the least scale
    opt.step([one])
    assert (opt.steps, opt.skipped, int(to_numpy(opt.failed))) == (1, 4, 3)
    opt.clear()
    opt.step([one], backend.asarray(np.asarray(np.nan)))
    assert int(to_numpy(opt.failed)) == 5


def test_what_is_done_to_gradients_may_be_changed(backend):
    tree = [backend.asarray(np.zeros(2))]
    opt = optim.SGD(tree, 1.0, momentum=0.5, loss_scale=4.0)
    opt.step([backend.asarray(np.full(2, 4.0))])
    opt.guard(nonfinite="stop", clip_norm=math.inf)
    assert (opt.nonfinite, float(to_numpy(opt.scale)), opt.steps) == ("stop", 4.0, 1)
    opt.step([backend.asarray(np.full(2, 4.0))])
    np.testing.assert_allclose(to_numpy(tree[0]), -2.5)
    np.testing.assert_allclose(to_numpy(opt.norm), math.sqrt(2))
    opt.guard(loss_scale=None, clip_norm=None)
    assert (opt.scale, opt.nonfinite, opt.steps) == (None, "stop", 2)
    opt.step([backend.asarray(np.full(2, 0.25))])
    np.testing.assert_allclose(to_numpy(tree[0]), -3.5)
    with pytest.raises(ValueError, match="nonfinite must be 'ignore', 'skip' or 'stop', got 'halt'"):
        opt.guard(nonfinite="halt")


# -- copies


@pytest.mark.parametrize("options", [{}, {"nonfinite": "stop", "loss_scale": 2.0, "groups": {"*.b": {"lr": 0.3}}}])
def test_a_copy_goes_on_by_itself(options, backend):
    net = net_of(backend)
    opt = optim.Adam(net, lambda k: 0.1 / (1 + k), **options)
    opt.step(ones(net))
    other_net, other = copy.deepcopy((net, opt))
    assert other.tree is other_net
    before = [to_numpy(x).copy() for x in net.parameters().values()]
    for _ in range(2):
        other.step(ones(other_net))
    for x, old in zip(net.parameters().values(), before, strict=True):
        np.testing.assert_array_equal(to_numpy(x), old)
    for _ in range(2):
        opt.step(ones(net))
    for x, y in zip(net.parameters().values(), other_net.parameters().values(), strict=True):
        np.testing.assert_array_equal(to_numpy(x), to_numpy(y))
    for name, x in opt.state().items():
        np.testing.assert_array_equal(to_numpy(x), to_numpy(other.state()[name]))
    assert other.calls == opt.calls == 3


# -- errors


@pytest.mark.parametrize(
    ("cls", "options", "error", "message"),
    [
        (optim.SGD, {"moment": 0.1}, TypeError, "SGD has no option moment; it has lr, momentum, dampening, nesterov"),
        (optim.SGD, {"skip_nonfinite": True}, TypeError, "SGD has no option skip_nonfinite; .* nonfinite"),
        (optim.SGD, {"maximize": 1}, TypeError, "maximize must be True or False, got 1"),
        (optim.SGD, {"momentum": True}, TypeError, "momentum must be a number, got True"),
        (optim.SGD, {"nesterov": True, "momentum": 0.1, "dampening": 0.1}, ValueError, "and no dampening"),
        (optim.SGD, {"clip_value": 0.0}, ValueError, "clip_value must be above 0 or None, got 0.0"),
        (optim.SGD, {"clip_value": "1"}, TypeError, "clip_value must be a number, got '1'"),
        (optim.SGD, {"clip_value": 1.0, "clip_norm": 1.0}, ValueError, "clip_norm and clip_value exclude each other"),
        (optim.SGD, {"nonfinite": True}, ValueError, "nonfinite must be 'ignore', 'skip' or 'stop', got True"),
        (optim.RMSprop, {"alpha": 1.5}, ValueError, "alpha must be from 0 to 1, got 1.5"),
        (optim.Adam, {"betas": 0.9}, TypeError, r"betas must be two numbers, got 0.9"),
        (optim.Adam, {"betas": (0.9,)}, TypeError, r"betas must be two numbers, got \(0.9,\)"),
        (optim.Lion, {"betas": (0.9, 1.0)}, ValueError, r"betas must be from 0 to below 1, got \(0.9, 1.0\)"),
        (optim.Muon, {"iterations": 2.5}, TypeError, "iterations must be a whole number, got 2.5"),
    ],
)
def test_options_that_are_refused(cls, options, error, message):
    with pytest.raises(error, match=message):
        cls([np.ones(1)], 0.1, **options)
    with pytest.raises(TypeError, match="clip_value is for real parameters"):
        optim.SGD([np.ones(1) + 1j], 0.1, clip_value=1.0)


def test_a_schedule_that_gives_no_number():
    with pytest.raises(TypeError, match="the schedule .* must give a number, got None at step 0"):
        optim.SGD([np.ones(1)], lambda step: None)
