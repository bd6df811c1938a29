"""PyTorch's side: the nets of `rows`, layer by layer, eager, compiled, and as one CUDA graph."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.gpu.clocks import Clock, TorchClock
from benchmarks.gpu.ours import fastest
from benchmarks.gpu.rows import Row, Rule, Task

Arranged = Callable[[np.ndarray], np.ndarray]


class Pair(NamedTuple):
    """A parameter of PyTorch and its path in gpubp; `turn` brings its values to gpubp's order of axes."""

    path: str
    tensor: torch.Tensor
    turn: Arranged = np.asarray


class Function(nn.Module):
    """A function as a module."""

    def __init__(self, f: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.f = f

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.f(x)


class Residual(nn.Module):
    def __init__(self, layer: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.layer, self.shortcut = layer, shortcut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.shortcut(x) + self.layer(x)


class Outputs(nn.Module):
    """A recurrent net without its state."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)[0]


class Block(nn.Module):
    """A causal pre-norm block with tanh GELU."""

    def __init__(self, parts: dict[str, nn.Module], heads: int) -> None:
        super().__init__()
        self.norm1, self.qkv, self.out = parts["norm1"], parts["qkv"], parts["out"]
        self.norm2, self.up, self.down = parts["norm2"], parts["up"], parts["down"]
        self.heads = heads

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, time, n = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(batch, time, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        h = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(batch, time, n)
        x = x + self.out(h)
        return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))


class GPT(nn.Module):
    def __init__(self, parts: dict[str, nn.Module], positions: nn.Parameter, blocks: list[nn.Module]) -> None:
        super().__init__()
        self.embedding, self.norm, self.head = parts["embedding"], parts["norm"], parts["head"]
        self.positions, self.blocks = positions, nn.ModuleList(blocks)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.embedding(x) + self.positions
        for block in self.blocks:
            h = block(h)
        return self.head(self.norm(h))


class Mirror:
    """Builds PyTorch's modules for gpubp's layers with the same values, and keeps the pairs of parameters."""

    def __init__(self) -> None:
        self.pairs: list[Pair] = []

    def of(self, layer: Any, path: str = "") -> nn.Module:
        """Return the module of a layer, or of a function."""
        make = getattr(self, f"_{type(layer).__name__}", None)
        if make is not None:
            return make(layer, path)
        return {"relu": nn.ReLU, "sigmoid": nn.Sigmoid}[layer.__name__]()

    def _set(self, tensor: torch.Tensor, path: str, value: np.ndarray, to: Arranged, back: Arranged) -> None:
        with torch.no_grad():
            tensor.copy_(torch.tensor(np.ascontiguousarray(to(value))))
        self.pairs.append(Pair(path.removeprefix("."), tensor, back))

    def _same(self, tensor: torch.Tensor, path: str, value: np.ndarray) -> None:
        self._set(tensor, path, value, np.asarray, np.asarray)

    def _linear(self, W: np.ndarray, b: np.ndarray, path_W: str, path_b: str) -> nn.Module:
        made = nn.Linear(*W.shape)
        self._set(made.weight, path_W, W, np.transpose, np.transpose)
        self._same(made.bias, path_b, b)
        return made

    def _normal(self, made: Any, layer: Any, path: str) -> nn.Module:
        self._same(made.weight, f"{path}.gain", layer.gain)
        self._same(made.bias, f"{path}.bias", layer.bias)
        return made

    def _Sequential(self, layer: Any, path: str) -> nn.Module:
        return nn.Sequential(*(self.of(part, f"{path}.layers[{k}]") for k, part in enumerate(layer.layers)))

    def _Dense(self, layer: Any, path: str) -> nn.Module:
        return self._linear(layer.W, layer.b, f"{path}.W", f"{path}.b")

    def _Conv2d(self, layer: Any, path: str) -> nn.Module:
        n, m = layer.W.shape[-2:]
        padding = 0 if layer.padding == "valid" else layer.padding
        made = nn.Conv2d(n, m, layer.window, layer.stride, padding, bias=layer.b is not None)
        self._set(
            made.weight, f"{path}.W", layer.W, lambda W: W.transpose(3, 2, 0, 1), lambda W: W.transpose(2, 3, 1, 0)
        )
        if layer.b is not None:
            self._same(made.bias, f"{path}.b", layer.b)
        return made

    def _BatchNorm(self, layer: Any, path: str) -> nn.Module:
        return self._normal(nn.BatchNorm2d(layer.n, layer.eps, layer.momentum), layer, path)

    def _LayerNorm(self, layer: Any, path: str) -> nn.Module:
        return self._normal(nn.LayerNorm(layer.n, layer.eps), layer, path)

    def _MaxPool(self, layer: Any, path: str) -> nn.Module:
        return nn.MaxPool2d(layer.window)

    def _GlobalAvgPool(self, layer: Any, path: str) -> nn.Module:
        return Function(lambda x: x.mean((2, 3)))

    def _Flatten(self, layer: Any, path: str) -> nn.Module:
        return Function(lambda x: x.permute(0, 2, 3, 1).flatten(1))  # channels are last in memory: no copy

    def _Residual(self, layer: Any, path: str) -> nn.Module:
        shortcut = nn.Identity() if layer.shortcut is None else self.of(layer.shortcut, f"{path}.shortcut")
        return Residual(self.of(layer.layer, f"{path}.layer"), shortcut)

    def _LSTM(self, layer: Any, path: str) -> nn.Module:
        (cell,) = layer.cells
        path = f"{path}.cells[0]"
        made = nn.LSTM(cell.W.shape[0], cell.U.shape[0], batch_first=True)
        self._set(made.weight_ih_l0, f"{path}.W", cell.W, np.transpose, np.transpose)
        self._set(made.weight_hh_l0, f"{path}.U", cell.U, np.transpose, np.transpose)
        self._same(made.bias_ih_l0, f"{path}.b", cell.b)
        made.bias_hh_l0.requires_grad_(False).zero_()  # one bias, not two that are learned twice as fast
        return Outputs(made)

    def _TransformerBlock(self, layer: Any, path: str) -> nn.Module:
        attention, inside = layer.attention, f"{path}.attention"
        parts = {name: self.of(getattr(layer, name), f"{path}.{name}") for name in ("norm1", "norm2", "up", "down")}
        parts["qkv"] = self._linear(attention.W, attention.b, f"{inside}.W", f"{inside}.b")
        parts["out"] = self._linear(attention.W_out, attention.b_out, f"{inside}.W_out", f"{inside}.b_out")
        return Block(parts, attention.heads)

    def _GPT(self, layer: Any, path: str) -> nn.Module:
        parts = {name: self.of(getattr(layer, name), f"{path}.{name}") for name in ("embedding", "norm", "head")}
        positions = nn.Parameter(torch.empty(layer.positions.shape))
        self._same(positions, f"{path}.positions", layer.positions)
        return GPT(parts, positions, [self.of(b, f"{path}.blocks[{k}]") for k, b in enumerate(layer.blocks)])

    def _Embedding(self, layer: Any, path: str) -> nn.Module:
        made = nn.Embedding(*layer.W.shape)
        self._same(made.weight, f"{path}.W", layer.W)
        return made


def squares(y: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Half the squared distance, as a mean over the batch."""
    return (y - target).square().sum() * (0.5 / len(y))


def labelled(y: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Softmax cross-entropy."""
    return F.cross_entropy(y.flatten(0, -2), target.flatten())


def optimizer(rule: Rule, tensors: list[torch.Tensor], *, cuda: bool, graph: bool) -> torch.optim.Optimizer:
    """Return PyTorch's optimizer of a rule, fused into one kernel on a GPU."""
    options: dict[str, Any] = {"lr": rule.lr, "weight_decay": rule.weight_decay, "fused": cuda or None}
    if rule.kind == "SGD":
        options["momentum"] = rule.momentum
    elif graph:
        options["capturable"] = True
    return getattr(torch.optim, rule.kind)(tensors, **options)


class InTorch:
    """A net of PyTorch in training.

    Parameters
    ----------
    how
        ``"eager"``, ``"compile"`` (`torch.compile` with mode ``reduce-overhead``, which launches CUDA graphs, and a
        fused optimizer behind it), or ``"graph"`` (the eager step as one CUDA graph).
    """

    def __init__(self, row: Row, task: Task, device: str, precision: str, *, how: str = "eager") -> None:
        cuda = device.startswith("cuda")
        if cuda and not torch.cuda.is_available():
            raise RuntimeError(f"PyTorch {torch.__version__} finds no GPU")
        if how == "graph" and not cuda:
            raise NotImplementedError("CUDA graphs need a GPU")
        self.device, self.cuda, self.how = torch.device(device), cuda, how
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
        self.clock: Clock = TorchClock(graphs=how != "eager") if cuda else Clock()
        if task.gradients is None:
            mirror = Mirror()
            torch.set_default_dtype(torch.float64 if precision == "float64" else torch.float32)
            net = mirror.of(task.net)
            torch.set_default_dtype(torch.float32)
            self.loss = self._loss(net, row, precision, task)
            self.pairs = mirror.pairs
            self.batch = [self._tensor(x) for x in task.batch]
        else:
            self.pairs = [Pair(path, nn.Parameter(self._tensor(p))) for path, p in task.net.items()]
            for pair in self.pairs:
                pair.tensor.grad = self._tensor(task.gradients[pair.path])
        tensors = [pair.tensor for pair in self.pairs]
        whole = how == "compile" and task.gradients is not None  # the optimizer is all there is to compile
        self.opt = optimizer(row.rule, tensors, cuda=cuda and not whole, graph=how == "graph")
        step = self._learn if task.gradients is None else self._update
        self.step = self._as_graph(step) if how == "graph" else step
        if whole:
            self.step = self._compile(self._update)

    def _tensor(self, x: np.ndarray) -> torch.Tensor:
        return torch.tensor(x, device=self.device)

    def _compile(self, f: Callable[..., Any]) -> Callable[..., Any]:
        # Without a GPU the compiler's own code is left out: what is tested there is that the step can be traced.
        return torch.compile(f, mode="reduce-overhead") if self.cuda else torch.compile(f, backend="aot_eager")

    def _loss(self, net: nn.Module, row: Row, precision: str, task: Task) -> Callable[..., torch.Tensor]:
        pictures = task.batch[0].ndim == 4
        net.to(self.device, memory_format=torch.channels_last if pictures else torch.preserve_format).train()
        measure = squares if row.loss == "squares" else labelled
        narrow = precision == "bfloat16"

        def loss(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            # Without the cache of casts a step can be captured.
            with torch.autocast("cuda", torch.bfloat16, cache_enabled=False) if narrow else nullcontext():
                return measure(net(x.permute(0, 3, 1, 2) if pictures else x), y)

        return self._compile(loss) if self.how == "compile" else loss

    def _learn(self) -> torch.Tensor:
        if self.how == "compile":
            torch.compiler.cudagraph_mark_step_begin()
        self.opt.zero_grad(set_to_none=True)
        value = self.loss(*self.batch)
        value.backward()
        self.opt.step()
        return value.detach()

    def _update(self) -> None:
        self.opt.step()

    def _as_graph(self, step: Callable[[], Any]) -> Callable[[], Any]:
        """Return a step that is taken as it is three times, then captured, then replayed."""
        graph, calls, out = torch.cuda.CUDAGraph(), 0, None
        side = torch.cuda.Stream()

        def run() -> Any:
            nonlocal calls, out
            calls += 1
            if calls <= 3:
                side.wait_stream(torch.cuda.current_stream())
                with torch.cuda.stream(side):
                    out = step()
                torch.cuda.current_stream().wait_stream(side)
                return out
            if calls == 4:
                with torch.cuda.graph(graph):
                    out = step()
            graph.replay()
            return out

        return run

    def read(self, value: torch.Tensor) -> float:
        """Return a loss as a number."""
        return float(value)

    def parameters(self) -> dict[str, np.ndarray]:
        """Return the parameters by gpubp's paths and in its order of axes."""
        return {path: turn(tensor.detach().cpu().numpy()) for path, tensor, turn in self.pairs}

    def product_rate(self, n: int, precision: str) -> float:
        """Return the flops a second of products of n × n matrices."""
        dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
        a, b = (torch.ones(n, n, dtype=dtype, device=self.device) for _ in range(2))
        out = torch.empty_like(a)
        return 2.0 * n**3 / fastest(self.clock, lambda: torch.mm(a, b, out=out))

    def copy_rate(self, nbytes: int) -> float:
        """Return the bytes a second that a copy reads and writes."""
        a = torch.ones(nbytes // 4, device=self.device)
        b = torch.empty_like(a)
        return 2.0 * nbytes / fastest(self.clock, lambda: b.copy_(a))
