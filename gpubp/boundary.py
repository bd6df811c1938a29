"""The few things the Array API standard lacks, for plain arrays of any library.

Each has a fallback written in the standard alone. Inside a transform the differentiable twin carries its own
version of each (an attribute of the same name with a leading underscore), which is what a rule reaches.
"""

from __future__ import annotations

import functools
import math
from importlib import import_module
from typing import Any

from .dtypes import is_half, rounded, widened

# By type and dtype: array-api-strict's dtypes hash as NumPy's do, and warn when compared with them.
_COMPLEX: dict[tuple[type, Any], bool] = {}
_INEXACT: dict[tuple[type, Any], bool] = {}


def is_complex(x: Any) -> bool:
    """Whether `x` (an array, a `Spec` or a Python scalar) is of a complex dtype."""
    dtype = getattr(x, "dtype", None)
    if dtype is None:
        return isinstance(x, complex)
    key = type(dtype), dtype
    found = _COMPLEX.get(key)
    if found is None:
        found = _COMPLEX[key] = "complex" in str(dtype)
    return found


def is_inexact(dtype: Any) -> bool:
    """Whether `dtype` is real or complex floating, so that a gradient exists (bfloat16 included)."""
    key = type(dtype), dtype
    found = _INEXACT.get(key)
    if found is None:
        name = str(dtype)
        found = _INEXACT[key] = "float" in name or "complex" in name
    return found


def conj(xp: Any, x: Any) -> Any:
    """Complex conjugate; real values, Python scalars among them, are returned as they are."""
    if not is_complex(x):
        return x
    return x.conjugate() if isinstance(x, complex) else xp.conj(x)


_ONES: dict[type, Any] = {}  # of NumPy's scalars, whose type is their dtype


def one_like(x: Any) -> Any:
    """A scalar 1 of the dtype of the 0-d array `x`, where it lives: the seed of a backward pass."""
    found = _ONES.get(type(x))
    if found is not None:
        return found
    if type(x).__module__ in ("numpy", "ml_dtypes"):
        one = x.dtype.type(1)
        return _ONES.setdefault(type(one), one) if type(one) is type(x) else one
    from array_api_compat import array_namespace

    return array_namespace(x).ones_like(x)


def to_device(x: Any, device: Any, /, *, stream: Any = None) -> Any:
    """`x` on another device of its library."""
    from array_api_compat import to_device as move

    return move(x, device, stream=stream)


def zeros(xp: Any, like: Any, shape: tuple[int, ...]) -> Any:
    """Zeros of the dtype of `like`, where it lives."""
    return xp.zeros(shape, dtype=like.dtype, device=getattr(like, "device", None))  # NumPy 2.0's scalars have none


# -- the error function

# Numerators and denominators, the highest power first: of x² near 0, and of |x| elsewhere.
_NEAR = (
    (1.85777706184603153e-1, 3.16112374387056560, 1.13864154151050156e2, 3.77485237685302021e2, 3.20937758913846947e3),
    (1.0, 2.36012909523441209e1, 2.44024637934444173e2, 1.28261652607737228e3, 2.84423683343917062e3),
)
_FAR = (
    (
        *(2.15311535474403846e-8, 5.64188496988670089e-1, 8.88314979438837594, 6.61191906371416295e1),
        *(2.98635138197400131e2, 8.81952221241769090e2, 1.71204761263407058e3, 2.05107837782607147e3),
        1.23033935479799725e3,
    ),
    (
        *(1.0, 1.57449261107098347e1, 1.17693950891312499e2, 5.37181101862009858e2, 1.62138957456669019e3),
        *(3.29079923573345963e3, 4.36261909014324716e3, 3.43936767414372164e3, 1.23033935480374942e3),
    ),
)


def erf(xp: Any, x: Any) -> Any:
    """The error function 2/√π ∫₀ˣ exp(-t²) dt of a real array, to a few units in the last place.

    Notes
    -----
    Without one in the library: Cody, "Rational Chebyshev approximations for the error function", 1969. That for
    |x| up to 4 serves until erf(x) rounds to 1.
    """
    if (traced := getattr(xp, "_erf", None)) is not None:
        return traced(x)
    if is_half(x.dtype):  # the polynomials leave its range
        return rounded(xp, erf(xp, widened(xp, x)), x.dtype)
    if (own := _own_erf(xp)) is not None:
        return own(x)
    a = xp.clip(xp.abs(x), max=6.0)
    near = a <= 0.46875
    small = x * _ratio(xp.where(near, a, 0.0) ** 2, _NEAR)
    large = 1 - xp.exp(-a * a) * _ratio(a, _FAR)
    return xp.where(near, small, xp.where(x < 0, -large, large))


