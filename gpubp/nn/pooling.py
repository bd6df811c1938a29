"""Pooling layers; how many spatial axes there are, the input says."""

from __future__ import annotations

from typing import Any

from ..array import strip
from ..device import is_array
from ..functions.pooling import adaptive_avg_pool, avg_pool, global_avg_pool, max_pool
from ..functions.window import frozen
from .layer import Layer, shown

__all__ = ["AdaptiveAvgPool", "AvgPool", "GlobalAvgPool", "MaxPool"]


class _Pool(Layer):
    """What pooling layers share: errors that name them."""

    def __call__(self, x: Any, /) -> Any:
        """Compute the output for an input of shape (batch, *spatial, channels)."""
        try:
            return self._pooled(x)
        except (AttributeError, TypeError, ValueError) as error:
            if not is_array(x):
                given = "None" if x is None else type(x).__name__
                raise TypeError(f"{self!r} expects arrays, got {given} as input") from None
            if len(shape := tuple(strip(x).shape)) < 3:
                raise ValueError(
                    f"{self!r} expects an input of shape (batch, *spatial, channels), got {shape}"
                ) from None
            error.add_note(f"in {self!r}")
            raise

    def _pooled(self, x: Any) -> Any:
        raise NotImplementedError


class MaxPool(_Pool):
    """Maximum over each window; its gradient goes to the first of equal elements.

    Parameters
    ----------
    window
        Size of the windows: a number, or one for each spatial axis.
    stride
        Steps between windows: a number, or one for each spatial axis; None for the window's size.
    padding
        How far windows reach beyond the input: ``"valid"``, ``"same"``, a number, one for each spatial axis, or a pair
        (before, after) for each.
    """

    def __init__(self, window: Any, *, stride: Any = None, padding: Any = "valid") -> None:
        self.window, self.stride, self.padding = frozen(window), frozen(stride), frozen(padding)

    def _pooled(self, x: Any) -> Any:
        return max_pool(x, window=self.window, stride=self.stride, padding=self.padding)

    def __repr__(self) -> str:
        return shown(self, self.window, stride=(self.stride, None), padding=(self.padding, "valid"))


class AvgPool(_Pool):
    """Mean over each window.

    Parameters
    ----------
    window
        Size of the windows: a number, or one for each spatial axis.
    stride
        Steps between windows: a number, or one for each spatial axis; None for the window's size.
    padding
        How far windows reach beyond the input: ``"valid"``, ``"same"``, a number, one for each spatial axis, or a pair
        (before, after) for each.
    count_include_pad
        Whether the zeros outside count as elements of a window.
    """

    def __init__(
        self, window: Any, *, stride: Any = None, padding: Any = "valid", count_include_pad: bool = True
    ) -> None:
        self.window, self.stride, self.padding = frozen(window), frozen(stride), frozen(padding)
        self.count_include_pad = count_include_pad

    def _pooled(self, x: Any) -> Any:
        return avg_pool(
            x, window=self.window, stride=self.stride, padding=self.padding, count_include_pad=self.count_include_pad
        )

    def __repr__(self) -> str:
        return shown(
            self, self.window, stride=(self.stride, None), padding=(self.padding, "valid"),
            count_include_pad=(self.count_include_pad, True),
        )  # fmt: skip


class GlobalAvgPool(_Pool):
    """Mean over all spatial axes: (batch, *spatial, channels) becomes (batch, channels)."""

    def _pooled(self, x: Any) -> Any:
        return global_avg_pool(x)

    def __repr__(self) -> str:
        return shown(self)


class AdaptiveAvgPool(_Pool):
    """Mean over windows that are as equal as can be, so many that the output has a given size.

    Parameters
    ----------
    size
        Spatial size of the output: a number, or one for each spatial axis.
    """

    def __init__(self, size: Any) -> None:
        self.size = frozen(size)

    def _pooled(self, x: Any) -> Any:
        return adaptive_avg_pool(x, size=self.size)

    def __repr__(self) -> str:
        return shown(self, self.size)
