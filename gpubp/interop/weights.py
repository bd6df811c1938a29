"""PyTorch's weights in the places of a net's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import numpy as np

from .. import nn
from ..device import is_array, to_numpy
from ..nn.parameter import check_built
from ..nn.surgery import load_state, state_of
from ..tree import Node, children

__all__ = ["load_torch_weights"]

T = TypeVar("T")
#: Gives what PyTorch's module holds under a name, such as "weight".
Take = Callable[[str], np.ndarray]


def load_torch_weights(
    net: T,
    tensors: Mapping[str, Any],
    names: Mapping[str, str] | Callable[[str], str | None] | None = None,
) -> T:
    """Put the tensors of a PyTorch model in the places of the parameters and running statistics of a net.

    Axes are permuted to channels last: the weights of a convolution from (out, in / groups, *window) to
    (*window, in / groups, out), those of a dense layer from (out, in) to (in, out). Dtypes are cast to the net's.

    Parameters
    ----------
    net
        A built net; it is changed, or, where anything does not fit, left as it is.
    tensors
        Arrays by PyTorch's names, as `read_torch_file` gives them for a file of a ``state_dict()``.
    names
        For the path of a layer with parameters, such as ``"layers[0]"``, the name of PyTorch's module, such as
        ``"features.0"``: a dict or a function. By default the layers of the net, in the order of its attributes, are
        the modules of the file in theirs. A parameter of a layer of your own is the tensor of the same name and shape.

    Returns
    -------
    net
        The same net.

    Raises
    ------
    TypeError
        If `tensors` is no dict of arrays.
    ValueError
        If tensors are missing, left over (but for ``num_batches_tracked``, a count), of another shape or no real or
        complex numbers as the net has them; the message names all that are.

    Examples
    --------
    >>> net = nn.Sequential(nn.Dense(3, 2), seed=0)
    >>> tensors = {"fc.weight": np.ones((2, 3)), "fc.bias": np.zeros(2)}
    >>> load_torch_weights(net, tensors)(np.ones((1, 3), dtype="float32"))
    array([[3., 3.]], dtype=float32)
    """
    check_built(net)
    modules = _modules(tensors)
    wanted = state_of(net)
    new = dict(wanted)
    used: set[int] = set()
    faults: list[str] = []
    for layer, module, own in _pairs(net, wanted, modules, names):

        def take(name: str, module: str = module) -> np.ndarray:
            tensor = modules.get(module, {}).get(name)
            if tensor is None:
                raise _Missing(f"{module}.{name}".removeprefix("."))
            used.add(id(tensor))
            return to_numpy(tensor)

        for attribute, path in own.items():
            try:
                tensor = _rule(layer)(layer, attribute, take)
            except _Missing as missing:
                faults.append(f"{missing} is missing, for {path}")
            else:
                new[path], fault = _fitting(tensor, to_numpy(wanted[path]))
                faults += [f"module {module!r} {fault} for {path}"] if fault else []
    for full, tensor in tensors.items():
        if id(tensor) not in used and full.rpartition(".")[2] != "num_batches_tracked":
            faults.append(f"{full} is left over")
    if faults:
        raise ValueError(f"the tensors do not fit this {type(net).__name__}: {'; '.join(faults)}")
    load_state(net, new, "the file", "file")
    return net


class _Missing(Exception):
    """A module of PyTorch's has no tensor of a name."""


def _modules(tensors: Any) -> dict[str, dict[str, Any]]:
    """The tensors of a state dict by module and by name in it."""
    if not isinstance(tensors, Mapping):
        raise TypeError(f"expected a dict of arrays by name, as of a state_dict(), got {type(tensors).__name__}")
    modules: dict[str, dict[str, Any]] = {}
    for full, tensor in tensors.items():
        if type(full) is not str or not is_array(tensor):
            raise TypeError(
                f"expected a dict of arrays by name, as of a state_dict(), got one that holds {type(tensor).__name__} "
                f"at {full!r:.80}: if an item of it is the state_dict, pass that"
            )
        module, _, name = full.rpartition(".")
        whole, _, last = module.rpartition(".")
        if last == "out_proj" and f"{whole}.in_proj_weight".removeprefix(".") in tensors:
            module, name = whole, f"{last}.{name}"  # a module of attention has its last projection in one of its own
        modules.setdefault(module, {})[name] = tensor
    return modules


class _Pair(NamedTuple):
    layer: Any
    module: str
    own: dict[str, str]  # the paths of its arrays in the net by those in the layer


def _pairs(net: Any, wanted: dict[str, Any], modules: dict[str, Any], names: Any) -> list[_Pair]:
    """The layers that hold arrays, each with the name of PyTorch's module."""
    layers, counts = _layers(net)
    owned: dict[str, dict[str, str]] = {path: {} for path in layers}
    for path in wanted:
        if not any(_stands_below(path, count) for count in counts):
            owner = max((p for p in layers if _stands_below(path, p)), key=len)
            owned[owner][path.removeprefix(owner).removeprefix(".")] = path
    paths = [path for path in layers if owned[path]]
    if names is None:
        modules = _with_new_tensors(modules)
        if len(paths) != len(modules):
            raise ValueError(
                f"the net has {len(paths)} layers with parameters ({_listed(paths)}), the file {len(modules)} modules "
                f"({_listed(modules)}): say in names which belongs to which"
            )
        return [_Pair(layers[p], m, owned[p]) for p, m in zip(paths, modules, strict=True)]
    if isinstance(names, Mapping) and (unknown := [p for p in names if p not in paths]):
        raise ValueError(f"names has {_listed(unknown)}, expected paths of layers with parameters: {_listed(paths)}")
    found = {p: names.get(p) if isinstance(names, Mapping) else names(p) for p in paths}
    if without := [p for p, m in found.items() if m is None]:
        raise ValueError(f"names has no module for {_listed(without)}")
    return [_Pair(layers[p], m, owned[p]) for p, m in found.items() if m is not None]


