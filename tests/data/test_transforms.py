import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpubp.data import batches, checks, transforms
from gpubp.data.transforms import Compose, Crop, Draw, Flip, Noise, Normalize, evaluation
from gpubp.device import device_of, move, to_numpy

PICTURES = np.arange(10 * 4 * 6 * 2, dtype="float32").reshape(10, 4, 6, 2) + 1
ALL = Compose(Normalize.fit(PICTURES), Flip(), Crop(1), Noise(0.5))


def draw(rows=10, seed=0, epoch=0):
    return Draw(seed, epoch, np.arange(rows))


def by_row(batches_):
    """The transformed row of each row of the data."""
    x = np.concatenate([x for x, _ in batches_])
    return x[np.argsort(np.concatenate([y for _, y in batches_]))]


# -- random numbers


def test_draws_are_philox_words():
    d = Draw(5, 7, np.array([3, 0, 2**40]), np.array([0, 2, 0]))
    for number, n in enumerate((1, 6, 5)):
        expected = [
            np.random.Philox(key=np.array([5, 7], "u8"), counter=np.array([0, row, number, 1 + copy], "u8")).random_raw(
                3
            )
            for row, copy in ((3, 0), (0, 2), (2**40, 0))
        ]
        np.testing.assert_array_equal(d.halves(n), np.array(expected).astype("<u8").view("<u4")[:, :n])


def test_the_committed_numbers():  # a change here changes every training run
    assert draw(2).integers(100, (4,)).tolist() == [[72, 34, 13, 57], [67, 45, 57, 32]]
    np.testing.assert_allclose(draw(2).uniform((4,)), draw(2).halves(4) / 2**32, rtol=0)


