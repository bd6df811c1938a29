"""cuDNN's convolutions, where `frontend` finds it.

Each is a graph of one operation, for given shapes, options and dtype. What cuDNN has no plan for is left to the kernels
of `convolution`.
"""

from __future__ import annotations

from typing import Any

from ... import products
from ...functions.window import Windows
from . import frontend

WORKSPACE = 256 << 20  #: at most, bytes

#: By operation: its name in cuDNN, and those of its operands.
_OPERATIONS = {
    "gathered": ("conv_fprop", "image", "weight"),
    "spread": ("conv_dgrad", "loss", "filter"),
    "products": ("conv_wgrad", "image", "loss"),
}
_FIRST, _SECOND, _RESULT = 1, 2, 3  # names of the tensors, in a graph and when it is run


def takes(dtype: Any) -> bool:
    """Whether there is a cuDNN to ask for convolutions of a dtype."""
    return str(dtype) in frontend.TYPES and frontend.library() is not None


def _graph(operation: str, shapes: Any, w: Windows, dtype: str) -> Any:
    """The graph of one product, of arrays of given shapes: the two operands and the result."""
    cudnn = frontend.library()
    kind, single = getattr(cudnn.data_type, frontend.TYPES[dtype]), cudnn.data_type.FLOAT
    graph = cudnn.pygraph(
        io_data_type=kind, intermediate_data_type=single, compute_data_type=single, handle=frontend.handle()
    )
    operands = [
        graph.tensor(dim=dim, stride=stride, data_type=kind, uid=uid)
        for uid, (dim, stride) in zip((_FIRST, _SECOND), map(_laid_out, shapes[:2]), strict=True)
    ]
    name, *names = _OPERATIONS[operation]
    more = max(2 - len(w.size), 0)  # cuDNN has two or three axes
    result = getattr(graph, name)(
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
    return graph


def _choose(graph: Any, dtype: str, tf32: bool) -> None:
    """Leave out what does not repeat its results, rounds more than it may, or takes too much memory."""
    notes = frontend.library().numerical_note
    unwanted = [notes.NONDETERMINISTIC]
    if dtype == "float32":
        unwanted += [notes.DOWN_CONVERT_INPUTS] if tf32 else [notes.DOWN_CONVERT_INPUTS, notes.TENSOR_CORE]
    graph.deselect_numeric_notes(unwanted)
    graph.deselect_workspace_greater_than(WORKSPACE)


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
    plan = frontend.planned(
        "a convolution",
        (operation, dtype, *shapes, w, tf32),
        lambda: _graph(operation, shapes, w, dtype),
        lambda graph: _choose(graph, dtype, tf32),
    )
    if plan is None:
        return False
    plan.run({_FIRST: first, _SECOND: second, _RESULT: result})
    return True
