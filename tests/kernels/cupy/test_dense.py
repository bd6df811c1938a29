import sys

import cupy
import numpy as np
import pytest

import gpubp as bp
from gpubp.functions.dense import dense
from gpubp.kernels.cupy import bindings, lt
from tests.kernels.agreement import TOLERANCE, dtype_of

fake = sys.modules.get("tests.fake_cublas")
on_host = pytest.mark.skipif(fake is None, reason="looks into the stand-in's cuBLAS")

ACTIVATIONS = ["identity", "sigmoid", "tanh", "relu", "leaky_relu", "elu", "selu"]


@pytest.fixture(params=["own", pytest.param("nvmath", marks=on_host)])
def way(request):
    """Without nvmath-python, and with it."""
    if request.param == "nvmath":
        request.getfixturevalue("nvmath")
    return request.param


def arrays(shape, n, name, seed=0):
    rng = np.random.default_rng([seed, *shape, n])
    shapes = shape, (shape[-1], n), (n,), (*shape[:-1], n)
    return [rng.normal(size=s).astype(dtype_of(name)) for s in shapes]


def gradients(x, W, b, g, **static):
    """The value of dense and its cotangents."""
    if b is None:
        y, pull = bp.vjp(lambda x, W: dense(x, W, **static), x, W)
    else:
        y, pull = bp.vjp(lambda x, W, b: dense(x, W, b, **static), x, W, b)
    return [y, *pull(g)]


def compare(found, wanted, name):
    for f, w in zip(found, wanted, strict=True):
        f = f.get()
        assert (f.dtype, f.shape) == (dtype_of(name), w.shape)
        scale = np.abs(w).max(initial=1)
        np.testing.assert_allclose(f.astype("f8") / scale, w / scale, rtol=0, atol=TOLERANCE[name])


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("bias", [True, False])
def test_agrees_with_float64(way, activation, bias, name):
    for shape, n in (((70, 33), 35), ((2, 3, 5), 8), ((1, 1), 1), ((5,), 3), ((600, 4), 3), ((270, 3), 264)):
        x, W, b, g = arrays(shape, n, name)
        if activation in ("relu", "leaky_relu", "selu"):  # a rounding near the kink would give another derivative
            sign = np.where(np.arange(n) % 2, 1, -1).astype(W.dtype)
            x, W, b = np.abs(x), np.abs(W) * sign, (np.abs(b) + b.dtype.type(1)) * sign
        on = [cupy.asarray(a) for a in (x, W, b, g)]
        exact = [a.astype("f8") for a in (x, W, b, g)]
        if not bias:
            on[2] = exact[2] = None
        compare(gradients(*on, activation=activation), gradients(*exact, activation=activation), name)


@on_host
def test_the_override_takes_part(way):
    x, W, b, g = (cupy.asarray(a) for a in arrays((6, 5), 4, "float32"))
    for activation, ours in (
        ("identity", ["lt 4", "gemmEx", "lt 256"]),
        ("relu", ["lt 6", "gemmEx", "gemmEx"]),
        ("tanh", ["gemmEx", "gemmEx", "gemmEx"]),
    ):
        fake.calls.clear()
        gradients(x, W, b, g, activation=activation)
        assert [name for name, _ in fake.calls] == (ours if way == "nvmath" else ["gemmEx"] * 3)
    fake.calls.clear()
    gradients(x, W, None, g, activation="relu")
    assert fake.calls[0][0] == ("lt 2" if way == "nvmath" else "gemmEx")


@on_host
def test_views_are_not_copied(way):
    x, W, b, g = arrays((6, 5), 4, "float32")
    wanted = gradients(*(a.astype("f8") for a in (x, W, b, g)), activation="relu")
    by_columns = cupy.asarray(np.ascontiguousarray(x.T)).T, cupy.asarray(np.ascontiguousarray(W.T)).T
    fake.calls.clear()
    compare(gradients(*by_columns, cupy.asarray(b), cupy.asarray(g), activation="relu"), wanted, "float32")
    (_, first), *_ = fake.calls
    assert {by_columns[0].data.ptr, by_columns[1].data.ptr} <= set(first)
    compare(gradients(*by_columns, cupy.asarray(b), cupy.asarray(g[:, ::-1].copy())[:, ::-1], activation="relu"),
            wanted, "float32")  # fmt: skip


@pytest.mark.parametrize("name", ["float16", "float32", "float64"])
def test_arrays_that_are_not_aligned(way, name):
    x, W, b, g = arrays((20, 3), 16, name)
    wanted = gradients(*(a.astype("f8") for a in (x, W, b, g)), activation="tanh")
    on = [cupy.asarray(np.concatenate([a.reshape(-1)[:1], a.reshape(-1)]))[1:].reshape(a.shape) for a in (x, W, b, g)]
    assert all(a.data.ptr % 16 for a in on)
    compare(gradients(*on, activation="tanh"), wanted, name)


