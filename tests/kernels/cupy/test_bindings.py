"""cuBLAS through ctypes, against a library of that name which is built here: the calls pass a real C interface."""

import ctypes
import subprocess

import cupy
import numpy as np
import pytest

from gpubp.kernels.cupy import bindings, product

host_cuda = pytest.importorskip("tests.host_cuda")

# The declarations are those of cublas_api.h.
LIBRARY = r"""
#include <cstddef>
static int handles; static void* stream; static void* workspace; static size_t bytes; static int fails;
extern "C" {
int cublasCreate_v2(void** handle) { *handle = (void*)(size_t)(7000 + ++handles); return fails; }
int cublasDestroy_v2(void* handle) { return handle ? 0 : 1; }
int cublasSetStream_v2(void* handle, void* id) { stream = id; workspace = nullptr; return 0; }
int cublasSetWorkspace_v2(void* handle, void* w, size_t size) { workspace = w; bytes = size; return 0; }
void fail(int status) { fails = status; }
size_t state(int k) { return k == 0 ? (size_t)stream : k == 1 ? (size_t)workspace : bytes; }
int cublasGemmStridedBatchedEx(void* handle, int transa, int transb, int m, int n, int k, const void* alpha,
    const void* A, int Atype, int lda, long long strideA, const void* B, int Btype, int ldb, long long strideB,
    const void* beta, void* C, int Ctype, int ldc, long long strideC, int batchCount, int computeType, int algo)
{
    if (!handle || !workspace || Atype || Btype || Ctype || computeType != 68 || algo != -1) return 7;
    for (int i = 0; i < batchCount; ++i) {
        const float* a = (const float*)A + i * strideA;
        const float* b = (const float*)B + i * strideB;
        float* c = (float*)C + i * strideC;
        for (int x = 0; x < m; ++x)
            for (int y = 0; y < n; ++y) {
                float sum = 0;
                for (int z = 0; z < k; ++z)
                    sum += (transa ? a[z + (size_t)x * lda] : a[x + (size_t)z * lda])
                         * (transb ? b[y + (size_t)z * ldb] : b[z + (size_t)y * ldb]);
                float* to = c + x + (size_t)y * ldc;
                *to = *(const float*)alpha * sum + (*(const float*)beta ? *(const float*)beta * *to : 0);
            }
    }
    return 0;
}
int cublasGemmEx(void* handle, int transa, int transb, int m, int n, int k, const void* alpha, const void* A, int Atype,
    int lda, const void* B, int Btype, int ldb, const void* beta, void* C, int Ctype, int ldc, int computeType,
    int algo)
{
    return cublasGemmStridedBatchedEx(handle, transa, transb, m, n, k, alpha, A, Atype, lda, 0, B, Btype, ldb, 0, beta,
                                      C, Ctype, ldc, 0, 1, computeType, algo);
}
}
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cublas")
    (folder / "cublas.cpp").write_text(LIBRARY)
    name = "libcublas.so.0"
    command = [host_cuda.compiler(), "-shared", "-fPIC", "-w", f"-Wl,-soname,{name}", "cublas.cpp", "-o", name]
    subprocess.run(command, cwd=folder, check=True)
    built = ctypes.CDLL(str(folder / name))
    built.state.restype = ctypes.c_size_t
    return built


@pytest.fixture
def captured(library, monkeypatch):
    """A captured stream, no nvmath-python, and the library in the place of cuBLAS."""
    monkeypatch.setattr(bindings, "find_spec", lambda name: None)
    monkeypatch.setattr(bindings.CuBLAS, "NAMES", ("libcublas.so.nowhere", "libcublas.so.0"))
    monkeypatch.setattr(bindings, "of_thread", bindings._Thread())
    monkeypatch.setattr(product, "cublas", None)
    monkeypatch.setattr(cupy.cuda, "get_current_stream", lambda: type("Stream", (), {"ptr": 77})())
    bindings.bindings.cache_clear()
    yield library
    bindings.bindings.cache_clear()
    library.fail(0)


@pytest.mark.skipif(not hasattr(cupy, "_new"), reason="the library computes on the host")
@pytest.mark.parametrize(("left", "right"), [((3, 5), (5, 4)), ((2, 3, 5), (2, 5, 4)), ((3, 5), (2, 5, 4))])
def test_products(captured, left, right):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=left).astype("float32"), rng.normal(size=right).astype("float32")
    product.prepare()
    for x, y in (
        (cupy.asarray(a), cupy.asarray(b)),
        (
            cupy.asarray(np.ascontiguousarray(np.swapaxes(a, -1, -2))).swapaxes(-1, -2),
            cupy.asarray(np.ascontiguousarray(np.swapaxes(b, -1, -2))).swapaxes(-1, -2),
        ),
    ):
        found = product.product(x, y)
        np.testing.assert_allclose(found.get(), a @ b, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(product.product(x, y, out=found, accumulate=True).get(), 2 * (a @ b), atol=1e-5)
    assert captured.state(0) == 77
    assert captured.state(1) != 0
    assert captured.state(2) == 32 << 20


def test_errors(captured):
    own = bindings.bindings("cublas")
    with pytest.raises(RuntimeError, match="cuBLAS reports the status 7"):
        own.gemm_ex(None, *[0] * 18)
    with pytest.raises(TypeError, match="19 arguments"):
        own.gemm_ex(1, *[0] * 17)
    with pytest.raises(ctypes.ArgumentError):
        own.gemm_ex(1.5, *[0] * 18)
    assert bindings.bindings("cublasLt") is None


def test_what_does_not_work_is_not_taken(captured, monkeypatch):
    captured.fail(1)
    assert bindings.bindings("cublas") is None
    bindings.bindings.cache_clear()
    monkeypatch.setattr(bindings.CuBLAS, "NAMES", ("libcublas.so.nowhere",))
    assert bindings.bindings("cublas") is None
