"""Mixed precision: parameters and gradients in float32, what lies between in 16 bits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

from .array import Array
from .device import raw_namespace
from .dtypes import is_half, name_of, named
from .fused import custom_vjp
from .namespace import constant
from .tree import leaves, map_leaves

__all__ = ["mixed"]


def mixed(
    f: Callable[..., Any], dtype: str, opt: Any = None, *, argnums: int | Sequence[int] | None = None
) -> Callable[..., Any]:
    """A function that computes `f` in 16 bits, from float32 arrays to float32 results and gradients.

    Parameters
    ----------
    f
        A function of pytrees of arrays, such as ``loss(net, x, y)``.
    dtype
        ``"bfloat16"``, which has the range of float32, or ``"float16"``, which is more exact, and whose gradients need
        a loss scale not to underflow.
    opt
        The optimizer that will be given the gradient. If it has a loss scale, as ``optim.Adam(net, 1e-3,
        loss_scale="dynamic")`` has, the gradient comes multiplied by that, and its step divides it out. The value is
        never scaled.
    argnums
        Position or positions of the arguments that are cast. By default all but the last of three or more, which in a
        loss are the targets: these are compared in float32. Keyword arguments are not cast.

    Returns
    -------
    function
        Of the same arguments. In those to be cast, `f` is given arrays of `dtype` in the place of float32 ones, each
        cast once; other dtypes (labels, masks) and cells (running averages) stay as they are. What it returns in 16
        bits is cast to float32.

    Raises
    ------
    ValueError
        If `dtype` is neither, or the library has no such dtype.
    TypeError
        If `f` is no function, `opt` is no optimizer, or there is no argument at a position of `argnums`.

    Notes
    -----
    Micikevicius et al., "Mixed precision training", 2018; Kalamkar et al., "A study of bfloat16 for deep learning
    training", 2019. Functions of `gpubp.functions`, losses among them, compute in float32 and round their results once;
    losses are not rounded.

    Examples
    --------
    >>> from gpubp import losses
    >>> net = nn.Sequential(nn.Dense(2, 4), nn.relu, nn.Dense(4, 1), seed=0)
    >>> loss = lambda net, x, y: losses.mse(net(x), y)
    >>> x, y = np.ones((8, 2), dtype="float32"), np.ones((8, 1), dtype="float32")
    >>> value, grads = bp.value_and_grad(bp.mixed(loss, "float16"))(net, x, y)
    >>> str(value.dtype), str(grads.layers[0].W.dtype)
    ('float32', 'float32')
    """
    if dtype not in ("float16", "bfloat16"):
        raise ValueError(f"mixed precision is in 'float16' or 'bfloat16', got {dtype!r}")
    if not callable(f):
        raise TypeError(f"mixed expects a function, got {type(f).__name__}; it gives one: mixed(loss, {dtype!r})(net)")
    if opt is not None and not hasattr(opt, "scale"):
        raise TypeError(f"mixed expects an optimizer, whose loss scale it takes, got {type(opt).__name__}")

    given = None if argnums is None else (argnums,) if isinstance(argnums, int) else tuple(argnums)

    @wraps(f, updated=())
    def in_16_bits(*args: Any, **kwargs: Any) -> Any:
        chosen = range(max(2, len(args) - 1)) if given is None else given
        if given is not None and any(k not in range(len(args)) for k in given):
            raise TypeError(f"argnums={argnums!r}, but mixed was called with {len(args)} positional arguments")
        traced = any(type(x) is Array for x in leaves((args, kwargs)))
        cast = _Cast(dtype)
        arguments = [map_leaves(cast if k in chosen else constant, x) for k, x in enumerate(args)]
        out = f(*arguments, **{k: map_leaves(constant, x) for k, x in kwargs.items()})
        scale = None if opt is None else opt.scale

        def widen(x: Any) -> Any:
            if type(x) is not Array:
                return x
            if is_half(x.dtype):
                x = x.tape.ns.astype(x, x.tape.ns.float32)
            if x.node is None:
                return x if traced else x.data
            return x if scale is None or name_of(x.dtype) != "float32" else _scaled(x, scale)

        return map_leaves(widen, out)

    return in_16_bits


class _Cast:
    """Casts float32 arrays, each once, wherever it stands; other arrays become constants as they are."""

    def __init__(self, dtype: str) -> None:
        self.dtype = dtype
        self.found: dict[int, tuple[Any, Any]] = {}  # by identity; what is known must live as long

    def __call__(self, x: Any) -> Any:
        if id(x) not in self.found:
            self.found[id(x)] = x, self._cast(constant(x))
        return self.found[id(x)][1]

    def _cast(self, x: Any) -> Any:
        if name_of(x.dtype) != "float32":
            return x
        dtype = named(x.tape.ns, self.dtype)
        if dtype is None:
            raise ValueError(f"{x.tape.ns.library} has no {self.dtype}")
        return x.tape.ns.astype(x, dtype)


def scaled(f: Callable[..., Any], opt: Any) -> Callable[..., Any]:
    """The same function of the same value, whose gradient comes multiplied by the optimizer's loss scale."""

    @wraps(f, updated=())
    def with_scale(*args: Any, **kwargs: Any) -> Any:
        out = f(*args, **kwargs)
        return _scaled(out, raw_namespace(opt.scale).astype(opt.scale, out.dtype)) if type(out) is Array else out

    return with_scale


@custom_vjp
def _scaled(x: Any, scale: Any) -> Any:
    return x


_scaled.defvjp(lambda x, scale: (x, scale), lambda scale, g: (g * scale, None))
