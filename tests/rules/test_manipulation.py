import numpy as np
import pytest

import gpubp as bp
from gpubp.namespace import twin

xp = twin("numpy")
X = np.arange(6.0).reshape(2, 3)

LINEAR = {
    "reshape": (lambda x: xp.reshape(x, (-1, 2))),
    "expand_dims": (lambda x: xp.expand_dims(x, axis=(0, -1))),
    "squeeze": (lambda x: xp.squeeze(x[None, ..., None], axis=(0, -1))),
    "broadcast_to": (lambda x: xp.broadcast_to(x, (4, 2, 3))),
    "permute_dims": (lambda x: xp.permute_dims(x[None], (-1, 0, 1))),
    "moveaxis": (lambda x: xp.moveaxis(x[None], (0, 2), (-1, 0))),
    "flip": (lambda x: xp.flip(x, axis=-1)),
    "roll": (lambda x: xp.roll(x, (1, -2), axis=(0, 1))),
    "tile": (lambda x: xp.tile(x, (2, 1, 3))),
    "repeat": (lambda x: xp.repeat(x, 2, axis=-2)),
    "repeat by arrays": (lambda x: xp.repeat(x, np.array([2, 0, 1]), axis=1)),
    "concat": (lambda x: xp.concat([x, x[:1], X], axis=0)),
    "concat flat": (lambda x: xp.concat([x, x[0]], axis=None)),
    "stack": (lambda x: xp.stack([x, X, x], axis=-1)),
    "unstack": (lambda x: xp.unstack(x, axis=1)[1]),
    "meshgrid": (lambda x: xp.meshgrid(x[0], x[:, 1])[0]),
    "broadcast_arrays": (lambda x: xp.broadcast_arrays(x[:1], X)[0]),
    "tril": (lambda x: xp.tril(x, k=-1)),
    "triu": (lambda x: xp.triu(x, k=1)),
    "diff": (lambda x: xp.diff(x, n=2, prepend=x[:, :1])),
    "cumulative_sum": (lambda x: xp.cumulative_sum(x, axis=1, include_initial=True)),
    "take": (lambda x: xp.take(x, np.array([2, 2, 0]), axis=1)),
    "take_along_axis": (lambda x: xp.take_along_axis(x, np.array([[1, 1, 0]]), axis=0)),
    "sort": (lambda x: xp.sort(x, axis=0, descending=True)),
}


@pytest.mark.parametrize("name", LINEAR)
def test_the_pullback_is_the_adjoint(name):
    """⟨g, f(x)⟩ = ⟨pullback(g), x⟩ for a linear f, apart from what it adds."""
    f, rng = LINEAR[name], np.random.default_rng(0)
    out, pullback = bp.vjp(f, X)
    g, v = rng.normal(size=out.shape), rng.normal(size=X.shape)
    (found,) = pullback(g)
    order = np.argsort(np.argsort(X + 1e-6 * v, axis=0), axis=0)
    assert (order == np.argsort(np.argsort(X, axis=0), axis=0)).all()
    expected = np.sum(g * (bp.vjp(f, X + 1e-6 * v)[0] - out)) / 1e-6
    np.testing.assert_allclose(np.sum(found * v), expected, rtol=1e-6)


def test_several_outputs_of_which_some_are_not_used():
    def f(x):
        first, _, third = xp.unstack(x, axis=1)
        return xp.sum(first * third)

    np.testing.assert_array_equal(bp.grad(f)(X), [[2, 0, 0], [5, 0, 3]])
    np.testing.assert_array_equal(bp.hvp(f, (X,), (np.ones((2, 3)),))[0], [[1, 0, 1], [1, 0, 1]])


def test_parts_of_different_dtypes_get_gradients_of_their_own():
    half = np.ones(2, dtype=np.float32)
    dx, dy = bp.grad(lambda x, y: xp.sum(xp.concat([x, y]) ** 2), (0, 1))(half, np.ones(3))
    assert (dx.dtype, dy.dtype) == (np.float32, np.float64)


def test_meshgrid_says_what_indexing_it_knows():
    with pytest.raises(ValueError, match="'xy' or 'ij', got 'yx'"):
        bp.vjp(lambda x: xp.meshgrid(x, indexing="yx"), X[0])
