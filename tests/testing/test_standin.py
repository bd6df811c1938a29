"""The CuPy stand-in refuses what CuPy refuses, and otherwise computes what NumPy computes."""

import copy
import operator
import pickle
import threading

import array_api_compat
import numpy as np
import pytest

from gpubp.testing import standin as xp


@pytest.fixture
def host():
    return np.arange(6.0).reshape(2, 3)


@pytest.fixture
def x(host):
    return xp.asarray(host)


def equal(result, expected):
    """Whether `result` is the stand-in's, and has the values, shape and dtype of `expected`."""
    got = result.get()
    return got.shape == np.shape(expected) and got.dtype == np.asarray(expected).dtype and np.array_equal(got, expected)


# ---- a namespace


def test_it_is_its_own_namespace(x):
    assert array_api_compat.array_namespace(x) is xp
    assert x.__array_namespace__(api_version="2025.12") is xp
    with pytest.raises(ValueError, match=r"no version '1999\.12'"):
        x.__array_namespace__(api_version="1999.12")


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda x: xp.exp(x), lambda h: np.exp(h)),
        (lambda x: xp.concat([x, x], axis=1), lambda h: np.concatenate([h, h], axis=1)),
        (lambda x: xp.where(x > 2, x, 0.0), lambda h: np.where(h > 2, h, 0.0)),
        (lambda x: xp.linalg.svd(x).S, lambda h: np.linalg.svd(h).S),
        (lambda x: xp.fft.rfft(x), lambda h: np.fft.rfft(h)),
        (lambda x: xp.unstack(x)[1], lambda h: h[1]),
        (lambda x: xp.clip(x, 1, 3), lambda h: np.clip(h, 1, 3)),
        (lambda x: x.T @ x, lambda h: h.T @ h),
        (lambda x: x.sum(axis=0), lambda h: h.sum(axis=0)),
        (lambda x: x.dot(x.T), lambda h: h.dot(h.T)),
        (lambda x: x.reshape(3, 2).mT.ravel(), lambda h: h.reshape(3, 2).mT.ravel()),
        (lambda x: 2 - x, lambda h: 2 - h),
        (lambda x: -x % 4, lambda h: -h % 4),
        (lambda x: np.float32(2) * x, lambda h: np.float32(2) * h),
        (lambda x: np.tanh(x), lambda h: np.tanh(h)),
        (lambda x: np.add.reduce(x), lambda h: np.add.reduce(h)),
        (lambda x: np.linalg.norm(x, axis=0), lambda h: np.linalg.norm(h, axis=0)),
        (lambda x: np.einsum("ij,kj->ik", x, x), lambda h: np.einsum("ij,kj->ik", h, h)),
        (lambda x: np.stack([x, x]), lambda h: np.stack([h, h])),
    ],
)
def test_it_computes_what_numpy_computes(x, host, call, expected):
    assert equal(call(x), expected(host))


def test_names_that_cupy_lacks_are_absent(x):
    assert not hasattr(xp, "block")
    assert not hasattr(xp, "random")
    assert {"exp", "unique_all", "linalg"} <= set(dir(xp))
    assert "block" not in dir(xp)
    assert "svdvals" in dir(xp.linalg)
    with pytest.raises(TypeError, match="no implementation found for 'numpy.block'"):
        np.block([x, x])
    with pytest.raises(TypeError, match="operand type"):
        np.spacing(x)


def test_every_result_is_an_array(x):
    for result in (x[0, 0], xp.sum(x), x.max(), xp.allclose(x, x), np.mean(x), xp.linalg.det(x @ x.T), x[0] @ x[1]):
        assert type(result) is xp.ndarray
        assert result.shape == ()


def test_a_result_given_by_out_is_that_array(x, host):
    out = xp.zeros((2, 3))
    assert xp.add(x, 1, out=out) is out
    assert np.multiply(x, 2, out=out) is out
    assert equal(out, host * 2)
    product = xp.zeros((2, 2))
    assert xp.dot(x, x.T, out=product) is product
    assert equal(product, host @ host.T)


@pytest.mark.parametrize("dtype", [object, "U3", np.longdouble, "datetime64[s]"])
def test_dtypes_that_cupy_lacks_are_refused(dtype):
    with pytest.raises(ValueError, match="Unsupported dtype"):
        xp.asarray(np.zeros(2, dtype))