def _with_new_tensors(modules: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Those modules that hold any tensor that does not stand in one before: tied ones count once, as in a net."""
    seen: set[int] = set()
    found = {}
    for name, content in modules.items():
        if not seen.issuperset(map(id, content.values())):
            found[name] = content
        seen.update(map(id, content.values()))
    return found


def _layers(net: Any) -> tuple[dict[str, Any], list[str]]:
    """The layers by path, in the order of attributes, a shared one at its first place; and paths of counts to leave."""
    found: dict[str, Any] = {}
    counts: list[str] = []
    seen: set[int] = set()

    def visit(x: Any, path: str, inside: bool) -> None:
        if isinstance(x, Node):
            if id(x) in seen:
                return
            seen.add(id(x))
            if isinstance(x, nn.Dropout):
                counts.append(path.removeprefix("."))
            elif not inside:
                found[path.removeprefix(".")] = x
            inside = inside or isinstance(x, _WHOLE)
        for step, part in children(x) or ():
            visit(part, path + step, inside)

    visit(net, "", False)
    return found if "" in found else {"": net} | found, counts


def _stands_below(path: str, layer: str) -> bool:
    return not layer or path.startswith((f"{layer}.", f"{layer}["))


def _listed(names: Any) -> str:
    return f"{', '.join(map(str, list(names)[:4]))}{', ...' if len(names) > 4 else ''}"


def _fitting(tensor: np.ndarray, here: np.ndarray) -> tuple[np.ndarray, str]:
    """The tensor in the dtype of the net's array, and what keeps it from taking its place."""
    if tensor.shape != here.shape:
        return tensor, f"has shape {tensor.shape}, expected {here.shape},"
    if not np.can_cast(tensor.dtype, here.dtype, "same_kind"):
        return tensor, f"has dtype {tensor.dtype}, expected {here.dtype},"
    return tensor.astype(here.dtype), ""


# -- what the arrays of a layer are in PyTorch


def _rule(layer: Any) -> Callable[[Any, str, Take], np.ndarray]:
    return next((_RULES[cls] for cls in type(layer).__mro__ if cls in _RULES), _same)


def _same(layer: Any, name: str, take: Take) -> np.ndarray:
    return take(name)


def _windows(layer: Any, name: str, take: Take) -> np.ndarray:
    """Weights whose axes (out, in, *window) become (*window, in, out), the window of a dense layer being empty."""
    if name != "W":
        return take("bias")
    W = take("weight")
    return np.transpose(W, (*range(2, W.ndim), 1, 0)) if W.ndim > 1 else W


def _transposed_windows(layer: Any, name: str, take: Take) -> np.ndarray:
    """Weights whose axes (groups * in, out, *window) become (*window, in, groups * out)."""
    if name != "W":
        return take("bias")
    W = take("weight")
    if W.ndim < 2 or W.shape[0] % layer.groups:
        return W
    n_in, n_out, *window = W.shape
    W = np.reshape(W, (layer.groups, n_in // layer.groups, n_out, *window))
    W = np.transpose(W, (*range(3, W.ndim), 1, 0, 2))
    return np.reshape(W, (*window, n_in // layer.groups, layer.groups * n_out))


def _normalization(layer: Any, name: str, take: Take) -> np.ndarray:
    named = {"gain": "weight", "mean": "running_mean", "variance": "running_var", "batches": "num_batches_tracked"}
    return take(named.get(name, name))


def _table(layer: Any, name: str, take: Take) -> np.ndarray:
    return take("weight")


def _cell(layer: Any, name: str, take: Take) -> np.ndarray:
    """Matrices transposed; the two biases of a gate added, but where a gate comes between them."""
    if name in ("W", "U"):
        return np.transpose(take("weight_ih" if name == "W" else "weight_hh"))
    b, b_h = take("bias_ih"), take("bias_hh")
    if not isinstance(layer, nn.GRUCell):
        return b + b_h
    first = 2 * len(b_h) // 3
    return b_h[first:] if name == "b_hn" else b + np.concatenate([b_h[:first], np.zeros_like(b_h[first:])])


def _recurrent(layer: Any, name: str, take: Take) -> np.ndarray:
    place, _, own = name.rpartition(".")
    number, reverse = place[place.index("[") + 1 : -1], "_reverse" if place.startswith("reverse") else ""
    return _cell(layer.cells[0], own, lambda suffix: take(f"{suffix}_l{number}{reverse}"))


def _attention(layer: Any, name: str, take: Take) -> np.ndarray:
    named = {"W": "in_proj_weight", "b": "in_proj_bias", "W_out": "out_proj.weight", "b_out": "out_proj.bias"}
    return np.transpose(take(named[name]))


#: Layers whose arrays PyTorch has in one module, also those of the layers in them.
_WHOLE = (nn.RNN, nn.LSTM, nn.GRU, nn.MultiHeadAttention)
_RULES: dict[type, Callable[[Any, str, Take], np.ndarray]] = {
    nn.Dense: _windows,
    nn.Conv: _windows,
    nn.ConvTranspose: _transposed_windows,
    nn.BatchNorm: _normalization,
    nn.GroupNorm: _normalization,
    nn.LayerNorm: _normalization,
    nn.RMSNorm: _normalization,
    nn.Embedding: _table,
    nn.PReLU: _table,
    nn.RNNCell: _cell,
    nn.LSTMCell: _cell,
    nn.GRUCell: _cell,
    nn.RNN: _recurrent,
    nn.LSTM: _recurrent,
    nn.GRU: _recurrent,
    nn.MultiHeadAttention: _attention,
}
