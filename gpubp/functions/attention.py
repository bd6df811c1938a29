"""Scaled dot-product attention, whose memory grows with the length of a sequence, not with its square."""

# ruff: noqa: D103  (a fused function has the docstring of its reference)

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from .. import boundary
from ..array import strip
from ..boundary import is_inexact
from ..device import raw_namespace
from ..fused import fused
from ..namespace import array_namespace, fit
from ..rules.registry import Spec
from ..transform import stop_gradient
from .checks import broadcasts, check_alike, check_one_library, check_real

#: How many queries are dealt with at a time. The random numbers of the dropout depend on it.
ROWS = 128

Key = tuple[int, int]


def _attention(
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
    key: Key | None = None,
) -> Any:
    """Mean of the values, weighted by the softmax of ``scale * q · k`` over the keys, for each query and head.

    Parameters
    ----------
    q
        Queries of shape (..., queries, heads, features).
    k
        Keys of shape (..., keys, heads, features).
    v
        Values of shape (..., keys, heads, value features).
    mask
        Boolean array, true where a query may attend to a key; or real numbers that are added to the scores. Its shape
        broadcasts to (..., heads, queries, keys).
    step
        With `dropout`: a whole number, or a 0-d integer array; each gives other random numbers.
    causal
        Whether a query attends to no later keys. The last query stands beside the last key: with more keys than
        queries the first keys are the past of all.
    scale
        1/√features where it is None.
    dropout
        Probability of setting a weight to 0; the others are divided by 1 - dropout.
    key
        With `dropout`: two numbers that the random numbers depend on.

    Returns
    -------
    array
        Of shape (..., queries, heads, value features). A query that may attend to nothing gets 0, with derivative 0.

    Raises
    ------
    TypeError
        If the arrays are of several libraries or dtypes, or the mask is neither boolean nor real.
    ValueError
        If the shapes do not fit, there is no key, or `dropout` is no probability below 1 or has no `key` and `step`.

    Notes
    -----
    Vaswani et al., "Attention is all you need", 2017, eq. 1. The weights are made for a block of queries at a time and
    made again in the backward pass, from their logarithmic sums: Rabe, Staats, "Self-attention does not need O(n²)
    memory", 2021; Dao, Fu, Ermon, Rudra, Ré, "FlashAttention", 2022.
    """
    check(q, k, v, mask)
    xp = array_namespace(q, k, v)
    p = _softmax(xp, *_exponentials(xp, _scores(xp, _heads(xp, q), _heads(xp, k), mask, causal, scale)))
    if check_dropout(dropout, key, step):
        p = xp.where(_kept(q, k, step, causal, dropout, key), p / (1 - dropout), 0)
    return _heads(xp, xp.matmul(p, _heads(xp, v)))


@fused(_attention)
def attention(
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
    key: Key | None = None,
) -> Any:
    check(q, k, v, mask)
    random = check_dropout(dropout, key, step)
    outs, sums = [], []
    for block in blocks(xp, q, k, mask, causal):
        e, top, total = _exponentials(xp, block.scores(scale))
        if random:
            e = xp.where(block.kept(step, dropout, key), e, 0)
        outs.append(xp.matmul(e, block.keys(v)) / (total * (1 - dropout)))
        sums.append(top + xp.log(total))
    out = _heads(xp, xp.concat(outs, axis=-2))
    of_weights = any((*needs[:2], *needs[3:4]))
    return out, (q, k, v, mask, step, out if of_weights else None, sums)


@attention.backward
def attention_backward(
    xp: Any,
    needs: Any,
    dY: Any,
    residuals: Any,
    *,
    causal: bool = False,
    scale: float | None = None,
    dropout: float = 0.0,
    key: Key | None = None,
) -> Any:
    q, k, v, mask, step, out, sums = residuals
    factor = scale_of(q, scale)
    dq, dmask, dk, dv = [], [], None, None
    for block, log_sum in zip(blocks(xp, q, k, mask, causal), sums, strict=True):
        p = xp.exp(block.scores(scale) - log_sum)
        kept = block.kept(step, dropout, key) if dropout else None
        dO = block.queries(dY)
        if needs[2]:
            dropped = p if kept is None else xp.where(kept, p, 0) / (1 - dropout)
            dv = _longer(xp, dv, xp.matmul(xp.matrix_transpose(dropped), dO))
        if out is None:
            continue
        dp = xp.matmul(dO, xp.matrix_transpose(block.keys(v)))
        if kept is not None:
            dp = xp.where(kept, dp, 0) / (1 - dropout)
        ds = p * (dp - xp.sum(dO * block.queries(out), axis=-1, keepdims=True))
        if needs[0]:
            dq.append(xp.matmul(ds, block.keys(k)) * factor)
        if needs[1]:
            dk = _longer(xp, dk, xp.matmul(xp.matrix_transpose(ds), block.queries(q)) * factor)
        if len(needs) > 3 and needs[3]:
            dmask.append(block.of_mask(ds))
    return (
        _heads(xp, xp.concat(dq, axis=-2)) if dq else None,
        dk if dk is None else _heads(xp, dk),
        dv if dv is None else _heads(xp, dv),
        _sum_or_concat(xp, dmask, mask) if dmask else None,
        None,
    )


