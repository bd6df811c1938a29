import array_api_strict
import numpy as np
import pytest

import gpubp as bp
from gpubp.array import Array
from gpubp.namespace import twin
from gpubp.testing import check_grads

xp = twin("numpy")
V = np.array([0.4, 1.3, 2.2])


def test_nested_lists_of_traced_values_keep_their_gradients(backend):
    space = twin(backend.xp)

    def f(v):
        rows = space.asarray([[v[0], 1.0, v[1] * v[2]], [2, v[0] * v[0], v[1]]])
        assert tuple(rows.shape) == (2, 3)
        assert rows.dtype == v.dtype
        return rows

    found = backend.to_numpy(bp.jacobian(f)(backend.asarray(V)))
    a, b, c = V
    expected = [[[1, 0, 0], [0, 0, 0], [0, c, b]], [[0, 0, 0], [2 * a, 0, 0], [0, 1, 0]]]
    np.testing.assert_allclose(found, expected, rtol=1e-15)
    curved = bp.hessian(lambda v: space.sum(f(v)))(backend.asarray(V))
    np.testing.assert_allclose(backend.to_numpy(curved), [[2, 0, 0], [0, 0, 1], [0, 1, 0]], rtol=1e-15)


def test_lists_of_whole_arrays_are_stacked_and_promoted():
    out, pullback = bp.vjp(lambda v: xp.asarray([v, np.ones(3)]), V.astype(np.float32))
    assert out.dtype == np.float64
    assert pullback(np.ones((2, 3)))[0].dtype == np.float32
    out, _ = bp.vjp(lambda v: xp.asarray((v[0], 1j)), V)
    assert out.dtype == np.complex128


def test_asarray_copies_when_told_so_and_says_when_it_cannot_avoid_it():
    def f(v):
        assert xp.asarray(v) is v
        same = xp.asarray(v, copy=True)
        same[0] = 5.0
        return xp.sum(v * v) + xp.sum(same)

    np.testing.assert_allclose(bp.grad(f)(V), 2 * V + [0, 1, 1])
    with pytest.raises(ValueError, match="copy=False cannot give"):
        bp.vjp(lambda v: xp.asarray(v, dtype=xp.float32, copy=False), V)
    with pytest.raises(ValueError, match="copy=False cannot join"):
        bp.vjp(lambda v: xp.asarray([v, v], copy=False), V)


@pytest.mark.parametrize(
    "f",
    [
        lambda v: xp.full((2, 2), v[0]) ** 2,
        lambda v: xp.full(3, v[1]),
        lambda v: xp.full_like(V, v[0]) * v,
        lambda v: xp.full_like(v, 2.0) * v,
        lambda v: xp.linspace(v[0], v[1], 5) ** 2,
        lambda v: xp.linspace(v[0], 3.0, 4, endpoint=False),
        lambda v: xp.linspace(0, v[2], 1) + v,
        lambda v: xp.linspace(v, 2 * v, 3),
        lambda v: xp.arange(v[0], v[2], v[0] + 0.3),
        lambda v: xp.from_dlpack(v) ** 2,
        lambda v: xp.astype(v, xp.complex128) * 1j,
    ],
)
def test_creation_from_traced_values_keeps_their_gradients(f):
    check_grads(f, (V,))


def test_creation_with_traced_constants_agrees_with_numpy():
    two = bp.constant(np.array(2))
    with_float = bp.constant(np.array(1.0))
    for found, expected in [
        (xp.full((two, 1), 1.5), np.full((2, 1), 1.5)),
        (xp.arange(two), np.arange(2)),
        (xp.arange(5, two, -1), np.arange(5, 2, -1)),
        (xp.arange(with_float, 2.0, 0.25), np.arange(1.0, 2.0, 0.25)),
        (xp.linspace(with_float, 2.0, 5), np.linspace(1.0, 2.0, 5)),
        (xp.full_like(two, 3), np.array(3)),
    ]:
        assert type(found) is Array
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found.data, expected)


@pytest.mark.parametrize("name", ["zeros_like", "ones_like", "empty_like"])
def test_arrays_like_a_traced_one_are_constants(name):
    def f(v):
        like = getattr(xp, name)(v)
        assert like.node is None
        return xp.sum(v) + xp.sum(like * 0.0)

    np.testing.assert_array_equal(bp.grad(f)(V), np.ones(3))


def test_a_cast_to_integers_is_a_constant():
    def f(v):
        whole = xp.astype(v, xp.int64)
        assert whole.node is None
        return xp.sum(v * xp.astype(whole, v.dtype))

    np.testing.assert_array_equal(bp.grad(f)(V), [0, 1, 2])


def test_moving_between_devices_moves_the_gradient_back():
    space = twin("array_api_strict")
    home, away = array_api_strict.Device("CPU_DEVICE"), array_api_strict.Device("device1")
    v = array_api_strict.asarray([1.0, 2.0], device=home)
    for move in (
        lambda v: v.to_device(away),
        lambda v: space.asarray(v, device=away),
        lambda v: space.astype(v, space.float64, device=away),
    ):
        out, pullback = bp.vjp(lambda v: move(v) * 2.0, v)  # noqa: B023
        assert out.device == away
        (g,) = pullback(array_api_strict.ones(2, device=away))
        assert g.device == home


def test_questions_about_dtypes_and_shapes(backend):
    space = twin(backend.xp)
    v = bp.constant(backend.asarray(V))
    assert space.result_type(v, 1.0) == v.dtype
    assert space.isdtype(v.dtype, "real floating")
    assert space.can_cast(v, space.complex128)
    assert space.finfo(v.dtype).bits == 64
    assert space.iinfo(space.int32).max == 2**31 - 1
    assert tuple(space.broadcast_shapes((2, 1), (3,))) == (2, 3)
    assert "default device" not in space.__array_namespace_info__().capabilities()
    assert (space.pi, space.newaxis) == (np.pi, None)


@pytest.mark.parametrize(
    "library",
    [
        "numpy",
        "array_api_strict",
        "gpubp.testing.standin",
        pytest.param("torch", marks=pytest.mark.peers),
        pytest.param("jax", marks=pytest.mark.peers),
    ],
)
def test_every_function_of_the_standard_is_in_every_twin(library):
    pytest.importorskip(library)
    space = twin(library)
    functions = [
        n for n in array_api_strict.__all__ if "array_api_strict" not in n and n not in ("__version__", "Device")
    ]
    assert len(functions) > 150
    missing = [n for n in functions if not n.startswith("Array") and not hasattr(space, n)]
    assert missing == []
