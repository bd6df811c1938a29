import builtins
import errno
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest


@pytest.fixture
def read_only():
    """A folder in which this process may not write; the superuser, who may everywhere, is another user meanwhile."""
    if os.name == "nt":
        pytest.skip("Windows has no read-only folders")
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o555)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)
        try:
            yield Path(folder)
        finally:
            if user == 0:
                os.seteuid(0)
            os.chmod(folder, 0o755)


class _Full:
    """A file on a disk that has no space after some bytes, or says so only when they are to be synced or closed."""

    def __init__(self, stream, room, at_close):
        self._stream, self._room, self._at_close = stream, room, at_close

    def write(self, content):
        self._room -= len(content)
        if self._room < 0:
            self._stream.write(content[: self._room])
            _fail()
        return self._stream.write(content)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._stream.close()
        if self._at_close:
            _fail()

    def __getattr__(self, name):
        return getattr(self._stream, name)


def _fail(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture(params=["at once", "at byte 10", "at byte 400", "at fsync", "at close", "at the move"])
def disk_full(request, monkeypatch):
    """A block in which the disk is full."""
    room = {"at once": 0, "at byte 10": 10, "at byte 400": 400}.get(request.param, 1 << 40)

    @contextmanager
    def full():
        with monkeypatch.context() as patch:
            original = builtins.open
            patch.setattr(
                "gpubp.training.files.open",
                lambda file, *a: _Full(original(file, *a), room, request.param == "at close"),
                raising=False,
            )
            for name in {"at fsync": ["fsync"], "at the move": ["replace"]}.get(request.param, ()):
                patch.setattr(os, name, _fail)
            yield

    return full()
