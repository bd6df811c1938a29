import math

import numpy as np
import pytest

import gpubp as bp
from gpubp import losses

rng = np.random.default_rng(0)
y, t = np.array([[1.0, 2.0], [3.0, 5.0]]), np.array([[1.0, 0.0], [2.0, 1.0]])
REGRESSIONS = [losses.half_squared_error, losses.mean_half_squared_error, losses.mse]


def test_squared_errors_have_their_stated_scale():
    assert losses.half_squared_error(y, t) == 0.5 * 21
    assert losses.mean_half_squared_error(y, t) == 21 / 4  # 1/(2N), N = 2
    assert losses.mse(y, t) == 21 / 4  # 4 elements
    np.testing.assert_array_equal(bp.grad(losses.half_squared_error)(y, t), y - t)
    np.testing.assert_array_equal(bp.grad(losses.mean_half_squared_error)(y, t), (y - t) / 2)
    np.testing.assert_array_equal(bp.grad(losses.mse, 1)(y, t), (t - y) / 2)


@pytest.mark.parametrize("loss", [*REGRESSIONS, losses.binary_cross_entropy])
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


@pytest.mark.parametrize("loss", [losses.mse, losses.binary_cross_entropy, losses.mean_half_squared_error])
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


@pytest.mark.parametrize("label", [3, -1])
def test_labels_out_of_range(label):
    with pytest.raises(ValueError, match=f"labels from 0 to 2.*got labels from {min(label, 0)} to {max(label, 0)}"):
        losses.softmax_cross_entropy(np.zeros((2, 3)), np.array([0, label]))


def test_the_pullback_may_be_called_twice():
    z, labels = np.asfortranarray(rng.normal(size=(4, 3))), np.array([0, 1, 2, 0])
    _, pullback = bp.vjp(lambda z: losses.softmax_cross_entropy(z, labels), z)
    np.testing.assert_array_equal(pullback(np.asarray(1.0))[0], pullback(np.asarray(1.0))[0])
