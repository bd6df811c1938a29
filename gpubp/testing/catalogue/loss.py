"""The losses, with every option, away from their kinks."""

from collections.abc import Iterable

import numpy as np

from .record import Sample, record

Rng = np.random.Generator
REDUCTIONS = ("mean", "sum", "none")


def pairs(rng: Rng, gap: float = 0.0) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return pairs of outputs and targets that differ by at least a gap."""
    found = []
    for shape in [(4, 3), (3,), (2, 1, 3), (1, 1)]:
        y = rng.normal(size=shape)
        found.append((y, y + rng.uniform(gap, gap + 2, size=shape) * rng.choice([-1.0, 1.0], size=shape)))
    return found


def reductions(*args: np.ndarray | None, **options: float) -> list[Sample]:
    """Return one call for each reduction."""
    return [Sample(*args, reduction=reduction, **options) for reduction in REDUCTIONS]


@record("half_squared_error")
def _(rng: Rng) -> Iterable[Sample]:
    return [
        *(Sample(*pair) for pair in pairs(rng)),
        Sample(rng.normal(size=()), rng.normal(size=())),
        Sample(np.ones((0, 2)), np.ones((0, 2))),
    ]


@record("mean_half_squared_error")
def _(rng: Rng) -> Iterable[Sample]:
    return [Sample(*pair) for pair in pairs(rng)]


for _name in ("mse", "mae"):

    @record(_name)
    def _(rng: Rng) -> Iterable[Sample]:
        of_one = rng.normal(size=()), np.asarray(3.0)
        empty = [Sample(np.ones((0, 2)), np.ones((0, 2)), reduction=reduction) for reduction in ("sum", "none")]
        return [
            *(Sample(*pair) for pair in (*pairs(rng, gap=0.3), of_one)),
            *(*reductions(*pairs(rng, gap=0.3)[0]), *reductions(*of_one), *empty),
        ]


@record("huber")
def _(rng: Rng) -> Iterable[Sample]:
    y = rng.normal(size=(2, 3))
    either = y, y + np.array([[0.4, -0.6, 1.5], [-1.7, 0.1, 3.0]])  # away from the corners of its derivative, at delta
    return [
        *(
            *reductions(*either),
            *reductions(*either, delta=2.5),
            Sample(*either, delta=0.3),
            Sample(y[0], either[1][0]),
        ),
        Sample(np.asarray(0.5), np.asarray(0.25)),
    ]


@record("hinge")
def _(rng: Rng) -> Iterable[Sample]:
    y = np.array([[0.3, -0.4, 1.8], [-1.7, 0.1, 3.0]])
    t = np.array([[1.0, -1.0, 1.0], [1.0, -1.0, -1.0]])
    return [
        *(*reductions(y, t), *reductions(y, t.astype("int32")), Sample(y[0], t[0]), Sample(y[:, :1], 0.8 * t[:, :1])),
        *(Sample(np.asarray(0.5), np.asarray(1)), Sample(np.ones((0, 2)), np.ones((0, 2)), reduction="sum")),
    ]


@record("multiclass_hinge")
def _(rng: Rng) -> Iterable[Sample]:
    scores = np.array([[0.3, -0.4, 1.8], [-1.7, 3.1, 0.9], [0.5, 0.1, 0.0], [2.0, -1.0, 0.4]])
    labels = np.array([0, 1, 2, 0])
    return [
        *(*reductions(scores, labels), Sample(scores, labels.astype("uint8")), Sample(scores[0], np.asarray(1))),
        *(Sample(scores.reshape(2, 2, 3), labels.reshape(2, 2)), Sample(scores[:, :1], 0 * labels)),
        Sample(np.ones((0, 2)), np.ones(0, "int64"), reduction="none"),
    ]


@record("cosine_embedding")
def _(rng: Rng) -> Iterable[Sample]:
    y, t, signs = rng.normal(size=(4, 3)), rng.normal(size=(4, 3)), np.array([1, -1, -1, 1])
    t[1] = y[1] + 0.1 * t[1]
    return [
        *(*reductions(y, t), *reductions(y, t, signs), *reductions(y, t, 1.0 * signs, margin=-0.5)),
        *(Sample(y[0], t[0]), Sample(y[0], t[0], signs[1]), Sample(y.reshape(2, 2, 3), t.reshape(2, 2, 3))),
        *(Sample(y[1:2], t[1:2], None, margin=0.3), Sample(1e-3 * y, 1e3 * t)),
        Sample(np.ones((0, 2)), np.ones((0, 2)), reduction="none"),
    ]


@record("binary_cross_entropy")
def _(rng: Rng) -> Iterable[Sample]:
    z, t, w, bits = rng.normal(size=(2, 3)), rng.uniform(size=(2, 3)), rng.uniform(size=(2, 3)), np.array([0, 1, 1])
    some = w * np.array([[0.0, 1.0, 1.0], [1.0, 0.0, 1.0]])
    per_class = rng.uniform(0.5, 3.0, size=3)
    return [
        *(Sample(rng.normal(size=s), rng.uniform(size=s)) for s in [(4,), (4, 1), (2, 3), ()]),
        Sample(rng.normal(size=(4, 1)), np.array([[0], [1], [1], [0]])),
        Sample(rng.normal(size=3), np.array([True, False, True])),
        Sample(np.array([0.0, -40.0, 40.0]), np.array([1.0, 0.0, 0.5])),
        *(*reductions(z, t), *reductions(z, t, w), *reductions(z, t, some, per_class, label_smoothing=0.2)),
        *(Sample(z, t, None, p) for p in (3.0, np.asarray(0.7), per_class)),
        Sample(z[0], bits, w[0], per_class, label_smoothing=0.1),
        *(Sample(z[0, 0], t[0, 0], w[0, 0], np.asarray(2.0)), Sample(z, t, label_smoothing=1.0)),
        Sample(np.array([-40.0, 0.0, 40.0]), np.array([1.0, 0.0, 0.5]), None, per_class),
        Sample(np.ones((0, 2)), np.ones((0, 2)), reduction="sum"),
    ]


@record("softmax_cross_entropy")
def _(rng: Rng) -> Iterable[Sample]:
    z, labels, soft = rng.normal(size=(4, 3)), np.array([0, 2, 1, 2]), rng.uniform(size=(4, 3))
    w, per_class = np.array([0.3, 2.0, 0.0, 1.1]), np.array([0.4, 2.0, 1.3])
    holes = np.array([0, -100, 1, -100])
    return [
        *(Sample(z, labels.astype(dtype)) for dtype in ("int64", "int32", "uint8")),
        Sample(z, np.eye(3)[labels]),
        *(Sample(z, rng.dirichlet(np.ones(3), size=4)), Sample(z, soft)),
        Sample(rng.normal(size=(2, 2, 3)), np.array([[0, 1], [2, 2]])),
        Sample(z[0], np.asarray(1)),
        Sample(np.asfortranarray(z) + np.array([[900.0], [0.0], [-900.0], [0.0]]), labels),
        *(s for t in (labels, soft) for s in reductions(z, t)),
        *(s for t in (labels, soft) for s in reductions(z, t, w)),
        *(s for t in (labels, soft) for s in reductions(z, t, None, per_class)),
        *(s for t in (labels, soft) for s in reductions(z, t, w, per_class, label_smoothing=0.2)),
        *(Sample(z, t, label_smoothing=0.1) for t in (labels, soft)),
        *(s for s in reductions(z, holes, ignore_index=-100)),
        *(s for s in reductions(z, holes, w, per_class, label_smoothing=0.3, ignore_index=-100)),
        *(Sample(z, labels, ignore_index=2), Sample(z, labels, None, per_class, ignore_index=2)),
        Sample(z, 0 * labels - 1, ignore_index=-1),
        Sample(z.reshape(2, 2, 3), holes.reshape(2, 2), w.reshape(2, 2), per_class, ignore_index=-100),
        *(Sample(z[0], np.asarray(1), w[1], per_class), Sample(z[0], soft[0], w[1], per_class)),
        Sample(np.ones((0, 2)), np.ones(0, "int64"), reduction="sum"),
    ]


@record("kl_divergence")
def _(rng: Rng) -> Iterable[Sample]:
    z, p = rng.normal(size=(4, 3)), rng.dirichlet(np.ones(3), size=4) + 0.05
    return [
        *(*reductions(z, p), Sample(z[0], p[0]), Sample(z.reshape(2, 2, 3), p.reshape(2, 2, 3))),
        *(Sample(z + np.array([[900.0], [0.0], [-900.0], [0.0]]), p), Sample(z[:, :1], p[:, :1])),
        Sample(np.ones((0, 2)), np.ones((0, 2)), reduction="none"),
    ]
