"""What is done to all gradients before a step: clipping, skipping, loss scaling; and what an optimizer remembers."""

import gc
import math
import tracemalloc
import weakref

import numpy as np
import pytest

import gpubp as bp
from gpubp import losses, nn, optim
from gpubp.device import device_of, to_numpy
from gpubp.functions.update import Store, adam
from gpubp.fused import load_kernels
from gpubp.optim import LossScale
from gpubp.testing.backends import load
from gpubp.tree import leaves, map_leaves
from tests.optim.cases import CASES, peer_of

# NumPy's warnings where other libraries would compute an infinity or NaN in silence
pytestmark = [
    pytest.mark.filterwarnings(f"ignore:(overflow|invalid value|divide by zero) encountered:RuntimeWarning:{module}")
    for module in ("gpubp.testing.standin", "array_api_strict", "gpubp.functions.update")
]

SHAPES = [(3, 4), (), (2, 129), (0, 5), (1,)]
each = pytest.mark.parametrize(("cls", "options"), CASES.values(), ids=CASES)
some = pytest.mark.parametrize("case", ["momentum", "adam, no memory", "adamw", "rmsprop, centered"])
FAST = LossScale(init=2.0**10, growth=4.0, backoff=0.25, interval=3)
EVERYTHING = {"clip_norm": 3.0, "nonfinite": "skip", "loss_scale": FAST}


def general_stores(monkeypatch):
    """From now on have the store that makes new arrays, on every library."""
    load_kernels("numpy")
    monkeypatch.setattr(Store, "of_library", {})


def start(asarray=np.array, dtype="float64"):
    rng = np.random.default_rng(0)
    return [asarray(rng.normal(size=shape).astype(dtype)) for shape in SHAPES]


def gradients(steps, bad=(), dtype="float64"):
    """Gradients of norms around the clipping norm; in some steps one element of one array is not finite."""
    rng = np.random.default_rng(1)
    for k in range(steps):
        found = [np.asarray(rng.normal(size=shape) * rng.choice([0.03, 0.3]), dtype) for shape in SHAPES]
        if k in bad:
            found[2][1, 77] = [np.inf, -np.inf, np.nan][k % 3]
        yield found


def run(cls, options, steps=20, asarray=np.array, bad=(), dtype="float64"):
    tree = start(asarray, dtype)
    opt = cls(tree, 0.05, **options)
    for grads in gradients(steps, bad, dtype):
        if opt.scale is not None:
            grads = [(g * to_numpy(opt.scale)).astype(dtype) for g in grads]
        opt.step([asarray(g) for g in grads])
    return tree, opt


def assert_close(found, expected, **tolerance):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(to_numpy(a), to_numpy(b), **(tolerance or {"rtol": 1e-12, "atol": 1e-12}))


# -- against PyTorch


@pytest.mark.peers
@pytest.mark.parametrize("bad", [(), (5, 6, 19, 31, 48)], ids=["finite", "not all finite"])
@some
def test_fifty_clipped_and_scaled_steps_equal_pytorchs(case, bad, backend):
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
    cls, options = CASES[case]
    tensors = [torch.tensor(x, requires_grad=True) for x in start()]
    peer = peer_of(torch, cls, tensors, 0.05, options)
    scaler = torch.amp.GradScaler("cpu", FAST.init, FAST.growth, FAST.backoff, FAST.interval)
    scaler.scale(torch.ones(()))
    scales, norms = [], []
    for grads in gradients(50, bad):
        for p, g in zip(tensors, grads, strict=True):
            p.grad = torch.tensor(g) * scaler.get_scale()
        scaler.unscale_(peer)
        norms.append(torch.nn.utils.clip_grad_norm_(tensors, 3.0).item())
        scaler.step(peer)
        scaler.update()
        scales.append(scaler.get_scale())

    tree = start(backend.asarray)
    opt = cls(tree, 0.05, **options, **EVERYTHING)
    for grads, scale, norm in zip(gradients(50, bad), scales, norms, strict=True):
        opt.step([backend.asarray(g * to_numpy(opt.scale)) for g in grads])
        assert to_numpy(opt.scale) == scale
        np.testing.assert_allclose(to_numpy(opt.norm), norm, rtol=1e-13)
    assert_close(tree, [x.detach().numpy() for x in tensors], rtol=0, atol=1e-12)
    assert (opt.steps, opt.skipped) == (50 - len(bad), len(bad))


