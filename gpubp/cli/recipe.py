"""How a net is taught: loss, optimizer, learning rates, callbacks, by the settings and the number of rows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from .. import losses, optim
from ..optim import schedules
from ..training import Callback, EarlyStopping, ReduceOnPlateau
from .settings import Settings

__all__ = ["callbacks", "filled", "loss_of", "optimizer", "precision"]

MANY = 10_000  #: training rows from which on passes are fewer and batches larger
#: Classes, learning rates and options of the optimizers.
OPTIMIZERS: dict[str, tuple[str, float, dict[str, Any]]] = {
    "sgd": ("SGD", 0.05, {"momentum": 0.9}),
    "adagrad": ("Adagrad", 0.02, {}),
    "rmsprop": ("RMSprop", 1e-3, {}),
    "adam": ("Adam", 2e-3, {}),
    "adamw": ("AdamW", 2e-3, {}),
    "lion": ("Lion", 3e-4, {}),
    "muon": ("Muon", 2e-3, {}),
}
DECAYING = ("adamw", "lion", "muon")
MEMORY = 15  #: epochs that weights remember, with the default weight decay,
STRONGEST = 4.0  #: which is never more


def filled(settings: Settings, rows: int) -> Settings:
    """Fill in what follows from the number of training rows.

    The weight decay is such that weights, as averages of past steps, remember a number of epochs: Wang, Aitchison, "How
    to set AdamW's weight decay as you scale model and dataset size", 2024.
    """
    given = {name: x for name, x in vars(settings).items() if x is not None}
    given.setdefault("epochs", 30 if rows < MANY else 10)
    size = given.setdefault("batch_size", min(32 if rows < MANY else 128, rows))
    lr = given.setdefault("lr", OPTIMIZERS[settings.optimizer][1])
    given.setdefault("checkpoint_every", 10 if rows < MANY else 1)
    decay = min(STRONGEST, 1 / (lr * MEMORY * -(-rows // size)))
    given.setdefault("weight_decay", float(f"{decay:.2g}") if settings.optimizer in DECAYING else 0.0)
    return replace(settings, **given)


def loss_of(task: str) -> Any:
    """Return the loss of a task."""
    if task == "regression":
        return lambda net, x, y: losses.mse(net(x), y)
    return lambda net, x, y: losses.softmax_cross_entropy(net(x), y)


def precision(settings: Settings) -> str | None:
    """Return the arithmetic as `gpubp.fit` takes it."""
    return None if settings.precision == "float32" else settings.precision


def optimizer(net: Any, s: Settings, steps: int) -> Any:
    """Return the optimizer for a run of so many steps."""
    name, _, options = OPTIMIZERS[s.optimizer]
    lr = _schedule(s, steps)
    return getattr(optim, name)(net, lr, weight_decay=s.weight_decay, clip_norm=s.clip_norm, **options)


def _schedule(s: Settings, steps: int) -> Any:
    lr, rest = s.lr or 0.0, max(1, steps - s.warmup)
    made: dict[str, Any] = {
        "constant": lambda: lr,
        "plateau": lambda: lr,
        "cosine": lambda: schedules.cosine(lr, steps=rest),
        "one-cycle": lambda: schedules.one_cycle(lr, steps=rest),
        "linear": lambda: schedules.linear(lr, steps=rest),
        "exponential": lambda: schedules.exponential(lr, factor=0.01 ** (1 / rest)),
        "step": lambda: schedules.step(lr, every=max(1, rest // 3)),
    }
    found = made[s.schedule]()
    return schedules.warmup(found, s.warmup) if s.warmup else found


def callbacks(settings: Settings, validation: bool) -> list[Callback]:
    """Return what follows a figure; `validation` says whether there are rows for it."""
    found: list[Callback] = []
    if settings.schedule == "plateau":
        found.append(ReduceOnPlateau("val_loss" if validation else "loss", patience=3))
    if settings.early_stopping is not None:
        found.append(EarlyStopping("val_loss", patience=settings.early_stopping))
    return found
