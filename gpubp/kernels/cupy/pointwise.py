"""Elementwise kernels that read and write 16 bytes at a time where all arrays are contiguous and alike."""

from __future__ import annotations

from typing import Any

import cupy

from .common import Kernel, blocks, elementwise

DTYPES = ("float16", "bfloat16", "float32")
_THREADS = 256
_PACKS = "reinterpret_cast<const pack_*>({})"


class Pointwise:
    """A function of elements, of one or several arrays and then of numbers.

    Other arrays, such as strided or broadcast ones, are left to a `gpubp.kernels.cupy.common.elementwise` kernel.

    Parameters
    ----------
    name
        Of the kernel.
    inputs
        The names that the arrays' elements, of dtype T, have in the operation.
    operation
        C++ that sets ``out``.
    numbers
        The names of the numbers, which are doubles.
    """

    def __init__(self, name: str, inputs: tuple[str, ...], operation: str, numbers: tuple[str, ...] = ()) -> None:
        listed = ", ".join((*(f"T {x}" for x in inputs), *(f"float64 {x}" for x in numbers)))
        self._any = elementwise(name, listed, "T out", operation)
        self._arrays, self._given = len(inputs), len(inputs) + len(numbers)
        parameters = "".join((*(f"const T* {x}_, " for x in inputs), *(f"double {x}, " for x in numbers)))
        packs = ", ".join(f"{x}_s = {_PACKS.format(f'{x}_')}[j]" for x in inputs)
        self._wide = Kernel(
            f"{name}_wide",
            f"""
const int WIDE = 16 / sizeof(T);
struct alignas(16) pack_ {{ T of[WIDE]; }};
extern "C" __global__ void {name}_wide({parameters}T* out_, long long n)
{{
    EACH(j, (n + WIDE - 1) / WIDE) {{
        if ((j + 1) * WIDE <= n) {{
            const pack_ {packs};
            pack_ out_s;
#pragma unroll
            for (int k = 0; k < WIDE; ++k) {{
                const T {", ".join(f"{x} = {x}_s.of[k]" for x in inputs)};
                T out;
                {operation};
                out_s.of[k] = out;
            }}
            {_PACKS.format("out_").replace("const ", "")}[j] = out_s;
        }} else {{
            for (long long k = j * WIDE; k < n; ++k) {{
                const T {", ".join(f"{x} = {x}_[k]" for x in inputs)};
                T out;
                {operation};
                out_[k] = out;
            }}
        }}
    }}
}}
""",
            types={"T": DTYPES},
        )

    def __call__(self, *args: Any) -> Any:
        """Return an array of the operation's results: the one given after the arguments, or a new one."""
        x = args[0]
        if x.itemsize == 8 or not all(_beside(y, x.shape) for y in args[: self._arrays]):
            return self._any(*args)
        out = args[self._given] if len(args) > self._given else cupy.empty(x.shape, x.dtype)
        if not _beside(out, x.shape):
            return self._any(*args)
        grid, given = blocks(-(-x.nbytes // 16), _THREADS), map(_argument, args[: self._given])
        self._wide(grid, _THREADS, *given, out, x.size, T=x.dtype)
        return out


def _beside(y: Any, shape: tuple[int, ...]) -> bool:
    return bool(y.shape == shape and y.flags.c_contiguous and y.data.ptr % 16 == 0)


def _argument(x: Any) -> Any:
    return x if type(x) is cupy.ndarray else float(x)
