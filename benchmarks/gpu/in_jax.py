"""JAX's side: the nets of `rows` as functions of their parameters by path, a whole step compiled by `jax.jit`."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # others compute on this GPU too

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks.gpu.clocks import Clock, JaxClock
from benchmarks.gpu.rows import Row, Rule, Task

Params = dict[str, Any]


class Forward:
    """Computes gpubp's layers with JAX's functions, from parameters and running statistics by path."""

    def __init__(self, params: Params, cells: Params) -> None:
        self.params, self.cells = params, dict(cells)

    def __call__(self, layer: Any, x: Any, path: str = "") -> Any:
        compute = getattr(self, f"_{type(layer).__name__}", None)
        if compute is not None:
            return compute(layer, x, path)
        return {"relu": jax.nn.relu, "sigmoid": jax.nn.sigmoid}[layer.__name__](x)

    def _of(self, path: str, *names: str) -> list[Any]:
        return [self.params[f"{path}.{name}".removeprefix(".")] for name in names]

    def _Sequential(self, layer: Any, x: Any, path: str) -> Any:
        for k, part in enumerate(layer.layers):
            x = self(part, x, f"{path}.layers[{k}]")
        return x

    def _Dense(self, layer: Any, x: Any, path: str) -> Any:
        W, b = self._of(path, "W", "b")
        return x @ W + b

    def _Conv2d(self, layer: Any, x: Any, path: str) -> Any:
        (W,) = self._of(path, "W")
        strides = (layer.stride,) * 2
        padding = "VALID" if layer.padding == "valid" else [(layer.padding,) * 2] * 2
        y = lax.conv_general_dilated(x, W, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))
        return y if layer.b is None else y + self._of(path, "b")[0]

    def _BatchNorm(self, layer: Any, x: Any, path: str) -> Any:
        gain, bias = self._of(path, "gain", "bias")
        axes, n = (0, 1, 2), x.size // x.shape[-1]
        mean, variance = jnp.mean(x, axes), jnp.var(x, axes)
        for name, new in (("mean", mean), ("variance", variance * (n / (n - 1)))):
            key = f"{path}.{name}".removeprefix(".")
            self.cells[key] = (1 - layer.momentum) * self.cells[key] + layer.momentum * lax.stop_gradient(new)
        return (x - mean) * (lax.rsqrt(variance + layer.eps) * gain) + bias

    def _LayerNorm(self, layer: Any, x: Any, path: str) -> Any:
        gain, bias = self._of(path, "gain", "bias")
        centred = x - jnp.mean(x, -1, keepdims=True)
        return centred * lax.rsqrt(jnp.mean(centred * centred, -1, keepdims=True) + layer.eps) * gain + bias

    def _MaxPool(self, layer: Any, x: Any, path: str) -> Any:
        window = (1, layer.window, layer.window, 1)
        return lax.reduce_window(x, -jnp.inf, lax.max, window, window, "VALID")

    def _GlobalAvgPool(self, layer: Any, x: Any, path: str) -> Any:
        return jnp.mean(x, (1, 2))

    def _Flatten(self, layer: Any, x: Any, path: str) -> Any:
        return x.reshape(len(x), -1)

    def _Residual(self, layer: Any, x: Any, path: str) -> Any:
        past = x if layer.shortcut is None else self(layer.shortcut, x, f"{path}.shortcut")
        return past + self(layer.layer, x, f"{path}.layer")

    def _LSTM(self, layer: Any, x: Any, path: str) -> Any:
        W, U, b = self._of(f"{path}.cells[0]", "W", "U", "b")
        zeros = jnp.zeros((len(x), len(U)), x.dtype)

        def step(state: Any, a: Any) -> Any:
            h, c = state
            i, f, g, o = jnp.split(a + h @ U, 4, -1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            return (h, c), h

        _, y = lax.scan(step, (zeros, zeros), jnp.swapaxes(x @ W + b, 0, 1))
        return jnp.swapaxes(y, 0, 1)

    def _TransformerBlock(self, layer: Any, x: Any, path: str) -> Any:
        W, b, W_out, b_out = self._of(f"{path}.attention", "W", "b", "W_out", "b_out")
        h = self(layer.norm1, x, f"{path}.norm1") @ W + b
        q, k, v = jnp.moveaxis(h.reshape(*x.shape[:2], 3, layer.attention.heads, -1), 2, 0)
        h = jax.nn.dot_product_attention(q, k, v, is_causal=True).reshape(x.shape)
        x = x + h @ W_out + b_out
        h = self(layer.up, self(layer.norm2, x, f"{path}.norm2"), f"{path}.up")
        return x + self(layer.down, jax.nn.gelu(h, approximate=True), f"{path}.down")

    def _GPT(self, layer: Any, x: Any, path: str) -> Any:
        (positions,) = self._of(path, "positions")
        h = self(layer.embedding, x, f"{path}.embedding") + positions
        for k, block in enumerate(layer.blocks):
            h = self(block, h, f"{path}.blocks[{k}]")
        return self(layer.head, self(layer.norm, h, f"{path}.norm"), f"{path}.head")

    def _Embedding(self, layer: Any, x: Any, path: str) -> Any:
        return self._of(path, "W")[0][x]


def squares(y: Any, target: Any) -> Any:
    """Half the squared distance, as a mean over the batch."""
    return jnp.sum((y.astype(target.dtype) - target) ** 2) * (0.5 / len(y))


def labelled(y: Any, target: Any) -> Any:
    """Softmax cross-entropy."""
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(y), target[..., None], -1))


def updated(rule: Rule, p: Any, g: Any, state: Any, t: Any) -> tuple[Any, Any]:
    """Take a step of an optimizer, number t from 1; its state starts as two zeros."""
    if rule.kind == "SGD":
        v = rule.momentum * state[0] + g if rule.momentum else g
        return p - rule.lr * v, (v if rule.momentum else state[0], state[1])
    if rule.kind == "AdamW":
        p = p * (1 - rule.lr * rule.weight_decay)
    m, v = 0.9 * state[0] + 0.1 * g, 0.999 * state[1] + 0.001 * g * g
    unbiased = jnp.sqrt(v / (1 - 0.999**t)) + 1e-8
    return p - rule.lr / (1 - 0.9**t) * m / unbiased, (m, v)


PRECISIONS = {"tf32": "tensorfloat32", "bfloat16": "default", "float32": "highest", "float64": "highest"}


class InJax:
    """A net of JAX in training."""

    def __init__(self, row: Row, task: Task, device: str, precision: str) -> None:
        platform = "cuda" if device.startswith("cuda") else "cpu"
        jax.config.update("jax_enable_x64", precision == "float64")
        jax.config.update("jax_default_matmul_precision", PRECISIONS[precision])
        index = int(device.partition(":")[2] or 0)
        self.device = jax.devices(platform)[index]  # raises where JAX has none
        self.clock: Clock = JaxClock(self)
        net = task.net
        arrays = net if task.gradients is not None else net.parameters()
        cells = {} if task.gradients is not None else {k: v for k, v in net.state().items() if k not in arrays}
        self.params, self.cells = self._there(arrays), self._there(cells)
        batch = self._there(task.batch if task.gradients is None else task.gradients)
        self.state = jax.tree.map(lambda p: (jnp.zeros_like(p), jnp.zeros_like(p)), self._there(arrays))
        self.count = jax.device_put(jnp.zeros((), arrays[next(iter(arrays))].dtype), self.device)
        measure = squares if row.loss == "squares" else labelled

        def loss(params: Params, cells: Params, x: Any, y: Any) -> Any:
            if precision == "bfloat16":
                params, x = jax.tree.map(lambda p: p.astype(jnp.bfloat16), (params, x))
            forward = Forward(params, cells)
            return measure(forward(net, x), y), forward.cells

        def gradient(params: Params, cells: Params, batch: Any) -> Any:
            if task.gradients is not None:
                return None, cells, batch
            (value, cells), grads = jax.value_and_grad(loss, has_aux=True)(params, cells, *batch)
            return value, cells, grads

        def train_step(params: Params, cells: Params, state: Any, t: Any, batch: Any) -> Any:
            value, cells, grads = gradient(params, cells, batch)
            t = t + 1
            pairs = {k: updated(row.rule, p, grads[k], state[k], t) for k, p in params.items()}
            params, state = ({k: pair[j] for k, pair in pairs.items()} for j in (0, 1))
            return params, cells, state, t, value

        compiled: Callable[..., Any] = jax.jit(train_step, donate_argnums=(0, 1, 2, 3))

        def step() -> Any:
            self.params, self.cells, self.state, self.count, value = compiled(
                self.params, self.cells, self.state, self.count, batch
            )
            return value

        self.step = step

    def _there(self, tree: Any) -> Any:
        return jax.tree.map(lambda x: jax.device_put(jnp.array(x, copy=True), self.device), tree)  # to be donated

    def read(self, value: Any) -> float:
        """Return a loss as a number."""
        return float(value)

    def parameters(self) -> dict[str, np.ndarray]:
        """Return the parameters by path."""
        return {path: np.asarray(x) for path, x in self.params.items()}
