"""NumPy code on traced arrays: values as NumPy's, gradients as finite differences'."""

import math
import re
from pathlib import Path

import numpy as np
import pytest

import gpubp as bp
from gpubp.numpy_code import supported
from gpubp.testing import check_grads

rng = np.random.default_rng(7)
V, W, S = rng.normal(size=4), rng.normal(size=4), rng.normal()
M, N = rng.normal(size=(3, 4)), rng.normal(size=(3, 4))
Q, R = rng.normal(size=(3, 3)) + 3 * np.eye(3), rng.normal(size=(3, 3))
T = rng.normal(size=(2, 3, 4))
P, U = rng.uniform(0.5, 2.0, size=(3, 4)), rng.uniform(-0.8, 0.8, size=(3, 4))
Z, ZV = M + 1j * N, V + 1j * W
GAPS = np.where(M > 1.0, np.nan, M)
SPD = R @ R.T + 3 * np.eye(3)
KNOTS = np.array([0.1, 0.5, 1.3, 2.0])
MASK = M > 0

#: What is computed, and from what. The first word after ``np.`` names the function in the committed list.
CASES = [
    # ufuncs
    *((f"np.{name}(x)", U) for name in
      "sin cos tan sinh cosh tanh arcsin arccos arctan arcsinh arctanh exp exp2 expm1 log1p negative positive square "
      "absolute abs fabs cbrt deg2rad rad2deg degrees radians sign floor ceil trunc rint conjugate".split()),
    *((f"np.{name}(x)", P) for name in "sqrt log log2 log10 reciprocal".split()),
    ("np.arccosh(x)", P + 1),
    *((f"np.{name}(x, y)", M, N) for name in
      "add subtract multiply divide true_divide hypot arctan2 logaddexp logaddexp2 maximum minimum fmax fmin copysign "
      "heaviside".split()),
    *((f"np.{name}(x, y)", P, N) for name in "power float_power remainder mod fmod floor_divide".split()),
    ("np.fmod(x, y)", M, N),
    ("np.fmax(x, y)", GAPS, N),
    ("np.heaviside(np.floor(x), y)", M, N),
    ("np.ldexp(x, 3)", M),
    ("np.ldexp(x, i)", M, {"i": np.array([1, 2, 0, -1])}),
    ("np.divmod(x, y)[1] + np.divmod(x, 2.0)[0]", P, N),
    ("np.modf(x)[0] * 2 + np.modf(x)[1]", M),
    ("np.matmul(x, y)", T, N.T),
    ("np.matmul(x, y)", V, T.swapaxes(1, 2)),
    ("np.matmul(x, y.T)", M, N),
    ("np.add(x, [1.0, 2.0, 3.0, 4.0])", M),
    ("np.multiply([1.0, 2.0, 3.0, 4.0], x)", M),
    ("np.add(x, 1, dtype=np.float64)", M),
    ("np.multiply(p, x)", M, {"p": N}),
    ("p * x - x / p + x**p", P, {"p": N}),
    ("p @ x.T + x @ p.T", M, {"p": N}),
    ("np.where(np.isfinite(x) & ~np.isnan(x) & np.logical_not(np.isinf(x)), x, 0)", M),
    ("np.where(np.logical_and(x > 0, np.less(x, y)), x, y)", M, N),
    ("np.where(np.logical_or(x > 0, np.greater_equal(x, y)) ^ np.signbit(y), x, y)", M, N),
    # ufunc methods
    *((f"np.{name}.reduce(x)", M) for name in "add multiply maximum minimum logaddexp hypot".split()),
    ("np.add.reduce(x, axis=(0, 2))", T),
    ("np.add.reduce(x, axis=None)", T),
    ("np.maximum.reduce(x, axis=1, keepdims=True)", T),
    ("np.logaddexp.reduce(x, axis=1, keepdims=True)", T),
    ("np.logaddexp.reduce(x, axis=None)", M),
    *((f"np.{name}.accumulate(x, axis=1)", M) for name in "add multiply maximum minimum logaddexp".split()),
    *((f"np.{name}.outer(x, y)", V, M) for name in "add multiply subtract maximum".split()),
    # sums and averages
    *((f"np.{name}(x{extra})", T) for name in "sum prod mean var std max min amax amin ptp median".split()
      for extra in ("", ", axis=1", ", 1", ", axis=(0, -1), keepdims=True")),
    *((f"np.{name}(x{extra})", T) for name in "nansum nanprod nanmean nanvar nanstd nanmax nanmin".split()
      for extra in ("", ", axis=1", ", axis=(0, -1), keepdims=True")),
    *((f"np.nan_to_num(np.{name}(x, axis=1))", GAPS) for name in
      "nansum nanprod nanmean nanvar nanstd nanmax nanmin nancumsum nancumprod".split()),
    *((f"np.{name}(x{extra})", T) for name in "cumsum cumprod".split() for extra in ("", ", 1", ", axis=-1")),
    ("np.cumulative_sum(x, axis=1, include_initial=True)", M),
    ("np.cumulative_prod(x, axis=0)", M),
    ("np.sum(x, where=m, initial=2.0)", M, {"m": MASK}),
    ("np.prod(x, where=m, initial=2.0)", M, {"m": MASK}),
    ("np.mean(x, axis=0, where=m)", M, {"m": MASK | (N > 0) | (np.arange(3)[:, None] == 1)}),
    ("np.max(x, axis=1, initial=0.1, where=m)", M, {"m": MASK}),
    ("np.min(x, initial=-0.1)", M),
    ("np.var(x, ddof=1)", M),
    ("np.std(x, axis=1, correction=1)", M),
    ("np.average(x, weights=y)", M, P),
    ("np.average(x, axis=1, weights=y)", M, P[0]),
    ("np.average(x, 0)", M),
    ("np.average(x, axis=0, weights=y, returned=True)[1]", M, P),
    ("np.cov(x)", M),
    ("np.cov(x, y, bias=True)", M, N),
    ("np.cov(x, rowvar=False)", M),
    ("np.cov(x)", V),
    ("np.corrcoef(x)", M),
    *((f"np.quantile(x, 0.3, axis=1, method='{m}')", T) for m in "linear lower higher nearest midpoint".split()),
    ("np.quantile(x, [0.25, 0.5], axis=(0, 2), keepdims=True)", T),
    ("np.percentile(x, 40)", M),
    ("np.percentile(x, [10, 90], axis=1)", M),
    ("np.diff(x)", M),
    ("np.diff(x, n=2, axis=0)", M),
    ("np.diff(x, prepend=0.0, append=y)", M, N),
    ("np.ediff1d(x, to_begin=y, to_end=[1.0, 2.0])", M, V),
    ("np.trapezoid(x)", M),
    ("np.trapezoid(x, y, axis=0)", M, V[:3]),
    ("np.trapezoid(x, np.cumsum(y, axis=1))", M, P),
    ("np.gradient(x)", V),
    ("np.gradient(x, 0.5, axis=1, edge_order=2)", M),
    ("np.gradient(x)[0] * np.gradient(x)[1]", M),
    ("np.gradient(x, k, edge_order=2)", V, {"k": KNOTS}),
    ("np.gradient(x, np.cumsum(y))", V, P[0]),
    # shapes
    ("np.reshape(x, (4, 3))", M),
    ("np.reshape(x, -1, order='F')", M),
    ("np.reshape(x, (2, -1), 'F')", T),
    ("np.ravel(x)", T),
    ("np.ravel(x, 'F')", T),
    ("np.transpose(x)", T),
    ("np.transpose(x, (1, -1, 0))", T),
    ("np.matrix_transpose(x)", T),
    ("np.swapaxes(x, 0, -1)", T),
    ("np.moveaxis(x, 0, -1)", T),
    ("np.moveaxis(x, (0, 1), (-1, 0))", T),
    ("np.rollaxis(x, 2)", T),
    ("np.rollaxis(x, 0, 3)", T),
    ("np.rollaxis(x, -1, -2)", T),
    ("np.expand_dims(x, 1)", M),
    ("np.expand_dims(x, (0, -1))", M),
    ("np.squeeze(np.expand_dims(x, (0, -1)))", M),
    ("np.squeeze(np.expand_dims(x, (0, -1)), axis=-1)", M),
    *((f"np.atleast_{k}d(x)", a) for k in (1, 2, 3) for a in (np.float64(2.0) + V[0] * np.ones(()), V, M, T)),
    ("np.atleast_2d(x, y)[1]", M, V),
    ("np.broadcast_to(x, (3, 4))", V),
    ("np.broadcast_arrays(x, y)[0] * y", V, M),
    ("np.concatenate([x, y])", M, N),
    ("np.concatenate((x, p, y), axis=1)", M, N, {"p": P}),
    ("np.concatenate([x, y], axis=None)", M, V),
    ("np.concat([x, [[1.0, 2.0, 3.0, 4.0]]])", M),
    *((f"np.{name}", M, N) for name in
      ("stack([x, y])", "stack([x, y], axis=-1)", "vstack([x, y])", "hstack([x, y])", "dstack([x, y])",
       "column_stack([x, y])", "append(x, y, axis=0)", "append(x, y)", "block([[x, y], [y, x]])")),
    *((f"np.{name}([x, y])", V, W) for name in "vstack hstack dstack column_stack stack block".split()),
    ("np.stack([x[0], x[1], 3.0])", V),
    ("np.array_split(x, 3)[0]", V),
    ("np.array_split(x, [1, 2], axis=1)[2]", M),
    ("np.split(x, 2)[1]", V),
    ("np.hsplit(x, 2)[1] + np.split(x, 2, axis=1)[0]", M),
    ("np.vsplit(x, 3)[1]", M),
    ("np.dsplit(x, 2)[1]", T),
    ("np.unstack(x, axis=1)[2]", M),
    ("np.delete(x, 1, axis=1)", M),
    ("np.delete(x, [0, -1])", V),
    ("np.delete(x, slice(0, 2))", V),
    ("np.tile(x, 2)", M),
    ("np.tile(x, (2, 1, 3))", M),
    ("np.repeat(x, 2)", M),
    ("np.repeat(x, [1, 0, 2, 1], axis=1)", M),
    ("np.roll(x, 1)", M),
    ("np.roll(x, (1, -1), axis=(0, 1))", M),
    ("np.flip(x)", M),
    ("np.flip(x, 1)", M),
    ("np.flipud(x) + np.fliplr(x)", M),
    *((f"np.rot90(x, {k})", M) for k in (0, 1, 2, 3, -1)),
    ("np.rot90(x, 1, (2, 0))", T),
    ("np.pad(x, 1)", M),
    ("np.pad(x, ((1, 0), (2, 3)), constant_values=((1.0, 2.0), (3.0, 4.0)))", M),
    ("np.pad(x, (1, 2), 'constant', constant_values=(1.0, 2.0))", M),
    *((f"np.pad(x, ((0, 2), (2, 1)), mode='{mode}')", M) for mode in "edge reflect symmetric wrap".split()),
    ("np.diag(x)", M),
    ("np.diag(x, 1)", M),
    ("np.diag(x, -2)", V),
    ("np.diag(x)", V),
    ("np.diagflat(x, 1)", M),
    ("np.diagonal(x, 1, 2, 0)", T),
    ("np.trace(x)", M),
    ("np.trace(x, 1, 0, 2)", T),
    ("np.tril(x) + np.triu(x, 1) * 2", M),
    ("np.vander(x)", V),
    ("np.vander(x, 3, increasing=True)", V),
    ("np.full_like(x, 2.0) * x + np.zeros_like(x) + np.ones_like(x, dtype=float)", M),
    ("np.full_like(x, x[0, 0])", M),
    ("np.copy(x) + np.astype(x, np.float64)", M),
    ("np.linspace(x, y, 5)", V, W),
    ("np.linspace(x, 3.0, 4, endpoint=False, axis=-1)", V),
    ("np.linspace(x, 3.0, 4, retstep=True)[1]", V),
    ("np.logspace(x, 1.0, 4, base=2.0)", V),
    ("np.meshgrid(x, y)[0] * np.meshgrid(x, y)[1]", V, W[:3]),
    ("np.meshgrid(x, y, indexing='ij', sparse=True)[1]", V, W[:3]),
    # choosing, sorting, elementwise
    ("np.where(m, x, y)", M, N, {"m": MASK}),
    ("np.where(x > 0, x, 0.0)", M),
    ("np.where([1, 0, 2, 0], x, [1.0, 2.0, 3.0, 4.0])", M),
    ("np.select([x > 1, x > 0], [x, x**2], 3.0)", M),
    ("np.clip(x, -0.5, 0.7)", M),
    ("np.clip(x, min=-0.5)", M),
    ("np.clip(x, None, y)", M, N),
    ("np.take(x, [0, 2, 2])", M),
    ("np.take(x, [[0, 2], [2, -1]], axis=1)", M),
    ("np.take(x, [0, 5, -7], mode='wrap')", V),
    ("np.take(x, [0, 5, -7], mode='clip')", V),
    ("np.take_along_axis(x, i, axis=1)", M, {"i": np.array([[1, 0], [2, 2], [3, 0]])}),
    ("np.compress([True, False, True], x, axis=0)", M),
    ("np.extract(m, x)", M, {"m": MASK}),
    ("x[np.nonzero(x > 0)] + x[x > 0]", M),
    ("np.ravel(x)[np.flatnonzero(x > 0)]", M),
    ("np.sort(x)", M),
    ("np.sort(x, axis=0)", M),
    ("np.sort(x, axis=None)", M),
    ("np.take_along_axis(x, np.argsort(x, axis=0), 0)", M),
    ("np.sum(np.sort(np.partition(x, 2)[2:]))", V),
    ("x[np.searchsorted(np.sort(y), x)]", V * 0.3, W),
    ("np.around(x, 1) + np.round(x) + np.fix(x)", M),
    ("np.real(x) + np.imag(x)", M),
    ("np.real(x) + np.imag(x)", Z),
    ("np.angle(x)", Z),
    ("np.angle(x, deg=True)", Z),
    ("np.real_if_close(x)", Z),
    ("np.sinc(x)", M),
    ("np.sinc(x)", np.array([0.0, 1e-3, -6e-3, 0.3])),
    ("np.nan_to_num(x, nan=1.0)", GAPS),
    ("np.interp(x, k, [1.0, 3.0, 2.0, 5.0])", U[0], {"k": KNOTS}),
    ("np.interp(k, np.cumsum(x), y, left=0.5)", P[0], V, {"k": KNOTS}),
    ("np.polyval(x, y)", V, W),
    ("np.unwrap(x)", V * 4),
    *((f"np.convolve(x, y, '{mode}')", V, W[:k]) for mode in ("full", "same", "valid") for k in (1, 2, 3, 4)),
    ("np.convolve(x, y)", W[:3], V),
    *((f"np.correlate(x, y, '{mode}')", V, W[:k]) for mode in ("full", "same", "valid") for k in (2, 3)),
    ("np.correlate(x, y, 'full')", ZV, ZV[:2]),
    # products
    *((f"np.dot(x, y)", x, y) for x, y in ((V, W), (M, V), (M, N.T), (T, N.T), (V, T.swapaxes(1, 2)), (M, S * np.ones(())))),
    ("np.dot(x, [[1.0], [2.0], [3.0], [4.0]])", M),
    *((f"np.inner(x, y)", x, y) for x, y in ((V, W), (M, V), (M, N), (T, N), (M, S * np.ones(())))),
    ("np.outer(x, y)", M, V),
    ("np.vdot(x, y)", M, N),
    ("np.vdot(x, y)", ZV, ZV * 2j),
    ("np.tensordot(x, y)", M, N),
    ("np.tensordot(x, y, axes=(1, -1))", M, N),
    ("np.tensordot(x, y, axes=([0, 1], [1, 0]))", M, N.T),
    ("np.kron(x, y)", M, Q),
    ("np.kron(x, y)", V, M),
    ("np.cross(x, y)", Q, R),
    ("np.cross(x, y, axis=0)", Q, R[:, :1]),
    ("np.cross(x, y, axisa=0, axisb=1, axisc=0)", Q, R),
    # linear algebra
    *((f"np.linalg.norm(x, ord={o})", M) for o in (None, "'fro'", "'nuc'", 1, -1, 2, -2, "np.inf", "-np.inf")),
    *((f"np.linalg.norm(x, ord={o})", V) for o in (None, 1, 2, 3, 0.5, -1, "np.inf", "-np.inf")),
    ("np.linalg.norm(x)", T),
    ("np.linalg.norm(x, axis=1)", T),
    ("np.linalg.norm(x, 3, axis=(0), keepdims=True)", T),
    ("np.linalg.norm(x, 'fro', axis=(0, 2), keepdims=True)", T),
    ("np.linalg.norm(x, 'nuc', axis=(2, 0))", T),
    ("np.linalg.norm(x, axis=(0, 2))", T),
    *((f"np.linalg.{name}(x)", Q) for name in "inv det pinv".split()),
    ("np.linalg.slogdet(x)[1]", Q),
    ("np.linalg.slogdet(x).logabsdet", Q),
    ("np.linalg.solve(x, y)", Q, V[:3]),
    ("np.linalg.solve(x, y)", Q, M),
    ("np.linalg.eigh(x + x.T)[0]", Q),
    ("np.abs(np.linalg.eigh((x + x.T) / 2)[1])", Q),
    ("np.linalg.eigvalsh(x @ x.T)", Q),
    ("np.linalg.eigvalsh(x + x.T, 'U')", Q),
    ("np.linalg.svd(x, compute_uv=False)", M),
    ("np.abs(np.linalg.svd(x, full_matrices=False)[0])", M),
    ("np.linalg.svdvals(x)", M),
    ("np.linalg.cholesky(x @ x.T)", M),
    ("np.linalg.pinv(x)", M),
    ("np.linalg.matrix_power(x, 3)", Q),
    ("np.linalg.matrix_power(x, -2)", Q),
    ("np.abs(np.linalg.qr(x).Q)", Q),
    ("np.abs(np.linalg.qr(x, mode='r'))", Q),
    ("np.linalg.multi_dot([x, y, x])", Q, R),
    ("np.linalg.cond(x)", Q),
    ("np.linalg.cond(x, 1)", Q),
    ("np.linalg.tensorsolve(x, y)", rng.normal(size=(2, 3, 6)), rng.normal(size=(2, 3))),
    ("np.linalg.tensorinv(x)", rng.normal(size=(2, 3, 6))),
    ("np.linalg.outer(x, y)", V, W),
    ("np.linalg.cross(x, y)", Q, R),
    ("np.linalg.diagonal(x, offset=1)", T),
    ("np.linalg.trace(x, offset=1)", T),
    ("np.linalg.matmul(x, y.T) + np.linalg.matrix_transpose(x) @ p", Q, R, {"p": SPD}),
    ("np.linalg.vecdot(x, y)", M, N),
    ("np.linalg.vecdot(x, y, axis=0)", M, N),
    ("np.linalg.tensordot(x, y, axes=1)", M, N.T),
    ("np.linalg.vector_norm(x, axis=(0, 1))", T),
    ("np.linalg.matrix_norm(x, ord='nuc')", T),
    # Fourier transforms
    *((f"np.real(np.fft.{name}(x))", a) for name in "fft ifft fftn ifftn fft2 ifft2".split() for a in (M, Z)),
    *((f"np.imag(np.fft.{name}(x))", M) for name in "rfft rfftn rfft2 ihfft".split()),
    *((f"np.fft.{name}(x)", Z) for name in "irfft irfftn irfft2 hfft".split()),
    ("np.abs(np.fft.fft(x, 3, 0, 'ortho'))", M),
    ("np.abs(np.fft.rfftn(x, s=(2, 3), axes=(0, 1)))", T),
    ("np.fft.irfft(x, n=5, axis=0)", Z),
    ("np.fft.fftshift(x) + np.fft.ifftshift(x, axes=1)", M),
    # Einstein's summation
    *((f"np.einsum('{subscripts}', {', '.join('xyz'[: len(operands)])})", *operands) for subscripts, *operands in (
        ("ij->", M), ("ij->ji", M), ("ij->j", M), ("ii", Q), ("ii->i", Q), ("iij->j", rng.normal(size=(3, 3, 2))),
        ("iii->i", rng.normal(size=(3, 3, 3))), ("iijj->ij", rng.normal(size=(2, 2, 3, 3))),
        ("ij,jk", M, N.T), ("ij,jk->ik", M, N.T), ("ij,jk->ki", M, N.T), ("ij,ij->i", M, N), ("ij,ij", M, N),
        ("i,j->ij", V, W), ("i,i", V, W), ("ij,k->j", M, V), ("ij,->ij", M, S * np.ones(())), (",", S * np.ones(()), S * np.ones(())),
        ("...ij,...jk->...ik", T, N.T), ("...i->...", T), ("i...,i...", Q, R), ("...,...", T, M), ("j...i->...ji", T),
        ("...ii->...i", rng.normal(size=(2, 3, 3))), ("bij,bjk->bik", T, T.swapaxes(1, 2)), ("bij,bik->bjk", T, T),
        ("ij,jk,kl->il", M, N.T, Q), ("ab,cd,bc->ad", Q, R, SPD), ("i,i,i->i", V, W, V * W), ("ij,i,j->", M, V[:3], W),
        ("ij,ij->ij", M, N[:1]), ("i...,...->i...", M[:, None], T), ("ij, jk -> ik", M, N.T), ("ba", M), ("ii,jj->ij", Q, R),
        ("ik,jk->ijk", M, N), ("iij,jk->k", rng.normal(size=(3, 3, 4)), N.T),
    )),
    ("np.einsum(x, [0, 1], y, [2, 1], [0, 2])", M, N),
    ("np.einsum(x, [0, 1], y, [2, 1])", M, N),
    ("np.einsum(x, [Ellipsis, 1], y, [1])", T, V),
    ("np.einsum('ij,jk->ik', x, p, optimize=True, dtype=np.float64)", M, {"p": N.T}),
    # methods
    *((f"x.{call}", T) for call in (
        "sum()", "sum(1)", "sum(axis=(0, 1), keepdims=True)", "mean(-1)", "prod(axis=1)", "var(ddof=1)", "std(0)", "max()", "min(2)",
        "cumsum()", "cumsum(axis=1)", "cumprod(1)", "reshape(4, 6)", "reshape((4, -1))", "reshape(-1)", "reshape(6, 4, order='F')",
        "ravel()", "flatten()", "flatten('F')", "transpose()", "transpose(2, 0, 1)", "transpose((2, 0, 1))", "swapaxes(0, 1)",
        "reshape(1, 24, 1).squeeze()", "repeat(2, axis=1)", "take([0, 1, 1], axis=2)", "clip(-0.5, 0.5)",
        "clip(max=0.5)", "round(1)", "astype(np.float64)", "astype(float, copy=False)", "copy()", "conj()", "conjugate()",
        "diagonal(0, 1, 2)", "trace(axis1=1, axis2=2)", "compress([True, False], axis=0)", "real", "imag", "T", "mT", "sum(out=None)")),
    ("x.dot(p)", T, {"p": V}),
    ("x.real * x.imag + x.conj()", Z),
    ("x[x.argsort()] * x[x.argmax()] + x[x.nonzero()] + x[x.argmin()] + x[x.searchsorted(x[2])]", np.sort(V)),
    ("np.where((x > 0).any(axis=0) & (x < 5).all(), x, 2.0)", M),
]  # fmt: skip


