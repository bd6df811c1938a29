"""Captured steps: a whole training step as one CUDA graph, launched by one call.

Python says once what a step does; from then on the device repeats it, at the same addresses. So whatever differs from
step to step has to be an array of the device: the graph is fed with new batches, `State` cells and members (`Member`)
keep theirs at fixed addresses. What a graph cannot repeat is found out, and the step then runs as it did.
"""

from __future__ import annotations

import functools
import math
import sys
import threading
import traceback
import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager, nullcontext
from importlib import import_module
from importlib.util import find_spec
from numbers import Integral
from typing import Any

from . import products
from .boundary import is_inexact
from .device import device_of, is_array, library, raw_namespace
from .dtypes import name_of, widened
from .state import State, writes
from .surroundings import Surroundings, is_users
from .transform import in_transform
from .tree import leaves, map_children, map_leaves

__all__ = ["CapturedStep", "Member", "NotCapturable", "Recording", "capture", "recording"]


class NotCapturable(RuntimeError):
    """A step cannot be captured. The message ends the sentence "It cannot run as one CUDA graph, since ..."."""


class Member:
    """Takes part in captured steps: an object that changes arrays in place, such as an optimizer.

    Where it is about to change them it asks `recording`, and if there is one, calls ``recording().join(self)`` and then
    changes arrays alone, none of its attributes: a recording is computed only later, at every launch.
    """

    def changed_arrays(self) -> Any:
        """Return a tree of all arrays that a step changes in place."""
        raise NotImplementedError

    def before_launch(self) -> None:
        """Do on the host what one step does there: count it, put a new learning rate into its array."""

    def host_parts(self) -> tuple[Any, ...]:
        """Return the objects whose attributes a step, or `before_launch`, changes."""
        return (self,)

    def fixed_numbers(self) -> Any:
        """Return the numbers that became part of the graph: it is made anew when they no longer compare equal."""
        return ()


class Recording:
    """A step that is being recorded, and who takes part."""

    def __init__(self) -> None:
        self.members: list[Member] = []
        self._before: list[_Attributes] = []

    def join(self, member: Member) -> None:
        """Take a member in, once."""
        if not any(member is other for other in self.members):
            self.members.append(member)
            self._before.append(_Attributes([member]))

    def end(self) -> None:
        """Give the members' attributes back the values that they had when they joined."""
        for attributes in self._before:
            attributes.restore()


class _Attributes:
    """The attributes of members' parts, as they are now."""

    def __init__(self, members: list[Member]) -> None:
        parts = [vars(part) for member in members for part in member.host_parts()]
        self._known = [(attributes, attributes.copy()) for attributes in parts]

    def restore(self) -> None:
        for attributes, known in self._known:
            attributes.clear()
            attributes.update(known)


class _Thread(threading.local):
    recording: Recording | None = None
    calling = False  # a captured step


_thread = _Thread()


def recording() -> Recording | None:
    """Return what is being recorded in this thread, if anything is."""
    return _thread.recording


@contextmanager
def _recorded() -> Iterator[Recording]:
    _thread.recording = Recording()
    try:
        yield _thread.recording
    finally:
        _thread.recording = None


def capture(step: Callable[..., Any], *, warmup: int = 2, cache: int = 8, required: bool = False) -> CapturedStep:
    """Make a training step one CUDA graph, which every call launches.

    The first calls run as usual, `warmup` of them for each set of shapes. Then the step is recorded; the next call runs
    both ways, and results and everything that was changed are compared; further calls launch the graph. A step that
    cannot be captured runs as usual, and a warning says why, once. Arrays of all libraries but CuPy always do.

    Parameters
    ----------
    step
        A function of arrays, also in dicts, lists and tuples, and of other things, for each of which there is a graph.
        It may use nets, optimizers, cells and more from outside. When a layer's mode or settings are changed, or
        something is replaced, the graph is made anew.
    warmup
        Calls before the recording, at least 1; they compile kernels and choose algorithms.
    cache
        How many graphs are kept; beyond, the one that was not used for longest is given up.
    required
        Raise `NotCapturable` instead of a warning.

    Returns
    -------
    CapturedStep
        To be called like `step`. Host arrays given to it are moved to the device. It returns copies, which later calls
        leave alone.

    Examples
    --------
    >>> net = nn.Sequential(nn.Dense(3, 4), nn.relu, nn.Dense(4, 1), seed=0)
    >>> opt = bp.optim.SGD(net, lr=0.1)
    >>> def train_step(x, y):
    ...     loss, grads = bp.value_and_grad(lambda net: bp.losses.mse(net(x), y))(net)
    ...     opt.step(grads)
    ...     return loss
    >>> step = bp.capture(train_step)
    >>> x, y = np.ones((2, 3), dtype="float32"), np.ones((2, 1), dtype="float32")
    >>> bool(step(x, y) > step(x, y))
    True
    """
    return CapturedStep(step, warmup=warmup, cache=cache, required=required)


