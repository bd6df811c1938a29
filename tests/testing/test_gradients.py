import numpy as np
import pytest

import gpubp as bp
from gpubp import tree
from gpubp.testing import check_grads

rng = np.random.default_rng(0)


def half(x):
    """The identity, with half its gradient: a wrong derivative."""
    return x / 2 + bp.stop_gradient(x) / 2


class Layer(tree.Node):
    def __init__(self, wrong=False):
        self.W, self.b, self.wrong = rng.normal(size=(3, 2)), rng.normal(size=2), wrong
        self.name, self.count = "layer", np.arange(2)

    def __call__(self, x):
        return x @ self.W + (half(self.b) if self.wrong else self.b)


class Tied(tree.Node):
    def __init__(self):
        self.layers = [Layer(), Layer()]
        self.layers[1].W = self.layers[0].W

    def __call__(self, x):
        return self.layers[0](x) * self.layers[1](x)


def test_right_derivatives_pass_on_every_backend(backend):
    x, y = (backend.asarray(rng.normal(size=s)) for s in ((3, 4), (4,)))
    check_grads(lambda x, y: (x * y) ** 3 - y / (1 + x * x), (x, y), order=3)


def test_complex_values():
    z = rng.normal(size=3) + 1j * rng.normal(size=3)
    check_grads(lambda z, x: {"a": z * z * x, "b": [1 / z]}, (z, rng.normal(size=3)))


def test_nets_trees_and_python_numbers():
    check_grads(lambda net, x: net(x), (Tied(), rng.normal(size=(4, 3))))
    check_grads(lambda d: d["a"] * d["b"][0], ({"a": 2.0, "b": [rng.normal(size=3)]},))


def test_only_the_arguments_asked_for():
    check_grads(lambda x, y: x * half(y), (rng.normal(size=3), rng.normal(size=3)), argnums=0)
    with pytest.raises(AssertionError, match=r"args\[1\]"):
        check_grads(lambda x, y: x * half(y), (rng.normal(size=3), rng.normal(size=3)), argnums=(1,))


@pytest.mark.parametrize("seed", range(20))
def test_a_wrong_derivative_is_found_whatever_the_seed(seed):
    with pytest.raises(AssertionError, match="wrong derivative of order 1"):
        check_grads(half, (np.array([1.0, -2.0]),), seed=seed)
    check_grads(lambda x: x**3, (np.array([1.0, -2.0]),), seed=seed)


def test_an_error_of_a_hundred_thousandth_is_found():
    almost = bp.custom_vjp(lambda x: x * x)
    almost.defvjp(lambda x: (x * x, x), lambda x, g: (g * 2 * x * (1 + 1e-5),))
    with pytest.raises(AssertionError, match=r"relative 1e-05|relative 9.99.*e-06"):
        check_grads(almost, (rng.normal(size=4),))


def test_a_wrong_second_derivative_is_found():
    wrong = bp.custom_vjp(lambda x: x**3)
    wrong.defvjp(lambda x: (x**3, x), lambda x, g: (g * 3 * bp.stop_gradient(x) * x,))
    check_grads(wrong, (np.array([1.5]),), order=1)
    with pytest.raises(AssertionError, match="wrong derivative of order 2"):
        check_grads(wrong, (np.array([1.5]),), order=2)


def test_the_message_names_the_argument_and_the_figures():
    with pytest.raises(AssertionError) as caught:
        check_grads(lambda net, x: net(x), (Layer(wrong=True), rng.normal(size=(4, 3))))
    rows = {line.split()[0]: line.split() for line in str(caught.value).splitlines()[2:]}
    assert "finite differences with step" in str(caught.value)
    assert rows["args[0].b"][1:5] == ["float64", "of", "shape", "(2,)"]
    assert rows["args[0].b"][-1] == "0.5"
    assert float(rows["args[0].W"][-1]) < 1e-8
    assert float(rows["args[1]"][-1]) < 1e-8


@pytest.mark.parametrize("at", [0.0, 1e-9])
@pytest.mark.parametrize(
    "f",
    [
        abs,
        lambda x: bp.array_namespace(x).where(x > 0, x, 0.0),
        lambda x: bp.array_namespace(x).where(x > 0, x, -3 * x),
    ],
)
def test_a_kink_is_an_error_that_says_so(f, at):
    with pytest.raises(AssertionError, match="not smooth at this point"):
        check_grads(f, (np.array([at, 1.0]),))


def test_a_kink_nearby_does_no_harm():
    check_grads(abs, (np.array([1e-4, -1e-5, 1e-3, 2.0]),))


def test_a_jump_and_the_edge_of_a_domain():
    with pytest.raises(AssertionError, match="not smooth"):
        check_grads(lambda x: bp.array_namespace(x).floor(x) + x, (np.ones(2),))
    with np.errstate(invalid="ignore", divide="ignore"):
        with pytest.raises(AssertionError, match="not finite near this point"):
            check_grads(lambda x: bp.array_namespace(x).log(x), (np.array([-1.0]),))
        with pytest.raises(AssertionError, match="is (-)?inf"):
            check_grads(lambda x: bp.array_namespace(x).sqrt(x), (np.array([0.0]),))


def test_strong_curvature_only_shortens_the_step():
    check_grads(lambda x: bp.array_namespace(x).sin(200 * x), (rng.normal(size=3),))
    check_grads(lambda x: 1 / x, (np.array([1e-2]),), order=1)
    check_grads(lambda x: 1e6 + x * x, (rng.normal(size=3),))


def test_low_precision_is_refused_by_name():
    with pytest.raises(TypeError, match=r"args\[0\]\['w'\] is float32 of shape \(2,\)"):
        check_grads(lambda d: d["w"] * 2, ({"w": np.ones(2, dtype=np.float32)},))

    with pytest.raises(TypeError, match=r"result\['y'\] is float32 of shape \(2,\)"):
        check_grads(lambda x: {"y": bp.array_namespace(x).astype(x, np.float32)}, (np.ones(2),))


def test_nothing_to_check_is_an_error():
    with pytest.raises(TypeError, match="no real or complex floating array"):
        check_grads(lambda x: x, (np.arange(3),))
    with pytest.raises(TypeError, match="floating-point array as the function's result"):
        check_grads(lambda x: x > 0, (np.ones(3),))
    with pytest.raises(TypeError, match="both tolerances or neither"):
        check_grads(lambda x: x, (np.ones(3),), rtol=1e-3)


def test_empty_arrays_and_functions_that_ignore_an_argument():
    check_grads(lambda x, y: x * 2, (np.zeros((0, 3)), np.ones(2)))
    check_grads(lambda x, y: y * 2, (np.ones(2), np.ones(3)))


def test_arguments_are_left_alone():
    net, x = Layer(), rng.normal(size=(4, 3))
    x.setflags(write=False)
    before = [a.copy() for a in tree.leaves(net)]
    check_grads(lambda net, x: net(x), (net, x))
    assert all((a == b).all() for a, b in zip(tree.leaves(net), before, strict=True))
