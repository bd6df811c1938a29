"""Pooling over the spatial axes of arrays (batch, *spatial, channels), of any number of them."""

# ruff: noqa: D103  (a fused function has the docstring of its reference)

from __future__ import annotations

import math
from typing import Any

from ..boundary import add_in, is_inexact, put, zeros
from ..fused import fused
from ..namespace import array_namespace
from ..rules.statistical import cut
from .checks import check_real
from .window import Windows, each_axis, frozen, pad, windows_of

# -- maximum


def _max_pool(x: Any, /, *, window: Any, stride: Any = None, padding: Any = "valid") -> Any:
    """Maximum over each window. The gradient goes to the first of equal elements, in row-major order of the window.

    Parameters
    ----------
    x
        Real array of shape (batch, *spatial, channels).
    window
        Size of the windows: a number, or one for each spatial axis.
    stride
        Steps between windows: a number, or one for each spatial axis; None for the window's size.
    padding
        How far windows reach beyond the input, less than their size: as in `convolution`. What is outside has no
        value, so that it is never the maximum.

    Returns
    -------
    array
        Of shape (batch, *out, channels), where out = ⌊(padded - window) / stride⌋ + 1. Not-a-number is the maximum
        of a window that holds one.

    Raises
    ------
    TypeError
        If the array is not real floating.
    ValueError
        If no window fits, or an option is none of these.

    Notes
    -----
    Goodfellow, Bengio, Courville, "Deep Learning", 2016, section 9.3.
    """
    w = windows_for("max_pool", x, window, stride, padding)
    xp = array_namespace(x)
    for k, (n, (before, after)) in enumerate(zip(w.size, w.padding, strict=True)):
        if before or after:  # repeating the edge changes no maximum, nor which element is the first of equal ones
            at = xp.arange(-before, n + after, device=x.device)
            at = xp.where(at < 0, 0, xp.where(at < n, at, n - 1))
            x = xp.take(x, at, axis=k + 1)
    taps = xp.stack([x[key] for _, key in w.places()])
    first = xp.argmax(taps, axis=0, keepdims=True)
    return xp.squeeze(xp.take_along_axis(taps, first, axis=0), axis=0)


@fused(_max_pool)
def max_pool(xp: Any, needs: Any, x: Any, /, *, window: Any, stride: Any = None, padding: Any = "valid") -> Any:
    w = windows_for("max_pool", x, window, stride, padding)
    if any(map(any, w.padding)):
        lowest = xp.full((x.shape[0], *w.padded, x.shape[-1]), -math.inf, dtype=x.dtype, device=x.device)
        x = put(xp, lowest, w.interior, x)
    winner: Any = first_inside(xp, x, w)
    y: Any = None
    for k, (_, key) in enumerate(w.places()):
        t = x[key]
        if y is None:
            y = t
        else:
            better = (t > y) | ((t != t) & (y == y))
            y, winner = xp.where(better, t, y), xp.where(better, k, winner)
    return y, (winner, w)


@max_pool.backward
def max_pool_backward(xp: Any, needs: Any, dY: Any, residuals: Any, **_: Any) -> Any:
    winner, w = residuals
    dX = zeros(xp, dY, (dY.shape[0], *w.padded, dY.shape[-1]))
    for k, (_, key) in enumerate(w.places()):
        dX = add_in(xp, dX, key, xp.where(winner == k, dY, 0))
    return (dX[w.interior],)


def first_inside(xp: Any, x: Any, w: Windows) -> Any:
    """The number, in row-major order, of each window's first element that is not padding."""
    dtype = xp.uint8 if w.taps <= 256 else xp.int32
    if not any(before for before, _ in w.padding):
        return xp.zeros((1,) * x.ndim, dtype=dtype, device=x.device)
    first: Any = 0
    for k, (n, s, (before, _)) in enumerate(zip(w.out, w.stride, w.padding, strict=True)):
        outside = _along(xp, before - s * xp.arange(n, dtype=xp.int32, device=x.device), k + 1, x.ndim)
        first = first + xp.where(outside > 0, outside, 0) * math.prod(w.window[k + 1 :])
    return xp.astype(first, dtype)


