"""Losses of classification: the logits are read once forward, and once backward, where the gradient is written.

What is kept of a row's softmax are its highest logit, the logarithm of the sum, and the sum of the row's targets.
"""

from __future__ import annotations

from typing import Any

import cupy

from ...functions.cross_entropy import binary_cross_entropy, kl_divergence, softmax_cross_entropy
from ...functions.loss import REDUCTIONS
from .common import FLOATS, INTEGERS, Kernel, alike, contiguous, is_floating, wide
from .rows import COUNT, OUTPUTS, SUMS, RowKernel, summed
from .totals import CONCLUDE, THREADS, Result, launch

# -- several classes: of the row's targets q, the sum of q (z - the highest z) moves with the latter, by the sum of q

_KEEP = "if (here && rank == 0) peaks[3 * row] = peak.top, peaks[3 * row + 1] = log_total, peaks[3 * row + 2] = mass;"
_COUNT = COUNT.replace("sum +=", "weight += share * w, sum +=")

#: The cotangent of a row's loss.
_EACH = r"""
        W each = here ? g[row * apart] * (weights ? W(weights[row]) : W(1)) : W(0);
        each = total ? each / *total : each * W(scale);
        const W top = here ? peaks[3 * row] : W(0), log_total = here ? peaks[3 * row + 1] : W(0);
        const W mass = here ? peaks[3 * row + 2] : W(0);
"""

_LABEL = r"""
        long long label = here ? (long long)labels[row] : 0;
        const bool counts = here && (!ignoring || label != ignored), valid = label >= 0 && label < n;
        if (!counts || !valid) label = 0;  // what is no class has the loss NaN
        const W own = valid || !counts ? (class_weights ? W(class_weights[label]) : W(1)) : W(0) / W(0);
"""
_labels = RowKernel(
    "cross_entropy",
    "const T* z, const I* labels, const T* weights, const T* class_weights, double smoothing, long long ignoring, "
    f"long long ignored, W* peaks, {OUTPUTS}",
    r"""
        const bool mixed = smoothing > 0;
        Peak peak;
        const W even = W(smoothing) / W(n), rest = W(1) - W(smoothing);
        W far = 0, mass = 0;  // sums of even parts, times the distances from the peak and alone
        EACH_PACK {
            pack_<V> z_ = load(z, j);
            W v[V];
            EACH_ONE v[k] = z_.of[k];
            far -= peak.see<V>(v) * mass;
            if (mixed) {
                EACH_ONE {
                    const W c = class_weights ? even * W(class_weights[j * V + k]) : even;
                    far += c * (v[k] - Peak::base(peak.top)), mass += c;
                }
            }
        }
        const W moved = peak.join(team), log_total = log(peak.total);
        if (mixed) far = team.sum(far - moved * mass), mass = team.sum(mass);
"""
    + _LABEL
    + r"""
        W loss = rest * own * (log_total - ((here ? W(z[row * n + label]) : W(0)) - peak.top));
        if (mixed) loss += mass * log_total - far;
        if (!counts) loss = 0;
        const W share = counts ? own : W(0), w = here && weights ? W(weights[row]) : W(1);
        mass = class_weights || own != own ? rest * own + mass : W(1);
"""
    + _KEEP
    + _COUNT,
    types={"T": FLOATS, "I": INTEGERS},
    **SUMS,
)
_labels_backward = RowKernel(
    "cross_entropy_backward",
    "const W* g, long long apart, const T* z, const I* labels, const T* weights, const T* class_weights, "
    "double smoothing, long long ignoring, long long ignored, const W* peaks, const W* total, double scale, T* dz",
    _EACH
    + _LABEL
    + r"""
        const bool mixed = smoothing > 0;
        if (!counts) each = 0;
        const W even = W(smoothing) / W(n), hit = (W(1) - W(smoothing)) * own;
        EACH_PACK {
            pack_<V> z_ = load(z, j);
            EACH_ONE {
                W q = j * V + k == label ? hit : W(0);
                if (mixed) q += class_weights ? even * W(class_weights[j * V + k]) : even;
                z_.of[k] = T(each * (exp(W(z_.of[k]) - top - log_total) * mass - q));
            }
            store(dz, j, z_);
        }
""",
    types={"T": FLOATS, "I": INTEGERS},
)

