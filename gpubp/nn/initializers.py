"""How parameters are drawn: on the host, so that one seed gives one network on every backend.

An initializer is a function ``initializer(rng, shape)`` that returns a float64 NumPy array, or one that makes such a
function (`uniform`, `normal`, `truncated_normal`, `orthogonal`, `constant`). The last two axes of a shape are (fan-in,
fan-out), as in a weight matrix that is applied as ``x @ W``; further axes before them (the window of a convolution)
multiply both.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from numbers import Integral

import numpy as np

__all__ = [
    "Initializer",
    "constant",
    "glorot_normal",
    "glorot_uniform",
    "he_normal",
    "he_uniform",
    "lecun_normal",
    "lecun_uniform",
    "normal",
    "orthogonal",
    "side_by_side",
    "truncated_normal",
    "uniform",
    "zeros",
]

Shape = tuple[int, ...]
Initializer = Callable[[np.random.Generator, Shape], np.ndarray]


def generator(seed: int, path: str) -> np.random.Generator:
    """Return the random numbers of one parameter: they depend on the net's seed and the parameter's path alone.

    Parameters
    ----------
    seed
        From 0 to 2**64 - 1.
    path
        Where the parameter stands in its net, such as ``layers[0].W``.
    """
    if not isinstance(seed, Integral) or not 0 <= seed < 2**64:
        raise ValueError(f"seed must be from 0 to 2**64 - 1, got {seed!r}")
    key = np.array([seed, digest(path)], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key))


def digest(path: str) -> int:
    """Return a number below 2**64 for a path, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(path.encode(), digest_size=8).digest(), "little")


def fans(shape: Shape) -> tuple[int, int]:
    """Return (fan-in, fan-out): how many inputs an output adds up, and how many outputs an input reaches."""
    if len(shape) < 2:
        raise ValueError(f"fan-in and fan-out need a shape (..., n_in, n_out), got {shape}; use uniform or normal")
    window = math.prod(shape[:-2])
    return window * shape[-2], window * shape[-1]


