"""Attention by cuDNN, of arrays of 16 bits, where `frontend` finds it: no scores in memory, no copies.

It takes what cuDNN's kernels do: no mask, no dropout (whose random numbers are not ours), features by eights up to 128.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import cupy

from . import frontend

#: The numbers of a graph's tensors.
Q, K, V, OUT, SUMS, D_OUT, DQ, DK, DV = range(1, 10)

_Layout = tuple[list[int], list[int]]  # sizes and strides in cuDNN's order: (sequences, heads, time, features)


class Form(NamedTuple):
    """What a plan holds for."""

    dtype: str
    sizes: tuple[int, ...]
    """Sequences, heads, queries, keys, features of queries and keys, features of values."""
    steps: tuple[tuple[int, ...], ...]
    """Of q, k and v from sequence to sequence, from head to head and in time, in elements."""
    causal: bool
    scale: float
    differentiated: bool


class Kept(NamedTuple):
    """What a forward pass leaves for the backward pass."""

    form: Form
    arrays: tuple[Any, ...]
    """q, k, v, the output, and the logarithmic sums of the scores."""
    batch: tuple[int, ...]


class _Graphs:
    """Builds the graph of attention or of its backward pass."""

    def __init__(self, form: Form) -> None:
        cudnn = frontend.library()
        self.form, self.single = form, cudnn.data_type.FLOAT
        self.kind = getattr(cudnn.data_type, frontend.TYPES[form.dtype])
        n, heads, queries, keys, features, values = form.sizes
        self.graph = cudnn.pygraph(
            io_data_type=self.kind,
            intermediate_data_type=self.single,
            compute_data_type=self.single,
            handle=frontend.handle(),
        )
        lengths = zip((queries, keys, keys), (features, features, values), form.steps, strict=True)
        self.inputs: list[_Layout] = [([n, heads, time, length], [*steps, 1]) for time, length, steps in lengths]
        self.out: _Layout = [n, heads, queries, values], _by_time(heads, queries, values)
        self.sums: _Layout = [n, heads, queries, 1], [heads * queries, queries, 1, 1]
        self.options: dict[str, Any] = {"attn_scale": form.scale, "compute_data_type": self.single}
        if form.causal:  # the last query beside the last key
            sides = cudnn.diagonal_alignment
            self.options["diagonal_alignment"] = sides.TOP_LEFT if queries == keys else sides.BOTTOM_RIGHT
            self.options["diagonal_band_right_bound"] = 0

    def _input(self, number: int, layout: _Layout, kind: Any) -> Any:
        return self.graph.tensor(dim=layout[0], stride=layout[1], data_type=kind, uid=number)

    def _output(self, tensor: Any, number: int, layout: _Layout, kind: Any) -> None:
        tensor.set_output(True)
        tensor.set_uid(number)
        tensor.set_dim(layout[0])
        tensor.set_stride(layout[1])
        tensor.set_data_type(kind)

    def forward(self) -> Any:
        q, k, v = (self._input(number, x, self.kind) for number, x in zip((Q, K, V), self.inputs, strict=True))
        out, sums = self.graph.sdpa(q=q, k=k, v=v, generate_stats=self.form.differentiated, **self.options)
        self._output(out, OUT, self.out, self.kind)
        if self.form.differentiated:
            self._output(sums, SUMS, self.sums, self.single)
        return self.graph

    def backward(self) -> Any:
        q, k, v = (self._input(number, x, self.kind) for number, x in zip((Q, K, V), self.inputs, strict=True))
        found = self.graph.sdpa_backward(
            q=q,
            k=k,
            v=v,
            o=self._input(OUT, self.out, self.kind),
            dO=self._input(D_OUT, self.out, self.kind),
            stats=self._input(SUMS, self.sums, self.single),
            use_deterministic_algorithm=True,
            **self.options,
        )
        for number, tensor, (sizes, _) in zip((DQ, DK, DV), found, self.inputs, strict=True):
            self._output(tensor, number, (sizes, _by_time(*sizes[1:])), self.kind)
        return self.graph


def _by_time(heads: int, time: int, features: int) -> list[int]:
    """The strides of (sequences, heads, time, features) in an array of (sequences, time, heads, features)."""
    return [time * heads * features, features, heads * features, 1]


def _forward_plan(form: Form) -> Any:
    return frontend.planned("attention", form, lambda: _Graphs(form).forward())


def _backward_plan(form: Form) -> Any:
    return frontend.planned("the gradient of attention", form, lambda: _Graphs(form).backward())


def attend(differentiated: bool, q: Any, k: Any, v: Any, causal: bool, scale: float) -> tuple[Any, Kept | None] | None:
    """Compute attention, and give what its backward pass reads; None where cuDNN does not do it.

    Parameters
    ----------
    differentiated
        Whether the backward pass may be asked for, which must be possible, too.
    q, k, v, causal, scale
        As for `gpubp.functions.attention`.
    """
    if q.dtype.itemsize != 2 or frontend.library() is None:
        return None
    batch = q.shape[:-3]
    (queries, heads, features), (keys, values) = q.shape[-3:], (k.shape[-3], v.shape[-1])
    if features % 8 or values % 8 or max(features, values) > 128 or (causal and keys < queries):
        return None
    q, k, v = (_readable(x.reshape(-1, *x.shape[-3:])) for x in (q, k, v))
    steps = tuple(tuple(x.strides[axis] // 2 for axis in (0, 2, 1)) for x in (q, k, v))
    sizes = len(q), heads, queries, keys, features, values
    form = Form(str(q.dtype), sizes, steps, causal, float(scale), differentiated)
    plan = _forward_plan(form)
    if plan is None or (differentiated and _backward_plan(form) is None):
        return None
    out = cupy.empty((len(q), queries, heads, values), q.dtype)
    arrays = {Q: q, K: k, V: v, OUT: out}
    if differentiated:
        arrays[SUMS] = cupy.empty((len(q), heads, queries), cupy.float32)
    plan.run(arrays)
    return out.reshape(*batch, *out.shape[1:]), Kept(form, tuple(arrays.values()), batch) if differentiated else None


def _readable(x: Any) -> Any:
    """Return an array whose rows lie as cuDNN takes for granted: without gaps, at addresses by sixteens."""
    if x.data.ptr % 16 or x.strides[3] != x.itemsize or any(s % 16 for s in x.strides[:3]):
        return x.copy()
    return x


def cotangents(dY: Any, kept: Kept) -> tuple[Any, Any, Any]:
    """Give the cotangents of q, k and v."""
    q, k, v, out, sums = kept.arrays
    dY = _readable(cupy.ascontiguousarray(dY).reshape(out.shape))
    dq, dk, dv = (cupy.empty(x.shape, x.dtype) for x in (q, k, v))
    plan = _backward_plan(kept.form)
    plan.run({Q: q, K: k, V: v, OUT: out, SUMS: sums, D_OUT: dY, DQ: dq, DK: dk, DV: dv})
    dq, dk, dv = (x.reshape(*kept.batch, *x.shape[1:]) for x in (dq, dk, dv))
    return dq, dk, dv
