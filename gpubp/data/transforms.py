"""Transforms of batches: what is done to inputs between the data and the net.

A transform is called as ``transform(x, draw)`` with the rows of a batch, where these are, and a `Draw`, from which it
has its random numbers; it returns an array with as many rows. Its `evaluation` is the part of it that stays when a net
is measured or used: itself, where it draws nothing.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..boundary import is_inexact
from ..device import PlainArray, device_of, is_array, move, raw_namespace
from .checks import Source, check_at_least, check_finite_part, chunks, is_source

__all__ = ["Compose", "Crop", "Draw", "Flip", "Noise", "Normalize", "Transform", "evaluation"]


class Draw:
    """Random numbers for the rows of a batch, on the host.

    What a row gets depends on the seed, the epoch, the row and the number of draws before alone: not on the batch it is
    in, nor on the order. A row that comes several times in an epoch (`balance`) gets other numbers each time.

    Parameters
    ----------
    seed, epoch
        As of `batches`.
    rows
        Where in the data the rows stand.
    copies
        How often each came before in the epoch; by default not at all.

    Notes
    -----
    The numbers are the 32-bit halves, the lower one first, of the words of Philox 4x64-10 with the key (seed, epoch)
    and the counter (0, row, number of the draw, 1 + copy). NumPy keeps a bit generator's stream; setting its state for
    one row after the other is faster than the rounds of Philox in array operations.
    """

    def __init__(self, seed: int, epoch: int, rows: np.ndarray, copies: np.ndarray | None = None) -> None:
        self.rows = rows
        self._copies = np.zeros_like(rows) if copies is None else copies
        self._key, self._draws = np.array([seed, epoch], dtype=np.uint64), 0

    def halves(self, n: int) -> np.ndarray:
        """Return `n` numbers below 2**32 for each row, in uint32."""
        bits = np.random.Philox(key=self._key)
        state: Any = bits.state
        words = np.empty((len(self.rows), -(-n // 2)), dtype="<u8")
        for own, row, copy in zip(words, self.rows.tolist(), self._copies.tolist(), strict=True):
            state["state"]["counter"][:] = 0, row, self._draws, 1 + copy
            bits.state = state
            own[:] = bits.random_raw(len(own))
        self._draws += 1
        return words.view("<u4")[:, :n]

    def uniform(self, shape: tuple[int, ...] = ()) -> np.ndarray:
        """Return numbers from 0 to below 1 in float64, of the shape ``(rows, *shape)``."""
        return self._shaped(self.halves(math.prod(shape)) * 2.0**-32, shape)

    def integers(self, end: int, shape: tuple[int, ...] = ()) -> np.ndarray:
        """Return numbers from 0 to below `end` in int64, of the shape ``(rows, *shape)``."""
        return self._shaped((self.halves(math.prod(shape)) * np.uint64(end) >> 32).astype(np.int64), shape)

    def normal(self, shape: tuple[int, ...] = ()) -> np.ndarray:
        """Return normally distributed numbers in float32, of the shape ``(rows, *shape)``.

        Notes
        -----
        Box and Muller, "A note on the generation of random normal deviates", 1958. Its logarithms and cosines are
        NumPy's, so the last bit may differ from machine to machine.
        """
        n = math.prod(shape)
        halves = self.halves(2 * -(-n // 2)).astype(np.float32)
        first, second = np.split(halves, 2, axis=1)
        radius = np.sqrt(np.log((first + np.float32(1)) * np.float32(2.0**-32)) * np.float32(-2))
        angle = second * np.float32(2 * math.pi * 2.0**-32)
        return self._shaped(np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1)[:, :n], shape)

    def _shaped(self, flat: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        return flat.reshape(len(self.rows), *shape)


class Transform:
    """A transform with random numbers; a subclass defines ``__call__(x, draw)``, and `evaluation` if there is one."""

    def __call__(self, x: PlainArray, draw: Any = None, /) -> PlainArray:
        raise NotImplementedError

    @property
    def evaluation(self) -> Transform | None:
        """The part that draws nothing; None where nothing stays."""
        return None


class Normalize(Transform):
    """Subtracts a mean and divides by a standard deviation: ``(x - mean) / std``, where the latter is 0 ``x - mean``.

    Integers become float32.

    Parameters
    ----------
    mean, std : array-like
        Of one shape, that of a row or of its last axes.

    Examples
    --------
    >>> normalize = Normalize.fit(np.array([[1.0, 5.0], [3.0, 5.0]]))
    >>> normalize(np.array([[3.0, 6.0]]))
    array([[1., 1.]])
    """

    def __init__(self, mean: Any, std: Any) -> None:
        self.mean, self.std = np.asarray(mean, dtype=np.float64), np.asarray(std, dtype=np.float64)
        if self.mean.shape != self.std.shape or not np.isfinite([self.mean, self.std]).all() or (self.std < 0).any():
            raise ValueError(
                "mean and std must be finite numbers of one shape, and no std negative, got arrays of shape "
                f"{self.mean.shape} and {self.std.shape}"
            )
        self._at: tuple[Any, Any] = None, None

    @classmethod
    def fit(cls, x: PlainArray | Source, per: str = "channel") -> Normalize:
        """Return the one that gives inputs the mean 0 and the standard deviation 1.

        Parameters
        ----------
        x : array or source
            The inputs of the training data, and of these alone. They are read in chunks and added up in float64.
        per : {"channel", "feature"}
            Whether there is a mean for each place of the last axis, over all others (channels of pictures, columns of
            a table), or for each place in a row.

        Raises
        ------
        TypeError
            If `x` is neither an array nor a source.
        ValueError
            If it has no rows, or holds NaN or infinity.
        """
        if not (is_array(x) or is_source(x)):
            raise TypeError(f"Normalize.fit takes the inputs of the training data, an array, got {type(x).__name__}")
        if per not in ("channel", "feature"):
            raise ValueError(f"per must be 'channel' or 'feature', got {per!r}")
        if x.ndim == 0 or math.prod(x.shape) == 0:
            raise ValueError(f"Normalize.fit takes an array with examples, got one of shape {tuple(x.shape)}")
        axes = (0,) if per == "feature" else tuple(range(max(1, x.ndim - 1)))
        count, mean, squares, origin = 0, np.float64(0), np.float64(0), np.float64(0)
        for first, part in chunks(x):
            check_finite_part(part, first, "inputs of Normalize.fit")
            if not count:  # near the mean, so that nothing cancels: what is constant has a std of exactly 0
                origin = part[(0,) * len(axes)].astype(np.float64)
            part = part - origin
            n, own = math.prod(part.shape[axis] for axis in axes), part.mean(axis=axes)
            squares = squares + ((part - own) ** 2).sum(axis=axes) + (own - mean) ** 2 * (n * count / (n + count))
            mean = mean + (own - mean) * (n / (n + count))
            count += n
        return cls(mean + origin, np.sqrt(squares / count))

    def __call__(self, x: PlainArray, draw: Any = None, /) -> PlainArray:
        shape = tuple(x.shape)
        if shape[1:][len(shape) - 1 - self.mean.ndim :] != self.mean.shape:
            raise ValueError(
                f"Normalize has means of shape {self.mean.shape} for the last axes of rows, got x of {shape}"
            )
        xp = raw_namespace(x)
        if not is_inexact(x.dtype):
            x = xp.astype(x, xp.float32)
        mean, scale = self._constants(xp, x)
        x = x - mean
        x *= scale
        return x

    def _constants(self, xp: Any, x: PlainArray) -> Any:
        """Return mean and 1 / std where `x` is, of a row's shape, since it costs time to repeat a few channels."""
        key, constants = self._at
        wanted = device_of(x), x.dtype, tuple(x.shape[1:])
        if key != wanted:
            rows = (np.broadcast_to(a, wanted[2]) for a in (self.mean, 1 / np.where(self.std > 0, self.std, 1)))
            constants = [xp.astype(move(np.ascontiguousarray(a), wanted[0]), x.dtype) for a in rows]
            self._at = wanted, constants
        return constants

    @property
    def evaluation(self) -> Transform:
        return self

    def to_dict(self) -> dict[str, Any]:
        """Return means and standard deviations as lists, for a JSON file."""
        return {"mean": self.mean.tolist(), "std": self.std.tolist()}

    @classmethod
    def from_dict(cls, d: dict[str, Any]) -> Normalize:
        """Return the one of `to_dict`."""
        return cls(d["mean"], d["std"])

    def __repr__(self) -> str:
        return f"Normalize(shape={self.mean.shape})"


