import numpy as np
import pytest

from gpubp import nn
from gpubp.nn.initializers import fans, generator

SHAPE = (200, 300)
TRUNCATED = [
    [-0.0759402257843664, -0.0830960671869276, -0.12300565548201138],
    [0.21263299385902354, -0.12691927275210865, -0.2662617916861177],
]
ORTHOGONAL = [
    [0.8525836469699684, -0.12228247188428848, 0.508082790487197],
    [0.5166581783681039, 0.34331455956660684, -0.7843465050058804],
]


def draw(initializer, shape=SHAPE, seed=0):
    return initializer(generator(seed, "W"), shape)


@pytest.mark.parametrize(
    ("initializer", "variance"),
    [
        (nn.glorot_uniform, 2 / 500),
        (nn.glorot_normal, 2 / 500),
        (nn.he_uniform, 2 / 200),
        (nn.he_normal, 2 / 200),
        (nn.lecun_uniform, 1 / 200),
        (nn.lecun_normal, 1 / 200),
        (nn.uniform(-1.0, 1.0), 1 / 3),
        (nn.normal(0.5), 0.25),
    ],
)
def test_mean_and_variance(initializer, variance):
    values = draw(initializer)
    assert values.shape == SHAPE
    assert values.dtype == "float64"
    assert abs(values.mean()) < 4 * np.sqrt(variance / values.size)
    assert values.var() == pytest.approx(variance, rel=0.02)
    fourth = ((values - values.mean()) ** 4).mean() / values.var() ** 2  # 1.8 for uniform, 3 for normal
    assert fourth == pytest.approx(3 if abs(values).max() > 2 * values.std() else 1.8, rel=0.03)


def test_bounds_and_constants():
    assert abs(draw(nn.glorot_uniform)).max() <= np.sqrt(6 / 500)
    values = draw(nn.uniform(2.0, 3.0))
    assert values.min() >= 2
    assert values.max() < 3
    assert draw(nn.normal(0.1, mean=5.0)).mean() == pytest.approx(5, rel=1e-3)
    np.testing.assert_array_equal(draw(nn.zeros, (3,)), 0)
    np.testing.assert_array_equal(draw(nn.constant(1.5), (2, 2)), 1.5)


def test_a_truncated_normal_distribution():
    values = draw(nn.truncated_normal(0.5, mean=3.0))
    scaled = (values - 3) / 0.5
    assert values.shape == SHAPE
    assert abs(scaled).max() <= 2
    assert scaled.mean() == pytest.approx(0, abs=0.02)
    assert scaled.var() == pytest.approx(0.7737413, rel=0.02)  # 1 - 4 φ(2) / (2 Φ(2) - 1)
    assert (abs(scaled) < 1).mean() == pytest.approx(0.6826895 / 0.9544997, abs=0.005)
    right = draw(nn.truncated_normal(2.0, low=0.0, high=np.inf))
    assert right.min() >= 0
    assert right.mean() == pytest.approx(2 * np.sqrt(2 / np.pi), rel=0.02)
    for low, high in ((2.0, 1.0), (3.0, 4.0), (np.nan, 1.0)):
        with pytest.raises(ValueError, match=f"1 % of the distribution between low and high, got {low} and {high}"):
            nn.truncated_normal(1.0, low=low, high=high)


@pytest.mark.parametrize("shape", [(5, 5), (7, 3), (3, 7), (1, 4), (4, 1), (3, 2, 4), (2, 2, 1, 3), (0, 3)])
def test_orthonormal_rows_or_columns(shape):
    W = draw(nn.orthogonal(1.5), shape)
    assert W.shape == shape
    W = W.reshape(-1, shape[-1])
    gram = W.T @ W if W.shape[0] >= W.shape[1] else W @ W.T
    np.testing.assert_allclose(gram, 2.25 * np.eye(min(W.shape)), rtol=0, atol=1e-13)


def test_orthogonal_matrices_are_uniformly_distributed():
    rng = generator(0, "W")
    traces = np.array([np.trace(nn.orthogonal()(rng, (3, 3))) for _ in range(4000)])
    assert traces.mean() == pytest.approx(0, abs=0.06)  # of Haar's distribution; without the signs' fix it is not 0
    assert traces.var() == pytest.approx(1, abs=0.08)
    with pytest.raises(ValueError, match=r"orthogonal needs a shape \(..., n_in, n_out\), got \(3,\)"):
        draw(nn.orthogonal(), (3,))


def test_the_numbers_are_these_on_every_machine():
    np.testing.assert_allclose(draw(nn.truncated_normal(1.0, low=-0.5, high=0.5), (2, 3)), TRUNCATED, rtol=1e-11)
    np.testing.assert_allclose(draw(nn.orthogonal(), (2, 3)), ORTHOGONAL, rtol=1e-11)


def test_fans_of_matrices_and_of_windows():
    assert fans((200, 300)) == (200, 300)
    assert fans((3, 5, 8, 16)) == (120, 240)
    with pytest.raises(ValueError, match=r"got \(3,\)"):
        nn.Dense(2, 3, b_init=nn.he_normal, seed=0)


def test_seeds_and_paths_give_different_streams():
    assert (draw(nn.zeros) == draw(nn.zeros)).all()
    assert (draw(nn.he_normal) == draw(nn.he_normal)).all()
    assert (draw(nn.he_normal) != draw(nn.he_normal, seed=1)).all()
    assert generator(0, "a").bit_generator.random_raw() != generator(0, "b").bit_generator.random_raw()
    with pytest.raises(ValueError, match="from 0 to 2\\*\\*64 - 1, got -1"):
        nn.Dense(2, 3, seed=-1)


def test_an_initializer_that_gives_another_shape():
    with pytest.raises(ValueError, match=r"layers\[0\].W gave shape \(2,\), expected \(2, 3\)"):
        nn.Sequential(nn.Dense(2, 3, W_init=lambda rng, shape: np.zeros(2)), seed=0)
