"""Which array library and which device: choosing one, recognising arrays, and moving them.

The only module, with ``boundary`` and ``kernels``, that may name a library. A library is known by a short name
(``"numpy"``, ``"cupy"``, ``"torch"``, ``"jax"``, ``"array_api_strict"``) and reached through array-api-compat,
which is imported when it is first needed: importing this module costs nothing beyond NumPy.
"""

from __future__ import annotations

import functools
import importlib
import os
import re
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Final, TypeAlias, cast

import numpy as np

from .dtypes import bfloat16, completed

__all__ = [
    "Device",
    "PlainArray",
    "cuda_devices",
    "device",
    "device_of",
    "from_dlpack",
    "is_array",
    "library",
    "move",
    "namespace_by_name",
    "raw_namespace",
    "resolve",
    "to_numpy",
]

PlainArray: TypeAlias = Any
"""An array of any library (there is no common class to name)."""

_MODULES: Final = {
    "numpy": "array_api_compat.numpy",
    "cupy": "array_api_compat.cupy",
    "torch": "array_api_compat.torch",
    "jax": "jax.numpy",
    "array_api_strict": "array_api_strict",
}
_NUMPYS_DTYPES: Final = frozenset({"numpy", "cupy", "gpubp.testing.standin"})
_LIBRARY_OF_MODULE: Final = {module: name for name, module in _MODULES.items()}
_FOREIGN_CLASSES: Final = {("cupy", "ndarray"): "cupy", ("torch", "Tensor"): "torch"}
_CUDA_EXTRAS: Final = "pip install 'gpubp[cuda13]', or 'gpubp[cuda12]' where the driver is for CUDA 12"
_EXTRAS: Final = {
    "cupy": _CUDA_EXTRAS,
    "torch": "pip install 'gpubp[peers]'",
    "jax": "pip install 'gpubp[peers]'",
    "array_api_strict": "pip install 'gpubp[test]'",
}


@dataclass(frozen=True, slots=True)
class Device:
    """An array library together with one of its devices.

    Parameters
    ----------
    library : str
        Short name of the array library, such as ``"numpy"`` or ``"cupy"``.
    name : str
        The library's device, such as ``"cpu"`` or ``"cuda:0"``.
    """

    library: str
    name: str

    def __str__(self) -> str:
        return f"{self.library}/{self.name}"

    @property
    def xp(self) -> ModuleType:
        """The library's Array API namespace (not differentiable)."""
        return namespace_by_name(self.library)

    def activate(self) -> AbstractContextManager[Any]:
        """Return a context in which CuPy creates arrays on this device; for other libraries it does nothing."""
        if self.library != "cupy":
            return nullcontext()
        context: AbstractContextManager[Any] = _cupy().cuda.Device(_cuda_index(self.name))
        return context


CPU: Final = Device("numpy", "cpu")


# ------------------------------------------------------------------------------------------- choosing a device

_announced: set[Device] = set()


def device(spec: str | Device | None = None, *, verbose: bool = True) -> Device:
    """Choose where to compute, make it current, and say once on stderr what was chosen and why.

    Parameters
    ----------
    spec : str or Device, optional
        ``"cpu"`` (NumPy), ``"cuda"`` (CuPy on the current GPU), ``"cuda:1"`` (CuPy on that GPU), or ``"auto"``, the
        default: what the environment variable ``GPUBP_DEVICE`` says, else a CUDA GPU when CuPy finds one, else the CPU.
    verbose : bool
        Whether to say what was chosen.

    Returns
    -------
    Device
        The chosen device. A CUDA device is current from now on in the calling thread (CuPy keeps one for each thread).

    Raises
    ------
    ValueError
        If `spec`, or ``GPUBP_DEVICE``, is none of the above.
    RuntimeError
        If CUDA was asked for and is not there; the message says what is missing.
    """
    chosen, reason = (spec, "given") if isinstance(spec, Device) else _choose(spec)
    if chosen.library == "cupy":
        _cupy().cuda.Device(_cuda_index(chosen.name)).use()
    if verbose and chosen not in _announced:
        _announced.add(chosen)
        print(f"gpubp: computing on {chosen} ({reason})", file=sys.stderr)
    return chosen


def cuda_devices() -> tuple[str, ...]:
    """Return the names of the CUDA GPUs that CuPy can use, in the order of their indices.

    Raises
    ------
    RuntimeError
        If there is none; the message says what is missing: CuPy, the driver or the GPU.
    """
    try:
        cupy = _cupy()
    except ModuleNotFoundError as error:
        if error.name != "cupy":
            raise RuntimeError(f"CuPy is installed but cannot be imported: {error}") from error
        raise RuntimeError(f"CuPy is not installed: {_CUDA_EXTRAS}") from None
    except ImportError as error:
        raise RuntimeError(f"CuPy is installed but cannot be imported: {error}") from error
    runtime = cupy.cuda.runtime
    if not cupy.cuda.is_available():
        if runtime.driverGetVersion() == 0:
            raise RuntimeError(f"CuPy {cupy.__version__} finds no NVIDIA driver on this machine")
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        note = "" if visible is None else f" (CUDA_VISIBLE_DEVICES={visible!r})"
        raise RuntimeError(f"CuPy {cupy.__version__} finds a driver but no usable CUDA GPU{note}")
    return tuple(runtime.getDeviceProperties(i)["name"].decode() for i in range(runtime.getDeviceCount()))


