import hashlib

import numpy as np
import pytest

from gpubp.data import autoencoder8, digits, xor


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
