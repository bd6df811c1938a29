import numpy as np
import pytest
from hypothesis import given

from gpubp.testing import check_grads, strategies
from gpubp.tree import leaves


@given(strategies.arrays(strategies.shapes(min_side=0), away_from=[0.0, 1.0], distinct=True, low=-9, high=9))
def test_arrays_keep_away_from_kinks_and_from_ties(x):
    assert x.dtype == np.float64
    assert np.all(np.abs(x) > 0.049)
    assert np.all(np.abs(x - 1) > 0.049)
    assert np.all(np.diff(np.sort(x, axis=None)) > 0.049)


@given(strategies.arrays((2, 3), away_from=[0.0]))
def test_a_function_with_a_kink_can_be_checked(x):
    check_grads(abs, (x,), order=1, directions=1)


@given(strategies.broadcastable_shapes(3))
def test_shapes_broadcast(shapes):
    assert np.broadcast_shapes(*shapes) is not None


@given(strategies.pytrees(strategies.arrays((2,))))
def test_pytrees_have_array_leaves(tree):
    assert leaves(tree)
    assert all(x.shape == (2,) for x in leaves(tree))


@pytest.mark.parametrize("dtype", ["float32", "complex64", "complex128", "int64"])
def test_dtypes_and_backends(dtype, backend):
    @given(strategies.arrays((2,), dtype=dtype, backend=backend))
    def check(x):
        assert backend.to_numpy(x).dtype == dtype

    check()


def test_too_many_distinct_values_are_refused():
    @given(strategies.arrays((10,), low=0, high=0.2, distinct=True))
    def check(x):
        pass

    with pytest.raises(ValueError, match="too few for an array of shape"):
        check()
