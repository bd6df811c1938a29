"""Convolutional layers."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np

from ..array import strip
from ..functions.convolution import convolution, convolution_transpose
from ..functions.window import Sizes, each_axis, frozen, pairs_of
from .dense import activation_name
from .initializers import Initializer, Shape, he_uniform, side_by_side, zeros
from .layer import Layer, advice, explain, shown
from .parameter import Parameter

__all__ = [
    "Conv",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
]

#: What the axes of an input are called, by the number of spatial ones.
AXES = {
    1: ("batch", "length"),
    2: ("batch", "height", "width"),
    3: ("batch", "depth", "height", "width"),
}


class _Windowed(Layer):
    """What convolutions and their transposes share: parameters, and errors that name the layer."""

    W: Any
    b: Any
    stride: Any
    padding: Any
    dilation: Any
    rank: ClassVar[int | None] = None

    def __init__(self, n_in: int | None, n_out: int, window: Any, groups: Any, bias: bool, **options: Any) -> None:
        name, window = type(self).__name__, frozen(window)
        rank = self.rank or (len(window) if isinstance(window, tuple) else 0)
        if rank not in AXES:
            raise ValueError(
                f"{name} expects window as a tuple with a length for each of one to three spatial axes, got {window!r}"
            )
        self.window: Sizes = each_axis(name, "window", window, rank)
        for option in ("stride", "dilation"):
            each_axis(name, option, getattr(self, option), rank)
        pairs_of(name, self.padding, (0,) * rank)
        if not isinstance(groups, int) or groups < 1 or n_out % groups or (n_in is not None and n_in % groups):
            raise ValueError(f"{name} expects n_in={n_in} and n_out={n_out} divisible by groups={groups!r}")
        self.groups = groups
        W_init = options["W_init"] if groups == 1 else side_by_side(options["W_init"], groups)
        self.W = Parameter((*self.window, None if n_in is None else n_in // groups, n_out), W_init)
        self.b = Parameter((n_out,), options["b_init"]) if bias else None
        if options["seed"] is not None:
            self.build(options["seed"], options["dtype"])

    def sizes(self, x: Any) -> int:
        """Give the number of input channels of a group."""
        self._check(x)
        return int(x.shape[-1]) // self.groups

    def _check(self, x: Any) -> None:
        n = self.W.shape[-2]
        shape, axes = tuple(strip(x).shape), AXES[len(self.window)]
        if len(shape) != len(axes) + 1 or (shape[-1] % self.groups if n is None else shape[-1] != n * self.groups):
            wanted = (f"n divisible by {self.groups}" if self.groups > 1 else "n") if n is None else n * self.groups
            raise ValueError(
                f"{self!r} expects an input of shape ({', '.join(axes)}, {wanted}), got {shape}"
                + advice(shape, (*axes, wanted))
            )

    def _explain(self, x: Any, error: Exception) -> None:
        """Raise a better error, if the input is at fault."""
        explain(self, x, (...,))
        self._check(x)
        error.add_note(f"in {self!r}")

    def __repr__(self) -> str:
        n, n_out = self.W.shape[-2:]
        window = self.window[0] if self.rank and len(set(self.window)) == 1 else self.window
        own = vars(self)
        return shown(
            self, n if n is None else n * self.groups, n_out, window,
            stride=(self.stride, 1), padding=(self.padding, "valid"), output_padding=(own.get("output_padding", 0), 0),
            dilation=(self.dilation, 1), groups=(self.groups, 1),
            activation=(own.get("activation", "identity"), "identity"), bias=(self.b is not None, True),
        )  # fmt: skip


class Conv(_Windowed):
    """Convolution: every output is ``activation(window @ W + b)`` of a window of the input, channels last.

    `Conv1d`, `Conv2d` and `Conv3d` are the same, and take the window's size as one number too.

    Parameters
    ----------
    n_in, n_out
        Channels of the input and of the output. `n_in` may be None: it is then that of the first batch.
    window
        Sizes of the window along the spatial axes.
    stride, dilation
        Steps between windows, and between the elements of a window: a number, or one for each spatial axis.
    padding
        Zeros around the input. ``"valid"``: none. ``"same"``: as many that the output has ⌈size / stride⌉ elements
        along an axis; an odd one goes to the end. A number, one for each spatial axis, or a pair (before, after)
        for each.
    groups
        How many groups the channels are split into, each convolved for itself; `n_in` for a depthwise convolution.
    activation
        One of `identity` (as None), `sigmoid`, `tanh`, `relu`, `leaky_relu`, `elu` and `selu`, as a function or by its
        name. Put any other function behind the layer in a `Sequential`.
    bias
        Whether there is a bias.
    W_init, b_init
        Initializers of the weights, W of shape (*window, n_in // groups, n_out), and the biases, b of shape (n_out,).
        Weights of several groups are drawn one group after another.
    seed
        For a layer that stands alone: draws the parameters at once. In a net it is the net's seed that does.
    dtype
        With `seed`: floating-point dtype of the parameters.

    Notes
    -----
    The defaults, W uniform with variance 2 / fan-in and b zero, are those of He, Zhang, Ren, Sun, "Delving deep into
    rectifiers", 2015, section 2.2, as rectifiers are what usually follows a convolution. Fan-in is how many numbers an
    output adds up: the window's size times n_in // groups.

    Examples
    --------
    >>> net = nn.Sequential(
    ...     nn.Conv2d(1, 6, 5, padding="same"), nn.relu, nn.MaxPool(2), nn.Flatten(), nn.Dense(None, 10), seed=0
    ... )
    >>> net(np.zeros((2, 28, 28, 1), dtype="float32")).shape
    (2, 10)
    >>> net.layers[0].W.shape
    (5, 5, 1, 6)
    """

    def __init__(
        self,
        n_in: int | None,
        n_out: int,
        window: Any,
        *,
        stride: Any = 1,
        padding: Any = "valid",
        dilation: Any = 1,
        groups: int = 1,
        activation: Any = None,
        bias: bool = True,
        W_init: Initializer = he_uniform,
        b_init: Initializer = zeros,
        seed: int | None = None,
        dtype: str = "float32",
    ) -> None:
        self.stride, self.padding, self.dilation = frozen(stride), frozen(padding), frozen(dilation)
        self.activation = activation_name(type(self).__name__, activation)
        super().__init__(n_in, n_out, window, groups, bias, W_init=W_init, b_init=b_init, seed=seed, dtype=dtype)

    def __call__(self, x: Any, /) -> Any:
        """Compute the output of shape (batch, *out, n_out) for an input of shape (batch, *spatial, n_in)."""
        return self.before(x, self.activation)

    def before(self, x: Any, activation: str) -> Any:
        """Compute this layer and the activation that follows it in one call."""
        if type(self.W) is Parameter:
            self.complete(x)
        try:
            return convolution(
                x, self.W, self.b, stride=self.stride, padding=self.padding, dilation=self.dilation,
                groups=self.groups, activation=activation,
            )  # fmt: skip
        except (AttributeError, TypeError, ValueError) as error:
            self._explain(x, error)
            raise


class Conv1d(Conv):
    """`Conv` over one spatial axis: sequences (batch, length, n_in)."""

    rank = 1


class Conv2d(Conv):
    """`Conv` over two spatial axes: images (batch, height, width, n_in)."""

    rank = 2


class Conv3d(Conv):
    """`Conv` over three spatial axes: volumes (batch, depth, height, width, n_in)."""

    rank = 3


class ConvTranspose(_Windowed):
    """Transposed convolution: spreads every input over a window of the output, channels last.

    `ConvTranspose1d`, `ConvTranspose2d` and `ConvTranspose3d` are the same, and take the window's size as one number
    too.

    Parameters
    ----------
    n_in, n_out
        Channels of the input and of the output. `n_in` may be None: it is then that of the first batch.
    window
        Sizes of the window along the spatial axes.
    stride, dilation
        Steps in the output between windows, and between the elements of a window: a number, or one for each spatial
        axis.
    padding
        What is cut off the output. ``"valid"``: nothing. ``"same"``: as much that the output has size * stride
        elements along an axis. A number, one for each spatial axis, or a pair (before, after) for each.
    output_padding
        Elements added at the end of each spatial axis of the output.
    groups
        How many groups the channels are split into.
    bias
        Whether there is a bias.
    W_init, b_init
        Initializers of the weights, W of shape (*window, n_in // groups, n_out), and the biases, b of shape (n_out,);
        None for the default of W. Weights of several groups are drawn one group after another.
    seed
        For a layer that stands alone: draws the parameters at once. In a net it is the net's seed that does.
    dtype
        With `seed`: floating-point dtype of the parameters.

    Notes
    -----
    The defaults, W uniform with variance 2 / fan-in and b zero, are those of He, Zhang, Ren, Sun, "Delving deep into
    rectifiers", 2015, section 2.2. Fan-in is how many numbers an output adds up: with stride it is reached by
    window / stride elements of the window only, along each axis.
    """

    def __init__(
        self,
        n_in: int | None,
        n_out: int,
        window: Any,
        *,
        stride: Any = 1,
        padding: Any = "valid",
        output_padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        bias: bool = True,
        W_init: Initializer | None = None,
        b_init: Initializer = zeros,
        seed: int | None = None,
        dtype: str = "float32",
    ) -> None:
        self.stride, self.padding, self.dilation = frozen(stride), frozen(padding), frozen(dilation)
        self.output_padding = frozen(output_padding)
        W_init = self._he_uniform if W_init is None else W_init
        super().__init__(n_in, n_out, window, groups, bias, W_init=W_init, b_init=b_init, seed=seed, dtype=dtype)

    def _he_uniform(self, rng: np.random.Generator, shape: Shape) -> np.ndarray:
        strides = each_axis(type(self).__name__, "stride", self.stride, len(self.window))
        return he_uniform(rng, shape) * math.sqrt(math.prod(map(min, strides, self.window)))

    def __call__(self, x: Any, /) -> Any:
        """Compute the output of shape (batch, *out, n_out) for an input of shape (batch, *spatial, n_in)."""
        if type(self.W) is Parameter:
            self.complete(x)
        try:
            return convolution_transpose(
                x, self.W, self.b, stride=self.stride, padding=self.padding, output_padding=self.output_padding,
                dilation=self.dilation, groups=self.groups,
            )  # fmt: skip
        except (AttributeError, TypeError, ValueError) as error:
            self._explain(x, error)
            raise


class ConvTranspose1d(ConvTranspose):
    """`ConvTranspose` over one spatial axis: sequences (batch, length, n_in)."""

    rank = 1


class ConvTranspose2d(ConvTranspose):
    """`ConvTranspose` over two spatial axes: images (batch, height, width, n_in)."""

    rank = 2


class ConvTranspose3d(ConvTranspose):
    """`ConvTranspose` over three spatial axes: volumes (batch, depth, height, width, n_in)."""

    rank = 3
