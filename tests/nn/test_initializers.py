import numpy as np
import pytest

from gpubp import nn
from gpubp.nn.initializers import fans, generator

SHAPE = (200, 300)


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