def attention_weights(q: Any, k: Any, mask: Any = None, /, *, causal: bool = False, scale: float | None = None) -> Any:
    """Weights that `attention` gives the values, to be looked at: an array of shape (..., heads, queries, keys).

    Parameters and errors are those of `attention`.
    """
    check(q, k, k, mask)
    xp = array_namespace(q, k)
    return _softmax(xp, *_exponentials(xp, _scores(xp, _heads(xp, q), _heads(xp, k), mask, causal, scale)))


# -- the definition


def _heads(xp: Any, x: Any) -> Any:
    """Swap time and heads, which takes one layout to the other."""
    return xp.moveaxis(x, -2, -3)


def scale_of(q: Any, scale: float | None) -> float:
    """Give the factor of the scores."""
    return 1.0 / math.sqrt(max(q.shape[-1], 1)) if scale is None else scale


def _scores(xp: Any, q: Any, k: Any, mask: Any, causal: bool, scale: float | None, past: int | None = None) -> Any:
    """Scores of shape (..., heads, queries, keys), -∞ where a query may not attend.

    `past` is how many keys lie before the one beside the first query: keys - queries, unless it is given.
    """
    s = xp.matmul(q * scale_of(q, scale), xp.matrix_transpose(k))
    if mask is not None:
        s = s + mask if is_inexact(mask.dtype) else xp.where(mask, s, -math.inf)
    if causal:
        queries, keys = s.shape[-2:]
        past = keys - queries if past is None else past
        at = xp.arange(past, past + queries, device=s.device)
        s = xp.where(xp.arange(keys, device=s.device) <= xp.expand_dims(at, axis=-1), s, -math.inf)
    return s


def _exponentials(xp: Any, s: Any) -> tuple[Any, Any, Any]:
    """Exponentials of the scores less their largest, the largest, and their sum: 0, 0 and 1 where all are -∞."""
    top = stop_gradient(xp.max(s, axis=-1, keepdims=True))
    top = xp.where(top == -math.inf, 0, top)
    e = xp.exp(s - top)
    total = xp.sum(e, axis=-1, keepdims=True)
    return e, top, xp.where(total == 0, 1, total)


def _softmax(xp: Any, e: Any, top: Any, total: Any) -> Any:
    return e / total


def _kept(q: Any, k: Any, step: Any, causal: bool, dropout: float, key: Any) -> Any:
    """Draw which weights stay, for all queries."""
    q, k = strip(q), strip(k)
    xp = raw_namespace(q)
    parts = []
    for block in blocks(xp, q, k, None, causal):
        part = block.kept(step, dropout, key)
        unseen = xp.zeros((*part.shape[:-1], k.shape[-3] - part.shape[-1]), dtype=part.dtype, device=part.device)
        parts.append(xp.concat([part, unseen], axis=-1))
    return xp.concat(parts, axis=-2)


# -- blocks of queries


