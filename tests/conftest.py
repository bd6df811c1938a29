import os

import numpy as np
import pytest
from hypothesis import settings

# One thread for each of pytest-xdist's workers, which start after this: more would wait for each other.
for _library in ("OMP", "OPENBLAS", "MKL"):
    os.environ.setdefault(f"{_library}_NUM_THREADS", "1")

# The same examples every run: a failure is a change of the code, not of the dice.
settings.register_profile("gpubp", deadline=None, derandomize=True)
settings.load_profile("gpubp")

#: What runs on JAX: the derivatives of these functions, and the tests in these folders. JAX compiles every operation
#: for every shape, so that the whole suite would take it ten minutes.
JAX_FUNCTIONS = frozenset(
    str.split("add concat dense exp fft.fft linalg.inv max relu reshape softmax_cross_entropy sum take where")
)
JAX_FOLDERS = ("nn", "optim", "training")


def pytest_addoption(parser):
    parser.addoption("--whole-jax", action="store_true", help="with --backends jax: every test, not a smoke test alone")


def pytest_configure(config):
    # Dtypes of array-api-strict and NumPy have one hash, so a dictionary of both compares them: harmless.
    config.addinivalue_line("filterwarnings", "ignore:You are comparing a array_api_strict dtype:UserWarning")
    if "s" not in config.option.reportchars:  # what is skipped is named, with its reason
        config.option.reportchars += "s"


def pytest_collection_modifyitems(config, items):
    if config.option.whole_jax:
        return
    skip = pytest.mark.skip(reason="beyond the smoke test that runs on JAX (tests/conftest.py); --whole-jax runs it")
    for item in items:
        params = item.callspec.params if hasattr(item, "callspec") else {}
        if params.get("backend") == "jax" and not _in_smoke_test(item, params):
            item.add_marker(skip)


def _in_smoke_test(item, params):
    if item.originalname == "test_gradient_agrees_with_numpy":
        return params["record"].name in JAX_FUNCTIONS
    if item.path.name == "test_guard.py":  # of the optimizers
        return item.originalname == "test_every_library_does_the_same" and params["cls"].__name__ == "AdamW"
    return item.path.parent.name in JAX_FOLDERS


@pytest.fixture(autouse=True)
def _same_numbers_in_any_order(request):
    """Start a module's generator RNG anew, so that no test hangs on which ones ran before it in this process."""
    rng = getattr(request.module, "RNG", None)
    if isinstance(rng, np.random.Generator):
        rng.bit_generator.state = np.random.default_rng(0).bit_generator.state
