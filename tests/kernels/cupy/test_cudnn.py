"""Convolutions by cuDNN: what it is asked for, that plans are kept, and what happens where it has none."""

import warnings
from importlib import import_module

import cupy
import numpy as np
import pytest

import gpubp as bp
from gpubp.fused import FUSED
from gpubp.kernels.cupy import frontend

from ..agreement import DTYPES, assert_agrees
from ..test_convolution import BOTH, CASES

RNG = np.random.default_rng(0)

#: The cases that are asked for: no plain products, and nothing that has kernels of its own.
ASKED = [c for c in CASES if "depthwise" not in c and c not in ("one by one", "groups, one by one")]


@pytest.fixture
def fake(monkeypatch, backend):
    """A cuDNN that computes on the host."""
    module = pytest.importorskip("tests.fake_cudnn").Cudnn()
    if not hasattr(cupy, "_new"):
        pytest.skip("the memory is a GPU's, where the module itself is tested")
    monkeypatch.setattr(frontend, "library", lambda: module)
    monkeypatch.setattr(frontend, "of_thread", frontend._Thread())
    monkeypatch.setattr(frontend, "_said", set())
    return module


def run_all(*cases):
    for case in cases:
        run("convolution", case)


def run(name, case, dtype="float32"):
    x, W, options = CASES[case]
    assert_agrees(
        import_module("gpubp.testing.backends").load("cupy"),
        name,
        *(RNG.normal(size=s) for s in (x, W, W[-1:])),
        dtype=dtype,
        **options,
    )


@pytest.mark.parametrize("dtype", [d for d in DTYPES if d != "float64"])
@pytest.mark.parametrize("case", ASKED)
@pytest.mark.parametrize("name", BOTH)
def test_all_three_products(fake, name, case, dtype):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(name, case, dtype)
    assert sorted(operation for operation, *_ in fake.ran) == ["dgrad", "fprop", "wgrad"]


def test_what_it_is_told(fake):
    """Channels are the second axis of cuDNN's, and the last in memory; filters begin with the outputs."""
    run("convolution", "stride")
    assert [dims for _, dims, _ in fake.ran] == [
        [[2, 8, 11, 9], [16, 8, 3, 3], [2, 16, 6, 5]],
        [[2, 16, 6, 5], [16, 8, 3, 3], [2, 8, 11, 9]],
        [[2, 8, 11, 9], [2, 16, 6, 5], [16, 8, 3, 3]],
    ]
    fake.ran.clear()
    run("convolution", "one axis")
    assert fake.ran[0][1] == [[3, 16, 1, 70], [8, 16, 1, 5], [3, 8, 1, 70]]


@pytest.mark.parametrize("case", [c for c in CASES if c not in ASKED])
def test_what_it_is_not_asked_for(fake, case):
    run("convolution", case)
    assert fake.ran == []


def test_float64_takes_the_usual_way(fake):
    run("convolution", "stride", "float64")
    assert fake.ran == []


def test_precision_and_repeatability(fake):
    """TF32 by the policy, no sums in float16, and never an algorithm that does not repeat its results."""
    run("convolution", "stride")
    with bp.matmul_precision("tf32"):
        x, W, options = CASES["stride"]
        FUSED["convolution"](*(cupy.asarray(RNG.normal(size=s).astype("f4")) for s in (x, W)), **options)
    run("convolution", "stride", "float16")
    found = [unwanted for *_, unwanted in fake.ran]
    assert found[:3] == [["NONDETERMINISTIC", "DOWN_CONVERT_INPUTS", "TENSOR_CORE"]] * 3
    assert found[3] == ["NONDETERMINISTIC", "DOWN_CONVERT_INPUTS"]
    assert found[4:] == [["NONDETERMINISTIC"]] * 3


def test_plans_are_kept_and_bounded(fake, monkeypatch):
    for _ in range(3):
        run("convolution", "stride")
    assert (len(fake.graphs), len(fake.ran)) == (3, 9)
    monkeypatch.setattr(frontend, "PLANS", 4)
    run("convolution", "groups")
    assert len(frontend.of_thread.plans) == 6 - 2
    run("convolution", "stride")
    assert len(fake.graphs) == 3 + 3 + 3
    assert sum(ref() is not None for ref in fake.graphs) == 4


@pytest.mark.parametrize("refused", [{"fprop"}, {"dgrad"}, {"wgrad"}, {"fprop", "dgrad", "wgrad"}])
def test_without_a_plan_it_takes_the_usual_way_and_says_so_once(fake, refused):
    fake.refused = refused
    with pytest.warns(UserWarning, match="cuDNN has no plan for a convolution.*No valid engine configs") as said:
        run_all("stride", "groups", "stride")
    assert len([w for w in said if "cuDNN" in str(w.message)]) == len(refused)
    assert {operation for operation, *_ in fake.ran} == {"fprop", "dgrad", "wgrad"} - refused


def test_arrays_that_begin_where_cudnn_may_not_read(fake):
    x, W, options = CASES["stride"]
    room = cupy.asarray(RNG.normal(size=1 + int(np.prod(x))).astype("f4"))
    moved, weights = room[1:].reshape(x), cupy.asarray(RNG.normal(size=W).astype("f4"))
    y = FUSED["convolution"](moved, weights, **options)
    assert fake.ran == []
    expected = FUSED["convolution"](moved.copy(), weights, **options)
    assert len(fake.ran) == 1
    np.testing.assert_allclose(y.get(), expected.get(), rtol=1e-5, atol=1e-5)


def test_a_captured_step_runs_it_on_its_stream(fake):
    x, W, options = CASES["stride"]
    weights = cupy.asarray(RNG.normal(size=W).astype("f4"))

    @bp.capture
    def step(x):
        return bp.value_and_grad(lambda W: (FUSED["convolution"](x, W, **options) ** 2).sum())(weights)

    for _ in range(6):
        host = RNG.normal(size=x).astype("f4")
        found = step(cupy.asarray(host))
        exact = bp.value_and_grad(lambda W, h=host: (FUSED["convolution"](h, W, **options) ** 2).sum())(weights.get())
        for f, e in zip(found, exact, strict=True):
            np.testing.assert_allclose(f.get(), e, rtol=1e-4, atol=1e-3)
    assert step.launches > 0, step.reason
