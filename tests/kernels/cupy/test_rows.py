"""Softmax, losses, activations and dropout: that the kernels run, and what they do with extreme numbers and layouts."""

import cupy
import numpy as np
import pytest

import gpubp as bp
from gpubp import losses
from gpubp.device import raw_namespace
from gpubp.functions.dropout import dropout
from gpubp.fused import FUSED, load_kernels
from gpubp.kernels.cupy import common, rows, totals
from gpubp.testing.catalogue import CATALOGUE

INF, NAN = np.inf, np.nan
RNG = np.random.default_rng(0)
NAMES = str.split(
    "binary_cross_entropy cosine_embedding dropout elu gelu half_squared_error hinge huber kl_divergence leaky_relu "
    "log_softmax logsumexp mae mean_half_squared_error mse multiclass_hinge prelu relu selu sigmoid silu softmax "
    "softmax_cross_entropy softplus softsign"
)
load_kernels("cupy")


def on(x):
    return cupy.asarray(np.asarray(x))


def sample_on(sample, dtype):
    def visit(x):
        if not isinstance(x, np.ndarray):
            return x
        return on(x.astype(dtype) if x.dtype == np.float64 else x)

    return [visit(x) for x in sample.args], {k: visit(v) for k, v in sample.kwargs.items()}


def both(name, *arrays, seed=None, **options):
    """Value and cotangent of the first argument, by the kernels and by the reference in NumPy's float64."""
    found = []
    for make, f in ((on, FUSED[name]), (lambda x: np.asarray(x, "f8" if x.dtype.kind == "f" else None), None)):
        given = [make(x) for x in arrays]
        function = f or FUSED[name].reference
        with np.errstate(all="ignore"):
            out, pull = bp.vjp(lambda x, g=given, h=function: h(x, *g[1:], **options), given[0])
            found.append((out, *pull(make(np.ones(out.shape, arrays[0].dtype) if seed is None else seed))))
    return [(a.get(), b) for a, b in zip(*found, strict=True)]


def same(name, *arrays, **options):
    for found, expected in both(name, *arrays, **options):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_a_kernel_takes_samples_of_the_catalogue(name):
    override, taken = FUSED[name].overrides["cupy"], 0
    for sample in CATALOGUE[name].samples(np.random.default_rng(0)):
        args, options = sample_on(sample, "float32")
        needs = (True,) + (False,) * (len(args) - 1)
        taken += override.forward(raw_namespace(args[0]), needs, *args, **options) is not NotImplemented
    assert taken >= 3


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", ["int32", "complex64"])
def test_a_kernel_declines_other_dtypes(name, dtype):
    x = cupy.ones((3, 4), dtype=dtype)
    others = {"prelu": [x[0]], "dropout": [0]}.get(name, [x] if "loss" in FUSED[name].reference.__module__ else [])
    if "cross_entropy" in FUSED[name].reference.__module__:
        others = [x]
    options = {"rate": 0.5, "key": (0, 0)} if name == "dropout" else {}
    found = FUSED[name].overrides["cupy"].forward(raw_namespace(x), (False,) * 2, x, *others, **options)
    assert found is NotImplemented


# -- extreme numbers

ROWS = np.asarray(
    [
        [0.0, -INF, 2.0, 3.0],
        [-INF, -INF, -INF, 1.0],
        [-INF, -INF, -INF, -INF],
        [INF, 1.0, 2.0, 3.0],
        [INF, -INF, INF, 0.0],
        [NAN, 1.0, 2.0, INF],
        [1e38, -1e38, 0.0, 1e38],
        [-3e38, -3e38, -3e38, -3.1e38],
        [1e-45, 0.0, -1e-45, 1e-38],
    ],
    "f4",
)


@pytest.mark.parametrize("n", [4, 8, 36, 1100])
@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp"])
def test_extreme_rows(name, n):
    wide = np.concatenate([ROWS, np.full((len(ROWS), n - 4), -INF, "f4")], axis=1)
    same(name, wide, axis=-1)
    same(name, np.ascontiguousarray(wide.T), axis=0)


@pytest.mark.parametrize("n", [4, 36])
def test_extreme_logits(n):
    wide = np.concatenate([ROWS, np.full((len(ROWS), n - 4), -INF, "f4")], axis=1)
    labels = np.asarray([0, 3, 2, 0, 1, 1, 1, 3, 0])
    for options in ({}, {"label_smoothing": 0.1}, {"ignore_index": 1}):
        same("softmax_cross_entropy", wide, labels, reduction="none", **options)
    even = np.full(wide.shape, 1 / n, "f4")
    some = np.where(np.arange(n) == 3, 1.0, 0.0).astype("f4") * np.ones_like(wide)
    for targets in (even, some):
        same("softmax_cross_entropy", wide, targets, reduction="none")
        same("kl_divergence", wide, targets, reduction="none")


