def pytest_ignore_collect(collection_path, config):
    """These tests are of CuPy, or of its stand-in: ``-p tests.fake_cupy --backends cupy``."""
    asked = config.getoption("--backends") or ""
    return None if asked == "all" or "cupy" in asked.split(",") else True
