"""Matrix products: of matrices or stacks of them, of transposed views as they lie, in every floating dtype.

Sums are formed in float32 for the 16-bit dtypes, in the own dtype otherwise; in TF32 if `matmul_precision` allows it.

cuBLAS computes them through CuPy, which refuses it while a stream is captured. Then other bindings of the same cuBLAS
do (`bindings`); where there are none, a kernel of this module.
"""

from __future__ import annotations

import math
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple

import cupy
import numpy as np
from array_api_compat.cupy import tensordot as _tensordot

from ... import products
from .bindings import bindings, handle, room
from .common import Kernel, is_floating
from .sums import parts_for, sum_of_parts

try:
    from cupy_backends.cuda.libs import cublas
except ImportError:  # CuPy was installed without it
    cublas = None

_F32, _TF32, _F64 = 68, 77, 70  # cublasComputeType_t
_DEFAULT = -1  # cublasGemmAlgo_t
_WORKSPACE = 32 << 20  # bytes, what NVIDIA advises for its largest GPUs

_SCALARS: dict[str, Any] = {"float": np.asarray([1, 0], np.float32), "double": np.asarray([1, 0], np.float64)}  # host's


class _Kind(NamedTuple):
    code: int  # cudaDataType_t
    compute: int
    one: int  # addresses of the scalars that cuBLAS multiplies by
    zero: int


def _kind(code: int, compute: int, scalar: str) -> _Kind:
    one = _SCALARS[scalar].ctypes.data
    return _Kind(code, compute, one, one + _SCALARS[scalar].itemsize)


_KINDS = {
    "float16": _kind(2, _F32, "float"),
    "bfloat16": _kind(14, _F32, "float"),
    "float32": _kind(0, _F32, "float"),
    "float64": _kind(1, _F64, "double"),
}
_kinds: dict[Any, _Kind] = {}  # by dtype


def kind_of(dtype: Any) -> _Kind:
    """What cuBLAS calls a floating dtype."""
    kind = _kinds.get(dtype)
    if kind is None:
        kind = _kinds[dtype] = _KINDS[str(dtype)]
    return kind


def compute_of(kind: _Kind) -> int:
    """The type that cuBLAS is to compute in, by the policy of this moment."""
    return _TF32 if kind.code == 0 and products.float32_products == "tf32" and _has_tf32() else kind.compute


def product(a: Any, b: Any, *, out: Any = None, accumulate: bool = False) -> Any:
    """``a @ b`` of CuPy arrays of one floating dtype.

    Parameters
    ----------
    a, b
        Of shapes (..., m, k) and (..., k, n), whose first axes broadcast. Views of which one of the last two axes is
        contiguous are taken as they are, so that ``x.T`` or a slice of rows or columns costs nothing.
    out
        Where to write, of shape (..., m, n), with a contiguous last axis; it must not overlap `a` or `b`. Of the dtype
        of these, or of float32 for those of 16 bits.
    accumulate
        Whether to add to `out` instead of overwriting it, in the same pass.

    Returns
    -------
    array
        Of shape (..., m, n): `out`, if given.

    Raises
    ------
    TypeError
        If the dtypes differ.
    ValueError
        If the shapes do not fit, or `out` is not laid out as said.

    Notes
    -----
    ``(..., m, k) @ (k, n)`` is one product of matrices, where the first axes can be joined.
    """
    ashape, bshape = a.shape, b.shape
    if a.dtype != b.dtype:
        raise TypeError(f"product expects arrays of one dtype, got {a.dtype} and {b.dtype}")
    if len(ashape) < 2 or len(bshape) < 2 or ashape[-1] != bshape[-2]:
        raise ValueError(f"product expects shapes (..., m, k) and (..., k, n), got {ashape} and {bshape}")
    if len(bshape) == 2 < len(ashape) and a.flags.c_contiguous and (out is None or out.flags.c_contiguous):
        shape = (*ashape[:-1], bshape[1])
        rows = math.prod(ashape[:-1])
        flat = None if out is None else _checked(out, shape, a.dtype).reshape(rows, bshape[1])
        return product(a.reshape(rows, ashape[-1]), b, out=flat, accumulate=accumulate).reshape(shape)
    batch = ashape[:-2]
    if batch != bshape[:-2]:
        batch = np.broadcast_shapes(batch, bshape[:-2])
    shape = (*batch, ashape[-2], bshape[-1])
    if out is None:
        c, c_row, c_step = cupy.empty(shape, a.dtype), shape[-1], shape[-2] * shape[-1]
        accumulate = False
    else:
        c, transposed, c_row, c_step = _laid_out(_checked(out, shape, a.dtype), batch)
        if c is not out or transposed:
            raise ValueError(f"product expects an out with contiguous rows, got strides {out.strides}")
    if ashape[-1] and c.size:
        _multiply(*_laid_out(a, batch), *_laid_out(b, batch), c, c_row, c_step, math.prod(batch), accumulate)
    elif not accumulate:
        c.fill(0)
    return c