SPECIAL = np.asarray([-INF, -1e38, -1e4, -100, -90, -20, -1, -0.0, 0.0, 1, 20, 90, 1e4, 1e38, INF, NAN], "f4")


@pytest.mark.parametrize("name", str.split("sigmoid relu leaky_relu elu selu silu softplus softsign gelu"))
def test_special_numbers_of_activations(name):
    found, expected = both(name, SPECIAL)[0]
    np.testing.assert_allclose(found, expected.astype("f4"), rtol=1e-5, atol=1e-30)
    (_, _), (found, expected) = both(name, SPECIAL[1:-2])
    np.testing.assert_allclose(found, expected.astype("f4"), rtol=1e-5, atol=1e-6)


def test_an_infinite_cotangent_stops_at_a_dead_unit():
    x = np.asarray([-1.0, 0.0, 1.0], "f4")
    (_, (dx, _)) = both("relu", x, seed=np.full(3, INF, "f4"))
    np.testing.assert_array_equal(dx, [0, 0, INF])


@pytest.mark.parametrize("name", ["mse", "mae", "huber", "hinge", "binary_cross_entropy"])
def test_special_numbers_of_losses(name):
    y = np.asarray([0.0, INF, -INF, NAN, 1e30, -1e30, 1.0, 3.0], "f4")
    t = np.asarray([0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0], "f4")
    for found, expected in both(name, y, t, reduction="none"):
        with np.errstate(over="ignore"):
            expected = expected.astype("f4")
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_label_that_is_no_class_gives_not_a_number_and_reads_nothing_beyond():
    z, labels = on(RNG.normal(size=(4, 5)).astype("f4")), on(np.asarray([0, 5, -1, 4]))
    found = losses.softmax_cross_entropy(z, labels, reduction="none").get()
    np.testing.assert_array_equal(np.isnan(found), [False, True, True, False])
    dz = bp.grad(lambda z: losses.softmax_cross_entropy(z, labels, reduction="sum"))(z).get()
    np.testing.assert_array_equal(np.isnan(dz).all(axis=1), [False, True, True, False])
    found = losses.multiclass_hinge(z, labels, reduction="none").get()
    np.testing.assert_array_equal(np.isnan(found), [False, True, True, False])


def test_multiclass_hinge_takes_the_first_of_equal_classes():
    z = np.zeros((2, 70), "f4")
    z[0, [7, 68]] = z[1, [3, 40]] = 1
    same("multiclass_hinge", z, np.asarray([7, 0]), reduction="none")


def test_a_vector_of_zeros_has_a_direction():
    y = np.zeros((2, 5), "f4")
    same("cosine_embedding", y, np.ones_like(y), reduction="none")


def test_a_batch_of_ignored_labels_costs_nothing():
    z, labels = on(np.ones((3, 4), "f4")), on(np.full(3, -100))
    value, dz = bp.value_and_grad(lambda z: losses.softmax_cross_entropy(z, labels, ignore_index=-100))(z)
    assert value.get() == 0
    assert not dz.get().any()


# -- layouts


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp", "relu", "gelu"])
def test_arrays_that_are_not_aligned_or_contiguous(name):
    x = RNG.normal(size=(6, 8)).astype("f4")
    flat = on(np.concatenate([[0], x.reshape(-1)]).astype("f4"))[1:].reshape(6, 8)  # 4 bytes off
    assert flat.data.ptr % 16
    options = {"axis": -1} if "soft" in name or "log" in name else {}
    g = RNG.normal(size=FUSED[name].reference(x, **options).shape).astype("f4")
    expected = [e for _, e in both(name, x, seed=g, **options)]
    for given in (flat, on(x.T).T, on(np.repeat(x, 2, axis=0))[::2]):
        out, pull = bp.vjp(lambda x: FUSED[name](x, **options), given)
        for cotangent in (on(g), on(g.T).T):
            for found, e in zip((out, *pull(cotangent)), expected, strict=True):
                np.testing.assert_allclose(found.get(), e, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["mse", "softmax_cross_entropy", "cosine_embedding", "binary_cross_entropy"])
def test_losses_of_arrays_that_are_not_contiguous(name):
    y, t = RNG.normal(size=(6, 8)).astype("f4"), RNG.uniform(0.1, 1, size=(6, 8)).astype("f4")
    expected = both(name, y, t)[1][1]
    for spread in (lambda x: on(x.T).T, lambda x: on(np.repeat(x, 2, axis=1))[:, ::2]):
        found = bp.grad(lambda y, s=spread: FUSED[name](y, s(t)))(spread(y))
        np.testing.assert_allclose(found.get(), expected, rtol=1e-5, atol=1e-6)


# -- sums


