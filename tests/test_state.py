from itertools import count

import numpy as np
import pytest

import gpubp as bp
from gpubp import nn
from gpubp.state import State
from gpubp.testing import check_grads
from gpubp.tree import map_distinct

X = np.array([1.0, -2.0, 3.0])


class Mean(nn.Layer):
    """Subtracts a running mean, and counts."""

    def __init__(self):
        self.mean, self.calls = State(np.zeros(3)), State(np.zeros((), dtype="int64"))

    def __call__(self, x):
        y = np.sin(x - self.mean.value) * x
        self.mean.value = 0.5 * self.mean.value + 0.5 * x
        self.calls.value = self.calls.value + 1
        return y


def test_what_is_read_is_a_constant_and_what_is_written_has_no_level():
    layer = Mean()
    bp.grad(lambda x: np.sum(layer(x)))(X)
    assert type(layer.mean.value) is np.ndarray
    np.testing.assert_array_equal(layer.mean.value, 0.5 * X)
    bp.hessian(lambda x: np.sum(layer(x)))(X)
    assert type(layer.mean.value) is np.ndarray
    assert layer.calls.value == 2
    mean = layer.mean.value
    np.testing.assert_allclose(
        bp.grad(lambda x: np.sum(layer(x)))(X), np.cos(X - mean) * X + np.sin(X - mean), rtol=1e-12
    )


def test_a_net_and_its_traced_copy_have_one_cell():
    layer = Mean()
    layer.s = np.ones(3)
    bp.grad(lambda net: np.sum(net(X) * net.s))(layer)
    assert layer.calls.value == 1


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_checkpoint_repeats_reads_and_leaves_writes_out(depth):
    def loss(x, wrap):
        inner = layer
        for _ in range(depth):
            inner = wrap(inner)
        return np.sum(wrap(lambda x: inner(inner(x)) * inner(x))(x))

    layer = Mean()
    expected = bp.grad(loss)(X, lambda f: f)
    state = layer.mean.value
    layer = Mean()
    np.testing.assert_allclose(bp.grad(loss)(X, bp.checkpoint), expected, rtol=1e-13)
    np.testing.assert_array_equal(layer.mean.value, state)
    assert layer.calls.value == 3


def test_a_pullback_of_a_checkpoint_may_be_called_again():
    layer = Mean()
    _, pullback = bp.vjp(bp.checkpoint(layer), X)
    first = pullback(np.ones(3))[0]
    layer(X)
    np.testing.assert_array_equal(pullback(np.ones(3))[0], first)


def test_a_transform_inside_a_checkpoint():
    def slope(x):
        return bp.grad(lambda x: np.sum(bp.checkpoint(layer)(x)))(x)

    layer = Mean()
    expected = bp.grad(lambda x: np.sum(slope(x)))(X)
    layer = Mean()
    found = bp.grad(lambda x: np.sum(bp.checkpoint(slope)(x)))(X)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert layer.calls.value == 1


def test_a_function_that_reads_more_the_second_time_is_named():
    layer, calls = Mean(), count()

    def f(x):
        return layer(layer(x)) if next(calls) else layer(x)

    with pytest.raises(RuntimeError, match="read other cells when it was computed again"):
        bp.grad(lambda x: np.sum(bp.checkpoint(f)(x)))(X)


def test_check_grads_restores():
    layer = Mean()
    layer(X)
    before = layer.mean.value
    check_grads(lambda net, x: net(x), (layer, X))
    assert layer.mean.value is before
    assert layer.calls.value == 1


def test_moving_takes_cells_along(backend):
    layer = Mean()
    layer(X)
    pair = {"a": layer, "b": [layer, Mean()]}
    there = map_distinct(backend.asarray, pair)
    assert type(there["a"].mean.value) is type(backend.asarray(X))
    assert there["a"].mean is there["b"][0].mean
    there["a"](backend.asarray(X))
    np.testing.assert_array_equal(layer.mean.value, 0.5 * X)


def test_a_cell_shows_what_it_holds():
    assert repr(State(3)) == "State(3)"