def _checked(out: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    if out.shape != shape or (out.dtype != dtype and not (dtype.itemsize == 2 and out.dtype == np.float32)):
        raise ValueError(f"product expects an out of shape {shape} and {dtype}, got {out.shape} and {out.dtype}")
    return out


def _laid_out(x: Any, batch: tuple[int, ...]) -> tuple[Any, bool, int, int]:
    """The matrices as they lie: whether by columns, and the steps between lines and between matrices.

    What cannot be told in these terms is copied. Steps are in elements.
    """
    size, shape, strides = x.itemsize, x.shape, x.strides
    step = 0 if len(shape) == 2 else _joined(shape, strides, batch)
    rows, columns = shape[-2:]
    row, column = strides[-2] // size, strides[-1] // size
    if step is not None:
        if (column == 1 or columns == 1) and (row >= columns or rows == 1):
            return x, False, max(row if rows > 1 else columns, 1), step // size
        if (row == 1 or rows == 1) and (column >= rows or columns == 1):
            return x, True, max(column if columns > 1 else rows, 1), step // size
    if step is None and shape[:-2] != batch:
        x = cupy.broadcast_to(x, (*batch, rows, columns))
    x = cupy.ascontiguousarray(x)
    return x, False, columns, rows * columns if x.size > rows * columns else 0


def _joined(shape: tuple[int, ...], strides: tuple[int, ...], batch: tuple[int, ...]) -> int | None:
    """The step, in bytes, that leads through all of `batch`, if there is one."""
    if math.prod(shape[:-2]) == 1:
        return 0
    if shape[:-2] != batch:
        return None
    step = expected = None
    for n, stride in zip(reversed(shape[:-2]), reversed(strides[:-2]), strict=True):
        if n == 1:
            continue
        if step is None:
            step = stride
        elif stride != expected:
            return None
        expected = stride * n
    return step if step is not None and step >= 0 else None


def _multiply(*operands: Any) -> None:
    """``c = a @ b`` or ``c += a @ b`` of arrays as `_laid_out` gives them, by the first way there is."""
    name, args = _call_of(*operands)
    if cublas is not None and not _thread.as_captured:
        try:
            getattr(cublas, name[0])(cupy.cuda.device.get_cublas_handle(), *args)
            return
        except NotImplementedError:  # the stream is captured
            pass
    other = bindings("cublas")
    if other is None:
        _say_once()
        _tiled(*operands)
        return
    own = handle("cublas")
    other.set_stream(own, cupy.cuda.get_current_stream().ptr)
    space = room(_WORKSPACE)
    other.set_workspace(own, space.data.ptr, _WORKSPACE)
    getattr(other, name[1])(own, *args)


def _call_of(*operands: Any) -> tuple[tuple[str, str], tuple[Any, ...]]:
    """The function of cuBLAS, as CuPy and nvmath-python name it, and its arguments after the handle."""
    a, a_turned, a_line, a_step, b, b_turned, b_line, b_step, c, c_line, c_step, batches, accumulate = operands
    kind = kind_of(a.dtype)
    code, _, one, zero = kind
    compute = compute_of(kind)
    of_c = code if c.dtype == a.dtype else kind_of(c.dtype).code
    if accumulate:
        zero = one
    # cuBLAS stores by columns, where c by rows is its transpose: b is on the left
    m, n, k = c.shape[-1], c.shape[-2], a.shape[-1]
    pa, pb, pc = a.data.ptr, b.data.ptr, c.data.ptr
    if batches == 1:
        return ("gemmEx", "gemm_ex"), (
            *(b_turned, a_turned, m, n, k, one, pb, code, b_line, pa, code, a_line),
            *(zero, pc, of_c, c_line, compute, _DEFAULT),
        )
    return ("gemmStridedBatchedEx", "gemm_strided_batched_ex"), (
        *(b_turned, a_turned, m, n, k, one, pb, code, b_line, b_step, pa, code, a_line, a_step),
        *(zero, pc, of_c, c_line, c_step, batches, compute, _DEFAULT),
    )


def repeated(a: Any, b: Any, out: Any, *, accumulate: bool = False) -> Callable[[Any, Any], None]:
    """``product(a, b, out=out)`` of matrices, for many `a` and `out` that lie as these do.

    All that does not change from call to call is done once, as the loops through time of recurrent networks want it.

    Parameters
    ----------
    a, b, out, accumulate
        As for `product`; all of them matrices.

    Returns
    -------
    function
        ``multiply(a, out)``.
    """
    (m, k), (_, n) = a.shape, b.shape
    of_a, of_b, of_c = (_laid_out(x, ()) for x in (a, b, _checked(out, (m, n), a.dtype)))
    as_they_lie = of_a[0] is a and of_c[0] is out and not of_c[1]
    if cublas is None or _thread.as_captured or not (m and n and k) or not as_they_lie:

        def whole(a: Any, out: Any) -> None:
            product(a, b, out=out, accumulate=accumulate)

        return whole
    b = of_b[0]  # which must live as long as its address is used
    _, args = _call_of(*of_a, *of_b, out, *of_c[2:], 1, accumulate)
    before, between, after = args[:9], args[10:13], args[14:]
    gemm, handle = cublas.gemmEx, cupy.cuda.device.get_cublas_handle

    def multiply(a: Any, out: Any) -> None:
        try:
            gemm(handle(), *before, a.data.ptr, *between, out.data.ptr, *after)
        except NotImplementedError:  # the stream is captured
            _multiply(a, *of_a[1:], *of_b, out, *of_c[2:], 1, accumulate)

    return multiply


@cache
def _tf32_of(device: int) -> bool:
    return int(cupy.cuda.Device(device).compute_capability) >= 80


def _has_tf32() -> bool:
    return _tf32_of(cupy.cuda.runtime.getDevice())


class _Thread(threading.local):
    as_captured = False


_thread = _Thread()


@contextmanager
def as_captured() -> Iterator[None]:
    """Have products computed as they are under capture, to the same bits."""
    outer, _thread.as_captured = _thread.as_captured, True
    try:
        yield
    finally:
        _thread.as_captured = outer


def prepare() -> None:
    """Make what products need under capture and should not be made then: call it before."""
    if cublas is not None:
        cupy.cuda.device.get_cublas_handle()
    for library in ("cublas", "cublasLt"):
        if bindings(library) is not None:
            handle(library)


_said = False


def _why_not() -> str:
    if cublas is None:
        return "CuPy finds no cuBLAS; its extra [ctk] brings it"
    return "CuPy cannot capture that, and it was found by no other way; pip install gpubp[nvmath] brings one"


def _say_once() -> None:
    global _said
    if not _said:
        _said = True
        warnings.warn(
            f"matrix products use gpubp's own kernel, which is slower than cuBLAS: {_why_not()}",
            RuntimeWarning,
            stacklevel=2,
        )


# -- a kernel of our own

_TILE = 64  # rows and columns of c to a block of 256 threads, each with 4 × 4 elements

_product = Kernel(
    "matrix_product",
    r"""
extern "C" __global__ void __launch_bounds__(256) matrix_product(
    const T* a, const T* b, T* c, W* wide, W* parts, long long m, long long n, long long k,
    long long a_row, long long a_column, long long a_step, long long b_row, long long b_column, long long b_step,
    long long c_row, long long c_step, long long batches, long long splits, long long accumulate)
{
    alignas(16) __shared__ W left[16][68];   // 16 columns of 64 rows of a,
    alignas(16) __shared__ W right[16][68];  // and 16 rows of 64 columns of b
    int t = threadIdx.x, x = t % 16 * 4, y = t / 16 * 4;
    long long across = (n + 63) / 64;
    long long row = blockIdx.x / across * 64, column = blockIdx.x % across * 64;
    long long share = ((k + splits - 1) / splits + 15) / 16 * 16;
    bool by_columns = a_row == 1, by_rows = b_column == 1;
    for (long long job = blockIdx.y; job < batches * splits; job += gridDim.y) {
        long long batch = job / splits, split = job % splits;
        long long from = split * share, to = min(from + share, k);
        const T* A = a + batch * a_step;
        const T* B = b + batch * b_step;
        W sums[4][4] = {};
        T u[4], v[4];  // the next tile, on its way while this one is multiplied
        #pragma unroll
        for (int i = 0; i < 4; ++i) u[i] = v[i] = T(0.0f);
        for (long long at = from - 16; at < to; at += 16) {
            long long next = at + 16;
            #pragma unroll
            for (int i = 0; i < 4; ++i) {  // neighbouring threads read neighbouring elements
                int e = t + 256 * i;
                long long r = row + (by_columns ? e % 64 : e / 16), s = next + (by_columns ? e / 64 : e % 16);
                u[i] = r < m && s < to ? A[r * a_row + s * a_column] : T(0.0f);
                s = next + (by_rows ? e / 64 : e % 16), r = column + (by_rows ? e % 64 : e / 16);
                v[i] = r < n && s < to ? B[s * b_row + r * b_column] : T(0.0f);
            }
            if (at >= from) {
                #pragma unroll
                for (int s = 0; s < 16; ++s) {
                    W p[4], q[4];
                    #pragma unroll
                    for (int i = 0; i < 4; ++i) p[i] = left[s][y + i], q[i] = right[s][x + i];
                    #pragma unroll
                    for (int i = 0; i < 4; ++i)
                        #pragma unroll
                        for (int j = 0; j < 4; ++j) sums[i][j] += p[i] * q[j];
                }
            }
            __syncthreads();
            #pragma unroll
            for (int i = 0; i < 4; ++i) {
                int e = t + 256 * i;
                if (by_columns) left[e / 64][e % 64] = W(u[i]); else left[e % 16][e / 16] = W(u[i]);
                if (by_rows) right[e / 64][e % 64] = W(v[i]); else right[e % 16][e / 16] = W(v[i]);
            }
            __syncthreads();
        }
        for (int i = 0; i < 4; ++i)
            for (int j = 0; j < 4; ++j) {
                long long r = row + y + i, s = column + x + j;
                if (r >= m || s >= n) continue;
                if (splits > 1) {
                    parts[((split * batches + batch) * m + r) * n + s] = sums[i][j];
                } else {
                    long long to = batch * c_step + r * c_row + s;
                    if (wide) wide[to] = accumulate ? wide[to] + sums[i][j] : sums[i][j];
                    else c[to] = T(accumulate ? W(c[to]) + sums[i][j] : sums[i][j]);
                }
            }
    }
}
""",
)


def _tiled(
    a: Any, a_turned: bool, a_line: int, a_step: int, b: Any, b_turned: bool, b_line: int, b_step: int,
    c: Any, c_line: int, c_step: int, batches: int, accumulate: bool,
) -> None:  # fmt: skip
    """The product by kernels of our own; a long sum over few elements is cut into parts, which are then added."""
    (m, n), k = c.shape[-2:], a.shape[-1]
    jobs = -(-m // _TILE) * -(-n // _TILE)
    splits = max(1, min(k // 256, 256 // (jobs * batches)))
    parts = parts_for(splits, (batches, m, n), a.dtype)
    of_a, of_b = (1, a_line) if a_turned else (a_line, 1), (1, b_line) if b_turned else (b_line, 1)
    args = (m, n, k, *of_a, a_step, *of_b, b_step, c_line, c_step, batches, splits, int(accumulate))
    into = (c, None) if c.dtype == a.dtype else (None, c)
    _product((jobs, min(batches * splits, 65535)), 256, a, b, *into, parts, *args, T=a.dtype)
    if parts is not None:
        sum_of_parts(parts, c, (batches, m, n), c_line, c_step, accumulate)


# -- in the place of CuPy's functions


def matmul(x1: Any, x2: Any, /) -> Any:
    """``x1 @ x2`` as the Array API standard has it, by `product` for floating dtypes."""
    if not (is_floating(x1) and is_floating(x2)) or x1.dtype != x2.dtype or not (x1.ndim and x2.ndim):
        return cupy.matmul(x1, x2)
    if x1.ndim > 1 and x2.ndim > 1:
        return product(x1, x2)
    row, column = x1.ndim == 1, x2.ndim == 1
    out = product(x1[None, :] if row else x1, x2[:, None] if column else x2)
    shape = out.shape
    return out.reshape((*shape[:-2], *(() if row else shape[-2:-1]), *(() if column else shape[-1:])))


def tensordot(x1: Any, x2: Any, /, *, axes: Any = 2) -> Any:
    """``tensordot`` as the Array API standard has it, by `product` for floating dtypes."""
    if not (is_floating(x1) and is_floating(x2)) or x1.dtype != x2.dtype:
        return _tensordot(x1, x2, axes=axes)
    if isinstance(axes, int):
        axes = range(x1.ndim - axes, x1.ndim), range(axes)
    used1, used2 = ([axis % x.ndim for axis in of] for of, x in zip(axes, (x1, x2), strict=True))
    free1, free2 = ([axis for axis in range(x.ndim) if axis not in used] for used, x in ((used1, x1), (used2, x2)))
    if len(used1) != len(used2) or any(x1.shape[i] != x2.shape[j] for i, j in zip(used1, used2, strict=True)):
        return _tensordot(x1, x2, axes=axes)  # which says what is wrong
    left, right = x1.transpose(free1 + used1), x2.transpose(used2 + free2)
    rows, k = math.prod(left.shape[: len(free1)]), math.prod(left.shape[len(free1) :])
    columns = math.prod(right.shape[len(used2) :])
    out = product(left.reshape(rows, k), right.reshape(k, columns))
    return out.reshape(left.shape[: len(free1)] + right.shape[len(used2) :])
