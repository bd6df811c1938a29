"""How long a step of each optimizer takes, beside PyTorch's, on one thread.

    python -m benchmarks.optimizers

Medians in milliseconds, in turns, of float32 parameters in matrices and vectors; with the extra `peers`. PyTorch's are
taken as they come, and, where there is one, with ``fused=True``.
"""

from __future__ import annotations

import os
from typing import Any

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"

import numpy as np  # noqa: E402  (the number of threads is read on import)
import torch  # noqa: E402

from benchmarks.timing import medians  # noqa: E402
from gpubp import optim  # noqa: E402

torch.set_num_threads(1)
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "SGD, momentum": ("SGD", {"momentum": 0.9}),
    "Adagrad": ("Adagrad", {}),
    "RMSprop": ("RMSprop", {}),
    "RMSprop, centered, momentum": ("RMSprop", {"centered": True, "momentum": 0.9}),
    "Adam": ("Adam", {}),
    "Adam, AMSGrad": ("Adam", {"amsgrad": True}),
    "AdamW": ("AdamW", {}),
    "Lion": ("Lion", {}),
    "Muon": ("Muon", {}),
}


def steps_of(kind: str, options: dict[str, Any], n: int) -> dict[str, Any]:
    """Our step and PyTorch's, of about n parameters."""
    rng, width = np.random.default_rng(0), int((n / 4) ** 0.5)
    shapes = [(width, width)] * 4 + [(width,)] * (0 if kind == "Muon" else 4)
    parameters, grads = ([rng.normal(size=s).astype("float32") for s in shapes] for _ in range(2))
    ours = getattr(optim, kind)([x.copy() for x in parameters], 1e-3, **options)
    found = {"gpubp": lambda: ours.step(grads)}
    if hasattr(torch.optim, kind):
        for name, more in (("PyTorch", {}), ("fused", {"fused": True})):
            tensors = [torch.tensor(x, requires_grad=True) for x in parameters]
            for x, g in zip(tensors, grads, strict=True):
                x.grad = torch.tensor(g)
            try:
                found[name] = getattr(torch.optim, kind)(tensors, lr=1e-3, **options, **more).step
            except TypeError:  # it has no fused one
                continue
    return found


def main() -> None:
    """Measure and print a table."""
    print("| | parameters | gpubp | PyTorch | fused |\n|---|---|---|---|---|")
    for name, (kind, options) in KINDS.items():
        for n in (10**5, 10**6):
            times = medians(steps_of(kind, options, n), seconds=1.5)
            columns = [f"{times[c] / 1000:.2f}" if c in times else "" for c in ("gpubp", "PyTorch", "fused")]
            print(f"| {name} | {n:,} | {' | '.join(columns)} |", flush=True)


if __name__ == "__main__":
    main()