def _ratio(x: Any, of: tuple[tuple[float, ...], tuple[float, ...]]) -> Any:
    above, below = (functools.reduce(lambda value, c: value * x + c, polynomial) for polynomial in of)
    return above / below


_OWN_ERF = {"torch": "torch.special", "jax": "jax.scipy.special", "cupy": "cupyx.scipy.special"}


@functools.lru_cache
def _own_erf(xp: Any) -> Any:
    """The library's own function, where it has one."""
    module = _OWN_ERF.get(xp.__name__.removeprefix("array_api_compat.").partition(".")[0])
    try:
        return None if module is None else import_module(module).erf
    except ImportError:
        return None


# -- items


def take_at(xp: Any, x: Any, key: Any) -> Any:
    """``x[key]``, as a function of the namespace."""
    if (traced := getattr(xp, "_take_at", None)) is not None:
        return traced(x, key=key)
    rows = _rows(key)
    if rows is None or x.ndim < 2 or _takes_index_arrays(xp, x) or not may_repeat(key):
        return x[key]
    return xp.reshape(xp.take(x, xp.reshape(rows, (-1,)), axis=0), (*rows.shape, *x.shape[1:]))


def put(xp: Any, x: Any, key: Any, value: Any) -> Any:
    """A copy of `x` in which ``x[key]`` is `value`: item assignment as a function.

    Where an index is repeated, which value stays is up to the library (the last one with NumPy).
    """
    if (traced := getattr(xp, "_put", None)) is not None:
        return traced(x, value, key=key)
    if hasattr(x, "at"):  # JAX: arrays are immutable
        return x.at[key].set(value)
    if may_repeat(key) and not _takes_index_arrays(xp, x):
        return _by_search(xp, x, key, value, add=False)
    out = xp.asarray(x, copy=True)
    return _assign(xp, out, key, value)


def add_at(xp: Any, x: Any, key: Any, value: Any) -> Any:
    """A copy of `x` with `value` added at ``x[key]``, repeated indices adding up."""
    if (traced := getattr(xp, "_add_at", None)) is not None:
        return traced(x, value, key=key)
    if hasattr(x, "at"):
        return x.at[key].add(value)
    if is_half(x.dtype) and may_repeat(key):
        return rounded(xp, _accumulate(xp, widened(xp, x), key, widened(xp, value)), x.dtype)
    return _accumulate(xp, xp.asarray(x, copy=True), key, value)


def add_in(xp: Any, own: Any, key: Any, value: Any) -> Any:
    """Plain `own` with `value` added at ``own[key]``; `own` itself is overwritten where arrays can be."""
    if hasattr(own, "at"):
        return own.at[key].add(value)
    return _accumulate(xp, own, key, value)


def scatter(xp: Any, shape: tuple[int, ...], key: Any, value: Any) -> Any:
    """Zeros of `shape` with `value` added at ``[key]``: the adjoint of `take_at`."""
    if (traced := getattr(xp, "_scatter", None)) is not None:
        return traced(value, shape=shape, key=key)
    if is_half(value.dtype) and may_repeat(key):
        return rounded(xp, scatter(xp, shape, key, widened(xp, value)), value.dtype)
    own = zeros(xp, value, shape)
    if hasattr(own, "at"):
        return own.at[key].add(value)
    if may_repeat(key):
        return _accumulate(xp, own, key, value)
    return _assign(xp, own, key, value)


def _assign(xp: Any, own: Any, key: Any, value: Any) -> Any:
    key, value = _without_none(xp, own, key, value)
    own[key] = value
    return own


def _without_none(xp: Any, x: Any, key: Any, value: Any) -> tuple[Any, Any]:
    """The same assignment by a key without new axes: the standard has them for reading items only."""
    if not isinstance(key, tuple):
        key = (key,)
    bare = tuple(part for part in key if part is not None)
    if len(bare) == len(key) or may_repeat(key):
        return key, value
    if hasattr(value, "dtype"):
        value = xp.reshape(xp.broadcast_to(value, x[key].shape), x[bare].shape)
    return bare, value


