import importlib
import os
import subprocess
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from gpubp.device import (
    CPU,
    Device,
    cuda_devices,
    device,
    device_of,
    from_dlpack,
    is_array,
    library,
    move,
    namespace_by_name,
    raw_namespace,
    to_numpy,
)

device_module = importlib.import_module("gpubp.device")

LIBRARIES = [
    "numpy",
    "array_api_strict",
    "gpubp.testing.standin",
    "cupy",
    pytest.param("torch", marks=pytest.mark.peers),
    pytest.param("jax", marks=pytest.mark.peers),
]


@pytest.fixture(autouse=True)
def nothing_said_yet(monkeypatch):
    monkeypatch.delenv("GPUBP_DEVICE", raising=False)
    monkeypatch.setattr(device_module, "_announced", set())


@pytest.fixture(params=LIBRARIES)
def lib(request):
    """Name of an installed library; JAX with 64-bit numbers allowed."""
    name = request.param
    if name == "cupy":
        try:
            cuda_devices()
        except RuntimeError as problem:
            pytest.skip(str(problem))
    pytest.importorskip(name)
    if name == "jax":
        with jax_x64(True):
            yield name
    else:
        yield name


def jax_x64(flag):
    import jax

    return jax.enable_x64(flag)


def no_cupy(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)


def fake_cupy(monkeypatch, *gpus, driver=13000, current=0):
    """Put a CuPy with these GPUs into sys.modules; the list it returns records the devices made current."""
    used = [current]
    cupy = ModuleType("cupy")
    cupy.__version__ = "14.2.0"
    cupy.cuda = SimpleNamespace(
        is_available=lambda: bool(gpus),
        Device=lambda index: SimpleNamespace(use=lambda: used.append(index)),
        runtime=SimpleNamespace(
            driverGetVersion=lambda: driver,
            getDeviceCount=lambda: len(gpus),
            getDevice=lambda: used[-1],
            getDeviceProperties=lambda i: {"name": gpus[i].encode()},
        ),
    )
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    return used


# Choosing


def test_auto_without_cupy_is_the_cpu_and_says_why_once(monkeypatch, capsys):
    no_cupy(monkeypatch)
    assert device() == device("auto") == CPU
    assert capsys.readouterr().err == (
        "gpubp: computing on numpy/cpu (no CUDA: CuPy is not installed: pip install 'gpubp[cuda13]', "
        "or 'gpubp[cuda12]' where the driver is for CUDA 12)\n"
    )


def test_auto_with_a_gpu_is_cuda_and_makes_it_current(monkeypatch, capsys):
    used = fake_cupy(monkeypatch, "Big GPU", "Small GPU", current=1)
    assert device() == Device("cupy", "cuda:1")
    assert used == [1, 1]
    assert capsys.readouterr().err == "gpubp: computing on cupy/cuda:1 (Small GPU)\n"


def test_an_index_is_made_current_and_then_is_the_default(monkeypatch):
    used = fake_cupy(monkeypatch, "Big GPU", "Small GPU")
    assert device("cuda:1") == Device("cupy", "cuda:1")
    assert used == [0, 1]
    assert device("cuda") == device() == device(Device("cupy", "cuda:1"))


def test_each_choice_is_said_once(monkeypatch, capsys):
    fake_cupy(monkeypatch, "Big GPU")
    for spec in ("cpu", "cuda", "cpu", "auto"):
        device(spec)
    assert capsys.readouterr().err.splitlines() == [
        "gpubp: computing on numpy/cpu (asked for)",
        "gpubp: computing on cupy/cuda:0 (Big GPU, asked for)",
    ]


def test_quiet(monkeypatch, capsys):
    no_cupy(monkeypatch)
    device(verbose=False)
    assert capsys.readouterr().err == ""
    device()
    assert capsys.readouterr().err != ""


def test_environment_variable_decides_auto_only(monkeypatch, capsys):
    fake_cupy(monkeypatch, "Big GPU")
    monkeypatch.setenv("GPUBP_DEVICE", "cpu")
    assert device() == device("auto") == CPU
    assert device("cuda").library == "cupy"
    assert "numpy/cpu (asked for by GPUBP_DEVICE)" in capsys.readouterr().err


