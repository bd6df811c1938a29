import math

import numpy as np
import pytest

import gpubp as bp
from gpubp import losses

rng = np.random.default_rng(0)
y, t = np.array([[1.0, 2.0], [3.0, 5.0]]), np.array([[1.0, 0.0], [2.0, 1.0]])
REGRESSIONS = [losses.half_squared_error, losses.mean_half_squared_error, losses.mse, losses.mae, losses.huber]
ONE_SHAPE = [*REGRESSIONS, losses.hinge, losses.cosine_embedding, losses.kl_divergence, losses.binary_cross_entropy]


def test_squared_errors_have_their_stated_scale():
    assert losses.half_squared_error(y, t) == 0.5 * 21
    assert losses.mean_half_squared_error(y, t) == 21 / 4  # 1/(2N), N = 2
    assert losses.mse(y, t) == 21 / 4  # 4 elements
    np.testing.assert_array_equal(bp.grad(losses.half_squared_error)(y, t), y - t)
    np.testing.assert_array_equal(bp.grad(losses.mean_half_squared_error)(y, t), (y - t) / 2)
    np.testing.assert_array_equal(bp.grad(losses.mse, 1)(y, t), (t - y) / 2)


@pytest.mark.parametrize("loss", ONE_SHAPE)
@pytest.mark.parametrize(
    "run", [lambda f: f, lambda f: f.reference, lambda f: bp.grad(f)], ids=["fused", "ref", "grad"]
)
def test_nothing_broadcasts(loss, run):
    with pytest.raises(ValueError, match=r"\(4, 1\) and \(4,\)"):
        run(loss)(np.ones((4, 1)), np.ones(4))
    with pytest.raises(ValueError, match=r"\(4, 1\) and \(\)"):
        run(loss)(np.ones((4, 1)), np.ones(()))


@pytest.mark.parametrize("loss", REGRESSIONS)
def test_dtypes_of_outputs_and_targets(loss):
    for other in ("float32", "int64"):
        with pytest.raises(TypeError, match=f"y of float64, target of {other}"):
            loss(y, t.astype(other))
    with pytest.raises(TypeError, match="real arrays, got complex128"):
        loss(y + 0j, t + 0j)


@pytest.mark.parametrize(
    "loss",
    [
        losses.mse,
        losses.mae,
        losses.huber,
        losses.kl_divergence,
        losses.binary_cross_entropy,
        losses.mean_half_squared_error,
    ],
)
def test_a_mean_over_nothing(loss):
    with pytest.raises(ValueError, match="no elements"):
        loss(np.ones((0, 2)), np.ones((0, 2)))


def test_an_integer_output_is_refused():
    with pytest.raises(TypeError, match="floating-point dtype, got y of int64"):
        losses.mse(np.ones(2, dtype="int64"), np.ones(2, dtype="int64"))


# -- classification


@pytest.mark.parametrize("run", [losses.softmax_cross_entropy, losses.softmax_cross_entropy.reference])
def test_cross_entropy_is_the_negative_log_probability(run):
    z, labels = rng.normal(size=(5, 3)), np.array([0, 1, 2, 1, 0])
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    expected = -np.log(p[np.arange(5), labels]).mean()
    for targets in (labels, labels.astype("uint8"), np.eye(3)[labels]):
        assert run(z, targets) == pytest.approx(expected, rel=1e-14)
        np.testing.assert_allclose(bp.grad(run)(z, targets), (p - np.eye(3)[labels]) / 5, rtol=1e-12, atol=1e-15)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_logits_of_any_size_give_finite_losses(dtype):
    z = np.array([[1e4, 0.0], [0.0, -1e4]], dtype=dtype)
    assert losses.softmax_cross_entropy(z, np.array([1, 1])) == 1e4
    assert losses.softmax_cross_entropy(z, np.array([0, 0])) == 0
    value, g = bp.value_and_grad(losses.binary_cross_entropy)(z, np.array([[0, 1], [1, 0]]))
    assert value == pytest.approx((1e4 + 2 * math.log(2)) / 4, rel=1e-6)
    np.testing.assert_allclose(g * 4, [[1, -0.5], [-0.5, 0]])