# ---- no implicit conversion


@pytest.mark.parametrize(
    "convert", [np.asarray, np.array, lambda x: np.array([x[0, 0], 1.0]), lambda x: xp.asarray([x, 1.0])]
)
def test_conversion_to_numpy_is_refused(x, convert):
    with pytest.raises(TypeError, match=r"Implicit conversion to a NumPy array is not allowed. Please use `.get\(\)`"):
        convert(x)


def test_from_dlpack_refuses_host_memory_and_numpy_refuses_ours(x):
    with pytest.raises(ValueError, match="CPU arrays cannot be directly imported"):
        xp.from_dlpack(np.ones(3))
    with pytest.raises(BufferError):
        np.from_dlpack(x)
    assert equal(xp.from_dlpack(x), x.get())
    assert np.array_equal(np.from_dlpack(x, device="cpu"), x.get())
    assert x.to_device("cuda:1").__dlpack_device__() == (2, 1)  # kDLCUDA


BINARY = [
    operator.add,
    operator.sub,
    operator.mul,
    operator.truediv,
    operator.matmul,
    operator.pow,
    operator.lt,
    operator.eq,
]


@pytest.mark.parametrize("op", BINARY)
def test_operators_refuse_numpy_arrays_on_either_side(op):
    x, other = xp.ones((2, 2)), np.ones((2, 2))
    with pytest.raises(TypeError, match=r"Unsupported type <class 'numpy\.ndarray'>"):
        op(x, other)
    with pytest.raises(TypeError, match=r"Unsupported type <class 'numpy\.ndarray'>"):
        op(other, x)
    assert type(op(x, x)) is xp.ndarray  # that is: it is the NumPy array they refuse


@pytest.mark.parametrize(
    "call",
    [
        lambda x, h: xp.exp(h),
        lambda x, h: xp.sum(h),
        lambda x, h: xp.concat([x, h]),
        lambda x, h: xp.where(x > 0, x, h),
        lambda x, h: xp.matmul(x, h),
        lambda x, h: x.dot(h),
        lambda x, h: np.add(x, h),
        lambda x, h: np.add(h, h, out=x),
        lambda x, h: np.concatenate([x, h]),
        lambda x, h: x.__iadd__(h),
        lambda x, h: operator.iadd(h, x),
        lambda x, h: x + np.asarray(1.0),
    ],
)
def test_functions_refuse_numpy_arrays(call):
    with pytest.raises(TypeError, match="Unsupported type <class 'numpy.ndarray'>"):
        call(xp.ones((2, 2)), np.ones((2, 2)))


def test_functions_refuse_lists_in_the_place_of_arrays(x):
    with pytest.raises(TypeError, match="Unsupported type <class 'list'>"):
        xp.exp([1.0, 2.0])
    with pytest.raises(TypeError, match="operand type"):
        operator.add(x, [1.0, 2.0, 3.0])


def test_ufuncs_take_only_the_keywords_of_cupy(x):
    with pytest.raises(TypeError, match="Wrong arguments"):
        np.add(x, x, where=x > 0)
    assert equal(xp.vecdot(x, x, axis=0), np.vecdot(x.get(), x.get(), axis=0))


@pytest.mark.parametrize("copy_", [None, True, False])
def test_asarray_copies_from_the_host(host, copy_):
    if copy_ is False:
        with pytest.raises(ValueError, match="Unable to avoid copy"):
            xp.asarray(host, copy=copy_)
        return
    x = xp.asarray(host, copy=copy_)
    host[0, 0] = 99
    assert float(x[0, 0]) == 0


def test_asarray_of_arrays_and_of_lists_of_arrays(x, host):
    assert xp.asarray(x) is x
    assert xp.asarray(x, copy=False) is x
    assert xp.asarray(x, copy=True) is not x
    with pytest.raises(ValueError, match="Unable to avoid copy"):
        xp.asarray(x, dtype=xp.float32, copy=False)
    assert equal(xp.asarray([x[0, 0], x[1, 2]]), host[[0, 1], [0, 2]])
    assert equal(xp.asarray([[1, 2], [3, 4]]), np.array([[1, 2], [3, 4]]))


# ---- devices


