import numpy as np
import pytest

from gpubp import nn, tree
from gpubp.testing import assert_parity
from gpubp.testing.backends import Backend, load

rng = np.random.default_rng(0)


class Net(tree.Node):
    """Two dense layers; `broken` spoils the second one's bias on one library."""

    def __init__(self, broken=None):
        self.layers = [{"W": rng.normal(size=(3, 4)), "b": rng.normal(size=4)} for _ in range(1)]
        self.layers.append({"W": rng.normal(size=(4, 2)), "b": rng.normal(size=2)})
        self.broken = broken

    def __call__(self, x):
        first, second = self.layers
        hidden = x @ first["W"] + first["b"]
        hidden = hidden / (1 + hidden * hidden)
        b = second["b"]
        if self.broken == b.__array_namespace__().library:
            b = b * (1 + 1e-4)
        return hidden @ second["W"] + b


def test_every_array_of_a_net_is_compared(backend):
    report = assert_parity(Net(), rng.normal(size=(5, 3)), backends=["numpy", backend], steps=3)
    assert {(d.what, d.path) for d in report.differences} == {
        ("output", ""),
        *(("gradient", p) for p in ("args[0]", *paths("net"))),
        *((f"parameter after {n}", p) for n in (1, 2, 3) for p in paths("net")),
    }
    assert all(d.agrees and d.backend == backend.name for d in report.differences)
    assert report.worst.ulp < 100
    assert "net.layers[1]['b']" in str(report)


def paths(net):
    return [f"{net}.layers[{k}]['{name}']" for k in (0, 1) for name in "Wb"]


def test_training_changes_parameters():
    seen = []

    class Spy(Net):
        def __call__(self, x):
            seen.append(self.layers[0]["W"].data)
            return super().__call__(x)

    assert_parity(Spy(), rng.normal(size=(5, 3)), backends=["numpy", "readonly_numpy"], steps=2)
    assert not np.array_equal(seen[0], seen[-1])


def test_a_function_in_both_precisions(backend):
    def f(x, d):
        return {"y": x * d["a"], "z": [x / 3]}

    args = (rng.normal(size=(2, 3)), {"a": rng.normal(size=3)})
    for dtype in ("float32", "float64"):
        report = assert_parity(f, args, backends=["numpy", backend], dtype=dtype)
        assert {d.dtype for d in report.differences} == {dtype}
        assert {d.path for d in report.differences} == {"['y']", "['z'][0]", "args[0]", "args[1]['a']"}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_difference_is_reported_layer_by_layer(dtype):
    with pytest.raises(AssertionError) as caught:
        assert_parity(Net(broken="standin"), rng.normal(size=(5, 3)), backends=["numpy", "standin"], dtype=dtype)
    message = str(caught.value)
    assert message.startswith("standin differ from numpy")
    rows = {tuple(line.split()[1:3]): line.split()[0] for line in message.splitlines()[2:]}
    assert rows["gradient", "net.layers[1]['b']"] == "XX"
    assert rows["gradient", "net.layers[0]['W']"] == "ok"


def test_another_dtype_or_shape_is_a_difference():
    class Doubling(Backend):
        def asarray(self, array):
            return super().asarray(np.asarray(array, dtype=np.float64))

    doubling = Doubling("doubling", load("numpy").xp)
    with pytest.raises(AssertionError, match="got float64 of shape"):
        assert_parity(lambda x: x * 2, rng.normal(size=3), backends=["numpy", doubling], dtype="float32")


def test_non_finite_values_must_stand_at_the_same_places():
    x = np.array([1.0, np.inf, np.nan])
    assert_parity(lambda x: x * 1, x)
    with pytest.raises(AssertionError, match="inf"):
        assert_parity(lambda x: x if "standin" in x.__array_namespace__().library else x - x, x)


def test_bad_arguments():
    with pytest.raises(TypeError, match="both tolerances or neither"):
        assert_parity(lambda x: x, np.ones(3), rtol=1e-3)
    with pytest.raises(TypeError, match="steps=2 are for a net"):
        assert_parity(lambda x: x, np.ones(3), steps=2)
    with pytest.raises(ValueError, match="no backend is called 'nonesuch'"):
        assert_parity(lambda x: x, np.ones(3), backends=["numpy", "nonesuch"])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_nets_agree_in_16_bits(dtype):
    net = nn.Sequential(nn.Dense(4, 8), nn.LayerNorm(8), nn.relu, nn.Dense(8, 3), seed=0)
    x = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")
    report = assert_parity(net, x, dtype=dtype, steps=2)
    assert {d.dtype for d in report.differences} == {dtype}
    assert report.worst.ulp <= 2
    with pytest.raises(AssertionError, match="standin differ"):
        assert_parity(lambda x: x * (1.5 if type(x.data).__module__ == "numpy" else 1.0), x, dtype=dtype)