def test_binary_cross_entropy_keeps_its_small_values():
    z = np.array([40.0, -40.0])
    for targets in (np.array([1, 0]), np.array([True, False]), np.array([1.0, 0.0])):
        assert losses.binary_cross_entropy(z, targets) == pytest.approx(math.exp(-40), rel=1e-12)


def test_targets_that_do_not_fit():
    z = rng.normal(size=(4, 3))
    with pytest.raises(ValueError, match=r"logits of shape \(\.\.\., classes\).*\(4, 3\) and \(4, 1\)"):
        losses.softmax_cross_entropy(z, np.zeros((4, 1), dtype=int))
    with pytest.raises(ValueError, match=r"one shape, got \(4, 3\) and \(4, 1\)"):
        losses.softmax_cross_entropy(z, np.zeros((4, 1)))
    with pytest.raises(TypeError, match="logits of float64, targets of float32"):
        losses.softmax_cross_entropy(z, np.zeros((4, 3), dtype="float32"))
    with pytest.raises(TypeError, match="integer labels or probabilities as targets, got bool"):
        losses.softmax_cross_entropy(z, np.zeros(4, dtype=bool))
    with pytest.raises(TypeError, match="floating-point dtype"):
        losses.softmax_cross_entropy(np.zeros((4, 3), dtype=int), np.zeros(4, dtype=int))
    with pytest.raises(ValueError, match=r"scores of shape \(..., classes\).*\(4, 3\) and \(3,\)"):
        losses.multiclass_hinge(z, np.zeros(3, dtype=int))
    with pytest.raises(TypeError, match="multiclass_hinge expects integer labels, got float64"):
        losses.multiclass_hinge(z, np.zeros(4))
    with pytest.raises(ValueError, match="labels from 0 to 2 with scores .* got labels from 0 to 3"):
        losses.multiclass_hinge(z, np.array([0, 1, 2, 3]))
    with pytest.raises(TypeError, match="hinge expects labels -1 and 1, signed integers .* got bool"):
        losses.hinge(z, z > 0)
    with pytest.raises(ValueError, match="hinge expects labels -1 and 1, got labels from 0 to 1"):
        losses.hinge(z, (z > 0).astype(int))
    with pytest.raises(ValueError, match=r"labels of shape \(...\), got \(4, 3\) and \(3,\)"):
        losses.cosine_embedding(z, z, np.ones(3, dtype=int))