def may_repeat(key: Any) -> bool:
    """Whether a key has integer arrays (or lists), so that it may name one element twice."""
    parts = key if isinstance(key, tuple) else (key,)
    return any(_is_index_array(part) for part in parts)


def _is_index_array(part: Any) -> bool:
    if part is None or part is Ellipsis or isinstance(part, int | slice):
        return False
    return isinstance(part, list) or "bool" not in str(part.dtype)


def _takes_index_arrays(xp: Any, x: Any) -> bool:
    """Whether keys may mix integer arrays with others, and be assigned to, which the standard leaves open."""
    return hasattr(xp.add, "at") or hasattr(x, "index_put_")


def _accumulate(xp: Any, own: Any, key: Any, value: Any) -> Any:
    """``own[key] += value`` with repeated indices adding up; `own` may be overwritten."""
    if not may_repeat(key):
        key, value = _without_none(xp, own, key, value)
        own[key] += value
        return own
    if hasattr(xp.add, "at"):  # NumPy and CuPy
        if _rows(key) is None or own.ndim == 1 or type(own).__module__ != "numpy":
            return _add_with_ufunc(xp, own, key, value)
        flat, positions, values = _flattened(xp, own, key, value)  # NumPy is fast in one dimension only
        xp.add.at(flat, positions, values)
        return xp.reshape(flat, own.shape)
    if hasattr(own, "index_put_"):  # PyTorch
        flat, positions, values = _flattened(xp, own, key, value)
        return xp.reshape(flat.index_put_((positions,), values, accumulate=True), own.shape)
    return _by_search(xp, own, key, value, add=True)


def _add_with_ufunc(xp: Any, own: Any, key: Any, value: Any) -> Any:
    if not is_complex(own) or type(own).__module__ == "numpy":
        xp.add.at(own, key, value)
        return own
    value = xp.asarray(value, dtype=own.dtype)  # CUDA has no atomic addition of complex numbers
    xp.add.at(own.real, key, value.real)
    xp.add.at(own.imag, key, value.imag)
    return own


def _rows(key: Any) -> Any:
    """The index array of a key that is nothing else."""
    if isinstance(key, tuple):
        key = key[0] if len(key) == 1 else None
    return None if isinstance(key, list) or not hasattr(key, "dtype") else key


def _flattened(xp: Any, x: Any, key: Any, value: Any) -> tuple[Any, Any, Any]:
    """`x`, the places in it that `key` names, and the values for them, all with one axis."""
    rows = _rows(key)
    if rows is None:
        positions = xp.reshape(xp.arange(math.prod(x.shape), device=x.device), x.shape)[key]
    else:
        inner = x.shape[1:]
        size = math.prod(inner)
        within = xp.reshape(xp.arange(size, device=x.device), inner)
        positions = (
            xp.reshape(xp.astype(rows, within.dtype, copy=False) * size, (*rows.shape, *(1 for _ in inner))) + within
        )
    value = xp.astype(xp.asarray(value, device=x.device), x.dtype, copy=False)
    values = xp.broadcast_to(value, positions.shape)
    return tuple(xp.reshape(a, (-1,)) for a in (x, positions, values))


def _by_search(xp: Any, x: Any, key: Any, value: Any, add: bool) -> Any:
    """A copy of `x` in which ``x[key]`` is `value`, or has it added, in the standard alone.

    The places written to are sorted, so that each element of `x` finds what is meant for it by bisection. Values
    for one place are summed by doubling: neighbours 1, 2, 4 ... apart in the sorted order.
    """
    flat, positions, values = _flattened(xp, x, key, value)
    count = positions.shape[0]
    if not count or not flat.shape[0]:
        return x
    every = xp.arange(flat.shape[0], device=x.device)
    positions = positions % flat.shape[0]
    order = xp.argsort(positions)
    positions, values = xp.take(positions, order), xp.take(values, order)
    apart = 1
    while add and apart < count:
        same = positions[apart:] == positions[:-apart]
        more = values[apart:] + xp.where(same, values[:-apart], 0)
        values = xp.concat([values[:apart], more])
        apart *= 2
    first = xp.searchsorted(positions, every)
    end = xp.searchsorted(positions, every, side="right")
    written = end > first
    found = xp.take(values, xp.where(written, end - 1, 0))
    new = xp.where(written, flat + found if add else found, flat)
    return xp.reshape(new, x.shape)


# -- random numbers