def _choose(spec: str | None) -> tuple[Device, str]:
    """Turn a device string into a device and the reason for it, changing nothing."""
    asked, by = "auto" if spec is None else spec, "asked for"
    _check_name(asked)
    if asked == "auto" and os.environ.get("GPUBP_DEVICE"):
        asked, by = os.environ["GPUBP_DEVICE"], "asked for by GPUBP_DEVICE"
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", asked):
        raise ValueError(f"device {asked!r} ({by}) is not one of 'auto', 'cpu', 'cuda', 'cuda:0', 'cuda:1', ...")
    if asked == "cpu":
        return CPU, by
    try:
        names = cuda_devices()
    except RuntimeError as problem:
        if asked == "auto":
            return CPU, f"no CUDA: {problem}"
        raise RuntimeError(f"device {asked!r} was {by}, but {problem}") from problem
    index = _cuda_index(asked) if ":" in asked else _cupy().cuda.runtime.getDevice()
    if index >= len(names):
        there = ", ".join(f"cuda:{i} ({name})" for i, name in enumerate(names))
        raise RuntimeError(f"device {asked!r} was {by}, but there is no such GPU; there are: {there}")
    return Device("cupy", f"cuda:{index}"), names[index] + ("" if asked == "auto" else f", {by}")


def _check_name(name: Any) -> None:
    if not isinstance(name, str):
        raise TypeError(f"a device is named by a string such as 'cpu' or 'cuda:0', got {name!r}")


def _cupy() -> Any:
    return importlib.import_module("cupy")


def _cuda_index(name: str) -> int:
    return int(name.removeprefix("cuda:"))


# ------------------------------------------------------------------------------------------ recognising arrays
# Answers are remembered by class. A class outside the table of libraries may serve several namespaces
# (the differentiable Array does), so its objects are asked each time.

_is_array: dict[type, bool] = {}
_libraries: dict[type, str] = {}
_namespaces: dict[type, ModuleType] = {}


def is_array(x: object) -> bool:
    """Whether `x` is an array (NumPy's numeric scalars included): never true of Python scalars, lists or classes."""
    cls = type(x)
    try:
        return _is_array[cls]
    except KeyError:
        numpys = issubclass(cls, (np.ndarray, np.generic))
        answer = _class_library(cls) is not None or (not numpys and hasattr(cls, "__array_namespace__"))
        return _is_array.setdefault(cls, answer)


def library(x: PlainArray) -> str:
    """Return the short name of the library `x` belongs to; for one gpubp does not know, its namespace's module name.

    Raises
    ------
    TypeError
        If `x` is not an array.
    """
    try:
        return _libraries[type(x)]
    except KeyError:
        pass
    name = _class_library(type(x))
    if name is None:
        if not is_array(x):
            raise TypeError(f"expected an array, got {type(x).__module__}.{type(x).__qualname__}: {x!r:.80}")
        module: str = x.__array_namespace__().__name__
        name = _LIBRARY_OF_MODULE.get(module)
        if name is None:
            return module
    return _libraries.setdefault(type(x), name)


def raw_namespace(x: PlainArray) -> ModuleType:
    """Return the Array API namespace of `x` as array-api-compat completes it.

    Raises
    ------
    TypeError
        If `x` is not an array.
    """
    try:
        return _namespaces[type(x)]
    except KeyError:
        pass
    name = library(x)
    if name in _MODULES or name in _NUMPYS_DTYPES:
        return _namespaces.setdefault(type(x), namespace_by_name(name))
    namespace: ModuleType = x.__array_namespace__()
    return namespace


@functools.cache
def namespace_by_name(name: str) -> ModuleType:
    """Return a library's Array API namespace.

    Parameters
    ----------
    name : str
        A library's short name, or the module name of any other Array API namespace.

    Raises
    ------
    ImportError
        If the library is not installed; the message names the extra that brings it.
    """
    module = _MODULES.get(name, name)
    try:
        namespace = importlib.import_module(module)
        namespace = _without_waits(namespace) if name == "cupy" else namespace
        return completed(namespace, own_products=name == "cupy") if name in _NUMPYS_DTYPES else namespace
    except ModuleNotFoundError as error:
        if error.name not in (name, module):
            raise
        remedy = _EXTRAS.get(name, f"known libraries are {', '.join(_MODULES)}")
        raise ModuleNotFoundError(f"array library {name!r} is not installed: {remedy}", name=name) from None


