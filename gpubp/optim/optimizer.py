"""What the optimizers share: how a step reaches the parameters, and what is done to the gradients before it."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral, Real
from operator import attrgetter, is_not
from typing import Any, Self, TypedDict, Unpack

from ..boundary import is_complex
from ..capture import Member, NotCapturable, recording
from ..device import device_of, is_array, library, move, raw_namespace, to_numpy
from ..functions.update import COUNTS, NONFINITE, Guard, LossScale, Settings, Store, Update, check_number
from ..fused import load_kernels
from ..layout import Layout
from ..namespace import twin_of
from ..nn.parameter import check_built
from ..nn.surgery import listed_paths
from ..tree import leaves_with_paths

#: Settings that are True or False.
SWITCHES = ("nesterov", "decoupled", "centered", "amsgrad", "maximize", "match_adam", "narrow", "orthogonal")


class Guarding(TypedDict, total=False):
    """What is done to all gradients; see `Optimizer`."""

    clip_norm: float | None
    clip_value: float | None
    nonfinite: str
    loss_scale: LossScale | float | str | None


class Options(Guarding, total=False):
    """The options that all optimizers have; see `Optimizer`."""

    groups: Mapping[str, Mapping[str, Any]] | None
    maximize: bool


class Optimizer(Member):
    """Changes the arrays of a net (or of a tree of dicts and lists) step by step against their gradients.

    Where the library's arrays are writable and an in-place step is known (NumPy, CuPy), the optimizer puts views of
    buffers of its own in the places of the arrays and then works in those; elsewhere every step puts new arrays
    there. An array that stands in several places is stepped once, with its whole gradient, and stays shared. An array
    replaced from outside by another of the same shape and dtype is noticed at the next step. 16-bit parameters are
    stepped in float32 arithmetic and have float32 state. Nothing of a step is read by the host where the arrays are on
    a device.

    The settings are attributes, which may be changed between steps unless they then need other state.

    Parameters
    ----------
    tree
        A built net, or a dict or list that holds arrays.
    lr
        Learning rate, or a schedule: a function of the number of the step, from 0, such as those of
        `gpubp.optim.schedules`; it is called on the host.
    groups
        Other settings for some of the parameters, by paths, such as ``"layers[0].W"``, parts of the net, such as
        ``"layers[0]"``, or patterns in which ``*`` stands for anything: ``{"*.b": {"weight_decay": 0.0}}``. Where
        several fit, the later ones are added. What else is said here is for all parameters together.
    maximize
        Whether to ascend.
    clip_norm
        The Euclidean norm over all gradients to which they are brought where theirs is larger, as by PyTorch's
        ``clip_grad_norm_``; None leaves them as they are, ``math.inf`` only measures.
    clip_value
        The largest absolute value of any gradient's element; larger ones are brought to it. Not with `clip_norm`.
    nonfinite
        What is done with a gradient that is infinite or NaN: ``"ignore"``: as with others. ``"skip"``: the step is left
        out, so that parameters, state and the number of steps stay as they are. ``"stop"``: so are all steps after it,
        until `clear` is called; `failed` says which was the first.
    loss_scale
        None, a factor, ``"dynamic"`` for ``LossScale()``, or a `LossScale`: by what the loss was multiplied, as
        `scale` says, when the gradient was computed. A dynamic one skips steps that are not finite, and is lowered;
        that alone neither counts in `failed` nor stops.

    Attributes
    ----------
    tree
        The net or tree that it changes.
    lr_factor : float
        By which every learning rate is multiplied; 1 until it is changed.
    calls : int
        How many times `step` was called, which is the number of the next step to a schedule. A state has it as the sum
        of ``steps`` and ``skipped``.

    Raises
    ------
    TypeError
        If there is no floating-point array, if an array stands in a tuple, or if they are of several libraries.
    ValueError
        If an option is out of its range.
    RuntimeError
        If the net has not been built.
    """

    rule: Update  #: the arithmetic of one step
    names: tuple[str, ...] = ("lr",)  #: of the settings, which are attributes and may differ among groups

    def __init__(self, tree: Any, lr: Any, **options: Unpack[Options]) -> None:
        _check_names(type(self).__name__, options, Options.__annotations__, self.names)
        groups = options.pop("groups", None) or {}
        self.maximize = options.pop("maximize", False)
        guard = _guard(**options)  # type: ignore[misc]
        check_built(tree)
        self.lr, self.lr_factor, self.calls = lr, 1.0, 0
        self.tree, self._layout = tree, Layout(tree)
        arrays = self._layout.read(tree)
        if not arrays:
            raise TypeError(f"there is no floating-point array in this {type(tree).__name__}")
        if len(libraries := {library(x) for x in arrays}) > 1:
            raise TypeError(f"an optimizer works on arrays of one library, got {', '.join(sorted(libraries))}")
        if guard.clip_value is not None and any(is_complex(x) for x in arrays):
            raise TypeError("clip_value is for real parameters; clip_norm is for complex ones too")
        first: dict[int, int] = {}
        self._first = [first.setdefault(id(x), k) for k, x in enumerate(arrays)]  # of the places an array stands in
        self._own = sorted(set(self._first))
        self._specs = [(tuple(x.shape), x.dtype) for x in arrays]
        self._shapes = [self._specs[k][0] for k in self._own]
        self._group(groups, arrays)
        self._values, self._seen = attrgetter("lr_factor", "maximize", *self.names), None
        load_kernels(name := twin_of(arrays[0]).library)
        self._make = Store.of_library.get(name, Store)
        self._store = self._store_for(guard)
        self._put()

    def settings(self) -> dict[str, Any]:
        """Return the keyword arguments of the update, as they are outside of all groups."""
        return {name: getattr(self, name) for name in self.names}

    def settings_for(self, p: Any) -> dict[str, Any]:
        """Return the settings that follow from a parameter's shape and dtype, whatever its groups say."""
        return {}

    def _group(self, groups: Mapping[str, Mapping[str, Any]], arrays: Sequence[Any]) -> None:
        """Find each parameter's group: those that differ in the same settings are one."""
        paths: dict[int, list[str]] = {}
        for path, k in zip(self._layout.paths, self._first, strict=True):
            paths.setdefault(k, []).append(path)
        patterns = _patterns(groups, self._layout.paths, (*self.names, "maximize"))
        self._others: list[dict[str, Any]] = []
        self._groups: list[int] = []
        for k in self._own:
            other: dict[str, Any] = {}
            for pattern, options in patterns:
                if any(map(pattern.match, paths[k])):
                    other |= options
            other |= self.settings_for(arrays[k])
            if other not in self._others:
                self._others.append(other)
            self._groups.append(self._others.index(other))

    def _store_for(self, guard: Guard) -> Store:
        arrays = self._layout.read(self.tree)
        return self._make(self.rule, [arrays[k] for k in self._own], self._groups, self._settings(), guard)

    def _settings(self) -> list[Settings]:
        """The keyword arguments of the next update of each group; made anew where an attribute has changed."""
        values = self._values(self)
        if values != self._seen:
            self._made = self._new_settings()
            self._seen = _plain(values)
        for k, lr in self._schedules:
            self._made[k] = self._made[k] | {"lr": _rate(lr, self.calls) * self.lr_factor}
        return self._made

    def _new_settings(self) -> list[Settings]:
        check_settings({"lr_factor": self.lr_factor})
        own, made = self.settings() | {"maximize": self.maximize}, []
        for other in self._others:
            check_settings(settings := own | other)
            made.append({name: _plain(value) for name, value in settings.items()})
        slots = list(map(self.rule.needed, made))
        if self._seen is not None and slots != self._slots:
            raise ValueError(
                f"{type(self).__name__} was made to remember {self._slots} of its groups' parameters; with what was "
                f"changed since it would be {slots}: make a new one"
            )
        self._slots = slots
        lrs = [settings.get("lr") for settings in made]
        self._schedules: list[tuple[int, Any]] = [(k, lr) for k, lr in enumerate(lrs) if callable(lr)]
        return [
            settings if lr is None or callable(lr) else settings | {"lr": lr * self.lr_factor}
            for settings, lr in zip(made, lrs, strict=True)
        ]

    def step(self, grads: Any, value: Any = None) -> None:
        """Change every parameter once.

        Parameters
        ----------
        grads
            The gradient, a tree like the one given to the optimizer, as `gpubp.value_and_grad` returns it, of the same
            dtypes. It is not changed. Parameters whose gradient is None, since they are frozen, stay as they are, and
            so does what the optimizer remembers of them.
        value
            The loss, a 0-d array where the parameters are: one that is not finite counts as such a gradient.

        Raises
        ------
        TypeError, ValueError
            If the gradient has another structure, an array of another shape, or no array at all; if the value is no
            0-d array.
        """
        if value is not None and getattr(value, "shape", None) != ():
            given = f"shape {tuple(value.shape)}" if hasattr(value, "shape") else type(value).__name__
            raise TypeError(f"value must be the loss, a 0-d array, got {given}")
        try:
            arrays = self._layout.read(self.tree)
            if any(map(is_not, arrays, self._known)):
                self._adopt(arrays)
            gradients = self._layout.read(grads)
            if len(self._own) < len(gradients):
                gradients = tuple(gradients[k] for k in self._own)
            shapes = [None if g is None else g.shape for g in gradients]
            if shapes != self._shapes and (all(s is None for s in shapes) or any(map(_differ, shapes, self._shapes))):
                raise ValueError
        except (AttributeError, IndexError, KeyError, TypeError, ValueError):
            self._explain(grads)
            raise
        store, settings, now = self._store, self._settings(), recording()
        if now is not None:
            if not store.is_device:
                raise NotCapturable("its optimizer makes new arrays at every step, for want of a kernel for its dtypes")
            if any(self is member for member in now.members):
                raise NotCapturable("its optimizer takes two steps, where a launch counts one")
            now.join(self)
        elif store.is_device:
            store.refresh(settings)
        store.step(gradients, settings, value)
        if store.replaces:
            self._put()
        if now is None:
            self.calls += 1

    # -- captured steps: see `gpubp.capture.Member`

    def changed_arrays(self) -> list[Any]:
        """Return the arrays that a step changes in place."""
        return self._store.changed_arrays()

    def before_launch(self) -> None:
        """Prepare the next launch of a captured step: take over replaced arrays and hand on a new learning rate."""
        arrays = self._layout.read(self.tree)
        if any(map(is_not, arrays, self._known)):
            self._adopt(arrays)
        self._store.refresh(self._settings())
        self.calls += 1

    # -- reports; those that are numbers are read from the device, where there is one

    @property
    def steps(self) -> int:
        """How many steps were taken, without those that were skipped."""
        return _read(self._store.steps)

    @property
    def skipped(self) -> int:
        """How many steps were skipped, since a gradient was not finite."""
        return _read(self._store.skipped)

    def count(self, name: str) -> Any:
        """Return ``steps``, ``skipped`` or ``failed`` without a wait: a number, or a 0-d array of one's own."""
        count = getattr(self._store, name)
        return count if type(count) is int else self._store.count(name)

    @property
    def failed(self) -> Any:
        """Which call of `step`, counted from 0, was the first that was not finite.

        It is a 0-d array where the parameters are, and -1 if there was none since `clear`, and always with
        ``nonfinite="ignore"``.
        """
        return self._store.count("failed")

    def clear(self) -> None:
        """Forget what failed; an optimizer that has stopped steps again."""
        self._store.clear()

    @property
    def norm(self) -> Any:
        """Norm over all gradients of the last step, before clipping: a 0-d array where the parameters are.

        None if no option asks for it. A later step may overwrite it.
        """
        return self._store.norm

    @property
    def scale(self) -> Any:
        """The factor by which the loss must be multiplied: a 0-d float32 array where the parameters are, or None.

        A later step may overwrite it.
        """
        return self._store.scale

    @property
    def rescales(self) -> bool:
        """Whether there is a dynamic loss scale."""
        rule = self._store.guard.loss_scale
        return rule is not None and rule.dynamic

    @property
    def nonfinite(self) -> str:
        """What is done with a gradient that is not finite."""
        return self._store.guard.nonfinite

    def guard(self, **options: Unpack[Guarding]) -> None:
        """Change some of the options clip_norm, clip_value, nonfinite and loss_scale from now on.

        A loss scale that is given begins as at first; all else that the optimizer remembers stays.
        """
        _check_names("guard", options, Guarding.__annotations__)
        known: Guarding = self._store.guard._asdict()  # type: ignore[assignment]
        self._renew(_guard(**(known | options)), "loss_scale" in options)

    def _renew(self, guard: Guard, scaled_anew: bool = False) -> None:
        """Have another store for the same state."""
        old = self._store
        new = self._store_for(guard)
        slots = [tuple(old.xp.asarray(x, copy=True) for x in state) for state in old.slots]
        new.restore(slots, {name: old.count(name) for name in COUNTS}, new.scale if scaled_anew else old.scale)
        self._store = new
        self._put()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        memo[id(self)] = new = copy.copy(self)
        new.tree, new._made = copy.deepcopy(self.tree, memo), list(self._made)
        new._renew(self._store.guard)
        return new

    # -- files

    def state(self) -> dict[str, Any]:
        """Return copies of all that the optimizer remembers, by name, as arrays where the parameters are.

        ``steps``, ``skipped``, ``good`` (steps in a row without overflow since the loss scale changed), ``failed`` and,
        if there is a loss scale, ``scale``: 0-d arrays. And for each parameter its arrays of state, named by what they
        are and the path, such as ``m layers[0].W``.
        """
        xp = raw_namespace(self._store.arrays[0])
        return {name: xp.asarray(x, copy=True) for name, x in self._remembered().items()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` returned, of this optimizer or of one of the same kind for a net of the same form.

        Parameters
        ----------
        state
            Arrays by name, of any library.

        Raises
        ------
        TypeError, ValueError
            If it is no mapping, or names or shapes differ; then nothing has changed.
        """
        if not isinstance(state, Mapping):
            raise TypeError(f"expected the arrays by name that state() returned, got {type(state).__name__}")
        own = self._remembered()
        if own.keys() != state.keys():
            missing, unknown = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
            raise ValueError(
                f"the state is of another optimizer: it lacks {', '.join(missing[:5]) or 'nothing'} and has "
                f"{', '.join(unknown[:5]) or 'nothing'} that is unknown here"
            )
        for name, x in own.items():
            if not is_array(state[name]):
                raise TypeError(f"{name} must be an array in the state, got {state[name]!r}")
            if tuple(state[name].shape) != tuple(x.shape):
                raise ValueError(f"{name} has shape {tuple(state[name].shape)} in the state, expected {tuple(x.shape)}")
        store = self._store
        where, xp = device_of(store.arrays[0]), raw_namespace(store.arrays[0])
        new = {name: xp.astype(move(state[name], where), x.dtype) for name, x in own.items()}
        store.restore(
            [
                tuple(new[f"{name} {path}"] for name in names)
                for names, path in zip(store.names, self._own_paths(), strict=True)
            ],
            {name: new[name] for name in COUNTS},
            new.get("scale"),
        )
        self.calls = self.steps + self.skipped

    def _remembered(self) -> dict[str, Any]:
        """The parts of the state by name, as they are now."""
        store = self._store
        found = {name: store.count(name) for name in COUNTS}
        if store.scale is not None:
            found["scale"] = store.scale
        for path, names, slots in zip(self._own_paths(), store.names, store.slots, strict=True):
            found |= {f"{name} {path}": x for name, x in zip(names, slots, strict=True)}
        return found

    def _own_paths(self) -> list[str]:
        return [self._layout.paths[k] for k in self._own]

    def _put(self) -> None:
        """Put the store's arrays in their places."""
        own = dict(zip(self._own, self._store.arrays, strict=True))
        self._known = [own[k] for k in self._first]
        self._layout.write(self.tree, self._known)

    def _adopt(self, arrays: Sequence[Any]) -> None:
        """Take over the values of arrays that were replaced from outside."""
        for path, x, (shape, dtype), known in zip(self._layout.paths, arrays, self._specs, self._known, strict=True):
            if x is not known and (tuple(x.shape) != shape or x.dtype != dtype or device_of(x) != device_of(known)):
                raise ValueError(
                    f"{path} was replaced by an array of shape {tuple(x.shape)} and dtype {x.dtype} on {device_of(x)}; "
                    f"this optimizer was made for shape {shape} and {dtype} on {device_of(known)}: make a new one"
                )
        own = []
        for k in self._own:  # of the places of a shared array, one that changed
            places = [j for j, f in enumerate(self._first) if f == k]
            own.append(next((arrays[j] for j in places if arrays[j] is not self._known[j]), arrays[k]))
        self._store.load(own)
        self._put()

    def _explain(self, grads: Any) -> None:
        """Raise an error that says where the gradient's tree differs."""
        given = dict(leaves_with_paths(grads))
        if not given:
            raise TypeError(
                f"the gradient, a {type(grads).__name__}, holds no array, where {', '.join(self._layout.paths[:5])} "
                "are expected: is every parameter frozen?"
            )
        missing = [path for path in self._layout.paths if path not in given and not self._is_none(grads, path)]
        if missing:
            raise TypeError(
                f"the gradient has another structure than the parameters: no array at {', '.join(missing[:5])}; "
                f"it is a {type(grads).__name__} with {', '.join(list(given)[:5]) or 'no arrays'}"
            )
        for path, (shape, _) in zip(self._layout.paths, self._specs, strict=True):
            if path in given and tuple(given[path].shape) != shape:
                raise ValueError(f"the gradient of {path} has shape {tuple(given[path].shape)}, expected {shape}")

    def _is_none(self, grads: Any, path: str) -> bool:
        """Whether the gradient's tree has None in the place of an array."""
        try:
            return self._layout.read_one(grads, path) is None
        except (AttributeError, IndexError, KeyError, TypeError):
            return False


def _plain(value: Any) -> Any:
    """A setting with Python's own numbers: NumPy's would widen arrays."""
    if isinstance(value, bool):
        return value
    if isinstance(value, Real):
        return int(value) if isinstance(value, Integral) else float(value)
    return tuple(map(_plain, value)) if isinstance(value, Sequence) else value


def _rate(schedule: Any, step: int) -> float:
    rate = schedule(step)
    try:
        return float(rate)
    except TypeError:
        raise TypeError(f"the schedule {schedule!r} must give a number, got {rate!r} at step {step}") from None


def _differ(shape: Any, expected: Any) -> bool:
    return shape is not None and shape != expected


def _read(count: Any) -> int:
    return count if type(count) is int else int(to_numpy(count))


def _patterns(groups: Any, paths: Sequence[str], names: Sequence[str]) -> list[tuple[re.Pattern[str], dict[str, Any]]]:
    """What finds the paths of each group, and its settings."""
    if not isinstance(groups, Mapping) or not all(
        isinstance(text, str) and isinstance(options, Mapping) for text, options in groups.items()
    ):
        raise TypeError(f'groups must be a dict of dicts such as {{"*.b": {{"lr": 0.1}}}}, got {groups!r}')
    found = []
    for text, options in groups.items():
        pattern = re.compile(".*".join(map(re.escape, text.split("*"))) + r"($|[.\[])")
        if not any(map(pattern.match, paths)):
            raise ValueError(f"groups: there is no parameter at {text!r}; {listed_paths(paths)}")
        if unknown := [name for name in options if name not in names]:
            raise ValueError(f"groups: {text!r} sets {', '.join(unknown)}; what may differ are {', '.join(names)}")
        found.append((pattern, dict(options)))
    return found


def check_settings(settings: Mapping[str, Any]) -> None:
    """Refuse settings out of their range."""
    for name, value in settings.items():
        if name in SWITCHES:
            if not isinstance(value, bool):
                raise TypeError(f"{name} must be True or False, got {value!r}")
        elif name == "betas":
            if not (isinstance(value, Sequence) and len(value) == 2 and all(isinstance(beta, Real) for beta in value)):
                raise TypeError(f"betas must be two numbers, got {value!r}")
            if not all(0.0 <= beta < 1.0 for beta in value):
                raise ValueError(f"betas must be from 0 to below 1, got {value}")
        elif name != "lr" or not callable(value):
            check_number(name, value)
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} must be finite and not negative, got {value}")
            if name in ("alpha", "dampening") and value > 1:
                raise ValueError(f"{name} must be from 0 to 1, got {value}")
            if name == "iterations" and not isinstance(value, Integral):
                raise TypeError(f"iterations must be a whole number, got {value!r}")
    if settings.get("nesterov") and (not settings["momentum"] or settings.get("dampening")):
        raise ValueError("nesterov=True needs a momentum above 0, and no dampening")


def _check_names(what: str, given: Iterable[str], options: Iterable[str], others: Sequence[str] = ()) -> None:
    if unknown := [name for name in given if name not in options]:
        raise TypeError(f"{what} has no option {', '.join(unknown)}; it has {', '.join((*others, *options))}")


def _guard(
    clip_norm: float | None = None,
    clip_value: float | None = None,
    nonfinite: str = "ignore",
    loss_scale: LossScale | float | str | None = None,
) -> Guard:
    for name, bound in (("clip_norm", clip_norm), ("clip_value", clip_value)):
        if bound is not None:
            check_number(name, bound)
            if not bound > 0:
                raise ValueError(f"{name} must be above 0 or None, got {bound}")
    if clip_norm is not None and clip_value is not None:
        raise ValueError("clip_norm and clip_value exclude each other: give one of them")
    if nonfinite not in NONFINITE:
        raise ValueError(f"nonfinite must be 'ignore', 'skip' or 'stop', got {nonfinite!r}")
    if isinstance(loss_scale, str):
        if loss_scale != "dynamic":
            raise ValueError(f'loss_scale must be None, a number, "dynamic" or a LossScale, got {loss_scale!r}')
        loss_scale = LossScale()
    elif loss_scale is not None and not isinstance(loss_scale, LossScale):
        if not isinstance(loss_scale, Real) or isinstance(loss_scale, bool):
            raise TypeError(f'loss_scale must be None, a number, "dynamic" or a LossScale, got {loss_scale!r}')
        loss_scale = LossScale(float(loss_scale), growth=1.0, backoff=1.0)
    if nonfinite == "ignore" and loss_scale is not None and loss_scale.dynamic:
        nonfinite = "skip"
    return Guard(_plain(clip_norm), _plain(clip_value), nonfinite, loss_scale)
