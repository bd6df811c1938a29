"""nvidia-cudnn-frontend's attention on the host, for the CuPy stand-in: graphs are taken at their word.

What the real one refuses is refused: see `Graph`. Arrays are found by their addresses and computed with in NumPy.
"""

from __future__ import annotations

import ctypes
from enum import Enum, auto
from types import SimpleNamespace
from typing import Any, ClassVar

import ml_dtypes
import numpy as np

from tests import host_cuda


class data_type(Enum):
    HALF, BFLOAT16, FLOAT = auto(), auto(), auto()


class diagonal_alignment(Enum):
    TOP_LEFT, BOTTOM_RIGHT = auto(), auto()


class heur_mode(Enum):
    A, FALLBACK = auto(), auto()


DTYPES = {
    data_type.HALF: np.dtype(np.float16),
    data_type.BFLOAT16: np.dtype(ml_dtypes.bfloat16),
    data_type.FLOAT: np.dtype(np.float32),
}


class NotSupported(RuntimeError):
    pass


class Tensor:
    def __init__(self, dim: Any = None, stride: Any = None, data_type: Any = None, uid: Any = None) -> None:
        self.dim, self.stride, self.data_type, self.uid, self.output = dim, stride, data_type, uid, False

    def __getattr__(self, name: str) -> Any:
        def change(value: Any) -> Tensor:
            setattr(self, name.removeprefix("set_"), value)
            return self

        if name not in ("set_output", "set_uid", "set_dim", "set_stride", "set_data_type"):
            raise AttributeError(name)
        return change

    def at(self, address: int) -> Any:
        dtype = DTYPES[self.data_type]
        assert address % 16 == 0, f"tensor {self.uid} at {address}"
        extent = 1 + sum((n - 1) * s for n, s in zip(self.dim, self.stride, strict=True))
        memory = (ctypes.c_char * (extent * dtype.itemsize)).from_address(address)
        flat = np.frombuffer(memory, dtype)
        return np.lib.stride_tricks.as_strided(flat, self.dim, [s * dtype.itemsize for s in self.stride])


class Graph:
    """A graph of one attention or of its backward pass."""

    refused: ClassVar[set[str]] = set()  # operations that there are no plans for
    made: ClassVar[list[Graph]] = []
    workspace = 48

    def __init__(self, *, io_data_type: Any, intermediate_data_type: Any, compute_data_type: Any, handle: Any) -> None:
        assert (intermediate_data_type, compute_data_type) == (data_type.FLOAT, data_type.FLOAT)
        assert io_data_type in (data_type.HALF, data_type.BFLOAT16)
        self.kind, self.state, self.runs = io_data_type, "new", 0
        Graph.made.append(self)

    def tensor(self, *, dim: Any, stride: Any, data_type: Any, uid: int) -> Tensor:
        assert len(dim) == len(stride) == 4
        return Tensor(dim, stride, data_type, uid)

    def sdpa(self, **given: Any) -> tuple[Tensor, Tensor | None]:
        self.operation, self.given = "sdpa", given
        self.results = Tensor(), Tensor() if given["generate_stats"] else None
        return self.results

    def sdpa_backward(self, **given: Any) -> list[Tensor]:
        self.operation, self.given = "sdpa_backward", given
        self.results = Tensor(), Tensor(), Tensor()
        return list(self.results)

    def validate(self) -> None:
        g = self.given
        q, k, v = g["q"], g["k"], g["v"]
        n, h, queries, features = q.dim
        keys, values = v.dim[2:]
        assert k.dim == [n, h, keys, features]
        assert v.dim == [n, h, keys, values]
        single = (g.get("stats"), *self.results[1:]) if self.operation == "sdpa" else (g["stats"],)
        for t in (q, k, v, *(g[name] for name in ("o", "dO") if name in g), *filter(None, self.results)):
            if not any(t is s for s in single):
                assert t.data_type is self.kind
                assert t.stride[3] == 1
                assert not any(s % 8 for s in t.stride[:3]), "rows at addresses by sixteens"
        for t in filter(None, single):
            assert (t.dim, t.stride) == ([n, h, queries, 1], [h * queries, queries, 1, 1])
            assert t.data_type is data_type.FLOAT
        assert all(t.output for t in filter(None, self.results))
        if features % 8 or values % 8 or max(features, values) > 128:
            raise NotSupported("features")
        self.state = "valid"

    def build_operation_graph(self) -> None:
        assert self.state == "valid"
        self.state = "built"

    def create_execution_plans(self, modes: Any) -> None:
        assert self.state == "built"
        if self.operation in Graph.refused:
            raise NotSupported(f"no plan for {self.operation}")
        self.state = "proposed"

    def check_support(self) -> None:
        assert self.state == "proposed"

    def build_plans(self) -> None:
        self.state = "planned"

    def get_workspace_size(self) -> int:
        assert self.state == "planned"
        return Graph.workspace

    def execute(self, where: dict[int, int], workspace: int, *, handle: Any) -> None:
        assert self.state == "planned"
        assert workspace % 16 == 0
        assert workspace, "a workspace was asked for"
        assert handle.stream is not None
        self.runs += 1

        def run() -> None:
            self._compute(where)

        run()
        for watcher in host_cuda.watchers:
            watcher(run, [])

    def _compute(self, where: dict[int, int]) -> None:
        g = self.given
        names = {t.uid: t for t in (*g.values(), *self.results) if isinstance(t, Tensor)}
        assert where.keys() == names.keys()
        of = {uid: t.at(where[uid]) for uid, t in names.items()}
        q, k, v = (of[g[name].uid].astype("f4") for name in "qkv")
        scores = q @ k.swapaxes(-1, -2) * np.float32(g["attn_scale"])
        if "diagonal_alignment" in g:
            assert g["diagonal_band_right_bound"] == 0
            queries, keys = scores.shape[-2:]
            past = keys - queries if g["diagonal_alignment"] is diagonal_alignment.BOTTOM_RIGHT else 0
            scores = np.where(np.arange(keys) <= np.arange(queries)[:, None] + past, scores, -np.inf)
        top = scores.max(-1, keepdims=True)
        sums = top + np.log(np.exp(scores - top).sum(-1, keepdims=True))
        if self.operation == "sdpa":
            out, stats = self.results
            of[out.uid][...] = (np.exp(scores - sums) @ v).astype(of[out.uid].dtype)
            if stats is not None:
                of[stats.uid][...] = sums
            return
        assert g["use_deterministic_algorithm"]
        o, d = (of[g[name].uid].astype("f4") for name in ("o", "dO"))
        p = np.exp(scores - of[g["stats"].uid])
        ds = p * (d @ v.swapaxes(-1, -2) - (d * o).sum(-1, keepdims=True)) * np.float32(g["attn_scale"])
        found = ds @ k, ds.swapaxes(-1, -2) @ q, p.swapaxes(-1, -2) @ d
        for result, value in zip(self.results, found, strict=True):
            of[result.uid][...] = value.astype(of[result.uid].dtype)


class Handle:
    stream: Any = None


def set_stream(*, handle: Handle, stream: int) -> None:
    handle.stream = stream


library = SimpleNamespace(
    pygraph=Graph,
    data_type=data_type,
    diagonal_alignment=diagonal_alignment,
    heur_mode=heur_mode,
    create_handle=Handle,
    destroy_handle=lambda handle: None,
    set_stream=set_stream,
)
