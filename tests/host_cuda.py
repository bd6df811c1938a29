"""CuPy's kernels on the host: the same source, built as C++ and run on the arrays of the CuPy stand-in.

`RawKernel`, `ElementwiseKernel` and `ReductionKernel` are called as in CuPy. What `host_cuda.h` does not imitate: the
memory model (threads take turns), the rounding of fused multiply-add, and speed. What it is stricter in: arrays stand
between guard zones, the gaps of a strided view are poisoned, so is shared memory, threads run in a shuffled order,
blocks begin anywhere and run forwards or backwards, and numbers must have the very type of the parameter.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

HEADER = Path(__file__).with_name("host_cuda.h")
GUARD = 256  # bytes of 0xff (NaN) before and after every array

_C = {
    "float16": "float16",
    "bfloat16": "bfloat16",
    "float32": "float",
    "float64": "double",
    "bool": "bool",
    "int8": "signed char",
    "uint8": "unsigned char",
    "int16": "short",
    "uint16": "unsigned short",
    "int32": "int",
    "uint32": "unsigned int",
    "int64": "long long",
    "uint64": "unsigned long long",
}

#: Called with each launch as a function without arguments that runs it, and the arrays it has: for recordings.
watchers: list[Any] = []


@functools.cache
def compiler() -> str:
    """The host's C++ compiler."""
    for name in (os.environ.get("CXX"), "g++", "clang++", "c++"):
        if name and (found := shutil.which(name)):
            return found
    raise RuntimeError("no C++ compiler (g++, clang++ or c++) was found to run CUDA kernels on the host")


