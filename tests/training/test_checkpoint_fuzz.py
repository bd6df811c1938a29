"""Whatever is in a folder of checkpoints, reading it gives a checkpoint, or an error that names the file."""

import hashlib
import json
import tracemalloc
import warnings
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpubp.training import Broken, Checkpoints
from gpubp.training.checkpoint import _signed

from .test_checkpoint import SETTINGS, Part, everything, parts

BOUND = 4_000_000  #: bytes; far more than these files have, far less than their headers may claim


@cache
def valid():
    """The two files of a checkpoint."""
    with TemporaryDirectory() as folder:
        Checkpoints(folder).save(1, parts(1), settings=SETTINGS, row={})
        return [(Path(folder) / f"step-00000001.{suffix}").read_bytes() for suffix in ("json", "safetensors")]


def unsigned():
    """What the first file says, but for the checksums."""
    about = json.loads(valid()[0])
    del about["sha256"]
    return about


@contextmanager
def folder_with(about, arrays):
    with TemporaryDirectory() as folder:
        (Path(folder) / "step-00000001.json").write_bytes(about)
        (Path(folder) / "step-00000001.safetensors").write_bytes(arrays)
        yield folder


def read(about, arrays):
    """Resume from these files: what comes is the checkpoint, or `Broken` or ValueError with nothing changed."""
    run = parts(5)
    before = everything(run)
    with folder_with(about, arrays) as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tracemalloc.start()
        try:
            return Checkpoints(folder).resume(run, settings=SETTINGS)
        except ValueError as error:
            found = error
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
    assert "step-00000001" in str(found)
    assert peak < BOUND
    np.testing.assert_equal(everything(run), before)
    return type(found)


@st.composite
def mutated(draw, content):
    """Bytes of a file with some cut out, put in, or overwritten."""
    start = draw(st.integers(0, len(content)))
    end = draw(st.integers(start, min(len(content), start + 40)))
    return content[:start] + draw(st.binary(max_size=40)) + content[end:]


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_random_bytes(about, arrays):
    assert read(about, arrays) is Broken


@given(st.data())
def test_mutated_files(data):
    about, arrays = valid()
    if data.draw(st.booleans()):
        about = data.draw(mutated(about))
    else:
        arrays = data.draw(mutated(arrays))
    assert read(about, arrays) in (1, Broken)


def signed(about, arrays):
    """JSON with the right checksums, whatever else it says."""
    return _signed({**about, "arrays": hashlib.sha256(arrays).hexdigest()})


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(st.data())
def test_well_signed_nonsense(data):
    about, arrays = unsigned(), valid()[1]
    place = data.draw(st.sampled_from([about, about["parts"], about["parts"]["opt"], about["settings"]]))
    place[data.draw(st.sampled_from([*place, "new"]))] = data.draw(anything)
    assert read(signed(about, arrays), arrays) in (1, Broken, ValueError)


@given(st.data())
def test_well_signed_arrays(data):
    arrays = data.draw(mutated(valid()[1]) | st.binary(max_size=64))
    assert read(signed(unsigned(), arrays), arrays) in (1, Broken, ValueError)


dtypes = st.sampled_from(["F32", "BF16", "BOOL", "U8", "F8_E4M3", "M64", "F1", "I999", ""])
lengths = st.integers() | st.integers(0, 3) | st.sampled_from([1 << 40, (1 << 63) - 1, 1 << 63, True, 1.0])


@given(st.dictionaries(st.text(max_size=6), anything | st.fixed_dictionaries({
    "dtype": dtypes | anything,
    "shape": st.lists(lengths, max_size=3) | anything,
    "data_offsets": st.tuples(lengths, lengths) | anything,
}), max_size=3), st.integers(0, 100))  # fmt: skip
def test_headers_that_claim_anything(header, size):
    text = json.dumps(header).encode()
    arrays = len(text).to_bytes(8, "little") + text + bytes(size)
    assert read(signed(unsigned(), arrays), arrays) in (Broken, ValueError)


def test_a_header_that_claims_more_than_there_is():
    entry = {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 4 << 40]}
    text = json.dumps({"net/x": entry}).encode()
    for length in (len(text), 1 << 60):
        arrays = length.to_bytes(8, "little") + text
        assert read(signed(unsigned(), arrays), arrays) is Broken


@pytest.mark.parametrize("text", [b"[" * 100_000, b'{"a":' * 900 + b"1" + b"}" * 900, b"9" * 100_000])
def test_deep_and_long_json(text):
    assert read(text, b"") is Broken
    arrays = len(text).to_bytes(8, "little") + text
    assert read(signed(unsigned(), arrays), arrays) is Broken


def test_the_generators_reach_the_checks():
    assert read(*valid()) == 1
    assert read(signed(unsigned(), valid()[1]), valid()[1]) == 1
    assert isinstance(parts()["run"], Part)