# -- mean


def _avg_pool(
    x: Any, /, *, window: Any, stride: Any = None, padding: Any = "valid", count_include_pad: bool = True
) -> Any:
    """Mean over each window.

    Parameters
    ----------
    x
        Array of shape (batch, *spatial, channels).
    window
        Size of the windows: a number, or one for each spatial axis.
    stride
        Steps between windows: a number, or one for each spatial axis; None for the window's size.
    padding
        How far windows reach beyond the input, less than their size: as in `convolution`.
    count_include_pad
        Whether the zeros outside count, so that every sum is divided by the window's size, as PyTorch does unless
        told otherwise; or only the elements inside, as TensorFlow does.

    Returns
    -------
    array
        Of shape (batch, *out, channels), where out = ⌊(padded - window) / stride⌋ + 1.

    Raises
    ------
    TypeError
        If the array is not floating.
    ValueError
        If no window fits, or an option is none of these.
    """
    w = windows_for("avg_pool", x, window, stride, padding)
    xp = array_namespace(x)
    padded = pad(xp, x, w)
    return sum(padded[key] for _, key in w.places()) * one_over_count(xp, x, w, count_include_pad)


@fused(_avg_pool)
def avg_pool(
    xp: Any,
    needs: Any,
    x: Any,
    /,
    *,
    window: Any,
    stride: Any = None,
    padding: Any = "valid",
    count_include_pad: bool = True,
) -> Any:
    w = windows_for("avg_pool", x, window, stride, padding)
    scale = one_over_count(xp, x, w, count_include_pad)
    padded = pad(xp, x, w)
    return sum(padded[key] for _, key in w.places()) * scale, (scale, w)


@avg_pool.backward
def avg_pool_backward(xp: Any, needs: Any, dY: Any, residuals: Any, **_: Any) -> Any:
    scale, w = residuals
    dX = zeros(xp, dY, (dY.shape[0], *w.padded, dY.shape[-1]))
    share = dY * scale
    for _, key in w.places():
        dX = add_in(xp, dX, key, share)
    return (dX[w.interior],)


def one_over_count(xp: Any, x: Any, w: Windows, count_include_pad: bool) -> Any:
    """One over the number of elements of each window: a number, or an array that broadcasts with the output."""
    if count_include_pad or not any(map(any, w.padding)):
        return 1 / w.taps
    count: Any = 1
    for k, (n, size, s, window, (before, _)) in enumerate(
        zip(w.out, w.size, w.stride, w.window, w.padding, strict=True)
    ):
        start = s * xp.arange(n, dtype=xp.int32, device=x.device) - before
        inside = xp.clip(start + window, max=size) - xp.clip(start, min=0)
        count = count * _along(xp, inside, k + 1, x.ndim)
    return 1 / xp.astype(count, x.dtype)


def _along(xp: Any, values: Any, axis: int, ndim: int) -> Any:
    """`values` along an axis of an array with `ndim` axes, the others being 1 long."""
    return xp.reshape(values, tuple(-1 if k == axis else 1 for k in range(ndim)))


def _global_avg_pool(x: Any, /) -> Any:
    """Mean over all spatial axes.

    Parameters
    ----------
    x
        Array of shape (batch, *spatial, channels).

    Returns
    -------
    array
        Of shape (batch, channels).

    Raises
    ------
    TypeError
        If the array is not floating.
    ValueError
        If there is no spatial axis, or nothing to take the mean of.

    Notes
    -----
    Lin, Chen, Yan, "Network in network", 2014, section 3.2.
    """
    _check("global_avg_pool", x)
    return array_namespace(x).mean(x, axis=tuple(range(1, x.ndim - 1)))


