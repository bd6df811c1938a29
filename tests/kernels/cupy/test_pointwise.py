"""Elementwise kernels on 16 bytes at a time, and when others take their place."""

import cupy
import numpy as np
import pytest

from gpubp.kernels.cupy import common
from gpubp.kernels.cupy.pointwise import Pointwise

axpy = Pointwise("test_axpy", ("x", "y"), "out = T(W(x) * W(a) + W(y))", ("a",))
for _kernel in ("test_axpy", "test_axpy_wide"):
    del common.KERNELS[_kernel]  # these are no kernels of gpubp
RNG = np.random.default_rng(0)


@pytest.fixture
def wide(monkeypatch):
    """The names of the kernels launched by `Kernel`."""
    names = []
    call = common.Kernel.__call__
    monkeypatch.setattr(common.Kernel, "__call__", lambda k, *a, **o: (names.append(k.name), call(k, *a, **o))[1])
    return names


def dtype_of(name):
    return np.dtype(pytest.importorskip("ml_dtypes").bfloat16 if name == "bfloat16" else name)


def given(*shape, dtype="float32"):
    return RNG.integers(-8, 8, size=shape).astype(dtype_of(dtype))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("shape", [(), (1,), (3,), (4,), (8,), (5, 7), (4, 1025), (3, 0)])
def test_contiguous_arrays(wide, shape, dtype):
    x, y = given(*shape, dtype=dtype), given(*shape, dtype=dtype)
    found = axpy(cupy.asarray(x), cupy.asarray(y), 2)
    assert found.dtype == x.dtype
    np.testing.assert_array_equal(found.get().astype("f8"), 2.0 * x.astype("f8") + y.astype("f8"))
    assert wide == (["test_axpy_wide"] if dtype != "float64" else [])


def test_in_the_place_of_an_argument(wide):
    x, y = given(5, 7), given(5, 7)
    on = cupy.asarray(x)
    assert axpy(on, cupy.asarray(y), 2.0, on) is on
    np.testing.assert_array_equal(on.get(), 2 * x + y)
    assert wide == ["test_axpy_wide"]


@pytest.mark.parametrize("how", ["transposed", "every other", "not aligned", "broadcast"])
def test_other_arrays(wide, how):
    x, y = given(6, 8), given(6, 8)
    if how == "broadcast":
        y = y[:1]
    place = {
        "transposed": lambda y: cupy.asarray(y.T.copy()).T,
        "every other": lambda y: cupy.asarray(np.repeat(y, 2, axis=1))[:, ::2],
        "not aligned": lambda y: cupy.asarray(np.concatenate([[0], y.reshape(-1)]).astype("f4"))[1:].reshape(6, 8),
        "broadcast": cupy.asarray,
    }[how]
    np.testing.assert_array_equal(axpy(cupy.asarray(x), place(y), 2.0).get(), 2 * x + y)
    np.testing.assert_array_equal(axpy(place(y), cupy.asarray(x), 2.0).get(), 2 * y + x)
    assert not wide
    if how != "broadcast":
        out = place(0 * x)
        axpy(cupy.asarray(x), cupy.asarray(y), 2.0, out)
        np.testing.assert_array_equal(out.get(), 2 * x + y)
