"""Embedding on NumPy: the gradients of a row that is taken many times are added up by a product."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...dtypes import is_half
from ...functions.embedding import _embedding, embedding, embedding_backward

#: From this many numbers per row on, sorting them pays.
WORTH = 500


def _forward(xp: Any, needs: Any, indices: Any, table: Any) -> Any:
    if is_half(table.dtype):
        return NotImplemented
    return _embedding(indices, table), (indices, table.shape)


def _backward(xp: Any, needs: Any, dY: Any, residuals: Any) -> Any:
    indices, (rows, features) = residuals
    count = indices.size
    if not dY.size or dY.size < WORTH * min(count, rows):
        return embedding_backward(xp, needs, dY, residuals)
    indices = indices.ravel()
    order = np.argsort(indices, kind="stable")
    indices, dY = indices[order], dY.reshape(count, features)[order]
    starts = np.flatnonzero(np.diff(indices, prepend=-1))
    out, one = np.zeros((rows, features), dY.dtype), np.ones(count, dY.dtype)
    for row, start, stop in zip(indices[starts].tolist(), starts.tolist(), [*starts[1:].tolist(), count], strict=True):
        np.dot(one[: stop - start], dY[start:stop], out=out[row])
    return None, out


embedding.override("numpy", _forward, _backward)
