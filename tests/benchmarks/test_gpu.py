"""The benchmark for GPUs: its nets are the same function in every library, and what fails there fails alone."""

import json
import os
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest

import gpubp as bp
from benchmarks.gpu import clocks
from benchmarks.gpu.__main__ import compare, main, run
from benchmarks.gpu.contenders import Apart, Job, Local, make
from benchmarks.gpu.rows import ROWS
from benchmarks.gpu.table import goal, markdown

CUPY = sys.modules.get("cupy")  # on a GPU, or the stand-in in its place
OURS = ["gpubp", "gpubp captured"]


@pytest.fixture(autouse=True)
def float32_products_as_before():
    before = sys.modules["gpubp.products"].float32_products
    yield
    bp.matmul_precision(before)


def rehearse(tmp_path, rows, contenders, start=Local, device="cpu", **options):
    figures = run(rows, contenders, device, small=True, seconds=0.01, out=tmp_path / "gpu", start=start, **options)
    assert json.loads((tmp_path / "gpu.json").read_text()) == figures
    return figures


def check(figures, contenders, apart):
    for row in figures["rows"].values():
        assert set(row["contenders"]) == set(contenders)
        for name, result in row["contenders"].items():
            assert "failed" not in result, f"{name}: {result['failed']}"
            assert "disagrees" not in result, f"{name}: {result['disagrees']}"
            assert max(result["apart"]["losses"], result["apart"]["moved"]) <= apart
            assert result["ms"] > 0
            assert result["host_us"] > 0


@pytest.mark.parametrize("row", ROWS)
def test_gpubp_runs_every_row(row, tmp_path):
    figures = rehearse(tmp_path, [row], OURS)
    check(figures, OURS, 0.0 if CUPY is None else 1e-12)
    assert all(result["peak_mb"] > 0 for result in figures["rows"][row]["contenders"].values())
    learned = figures["rows"][row]["contenders"]["gpubp"]["losses"]
    assert row == "adam" or learned[-1] < learned[0]


