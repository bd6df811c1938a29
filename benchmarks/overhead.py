"""How much a small step costs, side by side with other libraries, in one run on one thread.

    python -m benchmarks.overhead [--json FILE] [--quick]

Times are medians in microseconds; the rounds of the libraries are interleaved, so that a busy machine disturbs all
alike. What is not installed is left out, by name. Then memory, import times and the size of the wheel.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")

import numpy as np  # noqa: E402  (the number of threads is read on import)

import gpubp as bp  # noqa: E402
from benchmarks.timing import Step, medians  # noqa: E402

RATE = 0.5


# -- exclusive or, 2-3-1 with sigmoids and no biases: forward, backward and a step of gradient descent

X, Y = (a.astype("float64") for a in bp.data.xor())
_rng = np.random.default_rng(0)
XOR_W = _rng.normal(size=(2, 3)), _rng.normal(size=(3, 1))


def xor_gpubp() -> Step:
    from gpubp import losses, nn, optim

    net = nn.Sequential(nn.Dense(2, 3, bias=False), nn.sigmoid, nn.Dense(3, 1, bias=False), nn.sigmoid, seed=0)
    net = net.astype("float64")
    opt = optim.SGD(net, RATE)
    step = bp.value_and_grad(lambda net, x, y: losses.mean_half_squared_error(net(x), y))

    def run() -> None:
        _, grads = step(net, X, Y)
        opt.step(grads)

    return run


def xor_gpubp_rules() -> Step:
    """The same from the rules alone: plain array code, no fused function."""
    W1, W2 = (w.copy() for w in XOR_W)

    def loss(params: Any, x: Any, y: Any) -> Any:
        xp = bp.array_namespace(x)
        h = 1 / (1 + xp.exp(-(x @ params[0])))
        d = 1 / (1 + xp.exp(-(h @ params[1]))) - y
        return xp.sum(d * d) / 8

    step, params = bp.value_and_grad(loss), [W1, W2]

    def run() -> None:
        _, grads = step(params, X, Y)
        for p, g in zip(params, grads, strict=True):
            p -= RATE * g

    return run


def xor_torch() -> Step:
    import torch

    layers = torch.nn.Linear(2, 3, bias=False), torch.nn.Linear(3, 1, bias=False)
    net = torch.nn.Sequential(layers[0], torch.nn.Sigmoid(), layers[1], torch.nn.Sigmoid()).double()
    opt = torch.optim.SGD(net.parameters(), lr=RATE)
    x, y = torch.tensor(X), torch.tensor(Y)

    def run() -> None:
        opt.zero_grad()
        (0.5 * torch.nn.functional.mse_loss(net(x), y)).backward()
        opt.step()

    return run


def xor_autograd() -> Step:
    import autograd
    import autograd.numpy as anp

    def loss(params: Any) -> Any:
        h = 1 / (1 + anp.exp(-anp.dot(X, params[0])))
        a = 1 / (1 + anp.exp(-anp.dot(h, params[1])))
        return anp.sum((a - Y) ** 2) / 8

    step, params = autograd.value_and_grad(loss), [w.copy() for w in XOR_W]

    def run() -> None:
        _, grads = step(params)
        for p, g in zip(params, grads, strict=True):
            p -= RATE * g

    return run


def xor_jax() -> Step:
    import jax
    import jax.numpy as jnp

    x, y = jnp.asarray(X), jnp.asarray(Y)

    def loss(params: Any) -> Any:
        a = jax.nn.sigmoid(jax.nn.sigmoid(x @ params[0]) @ params[1])
        return jnp.sum((a - y) ** 2) / 8

    @jax.jit
    def step(params: Any) -> Any:
        value, grads = jax.value_and_grad(loss)(params)
        return [p - RATE * g for p, g in zip(params, grads, strict=True)], value

    params = [jnp.asarray(w) for w in XOR_W]

    def run() -> None:
        nonlocal params
        params, value = step(params)
        value.block_until_ready()

    return run


def xor_numpy() -> Step:
    W1, W2 = (w.copy() for w in XOR_W)

    def run() -> Any:
        h = 1 / (1 + np.exp(-(X @ W1)))
        a = 1 / (1 + np.exp(-(h @ W2)))
        d = a - Y
        value = np.sum(d * d) / 8
        delta2 = d / 4 * a * (1 - a)
        delta1 = delta2 @ W2.T * h * (1 - h)
        np.subtract(W2, RATE * (h.T @ delta2), out=W2)
        np.subtract(W1, RATE * (X.T @ delta1), out=W1)
        return value

    return run


# -- value and gradient of a 64-64-10 net at batch 32

BATCH = _rng.normal(size=(32, 64)).astype("float32")
LABELS = _rng.integers(0, 10, size=32)
MLP_W = [_rng.normal(size=s).astype("float32") * 0.1 for s in ((64, 64), (64,), (64, 10), (10,))]


def mlp_gpubp() -> Step:
    from gpubp import losses, nn

    net = nn.Sequential(nn.Dense(64, 64), nn.relu, nn.Dense(64, 10), seed=0)
    step = bp.value_and_grad(lambda net, x, y: losses.softmax_cross_entropy(net(x), y))
    return lambda: step(net, BATCH, LABELS)


def mlp_torch() -> Step:
    import torch

    net = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
    params, x, y = list(net.parameters()), torch.tensor(BATCH), torch.tensor(LABELS)
    return lambda: torch.autograd.grad(torch.nn.functional.cross_entropy(net(x), y), params)


def mlp_autograd() -> Step:
    import autograd
    import autograd.numpy as anp

    rows = np.arange(32)

    def loss(params: Any) -> Any:
        W1, b1, W2, b2 = params
        z = anp.dot(anp.maximum(anp.dot(BATCH, W1) + b1, 0), W2) + b2
        z = z - anp.max(z, axis=1, keepdims=True)
        return anp.mean(anp.log(anp.sum(anp.exp(z), axis=1)) - z[rows, LABELS])

    step = autograd.value_and_grad(loss)
    return lambda: step(MLP_W)


def mlp_jax() -> Step:
    import jax
    import jax.numpy as jnp

    x, rows, y = jnp.asarray(BATCH), jnp.arange(32), jnp.asarray(LABELS)

    def loss(params: Any) -> Any:
        W1, b1, W2, b2 = params
        z = jax.nn.relu(x @ W1 + b1) @ W2 + b2
        return -jnp.mean(jax.nn.log_softmax(z)[rows, y])

    step, params = jax.jit(jax.value_and_grad(loss)), [jnp.asarray(w) for w in MLP_W]
    return lambda: step(params)[0].block_until_ready()


def mlp_numpy() -> Step:
    W1, b1, W2, b2 = MLP_W
    rows = np.arange(32)

    def run() -> Any:
        h = np.maximum(BATCH @ W1 + b1, 0)
        z = h @ W2 + b2
        z -= z.max(axis=1, keepdims=True)
        e = np.exp(z)
        total = e.sum(axis=1, keepdims=True)
        value = np.log(total).mean() - z[rows, LABELS].mean()
        delta = e / total
        delta[rows, LABELS] -= 1
        delta /= 32
        hidden = delta @ W2.T * (h > 0)
        return value, (BATCH.T @ hidden, hidden.sum(axis=0), h.T @ delta, delta.sum(axis=0))

    return run


# -- an addition of two 4x4 arrays, recorded but not differentiated, one of a thousand

A = _rng.normal(size=(4, 4))
CHAIN = 1000


def add_gpubp() -> Step:
    def chain(a: Any) -> Any:
        b = a
        for _ in range(CHAIN):
            b = b + a
        return b

    return lambda: bp.vjp(chain, A)


def add_torch() -> Step:
    import torch

    a = torch.tensor(A, requires_grad=True)

    def run() -> None:
        b = a
        for _ in range(CHAIN):
            b = b + a

    return run


def add_autograd() -> Step:
    from autograd.core import make_vjp

    def chain(a: Any) -> Any:
        b = a
        for _ in range(CHAIN):
            b = b + a
        return b

    return lambda: make_vjp(chain, A)


def add_numpy() -> Step:
    def run() -> None:
        b = A
        for _ in range(CHAIN):
            b = b + A

    return run


CASES: dict[str, tuple[float, dict[str, Callable[[], Step]]]] = {
    "XOR step, 2-3-1": (
        1,
        {
            "gpubp": xor_gpubp,
            "torch": xor_torch,
            "jax": xor_jax,
            "autograd": xor_autograd,
            "numpy": xor_numpy,
            "gpubp, rules only": xor_gpubp_rules,
        },
    ),
    "value_and_grad, 64-64-10, batch 32": (
        1,
        {"gpubp": mlp_gpubp, "torch": mlp_torch, "jax": mlp_jax, "autograd": mlp_autograd, "numpy": mlp_numpy},
    ),
    "traced 4x4 addition": (
        CHAIN,
        {"gpubp": add_gpubp, "torch": add_torch, "autograd": add_autograd, "numpy": add_numpy},
    ),
}

LABEL = {"torch": "PyTorch eager", "jax": "JAX jit", "autograd": "HIPS autograd", "numpy": "NumPy by hand"}
WANTED = {"XOR step, 2-3-1": 5.0, "value_and_grad, 64-64-10, batch 32": 2.5, "traced 4x4 addition": 1.0}


def prepare() -> None:
    if find_spec("torch"):
        import torch

        torch.set_num_threads(1)
    if find_spec("jax"):
        import jax

        jax.config.update("jax_enable_x64", True)


def time_cases(seconds: float) -> dict[str, dict[str, float]]:
    prepare()
    found = {}
    for case, (divisor, makers) in CASES.items():
        steps = {}
        for name, make in makers.items():
            if name in ("torch", "jax", "autograd") and find_spec(name) is None:
                print(f"{name} is not installed: left out")
                continue
            steps[name] = make()
        found[case] = {name: t / divisor for name, t in medians(steps, seconds).items()}
        show(case, found[case])
    return found


def show(case: str, times: dict[str, float]) -> None:
    wanted = f", wanted: {WANTED[case]:g} times as fast as PyTorch" if case in WANTED else ""
    print(f"\n{case} (µs{wanted})")
    for name, t in times.items():
        print(f"  {LABEL.get(name, name):20} {t:9.2f}   {t / times['gpubp']:5.2f} times gpubp")


# -- memory: value_and_grad of 784-1024-1024-10 at batch 256

WIDTHS, ROWS = (784, 1024, 1024, 10), 256

MEMORY = {
    "gpubp": f"""