class Flip(Transform):
    """Turns about half of the rows round along an axis: pictures, which are (batch, height, width, channels).

    Parameters
    ----------
    axis : int
        Of the batch; by default the width.
    p : float
        The share of rows that are turned.
    """

    def __init__(self, axis: int = 2, p: float = 0.5) -> None:
        if axis == 0:
            raise ValueError("axis must be one of a row's, got 0, along which the rows stand")
        if not 0 <= p <= 1:
            raise ValueError(f"p must be from 0 to 1, got {p}")
        self.axis, self.p = axis, p

    def __call__(self, x: PlainArray, draw: Any = None, /) -> PlainArray:
        xp = raw_namespace(x)
        if not -x.ndim < self.axis < x.ndim:
            raise ValueError(f"Flip({self.axis}) wants a batch with that axis, got x of shape {tuple(x.shape)}")
        where, order = device_of(x), np.arange(x.shape[0])
        rows = np.flatnonzero(draw.uniform() < self.p)
        order[rows] = x.shape[0] + np.arange(len(rows))
        backwards = move(np.arange(x.shape[self.axis])[::-1], where)
        turned = xp.take(xp.take(x, move(rows, where), axis=0), backwards, axis=self.axis)
        return xp.take(xp.concat([x, turned], axis=0), move(order, where), axis=0)