_soft = RowKernel(
    "cross_entropy_of_probabilities",
    f"const T* z, const T* targets, const T* weights, const T* class_weights, double smoothing, W* peaks, {OUTPUTS}",
    r"""
        const W even = W(smoothing) / W(n), rest = W(1) - W(smoothing);
        Peak peak;
        W far = 0, mass = 0;
        EACH_PACK {
            pack_<V> z_ = load(z, j), t = load(targets, j);
            W v[V];
            EACH_ONE v[k] = z_.of[k];
            far -= peak.see<V>(v) * mass;
            EACH_ONE {
                const W q = (rest * W(t.of[k]) + even) * (class_weights ? W(class_weights[j * V + k]) : W(1));
                far += q * (v[k] - Peak::base(peak.top)), mass += q;
            }
        }
        const W moved = peak.join(team), log_total = log(peak.total);
        far = team.sum(far - moved * mass), mass = team.sum(mass);
        const W loss = mass * log_total - far, share = 1, w = here && weights ? W(weights[row]) : W(1);
"""
    + _KEEP
    + _COUNT,
    **SUMS,
)
_soft_backward = RowKernel(
    "cross_entropy_of_probabilities_backward",
    "const W* g, long long apart, const T* z, const T* targets, const T* weights, const T* class_weights, "
    "double smoothing, const W* peaks, const W* total, double scale, T* dz, T* dt",
    _EACH
    + r"""
        const W even = W(smoothing) / W(n), rest = W(1) - W(smoothing);
        EACH_PACK {
            pack_<V> z_ = load(z, j), t = load(targets, j), dt_;
            EACH_ONE {
                const W log_p = W(z_.of[k]) - top - log_total, c = class_weights ? W(class_weights[j * V + k]) : W(1);
                z_.of[k] = T(each * (exp(log_p) * mass - (rest * W(t.of[k]) + even) * c));
                dt_.of[k] = T(-rest * each * (log_p * c));
            }
            if (dz) store(dz, j, z_);
            if (dt) store(dt, j, dt_);
        }
""",
)


def _labels_forward(needs: Any, logits: Any, labels: Any, weights: Any, class_weights: Any, options: Any) -> Any:
    smoothing, ignored, reduction = options
    if "int" not in str(labels.dtype) or labels.shape != logits.shape[:-1] or any(needs[1:]):
        return NotImplemented
    if str(labels.dtype) not in INTEGERS:
        labels = labels.astype("int64")
    weighted = reduction == "mean" and not (weights is None and class_weights is None and ignored is None)
    told = float(smoothing), int(ignored is not None), 0 if ignored is None else int(ignored)
    z, labels, weights, class_weights = map(contiguous, (logits, labels, weights, class_weights))
    given = z, labels, weights, class_weights, *told
    out, *rest = _run(_labels, z, given, reduction, weighted, I=labels.dtype)
    return out, (given, *rest)


def _soft_forward(needs: Any, logits: Any, targets: Any, weights: Any, class_weights: Any, options: Any) -> Any:
    smoothing, ignored, reduction = options
    if not alike(logits, targets) or targets.shape != logits.shape or ignored is not None or any(needs[2:]):
        return NotImplemented
    given = (*map(contiguous, (logits, targets, weights, class_weights)), float(smoothing))
    out, *rest = _run(_soft, given[0], given, reduction, reduction == "mean" and weights is not None)
    return out, (given, *rest)


