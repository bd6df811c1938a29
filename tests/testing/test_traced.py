import subprocess
import sys

import numpy as np
import pytest

import gpubp.testing.traced_numpy as xp
from gpubp.array import Array


def test_every_floating_array_is_traced():
    made = [xp.zeros(3), xp.asarray([1.0, 2.0]), xp.floor(xp.ones(2)), xp.eye(2)]
    made += [xp.exp(xp.ones(2)), xp.fft.fft(xp.ones(2) + 0j), xp.linalg.inv(xp.eye(2))]
    assert all(type(x) is Array and x.node is not None for x in made)
    assert xp.arange(3).node is None
    assert xp.__name__ == "gpubp.testing.traced_numpy"


def test_values_may_leave_and_nothing_is_kept():
    x = xp.asarray([1.0, 2.0])
    assert float(x[0]) == 1.0
    np.testing.assert_array_equal(np.asarray(x * 2), [2.0, 4.0])
    x[0] = 5.0
    assert float(xp.sum(x)) == 7.0
    assert len(x.tape.records) == 0


def test_in_a_transform_values_may_not_leave():
    import gpubp as bp

    with pytest.raises(TypeError, match="would lose its gradient"):
        bp.grad(lambda x: float(x) * x)(np.asarray(2.0))


def test_the_proof_kit_is_imported_on_use():
    code = (
        "import sys, gpubp.testing as t; assert 'gpubp.testing.gradients' not in sys.modules; t.check_grads; "
        "assert 'hypothesis' not in sys.modules and 'pytest' not in sys.modules; "
        "[getattr(t, name) for name in t.__all__]; assert sorted(t.__all__) == dir(t)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_name_is_an_error():
    import gpubp.testing

    with pytest.raises(AttributeError, match="no attribute 'nonesuch'"):
        gpubp.testing.nonesuch  # noqa: B018