def _unit(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """Draw from [0, 1) out of the raw words, whose stream is the same in every version of NumPy."""
    words = rng.bit_generator.random_raw(math.prod(shape))
    return (np.asarray(words, dtype=np.uint64) >> np.uint64(11)).reshape(shape) * 2.0**-53


def _symmetric(rng: np.random.Generator, shape: Shape, variance: float) -> np.ndarray:
    """Draw uniformly from ±√(3 variance)."""
    return (2.0 * _unit(rng, shape) - 1.0) * math.sqrt(3.0 * variance)


def _gaussian(rng: np.random.Generator, shape: Shape, variance: float) -> np.ndarray:
    """Draw from the normal distribution with mean 0, by the method of Box and Muller."""
    radius = np.sqrt(-2.0 * np.log1p(-_unit(rng, shape)))
    found: np.ndarray = radius * np.cos(2.0 * np.pi * _unit(rng, shape)) * math.sqrt(variance)
    return found


def glorot_uniform(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """Draw uniformly with variance 2 / (fan-in + fan-out), for tanh and sigmoid (Glorot, Bengio, 2010, eq. 16)."""
    return _symmetric(rng, shape, 2.0 / sum(fans(shape)))


def glorot_normal(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """Draw normally with variance 2 / (fan-in + fan-out), for tanh and sigmoid (Glorot, Bengio, 2010, eq. 12)."""
    return _gaussian(rng, shape, 2.0 / sum(fans(shape)))


def he_uniform(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """Draw uniformly with variance 2 / fan-in, for rectifiers (He, Zhang, Ren, Sun, 2015, eq. 10)."""
    return _symmetric(rng, shape, 2.0 / fans(shape)[0])


def he_normal(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """Draw normally with variance 2 / fan-in, for rectifiers (He, Zhang, Ren, Sun, 2015, eq. 10)."""
    return _gaussian(rng, shape, 2.0 / fans(shape)[0])


def lecun_uniform(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """Draw uniformly with variance 1 / fan-in (LeCun, Bottou, Orr, Müller, "Efficient BackProp", 1998, eq. 16)."""
    return _symmetric(rng, shape, 1.0 / fans(shape)[0])


def lecun_normal(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """Draw normally with variance 1 / fan-in (LeCun, Bottou, Orr, Müller, "Efficient BackProp", 1998, eq. 16)."""
    return _gaussian(rng, shape, 1.0 / fans(shape)[0])


def uniform(low: float, high: float) -> Initializer:
    """Give an initializer that draws uniformly from [low, high)."""
    return lambda rng, shape: low + (high - low) * _unit(rng, shape)


def normal(std: float, mean: float = 0.0) -> Initializer:
    """Give an initializer that draws normally with the given standard deviation and mean."""
    return lambda rng, shape: mean + _gaussian(rng, shape, std * std)


def truncated_normal(std: float, mean: float = 0.0, low: float = -2.0, high: float = 2.0) -> Initializer:
    """Give an initializer that draws normally, and again what lies outside of mean + [low, high] std.

    Parameters
    ----------
    std, mean
        Of the normal distribution that is cut off: what stays has a smaller deviation, of 0.88 std for ±2.
    low, high
        The bounds, in standard deviations from the mean; at least 1 % of the normal distribution lies between them.
    """
    share = (math.erf(high * math.sqrt(0.5)) - math.erf(low * math.sqrt(0.5))) / 2
    if not share >= 0.01:
        raise ValueError(f"truncated_normal expects 1 % of the distribution between low and high, got {low} and {high}")

    def draw(rng: np.random.Generator, shape: Shape) -> np.ndarray:
        values = _gaussian(rng, shape, 1.0).reshape(-1)
        while (outside := np.flatnonzero((values < low) | (values > high))).size:
            values[outside] = _gaussian(rng, outside.shape, 1.0)
        found: np.ndarray = mean + std * values.reshape(shape)
        return found

    return draw


def orthogonal(gain: float = 1.0) -> Initializer:
    """Give an initializer that draws uniformly among the matrices with orthonormal rows or columns, times a gain.

    Of more than two axes the leading ones are taken as one. The shorter side is orthonormal: the rows of a matrix of
    shape (m, n) for m <= n, else its columns.

    Notes
    -----
    Saxe, McClelland, Ganguli, "Exact solutions to the nonlinear dynamics of learning in deep linear neural networks",
    2014. The signs are those with which R of the QR decomposition of a normal matrix has a positive diagonal, without
    which the distribution would not be uniform (Mezzadri, "How to generate random matrices from the classical compact
    groups", 2007).
    """

    def draw(rng: np.random.Generator, shape: Shape) -> np.ndarray:
        if len(shape) < 2:
            raise ValueError(f"orthogonal needs a shape (..., n_in, n_out), got {shape}; use uniform or normal")
        rows, columns = math.prod(shape[:-1]), shape[-1]
        q, r = np.linalg.qr(_gaussian(rng, (max(rows, columns), min(rows, columns)), 1.0))
        q *= np.where(np.diagonal(r) < 0, -gain, gain)
        return (q if rows >= columns else q.T).reshape(shape)

    return draw


def constant(value: float) -> Initializer:
    """Give an initializer that sets the same number everywhere."""
    return lambda rng, shape: np.full(shape, float(value))


def zeros(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """Return zeros, as usual for biases."""
    return np.zeros(shape)


def side_by_side(initializer: Initializer, count: int) -> Initializer:
    """Give an initializer of matrices that stand beside each other in one, each drawn as if it stood alone."""

    def draw(rng: np.random.Generator, shape: Shape) -> np.ndarray:
        one = (*shape[:-1], shape[-1] // count)
        return np.concatenate([initializer(rng, one) for _ in range(count)], axis=-1)

    return draw
