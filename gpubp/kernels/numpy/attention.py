"""Attention on NumPy: a block of queries of one sequence at a time, whose weights stay in the cache."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from ...functions.attention import Block, attention, blocks, check, check_dropout, scale_of
from .common import ndarray, ones

_matmul, _multiply, _subtract = np.matmul, np.multiply, np.subtract


def _forward(
    xp: Any,
    needs: Any,
    q: Any,
    k: Any,
    v: Any,
    mask: Any = None,
    step: Any = None,
    /,
    *,
    causal: bool = False,
    scale: float | None = None,
    dropout: float = 0.0,
    key: Any = None,
) -> Any:
    check(q, k, v, mask)
    check_dropout(dropout, key, step)
    if not _suitable(needs, q, v, mask):
        return NotImplemented
    shape = (*q.shape[:-1], v.shape[-1])
    q, k, v = map(_sequences, (q, k, v))
    out = np.empty((*q.shape[:-1], v.shape[-1]), q.dtype)
    log_sums = np.empty((len(q), q.shape[2], q.shape[1], 1), q.dtype)
    one = ones(q.dtype.char, k.shape[1])
    scores = _Scores(q, k, scale)
    for block in blocks(xp, q, k, mask, causal):
        here = slice(block.start, block.stop)
        queries, values, outs = block.queries(q), block.keys(v), block.queries(out)
        kept = block.kept(step, dropout, key) if dropout else None
        for n in range(len(q)):
            s = scores.of(block, n, queries)[1]
            top = np.maximum.reduce(s, -1, keepdims=True)
            top[top == -math.inf] = 0
            _subtract(s, top, s)
            np.exp(s, s)
            total = s.dot(one[: block.end])[..., None]
            total[total == 0] = 1
            np.add(top, np.log(total), log_sums[n, :, here])
            if kept is not None:
                _multiply(s, kept[n], s)
                total *= 1 - dropout
            o = _matmul(s, values[n], out=outs[n])
            np.divide(o, total, o)
    return out.reshape(shape), (q, k, v, mask, step, out if needs[0] or needs[1] else None, log_sums)


def _backward(
    xp: Any,
    needs: Any,
    dY: Any,
    residuals: Any,
    *,
    causal: bool = False,
    scale: float | None = None,
    dropout: float = 0.0,
    key: Any = None,
) -> Any:
    q, k, v, mask, step, out, log_sums = residuals
    batch = dY.shape[:-3]
    dY = _sequences(dY)
    dq, dk, dv = (make(x.shape, x.dtype) for make, x in ((np.empty, q), (np.zeros, k), (np.zeros, v)))
    scores = _Scores(q, k, scale)
    if out is not None:
        v_columns = _columns(v)
        delta = np.einsum("bthf,bthf->bht", dY, out)[..., None]
    for block in blocks(xp, q, k, mask, causal):
        here = slice(block.start, block.stop)
        queries, keys, cotangents = block.queries(q), block.keys(k), block.queries(dY)
        dqs, dks, dvs = block.queries(dq), block.keys(dk), block.keys(dv)
        kept = block.kept(step, dropout, key) if dropout else None
        for n in range(len(q)):
            scaled, p = scores.of(block, n, queries)
            _subtract(p, log_sums[n, :, here], p)
            np.exp(p, p)
            dO = cotangents[n]
            if kept is not None:
                dO = dO / (1 - dropout)
            if needs[2]:
                dvs[n] += _matmul((p if kept is None else p * kept[n]).swapaxes(-1, -2), dO)
            if out is None:
                continue
            ds = _matmul(dO, v_columns[n][..., : block.end])
            if kept is not None:
                _multiply(ds, kept[n], ds)
            _subtract(ds, delta[n, :, here], ds)
            _multiply(ds, p, ds)
            if needs[0]:
                _multiply(_matmul(ds, keys[n]), scores.scale, dqs[n])
            if needs[1]:
                dks[n] += _matmul(ds.swapaxes(-1, -2), scaled)
    return tuple(x.reshape(*batch, *x.shape[1:]) for x in (dq, dk, dv))


def _suitable(needs: Any, q: Any, v: Any, mask: Any) -> bool:
    return (
        type(q) is ndarray
        and q.dtype.char in "fd"
        and q.size > 0
        and v.size > 0
        and (mask is None or (type(mask) is ndarray and q.ndim < 5 and not needs[3]))
    )


def _sequences(x: Any) -> Any:
    """Give an array one batch axis."""
    return x.reshape(-1, *x.shape[-3:])


def _columns(x: Any) -> Any:
    """Lay out (batch, time, heads, features) as (batch, heads, features, time).

    A product is slow if its second factor is transposed; copying that costs less.
    """
    return x.transpose(0, 2, 3, 1).copy()


@lru_cache(maxsize=64)
def _hidden(rows: int, columns: int, offset: int) -> Any:
    """Give the pairs of a query and a key that is too late for it."""
    return np.arange(columns) > np.arange(rows)[:, None] + offset


class _Scores:
    """Computes the scores, all in one buffer."""

    def __init__(self, q: Any, k: Any, scale: float | None) -> None:
        self.scale, self.columns = scale_of(q, scale), _columns(k)
        self.buffer: Any = np.empty(0, q.dtype)

    def of(self, block: Block, n: int, queries: Any) -> tuple[Any, Any]:
        """Give the scaled queries of a block and sequence, and their scores, which the next call overwrites."""
        scaled = queries[n] * self.scale
        shape = (*scaled.shape[:-1], block.end)
        size = math.prod(shape)
        if self.buffer.size < size:
            self.buffer = np.empty(size, scaled.dtype)
        s = _matmul(scaled, self.columns[n][..., : block.end], out=self.buffer[:size].reshape(shape))
        mask = block.part_of_mask()
        if mask is not None:
            if mask.ndim == 4:
                mask = mask[n % len(mask)]
            if mask.dtype.char == "?":
                np.copyto(s, -math.inf, where=~mask)
            else:
                np.add(s, mask, s)
        if block.causal:
            first = max(block.past + 1, 0)  # of the keys that not every query may attend to
            late = s[..., first:]
            np.copyto(late, -math.inf, where=_hidden(*late.shape[-2:], block.past - first))
        return scaled, s


attention.override("numpy", _forward, _backward)
