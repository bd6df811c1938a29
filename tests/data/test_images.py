import io
import struct
import sys
import tracemalloc
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpubp.data import batches, image_folder

Image = pytest.importorskip("PIL.Image")
RNG = np.random.default_rng(0)


def pixels(*shape):
    return RNG.integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture
def put(tmp_path):
    def put(name, array, **options):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(file, **options)
        return array

    return put


def test_grey_pictures_and_their_labels(put, tmp_path):
    arrays = [put(name, pixels(4, 6)) for name in ("cat/a.png", "cat/more/b.bmp", "dog/a.png")]
    (tmp_path / "cat" / ".hidden").write_text("")
    (tmp_path / "cat" / "Thumbs.db").write_text("")
    (tmp_path / "read.me").write_text("")
    images, labels, classes = image_folder(tmp_path)
    assert (len(images), images.shape, images.ndim, images.dtype) == (3, (3, 4, 6, 1), 4, np.uint8)
    assert repr(images) == "Images(shape=(3, 4, 6, 1))"
    assert classes == ("cat", "dog")
    assert labels.dtype == np.int64
    assert labels.tolist() == [0, 0, 1]
    np.testing.assert_array_equal(images.take(np.array([2, 0, 1, 0]))[..., 0], [arrays[k] for k in (2, 0, 1, 0)])
    assert images.take(np.array([], np.int64)).shape == (0, 4, 6, 1)


def test_colours(put, tmp_path):
    grey, colour = put("a/grey.png", pixels(3, 5)), put("a/red.png", pixels(3, 5, 3))
    alpha = put("b/alpha.png", pixels(3, 5, 4))
    images = image_folder(tmp_path).images
    assert images.shape == (3, 3, 5, 3)
    expected = [np.repeat(grey[..., None], 3, -1), colour, alpha[..., :3]]
    np.testing.assert_array_equal(images.take(np.arange(3)), expected)
    images = image_folder(tmp_path, channels=1).images
    assert images.shape == (3, 3, 5, 1)
    luma = colour @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(images.take(np.array([1]))[0, ..., 0], luma, atol=1)


def test_sixteen_bits(put, tmp_path):
    array = RNG.integers(0, 2**16, (3, 4), dtype=np.uint16)
    put("a.png", array)
    images, labels, classes = image_folder(tmp_path)
    np.testing.assert_array_equal(images.take(np.array([0]))[0, ..., 0], array >> 8)
    assert labels is None
    assert classes == ()


def test_sixteen_bits_with_the_higher_byte_first(tmp_path):
    array = RNG.integers(0, 2**16, (3, 4), dtype=np.uint16)
    tags = [(256, 4), (257, 3), (258, 16), (259, 1), (262, 1), (273, 8), (277, 1), (278, 3), (279, array.nbytes)]
    directory = (
        struct.pack(">H", len(tags)) + b"".join(struct.pack(">HHII", tag, 4, 1, x) for tag, x in tags) + bytes(4)
    )
    data = array.astype(">u2").tobytes()
    (tmp_path / "a.tif").write_bytes(b"MM\0*" + struct.pack(">I", 8 + len(data)) + data + directory)
    np.testing.assert_array_equal(image_folder(tmp_path).images.take(np.array([0]))[0, ..., 0], array >> 8)


@pytest.mark.parametrize("form", ["png", "jpg", "tif", "webp"])
@pytest.mark.parametrize("size", [None, (16, 32)])
def test_pictures_are_turned_upright(put, tmp_path, form, size):
    upright = np.zeros((16, 32), np.uint8)
    upright[:8, :24] = 200
    lying = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1], 5: upright.T, 6: np.rot90(upright),
        7: upright[::-1, ::-1].T, 8: np.rot90(upright, -1),
    }  # fmt: skip
    for orientation, array in lying.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        put(f"{orientation}.{form}", array, exif=exif, **{"lossless": True} if form == "webp" else {})
    images = image_folder(tmp_path, size=size, channels=1).images
    assert images.shape == (8, 16, 32, 1)
    for picture in images.take(np.arange(8)):
        np.testing.assert_allclose(picture[..., 0], upright, atol=8)


def test_damaged_exif_data_are_passed_over(put, tmp_path):
    put("a.png", pixels(2, 3), exif=b"Exif\0\0nothing")
    assert image_folder(tmp_path).images.take(np.array([0])).shape == (1, 2, 3, 1)


def test_what_is_transparent_and_what_moves(put, tmp_path):
    array = pixels(3, 4, 4)
    put("a.png", array)
    np.testing.assert_array_equal(image_folder(tmp_path).images.take(np.array([0]))[0], array[..., :3])
    still = [Image.fromarray(np.full((3, 4), value, np.uint8)) for value in (0, 255)]
    still[0].save(tmp_path / "a.png", save_all=True, append_images=still[1:])
    assert image_folder(tmp_path).images.take(np.array([0])).max() == 0


def test_folders_that_are_no_classes(put, tmp_path):
    for name in ("train/cat/a.png", "train/dog/a.png", "Val/cat/a.png"):
        put(name, pixels(2, 2))
    with pytest.raises(ValueError, match=r"holds no folders of classes, but Val, train: open each one, as .*train"):
        image_folder(tmp_path)
    assert image_folder(tmp_path / "train").classes == ("cat", "dog")
    put("car/a.png", pixels(2, 2))
    assert image_folder(tmp_path).classes == ("Val", "car", "train")
    put("__MACOSX/car/._a.png", pixels(2, 2), format="png")
    assert image_folder(tmp_path).classes == ("Val", "car", "train")


