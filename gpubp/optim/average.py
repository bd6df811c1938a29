"""Averages of weights over the steps of a training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..device import raw_namespace
from ..functions import update as rules
from ..functions.update import check_number, is_narrow
from ..nn.parameter import check_built
from ..nn.surgery import load_state, state_of
from ..tree import cells_with_paths, map_distinct
from .optimizer import Optimizer

__all__ = ["Average"]


class Average:
    """The exponential moving average of a net's weights, a ← d a + (1-d) w, which is often better than the last ones.

    The average of 16-bit weights is kept in float32, and rounded to them. An update can be part of a captured step.

    Parameters
    ----------
    tree
        A built net, or a dict or list that holds arrays: what is averaged.
    decay
        The factor d. The first `update` takes the weights as they are.

    Attributes
    ----------
    tree
        What is averaged.

    Raises
    ------
    TypeError, ValueError
        If the decay is no number from 0 to below 1, or for the tree as for an `Optimizer`.

    Notes
    -----
    Polyak, Juditsky, "Acceleration of stochastic approximation by averaging", 1992; with exponential weights as in
    Tarvainen, Valpola, "Mean teachers are better role models", 2017.

    Examples
    --------
    >>> net = nn.Sequential(nn.Dense(2, 2), seed=0)
    >>> opt, average = bp.optim.SGD(net, 0.1), bp.optim.Average(net, 0.99)
    >>> grads = bp.grad(lambda net: np.sum(net(np.ones((1, 2), "float32"))))(net)
    >>> opt.step(grads)
    >>> average.update()
    >>> y = average.net(np.ones((1, 2), "float32"))
    """

    def __init__(self, tree: Any, decay: float = 0.999) -> None:
        check_built(tree)
        check_number("decay", decay)
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be from 0 to below 1, got {decay}")
        self.tree = tree
        self._averaging = _Averaging(map_distinct(lambda x: raw_namespace(x).asarray(x, copy=True), tree), decay)

    def update(self, value: Any = None) -> None:
        """Take the weights as they are now into the average; to be called after each step of the optimizer.

        Parameters
        ----------
        value
            The loss, as of `Optimizer.step`: where it is not finite the average stays as it is.
        """
        if value is not None and self._averaging.nonfinite == "ignore":
            self._averaging.guard(nonfinite="skip")
        self._averaging.step(self.tree, value)

    @property
    def net(self) -> Any:
        """A net of the same kind: its parameters are the averages, its cells hold what those of `tree` hold now."""
        average = self._averaging.tree
        for (_, own), (_, cell) in zip(cells_with_paths(average), cells_with_paths(self.tree), strict=True):
            own.held = cell.held
        return average

    def state(self) -> dict[str, Any]:
        """Return copies of the averages, named ``average`` and the path, and of what else is remembered, by name."""
        averages = {f"average {path}": raw_namespace(x).asarray(x, copy=True) for path, x in state_of(self.net).items()}
        return self._averaging.state() | averages

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` returned, of this average or of one of a net of the same form.

        Raises
        ------
        TypeError, ValueError
            As of an `Optimizer`.
        """
        if not isinstance(state, Mapping):
            raise TypeError(f"expected the arrays by name that state() returned, got {type(state).__name__}")
        found = {name.removeprefix("average "): x for name, x in state.items() if name.startswith("average ")}
        load_state(self.net, found, "the average", "state")
        self._averaging.load_state({name: x for name, x in state.items() if not name.startswith("average ")})


class _Averaging(Optimizer):
    """Steps averages, with the weights in the place of gradients."""

    rule = rules.average
    names = ("decay",)

    def __init__(self, tree: Any, decay: float) -> None:
        self.decay = decay
        super().__init__(tree, 0.0)

    def settings_for(self, p: Any) -> dict[str, Any]:
        """Have 16-bit averages in float32 too."""
        return {"narrow": True} if is_narrow(p.dtype) else {}
