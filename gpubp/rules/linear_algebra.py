"""Linear algebra.

Functions of a Hermitian matrix (``cholesky``, ``eigh``, ``eigvalsh``) are differentiated as functions of the
Hermitian part of their argument: the gradient is Hermitian, as PyTorch's is.

Eigenvectors and singular vectors are unique only up to a sign, or a phase in the complex case. Their derivatives
are those of a loss that does not depend on it, and they divide by the gaps between eigenvalues (of squared singular
values), so where two coincide the gradient of a loss that tells their vectors apart is infinite or not a number;
that of a loss of the values alone stays finite. Gradients of the second order of such a loss miss the pairs that
coincide. In the same way a singular matrix has no derivative of ``inv``, ``solve`` and ``slogdet``, but one of ``det``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..boundary import conj, is_complex
from .registry import composite, constant, elementwise, joint, primitive


def _adjoint(xp: Any, x: Any) -> Any:
    """The conjugate transpose."""
    return conj(xp, xp.matrix_transpose(x))


def _columns(xp: Any, x: Any) -> Any:
    return xp.expand_dims(x, axis=-1)


def _rows(xp: Any, x: Any) -> Any:
    return xp.expand_dims(x, axis=-2)


def _one_by_one(xp: Any, x: Any) -> Any:
    return xp.reshape(x, (*x.shape, 1, 1))


def _real(xp: Any, x: Any) -> Any:
    return xp.real(x) if is_complex(x) else x


def _eye(xp: Any, like: Any, dtype: Any = None) -> Any:
    return xp.eye(like.shape[-1], dtype=like.dtype if dtype is None else dtype, device=like.device)


def _zeros_but_diagonal(xp: Any, d: Any, shape: Sequence[int], offset: int = 0) -> Any:
    """Matrices of zeros with `d` on a diagonal; of length 1 it is repeated."""
    rows, columns = shape[-2:]
    above = min(max(0, -offset), rows)
    below = rows - above - d.shape[-1]
    if d.shape[-1] != 1 and (above or below):
        stack = d.shape[:-1]
        zeros = [xp.zeros((*stack, k), dtype=d.dtype, device=d.device) for k in (above, below)]
        d = xp.concat([zeros[0], d, zeros[1]], axis=-1)
    on = xp.eye(rows, columns, k=offset, dtype=xp.bool, device=d.device)
    return xp.where(on, _columns(xp, d), 0.0)


# Products, by the function: `@` of CuPy's own arrays is none that a graph can hold


def _matmul_first(xp: Any, g: Any, _: Any, __: Any, y: Any) -> Any:
    if y.ndim == 2 and g.ndim == 2:
        return xp.matmul(g, conj(xp, y.T))
    if y.ndim == 1:
        return _columns(xp, g) * conj(xp, y)
    if g.ndim < y.ndim:  # x is a vector
        return xp.squeeze(xp.matmul(conj(xp, y), _columns(xp, g)), axis=-1)
    return xp.matmul(g, _adjoint(xp, y))


def _matmul_second(xp: Any, g: Any, _: Any, x: Any, y: Any) -> Any:
    x = conj(xp, x)
    if x.ndim == 2 and y.ndim == 2:
        return xp.matmul(x.T, g)
    if y.ndim > 1:
        if x.ndim == 1:
            return _columns(xp, x) * _rows(xp, g)
        if y.ndim > 2:
            return xp.matmul(xp.matrix_transpose(x), g)
    elif x.ndim == 1:
        return x * g
    rows = math.prod(x.shape[:-1])  # a stack times one matrix or vector: one product also sums over the stack
    return xp.matmul(xp.reshape(x, (rows, x.shape[-1])).T, xp.reshape(g, (rows, *y.shape[1:])))


elementwise("matmul", _matmul_first, _matmul_second)  # not elementwise, but it fits the fast path for two arrays
primitive("matrix_transpose", lambda xp, g, *_: xp.matrix_transpose(g))


def _contraction(axes: Any, x: Any, y: Any) -> tuple[list[int], list[int], list[int], list[int]]:
    """The contracted and the free axes of both arrays."""
    if isinstance(axes, int):
        axes = range(-axes, 0), range(axes)
    contracted = [[axes_of % z.ndim for axes_of in pair] for pair, z in zip(axes, (x, y), strict=True)]
    free = [[k for k in range(z.ndim) if k not in used] for used, z in zip(contracted, (x, y), strict=True)]
    return *contracted, *free  # type: ignore[return-value]


def _reorder(xp: Any, x: Any, axes: list[int]) -> Any:
    """Move axis k of `x` to ``axes[k]``."""
    return xp.permute_dims(x, tuple(axes.index(k) for k in range(x.ndim)))


def _tensordot_first(xp: Any, g: Any, _: Any, _x: Any, y: Any, /, *, axes: Any = 2) -> Any:
    x_used, y_used, x_free, y_free = _contraction(axes, _x, y)
    out = xp.tensordot(g, conj(xp, y), axes=(list(range(len(x_free), g.ndim)), y_free))
    return _reorder(xp, out, x_free + [k for _, k in sorted(zip(y_used, x_used, strict=True))])


def _tensordot_second(xp: Any, g: Any, _: Any, x: Any, _y: Any, /, *, axes: Any = 2) -> Any:
    x_used, y_used, x_free, y_free = _contraction(axes, x, _y)
    out = xp.tensordot(conj(xp, x), g, axes=(x_free, list(range(len(x_free)))))
    return _reorder(xp, out, [k for _, k in sorted(zip(x_used, y_used, strict=True))] + y_free)


primitive("tensordot", _tensordot_first, _tensordot_second)


@composite("vecdot")
def _vecdot(xp: Any, x: Any, y: Any, /, *, axis: int = -1) -> Any:
    if x.shape[axis] != y.shape[axis]:
        raise ValueError(f"vecdot along axis {axis} of arrays of shapes {tuple(x.shape)} and {tuple(y.shape)}")
    product = conj(xp, x) * y
    return xp.sum(product, axis=axis, dtype=product.dtype)


primitive(
    "linalg.outer",
    lambda xp, g, _, __, y: xp.matmul(g, conj(xp, y)),
    lambda xp, g, _, x, __: xp.matmul(conj(xp, x), g),
)
primitive(
    "linalg.cross",
    lambda xp, g, _, __, y, /, *, axis=-1: xp.linalg.cross(conj(xp, y), g, axis=axis),
    lambda xp, g, _, x, __, /, *, axis=-1: xp.linalg.cross(g, conj(xp, x), axis=axis),
    broadcasts=True,
)


@composite("linalg.matrix_power")
def _matrix_power(xp: Any, x: Any, n: int, /) -> Any:
    if n == 0:
        return xp.broadcast_to(_eye(xp, x), x.shape)
    square, n = (x, n) if n > 0 else (xp.linalg.inv(x), -n)
    out = None
    while n:
        if n & 1:
            out = square if out is None else xp.matmul(out, square)
        n >>= 1
        if n:
            square = xp.matmul(square, square)
    return out


# Diagonals

primitive("linalg.diagonal", lambda xp, g, _, _x, /, *, offset=0: _zeros_but_diagonal(xp, g, _x.shape, offset))
primitive(
    "linalg.trace",
    lambda xp, g, _, _x, /, *, offset=0, dtype=None: _zeros_but_diagonal(xp, _columns(xp, g), _x.shape, offset),
)


# Determinants, inverses, linear systems


def _small_cofactors(xp: Any, x: Any) -> Any:
    """The matrix of cofactors of matrices up to 3×3."""
    n = x.shape[-1]
    if n < 2:
        return xp.ones_like(x)
    if n == 2:
        return xp.flip(x, axis=(-2, -1)) * (2 * _eye(xp, x) - 1)
    return xp.linalg.cross(xp.roll(x, -1, axis=-2), xp.roll(x, -2, axis=-2), axis=-1)


def _adjugate(xp: Any, x: Any) -> Any:
    """The transposed cofactors, which a singular matrix has too.

    From the inverse of ``B = x + s u uᵀ`` by the matrix determinant lemma and the Sherman-Morrison formula, with
    s = 0 where `x` has full rank. One such step makes a matrix of rank n - 1 regular; where the rank is lower the
    adjugate is zero.
    """
    n = x.shape[-1]
    missing = _one_by_one(xp, n - xp.linalg.matrix_rank(x))
    s = xp.where(missing == 0, 0.0, xp.max(xp.abs(x), axis=(-2, -1), keepdims=True))
    generic = xp.cos(xp.arange(1.0, n + 1, device=x.device))  # orthogonal to no vector of rational numbers
    u = xp.astype(_columns(xp, generic), x.dtype)
    regular = xp.where(missing > 1, _eye(xp, x), x + s * (u * u.T))
    det = xp.where(missing > 1, 0.0, _one_by_one(xp, xp.linalg.det(regular)))
    inverse = xp.linalg.inv(regular)
    left, right = inverse @ u, u.T @ inverse
    return det * ((1 - s * (right @ u)) * inverse + s * (left @ right))


def _det(xp: Any, g: Any, _: Any, x: Any) -> Any:
    """Of singular matrices too; to the second order where the rank is n - 1 or more, or n is 3 or less."""
    small = x.shape[-1] <= 3
    cofactors = _small_cofactors(xp, x) if small else xp.matrix_transpose(_adjugate(xp, x))
    return _one_by_one(xp, g) * conj(xp, cofactors)


primitive("linalg.det", _det)


@joint("linalg.slogdet")
def _slogdet(xp: Any, g: Any, out: Any, x: Any) -> list[Any]:
    (g_sign, g_log), (sign, _) = g, out
    along = None if g_log is None else g_log
    if g_sign is not None and is_complex(x):
        turn = xp.imag(conj(xp, g_sign) * sign) * -1j
        along = turn if along is None else along + turn
    return [None if along is None else _one_by_one(xp, along) * _adjoint(xp, xp.linalg.inv(x))]


def _inv(xp: Any, g: Any, out: Any, *_: Any) -> Any:
    inverse = _adjoint(xp, out)
    return -(inverse @ g @ inverse)


primitive("linalg.inv", _inv)


@joint("linalg.solve", broadcasts=True)
def _solve(xp: Any, g: Any, out: Any, x: Any, _b: Any) -> list[Any]:
    vector = _b.ndim == 1
    g_b = xp.linalg.solve(_adjoint(xp, x), _columns(xp, g) if vector else g)
    g_x = -(g_b @ _adjoint(xp, _columns(xp, out) if vector else out))
    return [g_x, xp.squeeze(g_b, axis=-1) if vector else g_b]


def _pinv(xp: Any, g: Any, out: Any, x: Any, /, *, rtol: Any = None) -> Any:
    """Of a matrix whose rank does not change nearby (Golub and Pereyra 1973, eq. 4.12)."""
    p, g_adjoint = _adjoint(xp, out), _adjoint(xp, g)
    left, right = g_adjoint @ out @ p, p @ out @ g_adjoint
    return left - x @ (out @ left) + right - (right @ out) @ x - p @ g @ p


primitive("linalg.pinv", _pinv, flat=("rtol",))


@joint("linalg.cholesky")
def _cholesky(xp: Any, g: Any, out: Any, *_: Any, upper: bool = False) -> list[Any]:
    """Murray 2016, "Differentiation of the Cholesky decomposition", eq. 10."""
    factor, g = (_adjoint(xp, out), _adjoint(xp, g)) if upper else (out, g)
    inverse = xp.linalg.inv(factor)
    middle = _hermitian_of_lower(xp, _adjoint(xp, factor) @ g)
    return [_adjoint(xp, inverse) @ middle @ inverse / 2]


def _hermitian_of_lower(xp: Any, x: Any) -> Any:
    """The Hermitian matrix with the lower triangle of `x`."""
    lower = xp.tril(x, k=-1)
    return lower + _adjoint(xp, lower) + _zeros_but_diagonal(xp, _real(xp, xp.linalg.diagonal(x)), x.shape)


@joint("linalg.qr")
def _qr(xp: Any, g: Any, out: Any, x: Any, /, *, mode: str = "reduced") -> list[Any]:
    """Of a matrix whose first columns, as many as there are rows or all, are linearly independent."""
    (g_q, g_r), (q, r) = g, out
    rows, columns = x.shape[-2:]
    if mode == "complete" and rows > columns:
        if g_q is not None:
            raise NotImplementedError(
                f"qr of {rows}×{columns} matrices with mode='complete' has no derivative of Q, whose last columns "
                "are arbitrary; use mode='reduced'"
            )
        q, r, g_r = q[..., :columns], r[..., :columns, :], g_r[..., :columns, :]
    if rows >= columns:
        return [_qr_of_tall(xp, g_q, g_r, q, r)]
    # x = [a b] and r = [c d], with a = q c and d = qᴴ b
    g_b = None
    if g_r is not None:
        g_c, g_d = g_r[..., :rows], g_r[..., rows:]
        from_d = x[..., rows:] @ _adjoint(xp, g_d)
        g_q, g_r, g_b = from_d if g_q is None else g_q + from_d, g_c, q @ g_d
    g_a = _qr_of_tall(xp, g_q, g_r, q, r[..., :rows])
    if g_b is None:
        g_b = xp.zeros((*x.shape[:-1], columns - rows), dtype=x.dtype, device=x.device)
    return [xp.concat([g_a, g_b], axis=-1)]


def _qr_of_tall(xp: Any, g_q: Any, g_r: Any, q: Any, r: Any) -> Any:
    """Walter and Lehmann 2018, "Algorithmic differentiation of linear algebra functions", section 3."""
    middle = None if g_r is None else r @ _adjoint(xp, g_r)
    if g_q is not None:
        from_q = _adjoint(xp, g_q) @ q
        middle = -from_q if middle is None else middle - from_q
    along = q @ _hermitian_of_lower(xp, middle)
    total = along if g_q is None else along + g_q
    return _adjoint(xp, xp.linalg.solve(r, _adjoint(xp, total)))


# Eigenvalues and singular values


def _over_gaps(xp: Any, x: Any, gaps: Any) -> Any:
    """``x / gaps``, and 0 on the diagonal and where both vanish."""
    skip = xp.logical_or(_eye(xp, x, xp.bool), xp.logical_and(x == 0, gaps == 0))
    return xp.where(skip, 0.0, x / xp.where(skip, 1.0, gaps))


def _skew(xp: Any, x: Any) -> Any:
    return (x - _adjoint(xp, x)) / 2


def _total(terms: Sequence[Any]) -> Any:
    return sum(terms[1:], terms[0])


@joint("linalg.eigh")
def _eigh(xp: Any, g: Any, out: Any, *_: Any) -> list[Any]:
    (g_w, g_v), (w, v) = g, out
    terms = []
    if g_w is not None:
        terms.append((v * _rows(xp, g_w)) @ _adjoint(xp, v))
    if g_v is not None:
        turn = _skew(xp, _adjoint(xp, v) @ g_v)
        terms.append(v @ _over_gaps(xp, turn, _rows(xp, w) - _columns(xp, w)) @ _adjoint(xp, v))
    return [_total(terms)]


@joint("linalg.eig")
def _eig(xp: Any, g: Any, out: Any, *_: Any) -> list[Any]:
    """Of a matrix with distinct eigenvalues; the vectors have length 1."""
    (g_w, g_v), (w, v) = g, out
    v_adjoint = _adjoint(xp, v)
    terms = []
    if g_w is not None:
        terms.append(_columns(xp, g_w) * v_adjoint)
    if g_v is not None:
        turn = v_adjoint @ g_v
        along = _rows(xp, _real(xp, xp.linalg.diagonal(turn)))
        turn = turn - (v_adjoint @ v) * along
        terms.append(_over_gaps(xp, turn, conj(xp, _rows(xp, w) - _columns(xp, w))) @ v_adjoint)
    return [xp.linalg.solve(v_adjoint, _total(terms))]


@joint("linalg.svd")
def _svd(xp: Any, g: Any, out: Any, _x: Any, /, *, full_matrices: bool = True) -> list[Any]:
    (g_u, g_s, g_vh), (u, s, vh) = g, out
    rows, columns = _x.shape[-2:]
    count = min(rows, columns)
    if full_matrices and rows != columns:
        if (g_u if rows > columns else g_vh) is not None:
            what = "U, whose last columns" if rows > columns else "Vh, whose last rows"
            raise NotImplementedError(
                f"svd of {rows}×{columns} matrices with full_matrices=True has no derivative of {what} are arbitrary; "
                "use full_matrices=False"
            )
        u, vh = u[..., :count], vh[..., :count, :]
    across, down = _rows(xp, s), _columns(xp, s)
    gaps = (across - down) * (across + down)
    inner, terms, phases = [], [], []
    if g_s is not None:
        terms.append((u * _rows(xp, g_s)) @ vh)
    if g_u is not None:
        turn = _adjoint(xp, u) @ g_u
        inner.append(2 * _over_gaps(xp, _skew(xp, turn), gaps) * across)
        phases.append(turn)
        if rows > columns:
            terms.append(((g_u - u @ turn) / across) @ vh)
    if g_vh is not None:
        turn = vh @ _adjoint(xp, g_vh)
        inner.append(2 * down * _over_gaps(xp, _skew(xp, turn), gaps))
        phases.append(-turn)
        if columns > rows:
            terms.append(u @ ((g_vh - _adjoint(xp, turn) @ vh) / down))
    if inner and is_complex(u):
        phase = xp.linalg.diagonal(_skew(xp, _total(phases)))
        inner.append(_zeros_but_diagonal(xp, phase / (2 * s), (count, count)))
    if inner:
        terms.append(u @ _total(inner) @ vh)
    return [_total(terms)]


composite("linalg.eigvalsh")(lambda xp, x, /: xp.linalg.eigh(x)[0])
composite("linalg.eigvals")(lambda xp, x, /: xp.linalg.eig(x)[0])
composite("linalg.svdvals")(lambda xp, x, /: xp.linalg.svd(x, full_matrices=False)[1])
constant("linalg.matrix_rank")


# Norms


def _kept(xp: Any, x: Any, ndim: int, axis: Any, keepdims: bool) -> Any:
    """Give the result of a reduction its reduced axes back, with length 1."""
    if keepdims:
        return x
    axes = {k % ndim for k in (range(ndim) if axis is None else (axis,) if isinstance(axis, int) else axis)}
    lengths = iter(x.shape)
    return xp.reshape(x, tuple(1 if k in axes else next(lengths) for k in range(ndim)))


def _vector_norm(
    xp: Any, g: Any, out: Any, x: Any, /, *, axis: Any = None, keepdims: bool = False, ord: float = 2
) -> Any:
    """Zero at the zero vector; of the largest or smallest magnitude, ties share the gradient evenly."""
    g, out = (_kept(xp, a, x.ndim, axis, keepdims) for a in (g, out))
    if ord == 0:
        return xp.zeros_like(x)
    if ord == 1:
        return g * xp.sign(x)
    if math.isinf(ord):
        ties = xp.astype(xp.abs(x) == out, out.dtype)
        axes = tuple(range(x.ndim)) if axis is None else axis
        return g * xp.sign(x) * (ties / xp.sum(ties, axis=axes, keepdims=True))
    g = xp.where(out == 0, 0.0, g)
    length = xp.where(out == 0, 1.0, out)
    if ord == 2:
        return x * (g / length)
    relative = xp.where(x == 0, 1.0, xp.abs(x) / length)
    return g * xp.sign(x) * relative ** (ord - 1)


primitive("linalg.vector_norm", _vector_norm)


@composite("linalg.matrix_norm")
def _matrix_norm(xp: Any, x: Any, /, *, keepdims: bool = False, ord: Any = "fro") -> Any:
    if ord in ("fro", None):
        return xp.linalg.vector_norm(x, axis=(-2, -1), keepdims=keepdims)
    if ord in (2, -2, "nuc"):
        values = xp.linalg.svdvals(x)
        reduce = xp.sum if ord == "nuc" else xp.max if ord == 2 else xp.min
    elif ord in (1, -1, math.inf, -math.inf):
        values = xp.sum(xp.abs(x), axis=-2 if ord in (1, -1) else -1)
        reduce = xp.max if ord > 0 else xp.min
    else:
        raise ValueError(f"matrix_norm got ord={ord!r}, expected 'fro', 'nuc', 1, -1, 2, -2, inf or -inf")
    out = reduce(values, axis=-1)
    return _one_by_one(xp, out) if keepdims else out
