"""Normalization on NumPy: in parts that stay in the cache while several passes go over them.

Sums are products with a vector of ones, which BLAS computes with several threads. Several positions are laid side by
side where there are few channels, so that NumPy's inner loops are long.

A mean is taken apart into `centre`, which is subtracted from each element, and `rest`, which is left to the arithmetic
of sums in float64. Near 0, measured in standard deviations, there is no centre, which saves passes. Elsewhere it is the
mean rounded to the array's dtype, and the rest is what rounding took.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from ...functions import normalization
from .common import ndarray, ones

_add, _multiply, _subtract = np.add, np.multiply, np.subtract

#: Bytes of a part, few enough that what several passes touch stays near the processor.
PART = 1 << 19

#: Up to so many numbers are laid side by side.
WIDE = 512


def _suitable(x: Any, least: int, eps: float, *vectors: Any) -> bool:
    return (
        type(x) is ndarray
        and x.dtype.char in "fd"
        and x.ndim >= least
        and x.size > 0
        and eps >= 0
        and all(v is None or (type(v) is ndarray and v.dtype is x.dtype and v.shape == x.shape[-1:]) for v in vectors)
    )


@lru_cache(maxsize=256)
def _parts(count: int, nbytes: int) -> tuple[slice, ...]:
    """`count` things of so many bytes, cut into parts."""
    step = max(1, PART // nbytes)
    return tuple(slice(k, min(k + step, count)) for k in range(0, count, step))


@lru_cache(maxsize=256)
def _beside(rows: int, n: int) -> int:
    """How many rows of n are laid side by side: a power of 2 that divides their number."""
    k = 1
    while 2 * k * n <= WIDE and rows % (2 * k) == 0:
        k *= 2
    return k


def _times(scale: Any, gain: Any) -> Any:
    return scale if gain is None else scale * gain


def _near(mean: Any, variance: Any) -> Any:
    """Whether sums of squares lose no more than two or three bits to these means."""
    return (mean * mean <= 4 * variance).all()


def _moments(x: Any, mean: Callable[[Any], Any], spread: Callable[[Any], Any], scratch: Any) -> tuple[Any, Any, Any]:
    """Centre, rest of the mean, and variance.

    ``mean(x)`` gives means in float64, and ``spread(v)`` their array in the shape that broadcasts with x.
    """
    rest = mean(x)
    variance = mean(_multiply(x, x, scratch)) - rest * rest
    if _near(rest, variance):
        return None, rest, variance
    centre = rest.astype(x.dtype)
    deviation = _subtract(x, spread(centre), scratch)
    rest = mean(deviation)
    return centre, rest, mean(_multiply(deviation, deviation, deviation)) - rest * rest


# -- over the examples of a batch


class _Columns:
    """The shape (rows, channels) with k rows side by side, in parts."""

    def __init__(self, x: Any) -> None:
        self.n, self.dtype = x.shape[-1], x.dtype
        self.rows = x.size // self.n
        self.k = _beside(self.rows, self.n)
        self.shape = self.rows // self.k, self.k * self.n
        self.parts = _parts(self.shape[0], self.shape[1] * x.itemsize)

    def matrix(self, x: Any) -> Any:
        return np.ascontiguousarray(x).reshape(self.shape)

    def vector(self, v: Any) -> Any:
        v = v.astype(self.dtype, copy=False)
        return v if self.k == 1 else np.concatenate([v] * self.k)

    def scratch(self) -> Any:
        return np.empty((self.parts[0].stop, self.shape[1]), self.dtype)

    def total(self, x: Any) -> Any:
        """The sum of the rows of a part, in float64."""
        return ones(self.dtype.char, len(x)).dot(x).astype("d")

    def mean(self, x: Any) -> Any:
        return self.total(x) / len(x)

    def folded(self, sums: Any) -> Any:
        """The sum over all that lies side by side."""
        return sums if self.k == 1 else sums.reshape(self.k, self.n).sum(axis=0)


def _statistics(c: _Columns, x: Any) -> tuple[Any, Any, Any]:
    """Centre, rest and variance of the channels, from those of the parts.

    Chan, Golub, LeVeque, "Algorithms for computing the sample variance", 1983.
    """
    scratch = c.scratch()
    means, squares, counts = [], [], []
    for part in c.parts:
        rows = x[part]
        centre, rest, variance = _moments(rows, c.mean, lambda v: v, scratch[: len(rows)])
        means.append(rest if centre is None else centre + rest)
        squares.append(variance)
        counts.append(len(rows))
    weights = np.repeat(np.asarray(counts) / c.rows, c.k)
    each = np.asarray(means).reshape(-1, c.n)
    mean = weights.dot(each)
    each -= mean
    variance = weights.dot(np.asarray(squares).reshape(-1, c.n) + each * each)
    if _near(mean, variance):
        return None, mean, variance
    centre = mean.astype(c.dtype)
    return centre, mean - centre, variance


def _affine(c: _Columns, x: Any, centre: Any, scale: Any, shift: Any) -> Any:
    """``(x - centre) * scale + shift``."""
    y = np.empty(c.shape, c.dtype)
    scale, shift = c.vector(scale), c.vector(shift)
    centre = None if centre is None else c.vector(centre)
    for part in c.parts:
        out = y[part]
        _multiply(x[part] if centre is None else _subtract(x[part], centre, out), scale, out)
        _add(out, shift, out)
    return y


def _sums(c: _Columns, x: Any, dY: Any, centre: Any, rest: Any) -> tuple[Any, Any]:
    """Σ dY and Σ dY (x - mean), in float64."""
    plain = weighted = 0.0
    scratch = c.scratch()
    spread = None if centre is None else c.vector(centre)
    for part in c.parts:
        g = dY[part]
        out = scratch[: len(g)]
        _multiply(x[part] if spread is None else _subtract(x[part], spread, out), g, out)
        plain = plain + c.total(g)
        weighted = weighted + c.total(out)
    plain = c.folded(plain)
    return plain, c.folded(weighted) - rest * plain


def _combined(c: _Columns, x: Any, dY: Any, centre: Any, scale: Any, slope: Any, shift: Any) -> Any:
    """``dY * scale + (x - centre) * slope + shift``."""
    dx, scratch = np.empty(c.shape, c.dtype), c.scratch()
    scale, slope, shift = map(c.vector, (scale, slope, shift))
    centre = None if centre is None else c.vector(centre)
    for part in c.parts:
        out = _multiply(dY[part], scale, dx[part])
        term = scratch[: len(out)]
        _multiply(x[part] if centre is None else _subtract(x[part], centre, term), slope, term)
        _add(term, shift, term)
        _add(out, term, out)
    return dx


def _batch_norm(xp: Any, needs: Any, x: Any, gain: Any = None, bias: Any = None, /, *, eps: float = 1e-5) -> Any:
    if not _suitable(x, 2, eps, gain, bias):
        return NotImplemented
    c = _Columns(x)
    rows = c.matrix(x)
    centre, rest, variance = _statistics(c, rows)
    inverse = 1 / np.sqrt(variance + eps)
    scale = _times(inverse, gain)
    shift = -rest * scale
    y = _affine(c, rows, centre, scale, shift if bias is None else shift + bias).reshape(x.shape)
    mean = rest if centre is None else centre + rest
    return (y, mean.astype(c.dtype), variance.astype(c.dtype)), (c, rows, x.shape, centre, rest, inverse, gain)


def _batch_norm_backward(xp: Any, needs: Any, cotangents: Any, residuals: Any, *, eps: float = 1e-5) -> Any:
    dY, dmean, dvariance = cotangents
    c, x, shape, centre, rest, inverse, gain = residuals
    dY = np.zeros(c.shape, c.dtype) if dY is None else c.matrix(dY)
    dbias, dgain = _sums(c, x, dY, centre, rest)
    dgain *= inverse
    dx = None
    if needs[0]:
        scale = _times(inverse, gain)
        slope, shift = scale * inverse * dgain / -c.rows, scale * dbias / -c.rows
        if dmean is not None:
            shift += dmean / c.rows
        if dvariance is not None:
            slope += dvariance * (2 / c.rows)
        dx = _combined(c, x, dY, centre, scale, slope, shift - rest * slope).reshape(shape)
    return dx, dgain.astype(c.dtype), dbias.astype(c.dtype)


def _inference(
    xp: Any, needs: Any, x: Any, mean: Any, variance: Any, gain: Any = None, bias: Any = None, /, *, eps: float = 1e-5
) -> Any:
    if mean is None or variance is None or not _suitable(x, 1, eps, mean, variance, gain, bias):
        return NotImplemented
    c = _Columns(x)
    rows = c.matrix(x)
    centre, rest = (None, mean) if _near(mean, variance) else (mean, np.zeros_like(mean))
    inverse = 1 / np.sqrt(variance + c.dtype.type(eps))
    scale = _times(inverse, gain)
    shift = -rest * scale
    y = _affine(c, rows, centre, scale, shift if bias is None else shift + bias)
    return y.reshape(x.shape), (c, rows if any(needs[2:4]) else None, centre, rest, inverse, gain)


def _inference_backward(xp: Any, needs: Any, dY: Any, residuals: Any, *, eps: float = 1e-5) -> Any:
    c, x, centre, rest, inverse, gain = residuals
    scale = _times(inverse, gain)
    dx = dY * scale if needs[0] else None
    dmean = dvariance = dgain = dbias = None
    if x is not None:
        dbias, dgain = _sums(c, x, c.matrix(dY), centre, rest)
        dgain = (dgain * inverse).astype(c.dtype)
        dvariance = _times(dgain, gain) * (-0.5 * inverse * inverse)
    elif any((*needs[1:2], *needs[4:])):
        rows = c.matrix(dY)
        dbias = c.folded(sum(c.total(rows[part]) for part in c.parts))
    if dbias is not None:
        dbias = dbias.astype(c.dtype)
        dmean = -scale * dbias
    return dx, dmean, dvariance, dgain, dbias


normalization.batch_norm.override("numpy", _batch_norm, _batch_norm_backward)
normalization.batch_norm_inference.override("numpy", _inference, _inference_backward)


# -- over the positions and the channels of a group, for each example by itself


class _Groups:
    """The shape (examples, positions, channels) with k positions side by side, in parts of whole examples."""

    def __init__(self, x: Any, groups: int) -> None:
        self.n, self.dtype, self.groups = x.shape[-1], x.dtype, groups
        examples, positions = x.shape[0], math.prod(x.shape[1:-1])
        self.k = _beside(positions, self.n)
        self.shape = examples, positions // self.k, self.k * self.n
        self.count = positions * self.n // groups
        self.parts = _parts(examples, x.nbytes // examples)
        self.one = ones(x.dtype.char, self.shape[1])

    def blocks(self, x: Any) -> Any:
        return np.ascontiguousarray(x).reshape(self.shape)

    def scratch(self) -> Any:
        return np.empty((self.parts[0].stop, *self.shape[1:]), self.dtype)

    def spread(self, v: Any) -> Any:
        """Numbers of each example's channels, at every position."""
        v = v.astype(self.dtype, copy=False)
        return (v if self.k == 1 else np.concatenate([v] * self.k, axis=1))[:, None, :]

    def totals(self, x: Any) -> Any:
        """Sums over the positions, in float64, of shape (examples, channels)."""
        return np.matmul(self.one, x).reshape(-1, self.k, self.n).sum(axis=1, dtype="d")

    def means(self, totals: Any) -> Any:
        """Means over a group, of shape (examples, channels)."""
        of_groups = totals.reshape(-1, self.groups, self.n // self.groups).sum(axis=2) / self.count
        return np.repeat(of_groups, self.n // self.groups, axis=1)

    def mean(self, x: Any) -> Any:
        return self.means(self.totals(x))


def _group_norm(
    xp: Any, needs: Any, x: Any, gain: Any = None, bias: Any = None, /, *, groups: int, eps: float = 1e-5
) -> Any:
    if not _suitable(x, 2, eps, gain, bias) or type(groups) is not int or groups < 1 or x.shape[-1] % groups:
        return NotImplemented
    c = _Groups(x, groups)
    blocks, y, kept = c.blocks(x), np.empty(c.shape, x.dtype), []
    for part in c.parts:
        block, out = blocks[part], y[part]
        centre, rest, variance = _moments(block, c.mean, c.spread, out)
        inverse = 1 / np.sqrt(variance + eps)
        scale = _times(inverse, gain)
        shift = -rest * scale
        if centre is not None:
            block = _subtract(block, c.spread(centre), out)
        _multiply(block, c.spread(scale), out)
        _add(out, c.spread(shift if bias is None else shift + bias), out)
        kept.append((centre, rest, inverse))
    return y.reshape(x.shape), (c, blocks, x.shape, kept, gain)


def _group_norm_backward(xp: Any, needs: Any, dY: Any, residuals: Any, *, groups: int, eps: float = 1e-5) -> Any:
    c, blocks, shape, kept, gain = residuals
    dY, dx, scratch = c.blocks(dY), np.empty(c.shape, c.dtype), c.scratch()
    dgain, dbias = np.zeros(c.n), np.zeros(c.n)
    for part, (centre, rest, inverse) in zip(c.parts, kept, strict=True):
        x, g, out = blocks[part], dY[part], dx[part]
        term = scratch[: len(x)]
        if centre is not None:
            x = _subtract(x, c.spread(centre), term)
        plain = c.totals(g)
        weighted = (c.totals(_multiply(x, g, out)) - rest * plain) * inverse
        dbias += plain.sum(axis=0)
        dgain += weighted.sum(axis=0)
        if needs[0]:
            slope = -inverse * inverse * c.means(_times(weighted, gain))
            shift = -inverse * c.means(_times(plain, gain)) - rest * slope
            _multiply(g, c.spread(_times(inverse, gain)), out)
            _multiply(x, c.spread(slope), term)
            _add(term, c.spread(shift), term)
            _add(out, term, out)
    return dx.reshape(shape), dgain.astype(c.dtype), dbias.astype(c.dtype)


normalization.group_norm.override("numpy", _group_norm, _group_norm_backward)


# -- over the features of each example


def _rows(x: Any) -> Any:
    return np.ascontiguousarray(x).reshape(-1, x.shape[-1])


def _normalize(needs: Any, x: Any, gain: Any, bias: Any, eps: float, centred: bool) -> Any:
    rows, dtype = _rows(x), x.dtype
    count, n = rows.shape
    one = ones(dtype.char, n)
    y = np.empty_like(rows)
    normal = np.empty_like(rows) if any(needs[:2]) and (gain is not None or bias is not None) else y
    inverse = np.empty((count, 1), dtype)

    def mean(x: Any) -> Any:
        return x.dot(one).astype("d")[:, None] / n

    for part in _parts(count, n * x.itemsize):
        given, out = rows[part], normal[part]
        if centred:
            centre, rest, variance = _moments(given, mean, lambda v: v, out)
            scale = 1 / np.sqrt(variance + eps)
            if centre is not None:
                given = _subtract(given, centre, out)
            _multiply(given, scale.astype(dtype), out)
            _add(out, (-rest * scale).astype(dtype), out)
        else:
            scale = 1 / np.sqrt(mean(_multiply(given, given, out)) + eps)
            _multiply(given, scale.astype(dtype), out)
        inverse[part] = scale
        if gain is not None:
            out = _multiply(out, gain, y[part])
        if bias is not None:
            _add(out, bias, y[part])
    return y.reshape(x.shape), (normal, inverse, gain)


def _cotangents(needs: Any, dY: Any, residuals: Any, centred: bool) -> Any:
    normal, inverse, gain = residuals
    shape, dY, dtype = dY.shape, _rows(dY), normal.dtype
    count, n = normal.shape
    weights = (ones(dtype.char, n) if gain is None else gain) / dtype.type(-n)
    dx, dgain, dbias = np.empty_like(normal), np.zeros(n), np.zeros(n)
    for part in _parts(count, n * normal.itemsize):
        g, standard, out = dY[part], normal[part], dx[part]
        one = ones(dtype.char, len(g))
        term = g * standard
        dgain += one.dot(term)
        dbias += one.dot(g)
        if needs[0]:
            _multiply(standard, term.dot(weights)[:, None], term)
            if centred:
                _add(term, g.dot(weights)[:, None], term)
            _add(g if gain is None else _multiply(g, gain, out), term, out)
            _multiply(out, inverse[part], out)
    return dx.reshape(shape), dgain.astype(dtype), dbias.astype(dtype)


def _layer_norm(xp: Any, needs: Any, x: Any, gain: Any = None, bias: Any = None, /, *, eps: float = 1e-5) -> Any:
    return _normalize(needs, x, gain, bias, eps, True) if _suitable(x, 1, eps, gain, bias) else NotImplemented


def _layer_norm_backward(xp: Any, needs: Any, dY: Any, residuals: Any, *, eps: float = 1e-5) -> Any:
    return _cotangents(needs, dY, residuals, True)


def _rms_norm(xp: Any, needs: Any, x: Any, gain: Any = None, /, *, eps: float = 1e-5) -> Any:
    return _normalize(needs, x, gain, None, eps, False) if _suitable(x, 1, eps, gain) else NotImplemented


def _rms_norm_backward(xp: Any, needs: Any, dY: Any, residuals: Any, *, eps: float = 1e-5) -> Any:
    return _cotangents(needs, dY, residuals, False)


normalization.layer_norm.override("numpy", _layer_norm, _layer_norm_backward)
normalization.rms_norm.override("numpy", _rms_norm, _rms_norm_backward)