import numpy as np, tracemalloc, gpubp as bp
from gpubp import losses, nn
widths = {WIDTHS}
layers = [l for i, o in zip(widths, widths[1:]) for l in (nn.Dense(i, o), nn.relu)][:-1]
net = nn.Sequential(*layers, seed=0)
x, y = np.ones(({ROWS}, widths[0]), 'float32'), np.zeros({ROWS}, dtype=int)
step = bp.value_and_grad(lambda net, x, y: losses.softmax_cross_entropy(net(x), y))
step(net, x[:1], y[:1])
tracemalloc.start()
result = step(net, x, y)
print(tracemalloc.get_traced_memory()[1])
""",
    "torch": f"""
import torch
from torch.profiler import profile, ProfilerActivity
torch.set_num_threads(1)
widths = {WIDTHS}
layers = [l for i, o in zip(widths, widths[1:]) for l in (torch.nn.Linear(i, o), torch.nn.ReLU())][:-1]
net = torch.nn.Sequential(*layers)
x, y = torch.ones({ROWS}, widths[0]), torch.zeros({ROWS}, dtype=torch.int64)
def step(x, y):
    return torch.autograd.grad(torch.nn.functional.cross_entropy(net(x), y), list(net.parameters()))
step(x[:1], y[:1])
with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as p:
    result = step(x, y)
