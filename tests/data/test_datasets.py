import hashlib

import numpy as np
import pytest

from gpubp.data import NAMES, autoencoder8, batches, circles, digits, load, moons, spirals, xor


def test_digits_shapes_dtypes_and_range():
    train, test = digits()
    for part, rows in ((train, 1437), (test, 360)):
        assert part.inputs.shape == (rows, 64)
        assert part.inputs.dtype == np.float32
        assert (part.inputs.min(), part.inputs.max()) == (0, 1)
        assert part.targets.shape == (rows,)
        assert part.targets.dtype == np.int64
        assert set(part.targets.tolist()) == set(range(10))
    assert digits("float64").train.inputs.dtype == np.float64


def test_digits_split_is_stratified():
    train, test = digits()
    share = np.bincount(test.targets) / np.bincount(np.concatenate([train.targets, test.targets]))
    np.testing.assert_allclose(share, 360 / 1797, atol=0.003)


def test_digits_split_never_changes():
    fingerprint = hashlib.sha256()
    for part in digits():
        fingerprint.update((part.inputs * 16).astype(np.uint8).tobytes() + part.targets.astype(np.uint8).tobytes())
    assert fingerprint.hexdigest() == "132852cc36841e3318ceb8a00c3fd6320b62d695d87845aadfa56631ea4120ab"


def test_digits_are_those_of_scikit_learn():
    images, labels = pytest.importorskip("sklearn.datasets").load_digits(return_X_y=True)
    train, test = digits("float64")
    ours = np.column_stack(
        [np.concatenate([train.inputs * 16, test.inputs * 16]), np.concatenate([train.targets, test.targets])]
    )
    theirs = np.column_stack([images, labels])
    np.testing.assert_array_equal(ours[np.lexsort(ours.T)], theirs[np.lexsort(theirs.T)])


def test_xor():
    x, y = xor("float64")
    np.testing.assert_array_equal(y[:, 0], np.logical_xor(x[:, 0], x[:, 1]))
    assert x.shape == (4, 2)
    assert y.shape == (4, 1)
    assert xor().inputs.dtype == np.float32


def test_autoencoder8():
    x, y = autoencoder8()
    np.testing.assert_array_equal(x, np.eye(8))
    np.testing.assert_array_equal(x, y)
    assert not np.shares_memory(x, y)


@pytest.mark.parametrize(("draw", "classes"), [(moons, 2), (circles, 2), (spirals, 2), (spirals, 3), (circles, 4)])
def test_drawn_points(draw, classes):
    more = {} if draw is moons else {"classes": classes}
    x, y = draw(300, 0.0, dtype="float64", **more)
    assert x.shape == (300, 2)
    assert y.dtype == np.int64
    np.testing.assert_array_equal(np.bincount(y), np.full(classes, 300 // classes))
    radius = np.hypot(*x.T)
    if draw is moons:  # each on its half circle
        np.testing.assert_allclose(np.hypot(x[:, 0] - y, x[:, 1] - 0.5 * y), 1, atol=2e-6)
        np.testing.assert_array_equal(x[:, 1] - 0.5 * y >= 0, y == 0)
    elif draw is circles:
        np.testing.assert_allclose(radius, (y + 1) / classes, atol=2e-6)
    else:  # turned back by its radius' share of the turns, each arm is a ray
        ray = (np.arctan2(x[:, 1], x[:, 0]) / (2 * np.pi) - (radius - 0.1) / 0.9 - y / classes + 0.5) % 1 - 0.5
        np.testing.assert_allclose(ray, 0, atol=1e-5)
        assert 0.1 <= radius.min() < 0.15 < 0.95 < radius.max() <= 1
    # noise is normal, of this standard deviation, and adds to the same places
    noise = draw(3000, 0.1, dtype="float64", **more).inputs - draw(3000, 0.0, dtype="float64", **more).inputs
    np.testing.assert_allclose(noise.std(axis=0), 0.1, rtol=0.03)
    np.testing.assert_allclose(np.mean(abs(noise) < 0.1), 0.6827, atol=0.015)
    assert abs(np.corrcoef(noise.T)[0, 1]) < 0.05


def test_drawn_points_are_the_same_on_every_machine():
    fingerprint = hashlib.sha256()
    for draw in (moons, spirals, circles):
        fingerprint.update(draw(500, dtype="float32").inputs.tobytes())
    assert fingerprint.hexdigest() == "3f40d951e60cd41eb9d0598c0f39b654b70ae3e66d2bcd57863a0ef9b16c88b1"
    x = moons(50, dtype="float64").inputs
    np.testing.assert_array_equal(x, moons(50).inputs)  # no digit is lost in float32
    assert not np.array_equal(x, moons(50, seed=1, dtype="float64").inputs)


def test_drawn_points_are_not_shuffled_by_what_they_were_drawn_from():
    t = np.argsort(np.arctan2(*circles(100, 0.0, classes=1).inputs.T) % (2 * np.pi))
    ((order,),) = batches((np.arange(100),), 100, shuffle=True, seed=0)
    assert abs(np.corrcoef(t, order)[0, 1]) < 0.5


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"n": 0}, "n must be at least 1, got 0"),
        ({"noise": -0.1}, "noise must be at least 0, got -0.1"),
        ({"noise": float("nan")}, "noise must be at least 0, got nan"),
        ({"classes": 0}, "classes must be at least 1, got 0"),
        ({"seed": -1}, r"seed must be a whole number from 0 to 2\*\*64 - 1, got -1"),
        ({"seed": 0.5}, "seed must be a whole number .* got 0.5"),
    ],
)
def test_bad_arguments_of_drawn_points(kwargs, message):
    with pytest.raises(ValueError, match=message):
        spirals(**kwargs)


@pytest.mark.parametrize("name", ["digits", "xor", "autoencoder8", "moons", "spirals", "circles"])
def test_load_what_needs_no_files(name):
    train, test = load(name, dtype="float64")
    assert name in NAMES
    for part in (train, test):
        assert len(part.inputs) == len(part.targets)
        assert part.inputs.dtype == np.float64
    if name in ("moons", "spirals", "circles", "digits"):
        assert not np.array_equal(train.inputs[:9], test.inputs[:9])


def test_load_finds_a_name_however_it_is_written():
    np.testing.assert_array_equal(load("AutoEncoder8").train.inputs, np.eye(8))
    with pytest.raises(ValueError, match=r"no data set 'fashion', but digits, .*; did you mean fashion-mnist\?"):
        load("fashion")
    with pytest.raises(ValueError, match="no data set '#', but digits, .*cifar10$"):
        load("#")


def test_raw_pixels_and_bad_dtypes():
    raw, scaled = digits("uint8").test.inputs, digits("float64").test.inputs
    assert raw.dtype == np.uint8
    np.testing.assert_array_equal(raw / 16, scaled)
    with pytest.raises(ValueError, match="dtype must be a floating-point dtype or 'uint8', got 'int64'"):
        digits("int64")
