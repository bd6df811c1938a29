"""Loss and metrics of a net."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..boundary import is_inexact
from ..data import batches
from ..data.transforms import evaluation
from ..device import Device, device_of
from ..nn.surgery import mode
from ..precision import mixed
from ..tree import leaves
from .checks import check_calls, check_data, check_precision
from .metrics import Metric, Totals

__all__ = ["as_the_net", "evaluate"]


def evaluate(
    net: Any,
    loss: Callable[..., Any] | None,
    data: Sequence[Any],
    *,
    metrics: Sequence[str | Metric] = ("accuracy",),
    targets: int = 1,
    batch_size: int = 1024,
    transform: Any = None,
    prefetch: int = 0,
    ignore_index: int | None = None,
    device: Device | str | None = None,
    dtype: str | None = None,
    precision: str | None = None,
) -> dict[str, Any]:
    """Measure loss and metrics of a net, in evaluation mode.

    Parameters
    ----------
    net, metrics, targets, device
        As in `fit`.
    loss
        As in `fit`; None leaves it out.
    data
        As `train` in `fit`.
    batch_size
        Examples computed at once.
    transform, prefetch, ignore_index
        As in `fit`; of a transform that part which draws nothing.
    dtype
        Floating-point dtype to which the data are cast; by default the net's.
    precision
        As in `fit`.

    Returns
    -------
    dict
        ``loss``, a mean over the examples, and the metrics by name; read from the device at once.
    """
    totals = Totals(metrics)
    check_data("data", data, targets)
    if loss is not None:
        check_calls("data", data, targets, loss)
    options = as_the_net(net, device, dtype)
    check_precision(precision, options["dtype"])
    if loss is None and not totals.metrics:
        return {}
    inputs = len(data) - targets
    output_of = _output if precision is None else mixed(_output, precision, argnums=range(inputs + 1))
    if loss is not None and precision is not None:
        loss = mixed(loss, precision, argnums=range(inputs + 1))
    how: dict[str, Any] = {"transform": evaluation(transform), "prefetch": prefetch, "ignore_index": ignore_index}
    with mode(net, training=False):
        for batch in batches(data, batch_size, **how, **options):
            if loss is not None:
                totals.mean("loss", loss(net, *batch), batch[0].shape[0])
            if totals.metrics:
                wanted = batch[inputs:]
                totals.add(output_of(net, *batch[:inputs]), wanted[0] if targets == 1 else tuple(wanted))
    return totals.read()


def _output(net: Any, *inputs: Any) -> Any:
    return net(*inputs)


def as_the_net(net: Any, device: Device | str | None, dtype: str | None) -> dict[str, Any]:
    """Where and in which precision batches are wanted: as the net's parameters are, unless told."""
    parameters = [x for x in leaves(net) if is_inexact(x.dtype)]
    if parameters:
        device = device_of(parameters[0]) if device is None else device
        dtype = str(parameters[0].dtype).rpartition(".")[2] if dtype is None else dtype
    return {"device": device, "dtype": dtype}
