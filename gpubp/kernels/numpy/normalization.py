"""Normalization on NumPy: in parts that stay in the cache while several passes go over them.

Sums are products with a vector of ones, which BLAS computes with several threads. Several positions are laid side by
side where there are few channels, so that NumPy's inner loops are long. In float32 the mean of large numbers is rounded
to `centre`; `rest`, in float64, is what it lacks: the mean of the deviations from it.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from ...functions import normalization
from .common import ndarray, ones

_add, _multiply, _subtract = np.add, np.multiply, np.subtract

#: Bytes of a part: three of them fit into a level-2 cache.
PART = 1 << 18

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

    def total(self, sums: list[Any]) -> Any:
        """The sum over all parts, in float64."""
        return np.asarray(sums, dtype="d").reshape(-1, self.n).sum(axis=0)


def _statistics(c: _Columns, x: Any) -> tuple[Any, Any]:
    """Mean and variance of the channels, in float64, from those of the parts.

    Chan, Golub, LeVeque, "Algorithms for computing the sample variance", 1983.
    """
    scratch = c.scratch()
    means, squares, counts = [], [], []
    for part in c.parts:
        rows = x[part]
        count = len(rows)
        one, deviation = ones(c.dtype.char, count), scratch[:count]
        centre = one.dot(rows) / c.dtype.type(count)
        _subtract(rows, centre, deviation)
        rest = one.dot(deviation).astype("d") / count
        _multiply(deviation, deviation, deviation)
        means.append(centre + rest)
        squares.append(one.dot(deviation) - count * rest * rest)
        counts.append(count)
    weights = np.repeat(np.asarray(counts, dtype="d"), c.k)
    each = np.asarray(means).reshape(-1, c.n)
    mean = weights.dot(each) / c.rows
    each -= mean
    return mean, (c.total(squares) + weights.dot(each * each)) / c.rows


def _affine(c: _Columns, x: Any, centre: Any, scale: Any, shift: Any) -> Any:
    """``(x - centre) * scale + shift``."""
    y = np.empty(c.shape, c.dtype)
    centre, scale, shift = map(c.vector, (centre, scale, shift))
    for part in c.parts:
        out = _subtract(x[part], centre, y[part])
        _multiply(out, scale, out)
        _add(out, shift, out)
    return y


def _sums(c: _Columns, x: Any, dY: Any, centre: Any) -> tuple[Any, Any]:
    """Σ dY and Σ dY (x - centre), in float64."""
    centre, scratch = c.vector(centre), c.scratch()
    plain, weighted = [], []
    for part in c.parts:
        g = dY[part]
        one = ones(c.dtype.char, len(g))
        product = _subtract(x[part], centre, scratch[: len(g)])
        _multiply(product, g, product)
        plain.append(one.dot(g))
        weighted.append(one.dot(product))
    return c.total(plain), c.total(weighted)


def _combined(c: _Columns, x: Any, dY: Any, centre: Any, scale: Any, slope: Any, shift: Any) -> Any:
    """``dY * scale + (x - centre) * slope + shift``."""
    dx, scratch = np.empty(c.shape, c.dtype), c.scratch()
    centre, scale, slope, shift = map(c.vector, (centre, scale, slope, shift))
    for part in c.parts:
        out = _multiply(dY[part], scale, dx[part])
        sloping = _subtract(x[part], centre, scratch[: len(out)])
        _multiply(sloping, slope, sloping)
        _add(out, sloping, out)
        _add(out, shift, out)
    return dx


def _batch_norm(xp: Any, needs: Any, x: Any, gain: Any = None, bias: Any = None, /, *, eps: float = 1e-5) -> Any:
    if not _suitable(x, 2, eps, gain, bias):
        return NotImplemented
    c = _Columns(x)
    rows = c.matrix(x)
    mean, variance = _statistics(c, rows)
    centre = mean.astype(x.dtype)
    rest = mean - centre
    inverse = 1 / np.sqrt(variance + eps)
    scale = _times(inverse, gain)
    shift = -rest * scale
    y = _affine(c, rows, centre, scale, shift if bias is None else shift + bias).reshape(x.shape)
    return (y, centre, variance.astype(x.dtype)), (c, rows, x.shape, centre, rest, inverse, gain)


def _batch_norm_backward(xp: Any, needs: Any, cotangents: Any, residuals: Any, *, eps: float = 1e-5) -> Any:
    dY, dmean, dvariance = cotangents
    c, x, shape, centre, rest, inverse, gain = residuals
    dY = np.zeros(c.shape, c.dtype) if dY is None else c.matrix(dY)
    dbias, dgain = _sums(c, x, dY, centre)
    dgain = (dgain - rest * dbias) * inverse
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
    inverse = 1 / np.sqrt(variance + x.dtype.type(eps))
    y = _affine(c, rows, mean, _times(inverse, gain), np.zeros_like(mean) if bias is None else bias)
    return y.reshape(x.shape), (c, rows if any(needs[2:4]) else None, mean, inverse, gain)


def _inference_backward(xp: Any, needs: Any, dY: Any, residuals: Any, *, eps: float = 1e-5) -> Any:
    c, x, mean, inverse, gain = residuals
    scale = _times(inverse, gain)
    dbias = dgain = dvariance = None
    if x is not None:
        dbias, dgain = _sums(c, x, c.matrix(dY), mean)
        dgain *= inverse
        dvariance = (_times(dgain, gain) * (-0.5 * inverse * inverse)).astype(c.dtype)
        dbias, dgain = dbias.astype(c.dtype), dgain.astype(c.dtype)
    elif any((*needs[1:2], *needs[4:])):
        rows = c.matrix(dY)
        dbias = ones(c.dtype.char, len(rows)).dot(rows).reshape(c.k, c.n).sum(axis=0)
    dx = dY * scale if needs[0] else None
    return dx, -scale * dbias if needs[1] else None, dvariance, dgain, dbias


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

    def vectors(self, v: Any) -> Any:
        """Numbers of each example's channels, for every position."""
        v = v.astype(self.dtype, copy=False)
        return (v if self.k == 1 else np.concatenate([v] * self.k, axis=1))[:, None, :]

    def totals(self, x: Any) -> Any:
        """Sums over the positions, in float64, of shape (examples, channels)."""
        return np.matmul(self.one, x).reshape(-1, self.k, self.n).sum(axis=1, dtype="d")

    def means(self, totals: Any) -> Any:
        """Means over a group, of shape (examples, channels)."""
        of_groups = totals.reshape(-1, self.groups, self.n // self.groups).sum(axis=2) / self.count
        return np.repeat(of_groups, self.n // self.groups, axis=1)


def _group_norm(
    xp: Any, needs: Any, x: Any, gain: Any = None, bias: Any = None, /, *, groups: int, eps: float = 1e-5
) -> Any:
    if not _suitable(x, 2, eps, gain, bias) or type(groups) is not int or groups < 1 or x.shape[-1] % groups:
        return NotImplemented
    c = _Groups(x, groups)
    blocks, y, kept = c.blocks(x), np.empty(c.shape, x.dtype), []
    for part in c.parts:
        block, out = blocks[part], y[part]
        centre = c.means(c.totals(block)).astype(x.dtype)
        _subtract(block, c.vectors(centre), out)
        rest = c.means(c.totals(out))
        inverse = 1 / np.sqrt(c.means(c.totals(out * out)) - rest * rest + eps)
        scale = _times(inverse, gain)
        _multiply(out, c.vectors(scale), out)
        _add(out, c.vectors(-rest * scale if bias is None else bias - rest * scale), out)
        kept.append((centre, rest, inverse))
    return y.reshape(x.shape), (c, blocks, x.shape, kept, gain)


def _group_norm_backward(xp: Any, needs: Any, dY: Any, residuals: Any, *, groups: int, eps: float = 1e-5) -> Any:
    c, blocks, shape, kept, gain = residuals
    dY, dx = c.blocks(dY), np.empty(c.shape, c.dtype)
    dgain, dbias = np.zeros(c.n), np.zeros(c.n)
    for part, (centre, rest, inverse) in zip(c.parts, kept, strict=True):
        g, out = dY[part], dx[part]
        deviation = blocks[part] - c.vectors(centre)
        plain = c.totals(g)
        weighted = (c.totals(_multiply(deviation, g, out)) - rest * plain) * inverse
        dbias += plain.sum(axis=0)
        dgain += weighted.sum(axis=0)
        if needs[0]:
            slope = -inverse * inverse * c.means(_times(weighted, gain))
            shift = -inverse * c.means(_times(plain, gain)) - rest * slope
            _multiply(g, c.vectors(_times(inverse, gain)), out)
            _add(out, _multiply(deviation, c.vectors(slope), deviation), out)
            _add(out, c.vectors(shift), out)
    return dx.reshape(shape), dgain.astype(c.dtype), dbias.astype(c.dtype)


normalization.group_norm.override("numpy", _group_norm, _group_norm_backward)


# -- over the features of each example


def _rows(x: Any) -> Any:
    return np.ascontiguousarray(x).reshape(-1, x.shape[-1])


def _normalize(x: Any, gain: Any, bias: Any, eps: float, centred: bool) -> Any:
    rows = _rows(x)
    count, n = rows.shape
    one, char = ones(x.dtype.char, n), x.dtype.type
    normal, inverse = np.empty_like(rows), np.empty((count, 1), x.dtype)
    y = normal if gain is None and bias is None else np.empty_like(rows)
    for part in _parts(count, n * x.itemsize):
        deviation = rows[part]
        out = normal[part]
        if centred:
            for _ in range(2):  # the second time for what rounding left of the mean
                deviation = _subtract(deviation, (deviation.dot(one) / char(n))[:, None], out)
        square = np.einsum("ij,ij->i", deviation, deviation)[:, None]
        inverse[part] = 1 / np.sqrt(square / char(n) + char(eps))
        _multiply(deviation, inverse[part], out)
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
        product = g * standard
        dgain += one.dot(product)
        dbias += one.dot(g)
        if needs[0]:
            _multiply(standard, product.dot(weights)[:, None], product)
            if gain is None:
                _add(g, product, out)
            else:
                _multiply(g, gain, out)
                _add(out, product, out)
            if centred:
                _add(out, g.dot(weights)[:, None], out)
            _multiply(out, inverse[part], out)
    return dx.reshape(shape), dgain.astype(dtype), dbias.astype(dtype)


def _layer_norm(xp: Any, needs: Any, x: Any, gain: Any = None, bias: Any = None, /, *, eps: float = 1e-5) -> Any:
    return _normalize(x, gain, bias, eps, True) if _suitable(x, 1, eps, gain, bias) else NotImplemented


def _layer_norm_backward(xp: Any, needs: Any, dY: Any, residuals: Any, *, eps: float = 1e-5) -> Any:
    return _cotangents(needs, dY, residuals, True)


def _rms_norm(xp: Any, needs: Any, x: Any, gain: Any = None, /, *, eps: float = 1e-5) -> Any:
    return _normalize(x, gain, None, eps, False) if _suitable(x, 1, eps, gain) else NotImplemented


def _rms_norm_backward(xp: Any, needs: Any, dY: Any, residuals: Any, *, eps: float = 1e-5) -> Any:
    return _cotangents(needs, dY, residuals, False)


normalization.layer_norm.override("numpy", _layer_norm, _layer_norm_backward)
normalization.rms_norm.override("numpy", _rms_norm, _rms_norm_backward)
