"""How kernels for CUDA are written: one source for every floating dtype, compiled when first launched for one.

In every source T is a floating dtype, I an integer one, and W the type to compute in: double for double, else float.
`elementwise` and `reduction` make CuPy's kernels of those names, whose parameters may be of T, I or a dtype's name;
`Kernel` is CUDA as it stands. All are noted in `KERNELS`, so that each can be compiled where there is no GPU, and run
on the host: the tests build the same source as C++.
"""

from __future__ import annotations

from typing import Any

import cupy

#: Every kernel by name.
KERNELS: dict[str, Any] = {}

FLOATS = ("float16", "bfloat16", "float32", "float64")
INTEGERS = ("int32", "int64")

_NAMES = {"float32": "float", "float64": "double", "int32": "int", "int64": "long long", "bool": "bool"}

_WIDE = r"""
template <typename A> struct wide_ { typedef float type; };
template <> struct wide_<double> { typedef double type; };
typedef wide_<T>::type W;
"""

# Sums and maxima of a warp or of a block of whole warps, handed to every thread.
_COLLECTIVE = r"""
struct add_ { static __device__ W of(W a, W b) { return a + b; } };
struct maximum_ { static __device__ W of(W a, W b) { return a > b || a != a ? a : b; } };  // NaN if one is
template <typename Op> __device__ W warp_(W v)
{
    for (int k = 16; k; k >>= 1) v = Op::of(v, __shfl_xor_sync(0xffffffffu, v, k));
    return v;
}
__shared__ W parts_[32];
template <typename Op> __device__ W block_(W v, W nothing)
{
    int lane = threadIdx.x % 32;
    v = warp_<Op>(v);
    __syncthreads();  // an earlier call may still be reading
    if (lane == 0) parts_[threadIdx.x / 32] = v;
    __syncthreads();
    return warp_<Op>(lane < blockDim.x / 32 ? parts_[lane] : nothing);
}
__device__ int modulo(long long k, long long n)  // of numbers from 0, fast if both are small
{
    return (k | n) >> 31 ? (int)(k % n) : (int)((unsigned)k % (unsigned)n);
}
__device__ W infinity() { return W(__int_as_float(0x7f800000)); }
__device__ W warp_sum(W v) { return warp_<add_>(v); }
__device__ W warp_max(W v) { return warp_<maximum_>(v); }
__device__ W block_sum(W v) { return block_<add_>(v, W(0)); }
__device__ W block_max(W v) { return block_<maximum_>(v, -infinity()); }
"""

# Random numbers, the same as NumPy's, and how `gpubp.boundary.bernoulli` takes them.
_PHILOX = r"""
struct key_ { unsigned long long a, b; long long step, stream; };  // all that a draw depends on
struct words_ { unsigned long long of[4]; };
__device__ words_ philox(key_ key, unsigned long long block)  // Philox 4x64-10 of the counter (block, step, stream, 0)
{
    const unsigned long long A = 0xD2E7470EE14C6C93ull, B = 0xCA5A826395121157ull;
    unsigned long long c0 = block, c1 = key.step, c2 = key.stream, c3 = 0, a = key.a, b = key.b;
#pragma unroll
    for (int round = 0; round < 10; ++round) {
        unsigned long long high = __umul64hi(A, c0), low = A * c0, high2 = __umul64hi(B, c2), low2 = B * c2;
        c0 = high2 ^ c1 ^ a, c1 = low2, c2 = high ^ c3 ^ b, c3 = low;
        a += 0x9E3779B97F4A7C15ull, b += 0xBB67AE8584CAA73Bull;
    }
    return {{c0, c1, c2, c3}};
}
// Of a draw's elements 8 m ... 8 m + 7: bit k says whether the k-th is kept, that is, its number is at most `largest`.
__device__ unsigned kept8(key_ key, long long m, long long largest)
{
    words_ words = philox(key, m + 1);  // NumPy counts before it draws
    unsigned bits = 0;
#pragma unroll
    for (int k = 0; k < 8; ++k)
        bits |= unsigned((long long)(words.of[k / 2] >> (k % 2 ? 32 : 0) & 0xffffffffull) <= largest) << k;
    return bits;
}
"""

_HEADERS = "#include <cupy/carray.cuh>\n#include <cupy/float16.cuh>\n#include <cupy/bfloat16.cuh>\n"


def elementwise(name: str, inputs: str, outputs: str, operation: str, preamble: str = "", **options: Any) -> Any:
    """Make a `cupy.ElementwiseKernel` and note it; T must be among the types of its parameters."""
    kernel = cupy.ElementwiseKernel(
        inputs, outputs, operation, f"gpubp_{name}", preamble=_WIDE + preamble, no_return=not outputs, **options
    )
    KERNELS[name] = kernel
    return kernel


