import itertools
import sys
import warnings
from types import ModuleType

import cupy
import numpy as np
import pytest

import gpubp as bp
from gpubp.device import namespace_by_name
from gpubp.kernels.cupy import product as module
from gpubp.kernels.cupy.product import product, repeated
from gpubp.kernels.cupy.sums import column_sums

fake = sys.modules.get("tests.fake_cublas")
on_host = pytest.mark.skipif(fake is None, reason="looks into the stand-in's cuBLAS")

TOLERANCE = {"float64": 1e-13, "float32": 1e-6, "float16": 1e-3, "bfloat16": 8e-3}
SHAPES = [
    ((3, 5), (5, 4)),
    ((1, 5), (5, 1)),
    ((1, 1), (1, 1)),
    ((5, 1), (1, 6)),
    ((70, 33), (33, 65)),
    ((3, 0), (0, 4)),
    ((0, 3), (3, 4)),
    ((2, 3, 5), (5, 4)),
    ((2, 0, 5), (5, 4)),
    ((2, 3, 5), (2, 5, 4)),
    ((3, 5), (2, 5, 4)),
    ((2, 1, 3, 5), (4, 5, 2)),
    ((2, 3, 2, 5), (2, 3, 5, 4)),
    ((1, 2, 5), (3, 5, 2)),
    ((2, 2, 1), (2, 1, 2)),
    ((2, 1100), (1100, 3)),
    ((3, 2, 520), (3, 520, 2)),
]


def dtype_of(name):
    return np.dtype(pytest.importorskip("ml_dtypes").bfloat16 if name == "bfloat16" else name)


def random(shape, name, seed=0):
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(dtype_of(name))


def laid_out(x, how):
    """The values of x in a CuPy array: by rows, by columns, as a slice of longer rows, or of every other column."""
    if how == "rows":
        return cupy.asarray(x)
    if how == "columns":
        return cupy.asarray(np.ascontiguousarray(np.swapaxes(x, -1, -2))).swapaxes(-1, -2)
    wide = cupy.asarray(np.full((*x.shape[:-1], 2 * x.shape[-1] + 1), np.nan, x.dtype))
    view = wide[..., 1 : x.shape[-1] + 1] if how == "slice" else wide[..., 1::2]
    view[...] = cupy.asarray(x)
    return view


def agree(found, wanted, name, k):
    scale = 1 + np.abs(wanted).max(initial=0)
    np.testing.assert_allclose(
        found.get().astype("f8"), wanted, rtol=0, atol=TOLERANCE[name] * scale * (1 + k**0.5) / 2
    )


@pytest.fixture(params=["cublas", "own"])
def way(request, monkeypatch):
    """cuBLAS, and the kernel that stands in for it."""
    if request.param == "own":
        monkeypatch.setattr(module, "cublas", None)
        monkeypatch.setattr(module, "bindings", lambda library: None)
        monkeypatch.setattr(module, "_said", True)
    return request.param


@pytest.mark.parametrize("name", TOLERANCE)
@pytest.mark.parametrize(("left", "right"), SHAPES)
def test_product(way, left, right, name):
    a, b = random(left, name), random(right, name, 1)
    wanted = np.matmul(a.astype("f8"), b.astype("f8"))
    own = random(wanted.shape, name, 2)
    hows = itertools.product(("rows", "columns", "slice", "every other"), repeat=2)
    for here, there in hows if way == "cublas" or (name == "float32" and max(left) < 50) else [("rows", "columns")]:
        x, y = laid_out(a, here), laid_out(b, there)
        found = product(x, y)
        assert found.flags.c_contiguous
        assert (found.shape, found.dtype) == (wanted.shape, a.dtype)
        agree(found, wanted, name, left[-1])
        for layout in ("rows", "slice"):
            out = laid_out(own, layout)
            assert product(x, y, out=out, accumulate=True) is out or out.ndim > 2
            agree(out, own.astype("f8") + wanted, name, left[-1])
            product(x, y, out=out)
            agree(out, wanted, name, left[-1])


