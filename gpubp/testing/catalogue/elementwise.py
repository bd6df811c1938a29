"""Elementwise functions."""

from collections.abc import Iterable

import numpy as np

from .record import Sample, record

Rng = np.random.Generator
SHAPES = [(2, 3), (3,), (), (0, 2)]
PAIRS = [((2, 3), (2, 3)), ((2, 3), (3,)), ((2, 1), (1, 3)), ((), (2,)), ((), ()), ((0, 2), (1, 2))]


def away(rng: Rng, *shape: int, low: float = 0.2, high: float = 2.0) -> np.ndarray:
    """Draw numbers of both signs whose magnitude lies between `low` and `high`."""
    return np.asarray(rng.uniform(low, high, size=shape) * rng.choice([-1.0, 1.0], size=shape))


def between(rng: Rng, low: float, high: float, *shape: int) -> np.ndarray:
    """Draw numbers of an interval."""
    return np.asarray(rng.uniform(low, high, size=shape))


def unary(name: str, low: float, high: float, complex: bool = True, **options: bool) -> None:
    """Record a function of one array, at numbers between two bounds and, unless told otherwise, at complex ones."""

    @record(name, complex=complex, **options)
    def _(rng: Rng) -> Iterable[Sample]:
        return [Sample(between(rng, low, high, *shape)) for shape in SHAPES]


for _name in ("cos", "cosh", "exp", "negative", "positive", "sin", "sinh", "square", "tanh", "atan", "asinh"):
    unary(_name, -1.5, 1.5)
for _name in ("conj", "real", "imag"):

    @record(_name, complex=True)
    def _(rng: Rng) -> Iterable[Sample]:
        return [Sample(away(rng, *shape) + 1j * away(rng, *shape)) for shape in SHAPES]


unary("expm1", -1.5, 1.5)
unary("tan", -1.0, 1.0)
for _name in ("asin", "acos", "atanh"):
    unary(_name, -0.7, 0.7)
for _name in ("log", "log2", "log10", "sqrt", "reciprocal"):
    unary(_name, 0.4, 2.0)
unary("log1p", -0.5, 2.0)
unary("acosh", 1.4, 3.0)


@record("_erf")
def _erf(rng: Rng) -> Iterable[Sample]:
    far = np.array([-30.0, -6.0, -5.9, -2.0, 0.0, 1e-9, 0.46, 0.47, 4.0, 7.0])
    return [*(Sample(between(rng, -1.5, 1.5, *shape)) for shape in SHAPES), Sample(far)]


@record("abs", complex=True)
def _abs(rng: Rng) -> Iterable[Sample]:
    return [Sample(away(rng, *shape)) for shape in SHAPES]


@record("sign", complex=True)
def _sign(rng: Rng) -> Iterable[Sample]:
    return [Sample(away(rng, *shape)) for shape in SHAPES]


for _name in ("add", "subtract", "multiply"):

    @record(_name, complex=True)
    def _(rng: Rng) -> Iterable[Sample]:
        pairs = [Sample(rng.normal(size=a), rng.normal(size=b)) for a, b in PAIRS]
        return [*pairs, Sample(rng.normal(size=(2,)), 1.5), Sample(2, rng.normal(size=(2,)))]


@record("divide", complex=True)
def _divide(rng: Rng) -> Iterable[Sample]:
    pairs = [Sample(rng.normal(size=a), away(rng, *b, low=0.5)) for a, b in PAIRS]
    return [*pairs, Sample(rng.normal(size=(2,)), 1.5), Sample(2, away(rng, 2, low=0.5))]


@record("pow", complex=True)
def _pow(rng: Rng) -> Iterable[Sample]:
    x = between(rng, 0.5, 2.0, 2, 3)
    return [
        *(Sample(between(rng, 0.5, 2.0, *a), rng.normal(size=b)) for a, b in PAIRS),
        *(Sample(x, p) for p in (0, 1, 2, 3, -1, 0.5, -1.5)),
        Sample(2.0, rng.normal(size=(2,))),
    ]


@record("remainder")
def _remainder(rng: Rng) -> Iterable[Sample]:
    def sample(whole: np.ndarray, y: np.ndarray) -> Sample:
        return Sample((whole + 0.4) * y, y)  # far from the jumps, at whole multiples

    y = away(rng, 2, 3, low=1.0)
    return [
        sample(np.array([[-2.0, 0.0, 1.0], [3.0, -1.0, 2.0]]), y),
        sample(np.array(2.0), y[0, 0]),
        Sample(np.array([[3.7], [-1.2]]), np.array([1.0, -2.0, 5.0])),
        Sample(np.array([3.7, -1.2]), 1.5),
    ]


