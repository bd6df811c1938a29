"""Optimizers against PyTorch's, with every combination of options that it accepts, and against what defines them."""

import inspect
import math

import numpy as np
import pytest

from gpubp import optim
from gpubp.functions.update import orthogonalized
from tests.optim.cases import CASES, OTHERS, PEERS, THEIRS, combinations, peer_of

SHAPES = [(3, 4), (4,), (), (2, 3)]
KINDS = [
    cls for cls in map(vars(optim).get, optim.__all__) if inspect.isclass(cls) and issubclass(cls, optim.Optimizer)
]
DEFINED = {optim.Lion, optim.Muon}  # by the tests below


def start():
    rng = np.random.default_rng(0)
    *real, last = [rng.normal(size=shape) for shape in SHAPES]
    return [*real, last + 1j * rng.normal(size=last.shape)]


def gradients(steps, wide=1.0):
    rng = np.random.default_rng(1)
    for _ in range(steps):
        *real, last = [wide * rng.normal(size=shape) for shape in SHAPES]
        yield [*real, last + 1j * wide * rng.normal(size=last.shape)]


def test_every_optimizer_has_cases_and_is_compared():
    kinds = set(KINDS) - {optim.Optimizer}
    assert {cls for cls, _ in CASES.values()} == kinds
    assert set(PEERS) | DEFINED == kinds


def test_cases_give_each_option():
    for cls in set(KINDS) - {optim.Optimizer}:
        own = set(inspect.signature(cls).parameters) - {"tree", "lr", "options"}
        given = {name for kind, options in CASES.values() if kind is cls for name in options}
        given |= set(PEERS.get(cls, ()))
        assert own - given <= ({"momentum", "betas", "eps"} if cls is optim.Muon else set()), cls  # these are below


@pytest.mark.peers
def test_every_option_of_pytorchs_is_given():
    torch = pytest.importorskip("torch")
    for cls, options in PEERS.items():
        theirs = set(inspect.signature(getattr(torch.optim, cls.__name__)).parameters) - OTHERS
        assert theirs == {THEIRS.get(name, name) for name in options}


@pytest.mark.peers
@pytest.mark.parametrize("cls", PEERS, ids=lambda cls: cls.__name__)
def test_fifty_steps_equal_pytorchs(cls):
    torch = pytest.importorskip("torch")
    for options in combinations(cls):
        tree, tensors = start(), [torch.tensor(x, requires_grad=True) for x in start()]
        ours, theirs = cls(tree, 0.05, **options), peer_of(torch, cls, tensors, 0.05, options)
        for grads in gradients(50):
            for x, g in zip(tensors, grads, strict=True):
                x.grad = torch.tensor(g)
            theirs.step()
            ours.step(grads)
        for a, b in zip(tree, tensors, strict=True):
            np.testing.assert_allclose(a, b.detach().numpy(), rtol=0, atol=1e-12, err_msg=str(options))