@pytest.mark.parametrize("options", [{}, {"reduction": "sum"}, {"label_smoothing": 0.2}, {"ignore_index": -100}])
def test_labels_of_8_bits_for_more_classes_than_they_can_count(options, backend):
    z, labels = rng.normal(size=(2, 260)), np.array([3, 255], dtype="uint8")
    for f in (losses.softmax_cross_entropy, losses.multiclass_hinge):
        if f is losses.multiclass_hinge and not options.keys() <= {"reduction"}:
            continue
        expected = bp.grad(lambda z, f=f: f(z, labels.astype("int64"), **options))(z)
        of_few = backend.asarray(labels)
        for g in (f, f.reference):
            found = bp.grad(lambda z, g=g, t=of_few: g(z, t, **options))(backend.asarray(z))
            np.testing.assert_allclose(backend.to_numpy(found), expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("label", [3, -1])
def test_labels_out_of_range(label):
    with pytest.raises(ValueError, match=f"labels from 0 to 2.*got labels from {min(label, 0)} to {max(label, 0)}"):
        losses.softmax_cross_entropy(np.zeros((2, 3)), np.array([0, label]))


def test_the_pullback_may_be_called_twice():
    z, labels = np.asfortranarray(rng.normal(size=(4, 3))), np.array([0, 1, 2, 0])
    _, pullback = bp.vjp(lambda z: losses.softmax_cross_entropy(z, labels), z)
    np.testing.assert_array_equal(pullback(np.asarray(1.0))[0], pullback(np.asarray(1.0))[0])


# -- regression, margins, directions


def test_robust_losses_have_the_stated_values_and_corners():
    y, t = np.array([1.0, 2.0, 3.0, 5.0]), np.array([1.0, 1.5, 5.0, 4.0])
    assert losses.mae(y, t) == 3.5 / 4
    np.testing.assert_array_equal(bp.grad(losses.mae)(y, t) * 4, [0, 1, -1, 1])  # 0 where they agree
    np.testing.assert_array_equal(losses.huber(y, t, reduction="none"), [0, 0.125, 1.5, 0.5])
    np.testing.assert_array_equal(bp.grad(losses.huber)(y, t) * 4, [0, 0.5, -1, 1])
    assert losses.huber(y, t, delta=2.0, reduction="sum") == 0.125 + 2 + 0.5


@pytest.mark.parametrize("f", [losses.hinge, losses.hinge.reference])
def test_hinge(f):
    y, t = np.array([2.0, 0.5, -0.5, 1.0]), np.array([1, 1, 1, 1])
    np.testing.assert_array_equal(f(y, t, reduction="none"), [0, 0.5, 1.5, 0])
    np.testing.assert_array_equal(bp.grad(f)(y, t) * 4, [0, -1, -1, 0])  # 0 at the margin
    assert f(y, -t) == (3 + 1.5 + 0.5 + 2) / 4


@pytest.mark.parametrize("f", [losses.multiclass_hinge, losses.multiclass_hinge.reference])
def test_the_margin_is_to_the_first_of_the_highest_other_classes(f):
    scores, labels = np.array([[2.0, 0.0, 1.0], [0.0, 0.0, -1.0], [1.0, 0.5, 1.0]]), np.array([0, 2, 1])
    np.testing.assert_array_equal(f(scores, labels, reduction="none"), [0, 2, 1.5])
    np.testing.assert_array_equal(
        bp.grad(f)(scores, labels) * 3, [[0, 0, 0], [1, 0, -1], [1, -1, 0]]
    )  # the first of two


@pytest.mark.parametrize("f", [losses.cosine_embedding, losses.cosine_embedding.reference])
def test_directions(f):
    y = np.array([[3.0, 0.0], [1.0, 1.0], [0.0, 2.0], [0.0, 0.0]])
    t = np.array([[5.0, 0.0], [2.0, 0.0], [0.0, -1.0], [1.0, 2.0]])
    np.testing.assert_allclose(f(y, t, reduction="none"), [0, 1 - 0.5**0.5, 2, 1], rtol=1e-15)
    signs = np.array([-1, -1, -1, 1])
    np.testing.assert_allclose(f(y, t, signs, margin=0.5, reduction="none"), [0.5, 0.5**0.5 - 0.5, 0, 1], rtol=1e-14)
    assert f(y, t, labels=signs) == f(y, t, signs)
    np.testing.assert_allclose(bp.grad(f)(y, t)[3] * 4, [-(5**-0.5), -2 * 5**-0.5], rtol=1e-15)


def test_the_divergence_of_a_distribution_from_itself_is_0():
    p = np.array([[0.5, 0.5, 0.0], [0.2, 0.3, 0.5]])
    with np.errstate(divide="ignore"):
        z = np.log(p)
    for f in (losses.kl_divergence, losses.kl_divergence.reference):
        assert f(z, p) == pytest.approx(0, abs=1e-15)  # though the logit of the class that is not there is -inf
        gradient = bp.grad(f, (0, 1))(z, p)
        np.testing.assert_allclose(gradient[0], 0, atol=1e-16)
        np.testing.assert_allclose(gradient[1] * 2, [[1, 1, 0], [1, 1, 1]], rtol=1e-14)
    assert losses.kl_divergence(np.zeros((1, 2)), np.array([[1.0, 0.0]])) == pytest.approx(math.log(2), rel=1e-15)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", losses.__all__)
def test_losses_are_finite_far_out(name):
    f = getattr(losses, name)
    y = np.array([[-1e4, 1e4], [1e4, -1e4]], dtype="float32")
    t = np.array([1, 0]) if name == "multiclass_hinge" else np.array([[0.0, 1.0], [0.0, 1.0]], dtype="float32")
    value, gradient = bp.value_and_grad(f)(y, t)
    assert value.dtype == gradient.dtype == "float32"
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()
    assert np.isfinite(bp.hvp(lambda y: f(y, t), (y,), (y,))[0]).all()


# -- options


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("f", [losses.softmax_cross_entropy, losses.softmax_cross_entropy.reference])
def test_a_batch_that_does_not_count_is_0(f, backend):
    z, ignored = backend.asarray(rng.normal(size=(4, 3))), backend.asarray(np.full(4, -100))
    nothing = backend.asarray(np.zeros(4))
    for run in (
        lambda z: f(z, ignored, ignore_index=-100),
        lambda z: f(z, ignored, None, backend.asarray(np.ones(3)), ignore_index=-100, label_smoothing=0.1),
        lambda z: f(z, backend.asarray(np.arange(4) % 3), nothing),
        lambda z: f(z, z / 4, nothing),
    ):
        value, gradient = bp.value_and_grad(run)(z)
        assert backend.to_numpy(value) == 0
        np.testing.assert_array_equal(backend.to_numpy(gradient), np.zeros((4, 3)))
    assert losses.binary_cross_entropy(y, t / 2, 0 * y) == 0


def test_what_is_ignored_may_hold_anything():
    z, labels = rng.normal(size=(4, 3)), np.array([0, -1, 2, -1])
    for f in (losses.softmax_cross_entropy, losses.softmax_cross_entropy.reference):
        value, gradient = bp.value_and_grad(lambda z, f=f: f(z, labels, ignore_index=-1))(z)
        assert value == pytest.approx(losses.softmax_cross_entropy(z[::2], labels[::2]), rel=1e-15)
        np.testing.assert_array_equal(gradient[1::2], 0)
    with pytest.raises(ValueError, match="labels from 0 to 2 .* got labels from -1 to 2"):
        losses.softmax_cross_entropy(z, labels, ignore_index=-2)


def test_masked_logits_stay_out():
    z = np.array([[1.0, -np.inf, 2.0], [0.0, 1.0, -np.inf]])
    for options in ({}, {"weights": np.array([1.0, 3.0])}, {"ignore_index": 7}):
        value, gradient = bp.value_and_grad(
            lambda z, options=options: losses.softmax_cross_entropy(z, np.array([0, 1]), **options)
        )(z)
        assert np.isfinite(value)
        assert (gradient[np.isinf(z)] == 0).all()


def test_weights_are_examples_repeated():
    z, labels, w = rng.normal(size=(3, 4)), np.array([0, 3, 1]), np.array([2.0, 1.0, 3.0])
    again = np.repeat(np.arange(3), [2, 1, 3])
    for f, args in (
        (losses.softmax_cross_entropy, (z, labels)),
        (losses.softmax_cross_entropy, (z, z**2)),
        (losses.binary_cross_entropy, (z[:, 0], np.array([0, 1, 1]))),
    ):
        for options in ({}, {"label_smoothing": 0.3}):
            expected = f(args[0][again], args[1][again], **options)
            assert f(*args, weights=w, **options) == pytest.approx(expected, rel=1e-14)
    assert losses.softmax_cross_entropy(z, labels, class_weights=np.array([2.0, 3.0, 9.0, 1.0])) == pytest.approx(
        losses.softmax_cross_entropy(z, labels, w[[0, 1, 2]]), rel=1e-14
    )


def test_arrays_go_by_position_or_by_keyword():
    f = losses.softmax_cross_entropy
    z, labels, w, c = rng.normal(size=(3, 4)), np.array([0, 3, 1]), rng.uniform(size=3), rng.uniform(size=4)
    expected = bp.grad(lambda z, w, c: f(z, labels, w, c), (0, 1, 2))(z, w, c)
    found = bp.grad(lambda z, w, c: f(z, labels, class_weights=c, weights=w), (0, 1, 2))(z, w, c)
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_array_equal(a, b)
    only = bp.grad(lambda c: f(z, labels, class_weights=c, label_smoothing=0.1))(c)
    np.testing.assert_array_equal(only, bp.grad(lambda c: f(z, labels, None, c, label_smoothing=0.1))(c))
    with pytest.raises(TypeError, match="softmax_cross_entropy got an array both by position and by keyword: weights"):
        f(z, labels, w, weights=w)


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (
            lambda z, t: losses.mse(z, z, reduction="batchmean"),
            "mse expects reduction='mean', 'sum' or 'none', got 'b",
        ),
        (lambda z, t: losses.softmax_cross_entropy(z, t, reduction=None), "reduction='mean', .* got None"),
        (lambda z, t: losses.huber(z, z, delta=0.0), "huber expects a positive delta, got 0.0"),
        (lambda z, t: losses.softmax_cross_entropy(z, t, label_smoothing=1.5), "label_smoothing from 0 to 1, got 1.5"),
        (lambda z, t: losses.binary_cross_entropy(z, z, label_smoothing=-1), "label_smoothing from 0 to 1, got -1"),
        (lambda z, t: losses.softmax_cross_entropy(z, z, ignore_index=1), "ignore_index=1 with probabilities"),
        (
            lambda z, t: losses.softmax_cross_entropy(z, t, np.ones((4, 1))),
            r"weights of shape \(4,\) with logits of shape \(4, 3\), got \(4, 1\)",
        ),
        (
            lambda z, t: losses.softmax_cross_entropy(z, t, class_weights=np.ones(4)),
            r"class_weights of shape \(3,\) with logits of shape \(4, 3\), got \(4,\)",
        ),
        (lambda z, t: losses.binary_cross_entropy(z, z, np.ones(4)), r"weights of shape \(4, 3\) .* got \(4,\)"),
        (lambda z, t: losses.binary_cross_entropy(z, z, None, np.ones(4)), r"pos_weight of shape \(3,\) .* \(4,\)"),
    ],
)
def test_options_out_of_range(run, message):
    z, labels = rng.uniform(size=(4, 3)), np.array([0, 1, 2, 0])
    with pytest.raises(ValueError, match=message):
        run(z, labels)
    with pytest.raises(ValueError, match=message):
        bp.grad(lambda z: run(z, labels))(z)


