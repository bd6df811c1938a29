import copy

import numpy as np
import pytest

import gpubp as bp
from gpubp import nn, optim
from gpubp.functions.update import Store
from tests.optim.cases import CASES

SMALL, CHUNK = 16384, 32768  # of NumPy's store
SHAPES = [(3, 4), (4,), (), (SMALL + CHUNK + 5,), (2, SMALL)]
OPTIONS = {
    "sgd": (optim.SGD, {}),
    "momentum": (optim.SGD, {"momentum": 0.9}),
    "nesterov": (optim.SGD, {"momentum": 0.9, "nesterov": True}),
    "sgd, decay": (optim.SGD, {"weight_decay": 0.01}),
    "nesterov, decay": (optim.SGD, {"momentum": 0.8, "nesterov": True, "weight_decay": 0.01}),
    "adam": (optim.Adam, {}),
    "adam, decay": (optim.Adam, {"weight_decay": 0.01, "betas": (0.8, 0.95), "eps": 1e-5}),
    "adamw": (optim.AdamW, {}),
    "adamw, options": (optim.AdamW, {"weight_decay": 0.1, "betas": (0.8, 0.95), "eps": 1e-5}),
}
each = pytest.mark.parametrize(("cls", "options"), CASES.values(), ids=CASES)


def start(asarray=np.array):
    rng = np.random.default_rng(0)
    first, *others = [asarray(rng.normal(size=shape)) for shape in SHAPES]
    return {"first": first, "others": others}


def gradients(steps, asarray=np.array):
    rng = np.random.default_rng(1)
    for _ in range(steps):
        first, *others = [asarray(rng.normal(size=shape)) for shape in SHAPES]
        yield {"first": first, "others": others}


def run(cls, options, steps=50, asarray=np.array):
    tree = start(asarray)
    opt = cls(tree, 0.05, **options)
    for grads in gradients(steps, asarray):
        opt.step(grads)
    return [tree["first"], *tree["others"]]


@pytest.mark.peers
@pytest.mark.parametrize(("cls", "options"), OPTIONS.values(), ids=OPTIONS)
def test_fifty_steps_equal_pytorchs(cls, options):
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
    tensors = [torch.tensor(x, requires_grad=True) for x in [start()["first"], *start()["others"]]]
    peer = getattr(torch.optim, cls.__name__)(tensors, lr=0.05, **options)
    for grads in gradients(50):
        for p, g in zip(tensors, [grads["first"], *grads["others"]], strict=True):
            p.grad = torch.tensor(g)
        peer.step()
    for ours, theirs in zip(run(cls, options), tensors, strict=True):
        np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=0, atol=1e-12)


@each
def test_the_step_in_place_is_the_definition(cls, options, monkeypatch):
    expected = run(cls, options, 5)
    monkeypatch.setattr(Store, "of_library", {})
    for a, b in zip(run(cls, options, 5), expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-13, atol=1e-14)


@each
def test_every_library_takes_the_same_steps(cls, options, backend):
    for a, b in zip(run(cls, options, 3, backend.asarray), run(cls, options, 3), strict=True):
        np.testing.assert_allclose(backend.to_numpy(a), b, rtol=1e-12, atol=1e-13)


def test_one_step_by_hand():
    tree = {"p": np.array([1.0, 2.0])}
    optim.SGD(tree, 0.1).step({"p": np.array([10.0, -10.0])})
    np.testing.assert_allclose(tree["p"], [0.0, 3.0])


def net_and_grads(dtype="float64"):
    net = nn.Sequential(nn.Dense(2, 3), nn.tanh, nn.Dense(3, 1), seed=0, dtype=dtype)
    x = np.ones((4, 2), dtype)
    return net, bp.grad(lambda net: np.sum(net(x)))(net)


def test_a_net_is_stepped_by_the_gradient_of_a_transform():
    net, grads = net_and_grads()
    before = copy.deepcopy(net)
    optim.SGD(net, 0.5).step(grads)
    for new, old, g in zip(*(t.parameters().values() for t in (net, before, grads)), strict=True):
        np.testing.assert_allclose(new, old - 0.5 * g)


