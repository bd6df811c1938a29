"""NumPy code on traced arrays: values as NumPy's, gradients as finite differences'."""

import operator
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import gpubp as bp
from gpubp.array import strip
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

words = str.split

#: What is computed, and from what. The first word after ``np.`` names the function in the committed list.
CASES = [
    # ufuncs
    *((f"np.{name}(x)", U) for name in
      words("sin cos tan sinh cosh tanh arcsin arccos arctan arcsinh arctanh exp exp2 expm1 log1p negative positive "
            "square absolute abs fabs cbrt deg2rad rad2deg degrees radians sign floor ceil trunc rint conjugate")),
    *((f"np.{name}(x)", P) for name in words("sqrt log log2 log10 reciprocal")),
    ("np.arccosh(x)", P + 1),
    *((f"np.{name}(x, y)", M, N) for name in
      words("add subtract multiply divide true_divide hypot arctan2 logaddexp logaddexp2 maximum minimum fmax fmin "
            "copysign heaviside")),
    *((f"np.{name}(x, y)", P, N) for name in words("power float_power remainder mod fmod floor_divide")),
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
    ("np.vecdot(x, y)", M, V),
    ("np.vecdot(x, y, axis=0)", ZV, Z[0]),
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
    *((f"np.{name}.reduce(x)", M) for name in words("add multiply maximum minimum logaddexp hypot")),
    ("np.add.reduce(x, axis=(0, 2))", T),
    ("np.add.reduce(x, axis=None)", T),
    ("np.maximum.reduce(x, axis=1, keepdims=True)", T),
    ("np.logaddexp.reduce(x, axis=1, keepdims=True)", T),
    ("np.logaddexp.reduce(x, axis=None)", M),
    *((f"np.{name}.accumulate(x, axis=1)", M) for name in words("add multiply maximum minimum logaddexp")),
    *((f"np.{name}.outer(x, y)", V, M) for name in words("add multiply subtract maximum")),
    # sums and averages
    *((f"np.{name}(x{extra})", T) for name in words("sum prod mean var std max min amax amin ptp median")
      for extra in ("", ", axis=1", ", 1", ", axis=(0, -1), keepdims=True")),
    *((f"np.{name}(x{extra})", T) for name in words("nansum nanprod nanmean nanvar nanstd nanmax nanmin")
      for extra in ("", ", axis=1", ", axis=(0, -1), keepdims=True")),
    *((f"np.nan_to_num(np.{name}(x, axis=1))", GAPS) for name in
      words("nansum nanprod nanmean nanvar nanstd nanmax nanmin nancumsum nancumprod")),
    *((f"np.{name}(x{extra})", T) for name in words("cumsum cumprod") for extra in ("", ", 1", ", axis=-1")),
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
    *((f"np.quantile(x, 0.3, axis=1, method='{m}')", T) for m in words("linear lower higher nearest midpoint")),
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
    ("np.permute_dims(x, (1, 2, 0))", T),
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
    *((f"np.{name}([x, y])", V, W) for name in words("vstack hstack dstack column_stack stack block")),
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
    *((f"np.pad(x, ((0, 2), (2, 1)), mode='{mode}')", M) for mode in words("edge reflect symmetric wrap")),
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
    ("np.real(np.sort_complex(x))", V),
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
    *(("np.dot(x, y)", x, y) for x, y in ((V, W), (M, V), (M, N.T), (T, N.T), (V, T.swapaxes(1, 2)),
          (M, S * np.ones(())))),
    ("np.dot(x, [[1.0], [2.0], [3.0], [4.0]])", M),
    *(("np.inner(x, y)", x, y) for x, y in ((V, W), (M, V), (M, N), (T, N), (M, S * np.ones(())))),
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
    *((f"np.linalg.{name}(x)", Q) for name in words("inv det pinv")),
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
    ("np.abs(np.linalg.eig(x)[0])", Q),
    ("np.real(np.linalg.eigvals(x))", Q),
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
    *((f"np.real(np.fft.{name}(x))", a) for name in words("fft ifft fftn ifftn fft2 ifft2") for a in (M, Z)),
    *((f"np.imag(np.fft.{name}(x))", M) for name in words("rfft rfftn rfft2 ihfft")),
    *((f"np.fft.{name}(x)", Z) for name in words("irfft irfftn irfft2 hfft")),
    ("np.abs(np.fft.fft(x, 3, 0, 'ortho'))", M),
    ("np.abs(np.fft.rfftn(x, s=(2, 3), axes=(0, 1)))", T),
    ("np.fft.irfft(x, n=5, axis=0)", Z),
    ("np.fft.fftshift(x) + np.fft.ifftshift(x, axes=1)", M),
    # Einstein's summation
    *((f"np.einsum('{subscripts}', {', '.join('xyz'[: len(operands)])})", *operands) for subscripts, *operands in (
        ("ij->", M), ("ij->ji", M), ("ij->j", M), ("ii", Q), ("ii->i", Q), ("iij->j", rng.normal(size=(3, 3, 2))),
        ("iii->i", rng.normal(size=(3, 3, 3))), ("iijj->ij", rng.normal(size=(2, 2, 3, 3))),
        ("ij,jk", M, N.T), ("ij,jk->ik", M, N.T), ("ij,jk->ki", M, N.T), ("ij,ij->i", M, N), ("ij,ij", M, N),
        ("i,j->ij", V, W), ("i,i", V, W), ("ij,k->j", M, V), ("ij,->ij", M, S * np.ones(())),
        (",", S * np.ones(()), S * np.ones(())),
        ("...ij,...jk->...ik", T, N.T), ("...i->...", T), ("i...,i...", Q, R), ("...,...", T, M), ("j...i->...ji", T),
        ("...ii->...i", rng.normal(size=(2, 3, 3))), ("bij,bjk->bik", T, T.swapaxes(1, 2)), ("bij,bik->bjk", T, T),
        ("ij,jk,kl->il", M, N.T, Q), ("ab,cd,bc->ad", Q, R, SPD), ("i,i,i->i", V, W, V * W), ("ij,i,j->", M, V[:3], W),
        ("ij,ij->ij", M, N[:1]), ("i...,...->i...", M[:, None], T), ("ij, jk -> ik", M, N.T), ("ba", M),
        ("ii,jj->ij", Q, R),
        ("ik,jk->ijk", M, N), ("iij,jk->k", rng.normal(size=(3, 3, 4)), N.T),
    )),
    ("np.einsum(x, [0, 1], y, [2, 1], [0, 2])", M, N),
    ("np.einsum(x, [0, 1], y, [2, 1])", M, N),
    ("np.einsum(x, [Ellipsis, 1], y, [1])", T, V),
    ("np.einsum('ij,jk->ik', x, p, optimize=True, dtype=np.float64)", M, {"p": N.T}),
    # methods
    *((f"x.{call}", T) for call in (
        "sum()", "sum(1)", "sum(axis=(0, 1), keepdims=True)", "mean(-1)", "prod(axis=1)", "var(ddof=1)", "std(0)",
        "max()", "min(2)",
        "cumsum()", "cumsum(axis=1)", "cumprod(1)", "reshape(4, 6)", "reshape((4, -1))", "reshape(-1)",
        "reshape(6, 4, order='F')",
        "ravel()", "flatten()", "flatten('F')", "transpose()", "transpose(2, 0, 1)", "transpose((2, 0, 1))",
        "swapaxes(0, 1)",
        "reshape(1, 24, 1).squeeze()", "repeat(2, axis=1)", "take([0, 1, 1], axis=2)", "clip(-0.5, 0.5)",
        "clip(max=0.5)", "round(1)", "astype(np.float64)", "astype(float, copy=False)", "copy()", "conj()",
        "conjugate()",
        "diagonal(0, 1, 2)", "trace(axis1=1, axis2=2)", "compress([True, False], axis=0)", "real", "imag", "T",
        "mT", "sum(out=None)")),
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
    # its operators refuse other libraries' objects instead of deferring to them
    "array_api_strict": ("p *", "p @"),
    "array_api_strict_device1": ("p *", "p @", "x[np.nonzero"),  # on this device it does not assign at masks either
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
    f, _, _ = _of((*case[:-1], {k: backend.asarray(v) for k, v in named.items()}) if named else case)
    there, pullback = bp.vjp(f, *map(backend.asarray, args))
    np.testing.assert_allclose(backend.to_numpy(there), value, rtol=1e-11, atol=1e-12)
    for g, expected in zip(pullback(backend.asarray(_weights(value))), gradients, strict=True):
        np.testing.assert_allclose(backend.to_numpy(g), expected, rtol=1e-9, atol=1e-10)


def test_matrix_vector_ufuncs():
    if not hasattr(np, "matvec"):
        pytest.skip("NumPy 2.2 brings them")
    for f in (lambda x, y: np.matvec(x, y), lambda x, y: np.vecmat(y[..., :3], x)):
        np.testing.assert_allclose(bp.vjp(f, T, V)[0], f(T, V))
        check_grads(f, (T, V))


# -- what is no function of floating arrays


def in_transform(f, *args):
    """What f returns for traced arguments."""
    found = []

    def g(*traced):
        found.append(f(*traced))
        return traced[0]

    bp.vjp(g, *args)
    return found[0]


def test_constants_and_questions():
    assert in_transform(lambda x: (np.shape(x), np.ndim(x), np.size(x), np.size(x, 1)), M) == ((3, 4), 2, 12, 4)
    assert in_transform(lambda x: (np.iscomplexobj(x), np.isrealobj(x)), Z) == (True, False)
    assert in_transform(lambda x: np.result_type(x, np.float32, 3), M) == np.float64
    assert in_transform(lambda x: np.can_cast(x, np.float32), M) is np.can_cast(M, np.float32)
    assert in_transform(lambda x: (x.itemsize, x.nbytes), M) == (8, 96)
    assert in_transform(lambda x: bool(np.allclose(x, M)) and bool(np.array_equal(x, x)), M)
    assert not in_transform(lambda x: np.array_equal(x, x[0]), M)
    assert in_transform(lambda x: bool(np.array_equiv(x, x[:1])), M[:1] * np.ones((3, 1)))
    for code in (
        "argmax(x)", "argmax(x, axis=1)", "argmin(x, 0, keepdims=True)", "argsort(x, axis=0)", "argwhere(x > 0)",
        "any(x > 1)", "all(x > -3, axis=0)", "count_nonzero(x > 0, axis=1)", "isclose(x, y)", "isin(x, y)",
        "nanargmax(x, 1)", "nanargmin(x)", "isreal(x)", "iscomplex(x)", "isposinf(x / 0)", "isneginf(x / 0)",
        "empty_like(x).shape", "zeros_like(x, dtype=np.float32)", "ones_like(x, shape=(2, 2))", "nonzero(x > 0)[1]",
        "full_like(x, 3, shape=5)", "greater(x, y)", "less_equal(x, y)", "equal(x, 0)", "not_equal(x, y)",
        "linalg.matrix_rank(x)", "linalg.matrix_rank(x, tol=0.1)",
        "any(x > 0, where=y > 0, axis=1)", "all(x > 0, where=y > 9)", "bitwise_and(x > 0, y > 0)",
        "argpartition(x[0], 2)[2]",
        "invert(x > 0)", "logical_xor(x > 0, y > 0)", "logical_and.reduce(x > 0)",
        "logical_or.reduce(x > 0, axis=None)",
        "left_shift(i, 1)", "right_shift(i, 1)", "bitwise_or(i, 1)", "bitwise_xor(i, 1)", "spacing(1.0) * i",
    ):  # fmt: skip
        f = eval(f"lambda x, y, i: np.{code}")
        i = np.arange(4)
        with np.errstate(all="ignore"):
            found, expected = in_transform(f, M, N, i), f(M, N, i)
        if hasattr(expected, "dtype"):
            assert (found.dtype, found.shape) == (expected.dtype, expected.shape), code
            assert found.node is None, code
            np.testing.assert_array_equal(found.data, expected, err_msg=code)
        else:
            assert found == expected, code


def test_nextafter_has_values_but_no_derivative():
    np.testing.assert_array_equal(bp.vjp(lambda x: np.nextafter(x, 0.0), V)[0], np.nextafter(V, 0.0))
    with pytest.raises(NotImplementedError, match="nextafter has no derivative"):
        bp.grad(lambda x: np.sum(np.nextafter(x, 0.0)))(V)


def test_empty_arrays():
    empty = np.zeros((0, 3))
    for f in (
        lambda x: np.sum(x, axis=0), lambda x: np.concatenate([x, np.ones((2, 3))]),
        lambda x: np.einsum("ij,ik->jk", x, x),
        lambda x: np.pad(x, 1), lambda x: np.tile(x, 2), lambda x: np.diff(x), lambda x: x.reshape(3, -1), np.exp,
    ):  # fmt: skip
        value, pullback = bp.vjp(f, empty)
        np.testing.assert_array_equal(value, f(empty))
        assert pullback(np.ones_like(value))[0].shape == (0, 3)


def test_lists_of_traced_values():
    f = lambda x: np.sum(np.stack([x[0] * x[1], x[2], 3.0]) ** 2) + np.where(x[0] > 0, [x[1], 1.0], x[2])[0]  # noqa: E731
    check_grads(f, (V,))


def test_dtypes():
    x = M.astype(np.float32)
    assert in_transform(lambda x: np.add(x, x, dtype=np.float64).dtype, x) == np.float64
    assert in_transform(lambda x: np.sum(x, dtype="float64").dtype, x) == np.float64
    assert in_transform(lambda x: np.add.reduce(x, dtype=float).dtype, x) == np.float64
    assert in_transform(lambda x: np.float_power(x, 2.0).dtype, x) == np.float64
    assert in_transform(lambda x: x.astype("float64").dtype, x) == np.float64
    (gradient,) = bp.vjp(lambda x: np.mean(x, dtype=np.float64), x)[1](1.0)
    assert gradient.dtype == np.float32


# -- errors


def raises(error, match, f, *args):
    with pytest.raises(error, match=match):
        in_transform(f, *(args or (V,)))


def test_writing_into_plain_arrays_is_refused():
    plain = np.ones(4)

    def in_place(x):
        nonlocal plain
        plain += x

    raises(TypeError, r"numpy\.add cannot write a traced value .* write x = x \+ y", in_place)
    raises(TypeError, r"numpy\.multiply cannot write", lambda x: np.multiply(x, 2, out=plain))
    raises(TypeError, r"numpy\.add cannot write", lambda x: np.add.at(plain, [0], x[0]))
    raises(TypeError, r"numpy\.sum cannot write", lambda x: np.sum(x, out=plain[0]))
    raises(TypeError, r"numpy\.mean cannot write", lambda x: x.mean(out=plain[0]))
    raises(TypeError, r"numpy\.copyto writes into an array", lambda x: np.copyto(plain, x))
    raises(TypeError, r"numpy\.fill_diagonal writes into an array", lambda x: np.fill_diagonal(x, 0.0), Q)
    raises(TypeError, "conversion to a NumPy array .* use stack", lambda x: np.array([x[0], x[1]]))
    raises(TypeError, "conversion to a NumPy array", lambda x: np.full((2, 4), x))
    raises((TypeError, ValueError), None, lambda x: plain.__setitem__(0, x[0]))
    raises(TypeError, "conversion to a NumPy array", lambda x: plain.__setitem__(slice(None), x))
    np.testing.assert_array_equal(plain, 1)


def test_what_is_not_in_the_list_is_named():
    raises(TypeError, r"numpy\.histogram is not among .* docs/numpy\.md", np.histogram)
    raises(TypeError, r"numpy\.linalg\.lstsq is not among", lambda x: np.linalg.lstsq(x, x), Q)
    raises(TypeError, r"numpy\.frexp is not among", np.frexp)
    raises(TypeError, r"numpy\.add\.reduceat .* no derivative", lambda x: np.add.reduceat(x, [0, 2]))
    raises(TypeError, r"numpy\.add with where=", lambda x: np.add(x, x, where=[True, False, True, True]))
    raises(TypeError, r"numpy\.add .* floating dtype", lambda x: np.add(x, x, dtype=int))
    raises(TypeError, r"numpy\.matmul of a traced array does not take axes", lambda x: np.matmul(x, x, axes=[0, 0, 0]))
    raises(TypeError, r"gpubp's ufunc\.reduce.* 'initial'", lambda x: np.add.reduce(x, initial=1.0))
    raises(TypeError, r"gpubp's numpy\.var.* 'where'", lambda x: np.var(x, where=[True, True, False, True]))
    raises(TypeError, r"numpy\.pad .* got 'linear_ramp'", lambda x: np.pad(x, 1, mode="linear_ramp"))
    raises(TypeError, r"numpy\.quantile .* got 'hazen'", lambda x: np.quantile(x, 0.5, method="hazen"))
    raises(TypeError, "float\\(\\) of a traced array", lambda x: np.quantile(x, x[0] ** 2))
    raises(AttributeError, r"no attribute 'sort': it would .* write numpy\.sort\(x\)", lambda x: x.sort())
    raises(AttributeError, r"no attribute 'fill': it would .* write x\[\.\.\.\] = value", lambda x: x.fill(0))
    raises(AttributeError, "no attribute 'unsqueeze'", lambda x: x.unsqueeze(0))
    raises(AttributeError, "_private", lambda x: x._private)


@pytest.mark.parametrize(
    "subscripts", ["ij,jk", "ijk", "i", "ij->ii", "ij->k", "i$", "ij,ij,ij", "...ij->ij", "ij->i->j", "i..j"]
)
def test_einsum_errors(subscripts):
    operands = (M, M) if subscripts.count(",") != 0 else (T,) if "..." in subscripts else (M,)
    with pytest.raises(ValueError):  # noqa: PT011  (the wording is NumPy's own for each)
        np.einsum(subscripts, *operands)
    raises(ValueError, "einsum", lambda *x: np.einsum(subscripts, *x), *operands)


def test_einsum_multiplies_small_things_first():
    long = np.ones((1, 300))
    value, _ = bp.vjp(lambda a, b, c: np.einsum("ab,cd,bc->ad", a, b, c), long.T, long.T, np.ones((1, 300)))
    assert value.shape == (300, 1)


# -- operators with a plain array of the same library on the left

OPERATORS = ["add", "sub", "mul", "truediv", "pow", "floordiv", "mod", "matmul", "lt", "le", "gt", "ge", "eq", "ne"]


@pytest.mark.parametrize("name", OPERATORS)
def test_plain_on_the_left(name, backend):
    f = getattr(operator, name)
    left, right = backend.asarray(Q**2), backend.asarray(SPD**2)
    expected = f(left, right)
    if backend.name.startswith("array_api_strict"):
        raises(TypeError, "Expected Array or Python scalar", lambda x: f(left, x), right)
        left = bp.constant(left)
    found = in_transform(lambda x: f(left, x), right)
    assert type(found).__name__ == "Array"
    np.testing.assert_allclose(backend.to_numpy(strip(found)), backend.to_numpy(expected))
    if name in ("add", "sub", "mul", "truediv", "pow", "matmul"):
        given = backend.to_numpy(bp.grad(lambda x: bp.array_namespace(x).sum(f(left, x)))(right))
        np.testing.assert_allclose(given, bp.grad(lambda x: np.sum(f(Q**2, x)))(SPD**2), rtol=1e-12)


@pytest.mark.parametrize("name", ["and_", "or_", "xor", "lshift", "rshift"])
def test_plain_integers_on_the_left(name, backend):
    f = getattr(operator, name)
    left, right = backend.asarray(np.array([1, 2, 7])), backend.asarray(np.array([3, 1, 2]))
    if backend.name.startswith("array_api_strict"):
        left = bp.constant(left)
    found = in_transform(lambda _, i: f(left, i), backend.asarray(V), right)
    np.testing.assert_array_equal(backend.to_numpy(strip(found)), f(np.array([1, 2, 7]), np.array([3, 1, 2])))


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.peers
def test_torch_tensors_beside_traced_ones():
    torch = pytest.importorskip("torch")
    x = torch.asarray(M)
    raises(RuntimeError, r"torch\.Tensor\.add_ writes into a tensor", lambda t: operator.iadd(x, t), x)
    raises(RuntimeError, r"torch\.Tensor\.__setitem__ writes", lambda t: x.__setitem__(0, t[0]), x)
    raises(TypeError, r"torch\.exp was given a traced array", torch.exp, x)
    raises(TypeError, r"torch\.add was given a traced array", lambda t: torch.add(x, t, alpha=2), x)
    chosen = in_transform(lambda t: x[t > 0], x)
    np.testing.assert_array_equal(strip(chosen).numpy(), M[M > 0])
    chosen = in_transform(lambda t: x[np.argmax(t[:, 0]), :2], x)
    np.testing.assert_array_equal(strip(chosen).numpy(), M[np.argmax(M[:, 0]), :2])


def test_host_scalars_on_the_left():
    for scalar in (2.0, np.float64(2.0), np.float32(2.0), 2, True):
        check_grads(lambda x, a=scalar: np.sum(a * x + a / (x**2 + a) - a), (V,))


# -- other people's code


def _extra(name):
    xpx = pytest.importorskip("array_api_extra")
    if not hasattr(xpx, name):
        pytest.skip(f"this array-api-extra has no {name}")
    return xpx


@pytest.mark.parametrize(
    ("name", "code", "args"),
    [
        ("kron", "xpx.kron(x, y)", (M, Q)),
        ("cov", "xpx.cov(x)", (M,)),
        ("pad", "xpx.pad(x, ((1, 0), (2, 1)), constant_values=2.0)", (M,)),
        ("at", "xpx.at(x)[1, ...].set(2 * x[0, ...])", (M,)),
        ("at", "xpx.at(x)[1, 1:].add(y[:3])", (M, V)),
        ("at", "xpx.at(x)[:, 0].multiply(y[:3], copy=True)", (M, V)),
        ("at", "xpx.at(x)[x > 0].set(1.0)", (M,)),
        ("apply_where", "xpx.apply_where(x > 0, x, lambda x: xp.log(x), lambda x: x**3)", (M,)),
        ("apply_where", "xpx.apply_where(x > 0, (x, y), lambda x, y: xp.exp(x) * y, fill_value=1.0)", (M, N)),
        ("nan_to_num", "xpx.nan_to_num(x * y)", (M, N)),
        ("one_hot", "xp.expand_dims(x, axis=-1) * xpx.one_hot(xp.astype(x > 0, xp.int64), 2, dtype=x.dtype)", (M,)),
        ("sinc", "xpx.sinc(x)", (M,)),
        ("create_diagonal", "xpx.create_diagonal(x, offset=1)", (V,)),
        ("expand_dims", "xpx.expand_dims(x, axis=(0, 2))", (M,)),
        ("atleast_nd", "xpx.atleast_nd(x, ndim=3) ** 2", (M,)),
        ("angle", "xpx.angle(x)", (Z,)),
    ],
)  # fmt: skip
def test_array_api_extra(name, code, args, backend):
    xpx = _extra(name)

    def f(*args):
        return eval(code, {"xpx": xpx, "xp": bp.array_namespace(*args), **dict(zip("xy", args, strict=False))})

    if backend.name.startswith("array_api_strict") and name == "cov":
        pytest.skip("its operators refuse other libraries' objects, so jvp of a product fails")
    if backend.name == "array_api_strict_device1" and (name == "apply_where" or "x > 0]" in code):
        pytest.skip("it does not assign at masks on this device")
    check_grads(f, [backend.asarray(a) for a in args])


SCIPY = """
import numpy as np, gpubp as bp, scipy.special as special
from gpubp.testing import check_grads
x = np.random.default_rng(0).uniform(0.2, 2, size=(3, 4))
check_grads(lambda x: special.logsumexp(x, axis=1), (x,))
check_grads(lambda x: special.logsumexp(x * x), (x,))
check_grads(lambda x: special.softmax(x, axis=1), (x,))
check_grads(lambda x: special.log_softmax(x, axis=0), (x,))
check_grads(lambda x, y: special.xlogy(x, y), (x, x + 1))
"""


@pytest.mark.peers
def test_scipy_with_array_api_mode():
    pytest.importorskip("scipy")
    done = subprocess.run(
        [sys.executable, "-c", SCIPY],
        env={**os.environ, "SCIPY_ARRAY_API": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.peers
def test_scipy_ufuncs_are_named():
    special = pytest.importorskip("scipy.special")
    raises(TypeError, "compiled ufunc 'expit' is not among", special.expit)


#: What autograd can do too: it knows no reduce, no negative axes and no repeated indices, among others.
PEERS = """
np.sin(x); np.tanh(x); np.log1p(x); np.logaddexp(x, y); np.power(x, y); np.hypot(x, y); np.arctan2(x, y)
np.sum(x, axis=1); np.prod(x); np.mean(x, axis=(0, -1), keepdims=True); np.var(x, axis=1); np.std(x); np.max(x, axis=1)
np.cumsum(x, axis=-1); np.reshape(x, (4, 3)); np.transpose(x); np.swapaxes(x, 0, -1); np.moveaxis(x, 0, -1)
np.concatenate([x, y]); np.stack([x, y], axis=-1); np.vstack([x, y]); np.hstack([x, y]); np.tile(x, (2, 1, 3))
np.repeat(x, 2); np.roll(x, 1); np.rot90(x, 3); np.diff(x); np.gradient(x); np.where(m, x, y)
np.clip(x, -0.5, 0.7); np.dot(x, y); np.inner(x, y); np.outer(x, y); np.tensordot(x, y); np.kron(x, y)
np.trace(x); np.einsum('ij,jk->ik', x, y); np.einsum('...ij,...jk->...ik', x, y); np.einsum('ab,cd,bc->ad', x, y, z)
np.linalg.inv(x); np.linalg.det(x); np.linalg.solve(x, y); np.linalg.pinv(x); np.linalg.norm(x, ord='nuc')
np.linalg.eigh(x + x.T)[0]; np.linalg.svd(x, compute_uv=False); np.linalg.slogdet(x)[1]; np.linalg.norm(x, axis=1)
"""
PEERS = [case for case in CASES if case[0] in re.split(r"; |\n", PEERS) and _sizes_of(case) not in ("3x4-4", "3x4-0d")]


def test_the_peers_cases_are_there():
    assert len({case[0] for case in PEERS}) > 40


@pytest.mark.peers
@pytest.mark.parametrize("case", PEERS, ids=lambda case: f"{case[0]} {_sizes_of(case)}")
def test_autograd_agrees(case):
    anp = pytest.importorskip("autograd.numpy")
    from autograd import elementwise_grad

    source, *given = case
    named = given.pop() if isinstance(given[-1], dict) else {}
    f, args, _ = _of(case)
    value, pullback = bp.vjp(f, *args)
    ours = pullback(np.ones_like(value))
    for k, gradient in enumerate(ours):

        def theirs(x, k=k):
            values = [*args[:k], x, *args[k + 1 :]]
            return eval(source, {"np": anp, **dict(zip("xyz", values, strict=False)), **named})

        np.testing.assert_allclose(gradient, elementwise_grad(theirs)(args[k]), rtol=1e-9, atol=1e-11)


# -- the committed list


def test_the_documentation_lists_what_there_is():
    text = (Path(__file__).parent.parent / "docs" / "numpy.md").read_text()
    for kind, names in supported().items():
        found = re.search(rf"^## .*<!-- {kind} -->$(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
        assert found, f"docs/numpy.md has no section on {kind}"
        listed = re.findall(r"`(\w+)`", "".join(re.findall(r"^- .*(?:\n  .*)*", found[1], re.MULTILINE)))
        if kind == "ufuncs":  # some are younger than others
            listed = [name for name in listed if hasattr(np, name)]
        assert sorted(listed) == names, kind


def test_every_listed_function_is_tested():
    tested = {name.removeprefix("np.") for case in CASES for name in re.findall(r"np\.[a-z_.0-9A-Z]+", case[0])}
    source = Path(__file__).read_text()
    missing = [
        name for kind, prefix in (("ufuncs", ""), ("functions", ""), ("linalg", "linalg."), ("fft", "fft."))
        for name in supported()[kind]
        if f"{prefix}{name}" not in tested and not re.search(rf"\b{prefix}{name}\b", source)
    ]  # fmt: skip
    assert not missing
