"""Normalization: arrays brought to mean 0 and variance 1 over some of their axes, then scaled and shifted.

Channels come last. Gains and biases have one number a channel; either may be None. The variance is that of the
deviations from the mean (two passes), never E[x²] - E[x]², which float32 cannot tell from 0 where the mean is large.
"""

# ruff: noqa: D103  (a fused function has the docstring of its reference)

from __future__ import annotations

import math
from typing import Any

from ..dtypes import is_half, name_of
from ..fused import fused
from ..namespace import array_namespace
from .checks import check_alike, check_one_library, check_real

# -- over the features of each example


def _layer_norm(x: Any, gain: Any = None, bias: Any = None, /, *, eps: float = 1e-5) -> Any:
    """Mean 0 and variance 1 over the last axis, for each example by itself, then ``gain`` and ``bias``.

    Parameters
    ----------
    x
        Real array of shape (..., n).
    gain, bias
        Arrays of shape (n,), or None for 1 and 0.
    eps
        Added to the variance.

    Returns
    -------
    array
        Of the shape of `x`.

    Raises
    ------
    TypeError
        If the arrays are of several libraries or dtypes, or complex.
    ValueError
        If the shapes do not fit, there are no features, or `eps` is negative.

    Notes
    -----
    Ba, Kiros, Hinton, "Layer normalization", 2016.
    """
    return _layer_normalize(x, gain, bias, eps)[0]


@fused(_layer_norm)
def layer_norm(xp: Any, needs: Any, x: Any, gain: Any = None, bias: Any = None, /, *, eps: float = 1e-5) -> Any:
    y, normal, inverse = _layer_normalize(x, gain, bias, eps)
    return y, _kept(needs, normal, inverse, gain)


@layer_norm.backward
def layer_norm_backward(xp: Any, needs: Any, dY: Any, residuals: Any, *, eps: float = 1e-5) -> Any:
    normal, inverse, gain = residuals
    dx = _cotangent(xp, _times(dY, gain), normal, inverse, (-1,)) if needs[0] else None
    return dx, *_affine_cotangents(xp, needs, dY, normal)


def _layer_normalize(x: Any, gain: Any, bias: Any, eps: float) -> Any:
    check_layer("layer_norm", x, eps, gain=gain, bias=bias)
    normal, inverse, _, _ = _standardize(x, (-1,), eps)
    return _affine(normal, gain, bias), normal, inverse


def _rms_norm(x: Any, gain: Any = None, /, *, eps: float = 1e-5) -> Any:
    """Mean square 1 over the last axis, for each example by itself, then ``gain``; the mean stays what it is.

    Parameters
    ----------
    x
        Real array of shape (..., n).
    gain
        Array of shape (n,), or None for 1.
    eps
        Added to the mean square.

    Returns
    -------
    array
        Of the shape of `x`.

    Raises
    ------
    TypeError
        If the arrays are of several libraries or dtypes, or complex.
    ValueError
        If the shapes do not fit, there are no features, or `eps` is negative.

    Notes
    -----
    Zhang, Sennrich, "Root mean square layer normalization", 2019.
    """
    return _rms_normalize(x, gain, eps)[0]


@fused(_rms_norm)
def rms_norm(xp: Any, needs: Any, x: Any, gain: Any = None, /, *, eps: float = 1e-5) -> Any:
    y, normal, inverse = _rms_normalize(x, gain, eps)
    return y, _kept(needs, normal, inverse, gain)


@rms_norm.backward
def rms_norm_backward(xp: Any, needs: Any, dY: Any, residuals: Any, *, eps: float = 1e-5) -> Any:
    normal, inverse, gain = residuals
    dx = None
    if needs[0]:
        dN = _times(dY, gain)
        dx = inverse * (dN - normal * xp.mean(dN * normal, axis=-1, keepdims=True))
    return dx, _affine_cotangents(xp, needs, dY, normal)[0]


def _rms_normalize(x: Any, gain: Any, eps: float) -> Any:
    check_layer("rms_norm", x, eps, gain=gain)
    xp = array_namespace(x)
    inverse = 1 / xp.sqrt(xp.mean(x * x, axis=-1, keepdims=True) + eps)
    normal = x * inverse
    return _affine(normal, gain, None), normal, inverse


