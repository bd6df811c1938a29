"""cuDNN's convolutions, through nvidia-cudnn-frontend, where that and cuDNN are installed (the extra ``cudnn``).

Each is a graph of one operation, whose plan holds for given shapes, options and dtype; the last `PLANS` of each thread
are kept. What cuDNN has no plan for is left to the kernels of `convolution`, and the reason is said once.
"""

from __future__ import annotations

import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import cupy

from ... import products
from ...functions.window import Windows
from .bindings import room

PLANS = 256  #: kept for each thread
WORKSPACE = 256 << 20  #: at most, bytes

_TYPES = {"float16": "HALF", "bfloat16": "BFLOAT16", "float32": "FLOAT"}

#: By operation: its name in cuDNN, and those of its operands.
_OPERATIONS = {
    "gathered": ("conv_fprop", "image", "weight"),
    "spread": ("conv_dgrad", "loss", "filter"),
    "products": ("conv_wgrad", "image", "loss"),
}
_FIRST, _SECOND, _RESULT = 1, 2, 3  # names of the tensors, in a graph and when it is run


@cache
def library() -> Any:
    """Return nvidia-cudnn-frontend's module, or None where it is not there or does not work."""
    if find_spec("cudnn") is None:
        return None
    try:
        found = import_module("cudnn")
        found.destroy_handle(found.create_handle())  # which needs cuDNN itself
    except Exception as error:  # of many kinds: no libcudnn, not all of it, another version of CUDA
        warnings.warn(f"nvidia-cudnn-frontend is installed but does not work: {error}", stacklevel=2)
        return None
    return found


def takes(dtype: Any) -> bool:
    """Whether there is a cuDNN to ask for convolutions of a dtype."""
    return str(dtype) in _TYPES and library() is not None


_of_thread = threading.local()


def handle() -> Any:
    """Return this thread's handle for the current device and stream; it stays."""
    handles: dict[int, Any] = _of_thread.__dict__.setdefault("handles", {})
    device = cupy.cuda.runtime.getDevice()
    found = handles.get(device)
    if found is None:
        found = handles[device] = library().create_handle()
    library().set_stream(handle=found, stream=cupy.cuda.get_current_stream().ptr)
    return found


def planned(form: tuple[Any, ...], make: Callable[[], Any]) -> Any:
    """Return what was made for a form, None where cuDNN could not; made once, unless that was too long ago."""
    plans: OrderedDict[Any, Any] = _of_thread.__dict__.setdefault("plans", OrderedDict())
    form = cupy.cuda.runtime.getDevice(), *form
    try:
        plans.move_to_end(form)
        return plans[form]
    except KeyError:
        pass
    try:
        plan = make()
    except Exception as error:  # cudnnGraphNotSupportedError, RuntimeError, ...: as many kinds as reasons
        _say_once(str(error).strip() or type(error).__name__)
        plan = None
    plans[form] = plan
    if len(plans) > PLANS:
        plans.popitem(last=False)
    return plan


_said: set[str] = set()


def _say_once(reason: str) -> None:
    if reason not in _said:
        _said.add(reason)
        warnings.warn(f"cuDNN has no plan for a convolution, which takes the usual way: {reason}", stacklevel=2)


