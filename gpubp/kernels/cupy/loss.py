"""Losses of pairs and of rows: a kernel (for many elements, two) for the sum, one for the cotangents."""

from __future__ import annotations

from typing import Any

import cupy

from ...functions import loss
from ...functions.loss import REDUCTIONS
from .common import FLOATS, INTEGERS, alike, contiguous, elementwise, is_floating, wide
from .rows import COUNT, OUTPUTS, SUMS, RowKernel, summed
from .totals import Sum

_SIGN = "(d > W(0) ? f : d < W(0) ? -f : f * d)"
_CLIPPED = "(d > W(delta) ? W(delta) : d < -W(delta) ? -W(delta) : d)"
_ACTIVE = "W(1) - W(y) * W(t) > W(0)"

#: C++ for the loss, and for the cotangents of y and t of that of the loss f; of y, t, and d = y - t, in W.
LOSSES = {
    "squares": ("d * d", "W(2) * f * d", "-W(2) * f * d"),
    "mae": ("fabs(d)", _SIGN, f"-{_SIGN}"),
    "huber": (f"{_CLIPPED} * (d - W(0.5) * {_CLIPPED})", f"f * {_CLIPPED}", f"-f * {_CLIPPED}"),
    "hinge": (
        f"{_ACTIVE} ? W(1) - W(y) * W(t) : W(0)",
        f"{_ACTIVE} ? -f * W(t) : W(0)",
        f"{_ACTIVE} ? -f * W(y) : W(0)",
    ),
}


class _Loss:
    """The kernels of one."""

    def __init__(self, name: str, value: str, dy: str, dt: str) -> None:
        d, f = "W d = W(y) - W(t)", "W f = W(g) * W(scale)"
        inputs = "{} g, T y, T t, float64 scale, float64 delta"
        self.sum = Sum(f"{name}_sum", ("y", "t"), value, ("delta",), before=f"{d};")
        self.each = elementwise(f"{name}_each", "T y, T t, float64 delta", "T out", f"{d}; out = T({value})")
        self.backward, self.both = {}, {}  # by the dtype of g, which is that of W
        for g in ("float32", "float64"):
            given, end = inputs.format(g), "" if g == "float32" else "_double"
            self.backward[g] = elementwise(f"{name}_backward{end}", given, "T dy", f"{d}; {f}; dy = T({dy})")
            self.both[g] = elementwise(
                f"{name}_both{end}", given, "T dy, T dt", f"{d}; {f}; dy = T({dy}); dt = T({dt})"
            )

    def forward(self, y: Any, t: Any, scale: float, reduction: str, delta: float) -> Any:
        if reduction == "none":
            return self.each(y, t, delta), (y, t, 1.0, delta)
        return self.sum(contiguous(y), contiguous(t), delta, scale=scale), (y, t, scale, delta)

    def cotangents(self, xp: Any, needs: Any, g: Any, residuals: Any, **_: Any) -> Any:
        if needs[1]:
            return self.both[g.dtype.name](g, *residuals)
        return self.backward[g.dtype.name](g, *residuals), None


_squares, _mae, _huber, _hinge = (_Loss(name, *expressions) for name, expressions in LOSSES.items())


def _suitable(y: Any, t: Any, reduction: str) -> bool:
    return alike(y, t) and y.shape == t.shape and y.size > 0 and reduction in REDUCTIONS


def _half_squared_error(xp: Any, needs: Any, y: Any, t: Any, /) -> Any:
    return _squares.forward(y, t, 0.5, "sum", 0.0) if _suitable(y, t, "sum") else NotImplemented


def _mean_half_squared_error(xp: Any, needs: Any, y: Any, t: Any, /) -> Any:
    if not _suitable(y, t, "mean") or not y.ndim:
        return NotImplemented
    return _squares.forward(y, t, 0.5 / y.shape[0], "sum", 0.0)


loss.half_squared_error.override("cupy", _half_squared_error, _squares.cotangents)
loss.mean_half_squared_error.override("cupy", _mean_half_squared_error, _squares.cotangents)


def _override(name: str, kernels: _Loss) -> None:
    def forward(xp: Any, needs: Any, y: Any, t: Any, /, *, delta: float = 1.0, reduction: str = "mean") -> Any:
        if not _suitable(y, t, reduction) or not delta > 0 or (reduction == "none" and y.dtype != wide(y)):
            return NotImplemented
        return kernels.forward(y, t, 1.0 / y.size if reduction == "mean" else 1.0, reduction, delta)

    getattr(loss, name).override("cupy", forward, kernels.cotangents)


for _name, _kernels in (("mse", _squares), ("mae", _mae), ("huber", _huber), ("hinge", _hinge)):
    _override(_name, _kernels)


# -- margins of rows

_margins = RowKernel(
    "multiclass_hinge",
    f"const T* z, const I* labels, int* chosen, {OUTPUTS}",
    r"""
        const long long label = here ? (long long)labels[row] : -1;
        W best = -infinity();
        int where = 0;
        EACH_PACK {
            pack_<V> z_ = load(z, j);
            EACH_ONE {
                const W v = z_.of[k];
                if (j * V + k != label && (v > best || (v != v && best == best))) best = v, where = j * V + k;
            }
        }
        const W top = team.max(best);
        where = -int(team.max(best == top || best != best ? -W(where) : -infinity()));  // the first of the highest
        const bool valid = label >= 0 && label < n;
        const W missing = valid ? W(1) + top - W(z[row * n + label]) : W(0);
        const W loss = here && !valid ? W(0) / W(0) : missing > W(0) ? missing : W(0), w = 1;
        if (here && rank == 0) chosen[row] = missing > W(0) ? where : -1;
"""
    + COUNT,
    types={"T": FLOATS, "I": INTEGERS},
    **SUMS,
)
_margins_backward = RowKernel(
    "multiclass_hinge_backward",
    "const W* g, long long apart, const I* labels, const int* chosen, double scale, T* dz",
    r"""
        const int best = here ? chosen[row] : -1;
        const long long label = here ? (long long)labels[row] : -1;
        const W each = here ? g[row * apart] * W(scale) : W(0);
        EACH_PACK {
            pack_<V> z_;
            EACH_ONE z_.of[k] = T(best < 0 ? W(0) : each * (W(j * V + k == best) - W(j * V + k == label)));
            store(dz, j, z_);
        }
""",
    types={"T": FLOATS, "I": INTEGERS},
)


