"""Compile every CUDA kernel for every architecture and dtype, where there need be no GPU.

    pip install -e '.[gpu-compile]'
    python tools/compile_kernels.py [--arch 75 90] [--kernel softmax]

NVRTC makes machine code as it does on a GPU's machine. The sources that CuPy wraps around elementwise kernels and
reductions come from its private functions, so that its version is pinned in the extra.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

try:
    import cupy
    import ml_dtypes
    import numpy as np
    from cupy._core import _carray, _kernel, _reduction, core
    from cupy.cuda import compiler
except ModuleNotFoundError as missing:
    sys.exit(f"{missing.name} is not installed: pip install -e '.[gpu-compile]'")

from gpubp.fused import load_kernels
from gpubp.kernels.cupy.common import FLOATS, INTEGERS, KERNELS, Kernel

ARCHITECTURES = ("75", "80", "90", "100", "120")


def dtype_of(name: str) -> Any:
    """Return a dtype by name."""
    return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)


def sources(kernel: Any) -> Iterator[tuple[str, str]]:
    """Yield the dtypes and the source of each variant of a kernel."""
    if isinstance(kernel, Kernel):
        for dtypes in itertools.product(*kernel.types.values()):
            yield " ".join(dtypes), kernel.code(**dict(zip(kernel.types, dtypes, strict=True)))
        return
    params = (*kernel.in_params, *kernel.out_params)
    letters = sorted({p.ctype for p in params if p.dtype is None})
    for dtypes in itertools.product(*((FLOATS if letter == "T" else INTEGERS) for letter in letters)):
        chosen = {letter: dtype_of(name) for letter, name in zip(letters, dtypes, strict=True)}
        of = [np.dtype(p.dtype) if p.dtype is not None else chosen[p.ctype] for p in params]
        make = elementwise_source if isinstance(kernel, cupy.ElementwiseKernel) else reduction_source
        yield " ".join(dtypes), make(kernel, of)


def elementwise_source(k: Any, dtypes: list[Any]) -> str:
    """Return what CuPy compiles for an elementwise kernel."""
    inputs, outputs, types = k._decide_params_type(tuple(dtypes[: k.nin]), tuple(dtypes[k.nin :]))
    infos = (
        *(_array(d, 2, p.raw) for d, p in zip(inputs + outputs, (*k.in_params, *k.out_params), strict=True)),
        _indexer(2),
    )
    source: str = _kernel._get_elementwise_kernel_code(
        infos, types, k.params, k.operation, k.name, k.preamble, **k.kwargs
    )
    return _headers() + source


def reduction_source(k: Any, dtypes: list[Any]) -> str:
    """Return what CuPy compiles for a reduction."""
    kinds = [d.type for d in dtypes]
    inputs, outputs, types = _kernel._decide_params_type(
        k.in_params, k.out_params, tuple(kinds[: k.nin]), tuple(kinds[k.nin :])
    )
    infos = (
        *(_array(d, n) for d, n in zip(inputs + outputs, [2] * k.nin + [1] * k.nout, strict=True)),
        *(_indexer(2), _indexer(1), _kernel._ArgInfo(3, int, np.dtype("i4"), 0, True, True)),
    )
    exprs = k.reduce_type, k.identity, k.map_expr, k.reduce_expr, k.post_map_expr, k.preamble, k.options
    source: str = _reduction._ReductionKernel_get_cached_function_code(
        k.nin, k.nout, k._params, infos, types, k.name, 512, *exprs
    )
    return _headers() + "typedef int IndexT;\n" + source


def _array(dtype: Any, ndim: int, raw: bool = False) -> Any:
    return _kernel._ArgInfo(1, cupy.ndarray, np.dtype(dtype), 1 if raw else ndim, False, True)


def _indexer(ndim: int) -> Any:
    return _kernel._ArgInfo(2, _carray.Indexer, None, ndim, True, True)


def _headers() -> str:
    return "".join(f"#include <{header}>\n" for header in core._cupy_header_list)


def compile_one(job: tuple[str, str, str, str]) -> tuple[str, int, str]:
    """Compile a source for an architecture; give its name, the size of the machine code, and what went wrong."""
    name, dtypes, arch, source = job
    options = core.assemble_cupy_compiler_options(("-std=c++17",))
    options = (*options, "-ftz=true", "--device-as-default-execution-space", f"-arch=sm_{arch}")
    title = f"{name} [{dtypes}] sm_{arch}"
    try:
        code, _ = compiler._NVRTCProgram(source, "kernel.cu", method="cubin").compile(options)
    except compiler.CompileException as error:
        return title, 0, str(error)
    return title, len(code), ""


def main() -> int:
    """Compile and report; return how the command ends."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--arch", nargs="+", default=ARCHITECTURES)
    parser.add_argument("--kernel", nargs="+", help="only kernels whose name contains one of these")
    parser.add_argument("--show", action="store_true", help="print the sources instead")
    args = parser.parse_args()
    load_kernels("cupy")
    chosen = {n: k for n, k in KERNELS.items() if not args.kernel or any(part in n for part in args.kernel)}
    every = [(name, dtypes, source) for name, kernel in chosen.items() for dtypes, source in sources(kernel)]
    if args.show:
        print("\n".join(f"// {name} [{dtypes}]\n{source}" for name, dtypes, source in every))
        return 0
    if not every:
        print("no kernel of that name", file=sys.stderr)
        return 2
    start, failed = time.perf_counter(), 0
    with ProcessPoolExecutor() as pool:
        jobs = [(name, dtypes, arch, source) for name, dtypes, source in every for arch in args.arch]
        for title, _, problem in pool.map(compile_one, jobs, chunksize=8):
            if problem:
                failed += 1
                print(f"{title}:\n{problem}", file=sys.stderr)
    seconds = time.perf_counter() - start
    print(f"{len(chosen)} kernels, {len(jobs) - failed} of {len(jobs)} variants compiled in {seconds:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
