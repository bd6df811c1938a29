"""Records of the Fourier transforms: even and odd lengths, trimming and padding, every axis and norm."""

from __future__ import annotations

from typing import Any

import numpy as np

from .record import Sample, record

Rng = np.random.Generator


def _complex(rng: Rng, *shape: int) -> Any:
    return rng.normal(size=shape) + 1j * rng.normal(size=shape)


def _one_axis(x: Any) -> list[Sample]:
    return [
        Sample(x), Sample(x[0]), Sample(x, axis=0), Sample(x, axis=-2, norm="ortho"), Sample(x, norm="forward"),
        *(Sample(x, n=n) for n in (2, 3, 5, 6)),
        Sample(x, n=5, axis=0, norm="ortho"), Sample(x, n=3, norm="forward"),
    ]  # fmt: skip


def _many_axes(x: Any) -> list[Sample]:
    return [
        Sample(x), Sample(x[0]), Sample(x, axes=(0,)), Sample(x, axes=(2, 0)), Sample(x, axes=(-1, -2), norm="ortho"),
        Sample(x, s=(2, 5), axes=(1, 2)), Sample(x, s=(5, 3), axes=(0, -1), norm="forward"),
        Sample(x, s=(3, 2, 6), axes=(0, 1, 2)), Sample(x, s=(4,), axes=(1,), norm="ortho"),
    ]  # fmt: skip


for _name in ("fft", "ifft", "irfft", "hfft"):
    record(f"fft.{_name}")(lambda rng: _one_axis(_complex(rng, 3, 4)))
for _name in ("rfft", "ihfft"):
    record(f"fft.{_name}")(lambda rng: _one_axis(rng.normal(size=(3, 4))))
for _name in ("fftn", "ifftn", "irfftn"):
    record(f"fft.{_name}")(lambda rng: _many_axes(_complex(rng, 2, 3, 4)))


@record("fft.rfftn")
def _rfftn(rng: Rng) -> list[Sample]:
    return _many_axes(rng.normal(size=(2, 3, 4)))


def _shift(rng: Rng) -> list[Sample]:
    x = rng.normal(size=(2, 3, 4))
    return [Sample(x), *(Sample(x, axes=axes) for axes in (0, -1, (1,), (0, -1))), Sample(x[:, :, :0])]


record("fft.fftshift", complex=True)(_shift)
record("fft.ifftshift", complex=True)(_shift)

for _name in ("fftfreq", "rfftfreq"):
    record(f"fft.{_name}", differentiable=False)(
        lambda rng: [Sample(4, dtype=np.float64), Sample(5, d=0.5, dtype=np.float32)]
    )
