"""Nets that write Shakespeare, a character at a time: ``python examples/shakespeare.py lstm`` (or ``transformer``).

They learn from the plays and poems to tell the next character from those before it, and are judged by three plays they
never see, Macbeth, The Tempest and Twelfth Night, in bits per character. The LSTM reads streams of text on and on and
carries its state from one piece to the next (truncated backpropagation through time); the Transformer is a small causal
one with rotary positions. The texts are fetched when first needed.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Iterator
from functools import partial

import numpy as np

import gpubp as bp
from gpubp import losses, nn, optim
from gpubp.data import Text
from gpubp.device import device_of

CONTEXT = 128  # how many characters the Transformer looks at


class Reader(nn.Layer):
    """An LSTM that carries its state along."""

    def __init__(self, symbols: int, n: int = 256, layers: int = 1, seed: int = 0) -> None:
        self.embedding = nn.Embedding(symbols, 64)
        self.recurrent = nn.LSTM(64, n, layers=layers)
        self.dense = nn.Dense(n, symbols)
        self.build(seed)

    def __call__(self, x, state=None):
        """Compute the logits of the next characters, (batch, time, symbols), and the state after the last."""
        h, state = self.recurrent.run(self.embedding(x), state)
        return self.dense(h), state


class Transformer(nn.Layer):
    """A causal Transformer; what it has read it must be given again, so its state is always None."""

    def __init__(self, symbols: int, n: int = 128, heads: int = 4, blocks: int = 4, seed: int = 0) -> None:
        self.embedding = nn.Embedding(symbols, n)
        self.blocks = [nn.TransformerBlock(n, heads, causal=True, rotary=True) for _ in range(blocks)]
        self.norm = nn.LayerNorm(n)
        self.dense = nn.Dense(n, symbols)
        self.build(seed)

    def __call__(self, x, state=None):
        """Compute the logits of the next characters, (batch, time, symbols), and None."""
        h = self.embedding(x)
        for block in self.blocks:
            h = block(h)
        return self.dense(self.norm(h)), None


def loss(net, x, y, state):
    """Return the mean cross-entropy in nats, and the state."""
    logits, state = net(x, state)
    return losses.softmax_cross_entropy(logits, y), state


def streams(text: np.ndarray, batch: int, time: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Cut a text into `batch` streams and yield pieces of them one after another: characters, and the next ones."""
    length = (len(text) - 1) // batch
    x, y = (text[k : k + batch * length].reshape(batch, length) for k in (0, 1))
    for start in range(0, length - time + 1, time):
        yield x[:, start : start + time], y[:, start : start + time]