class CapturedStep:
    """A step and its graphs; made by `capture`.

    Attributes
    ----------
    step : function
        The step itself.
    launches : int
        How many calls a graph has answered.
    reason : str or None
        Why it runs as usual, once that is settled.
    """

    IN_VAIN, WORTH = 8, 4  #: so many graphs may be given up that were launched less than `WORTH` times

    def __init__(self, step: Callable[..., Any], *, warmup: int, cache: int, required: bool) -> None:
        if not callable(step):
            raise TypeError(f"capture expects a function, got {type(step).__name__}")
        for name, n in (("warmup", warmup), ("cache", cache)):
            if not isinstance(n, Integral):
                raise TypeError(f"{name} must be a whole number, got {n!r}")
            if n < 1:
                raise ValueError(f"{name} must be at least 1, got {n}")
        self.step = self.__wrapped__ = step
        self.warmup, self.cache, self.required = warmup, cache, required
        self.launches = 0
        self.reason: str | None = None
        self._recorder: Any = None
        self._seen: OrderedDict[Hashable, int] = OrderedDict()
        self._graphs: OrderedDict[Hashable, _Graph] = OrderedDict()
        self._in_vain = 0
        self._lock = threading.RLock()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.reason is not None or _thread.calling or in_transform():
            return self.step(*args, **kwargs)  # inside another captured step, or a transform, it is a part of that
        with self._lock:
            try:
                if self._recorder is None:
                    self._recorder = _recorder_for(self.step, args, kwargs)
                arguments = _Arguments(self._recorder, args, kwargs)
            except NotCapturable as problem:
                self._give_up(str(problem), quietly=isinstance(problem, _NothingToCapture))
                return self.step(*args, **kwargs)
            _thread.calling = True
            try:
                return self._call(arguments)
            finally:
                _thread.calling = False

    def _call(self, arguments: _Arguments) -> Any:
        graph = self._graphs.get(arguments.key)
        if graph is not None and graph.outdated() is None:
            self._graphs.move_to_end(arguments.key)
            if graph.verified:
                self.launches += 1
                return graph(arguments.arrays)
            out, problem = graph.verify(arguments, self.step)
            if problem is not None:
                self._give_up(problem)
            return out
        last = graph is not None or self._times(arguments.key) >= self.warmup  # before a recording
        if self.reason is not None:
            return arguments.call(self.step)
        with writes() as written, self._recorder.as_recorded() if last else nullcontext():
            out = arguments.call(self.step)
        for other in self._graphs.values():  # launches are going to overwrite that
            out = _apart(self._recorder, out, other.own)
        if graph is not None:
            what = graph.outdated()
            if what is None:  # an optimizer has taken over the values of what was replaced
                return out
            del self._graphs[arguments.key]
            self._count_in_vain(graph, f"{what} is another one from call to call")
        if last and self.reason is None:
            self._record(arguments, list(written))
        return out

    def _record(self, arguments: _Arguments, written: list[State]) -> None:
        try:
            graph = _Graph(self._recorder, self.step, arguments, written)
        except NotCapturable as problem:
            self._give_up(str(problem))
            return
        self._graphs[arguments.key] = graph
        if len(self._graphs) > self.cache:
            _, oldest = self._graphs.popitem(last=False)
            self._count_in_vain(oldest, f"its arguments have more different shapes than the {self.cache} that are kept")

    def _times(self, key: Hashable) -> int:
        self._seen[key] = self._seen.pop(key, 0) + 1
        times = self._seen[key]
        if len(self._seen) > 16 * self.cache:
            self._seen.popitem(last=False)
            if not self._graphs:
                self._give_up("its arguments have other shapes, or other numbers that are no arrays, from call to call")
        return times

    def _count_in_vain(self, graph: _Graph, reason: str) -> None:
        self._in_vain = self._in_vain + 1 if graph.launches < self.WORTH else 0
        if self._in_vain >= self.IN_VAIN:
            self._give_up(reason)

    def _give_up(self, reason: str, quietly: bool = False) -> None:
        self.reason = reason
        self._graphs.clear()
        self._recorder = None
        if self.required:
            raise NotCapturable(f"{self!r} cannot run as one CUDA graph, since {reason}")
        if not quietly:
            message = f"{self!r} runs as usual, not as one CUDA graph, since {reason}"
            warnings.warn(message, RuntimeWarning, stacklevel=_users_level())

    def __repr__(self) -> str:
        return f"capture({getattr(self.step, '__name__', type(self.step).__name__)})"