def _of(case):
    source, *given = case
    named = given.pop() if isinstance(given[-1], dict) else {}
    code = compile(source, source, "eval")

    def f(*args):
        return eval(code, {"np": np, **dict(zip("xyz", args, strict=False)), **named})

    return f, [np.asarray(a) for a in given], named


def _sizes_of(case):
    return "-".join("x".join(map(str, np.shape(a))) or "0d" for a in case[1:] if not isinstance(a, dict))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]} {_sizes_of(case)}")
def test_values_and_derivatives(case):
    f, args, _ = _of(case)
    plain = f(*args)
    value, _ = bp.vjp(f, *args)
    if isinstance(plain, tuple | list):
        plain, value = plain[0], value[0]
    assert np.shape(value) == np.shape(plain)
    assert value.dtype == np.asarray(plain).dtype
    np.testing.assert_allclose(value, plain, rtol=1e-13, atol=1e-14)
    if not any(np.isnan(a).any() for a in args):
        check_grads(f, args, order=2)


def _weights(x):
    return np.cos(np.arange(x.size, dtype=x.real.dtype)).reshape(x.shape).astype(x.dtype)


#: What a library does not do.
NOT_THERE = {
    "array_api_strict": ("p *", "p @"),  # its operators refuse other libraries' objects instead of deferring to them
    "torch": ("np.dot(x, [[",),  # it makes float32 of Python's numbers, and does not multiply matrices of two dtypes
}


@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::UserWarning")
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]} {_sizes_of(case)}")
def test_the_arrays_of_any_library(case, backend):
    if case[0].startswith(NOT_THERE.get(backend.name, ("-",))):
        pytest.skip("not in this library")
    f, args, named = _of(case)
    value, pullback = bp.vjp(f, *args)
    value = value[0] if isinstance(value, tuple | list) else value
    gradients = pullback(_weights(value))
    f, _, moved = _of((*case[:-1], {k: backend.asarray(v) for k, v in named.items()}) if named else case)
    there, pullback = bp.vjp(f, *map(backend.asarray, args))
    np.testing.assert_allclose(backend.to_numpy(there), value, rtol=1e-11, atol=1e-12)
    for g, expected in zip(pullback(backend.asarray(_weights(value))), gradients, strict=True):
        np.testing.assert_allclose(backend.to_numpy(g), expected, rtol=1e-9, atol=1e-10)