def test_empty_environment_variable_is_none(monkeypatch):
    no_cupy(monkeypatch)
    monkeypatch.setenv("GPUBP_DEVICE", "")
    assert device() == CPU


@pytest.mark.parametrize("spec", ["gpu", "cuda:", "cuda:-1", "cuda:x", "CPU", "cpu:0"])
def test_unknown_spec(spec, monkeypatch):
    with pytest.raises(ValueError, match=rf"device '{spec}' \(asked for\) is not one of 'auto', 'cpu', 'cuda'"):
        device(spec)
    monkeypatch.setenv("GPUBP_DEVICE", spec)
    with pytest.raises(ValueError, match=rf"device '{spec}' \(asked for by GPUBP_DEVICE\) is not one of"):
        device()


def test_cuda_without_cupy(monkeypatch):
    no_cupy(monkeypatch)
    with pytest.raises(
        RuntimeError,
        match=r"'cuda' was asked for, but CuPy is not installed: pip install 'gpubp\[cuda13\]', or 'gpubp\[cuda12\]'",
    ):
        device("cuda")


def test_cuda_with_a_cupy_that_cannot_be_imported(monkeypatch, tmp_path):
    (tmp_path / "cupy.py").write_text("raise ImportError('libcudart.so.13: cannot open shared object file')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    with pytest.raises(RuntimeError, match=r"CuPy is installed but cannot be imported: libcudart\.so\.13"):
        device("cuda")
    (tmp_path / "cupy.py").write_text("import no_such_dependency_of_cupy")
    importlib.invalidate_caches()
    with pytest.raises(RuntimeError, match="CuPy is installed but cannot be imported: .*no_such_dependency_of_cupy"):
        device("cuda")


def test_cuda_without_a_driver(monkeypatch):
    fake_cupy(monkeypatch, driver=0)
    with pytest.raises(RuntimeError, match=r"'cuda:0' was asked for, but CuPy 14\.2\.0 finds no NVIDIA driver"):
        device("cuda:0")
    assert device() == CPU


def test_cuda_without_a_gpu(monkeypatch):
    fake_cupy(monkeypatch)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    with pytest.raises(RuntimeError, match=r"no usable CUDA GPU \(CUDA_VISIBLE_DEVICES='7'\)"):
        device("cuda")


def test_cuda_index_that_is_not_there(monkeypatch):
    fake_cupy(monkeypatch, "Big GPU", "Small GPU")
    with pytest.raises(
        RuntimeError, match=r"'cuda:2' was asked for, but there is no such GPU; .*: cuda:0 \(Big GPU\), cuda:1 \(Small"
    ):
        device("cuda:2")


def test_device_is_a_value():
    assert {Device("numpy", "cpu"): 1}[CPU] == 1
    assert str(CPU) == "numpy/cpu"
    assert CPU.xp is namespace_by_name("numpy")
    with pytest.raises(AttributeError):
        CPU.name = "cuda"
    with CPU.activate():
        pass


def test_import_brings_nothing_heavy():
    code = "import gpubp.device, sys; print({m.partition('.')[0] for m in sys.modules} & {'array_api_compat', 'cupy'})"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ | {"PYTHONPATH": "."}
    )
    assert result.stdout.strip() == "set()"


# Recognising


@pytest.mark.parametrize(
    "x", [np.ones(2), np.float32(1), np.bool_(True), np.ones(2).view(type("Sub", (np.ndarray,), {}))], ids=repr
)
def test_numpy_arrays(x):
    assert is_array(x)
    assert library(x) == "numpy"
    assert raw_namespace(x) is namespace_by_name("numpy")
    assert device_of(x) == CPU


@pytest.mark.parametrize(
    "x", [1, 1.0, True, 1j, None, "a", [1.0], (1,), {}, np.str_("a"), np.ndarray, np, len], ids=repr
)
def test_not_arrays(x):
    for _ in range(2):  # the second answer is a remembered one
        assert not is_array(x)
        with pytest.raises(TypeError, match=f"expected an array, got .*{type(x).__qualname__}"):
            library(x)
        with pytest.raises(TypeError, match="expected an array"):
            raw_namespace(x)


