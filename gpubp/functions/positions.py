"""Where in its sequence a vector stands: sinusoidal and rotary positions."""

# ruff: noqa: D103  (a fused function has the docstring of its reference)

from __future__ import annotations

import math
from typing import Any

from ..array import strip
from ..device import raw_namespace
from ..fused import fused
from ..namespace import array_namespace
from .checks import broadcasts, check_one_library, check_real


def sinusoidal_positions(like: Any, time: int, features: int, /, *, offset: int = 0, base: float = 10000.0) -> Any:
    """Sines and cosines of the position, whose wavelengths grow from 2π to 2π `base`; to be added to embeddings.

    Feature 2i of position t is ``sin(t / base**(2i / features))``, feature 2i + 1 the cosine.

    Parameters
    ----------
    like
        An array that has the library, device and floating-point dtype of the result.
    time, features
        Shape of the result.
    offset
        The first position.
    base
        Which sets the longest wavelength.

    Returns
    -------
    array
        Of shape (time, features).

    Raises
    ------
    TypeError
        If `like` is not of a real floating-point dtype.

    Notes
    -----
    Vaswani et al., "Attention is all you need", 2017, section 3.5.
    """
    check_floating("sinusoidal_positions", like)
    xp = raw_namespace(strip(like))
    angles = _angles(xp, strip(like), time, (features + 1) // 2, 2.0 / max(features, 1), offset, base)
    pairs = xp.stack([xp.sin(angles), xp.cos(angles)], axis=-1)
    table = xp.reshape(pairs, (time, 2 * angles.shape[-1]))[:, :features]
    return array_namespace(like).asarray(xp.astype(table, like.dtype))


def _rotary(x: Any, positions: Any = None, /, *, offset: int = 0, base: float = 10000.0) -> Any:
    """Turn pairs of features by angles proportional to the position, so that ``q · k`` depends on the distance.

    Feature i of the first half and feature i of the second half are a pair, which is turned by the angle
    ``position / base**(2i / features)``.

    Parameters
    ----------
    x
        Queries or keys of shape (..., time, heads, features), with an even number of features.
    positions
        Integer array whose shape broadcasts to (..., time). Where it is None: `offset`, `offset` + 1, ...
    offset
        Added to the positions, as when earlier keys are known.
    base
        Which sets the slowest turn.

    Returns
    -------
    array
        Of the shape of `x`.

    Raises
    ------
    TypeError
        If `x` is not of a real floating-point dtype, or the positions are no integers.
    ValueError
        If the shapes do not fit, or the number of features is odd.

    Notes
    -----
    Su, Lu, Pan, Murtadha, Wen, Liu, "RoFormer: enhanced transformer with rotary position embedding", 2021, eq. 34,
    where the pairs are neighbours. Halves, as in GPT-NeoX, are the same but for the order of the features.
    """
    check_rotary(x, positions)
    return turn(array_namespace(x), x, *cosines(x, positions, offset, base))


@fused(_rotary)
def rotary(xp: Any, needs: Any, x: Any, positions: Any = None, /, *, offset: int = 0, base: float = 10000.0) -> Any:
    check_rotary(x, positions)
    cos, sin = cosines(x, positions, offset, base)
    return turn(xp, x, cos, sin), (cos, sin)


@rotary.backward
def rotary_backward(xp: Any, needs: Any, dY: Any, residuals: Any, *, offset: int = 0, base: float = 10000.0) -> Any:
    cos, sin = residuals
    return turn(xp, dY, cos, -sin), None


def turn(xp: Any, x: Any, cos: Any, sin: Any) -> Any:
    """Turn the pairs (first half, second half) of the features."""
    half = x.shape[-1] // 2
    a, b = x[..., :half], x[..., half:]
    return xp.concat([a * cos - b * sin, b * cos + a * sin], axis=-1)


def cosines(x: Any, positions: Any, offset: int, base: float) -> tuple[Any, Any]:
    """Give cosine and sine of the angles, plain arrays of shape (..., time, 1, features / 2)."""
    x = strip(x)
    xp, features = raw_namespace(x), x.shape[-1]
    at = x.shape[-3] if positions is None else strip(positions)
    angles = xp.expand_dims(_angles(xp, x, at, features // 2, 2.0 / max(features, 1), offset, base), axis=-2)
    return xp.astype(xp.cos(angles), x.dtype), xp.astype(xp.sin(angles), x.dtype)


def _angles(xp: Any, like: Any, at: Any, count: int, step: float, offset: int, base: float) -> Any:
    """Give the angles ``position * base**(-step * i)`` in double precision: at late positions few digits are left."""
    i = xp.arange(count, dtype=xp.float64, device=like.device)
    frequencies = xp.exp(i * (-step * math.log(base)))
    if isinstance(at, int):
        at = xp.arange(at, dtype=xp.float64, device=like.device)
    return xp.expand_dims(xp.astype(at, xp.float64) + offset, axis=-1) * frequencies


def check_floating(function: str, x: Any) -> None:
    """Refuse what is not real and floating-point."""
    check_real(function, x)
    if "float" not in str(x.dtype):
        raise TypeError(f"{function} expects a floating-point array, got {x.dtype}")


def check_rotary(x: Any, positions: Any) -> None:
    """Refuse what has no pairs of features, or no whole positions."""
    check_one_library("rotary", x=x, positions=positions)
    check_floating("rotary", x)
    if x.ndim < 3 or x.shape[-1] % 2:
        raise ValueError(
            f"rotary expects x of shape (..., time, heads, features) with an even number of features, got "
            f"{tuple(x.shape)}"
        )
    if positions is None:
        return
    if "int" not in str(positions.dtype):
        raise TypeError(f"rotary expects integer positions, got {positions.dtype}")
    found, wanted = tuple(positions.shape), tuple(x.shape[:-2])
    if not found or not broadcasts(found, wanted):
        raise ValueError(f"rotary expects positions that broadcast to (..., time) = {wanted}, got shape {found}")