def test_weights_of_another_dtype():
    with pytest.raises(TypeError, match="logits of float64, weights of float32"):
        losses.softmax_cross_entropy(rng.normal(size=(2, 3)), np.array([0, 1]), np.ones(2, dtype="float32"))


# -- PyTorch


def agrees(ours, theirs, *arrays):
    """Assert that two functions have one value and all gradients in common, for each reduction."""
    torch = pytest.importorskip("torch")
    for reduction in ("mean", "sum", "none"):
        tensors = [torch.tensor(x, requires_grad=True) for x in arrays]
        expected = theirs(torch.nn.functional, *tensors, reduction=reduction)
        out, pullback = bp.vjp(lambda *xs, reduction=reduction: ours(*xs, reduction=reduction), *arrays)
        g = np.random.default_rng(1).normal(size=out.shape)
        gradients = torch.autograd.grad(expected, tensors, torch.tensor(g), allow_unused=True)
        np.testing.assert_allclose(out, expected.detach().numpy(), rtol=1e-10, atol=1e-10)
        for a, b in zip(pullback(np.asarray(g)), gradients, strict=True):
            if b is not None:  # of class weights in PyTorch, which has none
                np.testing.assert_allclose(a, b.numpy(), rtol=1e-10, atol=1e-10)


A, B = rng.normal(size=(6, 4)), rng.normal(size=(6, 4))
CLASSES, SIGNS = np.array([0, 3, 1, 1, 2, 3]), np.array([1, -1, -1, 1, -1, 1])


