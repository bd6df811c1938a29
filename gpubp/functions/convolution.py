"""Convolution and its transpose, of one to three spatial axes, channels last.

As everywhere in the field, what is computed is a correlation: the window is not reversed.
"""

# ruff: noqa: D103  (a fused function has the docstring of its reference)

from __future__ import annotations

import math
from typing import Any

from ..boundary import add_in, conj, scatter, zeros
from ..fused import fused
from ..namespace import array_namespace
from .activation import BY_OUTPUT
from .checks import check_alike
from .window import Windows, each_axis, frozen, pad, pairs_of, windows_of


def _convolution(
    x: Any,
    W: Any,
    b: Any = None,
    /,
    *,
    stride: Any = 1,
    padding: Any = "valid",
    dilation: Any = 1,
    groups: int = 1,
    activation: str = "identity",
) -> Any:
    """Convolution followed by an elementwise activation: y[p] = activation(Σₜ x[p stride + t dilation] @ W[t] + b).

    Parameters
    ----------
    x
        Inputs of shape (batch, *spatial, n_in), with one to three spatial axes.
    W
        Weights of shape (*window, n_in // groups, n_out).
    b
        Biases of shape (n_out,), or None.
    stride, dilation
        Steps between windows, and between the elements of a window: a number, or one for each spatial axis.
    padding
        Zeros around the input. ``"valid"``: none. ``"same"``: as many that the output has ⌈size / stride⌉ elements
        along an axis; an odd one goes to the end. A number, one for each spatial axis, or a pair (before, after)
        for each.
    groups
        How many groups the channels are split into, each convolved for itself; n_in of them is a depthwise
        convolution. Outputs are ordered by groups.
    activation
        ``"identity"``, ``"sigmoid"``, ``"tanh"``, ``"relu"``, ``"leaky_relu"``, ``"elu"`` or ``"selu"``.

    Returns
    -------
    array
        Of shape (batch, *out, n_out), where out = ⌊(padded - dilation (window - 1) - 1) / stride⌋ + 1.

    Raises
    ------
    TypeError
        If the arrays are of several libraries or dtypes.
    ValueError
        If the shapes do not fit, or an option is none of these.

    Notes
    -----
    Goodfellow, Bengio, Courville, "Deep Learning", 2016, section 9.1; Dumoulin, Visin, "A guide to convolution
    arithmetic for deep learning", 2016.
    """
    w = windows_on(x, W, b, stride, padding, dilation, groups, activation)
    xp = array_namespace(x, W, b)
    x = pad(xp, x, w)
    z = sum(_grouped(xp, x[key], W[tap], groups) for tap, key in w.places())
    return BY_OUTPUT[activation].function(z if b is None else z + b)


