"""cuBLASLt: a matrix product and what follows it in one kernel, through nvmath-python's bindings.

What is found out for a product (a plan) is kept for the next one of the same form, the last `PLANS` for each thread.

Matrices are stored by rows here and by columns there, where each is its own transpose: the factors change places.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import cupy
import numpy as np

from . import product as products
from .bindings import bindings, handle, of_thread, room

#: cublasLtEpilogue_t
BIAS, RELU, RELU_BIAS, BGRADA = 4, 2, 6, 256

PLANS = 256  #: kept for each thread
_WORKSPACE = 32 << 20  # at most, bytes

_TRANSA, _TRANSB, _EPILOGUE, _BIAS_POINTER = 3, 4, 7, 8  # cublasLtMatmulDescAttributes_t
_MAX_WORKSPACE, _MIN_ALIGNMENT = 1, (5, 6, 7, 8)  # cublasLtMatmulPreferenceAttributes_t: of a, b, c, d


class Plan:
    """How a product of one form is computed; it owns descriptions that cuBLASLt keeps on the host.

    Raises
    ------
    Exception
        What cuBLASLt raises where it has no kernel for that.
    """

    def __init__(self, lt: Any, form: tuple[Any, ...], bias: int) -> None:
        (_, code, compute, epilog, m, n, k, a_turned, b_turned, a_line, b_line, d_line, *alignments) = form
        self.lt = lt
        self.layouts: list[int] = []
        self.description = lt.matmul_desc_create(compute, 0)  # whose factors are float32
        try:
            for attribute, value, kind in (
                (_TRANSA, a_turned, np.int32),
                (_TRANSB, b_turned, np.int32),
                (_EPILOGUE, epilog, np.int32),
            ):
                _set(lt.matmul_desc_set_attribute, self.description, attribute, kind(value))
            self.bias = np.empty(1, np.uint64)
            self.bias_address = self.bias.ctypes.data
            self.point(bias)
            for rows, columns, line in (
                (k, m, a_line) if a_turned else (m, k, a_line),
                (n, k, b_line) if b_turned else (k, n, b_line),
                (m, n, d_line),
            ):
                self.layouts.append(lt.matrix_layout_create(code, rows, columns, line))
            self._choose(alignments)
        except BaseException:
            self.free()
            raise

    def _choose(self, alignments: list[int]) -> None:
        lt, (a, b, d) = self.lt, self.layouts
        self.best = np.zeros(1, lt.matmul_heuristic_result_dtype)  # begins with the algorithm
        self.algorithm = self.best.ctypes.data
        count = np.zeros(1, np.int32)
        wishes = lt.matmul_preference_create()
        try:
            _set(lt.matmul_preference_set_attribute, wishes, _MAX_WORKSPACE, np.uint64(_WORKSPACE))
            of_a, of_b, of_d = alignments
            for attribute, value in zip(_MIN_ALIGNMENT, (of_a, of_b, of_d, of_d), strict=True):
                _set(lt.matmul_preference_set_attribute, wishes, attribute, np.uint32(value))
            lt.matmul_algo_get_heuristic(
                handle("cublasLt"), self.description, a, b, d, d, wishes, 1, self.algorithm, count.ctypes.data
            )
        finally:
            lt.matmul_preference_destroy(wishes)
        if not count[0]:
            raise NotImplementedError("cuBLASLt has no kernel for this product")
        size = int(self.best["workspace_size"][0])
        self.workspace = size + 16 if size else 0  # nvmath-python adds 16 to work around an error of the library

    def point(self, bias: int) -> None:
        """Set the address of the bias, or of its gradient."""
        self.bias[0] = bias
        self.lt.matmul_desc_set_attribute(self.description, _BIAS_POINTER, self.bias_address, 8)

    def free(self) -> None:
        """Give the descriptions back; kernels on their way do not need them."""
        for layout in self.layouts:
            self.lt.matrix_layout_destroy(layout)
        self.lt.matmul_desc_destroy(self.description)


def _set(function: Any, target: int, attribute: int, value: Any) -> None:
    buffer = np.asarray([value])
    function(target, attribute, buffer.ctypes.data, buffer.nbytes)


def product_with(epilog: int, a: Any, b: Any, out: Any, bias: Any) -> bool:
    """``out = a @ b`` of matrices with an epilog, if cuBLASLt can be had and has it.

    Parameters
    ----------
    epilog
        `RELU`; `BIAS` or `RELU_BIAS`, which add `bias` to the rows; `BGRADA`, which writes the sums over the rows of
        `b` to `bias`.
    a, b, out
        Matrices, not empty, of shapes (m, k), (k, n) and (m, n) and of one dtype: float16, bfloat16 or float32. `out`
        is C-contiguous.
    bias
        Of shape (n,), contiguous, or None.

    Returns
    -------
    bool
        Whether it was done; if not, nothing was.
    """
    lt = bindings("cublasLt")
    if lt is None or out.dtype == np.float64:
        return False
    a, a_turned, a_line, _ = products._laid_out(a, ())
    b, b_turned, b_line, _ = products._laid_out(b, ())
    kind = products.kind_of(out.dtype)
    pa, pb, pd, pbias = a.data.ptr, b.data.ptr, out.data.ptr, 0 if bias is None else bias.data.ptr
    (m, k), n = a.shape, b.shape[1]
    alignments = _alignment(pb), _alignment(pa), _alignment(pd | pbias)
    device = cupy.cuda.runtime.getDevice()
    form = (device, kind.code, products.compute_of(kind), epilog, n, m, k, b_turned, a_turned, b_line, a_line, n)
    plan = _plan(lt, (*form, *alignments), pbias)
    if plan is None:
        return False
    plan.point(pbias)
    space = room(plan.workspace)
    b_layout, a_layout, layout = plan.layouts
    work = 0 if space is None else space.data.ptr
    stream = cupy.cuda.get_current_stream().ptr
    lt.matmul(
        *(handle("cublasLt"), plan.description, kind.one, pb, b_layout, pa, a_layout, kind.zero, pd, layout),
        *(pd, layout, plan.algorithm, work, plan.workspace, stream),
    )
    return True


def _alignment(address: int) -> int:
    return min(address & -address, 256) if address else 256


def _plan(lt: Any, form: tuple[Any, ...], bias: int) -> Plan | None:
    """The plan for a form, None where there is none: found once, unless that was too long ago."""
    plans: OrderedDict[Any, Plan | None] = of_thread.plans
    if form in plans:
        plans.move_to_end(form)
        return plans[form]
    plan: Plan | None
    try:
        plan = Plan(lt, form, bias)
    except (lt.cuBLASLtError, NotImplementedError):
        plan = None
    plans[form] = plan
    if len(plans) > PLANS:
        _, old = plans.popitem(last=False)
        if old is not None:
            old.free()
    return plan
