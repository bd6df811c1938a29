"""Hypothesis strategies: arrays, shapes and pytrees to test your own functions and layers with.

Examples
--------
>>> from hypothesis import given
>>> from gpubp.testing import check_grads, strategies
>>> @given(strategies.arrays(shape=strategies.shapes(max_dims=2), away_from=[0.0]))
... def test_my_activation(x):
...     check_grads(my_activation, (x,))
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .backends import Backend, load

try:
    from hypothesis import strategies as st
except ModuleNotFoundError as error:
    if error.name != "hypothesis":
        raise
    raise ModuleNotFoundError(
        "gpubp.testing.strategies needs Hypothesis: pip install 'gpubp[test]'", name=error.name
    ) from None

if TYPE_CHECKING:
    from hypothesis.strategies import DrawFn, SearchStrategy

__all__ = ["arrays", "broadcastable_shapes", "pytrees", "shapes"]

Shape = tuple[int, ...]


def shapes(*, min_dims: int = 0, max_dims: int = 3, min_side: int = 1, max_side: int = 4) -> SearchStrategy[Shape]:
    """Shapes; ``min_side=0`` lets empty arrays in."""
    return st.lists(st.integers(min_side, max_side), min_size=min_dims, max_size=max_dims).map(tuple)


@st.composite
def broadcastable_shapes(draw: DrawFn, n: int = 2, *, max_dims: int = 3, max_side: int = 4) -> tuple[Shape, ...]:
    """Tuples of `n` shapes that broadcast against each other; the first simplest example is all of one shape."""
    full = draw(shapes(max_dims=max_dims, max_side=max_side))

    def one() -> Shape:
        dropped = draw(st.integers(0, len(full)))
        return tuple(1 if draw(st.booleans()) else side for side in full[dropped:])

    return tuple(one() for _ in range(n))


@st.composite
def arrays(
    draw: DrawFn,
    shape: Shape | SearchStrategy[Shape] = (),
    *,
    dtype: str = "float64",
    backend: str | Backend = "numpy",
    low: float = -3.0,
    high: float = 3.0,
    away_from: Sequence[float] = (),
    distinct: bool = False,
    gap: float = 0.05,
) -> Any:
    """Arrays of a backend whose values finite differences can judge.

    Parameters
    ----------
    shape
        A shape, or a strategy for shapes.
    dtype
        Name of the dtype: real, complex (both parts drawn alike) or integer.
    backend
        A name in `gpubp.testing.backends`, or such an object.
    low, high
        Between which the values lie.
    away_from
        Kinks: real values no element comes nearer to than `gap`.
    distinct
        Whether any two elements differ by at least `gap`, so that sorting and maxima have no ties.
    gap
        How far from kinks and from each other.
    """
    chosen = shape if isinstance(shape, tuple) else draw(shape)
    kind = np.dtype(dtype).kind
    if kind in "iu":
        return _on(backend, np.array(draw(_grid(chosen, int(low), int(high))), dtype=dtype))
    values = draw(_reals(chosen, low, high, away_from, distinct, gap))
    if kind == "c":
        values = values + 1j * draw(_reals(chosen, low, high, (), False, gap))
    return _on(backend, np.asarray(values, dtype=dtype))


def _grid(shape: Shape, low: int, high: int, unique: bool = False) -> SearchStrategy[Any]:
    size = int(np.prod(shape, dtype=int))
    drawn = st.lists(st.integers(low, high), min_size=size, max_size=size, unique=unique)
    return drawn.map(lambda values: np.reshape(np.array(values, dtype=np.int64), shape))


@st.composite
def _reals(
    draw: DrawFn, shape: Shape, low: float, high: float, away_from: Sequence[float], distinct: bool, gap: float
) -> Any:
    """Multiples of `gap` between `low` and `high`, those at kinks left out; shifted a little where ties may be."""
    steps = np.arange(np.ceil(low / gap), np.floor(high / gap) + 1) * gap
    for kink in away_from:
        steps = steps[np.abs(steps - kink) >= gap * (1 - 1e-9)]
    size = int(np.prod(shape, dtype=int))
    if not len(steps) or (distinct and len(steps) < size):
        raise ValueError(
            f"between {low} and {high} there are {len(steps)} values {gap} apart and away from {list(away_from)}, "
            f"too few for an array of shape {shape}: lower gap"
        )
    return steps[draw(_grid(shape, 0, len(steps) - 1, unique=distinct))]


def _on(backend: str | Backend, array: Any) -> Any:
    return (load(backend) if isinstance(backend, str) else backend).asarray(array)


def pytrees(leaves: SearchStrategy[Any], *, max_leaves: int = 5) -> SearchStrategy[Any]:
    """Pytrees, of tuples, lists and dicts, whose leaves are drawn from a strategy such as `arrays`."""
    names = st.sampled_from("abc")
    return st.recursive(
        leaves,
        lambda children: (
            st.lists(children, min_size=1, max_size=3)
            | st.tuples(children, children)
            | st.dictionaries(names, children, min_size=1, max_size=3)
        ),
        max_leaves=max_leaves,
    )