class Crop(Transform):
    """Shifts pictures at random: zeros are put around them, and a part of the old size is cut out.

    Parameters
    ----------
    padding : int
        How many zeros on each side, and by how much a picture is shifted at most.

    Notes
    -----
    He, Zhang, Ren, Sun, "Deep residual learning for image recognition", 2016, section 4.2, with a padding of 4.
    """

    def __init__(self, padding: int) -> None:
        check_at_least(0, "padding", padding)
        self.padding = padding

    def __call__(self, x: PlainArray, draw: Any = None, /) -> PlainArray:
        if x.ndim < 3:
            raise ValueError(f"Crop wants pictures, (batch, height, width, channels), got x of shape {tuple(x.shape)}")
        xp, p = raw_namespace(x), self.padding
        n, height, width, *rest = x.shape
        for axis in (1, 2):
            shape = [p if k == axis else size for k, size in enumerate(x.shape)]
            zeros = xp.zeros(tuple(shape), dtype=x.dtype, device=x.device)
            x = xp.concat([zeros, x, zeros], axis=axis)
        shift = draw.integers(2 * p + 1, (2,))
        lines = np.arange(n)[:, None] * (height + 2 * p) + shift[:, :1] + np.arange(height)
        starts = lines * (width + 2 * p) + shift[:, 1:]
        if isinstance(x, np.ndarray):  # a line at a time
            size = math.prod(rest)
            found = np.lib.stride_tricks.sliding_window_view(x.reshape(-1), width * size)[starts * size]
        else:
            places = move((starts[..., None] + np.arange(width)).ravel(), device_of(x))
            found = xp.take(xp.reshape(x, (-1, *rest)), places, axis=0)
        return xp.reshape(found, (n, height, width, *rest))


class Noise(Transform):
    """Adds normally distributed numbers.

    Parameters
    ----------
    std : float
        Their standard deviation.
    """

    def __init__(self, std: float) -> None:
        if not 0 <= std < math.inf:
            raise ValueError(f"std must be a number from 0, got {std!r}")
        self.std = std

    def __call__(self, x: PlainArray, draw: Any = None, /) -> PlainArray:
        if not is_inexact(x.dtype):
            raise TypeError(f"Noise wants floating-point numbers, got x of {x.dtype}: put Normalize before it")
        noise = draw.normal(tuple(x.shape[1:]))
        noise *= np.float32(self.std)
        return x + raw_namespace(x).astype(move(noise, device_of(x)), x.dtype)


class Compose(Transform):
    """Transforms, one after the other.

    Parameters
    ----------
    *transforms : transforms and functions
        As `batches` takes them.
    """

    def __init__(self, *transforms: Any) -> None:
        self.transforms = tuple(map(resolve, transforms))

    def __call__(self, x: PlainArray, draw: Any = None, /) -> PlainArray:
        for transform in self.transforms:
            x = transform(x, draw)
        return x

    @property
    def evaluation(self) -> Transform | None:
        stay = [part for transform in self.transforms if (part := transform.evaluation) is not None]
        return Compose(*stay) if stay else None


class _Own(Transform):
    """A function as a transform: of ``(x, draw)`` a random one, of ``(x)`` one that stays in evaluation."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function, self.draws = function, _positional(function) == 2

    def __call__(self, x: PlainArray, draw: Any = None, /) -> PlainArray:
        return self.function(x, draw) if self.draws else self.function(x)

    @property
    def evaluation(self) -> Transform | None:
        return None if self.draws else self


def _positional(function: Callable[..., Any]) -> int:
    """How many arguments a function must be given, 1 if it does not say."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return 1
    wanted = [p for p in parameters if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(wanted) not in (1, 2):
        names = ", ".join(p.name for p in wanted)
        raise TypeError(f"a transform is a function of (x) or of (x, draw), got one of ({names})")
    return len(wanted)


def resolve(transform: Any) -> Transform:
    """Return a transform, or a function of ``(x)`` or ``(x, draw)``, as a transform."""
    if isinstance(transform, Transform):
        return transform
    if not callable(transform):
        raise TypeError(
            f"a transform is one of gpubp.data.transforms, or a function of (x) or of (x, draw), got {transform!r:.80}"
        )
    return _Own(transform)


def per_array(transform: Any, arrays: int) -> tuple[Transform | None, ...]:
    """Return a transform for each array, or None: of one transform for the first."""
    several = tuple(transform) if isinstance(transform, list | tuple) else (transform,)
    if len(several) > arrays:
        raise ValueError(f"there are {len(several)} transforms for {arrays} array{'s' * (arrays > 1)}")
    found = [None if one is None else resolve(one) for one in several]
    return (*found, *(None for _ in range(arrays - len(found))))


def evaluation(transform: Any) -> Any:
    """Return what stays of a transform, as `batches` takes it, when a net is measured or used."""
    if isinstance(transform, list | tuple):
        return tuple(map(evaluation, transform))
    return None if transform is None else resolve(transform).evaluation