@on_host
def test_views_are_not_copied():
    a, b = random((2, 6, 5), "float32"), random((2, 5, 4), "float32")
    for here, there in itertools.product(("rows", "columns", "slice"), repeat=2):
        x, y = laid_out(a, here), laid_out(b, there)
        fake.calls.clear()
        product(x, y)
        product(x[0], y[1])
        product(x[:, :3], y[1])
        (_, stacks), (_, one), (_, shared) = fake.calls
        assert (stacks[10], stacks[6]) == (x.data.ptr, y.data.ptr)
        assert (one[9], one[6]) == (x[0].data.ptr, y[1].data.ptr)
        assert (shared[10], shared[6]) == (x.data.ptr, y[1].data.ptr)
    fake.calls.clear()
    product(cupy.asarray(a), cupy.asarray(b[0]))
    assert [(name, args[2:5]) for name, args in fake.calls] == [("gemmEx", (4, 12, 5))]  # one product of 12 rows


@pytest.mark.parametrize("name", TOLERANCE)
@pytest.mark.parametrize("layouts", list(itertools.product(("rows", "slice", "every other"), ("rows", "columns"))))
def test_repeated_products(way, layouts, name):
    """Of many pairs of matrices that lie alike; what cannot be told to cuBLAS once is told each time."""
    if way == "own" and name != "float32":
        pytest.skip("as `product` itself")
    (a, b), own = (random(shape, name) for shape in ((6, 7, 5), (5, 4))), random((6, 7, 4), name, 2)
    x, y, out = laid_out(a, layouts[0]), laid_out(b, layouts[1]), laid_out(own, "slice")
    for accumulate in (False, True):
        multiply = repeated(x[0], y, out[0], accumulate=accumulate)
        for k in (3, 0, 5):
            multiply(x[k], out[k])
    wanted = a.astype("f8") @ b.astype("f8")
    agree(out[::5], 2 * wanted[::5], name, 5)
    assert (out[1].get() == own[1]).all()


def test_repeated_products_of_nothing():
    for m, n, k in itertools.product((0, 2), repeat=3):
        a, b, out = cupy.ones((m, k)), cupy.ones((k, n)), cupy.ones((m, n))
        repeated(a, b, out)(a, out)
        assert (out.get() == k).all()
    with pytest.raises(ValueError, match=r"an out of shape \(2, 3\) and float64, got \(3, 2\)"):
        repeated(cupy.ones((2, 4)), cupy.ones((4, 3)), cupy.ones((3, 2)))


def test_infinities_and_nan(way):
    a = np.asarray([[np.inf, 1.0], [np.nan, 1.0], [3e38, 3e38], [0.0, 0.0]], "float32")
    b = np.asarray([[1.0, 0.0, 1.0], [1.0, 1.0, 1.0]], "float32")
    with np.errstate(all="ignore"):
        wanted = a @ b
    np.testing.assert_array_equal(product(cupy.asarray(a), cupy.asarray(b)).get(), wanted)


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_sixteen_bits_are_added_in_float32(way, name):
    a, b = cupy.asarray(np.ones((1, 5000), dtype_of(name))), cupy.asarray(np.ones((5000, 1), dtype_of(name)))
    assert float(product(a, b)[0, 0]) == float(dtype_of(name).type(5000))


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
@pytest.mark.parametrize(("left", "right"), [((70, 33), (33, 65)), ((2, 3, 5), (2, 5, 4)), ((2, 1100), (1100, 3))])
def test_products_of_sixteen_bits_in_float32(way, left, right, name):
    a, b = random(left, name), random(right, name, 1)
    wanted = a.astype("f8") @ b.astype("f8")
    own = random(wanted.shape, "float32")
    out = laid_out(own, "slice")
    product(cupy.asarray(a), cupy.asarray(b), out=out, accumulate=True)
    agree(out, own + wanted, "float32", left[-1])
    product(cupy.asarray(a), cupy.asarray(b), out=out)
    agree(out, wanted, "float32", left[-1])


def test_long_sums_repeat_to_the_bit(way):
    a, b = cupy.asarray(random((3, 3000), "float32")), cupy.asarray(random((3000, 2), "float32"))
    first, second = product(a, b).get(), product(a, b).get()
    assert first.tobytes() == second.tobytes()


