"""Which learning rate: a run whose rate grows at each step, until the loss diverges."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..data.checks import check_at_least
from ..device import Device, raw_namespace, to_numpy
from ..functions.update import check_number
from ..nn.parameter import check_built
from ..optim import Optimizer
from ..tree import map_distinct
from .callbacks import Callback
from .checks import check_optimizer
from .history import NotFinite
from .loop import fit

if TYPE_CHECKING:
    from .run import Run

__all__ = ["RangeTest", "lr_finder"]

WIDTH = 0.03  #: of the window that smooths the losses, its standard deviation as a share of the steps
DIVERGENCE = 3.0  #: a rise by so many times what the losses had fallen by, and their lowest, is the end


@dataclass(frozen=True)
class RangeTest:
    """What `lr_finder` found.

    Attributes
    ----------
    rates : ndarray
        Learning rates, one for each step that was made.
    losses : ndarray
        The loss at each, before the step.
    diverged : bool
        Whether the loss grew beyond bounds before the rates were through.
    """

    rates: np.ndarray[Any, Any]
    losses: np.ndarray[Any, Any]
    diverged: bool

    @property
    def smoothed(self) -> np.ndarray[Any, Any]:
        """The losses averaged over their neighbours, by the weights of a normal distribution."""
        n = len(self.losses)
        apart = (np.arange(n)[:, None] - np.arange(n)) / max(WIDTH * n, 1.0)
        weights = np.exp(-(apart**2) / 2)
        smooth: np.ndarray[Any, Any] = weights @ self.losses / np.sum(weights, axis=1)
        return smooth

    @property
    def suggestion(self) -> float | None:
        """The rate at which the smoothed loss falls most steeply over the logarithm of the rate; None if it never does.

        A rate to begin with: at the rates where the loss is lowest it already hardly falls.
        """
        smoothed = self.smoothed
        best = int(np.argmin(smoothed))
        if best < 2:
            return None
        slopes = np.gradient(smoothed[: best + 1], np.log(self.rates[: best + 1]))
        return float(self.rates[np.argmin(slopes)])

    def plot(self, file: str | os.PathLike[str]) -> None:
        """Draw loss over learning rate into a file, whose suffix says its kind, such as ``.png`` or ``.svg``.

        Raises
        ------
        ModuleNotFoundError
            If matplotlib (the extra ``plot``) is not installed.
        """
        try:
            from matplotlib.figure import Figure
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "a plot needs matplotlib, which is not installed: pip install 'gpubp[plot]'", name=error.name
            ) from None
        smoothed, suggestion = self.smoothed, self.suggestion
        figure = Figure(figsize=(7, 4.2), layout="constrained")
        axes = figure.subplots()
        axes.plot(self.rates, self.losses, color="#b8c4d0", linewidth=1, label="loss of a step")
        axes.plot(self.rates, smoothed, color="#1f5fa8", linewidth=2, label="smoothed")
        if suggestion is not None:
            at = smoothed[self.rates == suggestion]
            axes.axvline(suggestion, color="#c8501e", linewidth=1, linestyle="--")
            axes.plot([suggestion], at, "o", color="#c8501e", label=f"suggestion {suggestion:.2g}")
        low, high = np.min(self.losses), np.max(self.losses[: len(self.losses) // 2 + 1])
        margin = 0.1 * (high - low) or 1.0
        axes.set(xscale="log", xlabel="learning rate", ylabel="loss", ylim=(low - margin, high + 3 * margin))
        axes.grid(color="#e6e9ec", linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, loc="upper left")
        figure.savefig(file, dpi=150)


def lr_finder(
    net: Any,
    loss: Callable[..., Any] | None,
    opt: Optimizer | Callable[[Any], Optimizer],
    train: Sequence[Any],
    *,
    low: float = 1e-7,
    high: float = 10.0,
    steps: int = 100,
    batch_size: int = 32,
    targets: int = 1,
    step: Callable[..., Any] | None = None,
    accumulate: int = 1,
    seed: int = 0,
    device: Device | str | None = None,
    precision: str | None = None,
) -> RangeTest:
    """Try learning rates from a low to a high one, a step with each, on copies of net and optimizer.

    The loss is read after each step. The test ends early when the loss has become much larger than it was at first, or
    is not finite.

    Parameters
    ----------
    net
        A built net.
    loss, opt, train, batch_size, targets, step, accumulate, seed, device, precision
        As in `fit`. The data are gone through as often as needed. What groups of the optimizer have as a rate of their
        own stays.
    low, high
        The range of rates, each so many times larger than the one before.
    steps
        How many rates, at least 3.

    Returns
    -------
    RangeTest
        Rates, losses, a `RangeTest.suggestion`, and a `RangeTest.plot`.

    Raises
    ------
    TypeError, ValueError
        As `fit`, and if the range is none.

    Notes
    -----
    Smith, "Cyclical learning rates for training neural networks", 2017, section 3.3.

    Examples
    --------
    >>> train, _ = bp.data.digits()
    >>> net = nn.Sequential(nn.Dense(64, 32), nn.relu, nn.Dense(32, 10), seed=0)
    >>> def loss(net, x, y):
    ...     return bp.losses.softmax_cross_entropy(net(x), y)
    >>> found = bp.lr_finder(net, loss, bp.optim.Adam(net), train)
    >>> 1e-4 < found.suggestion < 1e-1
    True
    """
    check_number("low", low)
    check_number("high", high)
    if not 0 < low < high < math.inf:
        raise ValueError(f"low and high must be rates with 0 < low < high, got {low} and {high}")
    check_at_least(3, "steps", steps)
    check_built(net)
    its = map_distinct(lambda x: raw_namespace(x).asarray(x, copy=True), net)
    if isinstance(opt, Optimizer) or not callable(opt):
        check_optimizer(opt, net)
        opt = copy.deepcopy(opt, {id(net): its})
    test = _Test(np.geomspace(low, high, steps))
    try:
        fit(
            *(its, loss, opt, train),
            steps=steps,
            batch_size=batch_size,
            targets=targets,
            step=step,
            accumulate=accumulate,
            seed=seed,
            device=device,
            precision=precision,
            metrics=(),
            callbacks=[test],
            progress=False,
            capture=False,
        )
    except NotFinite:
        if not test.losses:
            raise
    return test.result()


class _Test(Callback):
    """Sets the rates and notes the losses."""

    def __init__(self, rates: np.ndarray[Any, Any]) -> None:
        self.rates, self.diverged = rates, False
        self.losses: list[float] = []
        self._levels: list[float] = []  # medians of five losses in a row

    def on_start(self, run: Run) -> None:
        run.opt.lr = float(self.rates[0])

    def on_step(self, run: Run) -> None:
        self._note(float(to_numpy(run.value)))
        if self.diverged:
            run.stop("the loss diverges")
        elif run.step < len(self.rates):
            run.opt.lr = float(self.rates[run.step])

    def _note(self, loss: float) -> None:
        self.diverged = not math.isfinite(loss)
        if self.diverged:
            return
        self.losses.append(loss)
        if len(self.losses) >= 5:
            self._levels.append(float(np.median(self.losses[-5:])))
            best = min(self._levels)
            self.diverged = self._levels[-1] - best > DIVERGENCE * max(self._levels[0] - best, abs(best))

    def result(self) -> RangeTest:
        return RangeTest(self.rates[: len(self.losses)], np.asarray(self.losses), self.diverged)