class Plan:
    """A graph of one convolution and the plan that cuDNN chose for it.

    Parameters
    ----------
    operation
        ``"gathered"``, ``"spread"`` or ``"products"``, as in `convolution`.
    shapes
        Of the two operands and the result, channels last; that of weights is (n_out, *window, n_in // groups).
    dtype
        By name.
    tf32
        Whether products of float32 may be rounded to TF32.

    Raises
    ------
    Exception
        What nvidia-cudnn-frontend raises where cuDNN cannot do it.
    """

    def __init__(self, operation: str, shapes: Any, w: Windows, dtype: str, tf32: bool) -> None:
        cudnn = library()
        kind, single = getattr(cudnn.data_type, _TYPES[dtype]), cudnn.data_type.FLOAT
        self.graph = cudnn.pygraph(
            io_data_type=kind, intermediate_data_type=single, compute_data_type=single, handle=handle()
        )
        operands = [
            self.graph.tensor(dim=dim, stride=stride, data_type=kind, uid=uid)
            for uid, (dim, stride) in zip((_FIRST, _SECOND), map(_laid_out, shapes[:2]), strict=True)
        ]
        name, *names = _OPERATIONS[operation]
        more = max(2 - len(w.size), 0)  # cuDNN has two or three axes
        result = getattr(self.graph, name)(
            **dict(zip(names, operands, strict=True)),
            pre_padding=[0] * more + [before for before, _ in w.padding],
            post_padding=[0] * more + [after for _, after in w.padding],
            stride=[1] * more + list(w.stride),
            dilation=[1] * more + list(w.dilation),
            compute_data_type=single,
        )
        dim, stride = _laid_out(shapes[2])
        result.set_output(True)
        result.set_uid(_RESULT)
        result.set_dim(dim)
        result.set_stride(stride)
        result.set_data_type(kind)
        self._choose(cudnn, dtype, tf32)

    def _choose(self, cudnn: Any, dtype: str, tf32: bool) -> None:
        graph, notes = self.graph, cudnn.numerical_note
        unwanted = [notes.NONDETERMINISTIC]
        if dtype == "float32":
            unwanted += [notes.DOWN_CONVERT_INPUTS] if tf32 else [notes.DOWN_CONVERT_INPUTS, notes.TENSOR_CORE]
        graph.validate()
        graph.build_operation_graph()
        graph.create_execution_plans([cudnn.heur_mode.A, cudnn.heur_mode.FALLBACK])
        graph.deselect_numeric_notes(unwanted)
        graph.deselect_workspace_greater_than(WORKSPACE)
        graph.check_support()
        graph.build_plans()
        self.workspace = int(graph.get_workspace_size())

    def run(self, first: Any, second: Any, result: Any) -> None:
        """Compute `result` from arrays of the plan's shapes."""
        space = room(self.workspace)
        where = {_FIRST: first.data.ptr, _SECOND: second.data.ptr, _RESULT: result.data.ptr}
        self.graph.execute(where, 0 if space is None else space.data.ptr, handle=handle())


def _laid_out(shape: Any) -> tuple[list[int], list[int]]:
    """The sizes in cuDNN's order, (batch, channels, *spatial), and the steps between elements of a C-ordered array."""
    batch, *spatial, channels = shape
    spatial = [1] * (2 - len(spatial)) + spatial
    steps = [channels]
    for n in reversed(spatial):
        steps.append(steps[-1] * n)
    last, *outer = steps[::-1]
    return [batch, channels, *spatial], [last, 1, *outer]


def convolve(operation: str, first: Any, second: Any, result: Any, w: Windows) -> bool:
    """One of the three products of a convolution, if cuDNN can be had and has a plan for it.

    Parameters
    ----------
    operation
        ``"gathered"``: the windows of images times weights; ``"spread"``: its adjoint, from the output's cotangent
        and weights; ``"products"``: the weights' cotangent, from images and the output's cotangent.
    first, second, result
        C-contiguous arrays of one dtype that `takes`; weights are (n_out, *window, n_in // groups).

    Returns
    -------
    bool
        Whether it was done; if not, nothing was.
    """
    if (first.data.ptr | second.data.ptr | result.data.ptr) % 16:  # as cuDNN takes for granted
        return False
    dtype = str(first.dtype)
    tf32 = dtype == "float32" and products.float32_products == "tf32"
    shapes = first.shape, second.shape, result.shape
    plan = planned((operation, dtype, *shapes, w, tf32), lambda: Plan(operation, shapes, w, dtype, tf32))
    if plan is None:
        return False
    plan.run(first, second, result)
    return True