@pytest.mark.peers
@some
def test_clipping_alone_equals_pytorchs(case, backend):
    torch = pytest.importorskip("torch")
    cls, options = CASES[case]
    tensors = [torch.tensor(x, requires_grad=True) for x in start()]
    peer = peer_of(torch, cls, tensors, 0.05, options)
    for grads in gradients(50):
        for p, g in zip(tensors, grads, strict=True):
            p.grad = torch.tensor(g)
        torch.nn.utils.clip_grad_norm_(tensors, 2.0)
        peer.step()
    tree, _ = run(cls, options | {"clip_norm": 2.0}, 50, backend.asarray)
    assert_close(tree, [x.detach().numpy() for x in tensors], rtol=0, atol=1e-12)


# -- every store against the definition


@pytest.mark.parametrize(
    "guard",
    [
        {},
        {"clip_norm": 1.0},
        {"clip_value": 0.1},
        {"nonfinite": "skip"},
        {"nonfinite": "stop"},
        {"loss_scale": 8.0},
        EVERYTHING,
    ],
    ids=lambda guard: ", ".join(guard.values() if "nonfinite" in guard and len(guard) == 1 else guard) or "plain",
)
@each
def test_every_library_does_the_same(cls, options, guard, backend, monkeypatch):
    bad = (2, 3, 9) if guard.get("nonfinite") else ()
    tree, opt = run(cls, options | guard, 12, backend.asarray, bad)
    general_stores(monkeypatch)
    expected, plain = run(cls, options | guard, 12, np.array, bad)
    assert type(plain._store) is Store
    assert_close(tree, expected)
    skipped = 10 if opt.nonfinite == "stop" else len(bad)
    assert (opt.steps, opt.skipped, opt.calls) == (plain.steps, plain.skipped, 12) == (12 - skipped, skipped, 12)
    assert to_numpy(opt.failed) == to_numpy(plain.failed) == (2 if bad and opt.scale is None else -1)
    assert device_of(tree[0]) == device_of(backend.asarray(0.0))
    for name in ("norm", "scale"):
        a, b = getattr(opt, name), getattr(plain, name)
        assert (a is None) == (b is None)
        if a is not None:
            assert a.shape == ()
            assert device_of(a) == device_of(tree[0])
            np.testing.assert_allclose(to_numpy(a), to_numpy(b), rtol=1e-13)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@each
def test_16_bit_parameters_are_stepped_in_float32(cls, options, dtype, backend):
    if dtype == "bfloat16" and backend.name not in ("numpy", "cupy"):
        pytest.skip("no bfloat16 there, or none that comes from NumPy")
    if dtype == "float16" and backend.name.startswith("array_api_strict"):
        pytest.skip("array-api-strict has no float16")
    if dtype == "bfloat16":
        dtype = pytest.importorskip("ml_dtypes").bfloat16
    tree, opt = run(cls, options | {"clip_norm": 3.0}, 10, backend.asarray, dtype=dtype)
    expected = start(dtype=dtype)
    state = [tuple(np.zeros(s, "f4") for _ in names) for s, names in zip(SHAPES, opt._store.names, strict=True)]
    opt.calls = 0
    for t, grads in enumerate(gradients(10, dtype=dtype), 1):
        wide = [g.astype("f4") for g in grads]
        factor = min(1, 3.0 / (math.sqrt(sum(np.vdot(g, g) for g in wide)) + 1e-6))
        for k, g in enumerate(wide):
            settings = opt._settings()[opt._groups[k]]
            p, state[k] = opt.rule(np, expected[k].astype("f4"), g * np.float32(factor), state[k], t=t, **settings)
            expected[k] = p.astype(dtype)
        opt.calls += 1
    assert {str(x.dtype).rpartition(".")[2] for x in tree} == {np.dtype(dtype).name}
    for slots in opt._store.slots:
        assert {str(x.dtype).rpartition(".")[2] for x in slots} <= {"float32"}
    for a, b in zip(tree, expected, strict=True):  # equal but for a rounding to a neighbour
        a, b = (np.asarray(x, "f4") for x in (to_numpy(a), b))
        assert a.size < 20 or np.mean(a == b) > 0.95
        np.testing.assert_allclose(a, b, rtol=2e-2 if dtype != "float16" else 2e-3, atol=1e-4)


