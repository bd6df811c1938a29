"""Windows that slide over the spatial axes of (batch, *spatial, channels): what convolution and pooling share."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from functools import lru_cache
from numbers import Integral
from typing import Any, NamedTuple

from ..boundary import scatter

Sizes = tuple[int, ...]
Key = tuple[slice, ...]


class Windows(NamedTuple):
    """Where windows lie along the spatial axes; one entry an axis."""

    size: Sizes
    """Of the input, without padding."""
    window: Sizes
    stride: Sizes
    dilation: Sizes
    padding: tuple[tuple[int, int], ...]
    """Before and after the input."""
    out: Sizes
    """How many windows there are."""

    @property
    def padded(self) -> Sizes:
        """The sizes of the padded input."""
        return tuple(n + before + after for n, (before, after) in zip(self.size, self.padding, strict=True))

    @property
    def interior(self) -> Key:
        """The input's place in the padded input."""
        axes = (slice(lo, lo + n) for n, (lo, _) in zip(self.size, self.padding, strict=True))
        return (slice(None), *axes, slice(None))

    @property
    def taps(self) -> int:
        """How many elements a window has."""
        return math.prod(self.window)

    @property
    def outer(self) -> Windows:
        """The same without the last spatial axis."""
        return Windows(
            self.size[:-1], self.window[:-1], self.stride[:-1], self.dilation[:-1], self.padding[:-1], self.out[:-1]
        )

    def places(self) -> Iterator[tuple[Any, Key]]:
        """Yield the key of each place in a window, in row-major order, and that of all windows' in the padded input."""
        for tap in itertools.product(*map(range, self.window)):
            axes = (
                slice(t * d, t * d + (n - 1) * s + 1, s)
                for t, d, n, s in zip(tap, self.dilation, self.out, self.stride, strict=True)
            )
            yield (*tap, ...), (slice(None), *axes, slice(None))


def pad(xp: Any, x: Any, w: Windows) -> Any:
    """`x` with zeros around it."""
    if not any(map(any, w.padding)):
        return x
    return scatter(xp, (x.shape[0], *w.padded, x.shape[-1]), w.interior, x)


# -- from options to windows


def windows_of(
    name: str, size: Any, window: Any, stride: Any = 1, padding: Any = "valid", dilation: Any = 1
) -> Windows:
    """Work out where windows lie.

    Parameters
    ----------
    name
        The function's, for errors.
    size
        Spatial sizes of the input.
    window, stride, dilation
        A number, or one for each axis.
    padding
        ``"valid"``: none. ``"same"``: as many windows as ⌈size / stride⌉, what is odd at the end. A number, a number
        for each axis, or a pair (before, after) for each axis.

    Raises
    ------
    TypeError, ValueError
        If an option is none of these, or no window fits.
    """
    return _windows(name, tuple(size), *map(frozen, (window, stride, padding, dilation)))


def frozen(x: Any) -> Any:
    """An option with tuples for lists."""
    return tuple(map(frozen, x)) if isinstance(x, list | tuple) else x


@lru_cache(maxsize=4096)
def _windows(name: str, size: Sizes, window: Any, stride: Any, padding: Any, dilation: Any) -> Windows:
    rank = len(size)
    window, stride, dilation = (
        each_axis(name, option, value, rank)
        for option, value in (("window", window), ("stride", stride), ("dilation", dilation))
    )
    extent = tuple(d * (k - 1) + 1 for d, k in zip(dilation, window, strict=True))
    same = tuple(max((-(-n // s) - 1) * s + e - n, 0) for n, s, e in zip(size, stride, extent, strict=True))
    pairs = pairs_of(name, padding, same)
    room = tuple(n + sum(pair) - e for n, pair, e in zip(size, pairs, extent, strict=True))
    if min(room) < 0:
        raise ValueError(
            f"{name}: a window of {_show(window)}{f' with dilation {_show(dilation)}' if max(dilation) > 1 else ''} "
            f"does not fit into an input of spatial shape {size} with padding {_show(pairs)}"
        )
    return Windows(size, window, stride, dilation, pairs, tuple(r // s + 1 for r, s in zip(room, stride, strict=True)))


def each_axis(name: str, option: str, value: Any, rank: int, least: int = 1) -> Sizes:
    """One whole number for each spatial axis."""
    values = value if isinstance(value, tuple) else (value,) * rank
    if len(values) != rank or not all(isinstance(v, Integral) and int(v) >= least for v in values):
        raise ValueError(
            f"{name} expects {option} as a whole number from {least}, or one for each of {rank} spatial axes, "
            f"got {value!r}"
        )
    return tuple(map(int, values))


def pairs_of(name: str, padding: Any, same: Sizes) -> tuple[tuple[int, int], ...]:
    """Padding as a pair (before, after) for each axis; `same` is how much ``"same"`` takes on each."""
    if padding == "valid":
        return ((0, 0),) * len(same)
    if padding == "same":
        return tuple((total // 2, total - total // 2) for total in same)
    values = padding if isinstance(padding, tuple) else (padding,) * len(same)
    pairs = tuple(p if isinstance(p, tuple) else (p, p) for p in values)
    if len(pairs) != len(same) or not all(
        len(pair) == 2 and all(isinstance(p, Integral) and int(p) >= 0 for p in pair) for pair in pairs
    ):
        raise ValueError(
            f"{name} expects padding 'same', 'valid', a whole number, or one or a pair (before, after) for each of "
            f"{len(same)} spatial axes, got {padding!r}"
        )
    return tuple((int(before), int(after)) for before, after in pairs)


def _show(values: Any) -> str:
    return str(values[0] if len(set(values)) == 1 else values)