def windows(text: np.ndarray, batch: int, time: int, *, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield pieces of a text from random places, without end."""
    rng = np.random.default_rng(seed)
    while True:
        at = rng.integers(0, len(text) - time, batch)[:, None] + np.arange(time + 1)
        piece = text[at]
        yield piece[:, :-1], piece[:, 1:]


def bits_per_character(net, text: np.ndarray, device, *, batch: int = 64, time: int = CONTEXT) -> float:
    """Return how many bits a net needs for a character of a text that it reads in streams, piece by piece."""
    net.eval()
    total, count, state = 0.0, 0, None
    for x, y in streams(text, min(batch, (len(text) - 1) // time), time):
        value, state = loss(net, *bp.to_device((x, y), device), state)
        total, count = total + value, count + 1
    return float(bp.to_numpy(total)) / count / math.log(2)


def train(kind, train_text: Text, held_out: Text, *, minutes=8.0, steps=None, seed=0, device="auto", batch=None,
          time_steps=None, lr=None, **sizes):  # fmt: skip
    """Train a net for some minutes, or steps, and return it and its bits per character on the text held out."""
    device = bp.device(device)
    recurrent = kind == "lstm"
    symbols = len(train_text.characters)
    net = (Reader if recurrent else Transformer)(symbols, seed=seed, **sizes).to(device)
    batch, time_steps = batch or 32, time_steps or (64 if recurrent else CONTEXT)
    lr = lr or (4e-3 if recurrent else 2e-3)
    opt = optim.AdamW(net, lr, weight_decay=0.01 if recurrent else 0.1)
    step = bp.value_and_grad(loss, has_aux=True)
    print(f"{kind}: {net.count_parameters():,} parameters, {len(train_text):,} characters to learn from, "
          f"{len(held_out):,} held out")  # fmt: skip
    began, k, running, state = time.perf_counter(), 0, 0.0, None
    pieces: Iterator = iter(())
    share, shown, rng = 0.0, 0.0, np.random.default_rng(seed)
    net.train()
    while share < 1:
        batch_of = next(pieces, None)
        if batch_of is None:  # the streams have ended, or not begun
            pieces = (streams if recurrent else partial(windows, seed=seed))(train_text.ids, batch, time_steps)
            state, batch_of = None, next(pieces)
        opt.lr = lr * min(1.0, 20 * share + 0.01) * 0.5 * (1 + math.cos(math.pi * share))  # up, then half a cosine
        state = forgotten(state, rng.random((batch, 1)) < 0.02, device)
        (value, state), grads = step(net, *bp.to_device(batch_of, device), state)
        opt.step(clipped(grads, 1.0))
        k, running = k + 1, value if k == 0 else 0.98 * running + 0.02 * value
        elapsed = time.perf_counter() - began
        share = k / steps if steps else elapsed / (60 * minutes)
        if share >= shown + 0.1:
            shown = math.floor(10 * share + 1e-9) / 10
            bits = float(bp.to_numpy(running)) / math.log(2)
            print(f"  {shown:4.0%}: step {k}, {elapsed:.0f} s, {bits:.3f} bits per character in training")
    found = bits_per_character(net, held_out.ids, device)
    print(f"{kind}: {found:.3f} bits per character on the plays held out, after {k} steps in {elapsed:.0f} s")
    return net, found


def forgotten(state, where: np.ndarray, device):
    """Return a state with zeros in some streams: a net that never starts anew does not learn to start."""
    kept = bp.to_device((~where).astype("float32"), device)
    return bp.tree.map_leaves(lambda x: x * kept, state)


def clipped(grads, longest: float):
    """Return the gradient, shortened to a norm of at most `longest` without a look at its values on the host."""
    xp = bp.array_namespace(*bp.tree.leaves(grads))
    norm = xp.sqrt(sum(xp.sum(g * g) for g in bp.tree.leaves(grads)))
    scale = longest / xp.clip(norm, min=longest)
    return bp.tree.map_leaves(lambda g: g * scale, grads)


def write(net, text: Text, prompt: str, length: int, *, temperature: float = 0.8, seed: int = 0) -> str:
    """Return a text that a net goes on writing from a prompt."""
    rng, device = np.random.default_rng(seed), device_of(net.dense.W)
    net.eval()
    numbers, state, x = list(text.encode(prompt)), None, text.encode(prompt)
    for _ in range(length):
        logits, state = net(bp.to_device(x[None], device), state)
        z = bp.to_numpy(logits)[0, -1].astype("float64") / temperature
        numbers.append(int(np.argmax(z + rng.gumbel(size=len(z)))))  # a draw from softmax(z)
        x = np.array(numbers[-CONTEXT:] if state is None else numbers[-1:])
    return text.decode(numbers)


def main() -> None:
    """Train a net and let it write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("kind", choices=["lstm", "transformer"])
    parser.add_argument("--minutes", type=float, default=8.0, help="how long to train")
    parser.add_argument("--steps", type=int, help="how many steps to train, rather than how long")
    parser.add_argument("--characters", type=int, default=600, help="how many characters to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--data-dir", help="where the data are, or are to go")
    args = parser.parse_args()
    try:
        train_text, held_out = bp.data.shakespeare(args.data_dir)
    except OSError as error:
        sys.exit(str(error))
    if args.steps:
        held_out = Text(held_out.ids[:65536], held_out.characters)
    net, _ = train(args.kind, train_text, held_out, minutes=args.minutes, steps=args.steps, seed=args.seed,
                   device=args.device)  # fmt: skip
    print(f"\n{write(net, train_text, 'MACBETH.' + chr(10), args.characters, seed=args.seed)}")


if __name__ == "__main__":
    main()
