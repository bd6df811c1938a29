"""Folders of pictures, read when a batch asks for them, with Pillow."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .opening import File

__all__ = ["ImageFolder", "Images", "image_folder"]

_IGNORED = ("Thumbs.db", "desktop.ini", "__MACOSX")  # which Windows and macOS put into folders and archives
_ORIENTATION = 0x0112  # in EXIF data: 1 is upright, from 5 on height and width change places
_PARTS = {"train", "training", "test", "testing", "val", "valid", "validation"}


class ImageFolder(NamedTuple):
    """Pictures and their labels.

    Parameters
    ----------
    images : Images
        A source of the pictures.
    labels : ndarray or None
        int64, of shape (n,); label k stands for ``classes[k]``. None if the folder holds pictures, not folders.
    classes : tuple of str
        The names of the folders.
    """

    images: Images
    labels: np.ndarray | None
    classes: tuple[str, ...]


class Images:
    """A source of pictures of one size: uint8 of shape (n, height, width, channels), decoded when they are taken.

    Parameters
    ----------
    files
        The pictures' files.
    size
        Height and width to which pictures are brought: scaled until they cover it, then cut to their middle. None if
        they all have one size.
    channels
        1 (grey) or 3 (red, green, blue); None for 3 if one of the pictures has colours.
    """

    ndim, dtype = 4, np.dtype(np.uint8)

    def __init__(self, files: Sequence[Path], size: tuple[int, int] | None, channels: int | None) -> None:
        self.files, self._resized = tuple(files), size is not None
        has_colours = False
        for file in self.files:
            found, mode = _header(file)
            has_colours |= mode not in ("1", "L", "LA", "I;16")
            size = size or found
            if not self._resized and found != size:
                raise ValueError(
                    f"{file} is of {found[0]} x {found[1]} pixels (height x width), but {self.files[0]} of {size[0]} x "
                    f"{size[1]}; size=({size[0]}, {size[1]}) brings all to one"
                )
        assert size is not None
        self.shape = (len(self.files), *size, channels or (3 if has_colours else 1))

    def __len__(self) -> int:
        return len(self.files)

    def __repr__(self) -> str:
        return f"Images(shape={self.shape})"

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Return these pictures."""
        out = np.empty((len(rows), *self.shape[1:]), np.uint8)
        for place, row in enumerate(rows):
            out[place] = self._picture(self.files[row])
        return out

    def _picture(self, file: Path) -> np.ndarray:
        from PIL import Image, ImageOps

        height, width, channels = self.shape[1:]
        try:
            with _File(io.FileIO(file)) as stream, Image.open(stream) as opened:
                picture: Any = opened
                if _orientation(picture) > 1:
                    ImageOps.exif_transpose(picture, in_place=True)
                if picture.mode.startswith("I;16"):
                    picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
                picture = picture.convert("L" if channels == 1 else "RGB")
        except (FileNotFoundError, PermissionError):
            raise
        except Exception as error:  # what Pillow raises depends on the format
            raise ValueError(f"{file} is no whole picture: {error}") from None
        if self._resized:
            picture = ImageOps.fit(picture, (width, height), Image.Resampling.BILINEAR)
        if picture.size != (width, height):
            raise ValueError(f"{file} has changed: its size was {height} x {width}")
        return np.asarray(picture).reshape(height, width, channels)