@pytest.mark.peers
@pytest.mark.parametrize("row", ROWS)
def test_every_library_computes_the_same(row, tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("jax")
    names = ["gpubp", "PyTorch", "JAX"]
    check(rehearse(tmp_path, [row], names), names, 1e-5 if row == "gpt" else 1e-11)


@pytest.mark.peers
@pytest.mark.parametrize("row", ["xor", "gpt", "adam"])
def test_what_is_compiled_computes_the_same(row, tmp_path):
    torch = pytest.importorskip("torch")
    names = ["gpubp", "torch.compile"]
    check(rehearse(tmp_path, [row], names), names, 1e-5 if row == "adam" else 1e-11)
    torch._dynamo.reset()


# -- on a GPU, or with the CuPy stand-in in its place


class Event:
    """An event of the stand-in, which computes while one waits."""

    def record(self):
        self.time = time.perf_counter()

    def synchronize(self):
        pass


@pytest.fixture
def cuda(monkeypatch):
    if CUPY is None:
        pytest.skip("for a GPU, or -p tests.fake_cupy")
    if hasattr(CUPY, "no_host_reads"):  # the stand-in has no clock and no memory
        events = {"Event": Event, "get_elapsed_time": lambda a, b: 1e3 * (b.time - a.time)}
        for name, value in {**events, "MemoryHook": Hook}.items():
            monkeypatch.setattr(CUPY.cuda, name, value, raising=False)
        monkeypatch.setattr(CUPY.cuda.runtime, "runtimeGetVersion", lambda: 13000, raising=False)
        monkeypatch.setattr(CUPY.cuda.Device, "synchronize", lambda self: None, raising=False)
        pool = SimpleNamespace(used_bytes=lambda: 1000)
        monkeypatch.setattr(CUPY, "get_default_memory_pool", lambda: pool, raising=False)


class Hook:
    """A memory hook that sees two arrays come and one go."""

    def __enter__(self):
        self.malloc_postprocess(device_id=0, size=500, mem_size=512, mem_ptr=1, pmem_id=1)
        self.malloc_postprocess(device_id=0, size=500, mem_size=512, mem_ptr=2, pmem_id=2)
        self.free_postprocess(device_id=0, mem_size=512, mem_ptr=1, pmem_id=1)
        self.malloc_postprocess(device_id=0, size=200, mem_size=256, mem_ptr=1, pmem_id=3)
        return self

    def __exit__(self, *_):
        pass


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("row", ROWS)
def test_gpubp_runs_every_row_on_cuda(row, name, tmp_path, cuda):
    figures = rehearse(tmp_path, [row], [name], device="cuda")
    check(figures, [name], 0.0)
    assert figures["machine"]["driver's CUDA"]
    found = figures["rows"][row]["contenders"][name]["losses"]
    expected = rehearse(tmp_path, [row], ["gpubp"])["rows"][row]["contenders"]["gpubp"]["losses"]  # in float64
    np.testing.assert_allclose(found[:1], expected[:1], rtol=5e-3)
    np.testing.assert_allclose(found[1:3], expected[1:3], rtol=5e-2)  # with toys' batches rounding grows fast


def test_the_peak_of_memory_is_what_a_hook_sees(cuda):
    if not hasattr(CUPY, "no_host_reads"):
        pytest.skip("this is about the stand-in's hook")
    assert clocks.CupyClock().peak(lambda: None) == 1000 + 2 * 512


# -- what fails, fails alone


def troubled(job, task):
    """Make a contender, or in the place of some one that dies, hangs, raises or learns something else."""
    if job.contender == "gpubp captured":
        os._exit(3)  # as a process does that the driver ends
    if job.contender == "PyTorch graph":
        time.sleep(600)
    if job.contender == "PyTorch":
        raise MemoryError("none left\nfor this")
    contender = make(job._replace(contender="gpubp"), task)
    if job.contender == "JAX":
        step, losses = contender.step, iter([0.5, 0.4] * 3)
        contender.step = lambda: (step(), next(losses, 0.0))[1]
        contender.read = float
    if job.contender == "torch.compile":
        contender.step = step_that_dies_at(contender.step, 7)
    return contender


def step_that_dies_at(step, last):
    calls = iter(range(last))
    return lambda: step() if next(calls, None) is not None else os._exit(4)


def apart(job):
    return Apart(job, troubled)


def test_one_failure_does_not_lose_the_rest(tmp_path):
    names = ["gpubp", "gpubp captured", "PyTorch", "torch.compile", "PyTorch graph", "JAX"]
    figures = rehearse(tmp_path, ["xor"], names, start=apart, timeout=10)
    found = figures["rows"]["xor"]["contenders"]
    assert "exit status 3" in found["gpubp captured"]["failed"]
    assert found["PyTorch"]["failed"].startswith("MemoryError: none left (test_gpu.py:")
    assert "exit status 4" in found["torch.compile"]["failed"]
    assert "no answer within" in found["PyTorch graph"]["failed"]
    assert found["gpubp"]["ms"] > 0
    assert found["JAX"]["ms"] > 0
    assert "losses differ by" in found["JAX"]["disagrees"]
    assert figures["rows"]["xor"]["goal"] == "DISAGREES"
    page = (tmp_path / "gpu.md").read_text()
    assert "- xor, torch.compile: its process died with exit status 4" in page
    assert " DISAGREES | " in page


def test_rows_for_which_no_time_is_left_are_named(tmp_path):
    figures = rehearse(tmp_path, ["xor", "mlp"], ["gpubp"], minutes=0.0)
    assert [row["skipped"] for row in figures["rows"].values()] == ["no time left"] * 2
    assert "- mlp: not run: no time left" in (tmp_path / "gpu.md").read_text()


# -- what is compared, and the goal

STEPS = {"losses": [2.0, 1.0], "moved": {"W": np.array([1.0, -1.0])}, "start": {"W": np.ones(2)}}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({}, None),
        ({"losses": [2.0, 1.0 + 1e-7]}, "losses differ by 1.0e-07"),
        ({"losses": [2.0, np.nan]}, "losses differ by nan"),
        ({"losses": [2.0]}, "1 losses, not 2"),
        ({"moved": {"W": np.array([1.0, -1.001])}}, "W moved otherwise by 7.1e-04"),
        ({"moved": {"W": np.array([1.0, np.nan])}}, "W moved otherwise by nan"),
    ],
)
def test_what_disagrees_is_told(change, told):
    found = compare({**STEPS, **change}, STEPS, "float64", adam=True).get("disagrees")
    assert found is None if told is None else told in found


