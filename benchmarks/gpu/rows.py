"""What is trained: the rows of the table, each at full size and as a toy.

A row is a net of gpubp's layers, which the other libraries rebuild (`in_torch`, `in_jax`) from the same initial values,
a batch, a loss and an optimizer. Everything is drawn by NumPy from one seed, so every process has the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from gpubp import losses, nn

Arrays = tuple[np.ndarray, ...]


class Rule(NamedTuple):
    """An optimizer: ``SGD`` (with momentum), ``Adam`` or ``AdamW``."""

    kind: str
    lr: float
    momentum: float = 0.0
    weight_decay: float = 0.0


class Task(NamedTuple):
    """What a row is at one size: a built net (or a dict of arrays), the batch, or the gradients to step along."""

    net: Any
    batch: Arrays
    gradients: dict[str, np.ndarray] | None = None


@dataclass(frozen=True)
class Row:
    """One row of the table.

    Attributes
    ----------
    title
        What it is.
    make
        ``make(**sizes)`` gives the task.
    full, toy
        Its sizes.
    loss
        ``"squares"``, the mean over the batch of half the squared distance, or ``"labels"``, softmax cross-entropy.
    rule
        The optimizer.
    precision
        ``"float32"``, ``"tf32"`` or ``"bfloat16"`` (products in it, parameters in float32).
    work
        ``work(**sizes)`` gives what a step must do at least, as a dict of ``flops`` of products of matrices of a side
        ``n``, or of ``bytes``; to be shown as a share of what the GPU can do. None where there is nothing to show.
    """

    title: str
    make: Callable[..., Task]
    full: dict[str, Any]
    toy: dict[str, Any]
    loss: str
    rule: Rule
    precision: str = "tf32"
    work: Callable[..., dict[str, float]] = field(default=lambda **sizes: {})


def compared(path: str, x: np.ndarray) -> np.ndarray:
    """Return what of a parameter is compared: of the biases of attention all but those of the keys.

    A softmax does not see what is added to all its scores, so their gradient is 0 but for rounding, of which Adam makes
    whole steps.
    """
    return np.delete(x, slice(len(x) // 3, 2 * len(x) // 3)) if path.endswith("attention.b") else x


def loss_of(row: Row) -> Callable[[Any, Any, Any], Any]:
    """Return a row's loss of a net and a batch, for gpubp."""
    measure = losses.mean_half_squared_error if row.loss == "squares" else losses.softmax_cross_entropy
    return lambda net, x, y: measure(net(x), y)


def _xor() -> Task:
    x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], "float32")
    net = nn.Sequential(nn.Dense(2, 3), nn.sigmoid, nn.Dense(3, 1), nn.sigmoid, seed=0)
    return Task(net, (x, np.array([[0], [1], [1], [0]], "float32")))


def _dense(widths: tuple[int, ...]) -> list[Any]:
    layers = [part for pair in pairwise(widths) for part in (nn.Dense(*pair, W_init=HE), nn.relu)]
    return layers[:-1]


HE = nn.he_normal


def _normal(*shape: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, "float32")