def _users_level() -> int:
    """How far up the user's line is from who asks, as `warnings.warn` counts."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and not is_users(frame.f_globals):
        frame, level = frame.f_back, level + 1
    return level


class _Arguments:
    """The arguments of a call: arrays, which are copied to the graph's, and the rest, for which there is a graph."""

    def __init__(self, recorder: Any, args: Any, kwargs: Any) -> None:
        self.arrays: list[Any] = []
        self.others: list[Any] = []
        self.key = products.float32_products, self._key(args), self._key(kwargs)
        self.arrays = [recorder.place(x) for x in self.arrays]
        self.args, self.kwargs = args, kwargs

    def call(self, step: Callable[..., Any], arrays: Any = None) -> Any:
        """Call the step with these arguments, or with other arrays in the places of theirs."""
        values = iter(self.arrays if arrays is None else arrays)

        def put(x: Any) -> Any:
            if isinstance(x, dict | list | tuple):
                return map_children(put, x)
            return next(values) if _is_fed(x) else x

        return step(*put(self.args), **put(self.kwargs))

    def _key(self, x: Any) -> Hashable:
        if _is_fed(x):
            self.arrays.append(x)
            return tuple(x.shape), x.dtype
        if isinstance(x, dict):
            return type(x), *((name, self._key(value)) for name, value in x.items())
        if isinstance(x, list | tuple):
            return type(x), *map(self._key, x)
        try:
            hash(x)
        except TypeError:
            raise NotCapturable(f"an argument is a {type(x).__name__}, neither an array nor hashable") from None
        self.others.append(x)
        return type(x), x


def _is_fed(x: Any) -> bool:
    return is_array(x) and hasattr(x, "__setitem__")  # NumPy's scalars have none


