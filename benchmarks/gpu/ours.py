"""gpubp's side: eager, and captured."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

import gpubp as bp
from benchmarks.gpu.clocks import Clock, CupyClock, TracedClock
from benchmarks.gpu.rows import Row, Rule, Task, loss_of
from gpubp import optim
from gpubp.device import device_of
from gpubp.dtypes import bfloat16


def optimizer(rule: Rule, tree: Any) -> optim.Optimizer:
    """Return gpubp's optimizer of a rule."""
    options = {"momentum": rule.momentum} if rule.kind == "SGD" else {}
    made: optim.Optimizer = getattr(optim, rule.kind)(tree, rule.lr, weight_decay=rule.weight_decay, **options)
    return made


class Ours:
    """A net of gpubp in training."""

    def __init__(self, row: Row, task: Task, device: str, precision: str, *, captured: bool = False) -> None:
        on = bp.device(device, verbose=False)
        self.clock: Clock = CupyClock(self._of_graphs) if on.library == "cupy" else TracedClock()
        self.tree: Any = bp.to_device(task.net, on)
        batch = bp.to_device(task.batch, on)
        set_tf32(precision == "tf32")
        opt = optimizer(row.rule, self.tree)
        if task.gradients is None:
            self.tree.train()
            loss = loss_of(row)
            gradient = bp.value_and_grad(bp.mixed(loss, "bfloat16") if precision == "bfloat16" else loss)

            def train_step(x: Any, y: Any) -> Any:
                value, grads = gradient(self.tree, x, y)
                opt.step(grads)
                return value
        else:
            grads = bp.to_device(task.gradients, on)

            def train_step() -> Any:
                opt.step(grads)

        # Where it could not be captured an eager step would be timed: that is to fail.
        self.taken = bp.capture(train_step, required=on.library == "cupy") if captured else train_step
        self.step = lambda: self.taken(*batch)

    def _of_graphs(self) -> int:
        """The bytes that graphs work in, which are theirs alone."""
        recorder = getattr(self.taken, "_recorder", None)
        return 0 if recorder is None else int(recorder.pool.total_bytes())

    def read(self, value: Any) -> float:
        """Return a loss as a number."""
        return float(bp.to_numpy(value))

    def parameters(self) -> dict[str, np.ndarray]:
        """Return the parameters by path."""
        found = self.tree if isinstance(self.tree, dict) else self.tree.parameters()
        return {path: bp.to_numpy(x) for path, x in found.items()}

    def product_rate(self, n: int, precision: str) -> float:
        """Return the flops a second of products of n × n matrices."""
        a, b = (bp.to_device(np.ones((n, n), "float32"), self._device()) for _ in range(2))
        return 2.0 * n**3 / self._fastest(product_of(a, b, precision))

    def copy_rate(self, nbytes: int) -> float:
        """Return the bytes a second that a copy reads and writes."""
        a = bp.to_device(np.ones(nbytes // 4, "float32"), self._device())
        b = a.copy()

        def copy() -> None:
            b[...] = a

        return 2.0 * nbytes / self._fastest(copy)

    def _device(self) -> Any:
        return device_of(bp.tree.leaves(self.tree)[0])

    def _fastest(self, f: Callable[[], Any]) -> float:
        return fastest(self.clock, f)


def fastest(clock: Clock, f: Callable[[], Any], seconds: float = 0.5) -> float:
    """Return the seconds of a call, the least of several samples: what a peak is measured by."""
    f()
    n = max(1, int(20 / max(clock.sample(f, 1).device, 1e-3)))  # 20 ms a sample
    end, found = time.perf_counter() + seconds, []
    while len(found) < 3 or time.perf_counter() < end:
        found.append(clock.sample(f, n).device)
    return 1e-3 * min(found)


def set_tf32(on: bool) -> None:
    """Let products of float32 matrices round their factors to TF32, or not."""
    bp.matmul_precision("tf32" if on else "float32")


def product_of(a: Any, b: Any, precision: str) -> Callable[[], Any]:
    """Return the product of two matrices in a precision, as a step."""
    if device_of(a).library != "cupy":
        return lambda: a @ b
    from gpubp.kernels.cupy.product import product

    if precision == "bfloat16":
        a, b = (x.astype(bfloat16()) for x in (a, b))
    out = a.copy()
    return lambda: product(a, b, out=out)
