"""Discrete Fourier transforms.

The adjoint of a transform is the inverse transform without its normalisation, so the rules swap the norms
"backward" and "forward". A transform first trims or pads its argument with zeros to the length asked for; the
adjoint pads or trims back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..boundary import conj
from .registry import VJP, composite, creation, primitive

_ADJOINT_NORM = {"backward": "forward", "ortho": "ortho", "forward": "backward"}


def _adjoint_norm(norm: str | None) -> str:
    return _ADJOINT_NORM[norm or "backward"]


def _all_axes(ndim: int, s: Sequence[int] | None, axes: Sequence[int] | None) -> tuple[int, ...]:
    if axes is not None:
        return tuple(axes)
    return tuple(range(ndim) if s is None else range(-len(s), 0))


def _resize(xp: Any, x: Any, shape: Sequence[int], axes: Sequence[int]) -> Any:
    """Trim or pad with zeros, at the end of each axis, to the lengths in `shape`."""
    for axis in axes:
        length, wanted = x.shape[axis], shape[axis]
        if length > wanted:
            x = x[(*(slice(None),) * (axis % x.ndim), slice(0, wanted), ...)]
        elif length < wanted:
            missing = list(x.shape)
            missing[axis] = wanted - length
            x = xp.concat([x, xp.zeros(tuple(missing), dtype=x.dtype, device=x.device)], axis=axis)
    return x


# Complex to complex


def _transform(inverse: str) -> VJP:
    def vjp(xp: Any, g: Any, _: Any, _x: Any, /, *, n: Any = None, axis: int = -1, norm: Any = "backward") -> Any:
        return _resize(xp, getattr(xp.fft, inverse)(g, axis=axis, norm=_adjoint_norm(norm)), _x.shape, (axis,))

    return vjp


def _transform_n(inverse: str) -> VJP:
    def vjp(xp: Any, g: Any, _: Any, _x: Any, /, *, s: Any = None, axes: Any = None, norm: Any = "backward") -> Any:
        axes = _all_axes(_x.ndim, s, axes)
        return _resize(xp, getattr(xp.fft, inverse)(g, axes=axes, norm=_adjoint_norm(norm)), _x.shape, axes)

    return vjp


primitive("fft.fft", _transform("ifft"))
primitive("fft.ifft", _transform("fft"))
primitive("fft.fftn", _transform_n("ifftn"))
primitive("fft.ifftn", _transform_n("fftn"))


# Real to complex: the first half of the spectrum, so the cotangent's other half is zero.


def _lengths(_x: Any, s: Any, axes: Sequence[int]) -> tuple[int, ...]:
    return tuple(
        _x.shape[a] if k is None or k == -1 else k for a, k in zip(axes, s or (None,) * len(axes), strict=True)
    )


def _rfftn(xp: Any, g: Any, _: Any, _x: Any, /, *, s: Any = None, axes: Any = None, norm: Any = "backward") -> Any:
    axes = _all_axes(_x.ndim, s, axes)
    full = xp.fft.ifftn(g, s=_lengths(_x, s, axes), axes=axes, norm=_adjoint_norm(norm))
    return _resize(xp, xp.real(full), _x.shape, axes)


def _rfft(xp: Any, g: Any, _: Any, _x: Any, /, *, n: int | None = None, axis: int = -1, norm: Any = "backward") -> Any:
    full = xp.fft.ifft(g, n=_x.shape[axis] if n is None else n, axis=axis, norm=_adjoint_norm(norm))
    return _resize(xp, xp.real(full), _x.shape, (axis,))


primitive("fft.rfft", _rfft)
primitive("fft.rfftn", _rfftn)


# Complex to real: each coefficient stands for itself and its mirror image, except the first and, of an even
# length, the middle one.


def _twice_mirrored(xp: Any, x: Any, length: int, axis: int) -> Any:
    count = length // 2 + 1
    k = xp.arange(count, device=x.device)
    single = xp.logical_or(k == 0, 2 * k == length)
    shape = [1] * x.ndim
    shape[axis] = count
    return xp.where(xp.reshape(single, tuple(shape)), x, 2 * x)


def _irfft(xp: Any, g: Any, _: Any, _x: Any, /, *, n: int | None = None, axis: int = -1, norm: Any = "backward") -> Any:
    half = xp.fft.rfft(g, axis=axis, norm=_adjoint_norm(norm))
    return _resize(xp, _twice_mirrored(xp, half, g.shape[axis], axis), _x.shape, (axis,))


def _irfftn(xp: Any, g: Any, _: Any, _x: Any, /, *, s: Any = None, axes: Any = None, norm: Any = "backward") -> Any:
    axes = _all_axes(_x.ndim, s, axes)
    half = xp.fft.rfftn(g, axes=axes, norm=_adjoint_norm(norm))
    return _resize(xp, _twice_mirrored(xp, half, g.shape[axes[-1]], axes[-1]), _x.shape, axes)


primitive("fft.irfft", _irfft)
primitive("fft.irfftn", _irfftn)


@composite("fft.hfft")
def _hfft(xp: Any, x: Any, /, *, n: int | None = None, axis: int = -1, norm: Any = "backward") -> Any:
    return xp.fft.irfft(conj(xp, x), n=n, axis=axis, norm=_adjoint_norm(norm))


@composite("fft.ihfft")
def _ihfft(xp: Any, x: Any, /, *, n: int | None = None, axis: int = -1, norm: Any = "backward") -> Any:
    return xp.conj(xp.fft.rfft(x, n=n, axis=axis, norm=_adjoint_norm(norm)))


# Frequencies

primitive("fft.fftshift", lambda xp, g, *_, axes=None: xp.fft.ifftshift(g, axes=axes))
primitive("fft.ifftshift", lambda xp, g, *_, axes=None: xp.fft.fftshift(g, axes=axes))
creation("fft.fftfreq", "fft.rfftfreq")