def test_creation_is_on_the_current_device_and_ignores_device():
    assert str(xp.zeros(2).device) == "cuda:0"
    assert xp.zeros(2, device="cuda:1").device == xp.Device(0)
    with xp.Device("cuda:1"):
        assert str(xp.zeros(2).device) == "cuda:1"
        with xp.Device(0):
            assert str(xp.ones(2).device) == "cuda:0"
        assert str(xp.arange(2).device) == "cuda:1"
    assert str(xp.zeros(2).device) == "cuda:0"
    assert xp.asarray(1.0, device="cuda:1").device == xp.Device(1)
    assert xp.astype(xp.zeros(2), xp.float32, device="cuda:1").device == xp.Device(1)


def test_the_current_device_is_each_thread_s_own():
    seen = []
    with xp.Device(1):
        thread = threading.Thread(target=lambda: seen.append(str(xp.zeros(1).device)))
        thread.start()
        thread.join()
    assert seen == ["cuda:0"]


def test_devices_as_values():
    assert xp.Device("cuda:1") == xp.Device(1) != xp.Device(0)
    assert len({xp.Device(1), xp.Device(1)}) == 1
    assert int(xp.Device(1)) == 1
    assert xp.__array_namespace_info__().devices() == (xp.Device(0), xp.Device(1))
    for absent in (2, "cuda:2", "cpu"):
        with pytest.raises(ValueError, match="has the devices 'cuda:0' and 'cuda:1'"):
            xp.Device(absent)


@pytest.mark.parametrize(
    "call",
    [
        lambda a, b: a + b,
        lambda a, b: b + 1,
        lambda a, b: xp.sum(b),
        lambda a, b: xp.stack([a, b]),
        lambda a, b: a[xp.asarray([0], device="cuda:1")],
        lambda a, b: a.__setitem__(0, b[0]),
        lambda a, b: xp.asarray([a[0], b[0]]),
        lambda a, b: np.add(a, b),
        lambda a, b: a.__iadd__(b),
        lambda a, b: xp.scatter_add(a, 0, b[0]),
    ],
)
def test_devices_do_not_mix(call):
    a, b = xp.ones(3), xp.asarray(np.ones(3), device="cuda:1")
    with pytest.raises(ValueError, match=r"where the array resides \(1\) is different from the current device \(0\)"):
        call(a, b)


def test_views_need_no_current_device_and_stay_where_they_are():
    b = xp.asarray(np.ones((2, 3)), device="cuda:1")
    for view in (b.T, b[0], b.reshape(3, 2), xp.permute_dims(b, (1, 0)), b[None, ..., 1:]):
        assert view.device == xp.Device(1)
    assert xp.zeros_like(b).device == xp.Device(0)
    assert b.copy().device == xp.Device(0)
    assert copy.deepcopy(b).device == xp.Device(1)


def test_to_device(x, host):
    there = x.to_device("cuda:1")
    assert there.device == xp.Device(1)
    assert array_api_compat.to_device(there, "cuda:0").device == xp.Device(0)
    assert x.to_device(xp.Device(0)) is x
    assert type(x.to_device("cpu")) is np.ndarray


# ---- host reads


READS = [
    ("float()", lambda x: float(x[0, 0])),
    ("int()", lambda x: int(x[0, 0])),
    ("bool()", lambda x: bool(x[0, 0])),
    ("complex()", lambda x: complex(x[0, 0])),
    (".item()", lambda x: x[0, 0].item()),
    (".get()", lambda x: x.get()),
    ("tolist()", lambda x: x.tolist()),
    ("repr()", repr),
    ("str()", str),
    ("format()", lambda x: f"{x}"),
    ("boolean-mask indexing", lambda x: x[x > 1]),
    ("boolean-mask indexing", lambda x: x[np.ones((2, 3), bool)]),
    ("boolean-mask assignment", lambda x: x.__setitem__(x > 1, 0.0)),
    ("nonzero()", lambda x: xp.nonzero(x)),
    ("nonzero()", lambda x: x.nonzero()),
    ("unique_values()", lambda x: xp.unique_values(x)),
    ("unique()", lambda x: np.unique(x)),
    ("repeat()", lambda x: xp.repeat(x, xp.asarray([1, 2]), axis=0)),
    ("arange()", lambda x: xp.arange(x[0, 2])),
    ("bool()", lambda x: x[0, 0] if x[0, 1] else None),
]