def test_classes_that_are_told(put, tmp_path):
    arrays = [put(name, pixels(2, 2)) for name in ("cat/a.png", "fox/a.png")]
    images, labels, classes = image_folder(tmp_path, classes=("fox", "dog", "cat"))
    assert labels.tolist() == [0, 2]
    assert classes == ("fox", "dog", "cat")
    np.testing.assert_array_equal(images.take(np.arange(2))[..., 0], arrays[::-1])
    with pytest.raises(ValueError, match="has a folder 'fox', which is none of the classes cat, dog"):
        image_folder(tmp_path, classes=("cat", "dog"))


def test_size(put, tmp_path):
    wide = np.zeros((10, 40), np.uint8)
    wide[:, 10:30] = 200  # what is in the middle stays
    put("wide.png", wide)
    put("whole.png", pixels(5, 5))
    images = image_folder(tmp_path, size=np.int64(5)).images
    assert images.shape == (2, 5, 5, 1)
    np.testing.assert_array_equal(images.take(np.array([1]))[0], 200)
    assert image_folder(tmp_path, size=(4, 7)).images.take(np.array([0, 1])).shape == (2, 4, 7, 1)
    message = r"wide\.png is of 10 x 40 pixels \(height x width\), but .*whole\.png of 5 x 5; size=\(5, 5\) brings"
    with pytest.raises(ValueError, match=message):
        image_folder(tmp_path)


@pytest.mark.parametrize("size", [0, (3, 0), (1, 2, 3)])
def test_bad_size(tmp_path, size):
    with pytest.raises(ValueError, match="size must be a height and a width, or one number from 1 for both, got"):
        image_folder(tmp_path, size=size)


def test_bad_channels(tmp_path):
    with pytest.raises(ValueError, match="channels must be 1 or 3, got 4"):
        image_folder(tmp_path, channels=4)


def test_batches_of_pictures(put, tmp_path):
    arrays = [put(f"{'ab'[k % 2]}/{k}.png", pixels(3, 4)) for k in range(6)]
    images, labels, _ = image_folder(tmp_path)
    found = [(x, y) for x, y in batches((images, labels), 4)]
    np.testing.assert_array_equal(found[1][0][..., 0], [arrays[3], arrays[5]])
    assert found[1][1].tolist() == [1, 1]


def test_a_file_that_is_no_picture(put, tmp_path):
    put("a/1.png", pixels(3, 3))
    (tmp_path / "a" / "notes.txt").write_text("not a picture")
    with pytest.raises(ValueError, match=r"notes\.txt is no picture that can be read: Pillow does not know its"):
        image_folder(tmp_path)


@pytest.mark.parametrize("form", ["png", "jpg", "bmp", "gif"])
def test_a_truncated_picture(put, tmp_path, form):
    file = tmp_path / "a" / f"1.{form}"
    put(f"a/1.{form}", pixels(60, 60))
    file.write_bytes(file.read_bytes()[:1500])
    images = image_folder(tmp_path).images  # only the header is read
    with pytest.raises(ValueError, match=rf"1\.{form} is no whole picture: "):
        images.take(np.array([0]))


def test_a_picture_that_claims_too_much(put, tmp_path, monkeypatch):
    put("1.png", pixels(30, 40))
    content = bytearray((tmp_path / "1.png").read_bytes())
    at = content.index(b"IDAT") - 4
    content[at:at] = b"\xff\xff\xff\xffIDAT"  # the length of what follows
    (tmp_path / "1.png").write_bytes(content)
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"1\.png is no"):
        image_folder(tmp_path).images.take(np.array([0]))
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()
    put("1.png", pixels(30, 40))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with (
        pytest.warns(Image.DecompressionBombWarning),
        pytest.raises(ValueError, match="it has more pixels than PIL.Image.MAX_IMAGE_PIXELS, 1000"),
    ):
        image_folder(tmp_path)


@pytest.mark.parametrize("form", ["png", "jpeg", "gif", "bmp", "tiff"])
@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_damaged_pictures(form, data, tmp_path_factory):
    """Bytes changed or cut off: a picture, or a ValueError that names the file."""
    stream = io.BytesIO()
    Image.fromarray(np.arange(15 * 12 * 3, dtype=np.uint8).reshape(15, 12, 3)).save(stream, form)
    content = bytearray(stream.getvalue())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    folder = tmp_path_factory.getbasetemp() / form
    folder.mkdir(exist_ok=True)
    (folder / "damaged.bin").write_bytes(content[: data.draw(st.integers(0, 2 * len(content)))])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            images = image_folder(folder, size=4).images
            assert images.take(np.array([0])).shape[:3] == (1, 4, 4)
        except ValueError as error:
            assert "damaged.bin" in str(error)  # noqa: PT017


def test_a_picture_that_has_changed(put, tmp_path):
    put("1.png", pixels(3, 4))
    images = image_folder(tmp_path).images
    put("1.png", pixels(3, 5))
    with pytest.raises(ValueError, match=r"1\.png has changed: its size was 3 x 4"):
        images.take(np.array([0]))


def test_thirty_two_bits(put, tmp_path):
    put("1.tiff", np.ones((3, 3), np.float32))
    with pytest.raises(ValueError, match=r"1\.tiff is no picture that can be read: its pixels have 32 bits"):
        image_folder(tmp_path)


def test_a_folder_without_pictures(put, tmp_path):
    with pytest.raises(ValueError, match="there are no pictures in"):
        image_folder(tmp_path)
    put("a/1.png", pixels(3, 3))
    (tmp_path / "b").mkdir()
    with pytest.raises(ValueError, match=r"there are no pictures in .*b"):
        image_folder(tmp_path)
    with pytest.raises(FileNotFoundError):
        image_folder(tmp_path / "c")


def test_without_pillow(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ModuleNotFoundError, match=r"pictures are read with Pillow: pip install 'gpubp\[images\]'"):
        image_folder(tmp_path)