def test_numpy_matrix_is_not_an_array():
    assert not is_array(np.ones((2, 2)).view(np.matrix))


def test_arrays_of_each_library(lib):
    xp = namespace_by_name(lib)
    x = xp.ones((2, 3))
    for _ in range(2):
        assert is_array(x)
        assert library(x) == lib
        assert raw_namespace(x) is xp
    assert device_of(x).library == lib
    assert device_of(x).xp is xp


@pytest.mark.peers
def test_jax_tracer_is_an_array():
    jax = pytest.importorskip("jax")
    seen = []
    jax.jit(lambda x: seen.append((is_array(x), library(x))) or x)(jax.numpy.ones(2))
    assert seen == [(True, "jax")]


def test_a_class_that_serves_several_namespaces_is_asked_each_time():
    class Array:
        def __init__(self, namespace):
            self.namespace = namespace

        def __array_namespace__(self, api_version=None):
            return self.namespace

    one, two = Array(ModuleType("one")), Array(ModuleType("two"))
    assert is_array(one)
    assert [library(one), library(two)] == ["one", "two"]
    assert [raw_namespace(one), raw_namespace(two)] == [one.namespace, two.namespace]


def test_namespace_of_a_library_that_is_not_installed(monkeypatch):
    namespace_by_name.cache_clear()
    no_cupy(monkeypatch)
    monkeypatch.delitem(sys.modules, "array_api_compat.cupy", raising=False)
    monkeypatch.setitem(sys.modules, "jax", None)
    monkeypatch.setitem(sys.modules, "jax.numpy", None)
    with pytest.raises(ImportError, match=r"array library 'cupy' is not installed: pip install 'gpubp\[cuda13\]'"):
        namespace_by_name("cupy")
    with pytest.raises(ImportError, match=r"array library 'jax' is not installed: pip install 'gpubp\[peers\]'"):
        namespace_by_name("jax")
    with pytest.raises(ImportError, match=r"'nolib' is not installed: known libraries are numpy, cupy, torch, jax"):
        namespace_by_name("nolib")


@pytest.fixture
def without_waits():
    """What is done to the namespace of CuPy, done to another."""
    return device_module._without_waits(namespace_by_name("numpy"))


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128", "int8", "uint8"])
def test_sign_that_reads_no_mask(without_waits, dtype):
    x = np.array([0, 1, 2, 100]).astype(dtype)
    if dtype not in ("int8", "uint8"):
        x = np.concatenate([x, -x, 1j * x if "complex" in dtype else [np.nan, np.inf, -np.inf]]).astype(dtype)
    found, expected = without_waits.sign(x), namespace_by_name("numpy").sign(x)
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert without_waits.sign(x[1]) == 1