@pytest.mark.parametrize(("name", "read"), READS)
def test_host_reads_are_counted_and_can_be_forbidden(x, name, read):
    with xp.count_host_reads() as reads:
        read(x)
    assert reads == [name]
    with xp.no_host_reads(), pytest.raises(xp.HostReadError) as error:
        read(x)
    assert str(error.value).startswith(f"{name} makes the host wait")
    read(x)  # outside it is allowed again


def test_what_stays_on_the_device_is_no_host_read(x):
    with xp.no_host_reads(), xp.count_host_reads() as reads:
        y = xp.where(x > 1, xp.exp(x), 0.0) @ x.T
        y += xp.sum(x)
        y[0, 0] = x[xp.asarray(0), xp.asarray(1)]
        xp.scatter_add(y, (xp.asarray([0, 0]),), 1.0)
        assert y.shape == (2, 2)
        assert len(y) == 2
        xp.repeat(y, 2, axis=0)
        xp.asarray(np.ones(3))
        xp.arange(3)
    assert reads == []


def test_counters_nest(x):
    with xp.count_host_reads() as outer:
        float(x[0, 0])
        with xp.count_host_reads() as inner:
            int(x[0, 0])
    float(x[0, 0])
    assert (outer, inner) == (["float()", "int()"], ["int()"])


def test_there_is_no_index(x):
    with pytest.raises(TypeError, match="cannot be interpreted as an integer"):
        operator.index(xp.asarray(1))
    with pytest.raises(TypeError, match="slice indices must be integers"):
        x[: xp.asarray(1)]


def test_scalars_are_read_from_one_element_only(x):
    with pytest.raises(ValueError, match="size 1"):
        x.item()
    with pytest.raises(ValueError, match="ambiguous"):
        bool(x)
    with pytest.raises(TypeError, match="0-d"):
        iter(xp.asarray(1.0))


# ---- operators and foreign objects


class Foreign:
    """An object with reflected operators, as a traced array is."""

    __array_priority__ = 1000

    def __radd__(self, other):
        return "reflected"

    def __eq__(self, other):
        return "equal"

    __hash__ = None


class Lower(Foreign):
    __array_priority__ = 1


class OptedOut(Lower):
    __array_ufunc__ = None


class Overriding(Lower):
    def __array__(self, dtype=None, copy=None):
        raise AssertionError("nobody may convert it")

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        return "overridden"

    def __array_function__(self, func, types, args, kwargs):
        return "overridden"


def test_operators_defer_to_higher_priority(x):
    assert x + Foreign() == "reflected"
    assert (x == Foreign()) == "equal"
    assert x + OptedOut() == "reflected"
    assert x + Overriding() == "overridden"
    assert np.add(x, Overriding()) == "overridden"
    assert np.concatenate([x, Overriding()]) == "overridden"
    with pytest.raises(TypeError, match="operand type"):
        x + Lower()


def test_comparison_with_what_is_no_number(x):
    assert equal(x == None, np.zeros((2, 3), bool))  # noqa: E711 (an array of False, as CuPy gives)
    assert equal(x != object(), np.ones((2, 3), bool))
    assert equal(x < np.asarray(2.0), x.get() < 2.0)  # CuPy lets 0-d NumPy arrays pass in comparisons alone
    with pytest.raises(TypeError):
        hash(x)


def test_in_place_operators_write_in_place(x, host):
    alias, view = x, x[1]
    x += 1
    x *= xp.asarray(2.0)
    assert alias is x
    assert equal(view, (host[1] + 1) * 2)
    with pytest.raises(TypeError, match="Cannot cast"):
        xp.asarray([1])[...] += 0.5


# ---- indexing


def test_basic_indexing_gives_views(x):
    x[0, 1][...] = 7.0
    x[1][2] = 8.0
    x.T[0, 0] = 9.0
    x[:, ::-1][1, 2] = 6.0
    assert equal(x, np.array([[9.0, 7.0, 2.0], [6.0, 4.0, 8.0]]))


