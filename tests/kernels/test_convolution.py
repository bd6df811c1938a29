"""Convolution at sizes of many blocks, with channels read one by one or sixteen bytes at a time, and in 16 bits."""

import numpy as np
import pytest

import gpubp as bp
from gpubp.device import to_numpy
from gpubp.fused import FUSED

from .agreement import DTYPES, assert_agrees

RNG = np.random.default_rng(0)
BOTH = ["convolution", "convolution_transpose"]

#: Shapes of x and W, and options.
CASES = {
    "three channels": ((3, 9, 12, 3), (3, 3, 3, 8), {"padding": 1}),
    "stride": ((2, 11, 9, 8), (3, 3, 8, 16), {"padding": "same", "stride": 2}),
    "stride and dilation": ((2, 13, 11, 4), (2, 3, 4, 5), {"stride": (2, 1), "dilation": (3, 2), "padding": (0, 2)}),
    "fewer outputs": ((2, 9, 8, 16), (3, 3, 16, 8), {"padding": ((1, 0), (0, 2))}),
    "one by one": ((3, 7, 5, 24), (1, 1, 24, 16), {}),
    "one by one, stride": ((3, 7, 5, 8), (1, 1, 8, 16), {"stride": 2}),
    "more padding than window": ((2, 6, 4, 9), (2, 1, 9, 10), {"padding": ((2, 3), (1, 1))}),
    "one axis": ((3, 70, 16), (5, 16, 8), {"dilation": 3, "padding": "same"}),
    "three axes": ((2, 4, 3, 5, 8), (2, 3, 2, 8, 3), {"stride": (2, 1, 1), "padding": 1}),
    "groups": ((2, 7, 6, 24), (3, 3, 8, 9), {"groups": 3, "padding": 1}),
    "groups, stride": ((2, 7, 6, 16), (3, 2, 8, 16), {"groups": 2, "stride": 2}),
    "groups, one by one": ((2, 7, 6, 6), (1, 1, 2, 9), {"groups": 3}),
    "depthwise": ((3, 9, 6, 16), (3, 3, 1, 16), {"groups": 16, "padding": 1}),
    "depthwise, odd": ((3, 9, 7, 5), (3, 3, 1, 5), {"groups": 5, "padding": ((1, 0), (0, 2)), "stride": (2, 3)}),
    "depthwise, large window": ((2, 30, 8), (12, 1, 8), {"groups": 8, "padding": "same", "dilation": 2}),
    "depthwise, many channels": ((2, 5, 4, 72), (2, 2, 1, 72), {"groups": 72}),
    "depthwise, two outputs each": ((3, 12, 11, 3), (3, 3, 1, 6), {"groups": 3, "padding": 1}),
    "depthwise, three axes": ((3, 4, 4, 3, 4), (2, 2, 2, 1, 4), {"groups": 4, "stride": (2, 1, 2), "padding": 1}),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", BOTH)
def test_every_way_to_convolve(backend, name, case, dtype):
    x, W, options = CASES[case]
    rest = {"activation": "relu"} if name == "convolution" and "16" not in dtype else {}
    assert_agrees(backend, name, *(RNG.normal(size=s) for s in (x, W, W[-1:])), dtype=dtype, **options, **rest)


@pytest.mark.parametrize("case", ["stride", "depthwise", "groups"])
@pytest.mark.parametrize("name", BOTH)
def test_arrays_as_they_lie(backend, name, case):
    """Arrays may begin where sixteen bytes may not be read at once, or be transposed, and a cotangent have gaps."""
    shape, window, options = CASES[case]
    host = [RNG.normal(size=s).astype("f4") for s in (shape, window)]
    xp = backend.xp

    def elsewhere(x):
        return xp.reshape(backend.asarray(np.concatenate([np.zeros(1, "f4"), x.reshape(-1)]))[1:], x.shape)

    def transposed(x):
        return xp.permute_dims(backend.asarray(np.ascontiguousarray(x.T)), tuple(reversed(range(x.ndim))))

    f = FUSED[name]
    exact = [x.astype("f8") for x in host]
    expected, reference = bp.vjp(lambda *args: f.reference(*args, **options), *exact)
    dY = RNG.normal(size=(*expected.shape[:-1], 2 * expected.shape[-1])).astype("f4")
    wanted = reference(dY[..., ::2].astype("f8"))
    for move in (elsewhere, transposed):
        y, pullback = bp.vjp(lambda *args: f(*args, **options), *map(move, host))
        np.testing.assert_allclose(to_numpy(y), expected, rtol=1e-4, atol=1e-4)
        for found, e in zip(pullback(backend.asarray(dY)[..., ::2]), wanted, strict=True):
            np.testing.assert_allclose(to_numpy(found), e, rtol=1e-4, atol=1e-4)


def test_results_repeat_to_the_bit(backend):
    x, W, options = CASES["depthwise"]
    args = [backend.asarray(RNG.normal(size=s).astype("f4")) for s in (x, W)]

    def run():
        y, pullback = bp.vjp(lambda *args: FUSED["convolution"](*args, **options), *args)
        return [to_numpy(a).tobytes() for a in (y, *pullback(y))]

    assert run() == run()


def test_what_is_not_finite_stays_where_it_is(backend):
    """Neither zeros around the input nor windows beside it make NaN of infinity."""
    x = np.ones((1, 6, 6, 4), "f4")
    x[0, 2, 3, 1], x[0, 5, 0, 2] = np.inf, np.nan
    for W, options in ((np.ones((3, 3, 4, 4), "f4"), {}), (np.ones((3, 3, 1, 4), "f4"), {"groups": 4})):
        y = FUSED["convolution"](backend.asarray(x), backend.asarray(W), padding=1, **options)
        expected = FUSED["convolution"].reference(x, W, padding=1, **options)
        np.testing.assert_array_equal(to_numpy(y), expected)
