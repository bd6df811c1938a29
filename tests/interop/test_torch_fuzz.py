"""Files of `torch.save` with changed and random bytes: the outcome is data or ValueError, in bounded memory."""

import importlib.util
import math
import pickletools
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from gpubp.interop import read_torch_file

_spec = importlib.util.spec_from_file_location("torch_files", Path(__file__).with_name("torch_files.py"))
w = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(w)

X = np.arange(6, dtype="float32")
OPCODES = sorted({code.code.encode("latin1") for code in pickletools.opcodes})


def memory(found):
    """The bytes of all arrays' storages, each counted once, after a look at every element."""
    bases, todo = {}, [found]
    while todo:
        x = todo.pop()
        if isinstance(x, np.ndarray):
            owner = x
            while owner.base is not None:
                owner = owner.base
            bases[id(owner)] = owner.nbytes
            if math.prod(x.shape) < 10**6:
                x.copy()
        elif isinstance(x, dict):
            assert all(type(key) in (str, int) for key in x)
            todo += x.values()
        elif isinstance(x, list | tuple):
            todo += x
        else:
            assert x is None or type(x) in (bool, int, float, complex, str, bytes), type(x)
    return sum(bases.values())


def seeds():
    """Small files with every kind of thing in them."""
    a, b = w.storage(X), w.storage(np.arange(4, dtype="int64"), "1")
    c = w.storage(np.arange(3, dtype="int16"), "2", kind="BFloat16")
    untyped = (w.Storage("Untyped", "3", bytes(range(8)), 8), 1, (3,), (1,), False, {}, w.Name("torch", "uint16"))
    v3 = w.Call(w.Name("torch._utils", "_rebuild_tensor_v3"), untyped)
    plain = [
        1,
        2.5,
        None,
        True,
        "text",
        b"b",
        (2**70, -1),
        w.Call(w.Name("torch", "Size"), ((2, 3),)),
        [k / 7 for k in range(30)],
    ]
    return {
        "tensors": {"a": w.tensor(a, 0, (2, 3)), "t": w.tensor(a, 0, (3, 2), (1, 3)), "b": w.tensor(b), "v": v3},
        "half": {"h": w.tensor(c, 1, (2,)), "p": plain, "memo": w.Raw(b"]q\x07h\x07\x86")},
    }


def pickles_at(content):
    """Where the instructions of a file of the older format begin and end; the changes go there mostly."""
    return len(w.MAGIC), content.rindex(b".") + 1


def mutated(rng, data, first=0, last=None):
    """Change some bytes of `data` between two places: flips, insertions, deletions, copies, instructions."""
    data = bytearray(data)
    for _ in range(1 + rng.integers(4) // 2):
        last_ = len(data) if last is None else min(last, len(data))
        if last_ <= first:
            break
        k = int(rng.integers(first, last_))
        match rng.integers(9):
            case 0 | 7:
                data[k] ^= 1 << int(rng.integers(8))
            case 1 | 8:
                data[k] = int(rng.integers(256))
            case 2:
                data[k:k] = OPCODES[rng.integers(len(OPCODES))]
            case 3:
                del data[k : k + int(rng.integers(1, 9))]
            case 4:
                j = int(rng.integers(first, last_))
                data[k:k] = data[j : j + int(rng.integers(1, 30))]
            case 5:
                data[k : k + 4] = [b"\xff\xff\xff\xff", b"\x00\x00\x00\x80", b"\xff\xff\xff\x7f"][rng.integers(3)]
            case 6:
                del data[k : None if rng.integers(4) == 0 else k + 1]
    return bytes(data)


def fuzz_cases(rng, n):
    """Yield changed files of both formats; in archives the changed pickle gets its checksum, or the frame changes."""
    contents = list(seeds().values())
    for k in range(n):
        content = contents[k % len(contents)]
        if rng.integers(2):
            data = w.legacy_file(content)
            yield mutated(rng, data, *(pickles_at(data) if rng.integers(4) else ()))
        elif rng.integers(4):
            yield w.zip_file(content, change=lambda m: m.update({"data.pkl": mutated(rng, m["data.pkl"])}))
        else:
            yield mutated(rng, w.zip_file(content))


def outcome(file):
    """What is in a file, or the error that reading it gives."""
    try:
        return read_torch_file(file)
    except ValueError as error:
        return error


def test_fuzzing(tmp_path):
    rng, file, outcomes = np.random.default_rng(0), tmp_path / "fuzz.pth", {"data": 0, "error": 0}
    tracemalloc.start()
    for content in fuzz_cases(rng, 1500):
        file.write_bytes(content)
        tracemalloc.reset_peak()
        found = outcome(file)
        if isinstance(found, ValueError):
            outcomes["error"] += 1
            assert str(found).startswith(str(file))
        else:
            outcomes["data"] += 1
            assert memory(found) <= 2 * len(content)
        assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()
    assert min(outcomes.values()) > 100, outcomes


def test_random_bytes(tmp_path):
    hypothesis = pytest.importorskip("hypothesis")
    st = hypothesis.strategies
    file = tmp_path / "random.pth"

    @hypothesis.given(
        st.lists(st.one_of(st.sampled_from(OPCODES), st.binary(max_size=6)), max_size=40).map(b"".join), st.booleans()
    )
    @hypothesis.settings(max_examples=300)
    def check(code, archive):
        raw = w.Raw(code)
        file.write_bytes(w.zip_file(raw) if archive else w.legacy_file(raw))
        found = outcome(file)
        assert str(found).startswith(str(file)) if isinstance(found, ValueError) else memory(found) >= 0

    check()
