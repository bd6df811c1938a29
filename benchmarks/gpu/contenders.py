"""The contenders, each in a process of its own: what it cannot do, and what it breaks, is lost for it alone."""

from __future__ import annotations

import multiprocessing
import os
import platform
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module, metadata
from importlib.util import find_spec
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import numpy as np

from benchmarks.gpu.rows import ROWS, Task, compared

#: How each is made, and the packages whose versions are told.
CONTENDERS: dict[str, tuple[str, dict[str, Any], tuple[str, ...]]] = {
    "gpubp": ("ours.Ours", {}, ("gpubp", "numpy")),
    "gpubp captured": ("ours.Ours", {"captured": True}, ("gpubp", "numpy")),
    "PyTorch": ("in_torch.InTorch", {}, ("torch",)),
    "torch.compile": ("in_torch.InTorch", {"how": "compile"}, ("torch",)),
    "PyTorch graph": ("in_torch.InTorch", {"how": "graph"}, ("torch",)),
    "JAX": ("in_jax.InJax", {}, ("jax",)),
}
GPU_ONLY = ("PyTorch graph",)
CHECKED = 6  #: steps that are compared before any is timed; captured ones are replayed by then
SAMPLED = 4096  #: elements of a parameter that are compared


class Job(NamedTuple):
    """What a contender is to train."""

    row: str
    contender: str
    device: str
    small: bool

    @property
    def precision(self) -> str:
        """float64 on the CPU, where the one question is whether all compute the same function."""
        return ROWS[self.row].precision if self.device.startswith("cuda") else "float64"


def task_of(job: Job) -> Task:
    """Draw a job's net and data."""
    row = ROWS[job.row]
    task = row.make(**(row.toy if job.small else row.full))
    if job.precision != "float64":
        return task

    def widened(x: np.ndarray) -> np.ndarray:
        return x.astype("float64") if x.dtype.kind == "f" else x

    if task.gradients is not None:
        return Task(*({k: widened(x) for k, x in part.items()} if part else () for part in task))
    return Task(task.net.astype("float64"), tuple(map(widened, task.batch)))


def make(job: Job, task: Task) -> Any:
    """Return a contender."""
    place, options, _ = CONTENDERS[job.contender]
    module, _, name = place.rpartition(".")
    made = getattr(import_module(f"benchmarks.gpu.{module}"), name)
    return made(ROWS[job.row], task, job.device, job.precision, **options)


class Here:
    """A contender in this process: answers to requests."""

    def __init__(self, job: Job, make: Callable[[Job, Task], Any] = make) -> None:
        self.job, self.make = job, make

    def prepare(self) -> dict[str, Any]:
        """Make it, take the first steps, and return what is compared: losses, and what the parameters moved by."""
        task = task_of(self.job)
        start = {path: sampled(compared(path, x)) for path, x in parameters(task).items()}
        begin = time.perf_counter()
        self.contender = self.make(self.job, task)
        del task
        losses = []
        for _ in range(CHECKED):
            value = self.contender.step()
            if value is not None:
                losses.append(self.contender.read(value))  # at once: the next step may write there
        after = {path: sampled(compared(path, x)) for path, x in self.contender.parameters().items()}
        if after.keys() != start.keys():
            raise AssertionError(f"its parameters are {sorted(after)}, those of the task {sorted(start)}")
        return {
            "losses": losses,
            "start": start,
            "moved": {path: after[path] - start[path] for path in start},
            "prepared_s": time.perf_counter() - begin,
            "versions": {p: metadata.version(p) for p in CONTENDERS[self.job.contender][2] if find_spec(p)},
        }

    def times(self, seconds: float) -> list[tuple[float, float]]:
        """Return the milliseconds of steps in this time, of the device and of the host that asks for them."""
        clock, step = self.contender.clock, self.contender.step
        for _ in range(3):
            step()
        once = clock.sample(step, 2).device
        n = int(min(max(1.0, 0.05 * 1e3 * seconds / max(once, 1e-3)), 200))  # some twenty samples
        end, found = time.perf_counter() + seconds, []
        while len(found) < 3 or (time.perf_counter() < end and len(found) < 1000):
            device = clock.sample(step, n).device
            found.append((device, clock.sample(step, 1).host))  # alone: a full queue would make the host wait
        return found

    def peak(self) -> float | None:
        """Return the most bytes of arrays that are held in a step."""
        found: float | None = self.contender.clock.peak(self.contender.step)
        return found

    def rate(self, kind: str, n: float) -> float | None:
        """Return the flops or bytes a second that the device can do; None from a contender that does not measure it."""
        if kind == "flops" and hasattr(self.contender, "product_rate"):
            return float(self.contender.product_rate(int(n), self.job.precision))
        if kind == "bytes" and hasattr(self.contender, "copy_rate"):
            return float(self.contender.copy_rate(int(n)))
        return None


