"""Recurrent networks at sizes of many blocks, in 16 bits, over many steps, and what else kernels might do wrong."""

import numpy as np
import pytest

import gpubp as bp
from gpubp import functions as F
from gpubp.device import to_numpy
from gpubp.fused import FUSED, load_kernels
from gpubp.tree import leaves

from .agreement import assert_agrees

DTYPES = ["float64", "float32", "float16", "bfloat16"]
GATES = {"rnn": 1, "lstm": 4, "gru": 3}
RNG = np.random.default_rng(0)
names = pytest.mark.parametrize("name", GATES)


def arguments(name, batch, time, n_in, n):
    """Return x, W, U, the biases and the states, of a size that does not saturate."""
    g = GATES[name] * n
    args = [
        RNG.normal(size=(batch, time, n_in)),
        RNG.normal(size=(n_in, g)) / n_in**0.5,
        RNG.normal(size=(n, g)) / n**0.5,
        RNG.normal(size=g),
        *([RNG.normal(size=n)] if name == "gru" else []),
    ]
    return [*args, *(RNG.normal(size=(batch, n)) / 2 for _ in range(1 + (name == "lstm")))]


def on(backend, args, dtype="float64"):
    return [a if a is None else backend.asarray(a.astype(dtype) if a.dtype != bool else a) for a in args]


def alike(found, expected, tolerance=0.0):
    for a, e in zip(leaves(found), leaves(expected), strict=True):
        np.testing.assert_allclose(to_numpy(a), to_numpy(e), rtol=tolerance, atol=tolerance)


def pulled(f, args, *cotangents):
    return bp.vjp(f, *args)[1](cotangents)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("size", [(37, 5, 6, 33), (2, 7, 65, 130), (300, 1, 2, 5)])
@names
def test_sequences(backend, name, size, reverse, dtype):
    assert_agrees(backend, name, *arguments(name, *size), dtype=dtype, reverse=reverse)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reverse", [False, True])
@names
def test_masked_sequences(backend, name, reverse, dtype):
    mask = RNG.random((37, 5)) < 0.6
    mask[3], mask[:, 2] = False, False
    assert_agrees(backend, name, *arguments(name, 37, 5, 6, 33), mask, dtype=dtype, reverse=reverse)


@pytest.mark.parametrize("dtype", DTYPES)
def test_rectified_sequences(backend, dtype):
    args = arguments("rnn", 37, 5, 6, 33)
    args[0], args[3] = 0.1 * args[0], args[3] + np.sign(args[3])  # away from the kink
    args[2], args[4] = 0.05 * args[2], 0.1 * args[4]
    assert_agrees(backend, "rnn", *args, dtype=dtype, activation="relu")


@pytest.mark.parametrize("dtype", DTYPES)
@names
def test_steps(backend, name, dtype):
    x, W, U, *others = arguments(name, 37, 1, 6, 33)
    biases, states = (others[:2], others[2:]) if name == "gru" else (others[:1], others[1:])
    assert_agrees(backend, f"{name}_cell", x[:, 0], *states, W, U, *biases, dtype=dtype)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_long_sums_keep_their_digits(backend, dtype):
    """A cell that only adds, and a unit that hardly moves: in 16 bits both would soon stand still."""
    if backend.name != "cupy":
        pytest.skip("other libraries round each step to 16 bits")
    time, n = 600, 3
    W, U = np.zeros((1, 4 * n)), np.zeros((n, 4 * n))
    b = np.repeat([-6.0, 40.0, 0.5, 0.0], n)  # i, f, g, o
    assert_agrees(backend, "lstm", np.zeros((2, time, 1)), W, U, b, dtype=dtype)
    b = np.repeat([0.0, 6.0, 0.5], n)  # r, z, n
    assert_agrees(backend, "gru", np.zeros((2, time, 1)), W[:, : 3 * n], U[:, : 3 * n], b, dtype=dtype)