def test_many_arrays_and_large_ones(backend):
    rng = np.random.default_rng(0)
    sizes = [*rng.integers(1, 300, 550).tolist(), 40_001, 128, 256, 4]
    values = [rng.normal(size=n).astype("f4") for n in sizes]
    grads = [rng.normal(size=n).astype("f4") for n in sizes]
    tree = [backend.asarray(x) for x in values]
    opt = optim.Adam(tree, 0.1, clip_norm=10.0)
    for _ in range(2):
        opt.step([backend.asarray(g) for g in grads])
    norm = np.linalg.norm(np.concatenate(grads, dtype="f8"))
    np.testing.assert_allclose(to_numpy(opt.norm), norm, rtol=1e-5)
    for found, p, g in zip(tree, values, grads, strict=True):
        state = (np.zeros_like(p), np.zeros_like(p))
        for t in (1, 2):
            p, state = adam(np, p, g * np.float32(10 / norm), state, t=t, **opt.settings())
        np.testing.assert_allclose(to_numpy(found), p, rtol=2e-5, atol=2e-6)


def test_arrays_of_several_dtypes(backend):
    tree = {"a": backend.asarray(np.ones(200, "f4")), "b": backend.asarray(np.ones((2, 3)))}
    opt = optim.SGD(tree, 1.0, momentum=0.5, clip_norm=1.0)
    opt.step({"a": backend.asarray(np.full(200, 3.0, "f4")), "b": backend.asarray(np.full((2, 3), 4.0))})
    norm = math.sqrt(200 * 9 + 6 * 16)
    np.testing.assert_allclose(to_numpy(opt.norm), norm, rtol=1e-6)
    np.testing.assert_allclose(to_numpy(tree["a"]), 1 - 3 / norm, rtol=1e-6)
    np.testing.assert_allclose(to_numpy(tree["b"]), 1 - 4 / norm, rtol=1e-6)
    assert str(tree["a"].dtype).endswith("float32")
    assert str(tree["b"].dtype).endswith("float64")


def test_complex_arrays_are_clipped(backend):
    tree = [backend.asarray(np.ones(3, "complex128"))]
    opt = optim.SGD(tree, 1.0, clip_norm=1.0)
    opt.step([backend.asarray(np.full(3, 3 - 4j))])
    np.testing.assert_allclose(to_numpy(opt.norm), math.sqrt(75), rtol=1e-14)
    np.testing.assert_allclose(to_numpy(tree[0]), 1 - (3 - 4j) / (math.sqrt(75) + 1e-6), rtol=1e-14)