def test_errors():
    a, b = cupy.zeros((3, 5), dtype="float32"), cupy.zeros((5, 4), dtype="float32")
    with pytest.raises(TypeError, match="product expects arrays of one dtype, got float32 and float64"):
        product(a, b.astype("float64"))
    for x, y in ((a, a), (a[0], b), (a, b[:, 0])):
        with pytest.raises(ValueError, match=r"product expects shapes \(..., m, k\) and \(..., k, n\), got \("):
            product(x, y)
    for out in (cupy.zeros((3, 5), dtype="float32"), cupy.zeros((3, 4), dtype="float64")):
        with pytest.raises(ValueError, match=r"product expects an out of shape \(3, 4\) and float32, got \(3, [45]\)"):
            product(a, b, out=out)
    with pytest.raises(ValueError, match=r"product expects an out with contiguous rows, got strides \(4, 12\)"):
        product(a, b, out=cupy.zeros((4, 3), dtype="float32").T)
    with pytest.raises(ValueError, match="broadcast"):
        product(cupy.zeros((2, 3, 5), dtype="float32"), cupy.zeros((3, 5, 4), dtype="float32"))


# -- precision


def test_tf32_rounds_float32_alone(monkeypatch):
    a, b = random((40, 30), "float64"), random((30, 20), "float64")
    wanted = a @ b

    def error(name):
        x, y = cupy.asarray(a.astype(name)), cupy.asarray(b.astype(name))
        return np.abs(product(x, y).get() - wanted).max()

    exact = error("float32")
    with bp.matmul_precision("tf32"):
        rounded, double = error("float32"), error("float64")
    assert exact < 1e-5
    assert double < 1e-12
    assert error("float32") == exact
    if fake is not None or int(cupy.cuda.Device().compute_capability) >= 80:
        assert 1e-4 < rounded < 2e-2
        monkeypatch.setattr(module, "_tf32_of", lambda device: False)  # an old GPU
        with bp.matmul_precision("tf32"):
            assert error("float32") == exact


# -- under capture


@pytest.fixture
def captured(monkeypatch):
    """Under what CuPy does while a stream is captured: cuBLAS is refused."""
    monkeypatch.setattr(fake, "_capturing", lambda: True)
    monkeypatch.setattr(module, "_said", False)


