"""Rows of a table by their numbers: vectors for words."""

# ruff: noqa: D103  (a fused function has the docstring of its reference)

from __future__ import annotations

from typing import Any

from ..array import strip
from ..boundary import is_inexact, scatter
from ..fused import fused
from ..namespace import array_namespace
from .checks import check_one_library, check_range


def _embedding(indices: Any, table: Any, /) -> Any:
    """Rows of a table by their numbers; the gradients of a row that is taken several times add up.

    Parameters
    ----------
    indices
        Integer array of any shape, with numbers from 0 to rows - 1.
    table
        Array of shape (rows, features).

    Returns
    -------
    array
        Of shape (..., features), where ... is the shape of `indices`.

    Raises
    ------
    TypeError
        If the arrays are of several libraries, the indices are no integers, or the table is not floating-point.
    ValueError
        If the table has not two axes, or (NumPy only) an index is out of range.

    Notes
    -----
    Bengio, Ducharme, Vincent, Jauvin, "A neural probabilistic language model", 2003. On a device the range of the
    indices is not checked, as that would cost a wait.
    """
    check_embedding(indices, table)
    xp = array_namespace(table)
    flat = xp.astype(xp.reshape(indices, (-1,)), xp.int64, copy=False)
    return xp.reshape(xp.take(table, flat, axis=0), (*indices.shape, table.shape[1]))


@fused(_embedding)
def embedding(xp: Any, needs: Any, indices: Any, table: Any, /) -> Any:
    return _embedding(indices, table), (indices, table.shape)


@embedding.backward
def embedding_backward(xp: Any, needs: Any, dY: Any, residuals: Any) -> Any:
    indices, shape = residuals
    flat = xp.astype(xp.reshape(indices, (-1,)), xp.int64, copy=False)
    return None, scatter(xp, shape, flat, xp.reshape(dY, (flat.shape[0], shape[1])))


def check_embedding(indices: Any, table: Any) -> None:
    """Refuse what names no rows of a table."""
    check_one_library("embedding", indices=indices, table=table)
    if "int" not in str(indices.dtype):
        raise TypeError(f"embedding expects integer indices, got {indices.dtype} of shape {tuple(indices.shape)}")
    if not is_inexact(table.dtype):
        raise TypeError(f"embedding expects a table of floating-point numbers, got {table.dtype}")
    if table.ndim != 2:
        raise ValueError(f"embedding expects a table of shape (rows, features), got {tuple(table.shape)}")
    check_range("embedding", "indices", strip(indices), table.shape[0], f"a table of {table.shape[0]} rows")