_LOW = 0xFFFFFFFF
_MULTIPLIERS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
_BUMPS = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)


def bernoulli(
    xp: Any, like: Any, keep: float, key: tuple[int, int], step: Any, shape: tuple[int, ...], stream: int = 0
) -> Any:
    """A boolean array of `shape`, where `like` lives: each element is true with the probability `keep`.

    The numbers depend on `key`, `step` and `stream` alone and are the same in every library: 32-bit halves, the lower
    one first, of NumPy's Philox 4x64-10 with the counter (0, step, stream, 0), compared with ``keep * 2**32``.

    Parameters
    ----------
    xp, like
        Namespace of plain arrays, and one of them, whose device is taken.
    keep
        A probability, from 0 to 1.
    key
        Two numbers from 0 to 2**64 - 1.
    step
        A whole number from 0, or a 0-d integer array, which is not read on the host if it is on a device.
    shape
        Of the result.
    stream
        Number of a part of a draw that is made in several.

    Notes
    -----
    Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", 2011.
    """
    n = math.prod(shape)
    largest = round(keep * 2**32) - 1
    if largest < 0:
        return xp.zeros(shape, dtype=xp.bool, device=like.device)
    if type(like).__module__ == "numpy" or hasattr(like, "at"):  # JAX may have no 64-bit integers
        halves = _philox_of_numpy(key, int(step), stream, n)
        return xp.reshape(xp.asarray(halves <= largest), shape)
    if type(step).__module__ == "numpy":
        step = int(step)
    if type(like).__module__.startswith("cupy") and (own := _kernels_for_cupy()) is not None:
        return own.bernoulli(keep, key, step, shape, stream)
    words = _philox(xp, key, step, stream, -(-n // 8), like.device)
    pairs = xp.stack([words & _LOW, _shifted(words, 32)], axis=-1)
    return xp.reshape(xp.reshape(pairs, (-1,))[:n] <= largest, shape)


@functools.lru_cache
def _kernels_for_cupy() -> Any:
    """The module with the same draw in one kernel, if it has not been taken away."""
    try:
        return import_module(f"{__package__}.kernels.cupy.random")
    except ImportError:
        return None


def _philox_of_numpy(key: tuple[int, int], step: int, stream: int, n: int) -> Any:
    import numpy as np

    words = np.random.Philox(
        key=np.asarray(key, np.uint64), counter=np.asarray([0, step, stream, 0], np.uint64)
    ).random_raw((n + 1) // 2)
    return words.astype("<u8", copy=False).view("<u4")[:n]


def _philox(xp: Any, key: tuple[int, int], step: Any, stream: int, blocks: int, device: Any) -> Any:
    """Four 64-bit words for each of a number of blocks, in int64, whose products wrap around everywhere."""
    like = xp.arange(1, blocks + 1, dtype=xp.int64, device=device)  # NumPy counts before it draws
    zeros = xp.zeros_like(like)
    c0, c1, c2, c3 = like, zeros + step, zeros + stream, zeros
    k0, k1 = key
    for _ in range(10):
        high0, low0 = _product(xp, _MULTIPLIERS[0], c0)
        high1, low1 = _product(xp, _MULTIPLIERS[1], c2)
        c0, c1, c2, c3 = high1 ^ c1 ^ _signed(k0), low1, high0 ^ c3 ^ _signed(k1), low0
        k0, k1 = (k0 + _BUMPS[0]) % 2**64, (k1 + _BUMPS[1]) % 2**64
    return xp.reshape(xp.stack([c0, c1, c2, c3], axis=-1), (-1,))


def _product(xp: Any, a: int, b: Any) -> tuple[Any, Any]:
    """The high and the low half of the 128-bit product of a constant and unsigned 64-bit numbers held in int64."""
    a_high, a_low, b_high, b_low = a >> 32, a & _LOW, _shifted(b, 32), b & _LOW
    low, cross, other = b_low * a_low, b_low * a_high, b_high * a_low
    middle = _shifted(low, 32) + (cross & _LOW) + (other & _LOW)
    high = b_high * a_high + _shifted(cross, 32) + _shifted(other, 32) + _shifted(middle, 32)
    return high, (middle << 32) | (low & _LOW)


def _shifted(x: Any, bits: int) -> Any:
    """Shift int64 numbers to the right as if they were unsigned."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _signed(word: int) -> int:
    return word - 2**64 if word >= 2**63 else word