@pytest.mark.parametrize("guard", [{}, EVERYTHING], ids=["plain", "everything"])
@each
def test_what_is_frozen_stays(cls, options, guard, backend):
    tree = start(backend.asarray)
    opt = cls(tree, 0.05, **options, **guard)

    def step(grads):
        scale = 1.0 if opt.scale is None else to_numpy(opt.scale)
        opt.step([None if g is None else backend.asarray(g * scale) for g in grads])

    for grads in gradients(2):
        step(grads)
    frozen, state = to_numpy(tree[2]).copy(), [to_numpy(s).copy() for s in opt._store.slots[2]]
    moving = to_numpy(tree[0]).copy()
    for _ in range(3):
        step([None if k == 2 else np.ones(s) for k, s in enumerate(SHAPES)])
    np.testing.assert_array_equal(to_numpy(tree[2]), frozen)
    for a, b in zip(opt._store.slots[2], state, strict=True):
        np.testing.assert_array_equal(to_numpy(a), b)
    assert (to_numpy(tree[0]) != moving).all()
    if opt.norm is not None:
        np.testing.assert_allclose(to_numpy(opt.norm), math.sqrt(14), rtol=1e-14)


def test_a_shared_array_counts_once_and_stays_shared(backend):
    shared = backend.asarray(np.zeros(4))
    tree = {"a": shared, "b": [shared]}
    opt = optim.SGD(tree, 1.0, clip_norm=math.inf)
    g = backend.asarray(np.ones(4))
    opt.step({"a": g, "b": [g]})
    assert tree["a"] is tree["b"][0]
    np.testing.assert_array_equal(to_numpy(tree["a"]), -1)
    assert to_numpy(opt.norm) == 2


def test_replaced_arrays_are_taken_over(backend):
    tree = start(backend.asarray)
    opt = optim.SGD(tree, 1.0, **EVERYTHING)
    tree[2] = backend.asarray(np.full((2, 129), 7.0))
    opt.step([backend.asarray(np.zeros(s)) for s in SHAPES])
    np.testing.assert_array_equal(to_numpy(tree[2]), 7)
    tree[0] = backend.asarray(np.full((3, 4), 5.0))
    opt.before_launch()
    g = [backend.asarray(np.full(s, 0.01 * FAST.init)) for s in SHAPES]
    opt.step(g)
    np.testing.assert_allclose(to_numpy(tree[0]), 4.99)


def test_gradients_in_any_order_of_memory(backend):
    tree, values = [backend.asarray(np.zeros((4, 6)))], np.arange(24.0).reshape(6, 4)
    opt = optim.SGD(tree, 1.0, clip_norm=math.inf)
    opt.step([backend.xp.permute_dims(backend.asarray(values), (1, 0))])
    np.testing.assert_array_equal(to_numpy(tree[0]), -values.T)
    opt.step([backend.asarray(np.arange(120.0).reshape(5, 4, 6))[1, ...]])
    np.testing.assert_array_equal(to_numpy(tree[0]), -values.T - np.arange(24.0, 48.0).reshape(4, 6))
    np.testing.assert_allclose(to_numpy(opt.norm), np.linalg.norm(np.arange(24.0, 48.0)), rtol=1e-14)


def test_gradients_are_left_alone(backend):
    tree, given = start(backend.asarray), [backend.asarray(g) for g in next(gradients(1))]
    opt = optim.AdamW(tree, 0.1, clip_norm=0.1, loss_scale=4.0)
    opt.step(given)
    assert_close(given, next(gradients(1)), rtol=0, atol=0)


# -- norms and clipping


def test_infinity_only_measures(backend):
    tree, opt = run(optim.SGD, {"clip_norm": math.inf}, 3, backend.asarray)
    assert_close(tree, run(optim.SGD, {}, 3)[0], rtol=1e-15, atol=0)
    *_, last = gradients(3)
    np.testing.assert_allclose(
        to_numpy(opt.norm), np.linalg.norm(np.concatenate([g.ravel() for g in last])), rtol=1e-13
    )


def test_a_zero_gradient_is_not_divided_by_its_norm(backend):
    tree = [backend.asarray(np.ones(3))]
    opt = optim.SGD(tree, 1.0, clip_norm=1e-9)
    opt.step([backend.asarray(np.zeros(3))])
    np.testing.assert_array_equal(to_numpy(tree[0]), 1)
    assert to_numpy(opt.norm) == 0


