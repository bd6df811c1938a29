"""Compares fused functions on a backend with their references in float64, at sizes of many warps and blocks."""

from typing import Any

import numpy as np
import pytest

import gpubp as bp
import gpubp.functions
from gpubp.device import to_numpy
from gpubp.fused import FUSED

#: How far results may be from exact ones, relative to the largest: a few roundings.
TOLERANCE = {"float16": 4e-3, "bfloat16": 3e-2, "float32": 1e-5, "float64": 1e-12}


DTYPES = list(TOLERANCE)


def dtype_of(name: str) -> Any:
    if name == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name)


def assert_agrees(backend: Any, name: str, *args: Any, dtype: str = "float32", **static: Any) -> None:
    """Values and all cotangents of a fused function, from NumPy's arrays rounded to `dtype`."""
    if "16" in dtype and "strict" in backend.name:
        pytest.skip("array-api-strict has no floats of 16 bits")
    kind = dtype_of(dtype)
    rng = np.random.default_rng(1)  # not the numbers of the arguments once more
    used = [k for k, a in enumerate(args) if isinstance(a, np.ndarray) and a.dtype.kind == "f"]
    rounded = [a.astype(kind) if k in used else a for k, a in enumerate(args)]
    exact = [a.astype("float64") if k in used else a for k, a in enumerate(rounded)]

    def of(function: Any, arrays: list[Any], seed: Any) -> tuple[Any, Any]:
        def call(*chosen: Any) -> Any:
            full = list(arrays)
            for k, a in zip(used, chosen, strict=True):
                full[k] = a
            return function(*full, **static)

        out, pull = bp.vjp(call, *(arrays[k] for k in used))
        return out, pull(seed(out))

    seeds: list[Any] = []

    def draw(out: Any) -> Any:
        if isinstance(out, tuple):
            return tuple(draw(o) for o in out)
        seeds.append(rng.normal(size=out.shape).astype(kind))
        return seeds[-1].astype("float64")

    expected, cotangents = of(FUSED[name].reference, exact, draw)
    given = iter(seeds)

    def same(out: Any) -> Any:
        return tuple(same(o) for o in out) if isinstance(out, tuple) else backend.asarray(next(given))

    on = [a if a is None or not isinstance(a, np.ndarray) else backend.asarray(a) for a in rounded]
    found, found_cotangents = of(FUSED[name], on, same)
    for what, f, e in zip(
        _names(expected, cotangents), _flat(found, found_cotangents), _flat(expected, cotangents), strict=True
    ):
        f, e = backend.to_numpy(f), to_numpy(e)
        is_wide = "16" in dtype and what in {f"output {k}" for k in range(3) if k in FUSED[name].float32_outs}
        assert f.dtype == (np.float32 if is_wide else kind), f"{name}: {what} is {f.dtype}"
        f = f.astype("float64")
        worst = np.max(np.abs(f - e), initial=0.0) / max(np.max(np.abs(e), initial=0.0), 1e-30)
        assert worst <= TOLERANCE[dtype], f"{name}: {what} in {dtype} is off by {worst:.3g}"


def _flat(out: Any, cotangents: Any) -> list[Any]:
    return [*(out if isinstance(out, tuple) else (out,)), *cotangents]


def _names(out: Any, cotangents: Any) -> list[str]:
    outputs = len(out) if isinstance(out, tuple) else 1
    return [*(f"output {k}" for k in range(outputs)), *(f"cotangent {k}" for k in range(len(cotangents)))]
