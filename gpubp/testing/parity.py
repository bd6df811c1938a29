"""The same computation on several backends, compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..boundary import is_complex, is_inexact
from ..device import raw_namespace, to_numpy
from ..dtypes import is_half, named, rounded
from ..transform import map_scalars, vjp
from ..tree import Node, cells_with_paths, leaves_against, leaves_with_paths, map_distinct, map_leaves
from .backends import Backend, load
from .gradients import draw, named_leaves

#: Relative and absolute tolerance by dtype.
TOLERANCES = {
    "float16": (1e-2, 1e-3),
    "bfloat16": (8e-2, 8e-3),
    "float32": (2e-5, 2e-6),
    "complex64": (2e-5, 2e-6),
    "float64": (1e-11, 1e-12),
    "complex128": (1e-11, 1e-12),
}


class Difference(NamedTuple):
    """How far one array on one backend is from the same array on the first."""

    what: str
    path: str
    backend: str
    dtype: str
    shape: tuple[int, ...]
    error: float  # largest absolute difference
    relative: float  # that, relative to the largest element
    ulp: float  # that, in units in the last place of the largest element
    agrees: bool
    note: str = ""


class Report(NamedTuple):
    """What `assert_parity` found; printed as a table."""

    backends: tuple[str, ...]
    differences: tuple[Difference, ...]

    @property
    def worst(self) -> Difference | None:
        """The largest error in ulp."""
        return max(self.differences, key=lambda d: d.ulp, default=None)

    def __str__(self) -> str:
        rows = [("", "what", "path", "backend", "dtype", "shape", "error", "relative", "ulp")]
        for d in self.differences:
            mark = "ok" if d.agrees else "XX"
            figures = (f"{d.error:.2e}", f"{d.relative:.2e}", f"{d.ulp:.3g}") if not d.note else (d.note, "", "")
            rows.append((mark, d.what, d.path, d.backend, d.dtype, str(d.shape), *figures))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def assert_parity(
    f: Callable[..., Any],
    args: Any,
    *,
    backends: Sequence[str | Backend] = ("numpy", "standin"),
    steps: int = 0,
    lr: float = 0.1,
    dtype: str | None = None,
    seed: int = 0,
    rtol: float | None = None,
    atol: float | None = None,
) -> Report:
    """Assert that a function or a net computes the same on every backend, from the same host arrays.

    Compared with the first backend, array by array: the outputs; every gradient, of the outputs weighted with
    random numbers; and for a net its parameters and cells after each of `steps` steps of gradient descent towards
    random targets.

    Parameters
    ----------
    f
        A function of pytrees of arrays, or a net, which is called with `args`.
    args
        A tuple of the arguments, or the only one: arrays of any library, which are moved to each backend.
    backends
        Names of `gpubp.testing.backends`, or such objects; the first is the reference.
    steps, lr
        How many training steps, for a net only, and their learning rate.
    dtype
        What floating arrays are cast to (complex ones to the complex dtype of that precision); by default each
        keeps its own.
    seed
        Of the weights and targets.
    rtol, atol
        Both or neither. Allowed is ``atol + rtol * (largest element of the array)``, for rounding in sums grows with
        what is summed, not with the sum. By default they follow from the dtype: 2e-5 and 2e-6 for float32, 1e-11 and
        1e-12 for float64, twice that after a training step and so on.

    Returns
    -------
    Report
        One row for each array and backend; ``print`` it.

    Raises
    ------
    AssertionError
        With the same table, if an array differs by more, or in shape or dtype.
    BackendMissing
        If a backend cannot be used here.
    """
    if (rtol is None) != (atol is None):
        raise TypeError(f"give both tolerances or neither, got rtol={rtol}, atol={atol}")
    if steps and not isinstance(f, Node):
        raise TypeError(f"steps={steps} are for a net (a gpubp.tree.Node); {type(f).__name__} has no parameters")
    args = args if isinstance(args, tuple) else (args,)
    inputs = map_leaves(lambda x: _cast(to_numpy(x), dtype), map_scalars(args))
    if isinstance(f, Node):
        net = map_distinct(lambda x: _cast(to_numpy(x), dtype), f)
        tree: Any = (net, *inputs)
        names = ["net", *(f"args[{k}]" for k in range(len(args)))]
        function: Any = _apply
    else:
        tree, function, names = inputs, f, [f"args[{k}]" for k in range(len(args))]

    if isinstance(backends, str) or len(backends) < 2:
        raise ValueError(f"backends must name two backends or more, such as ('numpy', 'standin'), got {backends!r}")
    found = [load(b) if isinstance(b, str) else b for b in backends]
    runs = [_run(function, tree, names, backend, steps, lr, seed) for backend in found]
    differences = [
        _compare(key, here.get(key), value, backend.name, rtol, atol)
        for backend, here in zip(found[1:], runs[1:], strict=True)
        for key, value in runs[0].items()
    ]
    report = Report(tuple(b.name for b in found), tuple(differences))
    if not all(d.agrees for d in differences):
        raise AssertionError(f"{', '.join(report.backends[1:])} differ from {report.backends[0]}:\n{report}")
    return report


def _apply(net: Any, *args: Any) -> Any:
    return net(*args)


_Key = tuple[str, int, str]  # what, after how many steps, path
_Arrays = dict[_Key, np.ndarray[Any, Any]]


def _run(f: Any, tree: Any, names: list[str], backend: Backend, steps: int, lr: float, seed: int) -> _Arrays:
    """Compute everything on one backend and bring it back to the host."""
    args = map_distinct(backend.asarray, tree)
    out, pullback = vjp(f, *args)
    results: _Arrays = {("output", 0, path): backend.to_numpy(x) for path, x in leaves_with_paths(out)}
    drawn = map_leaves(lambda x: draw(np.random.default_rng(seed), x), out)
    gradients = pullback(map_leaves(backend.asarray, drawn))
    for path, g in named_leaves(gradients, names):
        results["gradient", 0, path] = backend.to_numpy(g)
    for step in range(1, steps + 1):
        out, pullback = vjp(f, *args)
        gaps = map_leaves(lambda x: backend.asarray(_gap(backend.to_numpy(x), seed)), out)
        net = _descend(args[0], leaves_against(args[0], pullback(gaps)[0]), lr)
        args = (net, *args[1:])
        for path, x in named_leaves((net,), ["net"]):
            results["parameter", step, path] = backend.to_numpy(x)
        for path, cell in cells_with_paths(net):
            results["cell", step, f"net.{path}"] = backend.to_numpy(cell.held)
    return results


def _descend(net: Any, gradients: list[Any], lr: float) -> Any:
    """Take a step of gradient descent; arrays that layers share stay shared."""
    stepped: dict[int, Any] = {}
    slopes = iter(gradients)

    def step(x: Any) -> Any:
        g = next(slopes)
        return x if g is None else stepped.setdefault(id(x), rounded(raw_namespace(x), x - lr * g, x.dtype))

    return map_leaves(step, net)


def _gap(out: np.ndarray[Any, Any], seed: int) -> np.ndarray[Any, Any]:
    """Return the gradient of half the mean squared distance of an output from its random target."""
    return np.asarray((out - draw(np.random.default_rng(seed), out)) / max(out.size, 1), dtype=out.dtype)


def _cast(x: np.ndarray[Any, Any], dtype: str | None) -> np.ndarray[Any, Any]:
    if dtype is None or not is_inexact(x.dtype):
        return x
    return x.astype(np.result_type(dtype, 1j) if is_complex(x) else named(np, dtype))


def _compare(key: _Key, found: Any, expected: Any, backend: str, rtol: float | None, atol: float | None) -> Difference:
    what, step, path = key
    label = what if not step else f"{what} after {step}"
    dtype = expected.dtype.name
    if found is None or found.shape != expected.shape or found.dtype != expected.dtype:
        got = "nothing" if found is None else f"{found.dtype} of shape {found.shape}"
        return Difference(label, path, backend, dtype, expected.shape, np.inf, np.inf, np.inf, False, f"got {got}")
    if rtol is None or atol is None:
        rtol, atol = (t * (1 + step) for t in TOLERANCES.get(dtype, (0.0, 0.0)))
    own = expected.dtype
    if is_half(own):  # of which differences would be rounded
        found, expected = found.astype(np.float64), expected.astype(np.float64)
    with np.errstate(all="ignore"):
        same = (found == expected) | ((found != found) & (expected != expected))
        gaps = np.where(same, 0, np.abs(found - expected) if dtype in TOLERANCES else 1)
        error = float(np.max(gaps, initial=0.0))
        error = np.inf if np.isnan(error) else error
        sizes = np.abs(expected[np.isfinite(expected)])
        largest = np.max(sizes, initial=sizes.dtype.type(0))
        largest_of_own = largest.astype(own) if is_half(own) else largest
        unit = float(np.spacing(largest_of_own)) if dtype in TOLERANCES else 1.0
    return Difference(
        label, path, backend, dtype, expected.shape, error, float(error / largest) if largest else error, error / unit,
        bool(error <= atol + rtol * largest),
    )  # fmt: skip