def _multiclass_hinge(xp: Any, needs: Any, z: Any, labels: Any, /, *, reduction: str = "mean") -> Any:
    if not is_floating(z) or type(labels) is not cupy.ndarray or "int" not in str(labels.dtype):
        return NotImplemented
    if not z.size or labels.shape != z.shape[:-1] or reduction not in REDUCTIONS or z.shape[-1] > 1 << 24:
        return NotImplemented
    z, labels = contiguous(z), contiguous(labels if str(labels.dtype) in INTEGERS else labels.astype("int64"))
    chosen = cupy.empty(labels.shape, "int32")
    out, result = summed(_margins, z, (z, labels, chosen), reduction, I=labels.dtype)
    return out, (z.shape, z.dtype, labels, chosen, result.scale)


def _multiclass_hinge_cotangent(xp: Any, needs: Any, g: Any, residuals: Any, **_: Any) -> Any:
    shape, dtype, labels, chosen, scale = residuals
    dZ = cupy.empty(shape, dtype)
    given = contiguous(g), int(g.ndim > 0), labels, chosen, scale
    _margins_backward(labels.size, shape[-1], *given, dZ, T=dtype, I=labels.dtype)
    return dZ, None


loss.multiclass_hinge.override("cupy", _multiclass_hinge, _multiclass_hinge_cotangent)


# -- directions of rows

_cosine = RowKernel(
    "cosine_embedding",
    f"const T* y, const T* target, const T* labels, double margin, W* found, {OUTPUTS}",
    r"""
        W yy = 0, tt = 0, yt = 0;
        EACH_PACK {
            pack_<V> y_ = load(y, j), t_ = load(target, j);
            EACH_ONE yy += W(y_.of[k]) * W(y_.of[k]), tt += W(t_.of[k]) * W(t_.of[k]), yt += W(y_.of[k]) * W(t_.of[k]);
        }
        yy = team.sum(yy), tt = team.sum(tt), yt = team.sum(yt);
        const W length = sqrt(yy == W(0) ? W(1) : yy), other = sqrt(tt == W(0) ? W(1) : tt);
        const W cosine = yt / length / other, beyond = cosine - W(margin), w = 1;
        const bool like = !here || !labels || W(labels[row]) > W(0), near = cosine > W(margin);
        const W loss = like ? W(1) - cosine : near ? beyond : W(0);
        if (here && rank == 0) {
            W* own = found + 4 * row;
            own[0] = cosine, own[1] = length, own[2] = other, own[3] = like ? W(-1) : W(near);
        }
"""
    + COUNT,
    **SUMS,
)
_cosine_backward = RowKernel(
    "cosine_embedding_backward",
    "const W* g, long long apart, const T* y, const T* target, const W* found, double scale, T* dy, T* dt",
    r"""
        const W* own = found + (here ? 4 * row : 0);
        const W cosine = own[0], length = own[1], other = own[2];
        const W each = here ? g[row * apart] * W(scale) * own[3] : W(0);
        EACH_PACK {
            pack_<V> y_ = load(y, j), t_ = load(target, j);
            EACH_ONE {
                const W u = W(y_.of[k]) / length, v = W(t_.of[k]) / other;
                y_.of[k] = T(each * (v - cosine * u) / length), t_.of[k] = T(each * (u - cosine * v) / other);
            }
            if (dy) store(dy, j, y_);
            if (dt) store(dt, j, t_);
        }
""",
)


def _cosine_embedding(
    xp: Any, needs: Any, y: Any, t: Any, labels: Any = None, /, *, margin: float = 0.0, reduction: str = "mean"
) -> Any:
    if not _suitable(y, t, reduction) or not y.ndim:
        return NotImplemented
    if labels is not None:
        if type(labels) is not cupy.ndarray or labels.shape != y.shape[:-1]:
            return NotImplemented
        if not alike(y, labels):
            if labels.dtype.kind not in "biu":
                return NotImplemented
            labels = labels.astype(y.dtype)
        labels = contiguous(labels)
    y, t = contiguous(y), contiguous(t)
    found = cupy.empty((y.size // y.shape[-1], 4), wide(y))
    out, result = summed(_cosine, y, (y, t, labels, float(margin), found), reduction)
    return out, (y, t, found, result.scale)


def _cosine_cotangents(xp: Any, needs: Any, g: Any, residuals: Any, **_: Any) -> Any:
    y, t, found, scale = residuals
    dY, dT = (cupy.empty(y.shape, y.dtype) if needed else None for needed in needs[:2])
    n = y.shape[-1]
    _cosine_backward(y.size // n, n, contiguous(g), int(g.ndim > 0), y, t, found, scale, dY, dT, T=y.dtype)
    return dY, dT, cupy.zeros(y.shape[:-1], y.dtype) if len(needs) > 2 and needs[2] else None


loss.cosine_embedding.override("cupy", _cosine_embedding, _cosine_cotangents)