def reduction(
    name: str, inputs: str, outputs: str, map_: str, reduce: str, post: str, identity: str, preamble: str = ""
) -> Any:
    """Make a `cupy.ReductionKernel` that accumulates in W and note it; T must be among its parameters' types."""
    kernel = cupy.ReductionKernel(
        inputs, outputs, map_, reduce, post, identity, f"gpubp_{name}", reduce_type="W", preamble=_WIDE + preamble
    )
    KERNELS[name] = kernel
    return kernel


class Kernel:
    """A raw kernel: CUDA with a function ``extern "C" __global__ void NAME(...)``.

    Its parameters are pointers, ``long long``, ``double`` and structs; Python's numbers become these as they are.
    Arrays must be C-contiguous, unless the kernel is told their strides.

    Parameters
    ----------
    name
        Of the function.
    source
        CUDA C++ in which T, and what else is in `types`, stand for dtypes; W, `warp_sum`, `warp_max`, `block_sum`,
        `block_max`, `infinity` and `modulo` are there. ``EACH(k, n)`` is a loop over the elements from 0 to n that are
        a thread's of the whole grid; ``DYNAMIC_SHARED(type, name)`` declares an array of the shared memory that the
        launch asks for.
    types
        The names of the dtypes, of the first of which W is the wide one.

    Examples
    --------
    >>> scale = Kernel("scale", r'''
    ... extern "C" __global__ void scale(const T* x, T* y, long long n, double by)
    ... {
    ...     EACH(k, n) y[k] = T(W(x[k]) * W(by));
    ... }''')
    >>> x, n = cupy.ones(1000), 1000
    >>> y = cupy.empty_like(x)
    >>> scale(blocks(n, 256), 256, x, y, n, 0.5, T=x.dtype)
    """

    def __init__(self, name: str, source: str, types: dict[str, tuple[str, ...]] | None = None) -> None:
        self.name, self.source = name, source
        self.types = {"T": FLOATS} if types is None else types
        self._compiled: dict[tuple[Any, ...], Any] = {}
        KERNELS[name] = self

    def __call__(self, grid: Any, threads: int, /, *args: Any, shared: int = 0, **types: Any) -> None:
        """Launch on a number (or tuple of up to three) of blocks of threads; on none, do nothing. None is null."""
        grid = grid if type(grid) is tuple else (grid,)
        if 0 not in grid:
            self.compiled(**types)(grid, (threads,), or_null(*args), shared_mem=shared)

    def compiled(self, **types: Any) -> Any:
        """Return the `cupy.RawKernel` for dtypes, to be launched many times, with arguments that are `or_null`."""
        key = tuple(types.values())
        compiled = self._compiled.get(key)
        if compiled is None:
            code = self.code(**{name: str(dtype) for name, dtype in types.items()})
            compiled = self._compiled[key] = cupy.RawKernel(code, self.name, ("-std=c++17",))
        return compiled

    def code(self, **types: str) -> str:
        """Return the source for dtypes given by name."""
        if types.keys() != self.types.keys():
            raise TypeError(f"kernel {self.name} wants the dtypes {', '.join(self.types)}, got {', '.join(types)}")
        typedefs = "".join(f"typedef {_NAMES.get(dtype, dtype)} {name};\n" for name, dtype in types.items())
        return _HEADERS + typedefs + _WIDE + _COLLECTIVE + _PHILOX + _DYNAMIC + self.source


def or_null(*args: Any) -> tuple[Any, ...]:
    """Return arguments of a kernel with 0 for None, of which CuPy makes an address other than null (its issue 9046)."""
    return tuple([0 if a is None else a for a in args])


_DYNAMIC = r"""
#define EACH(k, n) \
    for (long long step_ = blockDim.x * (long long)gridDim.x, k = blockIdx.x * (long long)blockDim.x + threadIdx.x; \
         k < (n); k += step_)
#ifndef DYNAMIC_SHARED
#define DYNAMIC_SHARED(type, name) \
    extern __shared__ double2 name##_bytes[]; type* name = reinterpret_cast<type*>(name##_bytes)
#endif
"""


_FLOATING: dict[Any, bool] = {}


def is_floating(x: Any) -> bool:
    """Whether x is a CuPy array of one of the dtypes that kernels are written for."""
    if type(x) is not cupy.ndarray:
        return False
    found = _FLOATING.get(x.dtype)
    if found is None:
        found = _FLOATING[x.dtype] = str(x.dtype) in FLOATS
    return found


def alike(x: Any, *others: Any) -> bool:
    """Whether these are CuPy arrays of one dtype that kernels are written for."""
    return is_floating(x) and all(type(y) is cupy.ndarray and y.dtype == x.dtype for y in others)


def wide(x: Any) -> Any:
    """Return the dtype of W for an array."""
    return cupy.float64 if x.dtype == cupy.float64 else cupy.float32


def contiguous(x: Any) -> Any:
    """Return x in C order, as raw kernels want it; None as it is."""
    return x if x is None or x.flags.c_contiguous else cupy.ascontiguousarray(x)


def blocks(n: int, threads: int, most: int = 65535) -> int:
    """Return how many blocks of threads cover n elements, at most `most` (for a loop by the size of the grid)."""
    return min(-(-n // threads), most)