def _without_waits(compat: ModuleType) -> ModuleType:
    """Return array-api-compat's namespace of CuPy with `sign` and `clip` anew: its own assign at boolean masks.

    CuPy counts a mask's elements on the host, which waits for the GPU; `sign` stands in the derivative of `abs`.
    """
    xp: Any = ModuleType(compat.__name__, compat.__doc__)
    vars(xp).update(vars(compat))

    def sign(x: PlainArray, /) -> PlainArray:
        if xp.isdtype(x.dtype, "complex floating"):
            return x / xp.where(x == 0, 1.0, xp.abs(x))
        if xp.isdtype(x.dtype, "real floating"):
            return xp.where(x > 0, 1.0, xp.where(x < 0, -1.0, x))  # of what is no number, x
        return compat.sign(x)

    def clip(x: PlainArray, /, min: Any = None, max: Any = None) -> PlainArray:
        out = x
        for bound, is_beyond in (min, xp.less), (max, xp.greater):
            if bound is not None:
                bound = _bound(bound, x.dtype)
                out = xp.where(is_beyond(out, bound) | (bound != bound), bound, out)
        return xp.asarray(x, copy=True) if out is x else out

    def _bound(bound: Any, dtype: Any) -> Any:
        if is_array(bound):
            return xp.astype(bound, dtype, copy=False)
        if not xp.isdtype(dtype, "integral"):
            return float(bound)
        limits = xp.iinfo(dtype)
        return sorted((limits.min, int(bound), limits.max))[1]

    xp.sign, xp.clip = sign, clip
    _with_products(xp)
    return cast(ModuleType, xp)


def _with_products(xp: Any) -> None:
    """Give the namespace of CuPy products that can be captured, and have all floating dtypes and layouts."""
    product = functools.cache(lambda: importlib.import_module(f"{__package__}.kernels.cupy.product"))  # not at once

    def matmul(x1: PlainArray, x2: PlainArray, /) -> PlainArray:
        return product().matmul(x1, x2)

    def tensordot(x1: PlainArray, x2: PlainArray, /, *, axes: Any = 2) -> PlainArray:
        return product().tensordot(x1, x2, axes=axes)

    linalg: Any = ModuleType(xp.linalg.__name__, xp.linalg.__doc__)
    vars(linalg).update(vars(xp.linalg))
    xp.linalg = linalg
    for part in xp, linalg:
        part.matmul, part.tensordot = matmul, tensordot


def _class_library(cls: type) -> str | None:
    """Recognise the classes that do not say for themselves: NumPy's subclasses and scalars, CuPy's, PyTorch's."""
    if issubclass(cls, (np.ndarray, np.number, np.bool_)) or _is_bfloat16(cls):
        return None if issubclass(cls, np.matrix) else "numpy"
    for base in cls.__mro__:
        if name := _FOREIGN_CLASSES.get((base.__module__.partition(".")[0], base.__name__)):
            return name
    return None


def _is_bfloat16(cls: type) -> bool:
    return issubclass(cls, np.generic) and cls.__module__ == "ml_dtypes"


# ----------------------------------------------------------------------------------------------- moving arrays


def device_of(x: PlainArray) -> Device:
    """Return the library and device on which array `x` lives."""
    name = library(x)
    if name == "numpy":
        return CPU
    return Device(name, f"cuda:{x.device.id}" if name == "cupy" else _label(x.device))


def move(x: PlainArray, where: Device | str) -> PlainArray:
    """Return array `x` on another device or in another library.

    Parameters
    ----------
    x : array
        An array of any library.
    where : Device or str
        A `Device`, a device string as `device` takes it, or a library's name (its default device).

    Returns
    -------
    array
        `x` itself where it already is there; else a copy of the same values and dtype that shares no memory with it.

    Raises
    ------
    TypeError
        If the library cannot hold the dtype, as JAX cannot hold 64-bit numbers unless told to.
    """
    source, target = device_of(x), resolve(where)
    if source == target:
        return x
    with target.activate():
        if source.name == target.name and source.name.startswith("cuda"):
            try:
                moved = target.xp.asarray(_share(x, target), copy=True)
            except (BufferError, RuntimeError, TypeError, ValueError):  # a dtype or layout that DLPack lacks
                moved = _from_host(to_numpy(x), target)
        else:
            moved = _from_host(to_numpy(x), target)
    _check_dtype(x, moved, target)
    return moved


