"""What ``gpubp check FILE.py:NAME`` does: gradient and parity checks of somebody's own function or layer."""

from __future__ import annotations

import runpy
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..boundary import is_inexact
from ..device import to_numpy
from ..tree import Node, map_leaves
from .backends import BACKENDS, why_missing
from .gradients import check_grads
from .parity import assert_parity

_DEFAULT = ("numpy", "standin", "array_api_strict", "cupy")  # PyTorch and JAX are slow to import: on request


def check(
    file: Path,
    name: str,
    *,
    shapes: Sequence[tuple[int, ...]] = (),
    backends: Sequence[str] | None = None,
    order: int = 2,
    seed: int = 0,
) -> int:
    """Check a function or a net of a Python file, and print what was found.

    Parameters
    ----------
    file, name
        Where it is. The file is run as a module.
    shapes
        Shapes of its arguments, which are then drawn from N(0, 1) in float64. Without them the file says what to
        call it with: ``NAME_args``, or ``check_args``, a tuple of arguments or a function that returns one.
    backends
        Names of `gpubp.testing.backends`; by default those that can be used here, PyTorch and JAX left out.
    order
        The highest derivative to check.
    seed
        Of the arguments and the directions.

    Returns
    -------
    int
        0 if all is well, 1 if a check failed.
    """
    chosen = _chosen(backends)
    found = runpy.run_path(str(file), run_name=file.stem)
    if name not in found:
        raise SystemExit(f"{file} has no {name}; it has {', '.join(k for k in found if not k.startswith('_'))}")
    target = found[name]
    if isinstance(target, type) or not callable(target):
        raise SystemExit(f"{name} is a {type(target).__name__}; check expects a function or a net (an instance)")
    args = _arguments(found, name, shapes, seed)
    if isinstance(target, Node):
        inputs, f = (_in_float64(target), *args), _call
    else:
        inputs, f = args, target

    steps = 3 if isinstance(target, Node) else 0
    compared = _in_float64(target) if steps else target

    def derivatives() -> str:
        check_grads(f, inputs, order=order, seed=seed)
        return f"derivatives to order {order}, against finite differences"

    def parity() -> str:
        report = assert_parity(compared, args, backends=chosen, steps=steps)
        worst = max((d.ulp for d in report.differences), default=0.0)
        with_steps = f" and {steps} training steps" if steps else ""
        return f"values, gradients{with_steps} on {', '.join(chosen)}: at most {worst:.3g} ulp apart"

    passed = [_passes("derivatives", derivatives, file), _passes("parity", parity, file)]
    return 0 if all(passed) else 1


def _call(net: Any, *args: Any) -> Any:
    return net(*args)


def _arguments(found: dict[str, Any], name: str, shapes: Sequence[tuple[int, ...]], seed: int) -> tuple[Any, ...]:
    if shapes:
        rng = np.random.default_rng(seed)
        return tuple(rng.normal(size=shape) for shape in shapes)
    for key in (f"{name}_args", "check_args"):
        if key in found:
            args: Any = found[key]() if callable(found[key]) else found[key]
            return tuple(map(_in_float64, args if isinstance(args, tuple) else (args,)))
    raise SystemExit(
        f"what shall {name} be called with? Give a shape for each argument, as in --shape 4,3, "
        f"or write {name}_args = (...) in the file"
    )


def _in_float64(tree: Any) -> Any:
    """The tree on the host, in the precision that finite differences need."""

    def cast(x: Any) -> Any:
        host = to_numpy(x)
        return host.astype(np.result_type(host.dtype, np.float64)) if is_inexact(host.dtype) else host

    return map_leaves(cast, tree)


def _chosen(backends: Sequence[str] | None) -> list[str]:
    if backends is not None:
        for name in backends:
            if name not in BACKENDS:
                raise SystemExit(f"no backend is called {name!r}; there are {', '.join(BACKENDS)}")
            if reason := why_missing(name):
                raise SystemExit(f"backend {name} cannot be used here: {reason}")
        if len(backends) < 2:
            raise SystemExit(f"parity is between two backends or more, got {', '.join(backends)}")
        return list(backends)
    missing = {name: why_missing(name) for name in _DEFAULT}
    for name, reason in missing.items():
        if reason is not None:
            print(f"left out: {name} ({reason})")
    return [name for name, reason in missing.items() if reason is None]


def _passes(what: str, run: Callable[[], str], file: Path) -> bool:
    try:
        print(f"ok      {run()}")
    except AssertionError as problem:
        print(f"FAILED  {what}\n{problem}")
        return False
    except Exception as problem:  # of the user's code: say where, without the library's own frames
        print(f"FAILED  {what}\n{type(problem).__name__}: {problem}")
        for note in getattr(problem, "__notes__", ()):
            print(note)
        lines = [f.lineno for f in traceback.extract_tb(problem.__traceback__) if f.filename == str(file)]
        if lines:
            print(f"at {file}:{lines[-1]}")
        return False
    return True
