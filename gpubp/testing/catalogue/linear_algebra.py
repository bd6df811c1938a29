"""Records of linear algebra.

Samples are well conditioned, with eigenvalues and singular values well apart. What is unique only up to signs and
phases is compared by the projections on the lines that the vectors span.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...boundary import conj
from .record import Sample, record

Rng = np.random.Generator


def _regular(rng: Rng, *shape: int) -> Any:
    return rng.normal(size=shape) + 4 * np.eye(shape[-2], shape[-1])


def _spread(rng: Rng, *shape: int) -> Any:
    """Matrices whose eigenvalues or singular values are about 2, 4, 6 and so on."""
    values = 2.0 * np.arange(1, shape[-2] + 1)
    return values[:, None] * np.eye(shape[-2], shape[-1]) + 0.3 * rng.normal(size=shape)


def _hermitian(xp: Any, x: Any) -> tuple[Any]:
    return ((x + conj(xp, xp.matrix_transpose(x))) / 2,)


def _lines(xp: Any, rows: Any, others: Any = None) -> Any:
    """The product of each row with its own conjugate (or with another row), in which its phase drops out."""
    others = conj(xp, rows) if others is None else others
    return xp.expand_dims(rows, axis=-1) * xp.expand_dims(others, axis=-2)


# Products


@record("matmul", complex=True)
def _matmul(rng: Rng) -> list[Sample]:
    pairs = [
        ((3,), (3,)), ((2, 3), (3, 4)), ((3,), (3, 2)), ((2, 3), (3,)), ((2, 2, 3), (3, 4)), ((2, 3), (2, 3, 4)),
        ((3,), (2, 3, 4)), ((2, 2, 3), (3,)), ((2, 1, 2, 3), (1, 2, 3, 2)), ((2, 1, 2, 3), (3, 3, 2)),
        ((3, 3), (3, 3)), ((0, 3), (3, 2)), ((2, 0), (0, 3)), ((2, 3, 0), (0, 2)), ((0, 2, 3), (3, 2)),
    ]  # fmt: skip
    return [Sample(rng.normal(size=a), rng.normal(size=b)) for a, b in pairs]


@record("matrix_transpose", complex=True)
def _matrix_transpose(rng: Rng) -> list[Sample]:
    return [Sample(rng.normal(size=shape)) for shape in ((2, 3), (2, 3, 4), (0, 2))]


@record("tensordot", complex=True)
def _tensordot(rng: Rng) -> list[Sample]:
    x = rng.normal(size=(2, 3, 4))
    return [
        Sample(x, rng.normal(size=(3, 4, 2))),
        Sample(x, rng.normal(size=(4, 2)), axes=1),
        Sample(x, rng.normal(size=(2,)), axes=0),
        Sample(x, rng.normal(size=(2, 3, 4)), axes=3),
        Sample(x, rng.normal(size=(4, 2, 3)), axes=((0, 2), (1, 0))),
        Sample(x, rng.normal(size=(4, 2, 3)), axes=((2, 1, 0), (0, 2, 1))),
        Sample(x, rng.normal(size=(2, 4, 2)), axes=((-1,), (-2,))),
        Sample(x, rng.normal(size=(0, 2)), axes=0),
    ]


@record("vecdot", complex=True)
def _vecdot(rng: Rng) -> list[Sample]:
    return [
        Sample(rng.normal(size=(3,)), rng.normal(size=(3,))),
        Sample(rng.normal(size=(3,)), rng.normal(size=(3, 3))),
        Sample(rng.normal(size=(2, 1, 3)), rng.normal(size=(4, 3))),
        Sample(rng.normal(size=(2, 3, 2)), rng.normal(size=(3, 2)), axis=-2),
        Sample(rng.normal(size=(2, 0)), rng.normal(size=(2, 0))),
    ]


@record("linalg.outer", complex=True)
def _outer(rng: Rng) -> list[Sample]:
    return [Sample(rng.normal(size=(2,)), rng.normal(size=(n,))) for n in (3, 0)]


@record("linalg.cross", complex=True)
def _cross(rng: Rng) -> list[Sample]:
    return [
        Sample(rng.normal(size=(3,)), rng.normal(size=(3,))),
        Sample(rng.normal(size=(2, 1, 3)), rng.normal(size=(4, 3))),
        Sample(rng.normal(size=(3, 2)), rng.normal(size=(3, 2)), axis=-2),
        Sample(rng.normal(size=(3, 3)), rng.normal(size=(1, 3))),
    ]


@record("linalg.matrix_power", complex=True)
def _matrix_power(rng: Rng) -> list[Sample]:
    x = _regular(rng, 2, 3, 3) / 4
    return [Sample(x, n) for n in (0, 1, 2, 3, 6, -1, -3)] + [Sample(x[0], 5), Sample(x[:0], 2)]


# Diagonals


@record("linalg.diagonal", complex=True)
def _diagonal(rng: Rng) -> list[Sample]:
    x = rng.normal(size=(2, 3, 4))
    return [
        Sample(x), Sample(x[0]), Sample(x[0].T), Sample(x[:, :1]), Sample(x[:0]),
        *(Sample(x, offset=k) for k in (1, -1, 3, -2)),
        *(Sample(x[0].T, offset=k) for k in (2, -3)),
    ]  # fmt: skip


@record("linalg.trace")
def _trace(rng: Rng) -> list[Sample]:
    x = rng.normal(size=(2, 3, 4))
    z = x + 1j * rng.normal(size=x.shape)
    return [
        Sample(x), Sample(x[0]), Sample(x[:0]), Sample(z), Sample(z[0], offset=1),
        *(Sample(x, offset=k) for k in (1, -1, 3, -2)),
        Sample(x, dtype=np.float64), Sample(x[0].T, offset=-2, dtype=np.float64),
    ]  # fmt: skip


# Determinants, inverses, linear systems


@record("linalg.det", complex=True)
def _det(rng: Rng) -> list[Sample]:
    x = rng.normal(size=(4, 4))
    of_rank_3 = x.copy()
    of_rank_3[3] = of_rank_3[1]
    return [
        *(Sample(_regular(rng, 2, n, n) / 2) for n in (1, 2, 3, 4)),
        Sample(x), Sample(_regular(rng, 0, 4, 4)), Sample(np.zeros((2, 2))), Sample(np.ones((3, 3))),
        Sample(np.stack([of_rank_3, x])),
    ]  # fmt: skip


@record("linalg.slogdet", complex=True, post=lambda xp, out: tuple(out))
def _slogdet(rng: Rng) -> list[Sample]:
    return [*(Sample(_regular(rng, 2, n, n)) for n in (1, 2, 4)), Sample(_regular(rng, 3, 3)), Sample(-np.eye(3))]


@record("linalg.inv", complex=True)
def _inv(rng: Rng) -> list[Sample]:
    return [Sample(_regular(rng, 2, 3, 3)), Sample(_regular(rng, 2, 2)), Sample(_regular(rng, 0, 2, 2))]


@record("linalg.solve", complex=True)
def _solve(rng: Rng) -> list[Sample]:
    pairs = [
        ((3, 3), (3,)), ((3, 3), (3, 2)), ((2, 3, 3), (3,)), ((2, 3, 3), (3, 2)), ((3, 3), (2, 3, 2)),
        ((1, 3, 3), (2, 3, 3)), ((3, 3, 3), (3, 3)), ((3, 3), (3, 0)),
    ]  # fmt: skip
    return [Sample(_regular(rng, *a), rng.normal(size=b)) for a, b in pairs]


@record("linalg.pinv", complex=True)
def _pinv(rng: Rng) -> list[Sample]:
    return [
        Sample(_spread(rng, 2, 4, 2)),
        Sample(_spread(rng, 2, 3)),
        Sample(_spread(rng, 3, 3)),
        Sample(_spread(rng, 3, 2), rtol=1e-3),
    ]


@record("linalg.cholesky", complex=True, pre=_hermitian)
def _cholesky(rng: Rng) -> list[Sample]:
    x = _regular(rng, 2, 3, 3) + 3 * np.eye(3)
    return [Sample(x), Sample(x[0]), Sample(x, upper=True), Sample(x[0, :1, :1]), Sample(x[:0])]


def _of_qr(xp: Any, out: Any) -> Any:
    q, r = out
    return [_lines(xp, xp.matrix_transpose(q)), _lines(xp, r), q @ r]


@record("linalg.qr", complex=True, post=_of_qr)
def _qr(rng: Rng) -> list[Sample]:
    return [
        Sample(_regular(rng, 4, 2)),
        Sample(_regular(rng, 2, 3, 3)),
        Sample(_regular(rng, 2, 4)),
        Sample(_regular(rng, 2, 3), mode="complete"),
        Sample(_regular(rng, 3, 3), mode="complete"),
    ]


# Eigenvalues and singular values


def _of_eig(xp: Any, out: Any) -> Any:
    w, v = out
    return [w, _lines(xp, xp.matrix_transpose(v))]


@record("linalg.eigh", complex=True, pre=_hermitian, post=_of_eig)
def _eigh(rng: Rng) -> list[Sample]:
    return [Sample(_spread(rng, 2, 3, 3)), Sample(_spread(rng, 2, 2)), Sample(_spread(rng, 1, 1))]


@record("linalg.eigvalsh", complex=True, pre=_hermitian)
def _eigvalsh(rng: Rng) -> list[Sample]:
    return [Sample(_spread(rng, 2, 3, 3)), Sample(_spread(rng, 2, 2))]


@record("linalg.eig", complex=True, post=_of_eig)
def _eig(rng: Rng) -> list[Sample]:
    turning = np.asarray([[1.0, -2.0, 0.1], [2.0, 1.0, 0.3], [0.2, 0.4, 3.0]])
    return [Sample(_spread(rng, 2, 3, 3)), Sample(_spread(rng, 2, 2)), Sample(turning)]


@record("linalg.eigvals", complex=True)
def _eigvals(rng: Rng) -> list[Sample]:
    return [Sample(_spread(rng, 2, 3, 3)), Sample(_spread(rng, 2, 2))]


def _of_svd(xp: Any, out: Any) -> Any:
    u, s, vh = out
    rows, count = xp.matrix_transpose(u), s.shape[-1]
    if u.shape[-1] == count == vh.shape[-2]:
        return [s, _lines(xp, rows), _lines(xp, conj(xp, vh)), _lines(xp, rows, vh)]
    return [s, _lines(xp, rows) if u.shape[-1] == count else _lines(xp, vh)]


@record("linalg.svd", complex=True, post=_of_svd)
def _svd(rng: Rng) -> list[Sample]:
    return [
        Sample(_spread(rng, 2, 3, 3)),
        Sample(_spread(rng, 4, 2), full_matrices=False),
        Sample(_spread(rng, 2, 3), full_matrices=False),
        Sample(_spread(rng, 3, 3), full_matrices=False),
    ]


@record("linalg.svdvals", complex=True)
def _svdvals(rng: Rng) -> list[Sample]:
    return [Sample(_spread(rng, 2, 3, 3)), Sample(_spread(rng, 4, 2)), Sample(_spread(rng, 2, 3))]


@record("linalg.matrix_rank", differentiable=False, complex=True)
def _matrix_rank(rng: Rng) -> list[Sample]:
    x = _regular(rng, 2, 3, 3)
    return [Sample(x), Sample(x[:, :2]), Sample(np.ones((2, 3))), Sample(np.diag([1.0, 1e-4, 1.0]), rtol=1e-3)]


# Norms


@record("linalg.vector_norm", complex=True)
def _vector_norm(rng: Rng) -> list[Sample]:
    x = rng.normal(size=(2, 3, 4))
    orders = (2, 1, 0, 3, 2.5, 1.5, 0.5, -1, -2.5, float("inf"), -float("inf"))
    return [
        Sample(x), Sample(x[0, 0, 0]), Sample(x[:, :, :0], axis=-1), Sample(x, keepdims=True), Sample(x, axis=()),
        *(Sample(x, axis=axis) for axis in (0, -1, (0, 2), (-1, -2))),
        *(Sample(x[0], ord=p, axis=-1, keepdims=True) for p in orders),
        *(Sample(x[0], ord=p) for p in orders),
    ]  # fmt: skip


@record("linalg.matrix_norm", complex=True)
def _matrix_norm(rng: Rng) -> list[Sample]:
    x = _spread(rng, 2, 3, 4)
    orders = ("fro", "nuc", 1, -1, 2, -2, float("inf"), -float("inf"))
    return [Sample(x), Sample(x, keepdims=True), Sample(x[0].T, ord=2, keepdims=True)] + [
        Sample(x, ord=p) for p in orders
    ]
