"""The example that ``gpubp train digits`` runs: handwritten digits, from data to a saved net."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from .. import nn
from ..data import digits
from ..device import Device
from ..losses import softmax_cross_entropy
from ..optim import AdamW
from .files import save, write_atomically
from .loop import fit

__all__ = ["digits_net", "train_digits"]


def digits_net(seed: int) -> nn.Sequential:
    """Return the net, with 17,226 parameters: 64 pixels, 128 and 64 rectified units, 10 classes."""
    return nn.Sequential(nn.Dense(64, 128), nn.relu, nn.Dense(128, 64), nn.relu, nn.Dense(64, 10), seed=seed)


def _loss(net: Any, x: Any, y: Any) -> Any:
    return softmax_cross_entropy(net(x), y)


def train_digits(
    out: str | os.PathLike[str],
    *,
    seed: int = 0,
    epochs: int = 30,
    batch_size: int = 32,
    lr: float = 2e-3,
    device: Device | str = "cpu",
    progress: bool = True,
) -> float:
    """Train the net on the digits, print what happens, and save net and figures.

    Parameters
    ----------
    out
        Run folder, made if it is not there: ``model.safetensors`` and ``metrics.jsonl``, a line for each epoch.
    seed
        Determines the parameters at the start and the order of the examples, and so every figure.
    epochs, batch_size, lr
        Passes over the data, examples in a step, learning rate (of AdamW with weight decay 0.1).
    device
        Where to compute.
    progress
        Whether to show a progress bar.

    Returns
    -------
    float
        Accuracy on the test set.
    """
    train, test = digits()
    net = digits_net(seed).to(device)
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    print(nn.summary(net, (batch_size, 64)))
    opt = AdamW(net, lr, weight_decay=0.1)
    history = fit(
        net, _loss, opt, train, epochs=epochs, batch_size=batch_size, validation=test, seed=seed, progress=progress
    )
    save(net, folder / "model.safetensors")
    lines = "".join(json.dumps(row) + "\n" for row in history)
    write_atomically(folder / "metrics.jsonl", lines.encode())
    accuracy: float = history[-1]["val_accuracy"]  # of the last epoch, not of the best
    print(f"test accuracy {accuracy:.2%} ({len(test.inputs)} digits)")
    print(f"saved model.safetensors and metrics.jsonl in {folder}")
    return accuracy