def image_folder(
    folder: File,
    *,
    size: int | tuple[int, int] | None = None,
    channels: int | None = None,
    classes: Sequence[str] | None = None,
) -> ImageFolder:
    """Open a folder that has a folder of pictures for each class. Needs Pillow (extra ``images``).

    Parameters
    ----------
    folder
        Name of the folder. What stands directly in it is passed over if it has folders; else it is a folder of pictures
        without labels. Pictures may stand in folders within the folder of a class. Hidden files are passed over; all
        others must be pictures. They are turned upright where their EXIF data say how; what is transparent in them is
        taken as opaque, and of an animation the first picture.
    size
        Height and width of the pictures, or one number for both: they are scaled until they cover it, then cut to their
        middle. By default they must be of one size.
    channels
        1 for grey, 3 for colours; by default 3 if any picture has them.
    classes
        Names of the classes in the order of their labels, such as those of the pictures that were learned from, of
        which a folder may lack some; by default the names of its folders, sorted.

    Returns
    -------
    ImageFolder
        A source of pictures, their labels, and the classes.

    Raises
    ------
    ModuleNotFoundError
        If Pillow is not installed.
    ValueError
        If there are no pictures; if a file is none, or its size differs; if a folder is none of the `classes`; if the
        folders are not of classes, but of pictures to learn from and to test with. When a picture is read, if it is not
        whole.
    OSError
        If folder or file cannot be read.
    """
    try:
        import PIL  # noqa: F401
    except ImportError as error:
        raise ModuleNotFoundError("pictures are read with Pillow: pip install 'gpubp[images]'", name="PIL") from error
    if channels not in (None, 1, 3):
        raise ValueError(f"channels must be 1 or 3, got {channels!r}")
    height_and_width = (size, size) if isinstance(size, int | np.integer) else size
    if height_and_width is not None and (np.shape(height_and_width) != (2,) or min(height_and_width) < 1):
        raise ValueError(f"size must be a height and a width, or one number from 1 for both, got {size!r}")
    where = Path(folder)
    names = sorted(
        entry.name
        for entry in os.scandir(where)
        if entry.is_dir() and not entry.name.startswith(".") and entry.name not in _IGNORED
    )
    if names and classes is None and all(name.lower() in _PARTS for name in names):
        raise ValueError(
            f"{where} holds no folders of classes, but {', '.join(names)}: open each one, as {where / names[-1]}"
        )
    if not names:
        return ImageFolder(Images(_pictures(where), height_and_width, channels), None, ())
    classes = names if classes is None else classes
    if unknown := [name for name in names if name not in classes]:
        raise ValueError(f"{where} has a folder {unknown[0]!r}, which is none of the classes {', '.join(classes)}")
    files = [_pictures(where / name) if name in names else [] for name in classes]
    labels = np.repeat(np.arange(len(classes)), [len(part) for part in files])
    images = Images([file for part in files for file in part], height_and_width, channels)
    return ImageFolder(images, labels, tuple(classes))


def _pictures(folder: Path) -> list[Path]:
    files = [
        file
        for file in sorted(folder.rglob("*"))
        if file.is_file()
        and file.name not in _IGNORED
        and not any(p.startswith(".") for p in file.relative_to(folder).parts)
    ]
    if not files:
        raise ValueError(f"there are no pictures in {folder}")
    return files


class _File(io.BufferedReader):
    """A file that gives no more than it has: Pillow asks for what a header claims, and memory would be taken for it."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(size if size is None or size < 0 else min(size, os.fstat(self.fileno()).st_size))


def _header(file: Path) -> tuple[tuple[int, int], str]:
    """Height and width of a picture, and Pillow's name of what a pixel is."""
    from PIL import Image, UnidentifiedImageError

    try:
        with _File(io.FileIO(file)) as stream, Image.open(stream) as picture:
            if picture.height * picture.width > (Image.MAX_IMAGE_PIXELS or math.inf):
                raise ValueError(f"it has more pixels than PIL.Image.MAX_IMAGE_PIXELS, {Image.MAX_IMAGE_PIXELS}")
            size = picture.height, picture.width
            mode = "I;16" if picture.mode.startswith("I;16") else picture.mode
            if mode in ("I", "F"):
                raise ValueError("its pixels have 32 bits")
            return size if _orientation(picture) < 5 else size[::-1], mode
    except (FileNotFoundError, PermissionError):
        raise
    except UnidentifiedImageError:
        raise ValueError(f"{file} is no picture that can be read: Pillow does not know its format") from None
    except Exception as error:  # what Pillow raises depends on the format
        raise ValueError(f"{file} is no picture that can be read: {error}") from None


def _orientation(picture: Any) -> int:
    """How an opened picture is to be turned, in the numbers of EXIF; Pillow itself turns those of TIFF files."""
    if "exif" not in picture.info:
        return 1
    try:
        return int(picture.getexif().get(_ORIENTATION, 1))
    except Exception:  # damaged, which says nothing of the picture
        return 1
