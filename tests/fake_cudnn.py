"""nvidia-cudnn-frontend on the host: as much of the module ``cudnn`` as convolutions use, strict about how it is used.

Names and parameters are those of the package's versions 1.14 and 1.32. A graph must be built in the order of the
steps, describe arrays with the channels last, and is run on the memory at the addresses it is given.
"""

from __future__ import annotations

import ctypes
import itertools
import math
import weakref
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from tests import fake_cublas, host_cuda

WORKSPACE = 1000
STEPS = str.split(
    "validate build_operation_graph create_execution_plans deselect_numeric_notes deselect_workspace_greater_than "
    "check_support build_plans"
)


class cudnnGraphNotSupportedError(Exception):
    pass


def require(condition: bool, what: str) -> None:
    if not condition:
        raise RuntimeError(f"CUDNN_STATUS_BAD_PARAM: {what}")


def _enum(names: str) -> Any:
    return SimpleNamespace(**{name: name for name in names.split()})


class Tensor:
    def __init__(self, dim: Any = None, stride: Any = None, data_type: Any = None, uid: int | None = None) -> None:
        self.dim, self.stride, self.data_type, self.uid, self.output = dim, stride, data_type, uid, False

    def set_output(self, value: bool) -> Tensor:
        self.output = value
        return self

    def set_uid(self, uid: int) -> Tensor:
        self.uid = uid
        return self

    def set_dim(self, dim: list[int]) -> Tensor:
        self.dim = dim
        return self

    def set_stride(self, stride: list[int]) -> Tensor:
        self.stride = stride
        return self

    def set_data_type(self, data_type: Any) -> Tensor:
        self.data_type = data_type
        return self

    def check(self) -> None:
        for values in (self.dim, self.stride):
            require(type(values) is list and len(values) in (4, 5), f"{values!r}")
            require(all(type(v) is int and v > 0 for v in values), f"{values!r}")
        c, *spatial = self.dim[1:]
        expected, step = [], c
        for size in reversed(spatial):
            expected.insert(0, step)
            step *= size
        require(self.stride == [step, 1, *expected], f"steps {self.stride} of {self.dim}, channels not last")

    def at(self, address: int) -> Any:
        require(address > 0 and address % 16 == 0, f"address {address}")
        dtype = np.dtype(fake_cublas.DTYPES[{"FLOAT": 0, "HALF": 2, "BFLOAT16": 14}[self.data_type]])
        memory = (ctypes.c_char * (math.prod(self.dim) * dtype.itemsize)).from_address(address)
        flat = np.frombuffer(memory, dtype)
        return np.lib.stride_tricks.as_strided(flat, self.dim, [s * dtype.itemsize for s in self.stride])