def _group_norm(x: Any, gain: Any = None, bias: Any = None, /, *, groups: int, eps: float = 1e-5) -> Any:
    """Mean 0 and variance 1 over all positions and the channels of a group, for each example by itself.

    One group is layer normalization over all of an example, as many groups as channels instance normalization.

    Parameters
    ----------
    x
        Real array of shape (batch, ..., n), such as (batch, height, width, channels).
    gain, bias
        Arrays of shape (n,), or None for 1 and 0.
    groups
        How many groups of neighbouring channels there are; it divides n.
    eps
        Added to the variance.

    Returns
    -------
    array
        Of the shape of `x`.

    Raises
    ------
    TypeError
        If the arrays are of several libraries or dtypes, or complex.
    ValueError
        If the shapes do not fit, the groups do not divide the channels, an example is empty, or `eps` is negative.

    Notes
    -----
    Wu, He, "Group normalization", 2018.
    """
    return _group_normalize(x, gain, bias, groups, eps)[0]


@fused(_group_norm)
def group_norm(
    xp: Any, needs: Any, x: Any, gain: Any = None, bias: Any = None, /, *, groups: int, eps: float = 1e-5
) -> Any:
    y, normal, inverse = _group_normalize(x, gain, bias, groups, eps)
    return y, _kept(needs, normal, inverse, gain)


@group_norm.backward
def group_norm_backward(xp: Any, needs: Any, dY: Any, residuals: Any, *, groups: int, eps: float = 1e-5) -> Any:
    normal, inverse, gain = residuals
    dx = None
    if needs[0]:
        dN, grouped = (_grouped(xp, a, groups) for a in (_times(dY, gain), normal))
        dx = xp.reshape(_cotangent(xp, dN, grouped, inverse, (1, 3)), normal.shape)
    return dx, *_affine_cotangents(xp, needs, dY, normal)


def _group_normalize(x: Any, gain: Any, bias: Any, groups: int, eps: float) -> Any:
    check_group(x, gain, bias, groups, eps)
    xp = array_namespace(x)
    normal, inverse, _, _ = _standardize(_grouped(xp, x, groups), (1, 3), eps)
    normal = xp.reshape(normal, x.shape)
    return _affine(normal, gain, bias), normal, inverse