def test_large_gradients_are_finite_though_their_squares_are_not(backend):
    tree = [backend.asarray(np.ones(3, "f4"))]
    opt = optim.SGD(tree, 1e-30, clip_norm=math.inf, nonfinite="skip")
    opt.step([backend.asarray(np.full(3, 1e30, "f4"))])
    np.testing.assert_allclose(to_numpy(tree[0]), 0, atol=1e-6)
    assert (opt.steps, opt.skipped) == (1, 0)


# -- steps that are not finite


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
@each
def test_a_step_that_is_not_finite_changes_nothing(cls, options, bad, backend):
    tree, opt = run(cls, options | {"nonfinite": "skip"}, 3, backend.asarray)
    before = [to_numpy(x).copy() for x in tree], {k: to_numpy(x).copy() for k, x in opt.state().items()}
    grads = next(gradients(1))
    grads[0][2, 3] = bad
    for _ in range(2):
        opt.step([backend.asarray(g) for g in grads])
    assert_close(tree, before[0], rtol=0, atol=0)
    after = opt.state()
    assert int(to_numpy(after.pop("skipped"))) == opt.skipped == 2
    assert int(to_numpy(after.pop("failed"))) == int(to_numpy(opt.failed)) == 3
    assert opt.steps == 3
    for name, x in after.items():
        np.testing.assert_array_equal(to_numpy(x), before[1][name], err_msg=name)
    opt.step([backend.asarray(g) for g in next(gradients(1))])
    assert opt.steps == 4
    assert all(np.isfinite(to_numpy(x)).all() for x in tree)


def test_without_the_option_it_is_taken(backend):
    tree = [backend.asarray(np.ones(2))]
    opt = optim.SGD(tree, 1.0)
    opt.step([backend.asarray(np.array([np.nan, 1.0]))])
    np.testing.assert_array_equal(to_numpy(tree[0]), [np.nan, 0])
    assert (opt.steps, opt.skipped, opt.norm, opt.scale) == (1, 0, None, None)


# -- loss scale


def test_a_fixed_scale_is_divided_out(backend):
    tree, opt = run(optim.Adam, {"loss_scale": 1024.0}, 5, backend.asarray)
    assert_close(tree, run(optim.Adam, {}, 5)[0], rtol=1e-12, atol=0)
    assert str(opt.scale.dtype).endswith("float32")
    assert to_numpy(opt.scale) == 1024
    assert opt.norm is None


def test_the_scale_backs_off_and_grows(backend):
    rule = LossScale(init=8.0, growth=2.0, backoff=0.5, interval=2)
    opt = optim.SGD([backend.asarray(np.zeros(1))], 1.0, loss_scale=rule)
    scales = []
    for value in [1, np.inf, 1, 1, 1, np.nan, np.inf, 1, 1]:
        opt.step([backend.asarray(np.full(1, value, float))])
        scales.append(float(to_numpy(opt.scale)))
    assert scales == [8, 4, 4, 8, 8, 4, 2, 2, 4]
    assert (opt.steps, opt.skipped) == (6, 3)


def test_the_scale_stays_finite(backend):
    opt = optim.SGD([backend.asarray(np.zeros(1))], 1.0, loss_scale=LossScale(init=2.0**127, interval=1))
    for _ in range(3):
        opt.step([backend.asarray(np.ones(1))])
    assert to_numpy(opt.scale) == np.float32(2.0**127)


