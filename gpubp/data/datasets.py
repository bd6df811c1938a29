"""Small data sets that come with the package."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

__all__ = ["Dataset", "Examples", "autoencoder8", "digits", "xor"]


class Examples(NamedTuple):
    """Inputs and what is expected of them, row by row; a plain pair to everything that takes arrays.

    Parameters
    ----------
    inputs : ndarray
        One input a row.
    targets : ndarray
        The row's target: a vector, or a class label.
    """

    inputs: np.ndarray
    targets: np.ndarray


class Dataset(NamedTuple):
    """Examples to learn from, and examples kept apart to test with."""

    train: Examples
    test: Examples


def digits(dtype: str = "float32") -> Dataset:
    """Return 1797 handwritten digits of 8 x 8 pixels, split into 1437 to train and 360 to test with.

    The split is fixed and holds every class in the same proportion. The digits of one writer are on both sides of it,
    so it tests the recognition of new digits, not of new handwriting.

    Parameters
    ----------
    dtype : str
        Floating-point dtype of the images.

    Returns
    -------
    Dataset
        Images of shape (n, 64), the rows of pixels one after another, from 0 (paper) to 1 (ink), and int64 labels of
        shape (n,), from 0 to 9.

    Notes
    -----
    E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998,
    doi:10.24432/C50P49, licensed under CC BY 4.0; see ``digits.txt`` beside the data.
    """
    with np.load(Path(__file__).with_name("digits.npz"), allow_pickle=False) as file:
        images, labels, test = file["images"], file["labels"].astype(np.int64), file["test"]
    inputs = images.reshape(len(images), -1).astype(dtype) / np.asarray(16, dtype)
    is_test = np.zeros(len(labels), dtype=bool)
    is_test[test] = True
    return Dataset(*(Examples(inputs[rows], labels[rows]) for rows in (~is_test, is_test)))


def xor(dtype: str = "float32") -> Examples:
    """Return the four rows of exclusive or: inputs of shape (4, 2), targets of shape (4, 1)."""
    inputs = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], dtype=dtype)
    return Examples(inputs, np.array([[0], [1], [1], [0]], dtype=dtype))


def autoencoder8(dtype: str = "float32") -> Examples:
    """Return the task of the 8-3-8 autoencoder: eight one-hot vectors of length 8, each its own target."""
    return Examples(np.eye(8, dtype=dtype), np.eye(8, dtype=dtype))
