"""A net as a table."""

from __future__ import annotations

from typing import Any

from ..device import is_array, raw_namespace
from ..tree import leaves
from .layer import Layer
from .parameter import check_built
from .sequential import Sequential
from .surgery import mode

__all__ = ["summary"]

LONGEST = 60  #: a layer whose description is longer is shown by its kind alone


def summary(net: Layer, x: Any) -> str:
    """Describe a net layer by layer: its output's shape and its number of parameters, in evaluation mode.

    Parameters
    ----------
    net
        A built net.
    x
        An input, or the shape of one (its axis of examples included).

    Returns
    -------
    str
        A table with a row for each layer of a `Sequential`, nested ones written out; one row for another layer.
    """
    check_built(net)
    if not is_array(x):
        parameters = leaves(net)
        if not parameters:
            raise ValueError(
                "the net has no parameters from which to take dtype and device: pass an input, not a shape"
            )
        p = parameters[0]
        x = raw_namespace(p).zeros(tuple(x), dtype=p.dtype, device=p.device)
    rows = [("layer", "output shape", "parameters"), ("input", str(tuple(x.shape)), "")]
    with mode(net, training=False):
        _rows(net, x, rows)
    total = net.count_parameters()
    frozen = total - net.count_parameters(frozen=False)
    if frozen:
        rows.append(("frozen", "", f"{frozen:,}"))
    rows.append(("total", "", f"{total:,}"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c:>{widths[2]}}".rstrip() for a, b, c in rows]
    rule = "-" * (sum(widths) + 4)
    end = -2 if frozen else -1
    return "\n".join([lines[0], rule, *lines[1:end], rule, *lines[end:]])


def _rows(layer: Any, x: Any, rows: list[tuple[str, str, str]]) -> Any:
    if isinstance(layer, Sequential):
        for inner in layer.layers:
            x = _rows(inner, x, rows)
        return x
    y = layer(x)
    name = repr(layer) if isinstance(layer, Layer) else getattr(layer, "__name__", repr(layer))
    if len(name) > LONGEST:
        name = f"{type(layer).__name__}(...)"
    parameters = layer.count_parameters() if isinstance(layer, Layer) else 0
    rows.append((name, str(tuple(y.shape)), f"{parameters:,}"))
    return y