def test_draws_are_distributed_as_they_should():
    n = 100_000
    d, shape = draw(), (n // 10,)
    u, k, z = d.uniform(shape), d.integers(7, shape), d.normal(shape)
    assert u.dtype == np.float64
    assert 0 <= u.min() < 1e-3 < 0.999 < u.max() < 1
    assert abs(u.mean() - 0.5) < 4 / np.sqrt(12 * n)
    assert k.dtype == np.int64
    np.testing.assert_allclose(np.bincount(k.ravel()) / n, 1 / 7, atol=4 * np.sqrt(6 / 49 / n))
    assert z.dtype == np.float32
    assert np.isfinite(z).all()
    for power, moment, variance in (1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96):
        assert abs((z.astype("float64") ** power).mean() - moment) < 4 * np.sqrt(variance / n)
    assert abs(np.corrcoef(z[:, : n // 20].ravel(), z[:, n // 20 :].ravel())[0, 1]) < 4 / np.sqrt(n / 2)


def test_the_largest_and_smallest_words_give_finite_numbers(monkeypatch):
    for halves in 0, 2**32 - 1:
        monkeypatch.setattr(Draw, "halves", lambda self, n, h=halves: np.full((1, n), h, "u4"))
        assert np.isfinite(draw(1).normal((3,))).all()
        assert 0 <= draw(1).uniform() < 1
        assert draw(1).integers(5) in (0, 4)


# -- a function of the seed, the epoch and the row alone


@given(size=st.integers(1, 12), seed=st.integers(0, 2**64 - 1), epoch=st.integers(0, 9), shuffle=st.booleans())
def test_a_row_is_transformed_alike_in_every_batch(size, seed, epoch, shuffle):
    data = (PICTURES, np.arange(10))
    options = {"transform": ALL, "seed": seed, "epoch": epoch}
    whole = by_row(batches(data, 10, **options))
    np.testing.assert_array_equal(by_row(batches(data, size, shuffle=shuffle, **options)), whole)
    np.testing.assert_array_equal(by_row(batches(data, size, shuffle=shuffle, prefetch=2, **options)), whole)
    for x, y in batches(data, 3, start=2, **options):
        np.testing.assert_array_equal(x, whole[y])


def test_other_seeds_and_epochs_transform_otherwise():
    found = [
        by_row(batches((PICTURES, np.arange(10)), 5, transform=ALL, seed=seed, epoch=epoch))
        for seed, epoch in ((0, 0), (0, 1), (1, 0), (1, 1), (None, 0), (None, 0))
    ]
    assert all((a != b).any() for k, a in enumerate(found) for b in found[:k])


def test_rows_that_come_twice_are_transformed_otherwise_each_time():
    x, y = np.zeros((5, 3)), np.array([0, 0, 0, 0, 1])
    found = batches((x, y), 8, balance=1, transform=Noise(1.0), seed=0)
    ((noise, _),) = found
    assert found.rows(0).tolist() == [0, 1, 2, 3, 4, 4, 4, 4]
    assert len({str(row) for row in noise.tolist()}) == 8
    rows = np.concatenate([x for x, _ in batches((x, y), 3, balance=1, transform=Noise(1.0), seed=0)])
    np.testing.assert_array_equal(rows, noise)


def test_pictures_and_masks_are_transformed_alike():
    mask = PICTURES[..., :1].astype("int64")
    for x, m in batches((PICTURES, mask), 4, transform=(Compose(Crop(2), Flip()), Compose(Crop(2), Flip())), seed=3):
        np.testing.assert_array_equal(x[..., :1], m)
        assert m.dtype == np.int64


# -- each of them


def test_flip():
    found = Flip()(PICTURES, draw())
    turned = draw().uniform() < 0.5
    assert 0 < turned.sum() < 10
    np.testing.assert_array_equal(found[turned], PICTURES[turned, :, ::-1])
    np.testing.assert_array_equal(found[~turned], PICTURES[~turned])
    np.testing.assert_array_equal(Flip(axis=1, p=1)(PICTURES, draw()), PICTURES[:, ::-1])
    np.testing.assert_array_equal(Flip(p=0)(PICTURES, draw()), PICTURES)


@pytest.mark.parametrize("x", [PICTURES, PICTURES[..., 0], PICTURES.astype("uint8")])
def test_crop(x):
    found, shifts = Crop(2)(x, draw()), draw().integers(5, (2,))
    assert (found.shape, found.dtype) == (x.shape, x.dtype)
    around = np.pad(x, ((0, 0), (2, 2), (2, 2)) + ((0, 0),) * (x.ndim - 3))
    for row, (down, right) in enumerate(shifts):
        np.testing.assert_array_equal(found[row], around[row, down : down + 4, right : right + 6])
    np.testing.assert_array_equal(Crop(0)(x, draw()), x)


def test_noise():
    x = np.zeros((10, 1000), "float32")
    found = Noise(0.1)(x, draw())
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, draw().normal((1000,)) * np.float32(0.1))
    assert Noise(0.1)(x.astype("float64"), draw()).dtype == np.float64


def test_normalize():
    x = np.random.default_rng(0).normal(3, 2, (50, 4)) * [1, 10, 100, 1000]
    found = Normalize.fit(x)
    np.testing.assert_allclose(found.mean, x.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.std, x.std(0), rtol=1e-12)
    np.testing.assert_allclose(found(x), (x - x.mean(0)) / x.std(0), rtol=1e-9, atol=1e-12)
    assert found(x.astype("float32")).dtype == np.float32
    assert found(x.astype("int32")).dtype == np.float32
    assert found.evaluation is found


def test_normalize_per_channel_and_per_feature():
    by_channel, by_feature = Normalize.fit(PICTURES), Normalize.fit(PICTURES, per="feature")
    np.testing.assert_allclose(by_channel.mean, PICTURES.mean((0, 1, 2), dtype="float64"))
    np.testing.assert_allclose(by_channel.std, PICTURES.std((0, 1, 2), dtype="float64"))
    np.testing.assert_allclose(by_feature.mean, PICTURES.mean(0, dtype="float64"))
    assert by_feature(PICTURES).shape == PICTURES.shape
    assert Normalize.fit(np.arange(5.0)).mean == 2


def test_normalize_in_chunks_of_large_numbers(monkeypatch):
    rng = np.random.default_rng(1)
    x = (1e6 + rng.normal(size=(1000, 3))).astype("float32")
    expected = x.astype("float64").mean(0), x.astype("float64").std(0)
    for chunk in 12, 120, 10**6:
        monkeypatch.setattr(checks, "CHUNK", chunk)
        found = Normalize.fit(x)
        np.testing.assert_allclose(found.mean, expected[0], rtol=1e-14)
        np.testing.assert_allclose(found.std, expected[1], rtol=1e-10)


def test_constant_features_become_0():
    x = np.stack([np.full(7, 0.1), np.arange(7.0), np.full(7, 1e30)], axis=1)
    found = Normalize.fit(x)
    assert found.std.tolist()[::2] == [0, 0]
    np.testing.assert_array_equal(found(x)[:, ::2], 0)
    assert np.isfinite(found(x + 1)).all()


def test_normalize_fits_sources_and_mapped_files(tmp_path):
    class Source:
        shape, ndim, dtype = (10, 4, 6, 2), 4, np.dtype("uint8")

        def __len__(self):
            return 10

        def take(self, rows):
            return PICTURES[rows].astype("uint8")

    file = np.memmap(tmp_path / "x", dtype="uint8", mode="w+", shape=PICTURES.shape)
    file[:] = PICTURES
    for x in Source(), file:
        np.testing.assert_allclose(Normalize.fit(x).mean, PICTURES.astype("uint8").mean((0, 1, 2)))


def test_normalize_in_a_json_file():
    before = Normalize.fit(PICTURES / 3)
    after = Normalize.from_dict(json.loads(json.dumps(before.to_dict())))
    np.testing.assert_array_equal(after(PICTURES), before(PICTURES))


def test_functions_of_ones_own():
    def double(x):
        return 2 * x

    def shift(x, draw):
        return x + draw.integers(2, (3,))

    x = np.ones((4, 3))
    ((found,),) = batches((x,), 4, transform=Compose(double, shift, np.negative), seed=1)
    np.testing.assert_array_equal(found, -(2 + draw(4, seed=1).integers(2, (3,))))
    stays = evaluation(Compose(double, shift, np.negative))
    ((found,),) = batches((x,), 4, transform=stays)
    np.testing.assert_array_equal(found, -2 * x)


def test_what_stays_in_evaluation():
    normalize = Normalize.fit(PICTURES)
    assert evaluation(None) is None
    assert evaluation(normalize) is normalize
    assert evaluation(Compose(Flip(), Crop(1))) is None
    assert evaluation(lambda x, draw: x) is None
    one, none = evaluation((Compose(normalize, Flip()), Flip()))
    assert none is None
    np.testing.assert_array_equal(one(PICTURES), normalize(PICTURES))


@pytest.mark.parametrize("where", ["array_api_strict", "gpubp.testing.standin"])
def test_arrays_of_other_libraries_are_transformed_where_they_are(where):
    data = move(PICTURES, where), move(np.arange(10), where)
    options = {"transform": ALL, "shuffle": True, "seed": 2}
    for (x, _), (expected, _) in zip(
        batches(data, 4, **options), batches((PICTURES, np.arange(10)), 4, **options), strict=True
    ):
        assert device_of(x) == device_of(data[0])
        np.testing.assert_allclose(to_numpy(x), expected, rtol=1e-6)


# -- what may be wrong


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Normalize.fit((PICTURES, PICTURES)), TypeError, "takes the inputs of the training data, .* got tuple"),
        (lambda: Normalize.fit(PICTURES, per="row"), ValueError, "per must be 'channel' or 'feature', got 'row'"),
        (lambda: Normalize.fit(np.ones((0, 3))), ValueError, r"an array with examples, got one of shape \(0, 3\)"),
        (lambda: Normalize.fit(np.array([[1.0], [np.nan]])), ValueError, r"Normalize.fit hold nan at \(1, 0\)"),
        (lambda: Normalize([1, 2], [1]), ValueError, r"of one shape, .* of shape \(2,\) and \(1,\)"),
        (lambda: Normalize([1.0], [-1.0]), ValueError, "no std negative"),
        (lambda: Normalize.fit(PICTURES)(np.ones((2, 3))), ValueError, r"means of shape \(2,\) .* got x of \(2, 3\)"),
        (lambda: Normalize.fit(PICTURES, "feature")(np.ones((6, 2))), ValueError, r"means of shape \(4, 6, 2\)"),
        (lambda: Flip(axis=0), ValueError, "axis must be one of a row's, got 0"),
        (lambda: Flip(p=2), ValueError, "p must be from 0 to 1, got 2"),
        (lambda: Flip()(np.ones((2, 3)), draw(2)), ValueError, r"Flip\(2\) wants a batch .* got x of shape \(2, 3\)"),
        (lambda: Crop(-1), ValueError, "padding must be at least 0, got -1"),
        (lambda: Crop(1)(np.ones((2, 3)), draw(2)), ValueError, r"Crop wants pictures, .* got x of shape \(2, 3\)"),
        (lambda: Noise(-1), ValueError, "std must be a number from 0, got -1"),
        (lambda: Noise(1)(np.ones((2, 3), int), draw(2)), TypeError, "Noise wants floating-point .* got x of int64"),
        (
            lambda: next(iter(batches((np.ones((4, 2)),), 4, transform=lambda x: x[:2]))),
            ValueError,
            r"the transform of data\[0\] gave an array of shape \(2, 2\) for 4 rows",
        ),
        (
            lambda: next(iter(batches((np.ones((4, 2)),), 4, transform=lambda x: None))),
            ValueError,
            r"the transform of data\[0\] gave NoneType for 4 rows",
        ),
    ],
)
def test_bad_input(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_every_transform_is_exported():
    public = {
        name for name, x in vars(transforms).items() if isinstance(x, type) and x.__module__ == transforms.__name__
    }
    assert public - {"_Own"} <= set(transforms.__all__)