class _Graph:
    """A recorded step, at the addresses of its inputs, its outputs and everything that it changes."""

    def __init__(self, recorder: Any, step: Callable[..., Any], arguments: _Arguments, written: list[State]) -> None:
        self.recorder, self.verified, self.launches = recorder, False, 0
        for cell in written:  # what it held may stand elsewhere too, and is going to be overwritten
            cell.held = map_leaves(_copy, cell.held)
        surroundings = Surroundings(step, arguments.others, closed=Member)
        self.inputs = [_copy(x) for x in arguments.arrays]

        def run() -> Any:
            return _write_back(recorder, before, arguments.call(step, self.inputs))

        before: dict[State, Any] = {}
        try:
            with _recorded() as self.recording, writes() as before:
                self._replay, self.out = recorder.record(run)
        except Exception as problem:
            raise NotCapturable(_told(problem, "its recording")) from None
        finally:
            for cell, own in before.items():
                cell.held = own
            changed = surroundings.changed()
            surroundings.restore()
            self.recording.end()
        if changed is not None:
            raise NotCapturable(f"it changes {changed}, which no graph repeats: keep it in a State cell, or return it")
        self.cells = list(before.items())
        self.watched = surroundings.without([*self.recording.members, *before])
        self.own = leaves([own for _, own in self.cells])
        self.lasting = set(map(id, surroundings.arrays)) - set(map(id, self.own))
        self.numbers = self._numbers()
        members = [member.changed_arrays() for member in self.recording.members]
        there = [x for x in surroundings.arrays if library(x) == recorder.library]
        self.changing = list({id(x): x for x in leaves([self.own, there, members])}.values())

    def _numbers(self) -> list[Any]:
        return [member.fixed_numbers() for member in self.recording.members]

    def outdated(self) -> str | None:
        """Return the name of something that is no longer what it was in the recording."""
        if (what := self.watched.changed()) is not None:
            return what
        if self._numbers() != self.numbers:
            return "a setting of the optimizer"
        return None if all(_fits(own, cell.held) for cell, own in self.cells) else "an array of a cell"

    def __call__(self, arrays: list[Any]) -> Any:
        """Launch the graph."""
        self.launches += 1
        for member in self.recording.members:
            member.before_launch()
        self._apart_cells()
        for cell, own in self.cells:
            if cell.held is not own:  # written from outside, or by a call that ran as usual
                _fill(own, cell.held)
                cell.held = own
        _fill(self.inputs, arrays)
        self._replay()
        return map_leaves(lambda x: x if id(x) in self.lasting else _copy(x), self.out)

    def _apart_cells(self) -> None:
        for cell, own in self.cells:
            if cell.held is not own:
                cell.held = _apart(self.recorder, cell.held, self.own)

    def verify(self, arguments: _Arguments, step: Callable[..., Any]) -> tuple[Any, str | None]:
        """Run the step as usual and again as a graph; return its results, and what differs."""
        try:
            before = _Snapshot(self)
        except Exception as problem:  # there may be no room for it
            return arguments.call(step), _told(problem, "the comparison of its graph")
        with self.recorder.as_recorded():
            out = map_leaves(lambda x: x if id(x) in self.lasting else _copy(x), arguments.call(step))
        usual = None
        try:
            self._apart_cells()
            usual = _Snapshot(self, before.arrays)
            before.restore()
            what = self._difference(before, usual, out, self(arguments.arrays))
        except Exception as problem:
            what = _told(problem, "the comparison of its graph")
        if what is not None and usual is not None:
            usual.restore()
        self.verified, self.launches = what is None, 0
        return out, what

    def _difference(self, before: _Snapshot, usual: _Snapshot, out: Any, found: Any) -> str | None:
        results, others = leaves(out), leaves(found)
        if len(results) != len(others) or map_leaves(lambda _: None, out) != map_leaves(lambda _: None, found):
            return "it returns another Python value from call to call"
        held, n = leaves([value for _, value in usual.cells]), len(self.own)
        if not all(map(_agree, [*results, *held], [*others, *self.own])):
            return "its graph gives other results"
        if not all(map(_agree, usual.arrays[n:], self.changing[n:], before.arrays[n:])):
            return "its graph changes arrays in another way"
        return None


class _Snapshot:
    """What a graph may change, as it is now: in copies, or in those of an earlier snapshot where nothing changed."""

    def __init__(self, graph: _Graph, earlier: list[Any] | None = None) -> None:
        self.places = graph.changing
        olds = earlier or [None] * len(self.places)
        self.arrays = [
            _copy(x) if old is None or not _equal(x, old) else old for x, old in zip(self.places, olds, strict=True)
        ]
        self.cells = [(cell, cell.held) for cell, _ in graph.cells]
        self.attributes = _Attributes(graph.recording.members)

    def restore(self) -> None:
        """Make everything what it was."""
        for cell, value in self.cells:
            cell.held = value
        self.attributes.restore()
        _fill(self.places, self.arrays)


def _recorder_for(step: Callable[..., Any], *arguments: Any) -> Any:
    """Make what records on the device where the step's arrays are."""
    arrays = [*Surroundings(step, arguments, closed=Member).arrays, *leaves(arguments)]
    places = {device_of(x): x for x in arrays if _module(library(x)) is not None}
    if not places:
        raise _NothingToCapture("its arrays are not on a GPU, through CuPy")
    if len(places) > 1:
        raise NotCapturable(f"its arrays are on several devices, {', '.join(map(str, places))}")
    ((where, x),) = places.items()
    return import_module(str(_module(where.library))).Recorder(x)


class _NothingToCapture(NotCapturable):
    pass