@on_host
def test_captured_products_go_to_the_own_kernel_and_say_so_once(captured, monkeypatch):
    monkeypatch.setattr(module, "bindings", lambda library: None)
    a, b = random((2, 6, 5), "float32"), random((2, 5, 4), "float32")
    with pytest.warns(
        RuntimeWarning, match=r"slower than cuBLAS: CuPy cannot capture .* pip install gpubp\[nvmath\] brings"
    ):
        found = product(cupy.asarray(a), cupy.asarray(b))
    agree(found, a.astype("f8") @ b, "float32", 5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        product(cupy.asarray(a), cupy.asarray(b))


@on_host
def test_without_cublas(monkeypatch):
    monkeypatch.setattr(module, "cublas", None)
    monkeypatch.setattr(module, "bindings", lambda library: None)
    monkeypatch.setattr(module, "_said", False)
    module.prepare()
    with pytest.warns(RuntimeWarning, match=r"CuPy finds no cuBLAS; its extra \[ctk\] brings it"):
        product(cupy.zeros((1, 1)), cupy.zeros((1, 1)))


@on_host
def test_captured_products_with_nvmath(captured, nvmath, monkeypatch):
    cublas, _ = nvmath
    stream = type("Stream", (), {"ptr": 77})()
    monkeypatch.setattr(cupy.cuda, "get_current_stream", lambda: stream)
    module.prepare()
    (own,) = cublas.made
    fake.calls.clear()
    a, b = random((2, 6, 5), "bfloat16"), random((2, 5, 4), "bfloat16")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stacks, one = product(cupy.asarray(a), cupy.asarray(b)), product(cupy.asarray(a[0]), cupy.asarray(b[1]))
    agree(stacks, a.astype("f8") @ b.astype("f8"), "bfloat16", 5)
    agree(one, a[0].astype("f8") @ b[1].astype("f8"), "bfloat16", 5)
    assert [name for name, _ in fake.calls] == ["gemm_strided_batched_ex", "gemm_ex"]
    assert cublas.made == [own]
    assert cublas.streams == {own: 77}
    assert cublas.workspaces[own][1] == 32 << 20


@on_host
@pytest.mark.filterwarnings("ignore:matrix products use")
def test_captured_step_agrees(way_of_capture):
    def loss(W, x):
        xp = bp.array_namespace(W)
        return xp.sum((xp.tanh(x @ W) @ W.T) ** 2)

    def step(x, W):
        return bp.value_and_grad(loss)(W, x)

    x = random((4, 5), "float32")
    captured = bp.capture(step, required=True)
    fake.calls.clear()
    for seed in range(6):
        W = random((5, 3), "float32", seed)
        for found, wanted in zip(
            captured(cupy.asarray(x), cupy.asarray(W)), step(cupy.asarray(x), cupy.asarray(W)), strict=True
        ):
            np.testing.assert_allclose(found.get(), wanted.get(), rtol=1e-5, atol=1e-5)
    assert captured.reason is None
    assert any(name == "gemm_ex" for name, _ in fake.calls) == (way_of_capture == "nvmath")


@pytest.fixture(params=["nvmath", "own"])
def way_of_capture(request):
    if request.param == "nvmath":
        request.getfixturevalue("nvmath")
    return request.param


@on_host
def test_nvmath_that_does_not_work(monkeypatch):
    from gpubp.kernels.cupy import bindings

    broken = ModuleType("nvmath.bindings.cublasLt")
    monkeypatch.setattr(bindings, "find_spec", lambda name: name == "nvmath")
    monkeypatch.setattr(bindings, "import_module", lambda name: broken)
    bindings.bindings.cache_clear()
    with pytest.warns(UserWarning, match="nvmath-python is installed but its cublasLt does not work: .*destroy"):
        assert bindings.bindings("cublasLt") is None
    assert bindings.bindings("cublasLt") is None
    bindings.bindings.cache_clear()


# -- in the place of CuPy's functions


@pytest.mark.parametrize("name", TOLERANCE)
def test_matmul_of_the_namespace(way, name):
    xp = namespace_by_name("cupy")
    for left, right in [*SHAPES, ((5,), (5, 4)), ((3, 5), (5,)), ((5,), (5,)), ((5,), (2, 5, 3)), ((2, 3, 5), (5,))]:
        a, b = random(left, name), random(right, name, 1)
        wanted = np.matmul(a.astype("f8"), b.astype("f8"))
        for function in (xp.matmul, xp.linalg.matmul):
            found = function(cupy.asarray(a), cupy.asarray(b))
            assert found.shape == wanted.shape
            agree(found, wanted, name, left[-1])


def test_tensordot_of_the_namespace(way):
    xp = namespace_by_name("cupy")
    a, b = random((2, 3, 4), "float32"), random((4, 3, 5), "float32", 1)
    for axes in (0, 1, ((1, 2), (1, 0)), ((-1,), (0,)), ([], [])):
        wanted = np.tensordot(a.astype("f8"), b.astype("f8"), axes=axes)
        for function in (xp.tensordot, xp.linalg.tensordot):
            found = function(cupy.asarray(a), cupy.asarray(b), axes=axes)
            assert found.shape == wanted.shape
            agree(found, wanted, "float32", 12)
    with pytest.raises(ValueError, match=r"."):
        xp.tensordot(cupy.asarray(a), cupy.asarray(b), axes=2)


@on_host
def test_other_dtypes_are_left_to_cupy():
    xp = namespace_by_name("cupy")
    fake.calls.clear()
    for name in ("int64", "complex128"):
        a = cupy.asarray(np.arange(6).reshape(2, 3).astype(name))
        np.testing.assert_array_equal(xp.matmul(a, a.T).get(), a.get() @ a.get().T)
        np.testing.assert_array_equal(xp.tensordot(a, a.T, axes=1).get(), a.get() @ a.get().T)
    assert fake.calls == []


# -- sums down columns


@pytest.mark.parametrize("name", TOLERANCE)
@pytest.mark.parametrize(
    "shape", [(0, 5), (1, 1), (3, 0), (7, 33), (1000, 3), (65, 65), (2, 300), (2, 3, 4), (5,), (600, 40), (3, 520)]
)
def test_column_sums(shape, name):
    x = random(shape, name)
    found = column_sums(cupy.asarray(x))
    assert (found.shape, found.dtype) == (shape[-1:], x.dtype)
    agree(found, x.astype("f8").sum(tuple(range(x.ndim - 1))), name, 1)
    assert column_sums(cupy.asarray(x)).get().tobytes() == found.get().tobytes()


def test_column_sums_of_infinities_and_nan():
    x = np.zeros((200, 3), "float32")
    x[7, 0], x[100, 1], x[130, 2] = np.inf, np.nan, -np.inf
    np.testing.assert_array_equal(column_sums(cupy.asarray(x)).get(), [np.inf, np.nan, -np.inf])
