"""Convolution's ways on CuPy: which is taken for which shapes, and a part at a time."""

from importlib import import_module

import numpy as np
import pytest

from gpubp.fused import FUSED
from gpubp.testing.catalogue import CATALOGUE

from ..agreement import assert_agrees
from ..test_convolution import BOTH, CASES

RNG = np.random.default_rng(0)


@pytest.fixture
def kernels():
    return import_module("gpubp.kernels.cupy.convolution")


@pytest.fixture
def launched(kernels, monkeypatch):
    """How often each kernel and the product were launched."""
    counts = {}

    def watched(name, f):
        def call(*args, **kwargs):
            counts[name] = counts.get(name, 0) + 1
            return f(*args, **kwargs)

        return call

    for name in ("product", "_copy_columns", "_add_columns", "_direct_weights"):
        monkeypatch.setattr(kernels, name, watched(name, getattr(kernels, name)))
    launch = kernels._launch
    monkeypatch.setattr(
        kernels, "_launch", lambda kernel, *args: (watched(kernel.name, launch))(kernel, *args), raising=True
    )
    return counts


WAYS = {
    "one by one": {"product": 3},
    "groups, one by one": {"product": 3},
    "three channels": {"product": 3, "_copy_columns": 2, "_add_columns": 1},
    "fewer outputs": {"product": 3, "_copy_columns": 3},
    "stride": {"product": 3, "_copy_columns": 2, "_add_columns": 1},
    "groups": {"product": 3, "_copy_columns": 3},
    "groups, stride": {"product": 3, "_copy_columns": 2, "_add_columns": 1},
    "depthwise": {"direct_convolution": 1, "direct_convolution_backward": 1, "_direct_weights": 1},
    "depthwise, two outputs each": {
        "direct_convolution": 1,
        "direct_convolution_backward": 1,
        "_direct_weights": 1,
    },
}


@pytest.mark.parametrize("case", WAYS)
def test_which_way_is_taken(backend, kernels, launched, case):
    x, W, options = CASES[case]
    assert_agrees(backend, "convolution", *(RNG.normal(size=s) for s in (x, W, W[-1:])), **options)
    assert launched == WAYS[case]


@pytest.mark.parametrize("size", [1, 3000, 20000])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", BOTH)
def test_parts_make_a_whole(backend, kernels, name, case, size, monkeypatch):
    """With a buffer for one window, or some of an image's, or some images'."""
    x, W, options = CASES[case]
    monkeypatch.setattr(kernels, "BUFFER", size)
    if size == 1:
        monkeypatch.setattr(import_module("gpubp.kernels.cupy.window"), "LIMIT", 9 * 12 * 24)
    assert_agrees(backend, name, *(RNG.normal(size=s) for s in (x, W, W[-1:])), dtype="float64", **options)


@pytest.mark.parametrize("name", [*BOTH, "max_pool", "avg_pool", "adaptive_avg_pool", "global_avg_pool"])
def test_kernels_take_every_real_sample_of_the_catalogue(backend, name):
    """What they decline is compared with nothing, silently."""
    forward = FUSED[name].overrides["cupy"].forward
    for sample in CATALOGUE[name].samples(RNG):
        if all(a is None or (a.size and a.dtype == "float64") for a in sample.args):
            args = [a if a is None else backend.asarray(a) for a in sample.args]
            assert forward(backend.xp, (True,) * len(args), *args, **sample.kwargs) is not NotImplemented, sample
