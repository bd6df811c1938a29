"""cuBLAS on the host, for the CuPy stand-in: calls are taken at their word, addresses and all, and computed by NumPy.

`gemmEx` and `gemmStridedBatchedEx` (CuPy's bindings) and `gemm_ex`, `gemm_strided_batched_ex` and the like
(nvmath-python's) have the parameters of the real ones, in their order. What cuBLAS would refuse is refused.
"""

from __future__ import annotations

import ctypes
import weakref
from types import ModuleType
from typing import Any, ClassVar

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
    require(atype == btype and (ctype == atype or (ctype == 0 and atype in (2, 14))), "types that differ")
    require(compute == (F64 if ctype == 1 else F32) or (compute, ctype) == (TF32, 0), f"{compute} for type {ctype}")
    require(algo == -1, f"algorithm {algo}")
    apart = abs(stride_c) >= ldc * (n - 1) + m or m <= abs(stride_c) <= (ldc - m) / max(batch - 1, 1)  # or side by side
    require(batch == 1 or apart, "results that overlap")
    scalar = np.float64 if compute == F64 else np.float32
    factors = [np.frombuffer((ctypes.c_char * scalar().itemsize).from_address(s), scalar)[0] for s in (alpha, beta)]
    take = rounded if compute == TF32 else lambda x: x.astype(scalar)
    narrow, size = (np.dtype(DTYPES[kind]).itemsize for kind in (atype, ctype))
    for i in range(batch):
        left = matrix(a + i * stride_a * narrow, atype, *((k, m) if transa else (m, k)), lda)
        right = matrix(b + i * stride_b * narrow, btype, *((n, k) if transb else (k, n)), ldb)
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

    noted(run, args)


def noted(run: Any, addresses: tuple[Any, ...]) -> None:
    """Compute, and let it be recorded."""
    run()
    arrays = _arrays_at(addresses)
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
        self.count = 0
        self.streams: dict[int, int] = {}
        self.workspaces: dict[int, tuple[int, int]] = {}

    def create(self) -> int:
        self.made.append(2001 + self.count)
        self.count += 1
        return self.made[-1]

    def destroy(self, handle: int) -> None:
        self.made.remove(handle)

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