@names
def test_the_kernels_take_part(backend, name):
    """One kernel for each step, one product, and one for all inputs; backward as many, and those of the weights."""
    if backend.name != "cupy":
        pytest.skip("kernels of CuPy")
    load_kernels("cupy")
    from gpubp.kernels.cupy import recurrent

    counts = {"products": 0, "kernels": 0}
    cell, product, repeated = getattr(recurrent, name.upper()), recurrent.product, recurrent.repeated

    def multiply(*args, **options):
        counts["products"] += 1
        return product(*args, **options)

    def repeatedly(*args, **options):
        once = repeated(*args, **options)

        def multiply(a, out):
            counts["products"] += 1
            once(a, out)

        return multiply

    class Counted:
        def __init__(self, kernel):
            self.kernel = kernel

        def compiled(self, **types):
            launch = self.kernel.compiled(**types)

            def counted(*args):
                counts["kernels"] += 1
                launch(*args)

            return counted

    args = on(backend, arguments(name, 3, 5, 2, 4))
    counting = cell._replace(forward=Counted(cell.forward), backward=Counted(cell.backward))
    implementation = FUSED[name].overrides["cupy"]
    with pytest.MonkeyPatch.context() as patch:
        for attribute, value in [("product", multiply), ("repeated", repeatedly), (name.upper(), counting)]:
            patch.setattr(recurrent, attribute, value)
        out, residuals = implementation.forward(backend.xp, (True,) * len(args), *args)
        assert counts == {"products": 6, "kernels": 5}
        implementation.backward(backend.xp, (True,) * len(args), out, residuals)
        assert counts == {"products": 6 + 5 + 3, "kernels": 10}


@names
def test_cotangents_may_lie_anyhow(backend, name):
    xp, args = backend.xp, on(backend, arguments(name, 3, 4, 2, 5))
    wide = backend.asarray(RNG.normal(size=(4, 6, 10)))
    strided, row = xp.permute_dims(wide[:, ::2, ::2], (1, 0, 2)), backend.asarray(RNG.normal(size=5))
    states = [backend.asarray(RNG.normal(size=(5, 3)).T) for _ in range(1 + (name == "lstm"))]
    for dY in (strided, xp.permute_dims(wide[:, ::2, :5], (1, 0, 2)), xp.broadcast_to(row, (3, 4, 5))):
        plain = [xp.asarray(backend.asarray(to_numpy(d).copy())) for d in (dY, *states)]
        alike(pulled(FUSED[name], args, dY, *states), pulled(FUSED[name], args, *plain), 1e-14)  # a BLAS may differ


@names
def test_a_pullback_can_be_called_again(backend, name):
    args = on(backend, arguments(name, 3, 4, 2, 5))
    mask = backend.asarray(RNG.random((3, 4)) < 0.5)
    out, pullback = bp.vjp(lambda *a: FUSED[name](*a, mask), *args)
    first = pullback(out)
    pullback(tuple(3 * y for y in out))
    alike(pullback(out), first)


@names
def test_values_do_not_depend_on_who_wants_a_gradient(backend, name):
    args = on(backend, arguments(name, 5, 6, 2, 3))
    mask = backend.asarray(RNG.random((5, 6)) < 0.7)
    for reverse in (False, True):
        found = FUSED[name](*args, mask, reverse=reverse)
        expected, _ = bp.vjp(lambda *a, reverse=reverse: FUSED[name](*a, mask, reverse=reverse), *args)
        alike(found, expected, 1e-14)


@names
def test_what_is_not_finite_stays_in_its_sequence_and_behind_its_mask(backend, name):
    args = arguments(name, 4, 5, 3, 6)
    mask = np.ones((4, 5), dtype=bool)
    mask[2, 3:] = False
    expected = FUSED[name](*on(backend, args), backend.asarray(mask))
    x = args[0] = args[0].copy()
    x[0, 1], x[1, 2], x[2, 3:] = np.nan, np.inf, np.nan
    found = FUSED[name](*on(backend, args), backend.asarray(mask))
    for f, e in zip(found, expected, strict=True):
        alike(f[2:, ...], e[2:, ...])
        assert np.isnan(to_numpy(f)[0, -1]).all()
    assert np.isfinite(to_numpy(found[0])[:2, 0]).all()


@names
def test_a_rectifier_passes_nan_and_huge_inputs_saturate(backend, name):
    args = arguments(name, 2, 3, 2, 4)
    bound = max(1, *(abs(state).max() for state in args[4:]))  # a gate of 1 keeps the initial state
    for dtype in ("float32", "float64"):
        args[0] = np.where(args[0] > 0, 1e30, -1e30)
        y = to_numpy(FUSED[name](*on(backend, args, dtype))[0])
        assert np.isfinite(y).all()
        assert (abs(y) <= bound + 1e-6).all()
    x = np.full((1, 2, 1), np.nan)
    one = np.ones((1, 1))
    assert np.isnan(to_numpy(F.rnn(*on(backend, [x, one, one]), activation="relu")[0])).all()
