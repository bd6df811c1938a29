import numpy as np
import pytest

import gpubp as bp
from gpubp import functions as F
from gpubp.fused import FUSED
from gpubp.testing.backends import load

rng = np.random.default_rng(0)
table = rng.normal(size=(4, 3))


@pytest.mark.parametrize("f", [F.embedding, F.embedding.reference])
def test_it_takes_rows_whose_gradients_add_up(f):
    indices = np.array([[2, 0], [2, 2]])
    out, pullback = bp.vjp(lambda table: f(indices, table), table)
    np.testing.assert_array_equal(out, table[indices])
    dY = rng.normal(size=(2, 2, 3))
    expected = np.stack([dY[0, 1], np.zeros(3), dY[0, 0] + dY[1, 0] + dY[1, 1], np.zeros(3)])
    np.testing.assert_allclose(pullback(dY)[0], expected, rtol=1e-14)


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64"])
@pytest.mark.parametrize(
    ("rows", "shape", "features"), [(3, (40, 5), 16), (50, (200,), 64), (1, (600,), 1), (300, (7,), 2)]
)
def test_many_repeats_are_summed_as_one_by_one(rows, shape, features, dtype):
    indices = rng.integers(0, rows, shape).astype("uint16")
    dY = rng.normal(size=(*shape, features)).astype(dtype)
    expected = np.zeros((rows, features), dtype="complex128")
    np.add.at(expected, indices, dY)
    for implementation in (FUSED["embedding"].written, FUSED["embedding"].overrides["numpy"]):
        found = implementation.backward(np, (False, True), dY, (indices, (rows, features)))[1]
        assert found.dtype == dtype
        error = 1e-13 if dtype == "float64" else 2e-5
        np.testing.assert_allclose(found, expected, rtol=error, atol=error)


@pytest.mark.peers
def test_pytorch_has_the_same_gradient():
    torch = pytest.importorskip("torch")
    indices = rng.integers(0, 4, (5, 6))
    theirs = torch.tensor(table, requires_grad=True)
    torch.sum(torch.nn.functional.embedding(torch.tensor(indices), theirs) ** 3).backward()
    found = bp.grad(lambda table: np.sum(F.embedding(indices, table) ** 3))(table)
    np.testing.assert_allclose(found, theirs.grad.numpy(), rtol=1e-10)


@pytest.mark.parametrize("f", [F.embedding, F.embedding.reference])
def test_what_does_not_fit_is_named(f):
    for bad in (4, -1):
        with pytest.raises(
            ValueError, match=f"from 0 to 3 with a table of 4 rows, got.* {min(bad, 1)} to {max(bad, 1)}"
        ):
            f(np.array([1, bad]), table)
    with pytest.raises(TypeError, match=r"integer indices, got float64 of shape \(2,\)"):
        f(np.array([0.0, 1.0]), table)
    with pytest.raises(TypeError, match="integer indices, got bool"):
        f(np.array([True]), table)
    with pytest.raises(TypeError, match="table of floating-point numbers, got int64"):
        f(np.array([0]), np.ones((2, 2), dtype="int64"))
    with pytest.raises(ValueError, match=r"table of shape \(rows, features\), got \(4,\)"):
        f(np.array([0]), table[:, 0])
    with pytest.raises(TypeError, match="indices of numpy, table of array_api_strict"):
        f(np.array([0]), load("array_api_strict").asarray(table))