class LtBindings(ModuleType):
    """What takes the place of ``nvmath.bindings.cublasLt``.

    Descriptions live from create to destroy. A heuristic result is good for the very product that it was asked for.
    """

    class cuBLASLtError(Exception):
        pass

    TRANSA, TRANSB, EPILOGUE, BIAS_POINTER = 3, 4, 7, 8
    DEFAULT, RELU, BIAS, RELU_BIAS, BGRADA = 1, 2, 4, 6, 256
    WORKSPACE = 1000
    SIZES: ClassVar = {3: "i4", 4: "i4", 7: "i4", 8: "u8"}  # of attributes of a product
    WISHES: ClassVar = {1: "u8", 5: "u4", 6: "u4", 7: "u4", 8: "u4"}  # of attributes of a preference

    matmul_algo_dtype = np.dtype([("data_", "<u8", (8,))])
    matmul_heuristic_result_dtype = np.dtype(
        [
            *[("algo", matmul_algo_dtype), ("workspace_size", "<u8"), ("state", "<i4")],
            *[("waves_count", "<f4"), ("reserved", "<i4", (4,))],
        ],
        align=True,
    )

    def __init__(self) -> None:
        super().__init__("nvmath.bindings.cublasLt")
        self.alive: dict[int, dict[Any, Any]] = {}
        self.refused: set[int] = set()  # epilogs
        self.asked: list[tuple[Any, ...]] = []  # the products that a heuristic result was asked for
        self.count = 0

    def _new(self, kind: str, **values: Any) -> int:
        self.count += 1
        self.alive[3000 + self.count] = {"kind": kind, **values}
        return 3000 + self.count

    def _get(self, name: int, kind: str) -> dict[Any, Any]:
        require(self.alive.get(name, {}).get("kind") == kind, f"{name} is no {kind} that is alive")
        return self.alive[name]

    def _destroy(self, name: int, kind: str) -> None:
        self._get(name, kind)
        del self.alive[name]

    def create(self) -> int:
        return self._new("handle")

    def destroy(self, light_handle: int) -> None:
        self._destroy(light_handle, "handle")

    def matmul_desc_create(self, compute_type: int, scale_type: int) -> int:
        require((compute_type, scale_type) in ((F32, 0), (TF32, 0), (F64, 1)), f"{compute_type} with {scale_type}")
        return self._new("product", compute=compute_type, scale=scale_type)

    def matmul_desc_destroy(self, matmul_desc: int) -> None:
        self._destroy(matmul_desc, "product")

    def matmul_desc_set_attribute(self, matmul_desc: int, attr: int, buf: int, size_in_bytes: int) -> None:
        self._read(self._get(matmul_desc, "product"), self.SIZES, attr, buf, size_in_bytes)

    def _read(self, of: dict[Any, Any], sizes: dict[int, str], attr: int, buf: int, size: int) -> None:
        dtype = np.dtype(sizes[attr])
        require(size == dtype.itemsize, f"{size} bytes for attribute {attr}")
        of[attr] = int(np.frombuffer((ctypes.c_char * size).from_address(buf), dtype)[0])

    def matrix_layout_create(self, type: int, rows: int, cols: int, ld: int) -> int:
        require(ld >= max(1, rows) and rows > 0 and cols > 0, f"{rows} rows, {cols} columns, {ld} between these")
        return self._new("layout", form=(type, rows, cols, ld))

    def matrix_layout_destroy(self, mat_layout: int) -> None:
        self._destroy(mat_layout, "layout")

    def matmul_preference_create(self) -> int:
        return self._new("preference")

    def matmul_preference_set_attribute(self, pref: int, attr: int, buf: int, size_in_bytes: int) -> None:
        self._read(self._get(pref, "preference"), self.WISHES, attr, buf, size_in_bytes)

    def matmul_preference_destroy(self, pref: int) -> None:
        self._destroy(pref, "preference")

    def _form(self, product: dict[Any, Any], *layouts: int) -> tuple[Any, ...]:
        described = tuple(self._get(layout, "layout")["form"] for layout in layouts)
        return (product["compute"], product[self.TRANSA], product[self.TRANSB], product[self.EPILOGUE], *described)

    def matmul_algo_get_heuristic(
        self, light_handle: int, operation_desc: int, adesc: int, bdesc: int, cdesc: int, ddesc: int,
        preference: int, requested_algo_count: int, heuristic_results_array: int, return_algo_count: int,
    ) -> None:  # fmt: skip
        self._get(light_handle, "handle")
        product, wishes = self._get(operation_desc, "product"), self._get(preference, "preference")
        require(requested_algo_count == 1, "one result is enough")
        epilog = product[self.EPILOGUE]
        require(epilog in (self.DEFAULT, self.RELU, self.BIAS, self.RELU_BIAS, self.BGRADA), f"epilog {epilog}")
        require(product[self.BIAS_POINTER] > 0 or epilog == self.RELU, "no bias")
        form = self._form(product, adesc, bdesc, cdesc, ddesc)
        if epilog in self.refused or form[4][0] == 1:
            raise self.cuBLASLtError("NOT_SUPPORTED (15)")
        require(wishes[1] >= self.WORKSPACE, "too little room")
        self.asked.append((*form, *(wishes[k] for k in self.WISHES)))
        for address, dtype, value in (
            (heuristic_results_array, self.matmul_heuristic_result_dtype, (((len(self.asked),) * 8,), 1000, 0, 1.0, 0)),
            (return_algo_count, np.dtype("i4"), 1),
        ):
            to = np.frombuffer((ctypes.c_char * dtype.itemsize).from_address(address), dtype)
            to.flags.writeable = True
            to[0] = value

    def matmul(
        self, light_handle: int, compute_desc: int, alpha: int, a: int, adesc: int, b: int, bdesc: int, beta: int,
        c: int, cdesc: int, d: int, ddesc: int, algo: int, workspace: int, workspace_size_in_bytes: int, stream: int,
    ) -> None:  # fmt: skip
        from cupy.cuda import get_current_stream

        self._get(light_handle, "handle")
        product = dict(self._get(compute_desc, "product"))
        form = self._form(product, adesc, bdesc, cdesc, ddesc)
        chosen = np.frombuffer((ctypes.c_char * 64).from_address(algo), self.matmul_algo_dtype)[0]["data_"]
        require((chosen == chosen[0]).all() and 0 < chosen[0] <= len(self.asked), "no algorithm")
        asked = self.asked[int(chosen[0]) - 1]
        require(asked[: len(form)] == form, "an algorithm for another product")
        require(workspace > 0 and workspace_size_in_bytes >= self.WORKSPACE, "too little room")
        require(stream == get_current_stream().ptr, "another stream")
        bias = product[self.BIAS_POINTER]
        for address, aligned in ((a, asked[-4]), (b, asked[-3]), (c, asked[-2]), (d, asked[-1]), (bias, asked[-1])):
            require(address % aligned == 0, f"an address that is not a multiple of {aligned}")
        (code, *of_a), (_, *of_b), (_, *of_c), of_d = form[4:]
        m, n = of_d[1:3]
        k = of_a[0] if form[1] else of_a[1]
        args = (form[1], form[2], m, n, k, alpha, a, code, of_a[2], 0, b, code, of_b[2], 0, beta, d, code, of_d[3], 0)

        @np.errstate(all="ignore")
        def run() -> None:
            require(tuple(of_c) == tuple(of_d[1:]) and c == d, "another c")
            to = matrix(d, code, m, n, of_d[3])
            left, right = (matrix(x, code, *rest) for x, rest in ((a, of_a), (b, of_b)))
            left, right = left.T if form[1] else left, right.T if form[2] else right
            take = rounded if form[0] == TF32 else lambda x: x.astype(np.float32)
            wide = take(left) @ take(right)  # the epilog sees sums that are not rounded yet
            epilog = form[3]
            if epilog in (self.BIAS, self.RELU_BIAS):
                wide = wide + matrix(bias, code, m, 1, m).astype(np.float32)
            if epilog in (self.RELU, self.RELU_BIAS):
                wide = np.where(wide <= 0, 0, wide)
            if epilog == self.BGRADA:
                matrix(bias, code, m, 1, m)[...] = left.astype(np.float32).sum(1, keepdims=True).astype(to.dtype)
            to[...] = wide.astype(to.dtype)

        calls.append((f"lt {form[3]}", args))
        noted(run, (a, b, d, bias))


def install(cupy: Any) -> dict[str, ModuleType]:
    """Give the stand-in a handle, and return the modules to be found by import."""
    cupy.cuda.device.get_cublas_handle = lambda: HANDLE
    cupy.Device.compute_capability = "90"
    backends, cuda, libs, cublas = (
        ModuleType("cupy_backends"), ModuleType("cupy_backends.cuda"), ModuleType("cupy_backends.cuda.libs"), module()
    )  # fmt: skip
    libs.cublas = cublas  # type: ignore[attr-defined]
    return {m.__name__: m for m in (backends, cuda, libs, cublas)}
