"""What the optimizers share: where parameters and their state are kept, and how a step reaches them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from operator import is_not
from typing import Any

from ..device import device_of, library, raw_namespace
from ..functions.update import Update
from ..fused import load_kernels
from ..layout import Layout
from ..namespace import twin_of
from ..nn.parameter import check_built
from ..tree import leaves_with_paths

#: Arrays of up to this many elements share one buffer; larger ones are updated alone, in chunks that fit a cache.
SMALL, CHUNK = 16384, 16384


class Optimizer(ABC):
    """Changes the arrays of a net (or of a tree of dicts and lists) step by step against their gradients.

    Where the library's arrays are writable and an in-place step is known (NumPy), the optimizer puts views of
    buffers of its own in the places of the arrays and then works in those; elsewhere every step puts new arrays
    there. An array that stands in several places is stepped once, with its whole gradient, and stays shared. An array
    replaced from outside by another of the same shape and dtype is noticed at the next step.

    Parameters
    ----------
    tree
        A built net, or a dict or list that holds arrays.
    lr
        Learning rate; may be changed between steps.

    Attributes
    ----------
    tree
        The net or tree that it changes.

    Raises
    ------
    TypeError
        If there is no floating-point array, if an array stands in a tuple, or if they are of several libraries.
    RuntimeError
        If the net has not been built.
    """

    update: Update  #: the arithmetic of one step
    slots = 0  #: arrays of state for each parameter

    def __init__(self, tree: Any, lr: float) -> None:
        check_built(tree)
        self.lr = lr
        self.steps = 0
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
        in_place = self.update.in_place.get(name)
        own = [arrays[k] for k in self._own]
        self._store: _New | _InPlace = (
            _New(self.update, own, self.slots) if in_place is None else _InPlace(in_place, own, self.slots)
        )
        self._put()

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return the keyword arguments of the update for step number `steps`."""

    def step(self, grads: Any) -> None:
        """Change every parameter once.

        Parameters
        ----------
        grads
            The gradient, a tree like the one given to the optimizer, as `gpubp.value_and_grad` returns it. It is not
            changed. Parameters whose gradient is None, since they are frozen, stay as they are, and so does what the
            optimizer remembers of them.

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
        self.steps += 1
        self._store.step(gradients, self.settings())
        if type(self._store) is _New:
            self._put()

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


class _New:
    """Parameters of a library whose arrays are replaced at every step."""

    def __init__(self, update: Update, arrays: Sequence[Any], slots: int) -> None:
        self.update, self.arrays = update, list(arrays)
        self.xp = raw_namespace(arrays[0])
        self.state: list[tuple[Any, ...]] = [tuple(self.xp.zeros_like(x) for _ in range(slots)) for x in arrays]

    def load(self, arrays: Sequence[Any]) -> None:
        self.arrays = list(arrays)

    def step(self, gradients: Sequence[Any], settings: dict[str, Any]) -> None:
        stepped = [
            (p, state) if g is None else self.update(self.xp, p, g, state, **settings)
            for p, g, state in zip(self.arrays, gradients, self.state, strict=True)
        ]
        self.arrays = [p for p, _ in stepped]
        self.state = [state for _, state in stepped]


class _InPlace:
    """Parameters as views of flat buffers, one for all small arrays of a dtype and one for each large array."""

    def __init__(self, update: Callable[..., None], arrays: Sequence[Any], slots: int) -> None:
        groups: dict[Any, list[int]] = {}
        for k, x in enumerate(arrays):
            groups.setdefault((x.dtype, k if x.size > SMALL else None), []).append(k)
        self.arrays: Sequence[Any] = [None] * len(arrays)
        self.buffers = [_Buffer(update, [arrays[k] for k in members], slots) for members in groups.values()]
        self.members = list(groups.values())
        for buffer, members in zip(self.buffers, self.members, strict=True):
            for k, view in zip(members, buffer.views, strict=True):
                self.arrays[k] = view
        self.load(arrays)

    def load(self, arrays: Sequence[Any]) -> None:
        for view, x in zip(self.arrays, arrays, strict=True):
            if x is not view:
                view[...] = x

    def step(self, gradients: Sequence[Any], settings: dict[str, Any]) -> None:
        buffers = self.buffers
        if len(buffers) == 1:
            buffers[0].step(gradients, settings)
            return
        for buffer, members in zip(buffers, self.members, strict=True):
            buffer.step([gradients[k] for k in members], settings)


class _Buffer:
    """One flat buffer of parameters, with its state and room for the gradient."""

    def __init__(self, update: Callable[..., None], arrays: Sequence[Any], slots: int) -> None:
        xp, dtype = raw_namespace(arrays[0]), arrays[0].dtype
        n = sum(x.size for x in arrays)
        self.update, self.n = update, n
        self.large = len(arrays) == 1 and n > SMALL
        self.flat = xp.empty(n, dtype=dtype)
        self.state = tuple(xp.zeros(n, dtype=dtype) for _ in range(slots))
        room = CHUNK if self.large else n
        self.gradient, self.temporary = xp.empty(room, dtype=dtype), xp.empty(room, dtype=dtype)
        self.parts, self.views, self.gradient_views = [], [], []
        start = 0
        for x in arrays:
            part = slice(start, start + x.size)
            self.parts.append(part)
            self.views.append(self.flat[part].reshape(x.shape))
            if not self.large:
                self.gradient_views.append(self.gradient[part].reshape(x.shape))
            start += x.size

    def step(self, gradients: Sequence[Any], settings: dict[str, Any]) -> None:
        if self.large:
            if gradients[0] is not None:
                self._step_in_chunks(gradients[0].reshape(-1), settings)
            return
        frozen = []
        for part, view, g in zip(self.parts, self.gradient_views, gradients, strict=True):
            if g is None:
                frozen += [(flat[part], flat[part].copy()) for flat in (self.flat, *self.state)]
                view[...] = 0  # what an update leaves there would grow from step to step
            else:
                view[...] = g
        self.update(self.flat, self.gradient, self.state, self.temporary, **settings)
        for view, old in frozen:
            view[...] = old

    def _step_in_chunks(self, gradient: Any, settings: dict[str, Any]) -> None:
        for start in range(0, self.n, CHUNK):
            part = slice(start, min(start + CHUNK, self.n))
            g = self.gradient[: part.stop - start]
            g[...] = gradient[part]
            self.update(self.flat[part], g, tuple(s[part] for s in self.state), self.temporary[: len(g)], **settings)
