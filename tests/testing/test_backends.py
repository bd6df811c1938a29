"""Every backend that can be used here takes arrays from NumPy and gives them back."""

import subprocess
import sys

import numpy as np
import pytest

from gpubp.testing import backends
from gpubp.testing.backends import BACKENDS, Backend, BackendMissing, load, why_missing

PEERS = {"torch", "jax"}


@pytest.fixture(params=[pytest.param(n, marks=pytest.mark.peers) if n in PEERS else n for n in BACKENDS])
def any_backend(request):
    if (why := why_missing(request.param)) is not None:
        pytest.skip(f"{request.param}: {why}")
    return load(request.param)


@pytest.mark.parametrize(
    "host",
    [
        np.arange(6.0).reshape(2, 3),
        np.float32(1.5),
        np.asfortranarray(np.eye(3)[::-1]),
        np.zeros((0, 2)),
        [True, False],
    ],
    ids=["2d", "0d", "reversed", "empty", "bool"],
)
def test_round_trip(any_backend, host):
    array = any_backend.asarray(host)
    back = any_backend.to_numpy(array)
    assert type(back) is np.ndarray
    assert back.dtype == np.asarray(host).dtype
    np.testing.assert_array_equal(back, host)


def test_arrays_are_new(any_backend):
    host = np.zeros(3)
    array = any_backend.asarray(host)
    host[0] = 1
    assert any_backend.to_numpy(array)[0] == 0


def test_computing_in_float64(any_backend):
    assert any_backend.supports_float64
    xp = any_backend.xp
    result = any_backend.to_numpy(xp.exp(any_backend.asarray(np.ones(2))))
    np.testing.assert_allclose(result, np.e, rtol=1e-15)


def test_writable_says_whether_arrays_can_be_written(any_backend):
    array = any_backend.asarray(np.zeros(3))
    if any_backend.writable:
        array[0] = 1.0
        assert any_backend.to_numpy(array)[0] == 1
    else:
        with pytest.raises((ValueError, TypeError), match="read-only|immutable"):
            array[0] = 1.0


def test_array_api_strict_has_the_latest_standard_and_a_second_device():
    xp = pytest.importorskip("array_api_strict")
    first, second = load("array_api_strict"), load("array_api_strict_device1")
    assert xp.get_array_api_strict_flags()["api_version"] == "2025.12"
    assert first.asarray(1.0).device != second.asarray(1.0).device
    with pytest.raises(ValueError, match="device"):
        xp.add(second.asarray([1.0]), xp.ones(1))


def test_a_backend_is_loaded_once():
    assert load("numpy") is load("numpy")


def test_unknown_backend():
    with pytest.raises(ValueError, match=r"no backend is called 'numpi'; there are numpy, .*cupy"):
        load("numpi")


@pytest.mark.parametrize("problem", [ImportError("no such library"), RuntimeError("no driver")])
def test_a_backend_that_cannot_be_used_says_why(monkeypatch, problem):
    def loader() -> Backend:
        raise problem

    monkeypatch.setitem(backends.BACKENDS, "absent", loader)
    assert why_missing("absent") == str(problem)
    with pytest.raises(BackendMissing, match=str(problem)):
        load("absent")
    assert why_missing("numpy") is None


@pytest.mark.parametrize(
    ("name", "package", "extra"),
    [
        ("cupy", "cupy", "cuda13"),
        ("torch", "torch", "peers"),
        ("jax", "jax", "peers"),
        ("array_api_strict", "array_api_strict", "test"),
    ],
)
def test_a_library_that_is_not_installed_is_named_with_the_extra_that_brings_it(name, package, extra):
    code = f"""if True:
        import importlib.abc, sys

        class Hide(importlib.abc.MetaPathFinder):
            def find_spec(self, name, path, target=None):
                if name.partition(".")[0] == {package!r}:
                    raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

        sys.meta_path.insert(0, Hide())
        from gpubp.testing.backends import why_missing
        print(why_missing({name!r}))
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "not installed" in done.stdout
    assert f"gpubp[{extra}]" in done.stdout