def parameters(task: Task) -> dict[str, np.ndarray]:
    """Return the initial values by path."""
    found: dict[str, np.ndarray] = task.net if task.gradients is not None else task.net.parameters()
    return found


def sampled(x: np.ndarray) -> np.ndarray:
    """Return some elements of an array, spread over all of it, in float64."""
    flat = np.asarray(x).reshape(-1)
    if flat.size > SAMPLED:
        flat = flat[np.random.default_rng(0).integers(0, flat.size, SAMPLED)]
    return flat.astype("float64")


class Failed(Exception):
    """What a contender could not do, in a line."""


class Local:
    """A contender in this process, with the face of `Apart`."""

    def __init__(self, job: Job, make: Callable[[Job, Task], Any] = make) -> None:
        self.here = Here(job, make)

    def ask(self, request: str, *args: Any) -> None:
        self.request = request, args

    def answer(self, timeout: float) -> Any:
        name, args = self.request
        try:
            return getattr(self.here, name)(*args)
        except Exception as problem:
            raise Failed(in_a_line(problem)) from problem

    def end(self) -> None:
        """Nothing: it goes with its last reference."""


class Apart:
    """A contender in a process of its own."""

    def __init__(self, job: Job, make: Callable[[Job, Task], Any] = make) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, there = context.Pipe()
        self.process = context.Process(target=serve, args=(there, job, make))
        self.process.start()
        there.close()

    def ask(self, request: str, *args: Any) -> None:
        """Ask for something and do not wait."""
        with suppress(OSError):  # the answer tells
            self.connection.send((request, args))

    def answer(self, timeout: float) -> Any:
        """Return what was asked for, or say why it does not come."""
        try:
            if not self.connection.poll(max(timeout, 0)):
                self.process.kill()
                raise Failed(f"no answer within {timeout:.0f} s")
            kind, found = self.connection.recv()
        except (EOFError, OSError):
            self.process.join(5)
            raise Failed(f"its process died with exit status {self.process.exitcode}") from None
        if kind == "failed":
            raise Failed(found)
        return found

    def end(self) -> None:
        """End its process."""
        self.connection.close()
        self.process.join(10)
        if self.process.is_alive():
            self.process.kill()


def serve(connection: Connection, job: Job, make: Callable[[Job, Task], Any]) -> None:
    """Answer requests until the other side is closed."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    here = Here(job, make)
    while True:
        try:
            request, args = connection.recv()
        except (EOFError, OSError):
            return
        try:
            answer = "done", getattr(here, request)(*args)
        except Exception as problem:
            answer = "failed", in_a_line(problem)
        connection.send(answer)


def in_a_line(problem: BaseException) -> str:
    """Return an exception and where in these files it came from."""
    first = next(iter(str(problem).strip().splitlines()), "")
    inner = traceback.extract_tb(problem.__traceback__)
    where = f" ({os.path.basename(inner[-1].filename)}:{inner[-1].lineno})" if inner else ""
    return f"{type(problem).__name__}: {first[:300]}{where}"


def machine(device: str) -> dict[str, str]:
    """Return what is computed on, by name."""
    found = {"python": platform.python_version(), "system": platform.platform(), "device": device}
    if device.startswith("cuda"):
        import cupy

        from gpubp.device import cuda_devices

        runtime = cupy.cuda.runtime
        index = int(device.partition(":")[2] or 0)
        found |= {"gpu": cuda_devices()[index], "cupy": cupy.__version__}
        for name, version in (("driver's CUDA", runtime.driverGetVersion()), ("CUDA", runtime.runtimeGetVersion())):
            found[name] = f"{version // 1000}.{version % 1000 // 10}"
        found |= _driver(index)
    else:
        found["gpu"] = "none: the CPU"
    return found


def _driver(index: int) -> dict[str, str]:
    import shutil
    import subprocess

    if shutil.which("nvidia-smi") is None:
        return {}
    command = ["nvidia-smi", f"--id={index}", "--query-gpu=driver_version", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True)
    return {"driver": done.stdout.strip()} if done.returncode == 0 else {}