def test_gradients_and_the_arrays_given_are_left_alone():
    W, g = np.ones(3), np.ones(3)
    W.flags.writeable = g.flags.writeable = False
    tree = {"W": W}
    opt = optim.Adam(tree, 0.1, weight_decay=0.1)
    opt.step({"W": g})
    opt.step({"W": g})
    np.testing.assert_array_equal(W, 1)
    np.testing.assert_array_equal(g, 1)
    assert (tree["W"] < 1).all()


def test_a_shared_array_is_stepped_once():
    layer = nn.Dense(2, 2)
    net = nn.Sequential(layer, nn.tanh, layer, seed=0, dtype="float64")
    W = net.layers[0].W.copy()
    opt = optim.SGD(net, 1.0)
    grads = bp.grad(lambda net: np.sum(net(np.ones((1, 2)))))(net)
    opt.step(grads)
    np.testing.assert_allclose(net.layers[0].W, W - grads.layers[0].W)
    assert net.layers[0].W is net.layers[2].W


def test_an_array_shared_by_two_layers_stays_shared():
    tree = {"a": np.ones(2)}
    tree["b"] = tree["a"]
    for stores in (None, {}):
        with pytest.MonkeyPatch.context() as patch:
            if stores is not None:
                patch.setattr(Store, "of_library", stores)
            opt = optim.SGD(tree, 1.0)
            opt.step({"a": np.ones(2), "b": np.ones(2)})
            assert tree["a"] is tree["b"]
    np.testing.assert_array_equal(tree["a"], -1)


def test_the_learning_rate_may_change():
    tree = {"p": np.zeros(1)}
    opt = optim.SGD(tree, 1.0)
    opt.step({"p": np.ones(1)})
    opt.lr = 0.25
    opt.step({"p": np.ones(1)})
    np.testing.assert_array_equal(tree["p"], [-1.25])


def test_integers_are_no_parameters():
    tree = {"table": np.arange(3), "p": np.zeros(2)}
    optim.SGD(tree, 1.0).step({"table": None, "p": np.ones(2)})
    np.testing.assert_array_equal(tree["table"], [0, 1, 2])
    np.testing.assert_array_equal(tree["p"], [-1, -1])


def test_numbers_may_be_frozen():
    tree = {"a": np.asarray(1.0), "b": np.asarray(2.0)}
    optim.SGD(tree, 1.0).step({"a": np.asarray(0.5), "b": None})
    assert (tree["a"], tree["b"]) == (0.5, 2.0)


def test_nothing_grows_where_a_parameter_is_frozen():
    tree = {"a": np.ones(3), "b": np.ones(2)}
    opt = optim.Adam(tree, 0.1)
    opt.step({"a": np.full(3, 1e4), "b": np.ones(2)})
    a = tree["a"].copy()
    with np.errstate(all="raise"):
        for _ in range(12):
            opt.step({"a": None, "b": np.ones(2)})
    np.testing.assert_array_equal(tree["a"], a)


def test_any_name_and_key_will_do():
    layer = nn.Layer()
    vars(layer).update({"class": np.ones(1), "two words": {(1, "k"): [np.ones(1)], "it's": np.ones(1)}})
    optim.SGD(layer, 1.0).step(bp.tree.map_leaves(lambda x: 2 * x, layer))
    assert [x.item() for x in layer.parameters().values()] == [-1, -1, -1]


def test_dtypes_stay():
    tree = {"a": np.ones(2, "float32"), "b": np.ones(2, "float64"), "big": np.ones(SMALL + 1, "float32")}
    for cls in (optim.SGD, optim.Adam):
        cls(tree, 0.1).step(dict(tree))
        assert [x.dtype for x in tree.values()] == ["float32", "float64", "float32"]


# -- arrays replaced from outside