def _run(kernel: RowKernel, z: Any, given: Any, reduction: str, weighted: bool, **types: Any) -> Any:
    """Launch a kernel that keeps peaks; return the losses, and these with the sum of the weights and the scale."""
    peaks = cupy.empty((z.size // z.shape[-1], 3), wide(z))
    out, result = summed(kernel, z, (*given, peaks), reduction, weighted, **types)
    return out, peaks, result.total, result.scale


def _forward(
    xp: Any,
    needs: Any,
    logits: Any,
    targets: Any,
    weights: Any = None,
    class_weights: Any = None,
    /,
    *,
    label_smoothing: float = 0.0,
    ignore_index: int | None = None,
    reduction: str = "mean",
) -> Any:
    if not _suitable(logits, weights, class_weights, label_smoothing, reduction) or type(targets) is not cupy.ndarray:
        return NotImplemented
    forward = _soft_forward if is_floating(targets) else _labels_forward
    return forward(needs, logits, targets, weights, class_weights, (label_smoothing, ignore_index, reduction))


def _suitable(z: Any, weights: Any, class_weights: Any, smoothing: float, reduction: str) -> bool:
    return (
        is_floating(z)
        and z.ndim > 0
        and z.size > 0
        and z.shape[-1] < 2**31
        and reduction in REDUCTIONS
        and 0 <= smoothing <= 1
        and (weights is None or (alike(z, weights) and weights.shape == z.shape[:-1]))
        and (class_weights is None or (alike(z, class_weights) and class_weights.shape == z.shape[-1:]))
    )


def _backward(xp: Any, needs: Any, g: Any, residuals: Any, **_: Any) -> Any:
    given, peaks, total, scale = residuals
    z, targets = given[:2]
    n, types = z.shape[-1], {"T": z.dtype}
    each = contiguous(g), int(g.ndim > 0)
    if is_floating(targets):
        dZ, dT = (cupy.empty(z.shape, z.dtype) if needed else None for needed in needs[:2])
        _soft_backward(z.size // n, n, *each, *given, peaks, total, scale, dZ, dT, **types)
        return dZ, dT
    dZ = cupy.empty(z.shape, z.dtype)
    _labels_backward(z.size // n, n, *each, *given, peaks, total, scale, dZ, I=targets.dtype, **types)
    return dZ, None


softmax_cross_entropy.override("cupy", _forward, _backward)


# -- distributions

_kl = RowKernel(
    "kl_divergence",
    f"const T* z, const T* targets, W* peaks, {OUTPUTS}",
    r"""
        Peak peak;
        W far = 0, present = 0, mass = 0, own = 0;
        EACH_PACK {
            pack_<V> z_ = load(z, j), t = load(targets, j);
            W v[V];
            EACH_ONE v[k] = z_.of[k];
            far -= peak.see<V>(v) * present;
            EACH_ONE {
                const W q = t.of[k];
                if (q > W(0)) far += q * (v[k] - Peak::base(peak.top)), present += q, own += q * log(q);
                else own += q * W(0);
                mass += q;
            }
        }
        const W moved = peak.join(team), log_total = log(peak.total);
        far = team.sum(far - moved * present), present = team.sum(present), own = team.sum(own), mass = team.sum(mass);
        const W loss = own + (present == W(0) ? W(0) : present * log_total - far), w = 1;
"""
    + _KEEP
    + COUNT,
    **SUMS,
)
_kl_backward = RowKernel(
    "kl_divergence_backward",
    "const W* g, long long apart, const T* z, const T* targets, const W* peaks, const W* total, double scale, "
    "T* dz, T* dt",
    "const T* const weights = nullptr;"
    + _EACH
    + r"""
        EACH_PACK {
            pack_<V> z_ = load(z, j), t = load(targets, j);
            EACH_ONE {
                const W log_p = W(z_.of[k]) - top - log_total, q = t.of[k];
                z_.of[k] = T(each * (exp(log_p) * mass - q));
                t.of[k] = T(q > W(0) ? each * (log(q) - log_p + W(1)) : W(0));
            }
            if (dz) store(dz, j, z_);
            if (dt) store(dt, j, t);
        }
""",
)


def _kl_forward(xp: Any, needs: Any, logits: Any, targets: Any, /, *, reduction: str = "mean") -> Any:
    if not _suitable(logits, None, None, 0.0, reduction) or not alike(logits, targets):
        return NotImplemented
    if targets.shape != logits.shape:
        return NotImplemented
    given = contiguous(logits), contiguous(targets)
    out, *rest = _run(_kl, given[0], given, reduction, False)
    return out, (given, *rest)


def _kl_cotangents(xp: Any, needs: Any, g: Any, residuals: Any, **_: Any) -> Any:
    (z, targets), peaks, total, scale = residuals
    dZ, dT = (cupy.empty(z.shape, z.dtype) if needed else None for needed in needs)
    n = z.shape[-1]
    _kl_backward(z.size // n, n, contiguous(g), int(g.ndim > 0), z, targets, peaks, total, scale, dZ, dT, T=z.dtype)
    return dZ, dT


kl_divergence.override("cupy", _kl_forward, _kl_cotangents)


# -- two classes

_BINARY = r"""
        const W v = z[k], w = weights ? W(weights[k]) : W(1), e = exp(v < W(0) ? v : -v), l = log1p(e);
        const W P = pos ? W(pos[period > 1 ? k % period : 0]) : W(factor);
        const W t = (W(1) - W(smoothing)) * W(targets[k]) + W(smoothing) / W(2);
        const W minus_log_p = (v < W(0) ? -v : W(0)) + l, minus_log_absent = (v < W(0) ? W(0) : v) + l;
"""
_GIVEN = (
    "const T* z, const T* targets, const T* weights, const T* pos, long long period, double factor, double smoothing, "
    "long long n"
)
_binary = Kernel(
    "binary_cross_entropy",
    CONCLUDE
    + f"""
extern "C" __global__ void __launch_bounds__({THREADS}) binary_cross_entropy(
    {_GIVEN}, W* losses, W* parts, W* out, W* total, double scale)
{{
    W sum = 0, weight = 0;
    EACH(k, n) {{{_BINARY}
        const W loss = (P * t * minus_log_p + (W(1) - t) * minus_log_absent) * w;
        if (losses) losses[k] = loss;
        sum += loss, weight += w;
    }}
    conclude(sum, weight, parts, out, total, scale);
}}
""",
)
_binary_backward = Kernel(
    "binary_cross_entropy_backward",
    f"""
extern "C" __global__ void __launch_bounds__({THREADS}) binary_cross_entropy_backward(
    const W* g, long long apart, {_GIVEN}, const W* total, double scale, T* dz, T* dt)
{{
    EACH(k, n) {{{_BINARY}
        const W each = (total ? g[k * apart] / *total : g[k * apart] * W(scale)) * w;
        const W p = (v < W(0) ? e : W(1)) / (W(1) + e), absent = (v < W(0) ? W(1) : e) / (W(1) + e);
        if (dz) dz[k] = T(each * (P == W(1) ? p - t : (W(1) - t) * p - P * t * absent));
        if (dt) dt[k] = T((W(1) - W(smoothing)) * each * (P == W(1) ? -v : P * minus_log_p - minus_log_absent));
    }}
}}
""",
)


def _binary_forward(
    xp: Any,
    needs: Any,
    logits: Any,
    targets: Any,
    weights: Any = None,
    pos_weight: Any = None,
    /,
    *,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> Any:
    z, labelled = logits, type(targets) is cupy.ndarray and targets.dtype.kind in "biu"
    if not is_floating(z) or not z.size or any(needs[2:]) or not (labelled or alike(z, targets)):
        return NotImplemented
    if targets.shape != z.shape or reduction not in REDUCTIONS or not 0 <= label_smoothing <= 1:
        return NotImplemented
    if weights is not None and not (alike(z, weights) and weights.shape == z.shape):
        return NotImplemented
    pos, factor = (pos_weight, 1.0) if type(pos_weight) is cupy.ndarray else (None, pos_weight)
    if pos is not None and not (alike(z, pos) and pos.shape == (z.shape[-1:] if pos.ndim else ())):
        return NotImplemented
    factor = 1.0 if factor is None else float(factor)
    targets = targets.astype(z.dtype) if labelled else targets
    z, targets, weights, pos = map(contiguous, (z, targets, weights, pos))
    given = z, targets, weights, pos, 1 if pos is None else pos.size, factor, float(label_smoothing), z.size
    grid, threads = launch(z.size)
    scale = 1.0 / z.size if reduction == "mean" else 1.0
    result = Result(z, grid, reduction == "mean" and weights is not None, scale)
    losses = cupy.empty(z.shape, wide(z)) if reduction == "none" else None
    _binary(grid, threads, *given, losses, *result.args, T=z.dtype)
    return result.finish() if losses is None else losses, (given, result.total, scale)


def _binary_cotangents(xp: Any, needs: Any, g: Any, residuals: Any, **_: Any) -> Any:
    given, total, scale = residuals
    z = given[0]
    dZ, dT = (cupy.empty(z.shape, z.dtype) if needed else None for needed in needs[:2])
    blocks = -(-z.size // 256)
    _binary_backward(blocks, 256, contiguous(g), int(g.ndim > 0), *given, total, scale, dZ, dT, T=z.dtype)
    return dZ, dT


binary_cross_entropy.override("cupy", _binary_forward, _binary_cotangents)
