"""Pooling at sizes of many blocks, with channels read one by one or sixteen bytes at a time, and in 16 bits."""

import numpy as np
import pytest

import gpubp as bp
from gpubp.device import to_numpy
from gpubp.fused import FUSED

from .agreement import DTYPES, assert_agrees

RNG = np.random.default_rng(0)
OPTIONS = [
    {"window": 2},
    {"window": 3, "stride": 2, "padding": "same"},
    {"window": (2, 3), "stride": (3, 1), "padding": ((1, 0), (0, 2))},
]


def distinct(*shape):
    """Draw numbers that stay apart in 16 bits, in each channel of each image; their sums are exact there, too."""
    images, *spatial, channels = shape
    n = int(np.prod(spatial))
    values = np.stack([RNG.permutation(n) for _ in range(images * channels)])
    return np.moveaxis(values.reshape(images, channels, *spatial), 1, -1) - n // 2.0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [3, 16])
@pytest.mark.parametrize("options", OPTIONS)
def test_windows(backend, options, channels, dtype):
    x = distinct(3, 13, 11, channels)
    assert_agrees(backend, "max_pool", x, dtype=dtype, **options)
    assert_agrees(backend, "avg_pool", x, dtype=dtype, **options)
    assert_agrees(backend, "avg_pool", x, dtype=dtype, count_include_pad=False, **options)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(2, 200, 5), (2, 5, 4, 6, 8), (300, 1, 1, 8)])
def test_other_numbers_of_axes(backend, shape, dtype):
    x = distinct(*shape)
    for name in ("max_pool", "avg_pool"):
        assert_agrees(backend, name, x, dtype=dtype, window=3, stride=2, padding=1)


@pytest.mark.parametrize("dtype", ["float64", "float16"])
@pytest.mark.parametrize("channels", [1, 8])
def test_windows_of_more_elements_than_a_byte_counts(backend, channels, dtype):
    assert_agrees(backend, "max_pool", distinct(2, 20, 17, channels), dtype=dtype, window=(18, 16), stride=1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(2, 13, 11, 3), (70, 3, 5, 16), (2, 400, 40), (2, 3, 4, 5, 33)])
def test_bins_and_all_pixels(backend, shape, dtype):
    x = RNG.normal(size=shape)
    assert_agrees(backend, "global_avg_pool", x, dtype=dtype)
    for size in (1, 3, 7):
        assert_agrees(backend, "adaptive_avg_pool", x, dtype=dtype, size=size)


@pytest.mark.parametrize("channels", [1, 4])
def test_maxima_that_are_not_finite(backend, channels):
    """The first of equal elements wins, NaN is above all, and an infinite cotangent goes to the maximum alone."""
    nan, inf = np.nan, np.inf
    line = [1, 1, nan, 2, 3, nan, nan, nan, -inf, -inf, inf, inf, 0.0, -0.0]
    x = np.repeat(np.asarray(line, "f4").reshape(1, -1, 1), channels, axis=-1)
    y, pullback = bp.vjp(lambda x: FUSED["max_pool"](x, window=2), backend.asarray(x))
    dY = np.repeat(np.asarray([1, 2, 3, inf, 5, nan, 7], "f4").reshape(1, -1, 1), channels, axis=-1)
    (dx,) = pullback(backend.asarray(dY))
    for c in range(channels):
        np.testing.assert_array_equal(to_numpy(y)[0, :, c], [1, nan, nan, nan, -inf, inf, 0])
        np.testing.assert_array_equal(to_numpy(dx)[0, :, c], [1, 0, 2, 0, 0, 3, inf, 0, 5, 0, nan, 0, 7, 0])


@pytest.mark.parametrize(
    ("name", "options"), [("max_pool", OPTIONS[1]), ("avg_pool", OPTIONS[1]), ("adaptive_avg_pool", {"size": 4})]
)
def test_arrays_as_they_lie(backend, name, options):
    """An array may begin where sixteen bytes may not be read at once, and a cotangent may have gaps."""
    host = distinct(4, 9, 7, 8).astype("f4")
    room = backend.asarray(np.concatenate([np.zeros(1, "f4"), host.reshape(-1)]))
    x = backend.xp.reshape(room[1:], host.shape)
    f = FUSED[name]
    y, pullback = bp.vjp(lambda x: f(x, **options), x)
    expected, reference = bp.vjp(lambda x: f.reference(x, **options), host.astype("f8"))
    dY = RNG.normal(size=(*expected.shape[:-1], 16))
    (dx,), (wanted,) = pullback(backend.asarray(dY.astype("f4"))[..., ::2]), reference(dY[..., ::2])
    np.testing.assert_allclose(to_numpy(y), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(to_numpy(dx), wanted, rtol=1e-5, atol=1e-5)