@pytest.mark.parametrize("n", [1, 33, totals.ALONE, totals.ALONE + 1, 100_003])
def test_a_sum_of_many_is_exact_enough_and_repeats_to_the_bit(n):
    y, t = RNG.uniform(size=(2, n)).astype("f4")
    once, twice = (losses.mse(on(y), on(t), reduction="sum").get() for _ in range(2))
    np.testing.assert_allclose(once, np.sum((y.astype("f8") - t) ** 2), rtol=1e-6)
    assert once == twice
    assert (totals.launch(n)[0] == 1) == (n <= totals.ALONE)


@pytest.mark.parametrize(("dtype", "n"), [("float32", 768), ("float64", 384), ("float64", 768), ("float32", 12288)])
def test_rows_that_would_fill_the_shared_memory_of_a_block_to_the_last_byte(dtype, n):
    same("softmax", RNG.normal(size=(9, n)).astype(dtype))


def test_rows_are_shared_out_to_threads():
    for shape in [(1, 1), (128, 10), (1, 50257), (4096, 128), (3, 1025), (65536, 3), (7, 12288), (2, 24576)]:
        for itemsize in (2, 4, 8):
            for inner in (1, 64):
                for sums in (False, True):
                    grid, threads, team, room, shared = rows._plan(*shape, inner, itemsize, 2, sums)
                    assert 0 < threads <= rows.THREADS
                    assert threads % 32 == 0
                    assert team == threads or (team <= 32 and team & (team - 1) == 0)
                    assert sums or grid * (threads // team) >= shape[0]
                    assert shared <= rows.SHARED
                    assert shared == threads // team * room * shape[1] * itemsize


def test_a_few_rows_have_their_loss_summed_by_the_kernel_itself(monkeypatch):
    launched = []
    call = common.Kernel.__call__
    monkeypatch.setattr(common.Kernel, "__call__", lambda k, *a, **o: (launched.append(k.name), call(k, *a, **o))[1])
    for n, expected in ((128, ["cross_entropy"]), (2000, ["cross_entropy", "finish"])):
        z, labels = on(RNG.normal(size=(n, 10)).astype("f4")), on(RNG.integers(0, 10, size=n))
        launched.clear()
        bp.grad(lambda z, t=labels: losses.softmax_cross_entropy(z, t))(z)
        assert launched == [*expected, "cross_entropy_backward"]


# -- dropout


@pytest.mark.parametrize("shape", [(), (1,), (7,), (8,), (5, 7), (3, 1025)])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_dropout_is_numpys_and_its_mask_is_drawn_again(shape, dtype):
    x = (1 + RNG.uniform(size=shape)).astype(dtype)
    options = {"rate": 0.3, "key": (2**64 - 1, 2**63)}
    for step in (3, np.asarray(2**40), on(np.asarray(5)), on(np.asarray(5, "int32"))):
        on_host = step.get() if hasattr(step, "get") else step
        expected = dropout(x.astype("f8"), int(on_host), **options)
        out, pull = bp.vjp(lambda x, s=step: dropout(x, s, **options), on(x))
        np.testing.assert_allclose(out.get(), expected, rtol=1e-3 if dtype == "float16" else 1e-6)
        np.testing.assert_array_equal(pull(on(np.ones(shape, dtype)))[0].get() == 0, expected == 0)


def test_dropout_keeps_no_mask():
    x = on(np.ones((4, 5), "f4"))
    _, residuals = FUSED["dropout"].overrides["cupy"].forward(cupy, (True, False), x, 3, rate=0.5, key=(1, 2))
    assert not any(isinstance(r, cupy.ndarray) for r in residuals)


@pytest.mark.parametrize("rate", [0.0, 1 - 2**-40])
def test_dropout_of_nothing_and_of_all_but_everything(rate):
    x = on(np.ones(100, "f4"))
    kept = (dropout(x, 0, rate=rate, key=(1, 2)) != 0).get()
    assert kept.all() if not rate else not kept.any()


def test_dropout_of_an_array_that_is_not_aligned():
    x = on(np.ones(65, "f4"))
    found = dropout(x[1:], 3, rate=0.5, key=(1, 2)).get()
    np.testing.assert_array_equal(found, dropout(np.ones(64, "f4"), 3, rate=0.5, key=(1, 2)))


def test_an_embedding_adds_up_a_row_that_is_named_in_two_ways():
    """Two blocks that add to one row at a time would lose one of the sums."""
    dy = RNG.normal(size=(3, 5)).astype("f4")
    table, indices = on(np.ones((4, 5), "f4")), on(np.asarray([3, -1, 7]))
    (found,) = bp.vjp(lambda table: FUSED["embedding"](indices, table), table)[1](on(dy))
    np.testing.assert_allclose(found.get(), np.concatenate([np.zeros((3, 5)), dy.sum(axis=0)[None]]), rtol=1e-6)