held = peak = 0
for e in p.profiler.kineto_results.events():
    if e.name() == '[memory]':
        held += e.nbytes()
        peak = max(peak, held)
print(peak)
""",
}


def peak_memory() -> dict[str, float]:
    """Return the largest memory of arrays allocated during one call, in MB."""
    found = {}
    for name, code in MEMORY.items():
        if find_spec(name):
            found[name] = int(run(code)) / 1e6
    print(f"\npeak memory of value_and_grad of {'-'.join(map(str, WIDTHS))} at batch {ROWS} (MB)")
    for name, megabytes in found.items():
        print(f"  {LABEL.get(name, name):20} {megabytes:9.1f}")
    return found


# -- imports and the wheel

IMPORTS = {
    "numpy": "import numpy",
    "gpubp": "import gpubp",
    "gpubp and a first gradient": "import numpy, gpubp; gpubp.grad(lambda x: x * x)(numpy.asarray(1.0))",
}


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def import_times(rounds: int) -> dict[str, float]:
    """Return the median time of a fresh process's imports in milliseconds."""
    times: dict[str, list[float]] = {name: [] for name in IMPORTS}
    for _ in range(rounds):
        for name, code in IMPORTS.items():
            timed = f"import time; t = time.perf_counter(); exec({code!r}); print(time.perf_counter() - t)"
            times[name].append(float(run(timed)) * 1e3)
    found = {name: statistics.median(values) for name, values in times.items()}
    print("\nimports (ms)")
    for name, t in found.items():
        print(f"  {name:28} {t:7.1f}   {t - found['numpy']:6.1f} beyond numpy")
    return found


def wheel_size() -> float | None:
    """Return the size of the wheel in MB, where it can be built."""
    root = Path(__file__).parents[1]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "-q", "-w", folder, str(root)]
        if subprocess.run(command, capture_output=True).returncode:
            print("\nthe wheel could not be built")
            return None
        (wheel,) = Path(folder).glob("*.whl")
        size = wheel.stat().st_size / 1e6
    print(f"\nwheel: {size:.2f} MB")
    return size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--quick", action="store_true", help="a second for each case, and timings only")
    args = parser.parse_args()
    figures: dict[str, Any] = {"times_us": time_cases(1 if args.quick else 5)}
    if not args.quick:
        figures |= {"peak_mb": peak_memory(), "import_ms": import_times(9), "wheel_mb": wheel_size()}
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
