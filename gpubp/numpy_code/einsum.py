"""Einstein's summation, by diagonals, sums and matrix products."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import combinations, pairwise
from typing import Any

from .registry import arrays, function, native

_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

#: A subscript: a letter, or a number for an axis that an ellipsis stands for (-1 for the last, as in broadcasting).
Label = str | int
Labels = tuple[Label, ...]


@function("einsum")
def _einsum(xp: Any, *operands: Any, dtype: Any = None, order: str = "K", optimize: Any = False) -> Any:
    subscripts, values = _arguments(operands)
    values = arrays(xp, values)
    if dtype is not None:
        values = [xp.astype(x, native(xp, dtype)) for x in values]
    terms, out = _parse(subscripts, [x.shape for x in values])
    values, terms = _without_broadcast(xp, values, terms)
    found, labels = _contract(xp, [_diagonal(xp, *pair) for pair in zip(values, terms, strict=True)], out)
    return xp.permute_dims(found, tuple(labels.index(i) for i in out)) if labels != out else found


# -- understanding the subscripts


def _arguments(operands: Sequence[Any]) -> tuple[str, list[Any]]:
    """Subscripts and operands, also from the form ``(x, [0, 1], y, [1, 2], [0, 2])``."""
    if isinstance(operands[0], str):
        return operands[0].replace(" ", ""), list(operands[1:])

    def text(indices: Iterable[Any]) -> str:
        return "".join("..." if i is Ellipsis else _LETTERS[i] for i in indices)

    pairs = len(operands) // 2
    subscripts = ",".join(text(operands[2 * k + 1]) for k in range(pairs))
    if len(operands) % 2:
        subscripts += "->" + text(operands[-1])
    return subscripts, list(operands[: 2 * pairs : 2])


def _parse(subscripts: str, shapes: list[tuple[int, ...]]) -> tuple[list[Labels], Labels]:
    """The labels of the axes of every operand and of the result."""
    inputs, arrow, output = subscripts.partition("->")
    terms = inputs.split(",")
    if len(terms) != len(shapes):
        raise ValueError(f"einsum {subscripts!r} names {len(terms)} operands and was given {len(shapes)}")
    labels: list[Labels] = []
    hidden = 0
    for term, shape in zip(terms, shapes, strict=True):
        letters, dots, rest = term.partition("...")
        extra = len(shape) - len(letters) - len(rest)
        if not all(i in _LETTERS for i in letters + rest) or extra < 0 or (extra and not dots):
            raise ValueError(f"einsum subscripts {term!r} do not fit an operand of shape {tuple(shape)}")
        labels.append((*letters, *range(-extra, 0), *rest))
        hidden = max(hidden, extra)
    everywhere = "".join(terms).replace(".", "")
    if not arrow:
        once = sorted(i for i in set(everywhere) if everywhere.count(i) == 1)
        return labels, (*range(-hidden, 0), *once)
    letters, dots, rest = output.partition("...")
    named = letters + rest
    if len(set(named)) < len(named) or not set(named) <= set(everywhere) or (hidden and not dots):
        raise ValueError(f"einsum {subscripts!r}: the result cannot have the subscripts {output!r}")
    return labels, (*letters, *range(-hidden, 0), *rest)


def _without_broadcast(xp: Any, values: list[Any], terms: list[Labels]) -> tuple[list[Any], list[Labels]]:
    """Axes of length 1 that meet longer ones are dropped; lengths that do not agree are refused."""
    sizes: dict[Label, int] = {}
    for x, labels in zip(values, terms, strict=True):
        for i, n in zip(labels, x.shape, strict=True):
            if sizes.setdefault(i, n) != n:
                if 1 not in (n, sizes[i]):
                    raise ValueError(f"einsum axes of lengths {sizes[i]} and {n} have one subscript {i!r}")
                sizes[i] = n if sizes[i] == 1 else sizes[i]
    for k, (x, labels) in enumerate(zip(values, terms, strict=True)):
        short = [a for a, (i, n) in enumerate(zip(labels, x.shape, strict=True)) if n != sizes[i]]
        if short:
            values[k] = xp.squeeze(x, axis=tuple(short))
            terms[k] = tuple(i for a, i in enumerate(labels) if a not in short)
    return values, terms


# -- computing: a term is an array with the labels of its axes

Term = tuple[Any, Labels]


def _diagonal(xp: Any, x: Any, labels: Labels) -> Term:
    """One axis for each label: of axes with the same label the diagonal is taken."""
    for i in labels:
        while labels.count(i) > 1:
            first, second = [k for k, j in enumerate(labels) if j == i][:2]
            rest = [k for k in range(len(labels)) if k not in (first, second)]
            x = xp.linalg.diagonal(xp.permute_dims(x, (*rest, first, second)))
            labels = (*(labels[k] for k in rest), i)
    return x, labels


def _contract(xp: Any, terms: list[Term], out: Labels) -> Term:
    """Contract two terms at a time, those first whose product is smallest beside them."""
    sizes = {i: n for x, labels in terms for i, n in zip(labels, x.shape, strict=True)}

    def needed(without: Sequence[Term]) -> set[Label]:
        return {i for term in terms if not any(term is t for t in without) for i in term[1]} | set(out)

    def growth(pair: tuple[Term, Term]) -> int:
        def size(labels: Iterable[Label]) -> int:
            return math.prod(sizes[i] for i in labels)

        (_, a), (_, b) = pair
        return size((set(a) | set(b)) & needed(pair)) - size(a) - size(b)

    while len(terms) > 1:
        pair = min(combinations(terms, 2), key=growth) if len(terms) > 2 else (terms[0], terms[1])
        product = _pair(xp, *pair, needed(pair))
        terms = [t for t in terms if t is not pair[0] and t is not pair[1]] + [product]
    return _sum_out(xp, *terms[0], set(out))


def _sum_out(xp: Any, x: Any, labels: Labels, needed: set[Label]) -> Term:
    """Sum over the axes that nothing else needs."""
    axes = tuple(k for k, i in enumerate(labels) if i not in needed)
    return (xp.sum(x, axis=axes), tuple(i for i in labels if i in needed)) if axes else (x, labels)


def _pair(xp: Any, first: Term, second: Term, needed: set[Label]) -> Term:
    """The product of two terms as a matrix product: (batch, rows, summed) times (batch, summed, columns)."""
    x, a = _sum_out(xp, *first, needed | set(second[1]))
    y, b = _sum_out(xp, *second, needed | set(first[1]))
    batch = tuple(i for i in a if i in b and i in needed)
    summed = tuple(i for i in a if i in b and i not in needed)
    rows = tuple(i for i in a if i not in b)
    columns = tuple(i for i in b if i not in a)

    def arranged(x: Any, labels: Labels, *groups: Labels) -> Any:
        order = tuple(labels.index(i) for group in groups for i in group)
        x = x if order == tuple(range(len(order))) else xp.permute_dims(x, order)
        ends = [sum(map(len, groups[:k])) for k in range(len(groups) + 1)]
        shape = tuple(x.shape)
        return xp.reshape(x, tuple(math.prod(shape[i:j]) for i, j in pairwise(ends)))

    sizes = dict(zip((*a, *b), (*x.shape, *y.shape), strict=True))
    labels = batch + rows + columns
    if batch:
        product = xp.matmul(arranged(x, a, batch, rows, summed), arranged(y, b, batch, summed, columns))
    else:
        product = xp.matmul(arranged(x, a, rows, summed), arranged(y, b, summed, columns))
    return xp.reshape(product, tuple(sizes[i] for i in labels)), labels