@pytest.mark.parametrize(
    ("low", "high"),
    [
        (None, None),
        (-1, 1.5),
        (None, 0),
        (2, 1),
        (np.array([-1.0, np.nan, 1.0]), np.array([[0.0], [5.0]])),
        (np.nan, None),
        (np.array(0.5), 3.0),
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_clip_that_reads_no_mask(without_waits, dtype, low, high):
    x = np.array([[-3.0, 0.25, np.nan], [7.0, -np.inf, np.inf]], dtype=dtype)
    found, expected = without_waits.clip(x, low, high), namespace_by_name("numpy").clip(x, low, high)
    assert found.dtype == expected.dtype
    assert found is not x
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("low", "high"), [(-1, 200), (5, None), (None, 2**40), (np.array(3), np.array([4, 5, 6]))])
def test_clip_of_integers_that_reads_no_mask(without_waits, low, high):
    x = np.array([0, 7, 255], dtype=np.uint8)
    found, expected = without_waits.clip(x, low, high), namespace_by_name("numpy").clip(x, low, high)
    assert found.dtype == np.uint8
    assert found is not x
    np.testing.assert_array_equal(found, expected)


# Moving

VALUES = [
    np.arange(6.0).reshape(2, 3),
    np.arange(6, dtype=np.float32).reshape(2, 3).T,
    np.arange(5)[::-1],
    np.array([True, False]),
    np.array(2.5),
    np.zeros((0, 3)),
    np.array([1 + 2j]),
    np.arange(4, dtype=np.uint8),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda v: f"{v.dtype}{v.shape}{v.strides}")
def test_round_trip_keeps_value_and_dtype_and_shares_nothing(lib, value):
    there = move(value, lib)
    assert library(there) == lib
    assert tuple(there.shape) == value.shape
    back = move(there, "numpy")
    assert type(back) is np.ndarray
    assert back.dtype == value.dtype
    np.testing.assert_array_equal(back, value)
    if lib != "numpy":
        assert not np.shares_memory(to_numpy(there), value)
        assert back.flags.writeable
        assert not np.shares_memory(back, to_numpy(there))


def test_read_only_arrays_move(lib):
    value = np.arange(3.0)
    value.flags.writeable = False
    np.testing.assert_array_equal(to_numpy(move(value, lib)), value)


def test_an_array_that_is_there_is_returned_as_it_is(lib):
    x = namespace_by_name(lib).ones(3)
    assert move(x, device_of(x)) is x
    assert move(x, lib) is x


def test_move_to_a_device_string(monkeypatch):
    no_cupy(monkeypatch)
    x = namespace_by_name("array_api_strict").ones(3)
    assert device_of(move(x, "cpu")) == CPU
    with pytest.raises(RuntimeError, match="CuPy is not installed"):
        move(x, "cuda")


def test_devices_of_one_library():
    there = Device("array_api_strict", "device1")
    x = move(np.arange(3.0), there)
    assert device_of(x) == there
    np.testing.assert_array_equal(to_numpy(x), np.arange(3.0))
    assert device_of(move(x, "array_api_strict")) == Device("array_api_strict", "CPU_DEVICE")
    with pytest.raises(ValueError, match="array_api_strict has no device 'device9'; it has CPU_DEVICE, device1"):
        move(x, Device("array_api_strict", "device9"))


@pytest.mark.peers
def test_jax_would_truncate():
    pytest.importorskip("jax")
    with jax_x64(False):
        with pytest.raises(TypeError, match=r"jax would hold this float64 array of shape \(3,\) as float32; allow it"):
            move(np.arange(3.0), "jax")
        with pytest.raises(TypeError, match="int64 array .* as int32; .*jax_enable_x64"):
            move(np.arange(3), "jax")
        assert library(move(np.ones(3, np.float32), "jax")) == "jax"


@pytest.mark.peers
def test_a_tensor_that_requires_grad_moves():
    torch = pytest.importorskip("torch")
    np.testing.assert_array_equal(move(torch.ones(2, requires_grad=True), "numpy"), [1, 1])


# DLPack


def test_from_dlpack_shares_memory(lib):
    value = np.arange(3.0)
    if device_of(namespace_by_name(lib).ones(1)).name.startswith("cuda"):
        with pytest.raises(Exception, match="CPU arrays cannot be directly imported to CuPy"):
            from_dlpack(value, lib)
        return
    shared = from_dlpack(value, lib)
    assert library(shared) == lib
    if lib != "jax":  # JAX copies memory that is not aligned as it likes
        assert np.shares_memory(to_numpy(shared), value)
    assert type(from_dlpack(shared)) is np.ndarray


@pytest.mark.peers
def test_pytorch_refuses_a_negative_stride():
    pytest.importorskip("torch")
    with pytest.raises(ValueError, match="negative stride"):
        from_dlpack(np.arange(3.0)[::-1], "torch")


def test_from_dlpack_errors():
    with pytest.raises(TypeError, match="expected an object with __dlpack__, got builtins.list"):
        from_dlpack([1.0])

    class Elsewhere:
        def __dlpack__(self):
            raise AssertionError

        def __dlpack_device__(self):
            return (8, 0)

    with pytest.raises(ValueError, match="DLPack device type 8 is neither the host's nor CUDA's"):
        from_dlpack(Elsewhere())
    with pytest.raises(
        ValueError, match="the memory is on array_api_strict/CPU_DEVICE, not on array_api_strict/device1"
    ):
        from_dlpack(np.ones(2), Device("array_api_strict", "device1"))