@functools.cache
def build(code: str) -> ctypes.CDLL:
    """Compile C++ to a library, which is kept for the next process."""
    command = [compiler(), "-std=c++17", "-O1", "-fPIC", "-shared", "-w", "-fno-strict-aliasing"]
    source = f'#line 1 "host_cuda.h"\n{HEADER.read_text()}\n#line 1 "kernel"\n{code}'
    name = hashlib.sha256(" ".join(command).encode() + source.encode()).hexdigest()[:32]
    folder = Path(tempfile.gettempdir()) / f"gpubp-host-cuda-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    library = folder / f"{name}.so"
    if not library.exists():
        with tempfile.TemporaryDirectory(dir=folder) as work:
            (Path(work) / "kernel.cpp").write_text(source)
            done = subprocess.run([*command, "kernel.cpp", "-o", "kernel.so"], cwd=work, capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(f"{done.stderr[:4000]}\nin\n{code}")
            (Path(work) / "kernel.so").rename(library)  # at once, since other processes build, too
    return ctypes.CDLL(str(library))


class _Guarded:
    """Copies of arrays between guard zones, with poison between the elements of strided views."""

    def __init__(self) -> None:
        self.copies: dict[Any, tuple[Any, Any, Any]] = {}

    def address(self, array: Any) -> int:
        data = array._data
        key = data.ctypes.data, data.nbytes, data.strides, data.dtype
        if key not in self.copies:
            low, high = np.lib.array_utils.byte_bounds(data) if data.size else (data.ctypes.data,) * 2
            room = np.full(2 * GUARD + high - low + 64, 0xFF, "u1")
            start = -room.ctypes.data % 64 + low % 64 + GUARD  # aligned as the array itself is
            view = np.ndarray(data.shape, data.dtype, room.data, start + data.ctypes.data - low, data.strides)
            view[...] = data
            self.copies[key] = data, room, view
        return int(self.copies[key][2].ctypes.data)

    def back(self) -> None:
        """Copy the results to the arrays, if nothing was written around them."""
        for data, room, view in self.copies.values():
            after = view.copy()
            view.view(_BITS[data.dtype.itemsize])[...] = -1
            if room.tobytes().strip(b"\xff"):
                raise AssertionError(f"a kernel wrote around the {data.dtype} array of shape {data.shape} it was given")
            if after.tobytes() != data.tobytes():
                data[...] = after


_BITS = {1: "i1", 2: "i2", 4: "i4", 8: "i8"}


def _standin(array: Any) -> bool:
    return hasattr(array, "_data") and hasattr(array, "_device")


def _launch(run: Any, arrays: list[Any]) -> None:
    from cupy import _require_current  # the stand-in

    _require_current(arrays)
    run()
    for watcher in watchers:
        watcher(run, arrays)


class RawKernel:
    """A kernel of CUDA C++ on the host; see `cupy.RawKernel`."""

    def __init__(self, code: str, name: str, options: tuple[str, ...] = (), backend: str = "nvrtc", **_: Any) -> None:
        self.code, self.name = code, name
        code = re.sub(r"#\s*include\s*<(cupy/|cuda).*?>", "", code)
        found = re.search(rf"__global__\s+void\s+(?:__launch_bounds__\([^)]*\)\s*)?{name}\s*\(([^)]*)\)", _bare(code))
        if found is None:
            raise ValueError(f"no kernel {name} in the source")
        self._types = [re.sub(r"\s*\w+$|\b__restrict__\b|\bconst\b", "", p).strip() for p in found[1].split(",")]
        loads = ", ".join(f"*({t.replace('*', ' *')}*)a[{k}]" for k, t in enumerate(self._types))
        sizes = ", ".join(f"(int)sizeof({t})" for t in self._types)
        self._source = f"""{code}
static void** a;
static void call() {{ {name}({loads}); }}
extern "C" const int sizes_[] = {{ {sizes} }};
extern "C" const char* launch_(const unsigned* grid, const unsigned* block, size_t shared, void** args) {{
    a = args;
    return host::launch(grid, block, shared, call);
}}"""

    def __call__(
        self, grid: tuple[int, ...], block: tuple[int, ...], args: tuple[Any, ...], *, shared_mem: int = 0, **_: Any
    ) -> None:
        args = tuple(x.copy() if isinstance(x, np.ndarray) else x for x in args)  # by value, as they are now
        library = build(self._source)
        if len(args) != len(self._types):
            raise TypeError(f"{self.name} has {len(self._types)} parameters, got {len(args)} arguments")
        sizes = (ctypes.c_int * len(args)).in_dll(library, "sizes_")
        grid, block = (*grid, 1, 1)[:3], (*block, 1, 1)[:3]
        if not (0 < np.prod(block) <= 1024 and all(0 < n < 65536 for n in grid[1:]) and 0 < grid[0] < 2**31):
            raise ValueError(f"{self.name}: no GPU takes the grid {grid} of blocks {block}")
        args = tuple(x.copy() if isinstance(x, np.ndarray) else x for x in args)  # structs go by value, now

        def run() -> None:
            guarded = _Guarded()
            cells = [_cell(self.name, x, t, s, guarded) for x, t, s in zip(args, self._types, sizes, strict=True)]
            pointers = (ctypes.c_void_p * len(cells))(*(ctypes.addressof(c) for c in cells))
            dims = ((ctypes.c_uint * 3)(*grid), (ctypes.c_uint * 3)(*block))
            library.launch_.restype = ctypes.c_char_p
            problem = library.launch_(*dims, ctypes.c_size_t(shared_mem), pointers)
            if problem:
                raise AssertionError(f"kernel {self.name}: {problem.decode()}")
            guarded.back()

        _launch(run, [x for x in args if _standin(x)])


def _bare(code: str) -> str:
    return re.sub(r"//[^\n]*|/\*.*?\*/", "", code, flags=re.S)


def _cell(name: str, x: Any, declared: str, size: int, guarded: _Guarded) -> Any:
    """What an argument's parameter holds."""
    pointer = declared.endswith("*")
    if x is None:
        raise TypeError(f"{name}: CuPy takes None for an address of its own choice; a null pointer is 0")
    if pointer and type(x) is int and x == 0:
        return ctypes.c_void_p(None)
    if _standin(x):
        if not pointer:
            raise TypeError(f"{name}: an array for a parameter of type {declared}")
        own = _C[str(x.dtype)]
        wanted = declared[:-1].strip()
        if wanted in _C.values() and wanted != own:  # T, I ... are known to the compiler alone
            raise TypeError(f"{name}: an array of {own} for a pointer to {wanted}")
        return ctypes.c_void_p(guarded.address(x))
    if pointer:
        raise TypeError(f"{name}: {type(x).__name__} for a parameter of type {declared}")
    if isinstance(x, np.ndarray) and x.size == 1:
        if x.nbytes != size:
            raise TypeError(f"{name}: a struct of {x.nbytes} bytes for {declared}, which has {size}")
        return ctypes.create_string_buffer(x.tobytes(), size)
    given = {bool: "bool", int: "long long", float: "double"}.get(type(x)) or _C[str(x.dtype)]
    if given != declared:
        raise TypeError(f"{name}: a number of type {given} for a parameter of type {declared}")
    return {"bool": ctypes.c_bool, "long long": ctypes.c_longlong, "double": ctypes.c_double}.get(
        given, lambda v: ctypes.create_string_buffer(v.tobytes(), size)
    )(x)


# -- elementwise kernels and reductions


class _Parameter:
    def __init__(self, text: str) -> None:
        *words, self.type, self.name = text.split()
        self.raw = "raw" in words
        unknown = set(words) - {"raw"}
        if unknown:
            raise ValueError(f"the host does not imitate the parameter {text!r}")


def _parameters(text: str) -> list[_Parameter]:
    return [_Parameter(p) for p in text.split(",") if p.strip()]


def _resolve(name: str, parameters: list[_Parameter], values: list[Any]) -> dict[str, str]:
    """The C types of type letters."""
    types: dict[str, str] = {}
    for arrays in (True, False):
        for p, x in zip(parameters, values, strict=True):
            if x is None or _standin(x) != arrays or (p.type in _C and not arrays):
                continue
            dtype = str(x.dtype) if hasattr(x, "dtype") else {bool: "bool", int: "int64", float: "float64"}[type(x)]
            if p.type in _C:
                if p.type != dtype:
                    raise TypeError(f"{name}: type is mismatched: {p.name} is {dtype}, expected {p.type}")
            elif arrays and types.setdefault(p.type, dtype) != dtype:
                raise TypeError(f"{name}: type is mismatched: {p.name} is {dtype}, {p.type} is {types[p.type]}")
            else:
                types.setdefault(p.type, dtype)
    return types


def _typedefs(types: dict[str, str]) -> str:
    return "".join(f"typedef {_C[dtype]} {letter};\n" for letter, dtype in types.items())


class _Pointers:
    """The arguments of a generated loop."""

    def __init__(self) -> None:
        self.guarded = _Guarded()
        self.keep: list[Any] = []
        self.cells: list[int] = []
        self.sizes: list[int] = []

    def add(self, x: Any) -> Any:
        from cupy import _new

        array = _new(np.ascontiguousarray(x), 0)
        self.keep.append(array)
        self.cells.append(self.guarded.address(array))
        self.sizes.append(array.size)
        return array._data

    def run(self, code: str, *sizes: int) -> None:
        p = (ctypes.c_void_p * len(self.cells))(*self.cells)
        n = (ctypes.c_longlong * len(self.sizes))(*self.sizes)
        build(code).run_(p, n, *map(ctypes.c_longlong, sizes))
        self.guarded.back()


def _bind(k: int, p: _Parameter, output: bool, index: str) -> str:
    kind = _C.get(p.type, p.type)
    const = "" if output else "const "
    if p.raw:
        return f"Raw_<{kind}> {p.name} = {{({kind}*)p_[{k}], n_[{k}]}};"
    return f"{const}{kind} &{p.name} = (({kind}*)p_[{k}])[{index}];"


class ElementwiseKernel:
    """See `cupy.ElementwiseKernel`."""

    def __init__(
        self,
        in_params: str,
        out_params: str,
        operation: str,
        name: str = "kernel",
        reduce_dims: bool = True,
        preamble: str = "",
        no_return: bool = False,
        return_tuple: bool = False,
        loop_prep: str = "",
        after_loop: str = "",
        options: tuple[str, ...] = (),
    ) -> None:
        self.in_params, self.out_params = _parameters(in_params), _parameters(out_params)
        self.operation, self.name, self.preamble = operation, name, preamble
        self.no_return, self.return_tuple, self.loop = no_return, return_tuple, (loop_prep, after_loop)

    def __call__(self, *args: Any, size: int | None = None, **_: Any) -> Any:
        from cupy import _new, _thread

        parameters = [*self.in_params, *self.out_params]
        nin = len(self.in_params)
        if len(args) not in (nin, len(parameters)):
            raise TypeError(f"Wrong number of arguments for {self.name!r}: {len(args)}, expected {nin}")
        values = [*args, *[None] * (len(parameters) - len(args))]
        types = _resolve(self.name, parameters, values)
        shapes = [x.shape for p, x in zip(parameters, values, strict=True) if _standin(x) and not p.raw]
        if size is not None:
            if shapes:
                raise ValueError("Specified 'size' can be used only if all of the ndarray are 'raw'.")
            shape: tuple[int, ...] = (size,)
        elif not shapes:
            raise ValueError("Loop size is undecided.")
        else:
            shape = np.broadcast_shapes(*shapes)
        for k, p in enumerate(parameters[nin:], nin):
            if values[k] is None:
                if p.raw:
                    raise ValueError("Output array size is Undecided")
                values[k] = _new(np.empty(shape, _dtype(types.get(p.type, p.type))), _thread.device)
            elif not p.raw and values[k].shape != shape:
                raise ValueError(f"Out shape is mismatched: {values[k].shape}, expected {shape}")
        outputs = values[nin:]
        n = int(np.prod(shape, dtype=int))
        code = f"""{_typedefs(types)}{self.preamble}
extern "C" void run_(void** p_, const long long* n_, long long size_) {{
    Indexer_ _ind = {{size_}};
    {self._bindings(raw=True)}
    {self.loop[0]};
    for (ptrdiff_t i = 0; i < size_; ++i) {{
        {self._bindings(raw=False)}
        {self.operation};
    }}
    {self.loop[1]};
}}"""

        def run() -> None:
            pointers, results = _Pointers(), []
            for k, (p, x) in enumerate(zip(parameters, values, strict=True)):
                data = x._data if _standin(x) else np.asarray(x, _dtype(types.get(p.type, p.type)))
                whole = p.raw or k >= nin or data.shape == shape  # (an input may be an output, too)
                copy = pointers.add(data if whole else np.broadcast_to(data, shape))
                if k >= nin or (p.raw and _standin(x)):
                    results.append((data, copy))
            pointers.run(code, n)
            for data, copy in results:
                data[...] = copy.reshape(data.shape)

        if n:
            _launch(run, [x for x in values if _standin(x)])
        if self.no_return:
            return None
        return outputs[0] if len(outputs) == 1 and not self.return_tuple else tuple(outputs)

    def _bindings(self, raw: bool) -> str:
        nin = len(self.in_params)
        return "\n".join(
            _bind(k, p, k >= nin, "i") for k, p in enumerate([*self.in_params, *self.out_params]) if p.raw == raw
        )


class ReductionKernel:
    """See `cupy.ReductionKernel`. Elements are reduced in eight strands, and these by halves."""

    def __init__(
        self,
        in_params: str,
        out_params: str,
        map_expr: str,
        reduce_expr: str,
        post_map_expr: str,
        identity: str,
        name: str = "reduction",
        reduce_type: str | None = None,
        reduce_dims: bool = True,
        preamble: str = "",
        options: tuple[str, ...] = (),
    ) -> None:
        self.in_params, self.out_params = _parameters(in_params), _parameters(out_params)
        self.exprs = map_expr, reduce_expr, post_map_expr
        self.identity, self.name, self.preamble = identity, name, preamble
        self.reduce_type = reduce_type

    def __call__(self, *args: Any, out: Any = None, axis: Any = None, keepdims: bool = False, **_: Any) -> Any:
        from cupy import _new, _thread

        parameters, nin = [*self.in_params, *self.out_params], len(self.in_params)
        values = [*args, *[None] * (len(parameters) - len(args))]
        if out is not None:
            values[nin] = out
        types = _resolve(self.name, parameters, values)
        shape = np.broadcast_shapes(
            *(x.shape for p, x in zip(parameters[:nin], values[:nin], strict=True) if _standin(x) and not p.raw)
        )
        axes = range(len(shape)) if axis is None else (axis,) if isinstance(axis, int) else axis
        reduced = sorted(a % len(shape) for a in axes)
        kept = [a for a in range(len(shape)) if a not in reduced]
        rows, columns = (int(np.prod([shape[a] for a in s], dtype=int)) for s in (kept, reduced))
        out_shape = (
            tuple(1 if a in reduced else n for a, n in enumerate(shape)) if keepdims else tuple(shape[a] for a in kept)
        )
        if not columns and self.identity in (None, ""):
            raise ValueError(f"zero-size array to reduction operation {self.name} which has no identity")
        for k, p in enumerate(self.out_params, nin):
            if values[k] is None:
                values[k] = _new(np.empty(out_shape, _dtype(types.get(p.type, p.type))), _thread.device)
            elif values[k].shape != out_shape:
                raise ValueError(f"Output shape is mismatched: {values[k].shape}, expected {out_shape}")
        map_, reduce, post = self.exprs
        kind = self.reduce_type or self.out_params[0].type
        start = "" if self.identity in (None, "") else f"type_reduce_({self.identity})"
        first = f"= {start}" if start else ""
        code = f"""{_typedefs(types)}{self.preamble}
typedef {_C.get(kind, kind)} type_reduce_;
static type_reduce_ reduce_(type_reduce_ a, type_reduce_ b) {{ return ({reduce}); }}
extern "C" void run_(void** p_, const long long* n_, long long rows_, long long columns_) {{
    Indexer_ _in_ind = {{rows_ * columns_}}, _out_ind = {{rows_}};
    {self._bindings(0, True)}
    for (ptrdiff_t row_ = 0; row_ < rows_; ++row_) {{
        type_reduce_ strands_[8];
        for (int k_ = 0; k_ < 8; ++k_) {{
            type_reduce_ s_ {first};
            bool any_ = {"true" if start else "false"};
            for (ptrdiff_t j_ = k_; j_ < columns_; j_ += 8) {{
                {self._bindings(0, False)}
                type_reduce_ v_ = static_cast<type_reduce_>({map_});
                s_ = any_ ? reduce_(s_, v_) : v_;
                any_ = true;
            }}
            strands_[k_] = s_;
        }}
        for (int half_ = 4; half_; half_ /= 2)
            for (int k_ = 0; k_ < half_; ++k_)
                if (k_ + half_ < columns_) strands_[k_] = reduce_(strands_[k_], strands_[k_ + half_]);
        type_reduce_ a = strands_[0];
        {self._bindings(1, False)}
        {post};
    }}
}}"""

        def run() -> None:
            pointers, results = _Pointers(), []
            for k, (p, x) in enumerate(zip(parameters, values, strict=True)):
                data = x._data if _standin(x) else np.asarray(x, _dtype(types.get(p.type, p.type)))
                if k < nin and not p.raw:
                    data = np.broadcast_to(data, shape).transpose(*kept, *reduced)
                copy = pointers.add(data)
                if k >= nin:
                    results.append((data, copy))
            pointers.run(code, rows, columns)
            for data, copy in results:
                data[...] = copy.reshape(data.shape)

        if rows:
            _launch(run, [x for x in values if _standin(x)])
        outputs = values[nin:]
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def _bindings(self, output: int, raw: bool) -> str:
        nin = len(self.in_params)
        some = enumerate(self.out_params, nin) if output else enumerate(self.in_params)
        return "\n".join(
            _bind(k, p, bool(output), "row_" if output else "row_ * columns_ + j_") for k, p in some if p.raw == raw
        )


def _dtype(name: str) -> Any:
    if name == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name)


def install(cupy: Any) -> None:
    """Give the stand-in these kernels."""
    cupy.RawKernel, cupy.ElementwiseKernel, cupy.ReductionKernel = RawKernel, ElementwiseKernel, ReductionKernel
