"""cuDNN through nvidia-cudnn-frontend, where these are installed (the extra ``cudnn``): handles, and plans kept.

Plans are of graphs, for arrays of given shapes, strides and dtype. What cuDNN has no plan for takes the usual way.
"""

from __future__ import annotations

import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import cupy

from .bindings import room

#: How many plans each thread keeps, those used last.
PLANS = 256

#: cuDNN's names of dtypes.
TYPES = {"float16": "HALF", "bfloat16": "BFLOAT16", "float32": "FLOAT"}


@cache
def library() -> Any:
    """Return the module ``cudnn``, or None where it is not there or does not work."""
    if find_spec("cudnn") is None:
        return None
    try:
        found = import_module("cudnn")
        found.destroy_handle(found.create_handle())  # which loads cuDNN itself
    except Exception as error:  # of many kinds: no libcudnn, not all of it, another version of CUDA
        warnings.warn(f"nvidia-cudnn-frontend is installed but does not work: {error}", stacklevel=2)
        return None
    return found


class _Thread(threading.local):
    def __init__(self) -> None:
        self.handles: dict[int, Any] = {}
        self.plans: OrderedDict[Any, Any] = OrderedDict()


of_thread = _Thread()


def handle() -> Any:
    """Return this thread's handle of cuDNN for the current device, which works on the current stream."""
    device = cupy.cuda.runtime.getDevice()
    found = of_thread.handles.get(device)
    if found is None:
        found = of_thread.handles[device] = library().create_handle()
    library().set_stream(handle=found, stream=cupy.cuda.get_current_stream().ptr)
    return found


class Plan:
    """A graph and the plan that cuDNN chose for it.

    Parameters
    ----------
    graph
        A ``cudnn.pygraph`` whose operations and outputs are declared.
    choose
        Told the graph, leaves out plans that are not wanted.

    Raises
    ------
    Exception
        What nvidia-cudnn-frontend raises where cuDNN has no plan for it.
    """

    def __init__(self, graph: Any, choose: Callable[[Any], None] | None = None) -> None:
        modes = library().heur_mode
        graph.validate()
        graph.build_operation_graph()
        graph.create_execution_plans([modes.A, modes.FALLBACK])
        if choose is not None:
            choose(graph)
        graph.check_support()
        graph.build_plans()
        self.graph, self.workspace = graph, int(graph.get_workspace_size())

    def run(self, arrays: dict[int, Any]) -> None:
        """Compute with arrays, by the numbers of the graph's tensors."""
        space = room(self.workspace)
        where = {number: x.data.ptr for number, x in arrays.items()}
        self.graph.execute(where, 0 if space is None else space.data.ptr, handle=handle())


def planned(
    what: str, form: tuple[Any, ...], make: Callable[[], Any], choose: Callable[[Any], None] | None = None
) -> Plan | None:
    """Return the plan for a form, None where cuDNN has none.

    Parameters
    ----------
    what
        The operation's name, for the warning that says, once, that there is no plan.
    form
        All that the graph depends on, and nothing else.
    make
        Builds the graph, if there is no plan yet, or it was given up.
    choose
        As in `Plan`.
    """
    plans, key = of_thread.plans, (cupy.cuda.runtime.getDevice(), what, *form)
    if key in plans:
        plans.move_to_end(key)
        found: Plan | None = plans[key]
        return found
    try:
        found = Plan(make(), choose)
    except Exception as error:  # of as many kinds as there are reasons
        _say_once(what, str(error).strip() or type(error).__name__)
        found = None
    plans[key] = found
    if len(plans) > PLANS:
        plans.popitem(last=False)
    return found


_said: set[str] = set()


def _say_once(what: str, reason: str) -> None:
    if reason not in _said:
        _said.add(reason)
        warnings.warn(f"cuDNN has no plan for {what}, which takes the usual way: {reason}", stacklevel=2)
