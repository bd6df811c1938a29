"""What the optimizers share: how a step reaches the parameters, and what is done to the gradients before it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from numbers import Real
from operator import is_not
from typing import Any

from ..capture import Member, NotCapturable, recording
from ..device import device_of, library, move, raw_namespace, to_numpy
from ..functions.update import COUNTS, Guard, LossScale, Store, Update, check_number
from ..fused import load_kernels
from ..layout import Layout
from ..namespace import twin_of
from ..nn.parameter import check_built
from ..tree import leaves_with_paths


class Optimizer(Member, ABC):
    """Changes the arrays of a net (or of a tree of dicts and lists) step by step against their gradients.

    Where the library's arrays are writable and an in-place step is known (NumPy, CuPy), the optimizer puts views of
    buffers of its own in the places of the arrays and then works in those; elsewhere every step puts new arrays
    there. An array that stands in several places is stepped once, with its whole gradient, and stays shared. An array
    replaced from outside by another of the same shape and dtype is noticed at the next step. 16-bit parameters are
    stepped in float32 arithmetic and have float32 state. Nothing of a step is read by the host where the arrays are on
    a device.

    Parameters
    ----------
    tree
        A built net, or a dict or list that holds arrays.
    lr
        Learning rate; may be changed between steps.
    clip_norm
        The Euclidean norm over all gradients to which they are brought where theirs is larger, as by PyTorch's
        ``clip_grad_norm_``; None leaves them as they are, ``math.inf`` only measures.
    skip_nonfinite
        Whether a step with a gradient that is infinite or NaN is left out, so that parameters, state and the number of
        steps stay as they are.
    loss_scale
        None, a factor, ``"dynamic"`` for ``LossScale()``, or a `LossScale`: by what the loss was multiplied, as
        `scale` says, when the gradient was computed. A dynamic one skips steps that are not finite.

    Attributes
    ----------
    tree
        The net or tree that it changes.

    Raises
    ------
    TypeError
        If there is no floating-point array, if an array stands in a tuple, or if they are of several libraries.
    ValueError
        If an option is out of its range.
    RuntimeError
        If the net has not been built.
    """

    update: Update  #: the arithmetic of one step
    slots = 0  #: arrays of state for each parameter

    def __init__(
        self,
        tree: Any,
        lr: float,
        *,
        clip_norm: float | None = None,
        skip_nonfinite: bool = False,
        loss_scale: LossScale | float | str | None = None,
    ) -> None:
        guard = _guard(clip_norm, skip_nonfinite, loss_scale)
        check_built(tree)
        self.lr = lr
        self.tree, self._layout = tree, Layout(tree)
        arrays = self._layout.read(tree)
        if not arrays:
            raise TypeError(f"{type(self).__name__} found no floating-point array in {type(tree).__name__}")
        if len(libraries := {library(x) for x in arrays}) > 1:
            raise TypeError(f"an optimizer works on arrays of one library, got {', '.join(sorted(libraries))}")
        first: dict[int, int] = {}
        self._first = [first.setdefault(id(x), k) for k, x in enumerate(arrays)]  # of the places an array stands in
        self._own = sorted(set(self._first))
        self._specs = [(tuple(x.shape), x.dtype) for x in arrays]
        self._shapes = [self._specs[k][0] for k in self._own]
        name = twin_of(arrays[0]).library
        load_kernels(name)
        make = Store.of_library.get(name, Store)
        self._store = make(self.update, [arrays[k] for k in self._own], self.slots, guard)
        self._put()

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return the keyword arguments of the update."""

    def step(self, grads: Any) -> None:
        """Change every parameter once.

        Parameters
        ----------
        grads
            The gradient, a tree like the one given to the optimizer, as `gpubp.value_and_grad` returns it, of the same
            dtypes. It is not changed. Parameters whose gradient is None, since they are frozen, stay as they are, and
            so does what the optimizer remembers of them.

        Raises
        ------
        TypeError, ValueError
            If it has another structure, an array of another shape, or no array at all.
        """
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
        store, settings, now = self._store, self.settings(), recording()
        if now is not None:
            if not store.is_device:
                raise NotCapturable("its optimizer makes new arrays at every step, for want of a kernel for its dtypes")
            now.join(self)
        elif store.is_device:
            store.refresh(settings)
        store.step(gradients, settings)
        if store.replaces:
            self._put()

    # -- captured steps: see `gpubp.capture.Member`

    def changed_arrays(self) -> list[Any]:
        """Return the arrays that a step changes in place."""
        return self._store.changed_arrays()

    def before_launch(self) -> None:
        """Prepare the next launch of a captured step: take over replaced arrays and hand on a new learning rate."""
        arrays = self._layout.read(self.tree)
        if any(map(is_not, arrays, self._known)):
            self._adopt(arrays)
        self._store.refresh(self.settings())

    # -- reports; those that are numbers are read from the device, where there is one

    @property
    def steps(self) -> int:
        """How many steps were taken, without those that were skipped."""
        return _read(self._store.steps)

    @property
    def skipped(self) -> int:
        """How many steps were skipped, since a gradient was not finite."""
        return _read(self._store.skipped)

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

    def scale_loss(self, loss_scale: LossScale | float | str) -> None:
        """Expect the gradients of a scaled loss from now on, as if the option `loss_scale` had been given at first."""
        old = self._store
        guard = _guard(old.guard.clip_norm, old.guard.skip, loss_scale)
        arrays = self._layout.read(self.tree)
        new = type(old)(self.update, [arrays[k] for k in self._own], self.slots, guard)
        slots = [tuple(old.xp.asarray(x, copy=True) for x in state) for state in old.slots]
        new.restore(slots, {name: old.count(name) for name in COUNTS}, new.scale)
        self._store = new
        self._put()

    # -- files

    def state(self) -> dict[str, Any]:
        """Return copies of all that the optimizer remembers, by name, as arrays where the parameters are.

        ``steps``, ``skipped``, ``good`` (steps in a row without overflow since the loss scale changed) and, if there
        is a loss scale, ``scale``: 0-d arrays. And for each parameter its arrays of state, named by what they are and
        the path, such as ``m layers[0].W``.
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
            if tuple(state[name].shape) != tuple(x.shape):
                raise ValueError(f"{name} has shape {tuple(state[name].shape)} in the state, expected {tuple(x.shape)}")
        store = self._store
        where, xp = device_of(store.arrays[0]), raw_namespace(store.arrays[0])
        new = {name: xp.astype(move(state[name], where), x.dtype) for name, x in own.items()}
        store.restore(
            [tuple(new[f"{name} {path}"] for name in store.names) for path in self._own_paths()],
            {name: new[name] for name in COUNTS},
            new.get("scale"),
        )

    def _remembered(self) -> dict[str, Any]:
        """The parts of the state by name, as they are now."""
        store = self._store
        found = {name: store.count(name) for name in COUNTS}
        if store.scale is not None:
            found["scale"] = store.scale
        for path, slots in zip(self._own_paths(), store.slots, strict=True):
            found |= {f"{name} {path}": x for name, x in zip(store.names, slots, strict=True)}
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


def _differ(shape: Any, expected: Any) -> bool:
    return shape is not None and shape != expected


def _read(count: Any) -> int:
    return count if type(count) is int else int(to_numpy(count))


def _guard(clip_norm: float | None, skip_nonfinite: bool, loss_scale: LossScale | float | str | None) -> Guard:
    if clip_norm is not None:
        check_number("clip_norm", clip_norm)
        if not clip_norm > 0:
            raise ValueError(f"clip_norm must be above 0 or None, got {clip_norm}")
    if isinstance(loss_scale, str):
        if loss_scale != "dynamic":
            raise ValueError(f'loss_scale must be None, a number, "dynamic" or a LossScale, got {loss_scale!r}')
        loss_scale = LossScale()
    elif loss_scale is not None and not isinstance(loss_scale, LossScale):
        if not isinstance(loss_scale, Real):
            raise TypeError(f'loss_scale must be None, a number, "dynamic" or a LossScale, got {loss_scale!r}')
        loss_scale = LossScale(float(loss_scale), growth=1.0, backoff=1.0)
    skip = skip_nonfinite or (loss_scale is not None and loss_scale.dynamic)
    return Guard(clip_norm, skip, loss_scale)