def test_the_scale_stays_above_0(backend):
    opt = optim.SGD([backend.asarray(np.zeros(1))], 1.0, loss_scale=LossScale(init=2.0**-125))
    for _ in range(3):
        opt.step([backend.asarray(np.full(1, np.inf))])
    assert to_numpy(opt.scale) == np.float32(2.0**-126)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_fit_scales_the_loss(dtype, backend):
    rng = np.random.default_rng(0)
    data = rng.normal(size=(16, 3)).astype(dtype), rng.normal(size=(16, 2)).astype(dtype)

    def fitted(**options):
        net = map_leaves(backend.asarray, nn.Sequential(nn.Dense(3, 4), nn.tanh, nn.Dense(4, 2), seed=0, dtype=dtype))
        opt = optim.SGD(net, 0.1, **options)
        history = bp.fit(
            *(net, lambda net, x, y: losses.mse(net(x), y), opt, data),
            **{"epochs": 2, "batch_size": 8, "metrics": (), "progress": False, "capture": backend.name == "cupy"},
        )
        return [row["loss"] for row in history], leaves(net)

    history, parameters = fitted(loss_scale=2.0**10)
    expected, plain = fitted()
    np.testing.assert_allclose(history, expected, rtol=1e-6)
    assert_close(parameters, plain, rtol=1e-5, atol=1e-7)


def test_dynamic_is_pytorchs_rule():
    opt = optim.SGD([np.zeros(1)], 1.0, loss_scale="dynamic")
    assert opt._store.guard.loss_scale == LossScale(2.0**16, 2.0, 0.5, 2000)
    assert opt.nonfinite == "skip"


# -- what an optimizer remembers


@pytest.mark.parametrize("guard", [{}, EVERYTHING], ids=["plain", "everything"])
@pytest.mark.parametrize("other", ["numpy", "standin", "array_api_strict"])
@each
def test_a_state_goes_to_another_optimizer(cls, options, guard, other, backend):
    bad = (1, 7) if guard else ()
    expected, whole = run(cls, options | guard, 10, backend.asarray, bad)
    half, first = run(cls, options | guard, 4, backend.asarray, bad)
    other = load("numpy" if other == "standin" and backend.name == "cupy" else other)
    tree = [other.asarray(to_numpy(x)) for x in half]
    opt = cls(tree, 0.05, **options, **guard)
    state = first.state()
    opt.load_state(state)
    for name, x in opt.state().items():
        assert str(x.dtype).rpartition(".")[2] == str(state[name].dtype).rpartition(".")[2]
        np.testing.assert_array_equal(to_numpy(x), to_numpy(state[name]), err_msg=name)
    for grads in list(gradients(10, bad))[4:]:
        scale = 1 if opt.scale is None else to_numpy(opt.scale)
        opt.step([other.asarray(g * scale) for g in grads])
        first.step([backend.asarray(g * scale) for g in grads])  # does not change the state that was given away
    assert_close(tree, expected, **({"rtol": 0, "atol": 0} if other.name == backend.name else {}))  # there to the bit
    assert (opt.steps, opt.skipped) == (whole.steps, whole.skipped)


def test_a_state_is_named_after_the_net():
    net = nn.Sequential(nn.Dense(2, 3), nn.tanh, nn.Dense(3, 1), seed=0)
    counts = ["steps", "skipped", "good", "failed"]
    paths = list(net.parameters())
    assert list(optim.SGD(net, 0.1).state()) == counts
    assert list(optim.SGD(net, 0.1, momentum=0.9).state()) == [*counts, *(f"v {path}" for path in paths)]
    named = [f"{slot} {path}" for path in paths for slot in "mv"]
    assert list(optim.Adam(net, loss_scale=1.0).state()) == [*counts, "scale", *named]


def test_a_state_that_does_not_fit():
    tree = {"a": np.ones(3), "b": np.ones(2)}
    opt = optim.SGD(tree, 1.0, momentum=0.9)
    with pytest.raises(ValueError, match=r"lacks v \['a'\], v \['b'\] and has m \['c'\] that is unknown here"):
        opt.load_state({**optim.SGD(tree, 1.0).state(), "m ['c']": np.ones(1)})
    state = opt.state() | {"v ['b']": np.ones(3), "v ['a']": np.ones(3)}
    with pytest.raises(ValueError, match=r"v \['b'\] has shape \(3,\) in the state, expected \(2,\)"):
        opt.load_state(state)
    assert not opt.state()["v ['a']"].any()


