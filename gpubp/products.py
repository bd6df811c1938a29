"""How exact products of float32 matrices are on a GPU."""

from __future__ import annotations

import os
from typing import Self

PRECISIONS = ("float32", "tf32")


def _checked(precision: object, what: str) -> str:
    if precision not in PRECISIONS:
        raise ValueError(f"{what} is one of {', '.join(PRECISIONS)}, got {precision!r}")
    return str(precision)


#: What holds now, for all threads.
float32_products = _checked(os.environ.get("GPUBP_MATMUL_PRECISION", "float32"), "GPUBP_MATMUL_PRECISION")


class matmul_precision:
    """Choose how exact products of float32 matrices are on a GPU, from now on or for a ``with`` block.

    Parameters
    ----------
    precision : {"float32", "tf32"}
        ``"float32"``, the default: as everywhere else. ``"tf32"``: tensor cores round the factors to 10 bits after the
        leading one (a relative 5e-4 each) and add in float32, which is many times faster on GPUs since Ampere
        (compute capability 8.0). Elsewhere it changes nothing. The environment variable ``GPUBP_MATMUL_PRECISION``
        chooses at the start.

    Raises
    ------
    ValueError
        If it is none of these.

    Notes
    -----
    A captured step has a graph for each. PyTorch has this as ``set_float32_matmul_precision`` with
    ``"highest"`` and ``"high"``, JAX as ``default_matmul_precision`` with ``"float32"`` and ``"tensorfloat32"``.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.ones((2, 3), dtype=np.float32)
    >>> with matmul_precision("tf32"):
    ...     y = x @ x.T
    """

    def __init__(self, precision: str) -> None:
        global float32_products
        self._before = float32_products
        float32_products = _checked(precision, "the precision of products")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        global float32_products
        float32_products = self._before

    def __repr__(self) -> str:
        return f"matmul_precision({float32_products!r})"
