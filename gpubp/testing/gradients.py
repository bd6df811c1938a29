"""Gradients against finite differences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..array import Array
from ..boundary import is_inexact
from ..device import device_of, is_array, move, to_numpy
from ..namespace import constant
from ..transform import jvp, map_scalars, vjp
from ..tree import Node, cells_with_paths, frozen_leaves, leaves, leaves_with_paths, map_leaves, rebuild

Function = Callable[..., Any]

RTOL, ATOL = 1e-6, 1e-8
_ROUNDING = float(np.finfo(np.float64).eps)
_SHRINKS = 4  # step sizes tried: eps, eps/10, eps/100, eps/1000
_ROUGH = 1e-3  # how far two slopes at one point may differ, relative to the gradient, in a smooth function


def check_grads(
    f: Function,
    args: Any,
    *,
    order: int = 2,
    argnums: int | Sequence[int] | None = None,
    eps: float = 1e-3,
    directions: int = 2,
    seed: int = 0,
    rtol: float | None = None,
    atol: float | None = None,
) -> None:
    r"""Check the derivatives of a function against finite differences, in float64.

    With random weights w over the outputs and a random direction v of length 1 over the inputs, the slope of
    φ(t) = Re⟨w, f(x + t v)⟩ at t = 0 is measured and compared with ⟨v, gradient⟩, both in reverse mode (`gpubp.vjp`)
    and in forward mode (`gpubp.jvp`). Derivatives of the next order are those of x ↦ gradient(x), checked alike.

    Parameters
    ----------
    f
        Function of pytrees of arrays, nets among them, with a pytree of arrays as its result.
    args
        A tuple of its positional arguments, or the only one: float64 or complex128 arrays of any library, trees of
        them, nets; integer arrays are constants. Cells of nets (`gpubp.nn.State`) hold the same at each evaluation, and
        at the end.
    order
        The highest derivative to check.
    argnums
        Positions of the arguments to differentiate; by default all.
    eps
        The step h. It should be small beside the distance over which `f` changes its curvature.
    directions
        How many random directions to try.
    seed
        Of the weights and directions.
    rtol, atol
        Both or neither. Allowed is ``atol + rtol * ‖gradient‖ + rounding``; the default is 1e-6 and 1e-8.

    Raises
    ------
    TypeError
        If an array to differentiate is of lower precision than float64, or there is none.
    AssertionError
        If a derivative is wrong; or if the function is not smooth at this point (a kink, a jump, the edge of its
        domain), where no finite difference can tell.

    Notes
    -----
    The slope is taken from five points, (8 (φ(h) - φ(-h)) - (φ(2h) - φ(-2h))) / 12h, whose truncation error is
    h⁴ φ⁗′/30: 3e-14 at h = 1e-3 where φ varies on a scale of 1, 3e-10 where it varies on a scale of 0.1. Rounding
    adds about 1.5 u S/h with u = 2.2e-16 and S the sum of the magnitudes of the terms of φ: 3e-13 S. The default
    tolerance lies far above both and far below any mistake in a formula. Sixteen times the rounding error is
    allowed besides, which matters only for large S.

    The same five points show whether φ is smooth: its slope from ±h and from ±2h differ by h² φ‴/2, its
    curvature by a multiple of h² φ⁗. At a kink these do not fall with h. So h is divided by ten, up to three times,
    until the points agree (a kink that is merely near is then out of reach) or the check says that they do not
    (after `gradient_check` of Chainer, which fits a parabola).
    """
    if (rtol is None) != (atol is None):
        raise TypeError(f"give both tolerances or neither, got rtol={rtol}, atol={atol}")
    if is_array(args) or isinstance(args, Node | dict | float | complex):
        args = (args,)
    args = map_scalars(tuple(args))
    numbers = range(len(args)) if argnums is None else (argnums,) if isinstance(argnums, int) else tuple(argnums)
    chosen = tuple(args[k] for k in numbers)
    names = [f"args[{k}]" for k in numbers]

    cells = [(cell, cell.held) for _, cell in cells_with_paths([f, args])]

    def restore() -> None:
        for cell, held in cells:
            cell.held = held

    def of_chosen(*values: Any) -> Any:
        restore()
        traced = any(type(x) is Array for x in leaves(values))
        full = [map_leaves(constant, arg) if traced else arg for arg in args]
        for k, v in zip(numbers, values, strict=True):
            full[k] = v
        return f(*full)

    rng = np.random.default_rng(seed)
    tolerances = (RTOL, ATOL) if rtol is None or atol is None else (rtol, atol)
    function = of_chosen
    try:
        for n in range(1, order + 1):
            check = _Check(function, chosen, names, n, eps, *tolerances, rng)
            for _ in range(directions):
                check.run()
            function = _gradient(function, check.weights)
    finally:
        restore()


def _gradient(f: Function, weights: Any) -> Function:
    return lambda *values: vjp(f, *values)[1](weights)


@dataclass(frozen=True)
class _Slope:
    """What finite differences say of a function of one variable."""

    value: float
    rough: float  # by how much its slopes at one point differ
    rounding: float
    step: float


class _Check:
    """One function at one point, and the weights that make a scalar of it."""

    def __init__(
        self, f: Function, args: Any, names: list[str], order: int, eps: float, rtol: float, atol: float, rng: Any
    ) -> None:
        self.f, self.args, self.order, self.eps, self.rtol, self.atol, self.rng = f, args, order, eps, rtol, atol, rng
        self.inputs = _inputs(args, names)
        if not self.inputs:
            raise TypeError("check_grads found no real or complex floating array to differentiate in the arguments")
        value, self.pullback = vjp(f, *args)
        self.outputs = leaves(value)
        if not any(is_inexact(x.dtype) for x in self.outputs):
            raise TypeError(f"check_grads needs a floating-point array as the function's result, got {_shown(value)}")
        for path, x in named_leaves((value,), ["result"]):
            _check_precision(path, x)
        self.host_weights = [draw(rng, x) for x in self.outputs]
        drawn = zip(self.host_weights, self.outputs, strict=True)
        self.weights = rebuild(value, [move(w, device_of(x)) for w, x in drawn])
        found = self.pullback(self.weights)
        gradients = {path: to_numpy(g) for path, g in named_leaves(found, names)}
        self.gradient = {key: gradients[paths[0]] for key, (paths, _) in self.inputs.items()}
        for key, (paths, x) in self.inputs.items():
            g = self.gradient[key]
            if g.shape != x.shape or g.dtype != x.dtype:
                raise AssertionError(
                    f"the gradient of {paths[0]} is {_shown(g)}, expected {_shown(x)} as the argument is"
                )

    def run(self) -> None:
        direction = {key: draw(self.rng, x) for key, (_, x) in self.inputs.items()}
        length = np.sqrt(sum(_inner(v, v) for v in direction.values()))
        direction = {key: v / length if length else v for key, v in direction.items()}
        slope = self.slope(direction)
        reverse = self.expected(direction)
        forward = self.forward(direction)
        for mode, found in (("reverse", reverse), ("forward", forward)):
            error = abs(found - slope.value)
            if not error <= self.allowed(slope):
                raise AssertionError(self.message(mode, found, slope, direction))
        if not self.smooth(slope):
            raise AssertionError(self.message("reverse", reverse, slope, direction))

    # -- the derivative as the engine has it

    def expected(self, direction: dict[Any, Any]) -> float:
        return float(sum(_inner(self.gradient[key], v) for key, v in direction.items()))

    def forward(self, direction: dict[Any, Any]) -> float:
        keys = list(self.inputs)

        def of_inputs(*values: Any) -> Any:
            return [
                x for x in leaves(self.f(*self.rebuilt(dict(zip(keys, values, strict=True))))) if is_inexact(x.dtype)
            ]

        points = [self.inputs[key][1] for key in keys]
        originals = [self.original(key) for key in keys]
        tangents = [
            move(direction[key].astype(x.dtype), device_of(o))
            for key, x, o in zip(keys, points, originals, strict=True)
        ]
        _, out = jvp(of_inputs, originals, tangents)
        weights = [w for w, x in zip(self.host_weights, self.outputs, strict=True) if is_inexact(x.dtype)]
        return float(sum(_inner(w, to_numpy(t)) for w, t in zip(weights, out, strict=True)))

    # -- the derivative as it is

    def slope(self, direction: dict[Any, Any]) -> _Slope:
        step = self.eps
        for _ in range(_SHRINKS):
            found = self.slope_at(direction, step)
            if self.smooth(found) and abs(found.value - self.expected(direction)) <= self.allowed(found):
                break
            step /= 10
        return found

    def slope_at(self, direction: dict[Any, Any], h: float) -> _Slope:
        (p2, _), (p1, _), (p0, size), (m1, _), (m2, _) = (self.value(direction, t) for t in (2 * h, h, 0.0, -h, -2 * h))
        near, far = (p1 - m1) / (2 * h), (p2 - m2) / (4 * h)
        bend_near, bend_far = (p1 - 2 * p0 + m1) / h, (p2 - 2 * p0 + m2) / (4 * h)
        extent = max((float(np.max(np.abs(x), initial=0.0)) for _, x in self.inputs.values()), default=0.0)
        rounding = 16 * _ROUNDING * (size + extent * self.norm) / h
        return _Slope((4 * near - far) / 3, max(abs(near - far), abs(bend_near - bend_far)), rounding, h)

    def value(self, direction: dict[Any, Any], t: float) -> tuple[float, float]:
        """The scalar at a point of the line, and the sum of the magnitudes of its terms."""
        moved = {
            key: move((x + t * direction[key]).astype(x.dtype), device_of(self.original(key)))
            for key, (_, x) in self.inputs.items()
        }
        with np.errstate(all="ignore"):
            out = [to_numpy(x) for x in leaves(self.f(*self.rebuilt(moved)))]
        terms = [np.real(np.conj(w) * x) for w, x in zip(self.host_weights, out, strict=True)]
        return float(sum(map(np.sum, terms))), float(sum(np.sum(np.abs(x)) for x in terms))

    def rebuilt(self, values: dict[Any, Any]) -> Any:
        keys = iter(_keys(self.args))
        return map_leaves(lambda x: values.get(next(keys), x), self.args)

    def original(self, key: Any) -> Any:
        return next(x for k, x in zip(_keys(self.args), leaves(self.args), strict=True) if k == key)

    # -- the verdict

    @property
    def norm(self) -> float:
        return float(np.sqrt(sum(_inner(g, g) for g in self.gradient.values())))

    def allowed(self, slope: _Slope) -> float:
        return self.atol + self.rtol * max(self.norm, abs(slope.value)) + slope.rounding

    def smooth(self, slope: _Slope) -> bool:
        return slope.rough <= self.atol + _ROUGH * max(self.norm, abs(slope.value)) + slope.rounding

    def message(self, mode: str, found: float, slope: _Slope, direction: dict[Any, Any]) -> str:
        error = abs(found - slope.value)
        if not np.isfinite(found):
            return f"the derivative of order {self.order} ({mode} mode) is {found}\n{self.table(direction)}"
        if not np.isfinite(slope.value):
            return (
                f"the function is not finite near this point, at steps down to {slope.step:.0e}: "
                f"move the point into its domain\n{self.table(direction)}"
            )
        if not self.smooth(slope) or slope.rough > error / 10:
            return (
                f"the function is not smooth at this point (derivative of order {self.order}): its slopes on a step of "
                f"{slope.step:.0e} differ by {slope.rough:.3g}, so it has a kink or a jump here and finite differences "
                f"cannot judge its gradient; move the point away from it\n{self.table(direction)}"
            )
        relative = error / max(abs(slope.value), 1e-300)
        return (
            f"wrong derivative of order {self.order} ({mode} mode): expected {slope.value:.12g} (finite differences "
            f"with step {slope.step:.0e}), got {found:.12g}: error {error:.3g}, relative {relative:.3g}, "
            f"allowed {self.allowed(slope):.3g}\n{self.table(direction)}"
        )

    def table(self, direction: dict[Any, Any]) -> str:
        """Expected and found derivative along each argument alone."""
        rows = [("argument", "dtype, shape", "finite differences", "gradient", "relative error")]
        for key, (paths, x) in self.inputs.items():
            alone = {k: v if k == key else np.zeros_like(v) for k, v in direction.items()}
            slope, found = self.slope(alone), self.expected(alone)
            relative = abs(found - slope.value) / max(abs(slope.value), 1e-300) if found != slope.value else 0.0
            rows.append((" = ".join(paths), _shown(x), f"{slope.value:.9g}", f"{found:.9g}", f"{relative:.2g}"))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join(
            "  " + "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows
        )


def _keys(args: Any) -> list[Any]:
    """For each leaf what identifies it as an input: arrays that layers share are one input each."""

    def visit(way: tuple[Any, ...], tree: Any) -> list[Any]:
        if isinstance(tree, Node):
            return [(way[0], id(x)) for x in leaves(tree)]
        if isinstance(tree, dict | list | tuple):
            items = tree.items() if isinstance(tree, dict) else enumerate(tree)
            return [key for k, v in items for key in visit((*way, k), v)]
        return [way] if is_array(tree) else []

    return [key for k, arg in enumerate(args) for key in visit((k, "at"), arg)]


def _inputs(args: Any, names: list[str]) -> dict[Any, tuple[list[str], Any]]:
    """The differentiable inputs by key: the paths to each, and its values on the host."""
    found: dict[Any, tuple[list[str], Any]] = {}
    frozen = set(map(id, frozen_leaves(args)))
    for key, (path, x) in zip(_keys(args), named_leaves(args, names), strict=True):
        if not is_inexact(x.dtype) or id(x) in frozen:
            continue
        _check_precision(path, x)
        found.setdefault(key, ([], to_numpy(x)))[0].append(path)
    return found


def _check_precision(path: str, x: Any) -> None:
    if is_inexact(x.dtype) and not str(x.dtype).endswith(("float64", "complex128")):
        raise TypeError(
            f"check_grads needs float64 or complex128, {path} is {_shown(x)}: "
            "the differences of lower precisions are mostly rounding; cast it first"
        )


def named_leaves(args: Any, names: Sequence[str]) -> list[tuple[str, Any]]:
    """The arrays in arguments, each with its path after the argument's name: ``args[0].layers[0].W``."""
    return [
        (name + (path if path[:1] in ("", "[") else f".{path}"), x)
        for name, arg in zip(names, args, strict=True)
        for path, x in leaves_with_paths(arg)
    ]


def draw(rng: Any, x: Any) -> Any:
    """Normal random numbers of the shape and dtype of `x`; zeros for what has no derivative."""
    shape, dtype = tuple(x.shape), str(x.dtype).rpartition(".")[2]
    if not is_inexact(x.dtype):
        return np.zeros(shape)
    drawn = rng.normal(size=shape)
    return np.asarray(drawn + 1j * rng.normal(size=shape) if "complex" in dtype else drawn, dtype=dtype)


def _inner(a: Any, b: Any) -> float:
    return float(np.sum(np.real(np.conj(a) * b)))


def _shown(x: Any) -> str:
    return f"{x.dtype} of shape {tuple(x.shape)}" if hasattr(x, "dtype") else type(x).__name__