# -- nothing grows, nothing waits


@pytest.mark.parametrize("guard", [{}, EVERYTHING | {"loss_scale": "dynamic"}], ids=["plain", "everything"])
@pytest.mark.parametrize("general", [False, True])
def test_nothing_grows_in_a_thousand_steps(guard, general, backend, monkeypatch):
    if backend.name not in ("numpy", "cupy"):
        pytest.skip("it has the general store, which NumPy stands for here")
    if general:
        general_stores(monkeypatch)
    tree = [backend.asarray(np.zeros(s, "f4")) for s in [(3, 4), (5,)]]
    opt = optim.Adam(tree, 0.1, **guard)

    def held(steps):
        for k in range(steps):
            opt.lr = 0.1 / (1 + k)
            opt.step([backend.asarray(np.full(x.shape, 1e-30, "f4")) for x in tree])
        gc.collect()
        if hasattr(backend.xp, "get_default_memory_pool"):  # a GPU's
            return backend.xp.get_default_memory_pool().used_bytes()
        of_arrays = tracemalloc.DomainFilter(True, np.lib.tracemalloc_domain)
        return sum(trace.size for trace in tracemalloc.take_snapshot().filter_traces([of_arrays]).traces)

    tracemalloc.start()
    try:
        assert held(20) == held(1000 if backend.name == "numpy" else 200)
    finally:
        tracemalloc.stop()


def test_gradients_are_not_kept(backend):
    tree = [backend.asarray(np.zeros(300))]
    opt = optim.Adam(tree, 0.1, **EVERYTHING)
    g = backend.asarray(np.ones(300))
    opt.step([g])
    gone = weakref.ref(g)
    del g
    gc.collect()
    assert gone() is None


def test_a_step_on_cupy_is_two_launches_and_three_with_clipping(backend, monkeypatch):
    if backend.name != "cupy":
        pytest.skip("of CuPy's kernels")
    from gpubp.kernels.cupy.common import Kernel

    launched, call = [], Kernel.__call__
    monkeypatch.setattr(Kernel, "__call__", lambda self, *a, **k: launched.append(self.name) or call(self, *a, **k))
    tree = start(backend.asarray)
    grads = [backend.asarray(g) for g in next(gradients(1))]
    for options, update in (({}, "adam"), ({"clip_norm": 1.0}, "adam"), ({"nonfinite": "skip"}, "adam")):
        opt = optim.Adam(tree, 0.1, **options)
        opt.step(grads)
        launched.clear()
        opt.step(grads)
        expected = ["optimizer_look"] * bool(options) + ["optimizer_prepare", f"optimizer_{update}"]
        assert launched == expected
        opt.lr = 0.2
        launched.clear()
        opt.before_launch()
        opt.before_launch()
        assert launched == ["optimizer_give"]
    starts = [x.data.ptr for x in tree if x.size]
    assert starts == sorted(starts)
    assert starts[-1] - starts[0] == 5 * 128 * 8  # of one buffer, in tiles of 128


def test_an_update_of_ones_own_needs_no_kernel(backend):
    from gpubp.functions.update import update

    @update("n")
    def sign(xp, p, g, state, *, t, lr):
        return p - lr * xp.sign(g), (state[0] + 1,)

    class SignDescent(optim.Optimizer):
        rule = sign

    tree = [backend.asarray(np.zeros(2))]
    opt = SignDescent(tree, 0.5, clip_norm=1.0)
    opt.step([backend.asarray(np.array([-3.0, 4.0]))])
    np.testing.assert_array_equal(to_numpy(tree[0]), [0.5, -0.5])
    np.testing.assert_array_equal(to_numpy(opt.state()["n [0]"]), 1)