def _grouped(xp: Any, x: Any, groups: int) -> Any:
    """`x` as (batch, positions, groups, channels of a group)."""
    return xp.reshape(x, (x.shape[0], math.prod(x.shape[1:-1]), groups, x.shape[-1] // groups))


def check_layer(name: str, x: Any, eps: float, **vectors: Any) -> None:
    """Refuse what has no features to normalize over, and vectors that do not fit them."""
    _check(name, x, eps, **vectors)
    _check_count(name, x, x.shape[-1])


def check_group(x: Any, gain: Any, bias: Any, groups: int, eps: float) -> None:
    """Refuse what `group_norm` cannot normalize."""
    _check("group_norm", x, eps, 2, gain=gain, bias=bias)
    check_groups("group_norm", groups, x.shape[-1])
    _check_count("group_norm", x, math.prod(x.shape[1:]))


def check_batch(x: Any, gain: Any, bias: Any, eps: float) -> None:
    """Refuse what `batch_norm` cannot normalize."""
    _check("batch_norm", x, eps, 2, gain=gain, bias=bias)
    _check_count("batch_norm", x, math.prod(x.shape[:-1]))


def check_inference(x: Any, mean: Any, variance: Any, gain: Any, bias: Any, eps: float) -> None:
    """Refuse what `batch_norm_inference` cannot normalize; of 16 bits it may be by statistics in float32."""
    dtypes = [getattr(v, "dtype", None) for v in (x, mean, variance)]
    apart = ("mean", "variance") if list(map(name_of, dtypes))[1:] == ["float32"] * 2 and is_half(dtypes[0]) else ()
    _check("batch_norm_inference", x, eps, apart=apart, mean=mean, variance=variance, gain=gain, bias=bias)


def check_groups(name: str, groups: int, n: int) -> None:
    """Refuse a number of groups that does not divide the number of channels."""
    if type(groups) is not int or groups < 1 or n % groups:
        raise ValueError(f"{name} expects a number of groups that divides the {n} channels, got {groups!r}")


# -- over the examples of a batch


def _batch_norm(x: Any, gain: Any = None, bias: Any = None, /, *, eps: float = 1e-5) -> Any:
    """Mean 0 and variance 1 of each channel over the batch and all positions, then ``gain`` and ``bias``.

    Parameters
    ----------
    x
        Real array of shape (batch, ..., n), such as (batch, height, width, channels).
    gain, bias
        Arrays of shape (n,), or None for 1 and 0.
    eps
        Added to the variance.

    Returns
    -------
    y, mean, variance : array
        The result, of the shape of `x`, and what it was normalized with, of shape (n,): the mean and the variance
        of the batch (the biased one, a mean of squares), in float32 if `x` is of 16 bits. They are functions of `x`
        like any other and cost the backward pass nothing where they are not used.

    Raises
    ------
    TypeError
        If the arrays are of several libraries or dtypes, or complex.
    ValueError
        If the shapes do not fit, the batch is empty, or `eps` is negative.

    Notes
    -----
    Ioffe, Szegedy, "Batch normalization: accelerating deep network training by reducing internal covariate shift",
    2015.
    """
    return _batch_normalize(x, gain, bias, eps)[0]


@fused(_batch_norm, float32_outs=(1, 2))
def batch_norm(xp: Any, needs: Any, x: Any, gain: Any = None, bias: Any = None, /, *, eps: float = 1e-5) -> Any:
    out, normal, inverse = _batch_normalize(x, gain, bias, eps)
    return out, (normal, inverse, gain)


@batch_norm.backward
def batch_norm_backward(xp: Any, needs: Any, cotangents: Any, residuals: Any, *, eps: float = 1e-5) -> Any:
    dY, dmean, dvariance = cotangents
    normal, inverse, gain = residuals
    if dY is None:  # the statistics alone were used
        dY = xp.zeros_like(normal)
    if not needs[0]:
        return None, *_affine_cotangents(xp, needs, dY, normal)
    dgain, dbias = _affine_cotangents(xp, (True, True, True), dY, normal)
    count = math.prod(normal.shape[:-1])
    dx = _times(inverse, gain) * (dY - dbias / count - normal * (dgain / count))
    if dmean is not None:
        dx = dx + dmean / count
    if dvariance is not None:
        dx = dx + normal * (dvariance * (2 / count) / inverse)
    return dx, dgain, dbias


def _batch_normalize(x: Any, gain: Any, bias: Any, eps: float) -> Any:
    check_batch(x, gain, bias, eps)
    xp = array_namespace(x)
    normal, *statistics = _standardize(x, tuple(range(x.ndim - 1)), eps)
    inverse, mean, variance = (xp.reshape(a, (x.shape[-1],)) for a in statistics)
    return (_affine(normal, gain, bias), mean, variance), normal, inverse


def _batch_norm_inference(
    x: Any, mean: Any, variance: Any, gain: Any = None, bias: Any = None, /, *, eps: float = 1e-5
) -> Any:
    """Batch normalization by given statistics, ``(x - mean) / sqrt(variance + eps)``, then ``gain`` and ``bias``.

    Parameters
    ----------
    x
        Real array of shape (..., n).
    mean, variance
        Arrays of shape (n,): those of the population, as far as training has estimated them. They may be of float32
        where `x` is of 16 bits.
    gain, bias
        Arrays of shape (n,), or None for 1 and 0.
    eps
        Added to the variance.

    Returns
    -------
    array
        Of the shape of `x`.

    Raises
    ------
    TypeError
        If the arrays are of several libraries or dtypes, or complex.
    ValueError
        If the shapes do not fit, or `eps` is negative.
    """
    check_inference(x, mean, variance, gain, bias, eps)
    scale = _times(1 / array_namespace(variance).sqrt(variance + eps), gain)
    return _affine(x - mean, scale, bias)


@fused(_batch_norm_inference, float32_args=(1, 2))
def batch_norm_inference(
    xp: Any, needs: Any, x: Any, mean: Any, variance: Any, gain: Any = None, bias: Any = None, /, *, eps: float = 1e-5
) -> Any:
    y = _batch_norm_inference(x, mean, variance, gain, bias, eps=eps)
    return y, (x if any(needs[2:4]) else None, mean, variance, gain)


@batch_norm_inference.backward
def batch_norm_inference_backward(xp: Any, needs: Any, dY: Any, residuals: Any, *, eps: float = 1e-5) -> Any:
    x, mean, variance, gain = residuals
    inverse = 1 / xp.sqrt(variance + eps)
    scale = _times(inverse, gain)
    total = _over_rows(xp, dY) if any((*needs[1:2], *needs[4:])) else None
    dgain = _over_rows(xp, dY * (x - mean)) * inverse if x is not None else None
    return (
        dY * scale if needs[0] else None,
        -scale * total if needs[1] else None,
        _times(dgain, gain) * (-0.5 * inverse * inverse) if needs[2] else None,
        dgain,
        total,
    )


# -- what they share


def _standardize(x: Any, axes: tuple[int, ...], eps: float) -> tuple[Any, Any, Any, Any]:
    """The deviations from the mean over `axes` in units of √(variance + eps), 1 over that unit, mean and variance.

    The mean of many float32 numbers is itself rounded; that of the deviations corrects it.
    """
    xp = array_namespace(x)
    mean = xp.mean(x, axis=axes, keepdims=True)
    deviation = x - mean
    rest = xp.mean(deviation, axis=axes, keepdims=True)
    deviation = deviation - rest
    variance = xp.mean(deviation * deviation, axis=axes, keepdims=True)
    inverse = 1 / xp.sqrt(variance + eps)
    return deviation * inverse, inverse, mean + rest, variance


def _cotangent(xp: Any, dN: Any, normal: Any, inverse: Any, axes: tuple[int, ...]) -> Any:
    """The cotangent of x from that of its standardized values."""
    mean = xp.mean(dN, axis=axes, keepdims=True)
    return inverse * (dN - mean - normal * xp.mean(dN * normal, axis=axes, keepdims=True))


def _times(x: Any, gain: Any) -> Any:
    return x if gain is None else x * gain


def _affine(x: Any, gain: Any, bias: Any) -> Any:
    y = _times(x, gain)
    return y if bias is None else y + bias


def _affine_cotangents(xp: Any, needs: Any, dY: Any, normal: Any) -> tuple[Any, Any]:
    """The cotangents of gain and bias."""
    dgain = _over_rows(xp, dY * normal) if len(needs) > 1 and needs[1] else None
    dbias = _over_rows(xp, dY) if len(needs) > 2 and needs[2] else None
    return dgain, dbias


def _over_rows(xp: Any, x: Any) -> Any:
    """The sum over all axes but the last."""
    return xp.sum(x, axis=tuple(range(x.ndim - 1))) if x.ndim > 1 else x


def _kept(needs: Any, normal: Any, inverse: Any, gain: Any) -> tuple[Any, Any, Any]:
    """What the backward pass will read."""
    return normal if any(needs[:2]) else None, inverse, gain


def _check(name: str, x: Any, eps: float, least: int = 1, apart: tuple[str, ...] = (), **vectors: Any) -> None:
    given = {k: v for k, v in vectors.items() if v is not None}
    check_alike(name, x=x, **{k: v for k, v in given.items() if k not in apart})
    if apart:
        check_one_library(name, x=x, **{k: given[k] for k in apart})
    check_real(name, x)
    if x.ndim < least:
        wanted = "(..., n)" if least == 1 else "(batch, ..., n)"
        raise ValueError(f"{name} expects x of shape {wanted}, got {tuple(x.shape)}")
    for k, v in given.items():
        if v.shape != x.shape[-1:]:
            raise ValueError(
                f"{name} expects {k} of shape {tuple(x.shape[-1:])} with x of shape {tuple(x.shape)}, "
                f"got {tuple(v.shape)}"
            )
    check_eps(name, eps)


def check_eps(name: str, eps: float) -> None:
    """Refuse what cannot be added to a variance."""
    if not eps >= 0:
        raise ValueError(f"{name} expects eps of at least 0, got {eps!r}")


def _check_count(name: str, x: Any, count: int) -> None:
    if not count:
        raise ValueError(f"{name} takes the mean of no elements with x of shape {tuple(x.shape)}")
