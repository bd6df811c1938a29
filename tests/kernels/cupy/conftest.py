import pytest


def pytest_ignore_collect(collection_path, config):
    """These tests are of CuPy, or of its stand-in: ``-p tests.fake_cupy --backends cupy``."""
    asked = config.getoption("--backends") or ""
    return None if asked == "all" or "cupy" in asked.split(",") else True


@pytest.fixture
def nvmath(monkeypatch):
    """The bindings of cuBLAS and cuBLASLt that nvmath-python would bring, on the host."""
    from gpubp.kernels.cupy import bindings, lt
    from tests import fake_cublas

    modules = {"nvmath.bindings.cublas": fake_cublas.Bindings(), "nvmath.bindings.cublasLt": fake_cublas.LtBindings()}
    monkeypatch.setattr(bindings, "find_spec", lambda name: name == "nvmath")
    monkeypatch.setattr(bindings, "import_module", modules.__getitem__)
    bindings.bindings.cache_clear()
    monkeypatch.setattr(bindings, "of_thread", thread := bindings._Thread())
    monkeypatch.setattr(lt, "of_thread", thread)
    yield tuple(modules.values())
    bindings.bindings.cache_clear()