def _labels(classes: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(2).integers(0, classes, shape)


def _mlp(widths: tuple[int, ...], batch: int) -> Task:
    net = nn.Sequential(*_dense(widths), seed=0)
    return Task(net, (_normal(batch, widths[0]), _labels(widths[-1], batch)))


def _wide(width: int, depth: int, batch: int) -> Task:
    net = nn.Sequential(*_dense((width,) * (depth + 1)), seed=0)
    return Task(net, (_normal(batch, width), _normal(batch, width, seed=3)))


def _products(width: int, depth: int, batch: int) -> dict[str, float]:
    """The flops of three products a layer, but for the gradient of the data."""
    return {"flops": (3 * depth - 1) * 2.0 * batch * width * width, "n": width}


def _lenet(size: int, channels: tuple[int, int], batch: int) -> Task:
    c1, c2 = channels
    n = c2 * ((size - 4) // 2 // 2 - 2) ** 2
    net = nn.Sequential(
        *(nn.Conv2d(1, c1, 5), nn.relu, nn.MaxPool(2), nn.Conv2d(c1, c2, 5), nn.relu, nn.MaxPool(2), nn.Flatten()),
        *_dense((n, 120, 84, 10)),
        seed=0,
    )
    return Task(net, (_normal(batch, size, size, 1), _labels(10, batch)))


def _resnet(size: int, widths: tuple[int, ...], blocks: int, batch: int) -> Task:
    def conv(n: int, m: int, stride: int = 1, window: int = 3) -> list[Any]:
        padding = window // 2
        return [nn.Conv2d(n, m, window, stride=stride, padding=padding, bias=False), nn.BatchNorm(m)]

    layers, n = [*conv(3, widths[0]), nn.relu], widths[0]
    for k, m in enumerate(m for m in widths for _ in range(blocks)):
        stride = 2 if k and k % blocks == 0 else 1
        past = None if stride == 1 and n == m else nn.Sequential(*conv(n, m, stride, 1))
        layers += [nn.Residual(nn.Sequential(*conv(n, m, stride), nn.relu, *conv(m, m)), past), nn.relu]
        n = m
    net = nn.Sequential(*layers, nn.GlobalAvgPool(), nn.Dense(n, 10), seed=0)
    return Task(net, (_normal(batch, size, size, 3), _labels(10, batch)))


def _lstm(n: int, time: int, classes: int, batch: int) -> Task:
    net = nn.Sequential(nn.LSTM(n, n), nn.Dense(n, classes), seed=0)
    return Task(net, (_normal(batch, time, n), _labels(classes, batch, time)))


class GPT(nn.Layer):
    """A causal Transformer that reads symbols: its positions are learned, its last layer is not tied to its first."""

    def __init__(self, symbols: int, time: int, n: int, heads: int, blocks: int) -> None:
        self.embedding = nn.Embedding(symbols, n)
        self.positions = nn.Parameter((time, n), nn.normal(0.02))
        self.blocks = [nn.TransformerBlock(n, heads, causal=True) for _ in range(blocks)]
        self.norm = nn.LayerNorm(n)
        self.head = nn.Dense(n, symbols)
        self.build(0)

    def __call__(self, x: Any, /) -> Any:
        """Compute the logits of the next symbols, of shape (batch, time, symbols)."""
        h = self.embedding(x) + self.positions
        for block in self.blocks:
            h = block(h)
        return self.head(self.norm(h))


def _gpt(symbols: int, time: int, n: int, heads: int, blocks: int, batch: int) -> Task:
    text = _labels(symbols, batch, time + 1)
    net = GPT(symbols, time, n, heads, blocks)
    return Task(net, (np.ascontiguousarray(text[:, :-1]), np.ascontiguousarray(text[:, 1:])))


def _adam(arrays: int, side: int) -> Task:
    names = [f"p{k:02}" for k in range(arrays)]
    net = {name: _normal(side, side, seed=k) for k, name in enumerate(names)}
    return Task(net, (), {name: _normal(side, side, seed=100 + k) for k, name in enumerate(names)})


def _state(arrays: int, side: int) -> dict[str, float]:
    """Read p, g, m and v, and write p, m and v, in float32."""
    return {"bytes": 28.0 * arrays * side * side}


SGD, MOMENTUM = Rule("SGD", 0.1), Rule("SGD", 0.005, momentum=0.9)
_WIDE = {"full": {"width": 4096, "depth": 4, "batch": 4096}, "toy": {"width": 12, "depth": 4, "batch": 9}}

ROWS = {
    "xor": Row("XOR 2-3-1", _xor, {}, {}, "squares", SGD, "float32"),
    "mlp": Row(
        "MLP 784-256-128-10, batch 128", _mlp, {"widths": (784, 256, 128, 10), "batch": 128},
        {"widths": (12, 8, 7, 10), "batch": 6}, "labels", Rule("Adam", 1e-3),
    ),
    "wide-tf32": Row(
        "MLP 4096 x 4, batch 4096, TF32", _wide, **_WIDE, loss="squares", rule=Rule("SGD", 1e-4), work=_products
    ),
    "wide-bf16": Row(
        "MLP 4096 x 4, batch 4096, bfloat16", _wide, **_WIDE, loss="squares", rule=Rule("SGD", 1e-4),
        precision="bfloat16", work=_products,
    ),
    "lenet": Row(
        "LeNet, 32 x 32, batch 256", _lenet, {"size": 32, "channels": (6, 16), "batch": 256},
        {"size": 16, "channels": (2, 3), "batch": 3}, "labels", MOMENTUM,
    ),
    "resnet": Row(
        "ResNet-18, 32 x 32, batch 256", _resnet,
        {"size": 32, "widths": (64, 128, 256, 512), "blocks": 2, "batch": 256},
        {"size": 7, "widths": (4, 6), "blocks": 2, "batch": 3}, "labels", Rule("SGD", 1e-3, momentum=0.9),
    ),
    "lstm": Row(
        "LSTM, 128 steps, batch 64, 512 units", _lstm, {"n": 512, "time": 128, "classes": 64, "batch": 64},
        {"n": 5, "time": 4, "classes": 3, "batch": 3}, "labels", Rule("Adam", 1e-3),
    ),
    "gpt": Row(
        "GPT, 6 x 384, 256 steps, batch 64", _gpt,
        {"symbols": 256, "time": 256, "n": 384, "heads": 6, "blocks": 6, "batch": 64},
        {"symbols": 11, "time": 5, "n": 8, "heads": 2, "blocks": 2, "batch": 3}, "labels",
        Rule("AdamW", 3e-4, weight_decay=0.1),
    ),
    "adam": Row(
        "Adam, 100 M parameters", _adam, {"arrays": 24, "side": 2048}, {"arrays": 3, "side": 7}, "none",
        Rule("Adam", 1e-3), "float32", work=_state,
    ),
}  # fmt: skip
