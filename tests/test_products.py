import os
import subprocess
import sys

import numpy as np
import pytest

import gpubp as bp
from gpubp import products


def test_for_good_and_for_a_block():
    assert products.float32_products == "float32"
    with bp.matmul_precision("tf32") as outer:
        assert products.float32_products == "tf32"
        assert repr(outer) == "matmul_precision('tf32')"
        with bp.matmul_precision("float32"):
            assert products.float32_products == "float32"
        assert products.float32_products == "tf32"
    assert products.float32_products == "float32"
    before = bp.matmul_precision("tf32")
    assert products.float32_products == "tf32"
    with before:
        pass
    assert products.float32_products == "float32"
    with pytest.raises(ZeroDivisionError), bp.matmul_precision("tf32"):
        raise ZeroDivisionError
    assert products.float32_products == "float32"


def test_other_libraries_heed_nothing():
    x = np.random.default_rng(0).normal(size=(20, 30)).astype("float32")
    exact = x @ x.T
    with bp.matmul_precision("tf32"):
        np.testing.assert_array_equal(bp.value_and_grad(lambda x: (x @ x.T).sum())(x)[0], exact.sum())


@pytest.mark.parametrize("precision", ["high", "TF32", None, 32])
def test_unknown_precisions(precision):
    with pytest.raises(ValueError, match="the precision of products is one of float32, tf32, got "):
        bp.matmul_precision(precision)
    assert products.float32_products == "float32"


@pytest.mark.parametrize(
    ("value", "result"), [("tf32", "tf32"), ("bf16", "GPUBP_MATMUL_PRECISION is one of float32, tf32, got 'bf16'")]
)
def test_environment(value, result):
    command = [sys.executable, "-c", "from gpubp import products; print(products.float32_products)"]
    environment = {**os.environ, "GPUBP_MATMUL_PRECISION": value}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result in done.stdout + done.stderr
    assert done.returncode == (value == "bf16")
