"""NumPy's products, its linear algebra and its Fourier transforms."""

from __future__ import annotations

import functools
import math
from typing import Any

from ..boundary import conj, is_complex
from .registry import Function, array, arrays, flat, function, native, normal_axes
from .shapes import _moveaxis

# -- products


@function("dot")
def _dot(xp: Any, a: Any, b: Any) -> Any:
    a, b = array(xp, a), array(xp, b)
    if not a.ndim or not b.ndim:
        return a * b
    if b.ndim <= 2:
        return xp.matmul(a, b)
    return xp.tensordot(a, b, axes=((a.ndim - 1,), (b.ndim - 2,)))


@function("inner")
def _inner(xp: Any, a: Any, b: Any) -> Any:
    a, b = array(xp, a), array(xp, b)
    return xp.tensordot(a, b, axes=((a.ndim - 1,), (b.ndim - 1,))) if a.ndim and b.ndim else a * b


@function("outer")
def _outer(xp: Any, a: Any, b: Any) -> Any:
    return xp.reshape(array(xp, a), (-1, 1)) * xp.reshape(array(xp, b), (1, -1))


@function("linalg.outer")
def _linalg_outer(xp: Any, x1: Any, x2: Any, /) -> Any:
    return xp.linalg.outer(x1, x2)


@function("vdot")
def _vdot(xp: Any, a: Any, b: Any) -> Any:
    a, b = (flat(xp, x) for x in arrays(xp, (a, b)))
    return xp.matmul(conj(xp, a), b)


@function("tensordot", "linalg.tensordot")
def _tensordot(xp: Any, a: Any, b: Any, axes: Any = 2) -> Any:
    a, b = array(xp, a), array(xp, b)
    if not isinstance(axes, int):
        first, second = (list(k) if hasattr(k, "__len__") else k for k in axes)
        axes = normal_axes(first, a.ndim), normal_axes(second, b.ndim)
    return xp.tensordot(a, b, axes=axes)


@function("kron")
def _kron(xp: Any, a: Any, b: Any) -> Any:
    a, b = array(xp, a), array(xp, b)
    n = max(a.ndim, b.ndim)
    first, second = ((1,) * (n - x.ndim) + tuple(x.shape) for x in (a, b))
    rows, columns = tuple(k for m in first for k in (m, 1)), tuple(k for m in second for k in (1, m))
    product = xp.reshape(a, rows) * xp.reshape(b, columns)
    return xp.reshape(product, tuple(i * j for i, j in zip(first, second, strict=True)))


@function("cross")
def _cross(xp: Any, a: Any, b: Any, axisa: int = -1, axisb: int = -1, axisc: int = -1, axis: Any = None) -> Any:
    if axis is not None:
        axisa = axisb = axisc = axis
    a, b = array(xp, a), array(xp, b)
    return _moveaxis(xp, xp.linalg.cross(_moveaxis(xp, a, axisa, -1), _moveaxis(xp, b, axisb, -1)), -1, axisc)


@function("linalg.cross")
def _linalg_cross(xp: Any, x1: Any, x2: Any, /, *, axis: int = -1) -> Any:
    return _cross(xp, x1, x2, axis=axis)


@function("linalg.matmul")
def _matmul(xp: Any, x1: Any, x2: Any, /) -> Any:
    return xp.matmul(x1, x2)


@function("linalg.vecdot")
def _vecdot(xp: Any, x1: Any, x2: Any, /, *, axis: int = -1) -> Any:
    return xp.vecdot(x1, x2, axis=axis)


@function("linalg.multi_dot")
def _multi_dot(xp: Any, arrays: Any) -> Any:
    return functools.reduce(lambda x, y: _dot(xp, x, y), arrays)


# -- linear algebra


def _standard(name: str) -> Function:
    """A function with the same signature in the standard."""
    return lambda xp, *args, **kwargs: getattr(xp.linalg, name)(*args, **kwargs)


for _name in (
    "cholesky", "det", "diagonal", "eig", "eigvals", "inv", "matrix_norm", "matrix_power",
    "slogdet", "svdvals", "vector_norm",
):  # fmt: skip
    function(f"linalg.{_name}")(_standard(_name))


@function("linalg.solve")
def _solve(xp: Any, a: Any, b: Any) -> Any:
    return xp.linalg.solve(array(xp, a), array(xp, b))


@function("linalg.trace")
def _trace(xp: Any, x: Any, /, *, offset: int = 0, dtype: Any = None) -> Any:
    return xp.linalg.trace(x, offset=offset, dtype=native(xp, dtype))


