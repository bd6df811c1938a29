"""Attention by cuDNN: what it is asked, in which cases, and what then comes out."""

import cupy
import numpy as np
import pytest

import gpubp as bp
from gpubp import functions as F
from gpubp.fused import load_kernels
from gpubp.testing.backends import load
from tests import host_cuda
from tests.kernels.agreement import assert_agrees

load_kernels("cupy")
from gpubp.kernels.cupy import frontend  # noqa: E402

if not hasattr(host_cuda, "watchers") or not hasattr(cupy.ndarray, "_data"):
    pytest.skip("computes on the host what cuDNN does", allow_module_level=True)

from tests import fake_sdpa as fake  # noqa: E402

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def installed(monkeypatch):
    """nvidia-cudnn-frontend, in whose place stands what computes on the host."""
    monkeypatch.setattr(frontend, "library", lambda: fake.library)
    monkeypatch.setattr(frontend, "of_thread", frontend._Thread())
    monkeypatch.setattr(frontend, "_said", set())
    monkeypatch.setattr(fake.Graph, "made", [])
    monkeypatch.setattr(fake.Graph, "refused", set())
    if not hasattr(cupy.cuda, "get_current_stream"):
        stream = type("Stream", (), {"ptr": 7, "is_capturing": lambda self: False})()
        monkeypatch.setattr(cupy.cuda, "get_current_stream", lambda: stream, raising=False)


def sequences(queries, keys, heads=2, features=8, values=16, batch=(2,)):
    shapes = [(queries, heads, features), (keys, heads, features), (keys, heads, values)]
    return [RNG.normal(size=(*batch, *shape)) for shape in shapes]


def operations():
    return [g.operation for g in fake.Graph.made if g.runs]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("size", "batch"), [((9, 9), (2,)), ((5, 12), (2, 3)), ((1, 7), ()), ((6, 6, 1), (2,))])
def test_values_and_gradients(size, batch, causal, dtype):
    assert_agrees(load("cupy"), "attention", *sequences(*size, batch=batch), dtype=dtype, causal=causal)
    assert operations() == ["sdpa", "sdpa_backward"]


def test_a_scale(monkeypatch):
    assert_agrees(load("cupy"), "attention", *sequences(4, 5), dtype="float16", scale=0.1)
    assert {g.given["attn_scale"] for g in fake.Graph.made} == {0.1}


def test_views_of_one_projection_are_not_copied():
    whole = cupy.asarray(RNG.normal(size=(2, 6, 3, 4, 8)).astype("float16"))
    parts = [whole[:, :, k] for k in range(3)]
    copy, cupy.ndarray.copy = cupy.ndarray.copy, None
    try:
        found = F.attention(*parts, causal=True)
    finally:
        cupy.ndarray.copy = copy
    (graph,) = fake.Graph.made
    assert graph.given["q"].stride == [6 * 96, 8, 96, 1]
    assert graph.given["generate_stats"] is False
    exact = F.attention.reference(*(p.get().astype("f8") for p in parts), causal=True)
    np.testing.assert_allclose(found.get().astype("f8"), exact, atol=4e-3)


def test_what_lies_otherwise_is_copied():
    q, k, v = (cupy.asarray(x.astype("float16")) for x in sequences(4, 5))
    wide = cupy.asarray(np.zeros((2, 4, 2, 9), "float16"))
    odd = wide[..., 1:]
    odd[...] = q
    skewed = cupy.asarray(np.zeros((2, 4, 2, 16), "float16"))[..., ::2]
    skewed[...] = q
    expected = F.attention(q, k, v)
    for other in (odd, skewed):
        np.testing.assert_array_equal(F.attention(other, k, v).get(), expected.get())
    assert operations() == ["sdpa"]


def test_plans_are_kept():
    args = [cupy.asarray(x.astype("float16")) for x in sequences(4, 5)]
    for _ in range(3):
        y, pullback = bp.vjp(lambda *a: F.attention(*a), *args)
        pullback(y)
    assert [(g.operation, g.runs) for g in fake.Graph.made] == [("sdpa", 3), ("sdpa_backward", 3)]
    F.attention(*(x[:1] for x in args))
    assert len(fake.Graph.made) == 3


@pytest.mark.parametrize(
    ("size", "options"),
    [
        ({"features": 12}, {}),
        ({"values": 4}, {}),
        ({"features": 136}, {}),
        ({"queries": 7}, {"causal": True}),
        ({}, {"dropout": 0.5, "key": (1, 2)}),
        ({}, {"mask": True}),
        ({}, {"dtype": "float32"}),
    ],
)
def test_the_rest_is_left_to_our_kernels(size, options):
    args = sequences(**{"queries": 4, "keys": 5, **size})
    dtype = options.pop("dtype", "float16")
    if options.pop("mask", False):
        args.append(np.array([True, True, False, True, True]))
    if "dropout" in options:
        args += [None, 3]
    assert_agrees(load("cupy"), "attention", *args, dtype=dtype, **options)
    assert fake.Graph.made == []


@pytest.mark.parametrize(("refused", "what"), [("sdpa", "attention"), ("sdpa_backward", "the gradient of attention")])
def test_what_cudnn_has_no_plan_for_is_left_to_our_kernels_too(monkeypatch, refused, what):
    monkeypatch.setattr(fake.Graph, "refused", {refused})
    args = sequences(4, 5)
    with pytest.warns(UserWarning, match=f"no plan for {what}, which takes the usual way: no plan for {refused}"):
        assert_agrees(load("cupy"), "attention", *args, dtype="float16")
    assert operations() == []
    assert_agrees(load("cupy"), "attention", *args, dtype="float16")  # and says so once
    assert len(fake.Graph.made) <= 2


def test_without_the_frontend(monkeypatch):
    monkeypatch.setattr(frontend, "library", lambda: None)
    assert_agrees(load("cupy"), "attention", *sequences(4, 5), dtype="float16")
    assert fake.Graph.made == []


def test_a_captured_step():
    def step(q, k, v):
        y, pullback = bp.vjp(lambda *a: F.attention(*a, causal=True), q, k, v)
        return y, *pullback(y)

    captured = bp.capture(step, required=True)
    for _ in range(5):
        args = [cupy.asarray(x.astype("float16")) for x in sequences(5, 5)]
        for found, expected in zip(captured(*args), step(*args), strict=True):
            np.testing.assert_array_equal(found.get(), expected.get())
    assert captured.launches == 2