def to_numpy(x: PlainArray) -> np.ndarray:
    """Return array `x` as a NumPy array, waiting for its device where there is one.

    The result shares memory with `x` where the library allows that, and may be read-only.
    """
    name = library(x)
    if name == "numpy":
        return np.asarray(x)
    if name == "torch":
        if str(x.dtype) == "torch.bfloat16":  # whose bits NumPy knows by another name
            return np.asarray(x.detach().view(raw_namespace(x).int16).numpy(force=True)).view(bfloat16())
        return np.asarray(x.numpy(force=True))
    if hasattr(x, "get"):  # CuPy's way, and that of libraries made like it
        return np.asarray(x.get())
    if name == "jax":
        return np.asarray(x)
    return np.from_dlpack(x)


def from_dlpack(x: Any, where: Device | str | None = None) -> PlainArray:
    """Import any object that speaks DLPack as an array, sharing its memory.

    Parameters
    ----------
    x : object
        Anything with ``__dlpack__`` and ``__dlpack_device__``: an array of any library, or of none.
    where : Device or str, optional
        The library (or device) to import it into. By default NumPy for host memory and CuPy for CUDA memory.

    Raises
    ------
    ValueError
        If the memory is not where `where` says (DLPack shares, it does not move), or is of no known kind.
    """
    if not hasattr(x, "__dlpack__"):
        raise TypeError(f"expected an object with __dlpack__, got {type(x).__module__}.{type(x).__qualname__}")
    if where is None:
        kind, index = (int(i) for i in x.__dlpack_device__())
        if kind not in (1, 2, 13):  # kDLCPU, kDLCUDA, kDLCUDAManaged
            raise ValueError(f"memory of DLPack device type {kind} is neither the host's nor CUDA's; say `where`")
        target = CPU if kind == 1 else Device("cupy", f"cuda:{index}")
    else:
        target = resolve(where)
    with target.activate():
        shared = _share(x, target)
    if device_of(shared) != target:
        raise ValueError(f"the memory is on {device_of(shared)}, not on {target}: use move, which copies")
    return shared


def resolve(where: Device | str) -> Device:
    """Return the device that `where` names, as `move` takes it: a device string or a library's name."""
    if isinstance(where, Device):
        return where
    if where == "numpy":
        return CPU
    if where == "cupy":
        return _choose("cuda")[0]
    _check_name(where)
    if re.match(r"auto|cpu|cuda", where):
        return _choose(where)[0]
    try:
        return device_of(namespace_by_name(where).zeros(1))
    except ModuleNotFoundError as error:
        if where in _MODULES:
            raise
        devices = "'auto', 'cpu', 'cuda', 'cuda:1', ..."
        raise ValueError(f"{where!r} is neither a device ({devices}) nor a library ({', '.join(_MODULES)})") from error


def _share(x: Any, target: Device) -> PlainArray:
    """Import `x` into `target`'s library over DLPack. PyTorch aborts the whole process on a negative stride."""
    if target.library == "torch" and any(stride < 0 for stride in getattr(x, "strides", None) or ()):
        raise ValueError("PyTorch cannot share an array with a negative stride: copy it first, or use move")
    return target.xp.from_dlpack(x)


def _from_host(host: np.ndarray, target: Device) -> PlainArray:
    """Copy a host array to `target`."""
    own = np.array(host, order="C")
    if target.library == "numpy":
        return own
    if target.library == "cupy":  # the device is the active one
        return target.xp.asarray(own)
    return from_host(target.xp, own, device=_native(target))


def from_host(xp: Any, own: np.ndarray, **options: Any) -> PlainArray:
    """A NumPy array by ``asarray`` of another namespace, which may share its memory; bfloat16 for PyTorch too."""
    if str(own.dtype) == "bfloat16" and hasattr(xp, "bfloat16") and hasattr(xp, "Tensor"):
        return xp.asarray(own.view(np.int16), **options).view(xp.bfloat16)
    return xp.asarray(own, **options)


def _native(target: Device) -> Any:
    """Return the library's own object for a device of a library other than NumPy and CuPy."""
    if target.library == "torch":
        return target.name
    devices = {_label(d): d for d in target.xp.__array_namespace_info__().devices()}
    if target.name not in devices:
        raise ValueError(f"{target.library} has no device {target.name!r}; it has {', '.join(sorted(devices))}")
    return devices[target.name]


def _label(native: Any) -> str:
    """Return a device's own text, without the class around it: ``Device('device1')`` is ``device1``."""
    text = str(native)
    quoted = re.search(r"'([^']*)'", text)
    return quoted[1] if quoted else text


def _check_dtype(x: PlainArray, moved: PlainArray, target: Device) -> None:
    before, after = (str(a.dtype).rpartition(".")[2] for a in (x, moved))
    if before != after:
        advice = "; allow it with jax.config.update('jax_enable_x64', True), or cast first"
        raise TypeError(
            f"{target.library} would hold this {before} array of shape {tuple(x.shape)} as {after}"
            + (advice if target.library == "jax" else ": cast first")
        )