@function("linalg.norm")
def _norm(xp: Any, x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Any:
    x = array(xp, x)
    if ord is None:
        return xp.linalg.vector_norm(x, axis=axis if axis is None else normal_axes(axis, x.ndim), keepdims=keepdims)
    axes = normal_axes(axis, x.ndim)
    if len(axes) == 1:
        return xp.linalg.vector_norm(x, axis=axes[0], ord=ord, keepdims=keepdims)
    if len(axes) != 2:
        raise ValueError(f"numpy.linalg.norm with ord={ord!r} needs one or two axes, got {len(axes)}")
    found = xp.linalg.matrix_norm(_moveaxis(xp, x, axes, (-2, -1)), ord=ord)
    return xp.reshape(found, tuple(1 if k in axes else n for k, n in enumerate(x.shape))) if keepdims else found


@function("linalg.cond")
def _cond(xp: Any, x: Any, p: Any = None) -> Any:
    if p in (None, 2, -2):
        s = xp.linalg.svdvals(x)
        return s[..., -1] / s[..., 0] if p == -2 else s[..., 0] / s[..., -1]
    return xp.linalg.matrix_norm(x, ord=p) * xp.linalg.matrix_norm(xp.linalg.inv(x), ord=p)


def _lower(xp: Any, a: Any, UPLO: str) -> Any:
    """The Hermitian matrix whose lower triangle is to be read."""
    if UPLO.upper() not in ("L", "U"):
        raise ValueError(f"UPLO must be 'L' or 'U', got {UPLO!r}")
    return a if UPLO.upper() == "L" else conj(xp, xp.matrix_transpose(a))


@function("linalg.eigh")
def _eigh(xp: Any, a: Any, UPLO: str = "L") -> Any:
    return xp.linalg.eigh(_lower(xp, a, UPLO))


@function("linalg.eigvalsh")
def _eigvalsh(xp: Any, a: Any, UPLO: str = "L") -> Any:
    return xp.linalg.eigvalsh(_lower(xp, a, UPLO))


@function("linalg.svd")
def _svd(xp: Any, a: Any, full_matrices: bool = True, compute_uv: bool = True, hermitian: bool = False) -> Any:
    return xp.linalg.svd(a, full_matrices=full_matrices) if compute_uv else xp.linalg.svdvals(a)


@function("linalg.qr")
def _qr(xp: Any, a: Any, mode: str = "reduced") -> Any:
    if mode not in ("reduced", "complete", "r"):
        raise ValueError(f"numpy.linalg.qr of a traced array knows the modes reduced, complete, r; got {mode!r}")
    return xp.linalg.qr(a).R if mode == "r" else xp.linalg.qr(a, mode=mode)


@function("linalg.pinv")
def _pinv(xp: Any, a: Any, rcond: Any = None, hermitian: bool = False, *, rtol: Any = None) -> Any:
    rtol = rcond if rtol is None else rtol
    return xp.linalg.pinv(a) if rtol is None else xp.linalg.pinv(a, rtol=rtol)


@function("linalg.matrix_rank")
def _matrix_rank(xp: Any, A: Any, tol: Any = None, hermitian: bool = False, *, rtol: Any = None) -> Any:
    if tol is None:
        return xp.linalg.matrix_rank(A, rtol=rtol)
    return xp.count_nonzero(xp.linalg.svdvals(A) > tol, axis=-1)


@function("linalg.tensorsolve")
def _tensorsolve(xp: Any, a: Any, b: Any, axes: Any = None) -> Any:
    if axes is not None:
        a = _moveaxis(xp, a, tuple(axes), tuple(range(a.ndim - len(axes), a.ndim)))
    shape = tuple(a.shape[b.ndim :])
    return xp.reshape(xp.linalg.solve(xp.reshape(a, (b.size, math.prod(shape))), flat(xp, b)), shape)


@function("linalg.tensorinv")
def _tensorinv(xp: Any, a: Any, ind: int = 2) -> Any:
    shape = tuple(a.shape)
    inverse = xp.linalg.inv(xp.reshape(a, (math.prod(shape[:ind]), math.prod(shape[ind:]))))
    return xp.reshape(inverse, shape[ind:] + shape[:ind])


# -- Fourier transforms

_OF_COMPLEX = ("fft", "ifft", "fftn", "ifftn", "hfft", "irfft", "irfftn")


def _as_complex(xp: Any, a: Any, name: str) -> Any:
    """Real values as complex ones, where the standard asks for these."""
    if name not in _OF_COMPLEX or is_complex(a):
        return a
    return xp.astype(a, xp.complex64 if str(a.dtype).endswith("float32") else xp.complex128)


def _fourier(name: str) -> Function:
    def transform(xp: Any, a: Any, n: int | None = None, axis: int = -1, norm: str | None = None) -> Any:
        return getattr(xp.fft, name)(_as_complex(xp, array(xp, a), name), n=n, axis=axis, norm=norm or "backward")

    return transform


def _fourier_n(name: str, default: tuple[int, ...] | None) -> Function:
    def transform(xp: Any, a: Any, s: Any = None, axes: Any = default, norm: str | None = None) -> Any:
        a = _as_complex(xp, array(xp, a), name)
        s = None if s is None else tuple(s)
        if axes is None:
            axes = tuple(range(a.ndim)) if s is None else tuple(range(-len(s), 0))
        return getattr(xp.fft, name)(a, s=s, axes=tuple(axes), norm=norm or "backward")

    return transform


for _name in ("fft", "ifft", "rfft", "irfft", "hfft", "ihfft"):
    function(f"fft.{_name}")(_fourier(_name))
for _name in ("fft", "ifft", "rfft", "irfft"):
    function(f"fft.{_name}n")(_fourier_n(f"{_name}n", None))
    function(f"fft.{_name}2")(_fourier_n(f"{_name}n", (-2, -1)))
function("fft.fftshift")(lambda xp, x, axes=None: xp.fft.fftshift(x, axes=axes))
function("fft.ifftshift")(lambda xp, x, axes=None: xp.fft.ifftshift(x, axes=axes))