@pytest.mark.peers
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (losses.mse, lambda f, *a, **k: f.mse_loss(*a, **k)),
        (losses.mae, lambda f, *a, **k: f.l1_loss(*a, **k)),
        (losses.huber, lambda f, *a, **k: f.huber_loss(*a, **k)),
        (
            lambda *a, **k: losses.huber(*a, delta=0.3, **k),
            lambda f, *a, **k: f.huber_loss(*a, delta=0.3, **k),
        ),
    ],
)
def test_regressions_are_pytorchs(ours, theirs):
    agrees(ours, theirs, A, B)


@pytest.mark.peers
@pytest.mark.parametrize("margin", [0.0, 0.4, -0.2])
def test_cosine_embedding_is_pytorchs(margin):
    torch = pytest.importorskip("torch")
    agrees(
        lambda a, b, **k: losses.cosine_embedding(a, b, SIGNS, margin=margin, **k),
        lambda f, a, b, **k: f.cosine_embedding_loss(a, b, torch.tensor(SIGNS), margin=margin, **k),
        *(A, B),
    )


@pytest.mark.peers
def test_the_divergence_is_pytorchs():
    def theirs(f, z, w, reduction):
        each = f.kl_div(z.log_softmax(-1), w.softmax(-1), reduction="none").sum(-1)
        return {"mean": each.mean, "sum": each.sum, "none": lambda: each}[reduction]()

    agrees(lambda z, w, **k: losses.kl_divergence(z, bp.functions.softmax(w), **k), theirs, A, B)