@pytest.mark.parametrize("in_place", [True, False])
def test_a_replaced_array_is_noticed(in_place, monkeypatch):
    if not in_place:
        monkeypatch.setattr(Store, "of_library", {})
    net, grads = net_and_grads()
    opt = optim.SGD(net, 1.0, momentum=0.9)
    net.layers[0].W = np.zeros((2, 3))
    opt.step(grads)
    np.testing.assert_allclose(net.layers[0].W, -grads.layers[0].W)
    net.layers = (*net.layers[:2], nn.Dense(3, 1, W_init=nn.constant(7.0), seed=0, dtype="float64"))
    opt.step(grads)
    np.testing.assert_allclose(net.layers[2].W, 7 - 1.9 * grads.layers[2].W)


def test_changes_in_place_are_kept():
    net, grads = net_and_grads()
    opt = optim.SGD(net, 1.0)
    net.layers[0].W[...] = 5
    opt.step(grads)
    np.testing.assert_allclose(net.layers[0].W, 5 - grads.layers[0].W)


def test_a_replacement_of_another_shape_is_refused():
    net, grads = net_and_grads()
    opt = optim.SGD(net, 1.0)
    net.layers[0].W = np.zeros((3, 3))
    with pytest.raises(ValueError, match=r"layers\[0\].W was replaced by an array of shape \(3, 3\).*shape \(2, 3\)"):
        opt.step(grads)


# -- errors


def test_a_gradient_of_another_structure():
    net, grads = net_and_grads()
    opt = optim.SGD(net, 1.0)
    with pytest.raises(TypeError, match=r"another structure.*no array at layers\[0\].W.*a dict with \['W'\]"):
        opt.step({"W": np.ones(2)})
    del grads.layers[0].b
    with pytest.raises(TypeError, match=r"no array at layers\[0\].b"):
        opt.step(grads)
    with pytest.raises(TypeError, match=r"a Sequential, holds no array, .*layers\[0\].W.* is every parameter frozen\?"):
        opt.step(bp.tree.map_leaves(lambda _: None, net))
    _, grads = net_and_grads()
    grads.layers[2].b = np.ones((1, 1))
    with pytest.raises(ValueError, match=r"the gradient of layers\[2\].b has shape \(1, 1\), expected \(1,\)"):
        opt.step(grads)
    assert opt.steps == 0


def test_what_cannot_be_stepped():
    with pytest.raises(TypeError, match="not an array itself"):
        optim.SGD(np.ones(3), 0.1)
    with pytest.raises(TypeError, match="no floating-point array in this dict"):
        optim.SGD({"n": np.arange(3)}, 0.1)
    with pytest.raises(TypeError, match=r"\['a'\]\[0\] stands in a tuple"):
        optim.SGD({"a": (np.ones(3),)}, 0.1)
    strict = pytest.importorskip("array_api_strict")
    with pytest.raises(TypeError, match="one library, got array_api_strict, numpy"):
        optim.SGD([np.ones(3), strict.ones(3)], 0.1)


def test_settings_out_of_range():
    tree = [np.ones(3)]
    with pytest.raises(ValueError, match="lr must be finite and not negative, got -1"):
        optim.SGD(tree, -1)
    with pytest.raises(ValueError, match="needs a momentum above 0"):
        optim.SGD(tree, 0.1, nesterov=True)
    with pytest.raises(ValueError, match="betas must be from 0 to below 1"):
        optim.Adam(tree, betas=(0.9, 1.0))
    with pytest.raises(ValueError, match="lr must be finite and not negative, got nan"):
        optim.Adam(tree, float("nan"))


@pytest.mark.parametrize("change", [{"lr": -1.0}, {"lr": np.inf}, {"weight_decay": -1.0}, {"lr_factor": -1.0}])
def test_an_attribute_out_of_range_is_refused_at_the_next_step(change):
    tree = {"a": np.ones(3)}
    opt = optim.Adam(tree, 0.1)
    ((name, value),) = change.items()
    setattr(opt, name, value)
    with pytest.raises(ValueError, match=f"{name} must be finite and not negative, got {value}"):
        opt.step({"a": np.ones(3)})
    np.testing.assert_array_equal(tree["a"], 1.0)