@functools.cache
def _module(library: str) -> str | None:
    """Name the module that records for a library."""
    name = f"{__package__}.kernels.{library}"
    if "." in library or find_spec(name) is None or find_spec(f"{name}.graph") is None:
        return None
    return f"{name}.graph"


def _write_back(recorder: Any, before: dict[State, Any], out: Any) -> Any:
    """Copy what cells were given to where the next step finds it; return the results, none of which that overwrites."""
    owned = leaves(list(before.values()))
    if others := [library(x) for x in owned if library(x) != recorder.library]:
        raise NotCapturable(f"it changes a cell that holds an array of {others[0]}: move the net to the device")
    out = _apart(recorder, out, owned)
    values = [own if cell.held is own else _apart(recorder, cell.held, owned) for cell, own in before.items()]
    for own, value in zip(before.values(), values, strict=True):
        if value is not own:
            if not _fits(own, value):
                raise NotCapturable("a cell is given an array of another shape or dtype than it held")
            _fill(own, value)
    return out


def _apart(recorder: Any, tree: Any, owned: list[Any]) -> Any:
    """The same values where none stands in the memory of some arrays."""
    return map_leaves(lambda x: _copy(x) if any(recorder.overlap(x, own) for own in owned) else x, tree)


def _copy(x: Any) -> Any:
    return raw_namespace(x).asarray(x, copy=True)


def _fill(own: Any, values: Any) -> None:
    for x, value in zip(leaves(own), leaves(values), strict=True):
        x[...] = value


def _fits(own: Any, value: Any) -> bool:
    """Whether two trees have arrays of the same shapes, dtypes and devices."""
    ours, theirs = leaves(own), leaves(value)
    return len(ours) == len(theirs) and all(
        a is b or (a.shape == b.shape and a.dtype == b.dtype and device_of(a) == device_of(b))
        for a, b in zip(ours, theirs, strict=True)
    )


#: How far a graph may be from the usual run, since sums on a GPU may have no fixed order; other dtypes have 16 bits.
TOLERANCE = {"float64": 1e-6, "complex128": 1e-6, "float32": 1e-3, "complex64": 1e-3}


def _agree(usual: Any, graph: Any, before: Any = None) -> bool:
    """Whether results are equal, or nearly: in the 2-norm, against how far they are from what was there before."""
    if usual.shape != graph.shape or usual.dtype != graph.dtype:
        return False
    if not is_inexact(usual.dtype):
        return _equal(usual, graph)
    xp, tolerance = raw_namespace(usual), TOLERANCE.get(name_of(usual.dtype), 5e-2)
    usual, graph, before = (x if x is None else widened(xp, x) for x in (usual, graph, before))
    if not bool(xp.all((xp.isfinite(usual) & xp.isfinite(graph)) | _alike(usual, graph))):
        return False
    usual, graph, before = (x if x is None else xp.where(xp.isfinite(x), x, 0.0) for x in (usual, graph, before))

    def norm(x: Any) -> float:
        sizes = xp.abs(x)
        largest = float(xp.max(sizes)) if math.prod(x.shape) else 0.0
        return largest * math.sqrt(float(xp.sum((sizes / largest) ** 2))) if largest else 0.0

    change = norm(usual if before is None else usual - before)
    return norm(usual - graph) <= tolerance * change + tolerance * tolerance * norm(usual)


def _alike(a: Any, b: Any) -> Any:
    """Where two arrays are equal, or both NaN."""
    return (a == b) | ((a != a) & (b != b))


def _equal(a: Any, b: Any) -> bool:
    xp = raw_namespace(a)
    return bool(xp.all(_alike(widened(xp, a), widened(xp, b))))


def _told(problem: Exception, what: str) -> str:
    """Say what went wrong and where, without a reference to it."""
    if isinstance(problem, NotCapturable):
        return str(problem)
    frames = [(frame, line) for frame, line in traceback.walk_tb(problem.__traceback__) if is_users(frame.f_globals)]
    place = f" (at {frames[-1][0].f_code.co_filename}:{frames[-1][1]})" if frames else ""
    return f"{what} failed with {type(problem).__name__}: {str(problem).partition(chr(10))[0]}{place}"
