"""cuBLAS on the host, for the CuPy stand-in: calls are taken at their word, addresses and all, and computed by NumPy.

`gemmEx` and `gemmStridedBatchedEx` (CuPy's bindings) and `gemm_ex`, `gemm_strided_batched_ex` and the like
(nvmath-python's) have the parameters of the real ones, in their order. What cuBLAS would refuse is refused.
"""

from __future__ import annotations

import ctypes
import weakref
from types import ModuleType
from typing import Any

import ml_dtypes
import numpy as np

from tests import fake_graph, host_cuda

DTYPES = {0: np.float32, 1: np.float64, 2: np.float16, 14: ml_dtypes.bfloat16}  # cudaDataType_t
F32, TF32, F64 = 68, 77, 70  # cublasComputeType_t
HANDLE = 1001

#: Every call: its name and arguments but the handle.
calls: list[tuple[str, tuple[Any, ...]]] = []


class CUBLASError(RuntimeError):
    pass


def require(condition: bool, what: str) -> None:
    if not condition:
        raise CUBLASError(f"CUBLAS_STATUS_INVALID_VALUE: {what}")


def matrix(address: int, code: int, rows: int, columns: int, line: int) -> Any:
    """A matrix stored by columns."""
    require(line >= max(1, rows), f"a leading dimension of {line} for {rows} rows")
    dtype = np.dtype(DTYPES[code])
    require(address % dtype.itemsize == 0 and address > 0, f"address {address}")
    count = line * (columns - 1) + rows
    memory = (ctypes.c_char * (count * dtype.itemsize)).from_address(address)
    flat = np.frombuffer(memory, dtype)
    flat.flags.writeable = True
    return np.lib.stride_tricks.as_strided(flat, (rows, columns), (dtype.itemsize, line * dtype.itemsize))


def rounded(x: Any) -> Any:
    """float32 with 10 bits after the leading one, as tensor cores take it."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    return ((bits + 0xFFF + (bits >> 13 & 1)) & np.uint32(0xFFFFE000)).view(np.float32)


def gemm(
    transa: int, transb: int, m: int, n: int, k: int, alpha: int, a: int, atype: int, lda: int, stride_a: int,
    b: int, btype: int, ldb: int, stride_b: int, beta: int, c: int, ctype: int, ldc: int, stride_c: int,
    batch: int, compute: int, algo: int,
) -> None:  # fmt: skip
    for value in (transa, transb, m, n, k, lda, ldb, ldc, batch):
        require(int(value) == value and 0 <= value < 2**31, f"the int {value!r}")
    require(transa in (0, 1) and transb in (0, 1), "the operations")
    require(atype == btype == ctype, "types that differ")
    require(compute == (F64 if ctype == 1 else F32) or (compute, ctype) == (TF32, 0), f"{compute} for type {ctype}")
    require(algo == -1, f"algorithm {algo}")
    require(batch == 1 or abs(stride_c) >= ldc * (n - 1) + m, "results that overlap")
    scalar = np.float64 if compute == F64 else np.float32
    factors = [np.frombuffer((ctypes.c_char * scalar().itemsize).from_address(s), scalar)[0] for s in (alpha, beta)]
    take = rounded if compute == TF32 else lambda x: x.astype(scalar)
    size = np.dtype(DTYPES[ctype]).itemsize
    for i in range(batch):
        left = matrix(a + i * stride_a * size, atype, *((k, m) if transa else (m, k)), lda)
        right = matrix(b + i * stride_b * size, btype, *((n, k) if transb else (k, n)), ldb)
        to = matrix(c + i * stride_c * size, ctype, m, n, ldc)
        found = factors[0] * (take(left.T if transa else left) @ take(right.T if transb else right))
        to[...] = (found + factors[1] * to.astype(scalar) if factors[1] else found).astype(to.dtype)


def _call(name: str, args: tuple[Any, ...]) -> None:
    calls.append((name, args))

    @np.errstate(all="ignore")
    def run() -> None:
        if "trided" in name:
            gemm(*args)
            return
        first, second, third, last = args[:9], args[9:12], args[12:16], args[16:]  # each but the last has no stride
        gemm(*first, 0, *second, 0, *third, 0, 1, *last)

    run()
    arrays = _arrays_at(args)
    memory = [weakref.ref(array._data) for array in arrays]

    def again() -> None:
        assert all(ref() is not None for ref in memory), "a graph uses memory that was freed"
        run()

    for watcher in host_cuda.watchers:
        watcher(again, arrays)


def _arrays_at(args: tuple[Any, ...]) -> list[Any]:
    """The arrays to whose memory addresses point."""
    from cupy import _new, _thread

    bases = [base for ref in list(fake_graph._alive.values()) if (base := ref()) is not None]
    found = [x for x in bases if any(x.ctypes.data <= a < x.ctypes.data + x.nbytes for a in args if a > 2**16)]
    return [_new(base, _thread.device) for base in found]


def _capturing() -> bool:
    from cupy.cuda import get_current_stream

    return getattr(get_current_stream(), "graph", None) is not None


def _of_cupy(name: str) -> Any:
    def function(handle: int, *args: Any) -> None:
        assert handle == HANDLE
        if _capturing():
            raise NotImplementedError("calling cuBLAS API during stream capture is currently unsupported")
        _call(name, args)

    return function


def module() -> ModuleType:
    """What takes the place of ``cupy_backends.cuda.libs.cublas``."""
    cublas: Any = ModuleType("cupy_backends.cuda.libs.cublas")
    cublas.CUBLASError = CUBLASError
    for name in ("gemmEx", "gemmStridedBatchedEx"):
        setattr(cublas, name, _of_cupy(name))
    return cublas  # type: ignore[no-any-return]


class Bindings(ModuleType):
    """What takes the place of ``nvmath.bindings.cublas``: works under capture, on the stream it is told."""

    def __init__(self) -> None:
        super().__init__("nvmath.bindings.cublas")
        self.made: list[int] = []
        self.streams: dict[int, int] = {}
        self.workspaces: dict[int, tuple[int, int]] = {}

    def create(self) -> int:
        self.made.append(2001 + len(self.made))
        return self.made[-1]

    def set_stream(self, handle: int, stream: int) -> None:
        self.streams[handle] = stream
        self.workspaces.pop(handle, None)  # as in cuBLAS: back to its own

    def set_workspace(self, handle: int, workspace: int, size: int) -> None:
        require(workspace % 16 == 0, "a workspace that is not aligned")
        self.workspaces[handle] = workspace, size

    def _run(self, name: str, handle: int, args: tuple[Any, ...]) -> None:
        require(handle in self.made, "no handle")
        require(handle in self.streams, "no stream")
        require(handle in self.workspaces, "memory of its own under capture")
        _call(name, args)

    def gemm_ex(self, handle: int, *args: Any) -> None:
        self._run("gemm_ex", handle, args)

    def gemm_strided_batched_ex(self, handle: int, *args: Any) -> None:
        self._run("gemm_strided_batched_ex", handle, args)


def install(cupy: Any) -> dict[str, ModuleType]:
    """Give the stand-in a handle, and return the modules to be found by import."""
    cupy.cuda.device.get_cublas_handle = lambda: HANDLE
    cupy.Device.compute_capability = "90"
    backends, cuda, libs, cublas = (
        ModuleType("cupy_backends"), ModuleType("cupy_backends.cuda"), ModuleType("cupy_backends.cuda.libs"), module()
    )  # fmt: skip
    libs.cublas = cublas  # type: ignore[attr-defined]
    return {m.__name__: m for m in (backends, cuda, libs, cublas)}
