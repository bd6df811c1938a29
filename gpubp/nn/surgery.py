"""The parameters, cells and layers of a net, found by their paths."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from ..device import Device, device_of, is_array, move, raw_namespace, to_numpy
from ..layout import Layout
from ..state import State
from ..tree import Node, cells_with_paths, children, leaves_with_paths
from .parameter import Parameter, check_built


def layers_of(tree: Any) -> list[Any]:
    """The parts of a tree that have a mode, which is all its layers, each once."""
    found: dict[int, Any] = {}

    def visit(x: Any) -> None:
        if id(x) not in found:
            if hasattr(x, "training"):
                found[id(x)] = x
            for _, part in children(x) or ():
                visit(part)

    visit(tree)
    return list(found.values())


@contextmanager
def mode(tree: Any, *, training: bool) -> Iterator[None]:
    """Set the mode of a tree's layers for the length of a block."""
    before = [(layer, layer.training) for layer in layers_of(tree)]
    for layer, _ in before:
        layer.training = training
    try:
        yield
    finally:
        for layer, was in before:
            layer.training = was


def learn_lengths(net: Any, *inputs: Any) -> None:
    """Call a net once, in evaluation mode, so that it learns from a batch the lengths that it was not given."""
    with mode(net, training=False):
        net(*inputs)
    check_built(net)


def cells_of(tree: Any) -> list[State]:
    """The cells of a tree, each once."""
    return list({id(cell): cell for _, cell in cells_with_paths(tree)}.values())


# -- places


def is_parameter(x: Any) -> bool:
    """Whether `x` is an array, or will be one."""
    return type(x) is Parameter or is_array(x)


def owners(tree: Node) -> list[tuple[str, Any, str]]:
    """The attributes of layers that hold parameters, drawn or not: path, layer and name."""
    found: list[tuple[str, Any, str]] = []

    def visit(x: Any, path: str) -> None:
        for step, part in children(x) or ():
            if isinstance(x, Node) and _holds_parameters(part):
                found.append(((path + step).removeprefix("."), x, step[1:]))
            visit(part, path + step)

    visit(tree, "")
    return found


def _holds_parameters(x: Any) -> bool:
    if is_parameter(x):
        return True
    return not isinstance(x, Node) and any(_holds_parameters(part) for _, part in children(x) or ())


def chosen_by(net: Node, paths: tuple[str, ...]) -> list[tuple[Any, str]]:
    """The attributes at or below these paths, and those that share an array with one of them."""
    places = owners(net)

    def below(path: str, chosen: str) -> bool:
        return path == chosen or path.startswith((f"{chosen}.", f"{chosen}["))

    for chosen in paths:
        if not any(below(path, chosen) for path, _, _ in places):
            known = listed_paths(path for path, _, _ in places)
            raise ValueError(f"there is no parameter at {chosen!r} in this {type(net).__name__}; {known}")
    wanted = {
        id(x)
        for path, owner, name in places
        if not paths or any(below(path, chosen) for chosen in paths)
        for x in _parameters_in(vars(owner)[name])
    }
    return [
        (owner, name) for _, owner, name in places if any(id(x) in wanted for x in _parameters_in(vars(owner)[name]))
    ]


def _parameters_in(x: Any) -> list[Any]:
    if is_parameter(x):
        return [x]
    if isinstance(x, Node):
        return []
    return [p for _, part in children(x) or () for p in _parameters_in(part)]


def listed_paths(paths: Iterable[str]) -> str:
    """Return the part of an error that says which paths there are."""
    listed = list(paths)
    return f"there are {', '.join(listed[:8])}{', ...' if len(listed) > 8 else ''}" if listed else "there are none"


# -- state, of layers and of other trees


def state_of(tree: Any) -> dict[str, Any]:
    """The arrays of a tree and of its cells by path, a shared one under its first path only."""
    first: dict[int, tuple[str, Any]] = {}
    for path, x in leaves_with_paths(tree):
        first.setdefault(id(x), (path, x))
    for path, cell in cells_with_paths(tree):
        first.setdefault(id(cell), (path, cell.held))
    return dict(first.values())


def load_state(tree: Any, found: dict[str, Any], name: str, kind: str) -> None:
    """Put arrays in the places of those that `state_of` returns; errors call them by their name and kind."""
    check_built(tree)
    wanted = state_of(tree)
    faults = [f"{path} is missing" for path in wanted if path not in found]
    faults += [f"{path} is in the {kind} and not in the net" for path in sorted(found) if path not in wanted]
    for path, x in wanted.items():
        if path in found:
            there, here = to_numpy(found[path]), to_numpy(x)
            if there.shape != here.shape or there.dtype != here.dtype:
                faults.append(f"{path} is {there.dtype}{list(there.shape)}, expected {here.dtype}{list(here.shape)}")
    if faults:
        raise ValueError(f"{name} does not fit this {type(tree).__name__}: {'; '.join(faults)}")
    moved = {path: _moved(found[path], device_of(x)) for path, x in wanted.items()}
    for path, cell in cells_with_paths(tree):
        if path in moved:
            cell.held = moved[path]
    by_identity = {id(x): moved[path] for path, x in wanted.items()}
    layout = Layout(tree, every=True)
    layout.write(tree, [by_identity[id(x)] for x in layout.read(tree)])


def _moved(x: Any, device: Device) -> Any:
    """An array of one's own on a device."""
    there = move(x, device)
    return raw_namespace(x).asarray(x, copy=True) if there is x else there