class Graph:
    def __init__(
        self, cudnn: Cudnn, *, io_data_type: Any, intermediate_data_type: Any, compute_data_type: Any, handle: int
    ) -> None:
        require(handle in cudnn.streams, "no handle, or one without a stream")
        require((intermediate_data_type, compute_data_type) == ("FLOAT", "FLOAT"), "sums that are not float32")
        self.cudnn, self.kind, self.done, self.unwanted = cudnn, io_data_type, 0, []
        cudnn.graphs.append(weakref.ref(self))

    def tensor(self, *, dim: Any, stride: Any, data_type: Any, uid: int) -> Tensor:
        return Tensor(dim, stride, data_type, uid)

    def conv_fprop(self, *, image: Tensor, weight: Tensor, **options: Any) -> Tensor:
        return self._add("fprop", image, weight, **options)

    def conv_dgrad(self, *, loss: Tensor, filter: Tensor, **options: Any) -> Tensor:
        return self._add("dgrad", loss, filter, **options)

    def conv_wgrad(self, *, image: Tensor, loss: Tensor, **options: Any) -> Tensor:
        return self._add("wgrad", image, loss, **options)

    def _add(
        self, operation: str, first: Tensor, second: Tensor, *, pre_padding: Any, post_padding: Any, stride: Any,
        dilation: Any, compute_data_type: Any,
    ) -> Tensor:  # fmt: skip
        require(compute_data_type == "FLOAT", "sums that are not float32")
        self.operation, self.operands = operation, [first, second, Tensor()]
        self.options = pre_padding, post_padding, stride, dilation
        return self.operands[2]

    def _step(self, name: str) -> None:
        require(STEPS[self.done] == name, f"{name} where {STEPS[self.done]} has to come")
        self.done += 1

    def validate(self) -> None:
        self._step("validate")
        require(self.operands[2].output and [t.uid for t in self.operands] == [1, 2, 3], "the tensors")
        for t in self.operands:
            t.check()
            require(t.data_type == self.kind, "types that differ")
        image, filters, out = self._roles(*self.operands)
        rank = len(image.dim) - 2
        require(all(len(o) == rank and all(type(v) is int for v in o) for o in self.options), f"{self.options}")
        require(image.dim[1] % filters.dim[1] == 0 and filters.dim[0] == out.dim[1], "channels")
        for n, k, o, before, after, s, d in zip(
            image.dim[2:], filters.dim[2:], out.dim[2:], *self.options, strict=True
        ):
            require(o == (n + before + after - d * (k - 1) - 1) // s + 1, f"{o} windows over {n}")

    def _roles(self, a: Any, b: Any, c: Any) -> tuple[Any, Any, Any]:
        """Images, filters and what comes of them."""
        return {"fprop": (a, b, c), "dgrad": (c, b, a), "wgrad": (a, c, b)}[self.operation]

    def build_operation_graph(self) -> None:
        self._step("build_operation_graph")

    def create_execution_plans(self, modes: Any) -> None:
        self._step("create_execution_plans")
        require(modes == ["A", "FALLBACK"], f"{modes}")

    def deselect_numeric_notes(self, notes: Any, /) -> None:
        self._step("deselect_numeric_notes")
        self.unwanted = notes

    def deselect_workspace_greater_than(self, limit: int, /) -> None:
        self._step("deselect_workspace_greater_than")
        require(limit >= WORKSPACE, f"{limit}")

    def check_support(self) -> None:
        self._step("check_support")
        if self.operation in self.cudnn.refused:
            raise cudnnGraphNotSupportedError(f"No valid engine configs for {self.operation}")

    def build_plans(self) -> None:
        self._step("build_plans")

    def get_workspace_size(self) -> int:
        return WORKSPACE

    def execute(self, pointers: dict[int, int], workspace: int, *, handle: int) -> None:
        from cupy.cuda import get_current_stream

        require(self.done == len(STEPS), "no plan")
        require(self.cudnn.streams.get(handle) == get_current_stream().ptr, "not the stream of now")
        require(set(pointers) == {1, 2, 3}, f"{set(pointers)}")
        arrays = fake_cublas._arrays_at((*pointers.values(), workspace))
        memory = [weakref.ref(array._data) for array in arrays]

        def run() -> None:
            assert all(ref() is not None for ref in memory), "a graph uses memory that was freed"
            ctypes.memset(workspace, 0xFF, WORKSPACE)
            self._compute(*(t.at(pointers[t.uid]) for t in self.operands))

        self.cudnn.ran.append((self.operation, [t.dim for t in self.operands], self.unwanted))
        run()
        for watcher in host_cuda.watchers:
            watcher(run, arrays)

    def _compute(self, *operands: Any) -> None:
        image, filters, out = self._roles(*operands)
        before, after, stride, dilation = self.options
        n, channels, *size = image.shape
        k, inner, *window = filters.shape
        groups = channels // inner
        shape = (n, channels, *(m + p + q for m, p, q in zip(size, before, after, strict=True)))
        padded = np.zeros(shape, "f4")
        interior = (..., *(slice(p, p + m) for m, p in zip(size, before, strict=True)))
        if self.operation != "dgrad":
            padded[interior] = image
        result = np.zeros({"fprop": out, "dgrad": padded, "wgrad": filters}[self.operation].shape, "f4")
        by_group = (n, groups, -1, *out.shape[2:])
        for tap in itertools.product(*map(range, window)):
            places = (
                slice(t * d, t * d + (o - 1) * s + 1, s)
                for t, d, o, s in zip(tap, dilation, out.shape[2:], stride, strict=True)
            )
            key, at = (slice(None), slice(None), *places), (slice(None), slice(None), *tap)
            x, f, y = padded[key].reshape(by_group), filters[at].astype("f4").reshape(groups, -1, inner), None
            if self.operation != "fprop":
                y = out.astype("f4").reshape(by_group)
            if self.operation == "fprop":
                result += np.einsum("ngc...,gkc->ngk...", x, f).reshape(out.shape)
            elif self.operation == "dgrad":
                result[key] += np.einsum("ngk...,gkc->ngc...", y, f).reshape(result[key].shape)
            else:
                axes = "xyz"[: len(window)]
                result[at] = np.einsum(f"ngc{axes},ngk{axes}->gkc", x, y).reshape(k, inner)
        operands[2][...] = (result[interior] if self.operation == "dgrad" else result).astype(operands[2].dtype)


class Cudnn(ModuleType):
    """What takes the place of the module ``cudnn``; it notes what ran, and can refuse an operation."""

    def __init__(self) -> None:
        super().__init__("cudnn")
        self.data_type = _enum("HALF BFLOAT16 FLOAT DOUBLE NOT_SET")
        self.heur_mode = _enum("A B FALLBACK")
        self.numerical_note = _enum("TENSOR_CORE DOWN_CONVERT_INPUTS NONDETERMINISTIC WINOGRAD FFT")
        self.cudnnGraphNotSupportedError = cudnnGraphNotSupportedError
        self.streams: dict[int, int] = {}
        self.made: set[int] = set()
        self.graphs: list[Any] = []
        self.ran: list[Any] = []
        self.refused: set[str] = set()

    def create_handle(self) -> int:
        handle = 5000 + len(self.graphs) + len(self.made)
        self.made.add(handle)
        return handle

    def destroy_handle(self, handle: int) -> None:
        self.made.remove(handle)

    def set_stream(self, *, handle: int, stream: int) -> None:
        require(handle in self.made, "no handle")
        self.streams[handle] = stream

    def pygraph(self, **options: Any) -> Graph:
        return Graph(self, **options)