class Block:
    """Some queries that follow each other, with the keys that any of them may attend to."""

    def __init__(self, xp: Any, q: Any, k: Any, mask: Any, causal: bool, number: int) -> None:
        self.xp, self.q, self.k, self.mask, self.causal, self.number = xp, q, k, mask, causal, number
        queries, keys = q.shape[-3], k.shape[-3]
        self.start = number * ROWS
        self.stop = min(self.start + ROWS, queries)
        self.past = keys - queries + self.start
        self.end = max(1, keys - queries + self.stop) if causal else keys

    def queries(self, x: Any) -> Any:
        """Give the block's part of an array of shape (..., queries, heads, features), heads first."""
        return _heads(self.xp, x[..., self.start : self.stop, :, :])

    def keys(self, x: Any) -> Any:
        """Give the block's part of an array of shape (..., keys, heads, features), heads first."""
        return _heads(self.xp, x[..., : self.end, :, :])

    def part_of_mask(self) -> Any:
        """Give the block's part of the mask, with at least two axes."""
        mask = self.mask
        if mask is None:
            return None
        mask = self.xp.reshape(mask, (1,) * (2 - mask.ndim) + tuple(mask.shape))
        rows, keys = mask.shape[-2:]
        return mask[..., slice(self.start, self.stop) if rows > 1 else slice(rows), : min(self.end, keys)]

    def scores(self, scale: float | None) -> Any:
        """Compute the scores of the block."""
        q, k = self.queries(self.q), self.keys(self.k)
        return _scores(self.xp, q, k, self.part_of_mask(), self.causal, scale, self.past)

    def kept(self, step: Any, dropout: float, key: Any) -> Any:
        """Draw which weights stay."""
        *batch, _, heads, _ = self.q.shape
        shape = (*batch, heads, self.stop - self.start, self.end)
        return boundary.bernoulli(self.xp, self.q, 1 - dropout, key, strip(step), shape, stream=self.number)

    def of_mask(self, ds: Any) -> Any:
        """Give the cotangent of the block's part of the mask, for all keys, from that of the scores."""
        part = self.part_of_mask()
        g = fit(self.xp, ds, Spec(tuple(part.shape), part.dtype))
        unseen = self.mask.shape[-1] - g.shape[-1] if self.mask.ndim else 0
        if not unseen:
            return g
        zeros = self.xp.zeros((*g.shape[:-1], unseen), dtype=g.dtype, device=g.device)
        return self.xp.concat([g, zeros], axis=-1)


def draw_rows() -> int:
    """Give the number of queries whose weights are drawn together."""
    return ROWS


def blocks(xp: Any, q: Any, k: Any, mask: Any, causal: bool) -> Iterator[Block]:
    """Cut the queries into blocks of `ROWS`, of which there is at least one."""
    for number in range(max(1, -(-q.shape[-3] // ROWS))):
        yield Block(xp, q, k, mask, causal, number)


def _longer(xp: Any, total: Any, new: Any) -> Any:
    """Add up cotangents of the first keys, of which `new` has at least as many."""
    if total is None:
        return new
    n = total.shape[-2]
    if n == new.shape[-2]:
        return total + new
    return xp.concat([total + new[..., :n, :], new[..., n:, :]], axis=-2)


def _sum_or_concat(xp: Any, parts: list[Any], mask: Any) -> Any:
    g = xp.concat(parts, axis=-2) if mask.ndim > 1 and mask.shape[-2] > 1 else sum(parts[1:], parts[0])
    return xp.reshape(g, tuple(mask.shape))


# -- checks


def check(q: Any, k: Any, v: Any, mask: Any) -> None:
    check_alike("attention", q=q, k=k, v=v, mask=mask if mask is not None and is_inexact(mask.dtype) else None)
    check_real("attention", q)
    shapes = tuple(q.shape), tuple(k.shape), tuple(v.shape)
    if q.ndim < 3 or k.shape != (*q.shape[:-3], k.shape[-3], *q.shape[-2:]) or v.shape[:-1] != k.shape[:-1]:
        raise ValueError(
            "attention expects q of shape (..., queries, heads, features), k of shape (..., keys, heads, features) and "
            f"v of shape (..., keys, heads, value features), got {shapes[0]}, {shapes[1]} and {shapes[2]}"
        )
    if not k.shape[-3]:
        raise ValueError(f"attention expects at least one key, got k of shape {shapes[1]}")
    if mask is not None:
        _check_mask(q, mask, (*q.shape[:-3], q.shape[-2], q.shape[-3], k.shape[-3]))


def _check_mask(q: Any, mask: Any, shape: tuple[int, ...]) -> None:
    check_one_library("attention", q=q, mask=mask)
    if not is_inexact(mask.dtype) and "bool" not in str(mask.dtype):
        raise TypeError(f"attention expects a boolean mask, or real numbers added to the scores, got {mask.dtype}")
    if not broadcasts(mask.shape, shape):
        raise ValueError(
            f"attention expects a mask that broadcasts to (..., heads, queries, keys) = {shape}, "
            f"got shape {tuple(mask.shape)}"
            + (
                "; of (batch, keys) make mask[:, None, None, :]"
                if tuple(mask.shape) == (*shape[:-3], shape[-1])
                else ""
            )
        )


def check_dropout(dropout: float, key: Any, step: Any) -> bool:
    """Whether there is dropout, of which everything is known."""
    if not 0 <= dropout < 1:
        raise ValueError(f"attention expects a dropout from 0 to below 1, got {dropout!r}")
    if dropout and (key is None or step is None):
        raise ValueError(f"attention with dropout={dropout!r} expects a key and a step, got {key!r} and {step!r}")
    return bool(dropout)
