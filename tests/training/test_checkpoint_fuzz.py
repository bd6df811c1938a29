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
from hypothesis import given
from hypothesis import strategies as st

from gpubp.training import Broken, Checkpoints
from gpubp.training.checkpoint import _to_json

from .test_checkpoint import SETTINGS, Part, everything, parts

BOUND = 4_000_000  #: bytes; far more than these files have, far less than their headers may claim


@cache
def valid():
    """The two files of a checkpoint."""
    with TemporaryDirectory() as folder:
        Checkpoints(folder).save(1, parts(1), settings=SETTINGS, row={})
        return [(Path(folder) / f"step-00000001.{suffix}").read_bytes() for suffix in ("json", "safetensors")]


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
    if isinstance(about, dict):
        if isinstance(about.get("arrays"), dict):
            about["arrays"] = {"bytes": len(arrays), "sha256": hashlib.sha256(arrays).hexdigest()} | about["arrays"]
        about["sha256"] = hashlib.sha256(_to_json(about).encode()).hexdigest()
    return json.dumps(about).encode()


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(st.data())
def test_well_signed_nonsense(data):
    about, arrays = json.loads(valid()[0]), valid()[1]
    del about["sha256"], about["arrays"]
    about["arrays"] = {}
    place = data.draw(st.sampled_from([about, about["parts"], about["parts"]["opt"], about["settings"]]))
    place[data.draw(st.sampled_from([*place, "new"]))] = data.draw(anything)
    assert read(signed(about, arrays), arrays) in (1, Broken, ValueError)


@given(st.data())
def test_well_signed_arrays(data):
    arrays = data.draw(mutated(valid()[1]) | st.binary(max_size=64))
    about = json.loads(valid()[0])
    del about["sha256"]
    about["arrays"] = {}
    assert read(signed(about, arrays), arrays) in (1, Broken, ValueError)


def test_a_header_that_claims_more_than_there_is():
    about = json.loads(valid()[0])
    del about["sha256"]
    about["arrays"] = {}
    shape = [1 << 40]
    header = json.dumps({"net/x": {"dtype": "F32", "shape": shape, "data_offsets": [0, 4 << 40]}}).encode()
    arrays = len(header).to_bytes(8, "little") + header
    assert read(signed(about, arrays), arrays) is Broken
    arrays = (1 << 60).to_bytes(8, "little") + header
    assert read(signed(about, arrays), arrays) is Broken


def test_deep_json():
    assert read(b"[" * 100_000, b"") is Broken


def test_the_generators_reach_the_checks():
    assert read(*valid()) == 1
    about = json.loads(valid()[0])
    del about["sha256"]
    about["arrays"] = {}
    assert read(signed(about, valid()[1]), valid()[1]) == 1
    assert isinstance(parts()["run"], Part)