def row_of(captured, compiled, eager=1.0, **more):
    torch = 1.0
    times = {"gpubp": eager, "PyTorch": torch, "gpubp captured": captured, "torch.compile": compiled}
    found = {name: {"ms": ms, **more.get(name, {})} for name, ms in times.items()}
    found["gpubp captured"] |= more.get("share", {})
    pairs = {"gpubp captured / torch.compile": captured / compiled, "gpubp / PyTorch": eager / torch}
    return {"contenders": found, "ratios": pairs}


def test_the_goal_of_a_row():
    assert goal(row_of(1.0, 1.0)) == "yes"
    assert goal(row_of(1.1, 1.0)) == "no"
    assert goal(row_of(1.0, 1.1, eager=2.0)) == "no"
    assert goal({**row_of(1.0, 1.0, share={"share": 0.84}), "peak": {}}) == "no"
    assert goal({**row_of(1.0, 1.0, share={"share": 0.86}), "peak": {}}) == "yes"
    assert goal({**row_of(1.0, 1.0), "peak": {}}) == "not all ran"
    assert goal(row_of(1.0, 1.0, PyTorch={"disagrees": "losses"})) == "DISAGREES"
    assert goal({"contenders": {}, "ratios": {}}) == "not all ran"


def test_the_work_of_a_step():
    assert ROWS["wide-tf32"].work(**ROWS["wide-tf32"].full)["flops"] == 11 * 2 * 4096**3
    assert ROWS["adam"].work(**ROWS["adam"].full)["bytes"] == 28 * 24 * 2048**2


def test_every_row_and_contender_has_a_place_in_the_table():
    row = {"contenders": {"gpubp": {"ms": 1.5, "quartiles": [1.0, 2.0], "host_us": 7.0, "peak_mb": None}},
           "ratios": {}, "goal": "not all ran"}  # fmt: skip
    where = {"machine": {"gpu": "a GPU"}, "commit": "c", "date": "d", "contenders": ["gpubp"], "small": False}
    page = markdown({**where, "rows": dict.fromkeys(ROWS, row)})
    for r in ROWS.values():
        assert f"| {r.title} | 1.5 (1–2) |" in page
    assert "7 µs, ? MB" in page


# -- the command line


@pytest.mark.skipif(CUPY is not None, reason="this is about machines without CuPy")
def test_without_a_gpu_it_says_how_to_rehearse(capsys):
    assert main([]) == 2
    assert capsys.readouterr().out.count("\n") == 1


def test_a_row_that_is_none_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["--rows", "xor,nonesuch"])
    assert "there is no 'nonesuch', but xor, mlp" in capsys.readouterr().err


def test_a_device_that_is_none_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["--device", "gpu"])
    assert "expected cuda, cuda:1 ... or cpu, got 'gpu'" in capsys.readouterr().err


def test_the_command_rehearses(tmp_path, capsys):
    out = tmp_path / "found" / "gpu"
    command = ["--device", "cpu", "--small", "--rows", "xor", "--contenders", "gpubp,PyTorch graph"]
    assert main([*command, "--seconds", "0.02", "--out", str(out)]) == 0
    assert f"wrote {out}.json" in capsys.readouterr().out
    figures = json.loads(out.with_suffix(".json").read_text())
    assert "| toy |" in out.with_suffix(".md").read_text()
    assert list(figures["rows"]["xor"]["contenders"]) == ["gpubp"]  # the other needs a GPU
    assert Job("xor", "gpubp", "cuda", False).precision == "float32"