@pytest.mark.parametrize(("cls", "change"), [(optim.SGD, {"momentum": 0.9}), (optim.Adam, {"amsgrad": True})])
def test_an_attribute_that_needs_other_state_is_refused(cls, change):
    opt = cls({"a": np.ones(3)}, 0.1)
    vars(opt).update(change)
    with pytest.raises(ValueError, match=f"{cls.__name__} was made to remember .*: make a new one"):
        opt.step({"a": np.ones(3)})


def test_attributes_may_change_between_steps():
    tree, grads = {"a": np.zeros(1)}, {"a": np.ones(1)}
    opt = optim.SGD(tree, 1.0)
    opt.step(grads)
    opt.lr = 0.5
    opt.step(grads)
    opt.maximize = True
    opt.step(grads)
    opt.lr = lambda step: 100.0 * step
    opt.lr_factor = 0.1
    opt.step(grads)
    assert tree["a"] == -1 - 0.5 + 0.5 + 30


@pytest.mark.parametrize(
    "cls", [optim.SGD, optim.Adagrad, optim.RMSprop, optim.Adam, optim.AdamW, optim.Lion, optim.Muon]
)
@pytest.mark.parametrize("library", ["numpy", "array_api_strict"])
def test_settings_may_be_numbers_of_numpys(cls, library):
    xp = pytest.importorskip(library)
    settings = cls([np.ones(1)], 0.1).settings()
    options = {name: np.float64(x) for name, x in settings.items() if type(x) is float}
    if "betas" in settings:
        options["betas"] = list(map(np.float64, settings["betas"]))
    guarding = {"clip_norm": np.float64(0.5), "loss_scale": optim.LossScale(*map(np.float64, (4, 2, 0.5)), np.int64(2))}
    plain, own = ([xp.ones((2, 3), dtype=xp.float32), xp.ones(2, dtype=xp.float32)] for _ in range(2))
    grads = [xp.full((2, 3), 0.1, dtype=xp.float32), xp.full(2, 0.2, dtype=xp.float32)]
    usual = cls(plain, 0.1, clip_norm=0.5, loss_scale=optim.LossScale(4.0, 2.0, 0.5, 2))
    opt = cls(own, **options, **guarding)
    for _ in range(3):
        usual.step(grads)
        opt.step(grads)
    assert [x.dtype for x in own] == [xp.float32] * 2
    for x, y in zip([*own, *opt.state().values()], [*plain, *usual.state().values()], strict=True):
        assert x.dtype == y.dtype
        assert bool(xp.all(x == y))


@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (2, 3, 4), (0, 2), ()])
@pytest.mark.parametrize("dtype", ["float64", "float16"])
def test_muon_on_numpy_steps_in_place_and_skips_without_a_warning(shape, dtype):
    rng = np.random.default_rng(0)
    tree = {"a": rng.normal(size=shape).astype(dtype), "b": np.ones((2, 2), dtype)}
    general = {"a": tree["a"].copy(), "b": tree["b"].copy()}
    opt = optim.Muon(tree, 0.1, clip_norm=1.0, nonfinite="skip")
    plain = optim.Muon(general, 0.1, clip_norm=1.0, nonfinite="skip")
    plain._store = Store(plain.rule, list(general.values()), plain._groups, plain._settings(), plain._store.guard)
    a = tree["a"]
    for k in range(4):
        grads = {name: rng.normal(size=x.shape).astype(dtype).reshape(x.shape) for name, x in tree.items()}
        if k != 2:
            plain.step(grads)
        else:
            grads["b"] = np.full((2, 2), np.inf, dtype)
        opt.step(grads)
    assert tree["a"] is a
    assert type(a) is np.ndarray
    assert (opt.steps, opt.skipped) == (3, 1)
    for name, x in tree.items():
        np.testing.assert_allclose(x, general[name], rtol=1e-12 if dtype == "float64" else 2e-3)