def _grouped(xp: Any, x: Any, W: Any, groups: int) -> Any:
    """``x @ W`` for x of shape (..., n_in) and W of shape (n_in // groups, n_out), by groups."""
    if groups == 1:
        return xp.matmul(x, W)
    inner, n_out = W.shape
    split = xp.reshape(x, (*x.shape[:-1], groups, 1, inner))
    weights = xp.permute_dims(xp.reshape(W, (inner, groups, n_out // groups)), (1, 0, 2))
    return xp.reshape(xp.matmul(split, weights), (*x.shape[:-1], n_out))


@fused(_convolution)
def convolution(
    xp: Any,
    needs: Any,
    x: Any,
    W: Any,
    b: Any = None,
    /,
    *,
    stride: Any = 1,
    padding: Any = "valid",
    dilation: Any = 1,
    groups: int = 1,
    activation: str = "identity",
) -> Any:
    w = windows_on(x, W, b, stride, padding, dilation, groups, activation)
    z = _gathered(xp, x, W, w, groups)
    y = BY_OUTPUT[activation].function(z if b is None else z + b)
    kept = x if needs[1] else None, W if needs[0] else None, None if activation == "identity" else y
    return y, (*kept, w, W.shape)


@convolution.backward
def convolution_backward(
    xp: Any, needs: Any, dY: Any, residuals: Any, *, groups: int = 1, activation: str = "identity", **_: Any
) -> Any:
    x, W, y, w, shape = residuals
    dZ = BY_OUTPUT[activation].cotangent(xp, dY, y)
    dx = _spread(xp, dZ, conj(xp, transposed(xp, W, groups)), w, groups) if needs[0] else None
    dW = _products(xp, conj(xp, x), dZ, w, groups, shape) if needs[1] else None
    db = xp.sum(dZ, axis=tuple(range(dZ.ndim - 1))) if len(needs) > 2 and needs[2] else None
    return dx, dW, db


def _convolution_transpose(
    x: Any,
    W: Any,
    b: Any = None,
    /,
    *,
    stride: Any = 1,
    padding: Any = "valid",
    output_padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Any:
    """Transposed convolution: each input is spread over a window, y[p stride + t dilation] += x[p] @ W[t].

    It is the adjoint of a convolution from the shape of y to that of x, whose options these are.

    Parameters
    ----------
    x
        Inputs of shape (batch, *spatial, n_in), with one to three spatial axes.
    W
        Weights of shape (*window, n_in // groups, n_out), as those of `convolution`.
    b
        Biases of shape (n_out,), or None.
    stride, dilation
        Steps in the output between windows, and between the elements of a window: a number, or one for each spatial
        axis.
    padding
        What is cut off the output. ``"valid"``: nothing. ``"same"``: as much that the output has size * stride
        elements along an axis. A number, one for each spatial axis, or a pair (before, after) for each.
    output_padding
        Elements added at the end of each spatial axis of the output, less than the stride or the dilation: a
        convolution with stride maps several sizes to one, and this says which is meant.
    groups
        How many groups the channels are split into.

    Returns
    -------
    array
        Of shape (batch, *out, n_out), where out = (size - 1) stride + dilation (window - 1) + 1 - before - after +
        output_padding; but no less than size * stride with ``"same"``.

    Raises
    ------
    TypeError
        If the arrays are of several libraries or dtypes.
    ValueError
        If the shapes do not fit, or an option is none of these.

    Notes
    -----
    Dumoulin, Visin, "A guide to convolution arithmetic for deep learning", 2016, chapter 4. PyTorch has the weights as
    (n_in, n_out // groups, *window).
    """
    w = windows_between(x, W, b, stride, padding, output_padding, dilation, groups)
    xp = array_namespace(x, W, b)
    shape = (x.shape[0], *w.padded, W.shape[-1])
    z = sum(scatter(xp, shape, key, _grouped(xp, x, W[tap], groups)) for tap, key in w.places())
    z = z[w.interior]
    return z if b is None else z + b


@fused(_convolution_transpose)
def convolution_transpose(
    xp: Any,
    needs: Any,
    x: Any,
    W: Any,
    b: Any = None,
    /,
    *,
    stride: Any = 1,
    padding: Any = "valid",
    output_padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Any:
    w = windows_between(x, W, b, stride, padding, output_padding, dilation, groups)
    z = _spread(xp, x, W, w, groups)
    return z if b is None else z + b, (x if needs[1] else None, W if needs[0] else None, w)


@convolution_transpose.backward
def convolution_transpose_backward(xp: Any, needs: Any, dY: Any, residuals: Any, *, groups: int = 1, **_: Any) -> Any:
    x, W, w = residuals
    dx = _gathered(xp, dY, conj(xp, transposed(xp, W, groups)), w, groups) if needs[0] else None
    dW = None
    if needs[1]:
        shape = (*w.window, dY.shape[-1] // groups, x.shape[-1])
        dW = transposed(xp, _products(xp, dY, conj(xp, x), w, groups, shape), groups)
    db = xp.sum(dY, axis=tuple(range(dY.ndim - 1))) if len(needs) > 2 and needs[2] else None
    return dx, dW, db


# -- one large product with the columns, the windows written out: "im2col"


def _gathered(xp: Any, x: Any, W: Any, w: Windows, groups: int) -> Any:
    """The windows of `x`, multiplied with W."""
    if groups > 1 and W.shape[-2] == 1:
        x = pad(xp, x, w)
        return sum(_by_number(xp, x[key], W[tap], groups) for tap, key in w.places())
    inner, n = math.prod(W.shape[:-1]), W.shape[-1] // groups
    weights = xp.permute_dims(xp.reshape(W, (inner, groups, n)), (1, 0, 2))
    z = xp.matmul(_columns(xp, x, w, groups), weights)
    return xp.reshape(xp.permute_dims(z, (1, 0, 2)), (x.shape[0], *w.out, groups * n))


def _spread(xp: Any, x: Any, W: Any, w: Windows, groups: int) -> Any:
    """`x` multiplied with W and added up where the windows lie: the adjoint of `_gathered`."""
    out = zeros(xp, x, (x.shape[0], *w.padded, W.shape[-1]))
    inner, n = W.shape[-2], W.shape[-1] // groups
    if groups > 1 and inner == 1:
        for tap, key in w.places():
            out = add_in(xp, out, key, _by_number(xp, x, W[tap], groups))
        return out[w.interior]
    rows = math.prod(x.shape[:-1])
    by_group = xp.permute_dims(xp.reshape(x, (rows, groups, inner)), (1, 0, 2))
    wide = xp.permute_dims(xp.reshape(W, (w.taps, inner, groups, n)), (2, 1, 0, 3))
    columns = xp.matmul(by_group, xp.reshape(wide, (groups, inner, w.taps * n)))
    columns = xp.reshape(columns, (groups, rows, w.taps, n))
    columns = xp.reshape(xp.permute_dims(columns, (1, 2, 0, 3)), (*x.shape[:-1], w.taps, groups * n))
    for k, (_, key) in enumerate(w.places()):
        out = add_in(xp, out, key, columns[..., k, :])
    return out[w.interior]


def _products(xp: Any, x: Any, dZ: Any, w: Windows, groups: int, shape: Any) -> Any:
    """The weights' cotangent, of the given shape: the windows of `x` times dZ, summed over all windows."""
    inner, n = shape[-2:]
    rows = math.prod(dZ.shape[:-1])
    if groups > 1 and inner == 1:
        x, dZ = pad(xp, x, w), xp.reshape(dZ, (*dZ.shape[:-1], groups, n // groups))
        summed = tuple(range(dZ.ndim - 2))
        dW = xp.stack([xp.sum(xp.expand_dims(x[key], axis=-1) * dZ, axis=summed) for _, key in w.places()])
        return xp.reshape(dW, tuple(shape))
    by_group = xp.permute_dims(xp.reshape(dZ, (rows, groups, n // groups)), (1, 0, 2))
    dW = xp.matmul(xp.matrix_transpose(_columns(xp, x, w, groups)), by_group)  # (groups, taps * inner, n // groups)
    return xp.reshape(xp.permute_dims(dW, (1, 0, 2)), tuple(shape))


def _columns(xp: Any, x: Any, w: Windows, groups: int) -> Any:
    """The windows of `x` as rows of matrices, of shape (groups, batch * out, taps * n_in // groups)."""
    x = pad(xp, x, w)
    rows, n = x.shape[0] * math.prod(w.out), x.shape[-1]
    columns = xp.stack([x[key] for _, key in w.places()], axis=-2)
    by_group = xp.permute_dims(xp.reshape(columns, (rows, w.taps, groups, n // groups)), (2, 0, 1, 3))
    return xp.reshape(by_group, (groups, rows, w.taps * n // groups))


def _by_number(xp: Any, x: Any, W: Any, groups: int) -> Any:
    """`_grouped` for groups of one channel."""
    product = xp.expand_dims(x, axis=-1) * xp.reshape(W, (groups, W.shape[-1] // groups))
    return xp.reshape(product, (*x.shape[:-1], W.shape[-1]))


def transposed(xp: Any, W: Any, groups: int) -> Any:
    """Weights for the way back: of each group and tap, the transposed matrix."""
    *window, inner, n = W.shape
    split = xp.reshape(W, (math.prod(window), inner, groups, n // groups))
    return xp.reshape(xp.permute_dims(split, (0, 3, 2, 1)), (*window, n // groups, groups * inner))


# -- checks, and where windows lie


def windows_on(
    x: Any, W: Any, b: Any, stride: Any, padding: Any, dilation: Any, groups: int, activation: str
) -> Windows:
    """Give the windows on x that a convolution multiplies."""
    if activation not in BY_OUTPUT:
        raise ValueError(f"convolution expects an activation among {', '.join(BY_OUTPUT)}, got {activation!r}")
    _check_arrays("convolution", x, W, b, groups)
    return windows_of("convolution", x.shape[1:-1], W.shape[:-2], stride, padding, dilation)


def windows_between(
    x: Any, W: Any, b: Any, stride: Any, padding: Any, output_padding: Any, dilation: Any, groups: int
) -> Windows:
    """Give the windows on y that a transposed convolution spreads x over."""
    name, stride, padding = "convolution_transpose", frozen(stride), frozen(padding)
    dilation, output_padding = frozen(dilation), frozen(output_padding)
    _check_arrays(name, x, W, b, groups)
    size, window = tuple(x.shape[1:-1]), tuple(W.shape[:-2])
    rank = len(size)
    stride, dilation = each_axis(name, "stride", stride, rank), each_axis(name, "dilation", dilation, rank)
    more = each_axis(name, "output_padding", output_padding, rank, least=0)
    if any(m >= max(s, d) and m for m, s, d in zip(more, stride, dilation, strict=True)):
        raise ValueError(
            f"{name} expects output_padding below the stride {stride} or the dilation {dilation}, "
            f"got {output_padding!r}"
        )
    extent = tuple(d * (k - 1) + 1 for d, k in zip(dilation, window, strict=True))
    if padding == "same":  # an output smaller than size * stride is extended
        more = tuple(max(s - e, 0) + m for s, e, m in zip(stride, extent, more, strict=True))
    pairs = pairs_of(name, padding, tuple(max(e - s, 0) for e, s in zip(extent, stride, strict=True)))
    out = tuple(
        (n - 1) * s + e + m - sum(pair) for n, s, e, m, pair in zip(size, stride, extent, more, pairs, strict=True)
    )
    if min(size) < 1 or min(out) < 1:
        raise ValueError(
            f"{name}: nothing is left of an output of spatial shape {out}, from x of shape {tuple(x.shape)} and W of "
            f"shape {tuple(W.shape)} with padding {padding!r}"
        )
    return Windows(out, window, stride, dilation, pairs, size)


def _check_arrays(name: str, x: Any, W: Any, b: Any, groups: Any) -> None:
    """Refuse what no convolution is made of."""
    check_alike(name, x=x, W=W, b=b)
    given = f"got x of shape {tuple(x.shape)} and W of shape {tuple(W.shape)}"
    if not 3 <= W.ndim <= 5 or x.ndim != W.ndim or 0 in W.shape[:-2]:
        raise ValueError(
            f"{name} expects x of shape (batch, *spatial, n_in) and W of shape (*window, n_in // groups, n_out) with "
            f"the same one to three spatial axes, {given}"
        )
    if not isinstance(groups, int) or groups < 1 or x.shape[-1] != groups * W.shape[-2] or W.shape[-1] % groups:
        raise ValueError(
            f"{name} expects W of shape (*window, n_in // groups, n_out) with n_in = {x.shape[-1]} and n_out divisible "
            f"by groups={groups!r}, {given}"
        )
    if b is not None and tuple(b.shape) != (W.shape[-1],):
        raise ValueError(
            f"{name} expects b of shape {(W.shape[-1],)} with W of shape {tuple(W.shape)}, got {tuple(b.shape)}"
        )