@pytest.mark.peers
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("ignored", [None, 1, -100])
def test_cross_entropy_of_labels_is_pytorchs(smoothing, ignored):
    torch = pytest.importorskip("torch")
    labels = np.where(CLASSES == 3, ignored, CLASSES) if ignored == -100 else CLASSES
    theirs = {} if ignored is None else {"ignore_index": ignored}

    def plain(f, z, c=None, **k):
        return f.cross_entropy(z, torch.tensor(labels), weight=c, label_smoothing=smoothing, **theirs, **k)

    def ours(z, c=None, **k):
        return losses.softmax_cross_entropy(
            z, labels, class_weights=c, label_smoothing=smoothing, ignore_index=ignored, **k
        )

    agrees(ours, plain, A)
    c = rng.uniform(0.5, 2.0, size=4)
    agrees(lambda z, **k: ours(z, c, **k), lambda f, z, **k: plain(f, z, torch.tensor(c), **k), A)


@pytest.mark.peers
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_cross_entropy_of_probabilities_is_pytorchs(smoothing):
    torch = pytest.importorskip("torch")
    c, p = rng.uniform(0.5, 2.0, size=4), rng.dirichlet(np.ones(4), size=6)
    for weight in (None, c):
        agrees(
            lambda z, t, w=weight, **k: losses.softmax_cross_entropy(
                z, t, class_weights=w, label_smoothing=smoothing, **k
            ),
            lambda f, z, t, w=weight, **k: f.cross_entropy(
                z, t, weight=None if w is None else torch.tensor(w), label_smoothing=smoothing, **k
            ),
            *(A, p),
        )


@pytest.mark.peers
def test_binary_cross_entropy_is_pytorchs():
    torch = pytest.importorskip("torch")
    p, c, w = rng.uniform(size=(6, 4)), rng.uniform(0.5, 3.0, size=4), rng.uniform(size=(6, 4))
    positive = torch.tensor(c)
    agrees(losses.binary_cross_entropy, lambda f, *a, **k: f.binary_cross_entropy_with_logits(*a, **k), A, p)
    agrees(
        lambda z, t, **k: losses.binary_cross_entropy(z, t, None, c, **k),
        lambda f, z, t, **k: f.binary_cross_entropy_with_logits(z, t, pos_weight=positive, **k),
        *(A, p),
    )

    def weighted(f, z, t, w, reduction):  # whose own weighted mean divides by the number of elements
        each = w * f.binary_cross_entropy_with_logits(z, t, pos_weight=positive, reduction="none")
        return {"mean": lambda: each.sum() / w.sum(), "sum": each.sum, "none": lambda: each}[reduction]()

    agrees(lambda z, t, w, **k: losses.binary_cross_entropy(z, t, w, c, **k), weighted, A, p, w)