# -- captured steps: on CuPy these are graphs


@pytest.mark.parametrize("guard", [{}, EVERYTHING], ids=["plain", "everything"])
@each
def test_a_captured_step_is_the_step(cls, options, guard, backend):
    def run(capture):
        tree = start(backend.asarray)
        opt = cls(tree, 0.05, **options, **guard)

        def step(grads):
            opt.step(grads if opt.scale is None else [g * backend.xp.astype(opt.scale, g.dtype) for g in grads])

        step = bp.capture(step, required=backend.name == "cupy") if capture else step
        for k, grads in enumerate(gradients(14, bad=(2, 8, 9) if guard else ())):
            if k == 7:
                opt.lr = 0.2
            if k == 10:
                tree[2] = backend.asarray(np.full((2, 129), 3.0))
            step([backend.asarray(g) for g in grads])
        return tree, opt, step

    tree, opt, step = run(capture=True)
    expected, usual, _ = run(capture=False)
    rtol = 1e-10 if cls is optim.Muon else 1e-14  # products may round otherwise in a graph
    assert_close(tree, expected, rtol=rtol, atol=0)
    for name, x in usual.state().items():
        np.testing.assert_allclose(to_numpy(opt.state()[name]), to_numpy(x), rtol=rtol, atol=0, err_msg=name)
    assert opt.steps == (11 if guard else 14)
    assert step.launches > 5 or backend.name != "cupy"


# -- errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clip_norm": 0}, "clip_norm must be above 0 or None, got 0"),
        ({"clip_norm": math.nan}, "clip_norm must be above 0 or None, got nan"),
        ({"loss_scale": "auto"}, "loss_scale must be None, a number, \"dynamic\" or a LossScale, got 'auto'"),
        ({"loss_scale": 0.0}, r"a loss scale must be from 2\*\*-126 to below 2\*\*128, as a normal float32, got 0.0"),
        ({"loss_scale": 1e300}, r"a loss scale must be from .*, got 1e\+300"),
        ({"loss_scale": math.inf}, r"a loss scale must be from .*, got inf"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        optim.SGD([np.ones(1)], 0.1, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clip_norm": "1"}, "clip_norm must be a number, got '1'"),
        ({"lr": None}, "lr must be a number, got None"),
        ({"loss_scale": True}, r'loss_scale must be None, a number, "dynamic" or a LossScale, got True'),
        ({"loss_scale": [2]}, r'loss_scale must be None, a number, "dynamic" or a LossScale, got \[2\]'),
    ],
)
def test_options_of_another_type(options, message):
    with pytest.raises(TypeError, match=message):
        optim.SGD([np.ones(1)], **{"lr": 0.1} | options)
    with pytest.raises(TypeError, match="init must be a number, got 'dynamic'"):
        LossScale("dynamic")
    with pytest.raises(TypeError, match=r"arrays by name that state\(\) returned, got list"):
        optim.SGD([np.ones(1)], 0.1).load_state([])
    with pytest.raises(TypeError, match="steps must be an array in the state, got 0"):
        optim.SGD([np.ones(1)], 0.1).load_state({"steps": 0, "skipped": 0, "good": 0, "failed": 0})
    with pytest.raises(TypeError, match="guard has no option clip; it has clip_norm, clip_value, nonfinite"):
        optim.SGD([np.ones(1)], 0.1).guard(clip=1.0)
    with pytest.raises(TypeError, match="interval must be a whole number, got 1.5"):
        LossScale(interval=1.5)


@pytest.mark.parametrize(
    "options", [{"growth": 0.5}, {"growth": math.inf}, {"backoff": 0.0}, {"backoff": 2.0}, {"interval": 0}]
)
def test_a_rule_out_of_range(options):
    with pytest.raises(ValueError, match="growth from 1, backoff from above 0 to 1 and an interval from 1, got"):
        LossScale(**options)