@pytest.mark.parametrize("shape", [(0, 3), (2, 0), (0, 0), (2, 0, 3)])
def test_empty(way, shape):
    x, W, b, g = arrays(shape, 2, "float32")
    for bias in (b, None):
        on = [None if a is None else cupy.asarray(a) for a in (x, W, bias, g)]
        exact = [None if a is None else a.astype("f8") for a in (x, W, bias, g)]
        compare(gradients(*on, activation="relu"), gradients(*exact, activation="relu"), "float32")


def test_infinities_and_nan(way):
    x = np.asarray([[np.inf, 1], [-np.inf, 1], [np.nan, 1], [3e38, 3e38]], "float32")
    W, b = np.asarray([[1.0, 2.0], [1.0, 1.0]], "float32"), np.asarray([0.0, 1.0], "float32")
    for activation in ("identity", "relu"):
        with np.errstate(all="ignore"):
            wanted = dense(x, W, b, activation=activation)
        np.testing.assert_array_equal(dense(*map(cupy.asarray, (x, W, b)), activation=activation).get(), wanted)


def test_errors_are_those_of_the_function():
    x, W, b = (cupy.zeros(shape, dtype="float32") for shape in ((2, 3), (3, 4), (4,)))
    with pytest.raises(ValueError, match=r"dense expects b of shape \(4,\)"):
        dense(x, W, b[:2])
    with pytest.raises(ValueError, match=r"dense expects x of shape \(..., n_in\)"):
        dense(x, W[:2], b)
    with pytest.raises(ValueError, match="dense expects an activation among"):
        dense(x, W, b, activation="gelu")
    with pytest.raises(TypeError, match="dense"):
        dense(x, W.astype("float64"), b)


@pytest.mark.filterwarnings("ignore:matrix products use")
def test_captured_step_agrees(way):
    def step(x, W, b):
        return bp.value_and_grad(lambda W: bp.array_namespace(W).sum(dense(x, W, b, activation="relu") ** 2))(W)

    x, W, b, _ = (cupy.asarray(a) for a in arrays((6, 5), 4, "float32"))
    captured = bp.capture(step, required=True)
    for seed in range(6):
        _, W, _, _ = (cupy.asarray(a) for a in arrays((6, 5), 4, "float32", seed))
        for found, wanted in zip(captured(x, W, b), step(x, W, b), strict=True):
            np.testing.assert_allclose(found.get(), wanted.get(), rtol=1e-5, atol=1e-5)
    assert captured.reason is None


# -- plans of cuBLASLt


@on_host
def test_plans_are_kept_and_bounded(nvmath, monkeypatch):
    cublaslt = nvmath[1]
    monkeypatch.setattr(lt, "PLANS", 3)
    monkeypatch.setattr(lt, "_alignment", lambda address: 4)  # on the host it is as it happens

    def call(rows):
        x, W, b, _ = arrays((rows, 5), 4, "float32")
        found = dense(cupy.asarray(x), cupy.asarray(W), cupy.asarray(b))
        compare([found], [dense(*(a.astype("f8") for a in (x, W, b)))], "float32")

    def alive(kind):
        return sum(thing["kind"] == kind for thing in cublaslt.alive.values())

    for rows in (2, 3, 2, 3):
        call(rows)
    assert len(cublaslt.asked) == 2
    assert (alive("product"), alive("layout"), alive("preference")) == (2, 6, 0)
    for rows in (4, 2, 5):  # of 2, 3, 4 the one of 3 rows was not used for longest
        call(rows)
    assert len(cublaslt.asked) == 4
    assert (alive("product"), alive("layout"), alive("preference")) == (3, 9, 0)
    call(2)
    assert len(cublaslt.asked) == 4
    call(3)
    assert len(cublaslt.asked) == 5


@on_host
def test_plans_differ_by_alignment_and_precision(nvmath):
    cublaslt = nvmath[1]
    x, W, b, _ = arrays((4, 5), 4, "float32")
    wanted = [dense(*(a.astype("f8") for a in (x, W, b)))]
    flat = cupy.zeros(64, dtype="float32")
    for start in (0, 1, 2, 1):
        moved = flat[start : start + 4]
        moved[...] = cupy.asarray(b)
        compare([dense(cupy.asarray(x), cupy.asarray(W), moved)], wanted, "float32")
    aligned = {form[-1] for form in cublaslt.asked}
    assert {4, 8} <= aligned
    with bp.matmul_precision("tf32"):
        dense(cupy.asarray(x), cupy.asarray(W), cupy.asarray(b))
    assert {form[0] for form in cublaslt.asked} == {68, 77}


@on_host
def test_what_cublaslt_refuses_goes_the_other_way(nvmath, monkeypatch):
    monkeypatch.setattr(lt, "_alignment", lambda address: 4)
    cublaslt = nvmath[1]
    cublaslt.refused |= {4, 256}
    x, W, b, g = arrays((6, 5), 4, "float32")
    for _ in range(2):
        fake.calls.clear()
        compare(
            gradients(*map(cupy.asarray, (x, W, b, g))), gradients(*(a.astype("f8") for a in (x, W, b, g))), "float32"
        )
        assert [name for name, _ in fake.calls] == ["gemmEx"] * 3
    assert all(thing["kind"] == "handle" for thing in cublaslt.alive.values())  # nothing was left behind
    assert len(bindings.of_thread.plans) == 2  # that there is none is known
