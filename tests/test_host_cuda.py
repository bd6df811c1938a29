"""The host's imitation of CUDA finds the faults for which one would need a GPU."""

import subprocess
import sys

import pytest

PROGRAM = """
import numpy as np
import tests.fake_cupy
import cupy
from gpubp.kernels.cupy.common import Kernel
x = cupy.asarray(np.arange(100, dtype="float32"))
y = cupy.zeros(100, dtype="float32")
def run(body, threads=128, *args, params="const T* x, T* y, long long n", **options):
    kernel = Kernel("k", 'extern "C" __global__ void k(' + params + ") {" + body + "}")
    kernel(1, threads, *(args or (x, y, 100)), T=x.dtype, **options)
    return y.get()
"""


def host(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", PROGRAM + program], capture_output=True, text=True, timeout=300)


def test_barriers_shuffles_and_shared_memory() -> None:
    done = host("""
body = '''
    DYNAMIC_SHARED(T, all);
    int k = threadIdx.x;
    all[k] = k < n ? x[k] : T(0);
    __syncthreads();
    W total = block_sum(W(all[blockDim.x - 1 - k]));
    W top = block_max(-W(all[k]));
    unsigned odd = __ballot_sync(~0u, k % 2);
    if (k < n) y[k] = T(total + top + (odd == 0xaaaaaaaau));
'''
assert (run(body, shared=128 * 4) == 4950 + 1).all()
assert (run("if (threadIdx.x < n) atomicAdd(y, x[threadIdx.x]);")[0] == 4951 + 4950)
""")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("run('y[threadIdx.x] = x[0];')", "wrote around the float32 array"),
        ("run('block_sum(W(1));', 100)", "reads a thread that is not there"),
        ("run('y[-1] = x[0];')", "wrote around the float32 array"),
        ("assert (run('if (threadIdx.x < n) y[threadIdx.x] = x[threadIdx.x + 1];') > 0).all()", "AssertionError"),
        (
            "run('if (threadIdx.x == 3) __syncthreads(); else __syncwarp();')",
            "a barrier was not reached by all threads",
        ),
        ("run('if (threadIdx.x == 3) __shfl_sync(~0u, 1, 0);')", "reads a thread that is not there"),
        ("run('', 128, x, y, np.int32(100))", "a number of type int for a parameter of type long long"),
        (
            "run('', 128, x, y.astype('float64'), 3, params='const float* x, float* y, long long n')",
            "an array of double",
        ),
        ("run('', 128, x, y)", "3 parameters, got 2"),
        (
            "cupy.RawKernel('extern \"C\" __global__ void k(float* x) {}', 'k')((1,), (32,), (None,))",
            "a null pointer is 0",
        ),
        ("run('', 2048)", "no GPU takes the grid"),
        ("run('', shared=50000)", "more shared memory"),
        ("run('nonsense;')", "nonsense"),
        (
            "y = cupy.asarray(np.zeros(100, 'f'))[::2]; run('if (threadIdx.x < 50) y[threadIdx.x] = T(1);')",
            "wrote around",
        ),
        (  # a missing barrier is seen since threads run in a shuffled order
            "assert (run('__shared__ W s[128]; s[threadIdx.x] = W(threadIdx.x);"
            " if (threadIdx.x < n) y[threadIdx.x] = T(s[127 - threadIdx.x]);') == np.arange(127, 27, -1)).all()",
            "AssertionError",
        ),
    ],
)
def test_faults(fault: str, message: str) -> None:
    done = host(fault)
    assert done.returncode == 1
    assert message in done.stderr


def test_sixteen_bits_round_as_numpy_does() -> None:
    pytest.importorskip("ml_dtypes")
    done = host("""
import ml_dtypes
values = np.concatenate([np.random.default_rng(0).standard_normal(4000) * 10.0 ** np.arange(-20, 20).repeat(100),
                         [0.0, -0.0, np.inf, -np.inf, 65504, 65519.9, 65520, 5.96e-8, 2.98e-8, 2.99e-8, 6.1e-5]])
values = values.astype("float32")
kernel = cupy.ElementwiseKernel("float32 x", "T y", "y = T(x)", "cast")
back = cupy.ElementwiseKernel("T x", "float32 y", "y = float(x)", "back")
for dtype in ("float16", ml_dtypes.bfloat16):
    with np.errstate(over="ignore"):
        expected = values.astype(dtype)
    got = kernel(cupy.asarray(values), cupy.empty(len(values), dtype=dtype))
    np.testing.assert_array_equal(got.get().view("u2"), expected.view("u2"))
    np.testing.assert_array_equal(back(got).get(), expected.astype("float32"))
""")
    assert done.returncode == 0, done.stderr