@fused(_global_avg_pool)
def global_avg_pool(xp: Any, needs: Any, x: Any, /) -> Any:
    return _global_avg_pool(x), tuple(x.shape)


@global_avg_pool.backward
def global_avg_pool_backward(xp: Any, needs: Any, dY: Any, shape: Any) -> Any:
    share = dY * (1 / math.prod(shape[1:-1]))
    return (xp.broadcast_to(xp.reshape(share, (shape[0], *(1 for _ in shape[1:-1]), shape[-1])), shape),)


def _adaptive_avg_pool(x: Any, /, *, size: Any) -> Any:
    """Mean over windows that are as equal as can be, so many that the output has a given size.

    Parameters
    ----------
    x
        Array of shape (batch, *spatial, channels).
    size
        Spatial size of the output: a number, or one for each spatial axis. Along an axis of n elements, element i of
        the output is the mean of those from ⌊i n / size⌋ to below ⌈(i + 1) n / size⌉.

    Returns
    -------
    array
        Of shape (batch, *size, channels).

    Raises
    ------
    TypeError
        If the array is not floating.
    ValueError
        If there is no spatial axis, nothing to take the mean of, or `size` is no size.

    Notes
    -----
    He, Zhang, Ren, Sun, "Spatial pyramid pooling in deep convolutional networks", 2014, section 2.2.
    """
    size = adaptive_size(x, size)
    xp = array_namespace(x)
    for axis, n in enumerate(size, 1):
        means = [xp.mean(cut(x, axis, start, stop), axis=axis) for start, stop in _bins(x.shape[axis], n)]
        x = xp.stack(means, axis=axis)
    return x


@fused(_adaptive_avg_pool)
def adaptive_avg_pool(xp: Any, needs: Any, x: Any, /, *, size: Any) -> Any:
    return _adaptive_avg_pool(x, size=size), tuple(x.shape)


@adaptive_avg_pool.backward
def adaptive_avg_pool_backward(xp: Any, needs: Any, dY: Any, shape: Any, *, size: Any) -> Any:
    for axis in reversed(range(1, len(shape) - 1)):
        n, out = shape[axis], dY.shape[axis]
        dX = zeros(xp, dY, (*dY.shape[:axis], n, *dY.shape[axis + 1 :]))
        for i, (start, stop) in enumerate(_bins(n, out)):
            key = (slice(None),) * axis + (slice(start, stop), ...)
            dX = add_in(xp, dX, key, cut(dY, axis, i, i + 1) * (1 / (stop - start)))
        dY = dX
    return (dY,)


def _bins(n: int, out: int) -> list[tuple[int, int]]:
    return [(i * n // out, -(-(i + 1) * n // out)) for i in range(out)]


# -- checks


def windows_for(name: str, x: Any, window: Any, stride: Any, padding: Any) -> Windows:
    """Work out where the windows of a pooling lie."""
    _check(name, x)
    if name == "max_pool":
        check_real(name, x)
    w = windows_of(name, x.shape[1:-1], window, window if stride is None else stride, padding)
    if any(p >= k for pair, k in zip(w.padding, w.window, strict=True) for p in pair):
        raise ValueError(f"{name} expects padding less than the window {w.window}, got {padding!r}")
    return w


def adaptive_size(x: Any, size: Any) -> tuple[int, ...]:
    """Read the spatial size of the output."""
    _check("adaptive_avg_pool", x)
    return each_axis("adaptive_avg_pool", "size", frozen(size), x.ndim - 2)


def _check(name: str, x: Any) -> None:
    if x.ndim < 3 or 0 in x.shape[1:-1]:
        raise ValueError(
            f"{name} expects x of shape (batch, *spatial, channels) with at least one spatial axis and no empty one, "
            f"got {tuple(x.shape)}"
        )
    if not is_inexact(x.dtype):
        raise TypeError(f"{name} expects an array of a floating-point dtype, got {x.dtype}")