@pytest.mark.peers
@pytest.mark.parametrize("cls", PEERS, ids=lambda cls: cls.__name__)
def test_groups_schedules_and_clipped_values_equal_pytorchs(cls):
    torch = pytest.importorskip("torch")
    tree, tensors = start()[:3], [torch.tensor(x, requires_grad=True) for x in start()[:3]]

    def halved(k):
        return 0.5 ** (k // 10)

    groups = {"[1]": {"lr": 0.3, "weight_decay": 0.1}, "[2]": {"lr": lambda k: 0.2 * halved(k), "maximize": True}}
    ours = cls(tree, lambda k: 0.05 * halved(k), weight_decay=0.01, groups=groups, clip_value=0.4)
    theirs = getattr(torch.optim, cls.__name__)(
        [
            {"params": tensors[:1], "lr": 0.05},
            {"params": tensors[1:2], "lr": 0.3, "weight_decay": 0.1},
            {"params": tensors[2:], "lr": 0.2, "maximize": True},
        ],
        weight_decay=0.01,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(theirs, [halved, lambda k: 1.0, halved])
    for grads in gradients(50):
        for x, g in zip(tensors, grads[:3], strict=True):
            x.grad = torch.tensor(g)
        torch.nn.utils.clip_grad_value_(tensors, 0.4)
        theirs.step()
        schedule.step()
        ours.step(grads[:3])
    for a, b in zip(tree, tensors, strict=True):
        np.testing.assert_allclose(a, b.detach().numpy(), rtol=0, atol=1e-12)


def test_the_variance_of_equal_gradients_is_no_root_of_a_negative_number(backend):
    tree = [backend.asarray(np.zeros(50))]
    opt = optim.RMSprop(tree, 1e-6, alpha=0.5, centered=True)
    g = backend.asarray(np.linspace(0.1, 3.0, 50))
    for _ in range(80):
        opt.step([g])
    assert np.isfinite(backend.to_numpy(tree[0])).all()


# -- Lion


@pytest.mark.parametrize(
    "options", [{}, {"betas": (0.6, 0.95), "weight_decay": 0.3}, {"weight_decay": 0.3, "decoupled": False}]
)
def test_lion_is_algorithm_2_of_its_paper(options):
    beta1, beta2 = options.get("betas", (0.9, 0.99))
    decay, decoupled = options.get("weight_decay", 0.0), options.get("decoupled", True)
    tree = start()[:3]
    opt = optim.Lion(tree, 0.05, **options)
    expected = [[float(value), 0.0] for x in start()[:3] for value in np.ravel(x)]
    for grads in gradients(50):
        opt.step(grads[:3])
        for pm, g in zip(expected, np.concatenate([np.ravel(g) for g in grads[:3]]), strict=True):
            theta, m = pm
            if not decoupled:
                g = g + decay * theta
            c = beta1 * m + (1 - beta1) * g
            theta -= 0.05 * (math.copysign(1.0, c) + (decay * theta if decoupled else 0.0))
            pm[:] = theta, beta2 * m + (1 - beta2) * g
    np.testing.assert_allclose(np.concatenate([np.ravel(x) for x in tree]), [p for p, _ in expected], atol=1e-12)


# -- Muon


def through_singular_values(x, iterations=5):
    """The Newton-Schulz iteration leaves singular vectors alone; singular values go through a polynomial."""
    u, s, v = np.linalg.svd(x, full_matrices=False)
    s = s / np.sqrt(np.sum(s**2))
    for _ in range(iterations):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return u * s @ v


@pytest.mark.parametrize("shape", [(3, 4), (4, 3), (1, 5), (5, 1), (6, 6), (1, 1)])
def test_what_is_orthogonalized(shape, backend):
    x = np.random.default_rng(0).normal(size=shape)
    found = backend.to_numpy(orthogonalized(backend.xp, backend.asarray(x), 5))
    np.testing.assert_allclose(found, through_singular_values(x), rtol=0, atol=1e-12)
    assert np.all(np.abs(np.linalg.svd(found)[1] - 1) < 0.4)
    np.testing.assert_array_equal(orthogonalized(np, 0 * x, 5), 0)


@pytest.mark.parametrize("match_adam", [False, True])
@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_muon_is_its_definition(match_adam, nesterov, decay, backend):
    rng = np.random.default_rng(0)
    shapes = [(3, 8), (8, 3), (2, 2, 3, 5), (4,), ()]
    start = [rng.normal(size=shape) for shape in shapes]
    tree, others = [backend.asarray(x) for x in start], [backend.asarray(x) for x in start[3:]]
    opt = optim.Muon(tree, 0.05, nesterov=nesterov, match_adam=match_adam, weight_decay=decay, momentum=0.9, eps=1e-7)
    adamw = optim.AdamW(others, 0.05, weight_decay=decay, eps=1e-7)
    buffers = [0.0 * x for x in start]
    for _ in range(50):
        grads = [rng.normal(size=shape) for shape in shapes]
        opt.step([backend.asarray(g) for g in grads])
        adamw.step([backend.asarray(g) for g in grads[3:]])
        for k, g in enumerate(grads[:3]):
            buffers[k] = 0.9 * buffers[k] + g  # Jordan's, without a factor, which does not matter
            update = g + 0.9 * buffers[k] if nesterov else buffers[k]
            update = update.reshape(-1, shapes[k][-1])
            fan_in, fan_out = update.shape
            scale = 0.2 * max(fan_in, fan_out) ** 0.5 if match_adam else max(1, fan_out / fan_in) ** 0.5
            start[k] *= 1 - 0.05 * decay
            start[k] -= 0.05 * scale * through_singular_values(update).reshape(shapes[k])
    for a, b in zip(tree[:3], start, strict=False):
        np.testing.assert_allclose(backend.to_numpy(a), b, rtol=0, atol=1e-12)
    for a, b in zip(tree[3:], others, strict=True):
        np.testing.assert_allclose(backend.to_numpy(a), backend.to_numpy(b), rtol=0, atol=1e-13)


@pytest.mark.peers
@pytest.mark.parametrize("shape", [(3, 8), (8, 3)])
@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("match", ["original", "match_rms_adamw"])
def test_fifty_steps_of_muon_equal_pytorchs_where_that_does_not_round(shape, nesterov, match, monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.clone)
    rng = np.random.default_rng(0)
    W = rng.normal(size=shape)
    tree, tensor = [W.copy()], torch.tensor(W.T.copy(), requires_grad=True)  # PyTorch's weights are transposed
    options = {"nesterov": nesterov, "weight_decay": 0.1, "momentum": 0.8}
    ours = optim.Muon(tree, 0.05, match_adam=match != "original", **options)
    theirs = torch.optim.Muon([tensor], 0.05, adjust_lr_fn=match, **options)
    for _ in range(50):
        g = rng.normal(size=shape)
        tensor.grad = torch.tensor(g.T.copy())
        theirs.step()
        ours.step([g])
    np.testing.assert_allclose(tree[0], tensor.detach().numpy().T, rtol=0, atol=1e-12)


def test_parameters_of_muon_that_adamw_steps():
    rng = np.random.default_rng(0)
    start = {"W": rng.normal(size=(3, 4)), "b": rng.normal(size=4), "z": rng.normal(size=(2, 2)) + 1j}
    tree = {"all": {name: x.copy() for name, x in start.items()}, "head": {name: x.copy() for name, x in start.items()}}
    opt = optim.Muon(tree, 0.1, groups={"*": {"orthogonal": True}, "['head']": {"orthogonal": False}})
    by_adamw = {name[2:] for name in opt.state() if name.startswith("v ")}
    assert by_adamw == {"['all']['b']", "['all']['z']", "['head']['W']", "['head']['b']", "['head']['z']"}
    opt.step({"all": start, "head": start})
    expected = dict(start)
    optim.AdamW(expected, 0.1, weight_decay=0.1).step(dict(start))
    for name, x in expected.items():
        np.testing.assert_allclose(tree["head"][name], x)