for _name in ("hypot", "atan2"):

    @record(_name)
    def _(rng: Rng) -> Iterable[Sample]:
        pairs = [Sample(away(rng, *a, low=0.5), away(rng, *b, low=0.5)) for a, b in PAIRS]
        return [*pairs, Sample(away(rng, 2, low=0.5), 1.5)]


@record("logaddexp")
def _logaddexp(rng: Rng) -> Iterable[Sample]:
    pairs = [Sample(rng.normal(size=a), rng.normal(size=b)) for a, b in PAIRS]
    tied = Sample(np.array([1.0, 0.0, -80.0]), np.array([1.0, 300.0, -80.5]))
    return [*pairs, tied, Sample(rng.normal(size=(2,)), 0.5)]


@record("copysign")
def _copysign(rng: Rng) -> Iterable[Sample]:
    return [Sample(away(rng, *a), away(rng, *b)) for a, b in PAIRS]


for _name in ("maximum", "minimum"):

    @record(_name)
    def _(rng: Rng) -> Iterable[Sample]:
        def apart(a: tuple[int, ...], b: tuple[int, ...]) -> Sample:
            return Sample(away(rng, *a, low=0.1, high=0.9), away(rng, *b, low=1.1))

        return [*(apart(a, b) for a, b in PAIRS), Sample(away(rng, 3), 0.0)]


@record("clip")
def _clip(rng: Rng) -> Iterable[Sample]:
    x = np.array([[-2.0, -0.5, 0.3], [0.6, 1.4, 2.5]])
    low, high = np.array([-1.0, -1.1, 0.5]), np.array([[1.0], [1.2]])
    return [
        Sample(x, -1.0, 1.0),
        Sample(x, min=-1.0),
        Sample(x, max=1.0),
        Sample(x, -1.0, None),
        Sample(x),
        Sample(x, low, high),
        Sample(x, min=low),
        Sample(x, max=high),
        Sample(x[0, 0], np.array(-1.0), np.array(1.0)),
        Sample(rng.normal(size=(0, 2)), -1.0, 1.0),
    ]


@record("where", complex=True)
def _where(rng: Rng) -> Iterable[Sample]:
    condition = np.array([[True, False, True], [False, False, True]])
    return [
        *(Sample(condition, rng.normal(size=a), rng.normal(size=b)) for a, b in [((2, 3), (2, 3)), ((3,), ())]),
        Sample(condition[:, :1], rng.normal(size=(1, 3)), rng.normal(size=())),
        Sample(condition, rng.normal(size=(2, 3)), 0.5),
        Sample(condition, 0.5, rng.normal(size=(2, 3))),
        Sample(np.array(True), rng.normal(size=()), rng.normal(size=())),
    ]


# -- constants


for _name in ("ceil", "floor", "round", "trunc", "signbit", "isfinite", "isinf", "isnan"):

    @record(_name, differentiable=False)
    def _(rng: Rng) -> Iterable[Sample]:
        return [*(Sample(3 * rng.normal(size=shape)) for shape in SHAPES), Sample(np.array([np.inf, np.nan, -0.0]))]


for _name in ("equal", "not_equal", "less", "less_equal", "greater", "greater_equal", "floor_divide"):

    @record(_name, differentiable=False)
    def _(rng: Rng) -> Iterable[Sample]:
        pairs = [Sample(away(rng, *a), away(rng, *b)) for a, b in PAIRS]
        integers = np.array([1, 2, 3]), np.array([[1], [3]])
        return [*pairs, Sample(*integers), Sample(away(rng, 3), 1.0), Sample(np.ones(2), np.ones(2))]


for _name in ("logical_and", "logical_or", "logical_xor"):

    @record(_name, differentiable=False)
    def _(rng: Rng) -> Iterable[Sample]:
        return [Sample(np.array([[True], [False]]), np.array([True, False])), Sample(np.array(True), np.array(False))]


@record("logical_not", differentiable=False)
def _logical_not(rng: Rng) -> Iterable[Sample]:
    return [Sample(np.array([[True], [False]])), Sample(np.array(True))]


for _name in ("bitwise_and", "bitwise_or", "bitwise_xor", "bitwise_left_shift", "bitwise_right_shift"):

    @record(_name, differentiable=False)
    def _(rng: Rng) -> Iterable[Sample]:
        return [Sample(np.array([[5], [12]]), np.array([1, 2, 3])), Sample(np.array(6), np.array(1))]


@record("bitwise_invert", differentiable=False)
def _bitwise_invert(rng: Rng) -> Iterable[Sample]:
    return [Sample(np.array([[5], [-12]])), Sample(np.array([True, False]))]


@record("nextafter", differentiable=False)
def _nextafter(rng: Rng) -> Iterable[Sample]:
    return [Sample(rng.normal(size=a), rng.normal(size=b)) for a, b in PAIRS]
