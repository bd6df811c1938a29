"""A net as a table."""

from __future__ import annotations

from typing import Any

from ..device import is_array, raw_namespace
from ..tree import children, leaves
from .layer import Layer
from .parameter import check_built
from .sequential import Sequential
from .surgery import mode

__all__ = ["summary"]

LONGEST = 60  #: a layer whose description is longer is shown by its kind and its parts


def summary(net: Layer, *inputs: Any) -> str:
    """Describe a net layer by layer: its output's shape and its number of parameters, in evaluation mode.

    Parameters
    ----------
    net
        A built net.
    *inputs
        What the net is called with: arrays, or the shape of one (its axis of examples included).

    Returns
    -------
    str
        A table with a row for each layer of a `Sequential`, nested ones written out. Below a layer that does not say
        itself what it is made of, in few words, stand its parts, indented; its own figures include theirs.
    """
    check_built(net)
    inputs = tuple(x if is_array(x) else _zeros(net, x) for x in inputs)
    rows = [("layer", "output shape", "parameters"), *[("input", str(tuple(x.shape)), "") for x in inputs]]
    with mode(net, training=False):
        _rows(net, inputs, rows)
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


def _zeros(net: Layer, shape: Any) -> Any:
    parameters = leaves(net)
    if not parameters:
        raise ValueError("the net has no parameters from which to take dtype and device: pass an input, not a shape")
    p = parameters[0]
    return raw_namespace(p).zeros(tuple(shape), dtype=p.dtype, device=p.device)


def _rows(layer: Any, inputs: tuple[Any, ...], rows: list[tuple[str, str, str]]) -> Any:
    if isinstance(layer, Sequential) and len(inputs) == 1:
        (x,) = inputs
        for inner in layer.layers:
            x = _rows(inner, (x,), rows)
        return x
    y = layer(*inputs)
    if isinstance(layer, Layer):
        rows.append((_name(layer), str(tuple(y.shape)), f"{layer.count_parameters():,}"))
        _parts(layer, "", "", rows)
    else:
        rows.append((getattr(layer, "__name__", repr(layer)), str(tuple(y.shape)), "0"))
    return y


def _name(layer: Layer) -> str:
    """What a layer says of itself, or its kind where that is nothing or too much."""
    kind = f"{type(layer).__name__}(...)"
    return kind if type(layer).__repr__ is Layer.__repr__ or len(repr(layer)) > LONGEST else repr(layer)


def _parts(x: Any, path: str, indent: str, rows: list[tuple[str, str, str]]) -> None:
    """Add rows for the layers in a layer that does not name them itself."""
    if isinstance(x, Layer) and _name(x) == repr(x):
        return
    for step, part in children(x) or ():
        if isinstance(part, Layer):
            here = (path + step).removeprefix(".")
            rows.append((f"{indent}  {here}: {_name(part)}", "", f"{part.count_parameters():,}"))
            _parts(part, "", indent + "  ", rows)
        else:
            _parts(part, path + step, indent, rows)