def test_integer_arrays_give_copies_and_wrap_around(x, host):
    rows = xp.asarray([1, 0, 1])
    y = x[rows]
    y[...] = 0
    assert equal(x, host)
    assert equal(x[xp.asarray([2, -1, 3])], host[[0, 1, 1]])  # NumPy would raise
    assert equal(x[..., xp.asarray([[3]])], host[..., [[0]]])
    assert equal(x[None, :, np.asarray([4])], host[None, :, [1]])
    assert equal(x[:, [0, 5]], host[:, [0, 2]])
    assert equal(xp.take(x, xp.asarray([2]), axis=0), host[[0]])
    assert equal(xp.take_along_axis(x, xp.asarray([[3], [4]]), axis=1), host[[[0], [1]], [[0], [1]]])
    assert x[[]].shape == (0, 3)
    with pytest.raises(IndexError):
        x[2]
    with pytest.raises(IndexError):
        x[xp.asarray([0.0])]
    with pytest.raises(IndexError):
        x[rows, rows, rows]


def test_a_mask_beside_integers(x, host):
    mask = np.array([True, False])
    assert equal(x[xp.asarray(mask), xp.asarray([4])], host[mask, [1]])
    cube = np.arange(24.0).reshape(2, 3, 4)
    chosen = cube > 11
    assert equal(xp.asarray(cube)[xp.asarray(chosen[..., 0]), xp.asarray([5])], cube[chosen[..., 0], [1]])


def test_assignment(x, host):
    x[xp.asarray([0, 0])] = xp.asarray([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    x[:, 2] = 5
    x[1, xp.asarray([3])] = np.asarray([9.0])  # with an array as index CuPy copies values from the host
    assert equal(x, np.array([[4.0, 5.0, 5.0], [9.0, 4.0, 5.0]]))
    for value in (np.ones(3), [1.0, 2.0, 3.0]):
        with pytest.raises(ValueError, match=r"non-scalar numpy\.ndarray cannot be used for fill"):
            x[0] = value


def test_scatter_add_adds_repeated_indices_up():
    a = xp.zeros(4, dtype=xp.float32)
    xp.scatter_add(a, xp.asarray([1, 1, 5]), xp.asarray([1.0, 2.0, 4.0]))
    assert equal(a, np.array([0, 7, 0, 0], np.float32))
    xp.add.at(a, (slice(0, 2),), 1.0)
    np.add.at(a, xp.asarray([3]), 1.0)
    assert equal(a, np.array([1, 8, 0, 1], np.float32))


@pytest.mark.parametrize("dtype", ["complex128", "int16", "bool"])
def test_atomic_additions_exist_for_some_dtypes_only(dtype):
    with pytest.raises(TypeError, match=rf"cupy\.add\.at only supports .*float64.* not {dtype}"):
        xp.scatter_add(xp.zeros(3, dtype=dtype), xp.asarray([0, 0]), True)


def test_ufunc_methods_that_cupy_lacks(x):
    for call in (lambda: np.maximum.reduce(x), lambda: xp.maximum.accumulate(x), lambda: np.divide.at(x, 0, 2.0)):
        with pytest.raises(NotImplementedError, match="is not supported yet"):
            call()
    assert equal(xp.multiply.outer(x[0], x[1]), np.multiply.outer(x.get()[0], x.get()[1]))


# ---- the rest of an array


def test_attributes(x):
    assert (x.shape, x.ndim, x.size, x.itemsize, x.nbytes, x.strides) == ((2, 3), 2, 6, 8, 48, (24, 8))
    assert x.T.flags.f_contiguous
    assert not x.T.flags.c_contiguous
    assert x[1].data.ptr == x.data.ptr + 24
    assert x.to_device("cuda:1").data.device_id == 1
    assert equal(x.imag, np.zeros((2, 3)))


def test_get_and_set(x, host):
    out = np.empty((2, 3))
    assert x.get(out=out) is out
    assert np.array_equal(out, host)
    x.get()[0, 0] = 99  # a copy
    assert equal(x, host)
    x.set(host + 1)
    assert equal(x, host + 1)
    with pytest.raises(TypeError, match=r"Only numpy\.ndarray"):
        x.set(x)
    for call in (x.set, lambda other: x.get(out=other)):
        with pytest.raises(ValueError, match=r"does not go into"):
            call(np.ones((2, 3), np.float32))


def test_copies_and_pickles_are_independent(x, host):
    for other in (copy.copy(x), copy.deepcopy(x), pickle.loads(pickle.dumps(x)), x.copy()):
        other[...] = 0
    assert equal(x, host)


def test_uninitialised_arrays():
    assert xp.ndarray((2, 3), xp.float32).dtype == np.float32
