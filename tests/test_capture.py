"""Captured steps. On CuPy, and on the stand-in in its place, they are graphs; elsewhere they run as usual."""

import gc
import importlib
import sys
import threading
import weakref
from functools import partial

import numpy as np
import pytest

import gpubp as bp
from gpubp import losses, nn, optim
from gpubp.capture import Member, NotCapturable, recording
from gpubp.device import cuda_devices

capture_module = sys.modules["gpubp.capture"]
RNG = np.random.default_rng(0)
pytestmark = pytest.mark.filterwarnings("error:.*runs as usual", "ignore:matrix products use")


def graphs(backend):
    """Whether steps are captured on this backend."""
    return backend.name == "cupy"


@pytest.fixture
def cupy(backend):
    if not graphs(backend):
        pytest.skip("steps are captured on CuPy alone")
    return backend


def numbers(*shape):
    return RNG.normal(size=shape).astype("float32")


class Sum(Member):
    """Adds arrays up in place, times a number that the device reads, counting the steps on the host too."""

    def __init__(self, xp, n, rate=1.0, power=1):
        self.total, self.scale = xp.zeros(n, dtype=xp.float32), xp.ones((), dtype=xp.float32)
        self.rate, self.power, self.steps = rate, power, 0

    def add(self, x):
        if (now := recording()) is None:
            self.before_launch()
        else:
            now.join(self)
        self.total += self.scale * x**self.power

    def changed_arrays(self):
        return self.total, self.scale

    def before_launch(self):
        self.steps += 1
        self.scale[...] = self.rate

    def fixed_numbers(self):
        return (self.power,)


# -- a step and its graph


def test_a_captured_step_gives_what_the_step_gives(backend):
    def step(x, batch, power):
        return {"y": x * batch["w"] + 1, "z": [backend.xp.sum(x**power), (power, None)]}

    captured = bp.capture(step)
    for k in range(6):
        x, w = (backend.asarray(numbers(3, 2)) for _ in range(2))
        found, expected = captured(x, {"w": w}, 2), step(x, {"w": w}, 2)
        assert found["z"][1] == (2, None)
        for a, b in ((found["y"], expected["y"]), (found["z"][0], expected["z"][0])):
            np.testing.assert_array_equal(backend.to_numpy(a), backend.to_numpy(b))
        assert captured.launches == (max(0, k - 2) if graphs(backend) else 0)
    assert (captured.reason is None) == graphs(backend)
    assert repr(captured) == "capture(step)"


def test_results_are_not_overwritten_by_later_calls(backend):
    captured = bp.capture(lambda x: x + 1)
    results = [captured(backend.asarray(np.full(3, float(k)))) for k in range(8)]
    for k, result in enumerate(results):
        np.testing.assert_array_equal(backend.to_numpy(result), np.full(3, k + 1.0))


def test_every_set_of_shapes_dtypes_and_other_arguments_has_a_graph(cupy):
    captured = bp.capture(lambda x, power=1: x**power)
    for shape in ((2,), (3,), (2, 2)):
        for dtype in ("float32", "float64"):
            for power in (1, 2):
                for k in range(5):
                    x = np.full(shape, k, dtype)
                    found = cupy.to_numpy(captured(cupy.asarray(x), power=power))
                    np.testing.assert_array_equal(found, x**power)
                    assert found.dtype == x.dtype
    assert len(captured._graphs) == captured.cache == 8
    assert captured.launches == 12 * 2
    assert captured.reason is None


def test_the_precision_of_products_has_a_graph_of_its_own(cupy):
    captured = bp.capture(lambda x: x + 1)
    for precision in ("float32", "tf32") * 2:
        with bp.matmul_precision(precision):
            for _ in range(3):
                captured(cupy.asarray(np.ones(2)))
    assert captured.launches == 2 * 3


def test_more_shapes_than_the_cache_holds_end_it(cupy):
    captured = bp.capture(lambda x: x + 1, cache=2)

    def calls():
        for k in range(90):
            n = k % 3
            np.testing.assert_array_equal(cupy.to_numpy(captured(cupy.asarray(np.ones(n)))), np.full(n, 2.0))

    with pytest.warns(RuntimeWarning, match=r"since its arguments have more different shapes than the 2 that are kept"):
        calls()
    assert captured.reason is not None
    assert not captured._graphs


def test_shapes_that_come_once_cost_no_recording(cupy):
    captured = bp.capture(lambda x: x + 1)
    for n in range(100):
        captured(cupy.asarray(np.ones(n)))
    assert not captured._graphs
    assert captured.reason is None


def test_numbers_that_are_other_ones_at_every_call_end_it(cupy):
    captured = bp.capture(lambda x, k: x + k)

    def calls():
        for k in range(140):
            assert float(captured(cupy.asarray(np.ones(1)), k)[0]) == 1 + k

    with pytest.warns(
        RuntimeWarning, match="since its arguments have other shapes, or other numbers that are no arrays"
    ):
        calls()
    assert not captured._graphs


def test_host_arrays_are_moved_to_where_the_step_computes(cupy):
    w = cupy.asarray(numbers(3))
    captured = bp.capture(lambda x: x * w)
    for _ in range(5):
        x = numbers(3)
        np.testing.assert_array_equal(cupy.to_numpy(captured(x)), x * cupy.to_numpy(w))
    assert captured.launches == 2


def test_views_and_layouts_of_arguments(cupy):
    captured = bp.capture(lambda x: x * 2)
    for k in range(6):
        x = numbers(4, 6)
        given = cupy.asarray(x)[:, ::2] if k % 2 else cupy.asarray(x[:, ::2].copy(order="F"))
        np.testing.assert_array_equal(cupy.to_numpy(captured(given)), x[:, ::2] * 2)
    assert captured.launches == 3


def test_warmup(cupy):
    captured = bp.capture(lambda x: x + 1, warmup=4)
    for _ in range(7):
        captured(cupy.asarray(np.ones(2)))
    assert captured.launches == 2


def test_a_step_of_a_member_and_its_numbers(cupy):
    """A rate that is an array follows; a power that became part of the graph makes a new one; the host counts on."""
    found, expected = (Sum(xp, 3) for xp in (cupy.xp, np))

    def step(x):
        found.add(x)

    captured = bp.capture(step)
    for k in range(24):
        found.rate = expected.rate = 1 / (1 + k)
        found.power = expected.power = 1 + k // 12
        x = numbers(3)
        captured(cupy.asarray(x))
        expected.add(x)
        np.testing.assert_allclose(cupy.to_numpy(found.total), expected.total, rtol=1e-6)
        assert found.steps == expected.steps
    assert captured.launches == 9 + 10
    assert captured.reason is None


# -- what a step changes


def test_cells_keep_their_values_and_may_be_written_from_outside(cupy):
    cell, first = nn.State(cupy.asarray(np.zeros(2))), cupy.asarray(np.zeros(2))
    cell.value = first

    def step(x):
        old = cell.value
        cell.value = 0.5 * cell.value + x
        cell.value = cell.value * 2
        return old

    captured = bp.capture(step)
    expected = np.zeros(2)
    for k in range(12):
        if k == 8:
            expected = numbers(2).astype("float64")
            cell.value = cupy.asarray(expected)
        x = numbers(2).astype("float64")
        np.testing.assert_array_equal(cupy.to_numpy(captured(cupy.asarray(x))), expected)
        expected = (0.5 * expected + x) * 2
        np.testing.assert_array_equal(cupy.to_numpy(cell.value), expected)
    assert captured.launches == 9
    np.testing.assert_array_equal(cupy.to_numpy(first), np.zeros(2))  # the user's own array


def test_cells_that_are_exchanged(cupy):
    a, b = nn.State(cupy.asarray(np.ones(2))), nn.State(cupy.asarray(np.full(2, 2.0)))

    def step(x):
        a.value, b.value = b.value, a.value
        return a.value * x

    captured = bp.capture(step)
    for k in range(7):
        assert float(captured(cupy.asarray(np.ones(1)))[0]) == 2 - k % 2
        assert float(b.value[0]) == 1 + k % 2
    assert captured.launches == 4


def test_views_of_cells(cupy):
    a, b = nn.State(cupy.asarray(np.ones(2))), nn.State(cupy.asarray(np.zeros(())))

    def step(x):
        first = a.value[0]
        a.value = a.value + x
        b.value = first
        return first, a.value[:1]

    captured = bp.capture(step)
    for k in range(7):
        first, last = captured(cupy.asarray(np.ones(1)))
        assert float(first) == float(b.value) == k + 1
        assert float(last[0]) == k + 2
    assert captured.launches == 4


def test_a_cell_that_gets_another_shape_from_outside_makes_a_new_graph(cupy):
    cell = nn.State(cupy.asarray(np.zeros(2)))

    def step(x):
        cell.value = cell.value + x

    captured = bp.capture(step)
    for _ in range(5):
        captured(cupy.asarray(np.ones(1)))
    cell.value = cupy.asarray(np.zeros(3))
    for _ in range(5):
        captured(cupy.asarray(np.ones(1)))
    np.testing.assert_array_equal(cupy.to_numpy(cell.value), np.full(3, 5.0))
    assert captured.launches == 2 + 3


def test_a_cell_that_is_only_read(cupy):
    cell = nn.State(cupy.asarray(np.ones(2)))
    captured = bp.capture(lambda x: cell.value * x)
    for k in range(10):
        if k == 6:
            cell.value = cupy.asarray(np.full(2, 3.0))
        assert float(captured(cupy.asarray(np.ones(2)))[0]) == (1 if k < 6 else 3)
    assert captured.launches == 3 + 2


def test_arrays_changed_in_place(cupy):
    total = cupy.asarray(np.zeros(2))

    def step(x):
        total[...] = total + x
        return total

    captured = bp.capture(step)
    for k in range(8):
        assert captured(cupy.asarray(np.ones(2))) is total
        np.testing.assert_array_equal(cupy.to_numpy(total), np.full(2, k + 1.0))
    assert captured.launches == 5


def test_host_arrays_that_it_reaches_are_left_alone(cupy):
    table = np.arange(6.0)
    table.setflags(write=False)
    captured = bp.capture(lambda x: x * len(table) + float(table[1]))
    for _ in range(5):
        assert float(captured(cupy.asarray(np.ones(1)))[0]) == 7
    assert captured.launches == 2


@pytest.mark.parametrize("failing", [1, 2])  # of the copies: that of the state before the usual run, and after it
def test_a_comparison_for_which_there_is_no_room(cupy, monkeypatch, failing):
    total = cupy.asarray(np.zeros(1))

    def step(x):
        total[...] = total + x

    captured = bp.capture(step)
    x = cupy.asarray(np.ones(1))
    for _ in range(2):
        captured(x)
    own, copies = capture_module._copy, []

    def copy(x):
        copies.append(x)
        if len(copies) == failing:
            raise MemoryError("out of it")
        return own(x)

    monkeypatch.setattr(capture_module, "_copy", copy)
    with pytest.warns(RuntimeWarning, match="since the comparison of its graph failed with MemoryError: out of it"):
        captured(x)
    assert float(total[0]) == 3


# -- what it reaches from outside


class Holder(nn.Layer):
    def __init__(self, w):
        self.w, self.parts = w, [w]

    def __call__(self, x):
        return x * self.w if self.training else x + self.parts[0]


def test_modes_settings_and_arrays_that_are_replaced_make_a_new_graph(cupy):
    layer = Holder(cupy.asarray(np.full(2, 2.0)))
    shift = 1.0

    def step(x):
        return layer(x) + shift

    captured = bp.capture(step)

    def calls():
        before = captured.launches
        found = [float(captured(cupy.asarray(np.full(2, 3.0)))[0]) for _ in range(5)]
        assert captured.launches > before
        return set(found)

    assert calls() == {6.0}
    layer.train()
    assert calls() == {7.0}
    layer.w = cupy.asarray(np.full(2, 4.0))
    assert calls() == {13.0}
    layer.parts[0] = layer.w
    layer.eval()
    assert calls() == {8.0}
    shift = 2.0
    assert calls() == {9.0}
    layer.more = 1
    assert calls() == {9.0}
    layer = Holder(cupy.asarray(np.zeros(2)))
    assert calls() == {5.0}
    assert captured.reason is None


def test_what_is_another_one_at_every_call_ends_it(cupy):
    layer = Holder(cupy.asarray(np.zeros(2)))
    captured = bp.capture(lambda x: layer(x))

    def calls():
        for k in range(100):
            layer.parts[0] = cupy.asarray(np.full(2, float(k)))
            assert float(captured(cupy.asarray(np.zeros(2)))[0]) == k

    with pytest.warns(RuntimeWarning, match=r"since layer.parts\[0\] is another one from call to call"):
        calls()


W = None


def test_globals_methods_and_partials_are_seen(cupy):
    global W
    W = cupy.asarray(np.ones(2))

    class Trainer:
        def __init__(self):
            self.factor = 1.0

        def step(self, y, x):
            return x * W * self.factor + y

    trainer = Trainer()
    captured = bp.capture(partial(trainer.step, cupy.asarray(np.ones(2))))
    for k in range(30):
        if k % 10 == 5:
            W = cupy.asarray(np.full(2, float(k)))
        if k % 10 == 0:
            trainer.factor = k + 1.0
        found = float(captured(cupy.asarray(np.ones(2)))[0])
        assert found == float(W[0]) * trainer.factor + 1
    assert captured.launches > 10


class Trainer:
    """Counts steps and keeps losses outside of the step, which names neither."""

    def __init__(self, w):
        self.w, self.count, self.factor, self.kept = w, 0, 1.0, []
        self.captured = bp.capture(self.step)

    def step(self, x):
        return self.scaled(x) * self.w

    def scaled(self, x):
        return x * self.factor

    def train(self, x):
        self.count += 1
        self.kept.append(self.captured(x))
        return float(self.kept[-1][0])


def test_attributes_that_the_step_does_not_use_may_change(cupy):
    trainer = Trainer(cupy.asarray(np.ones(2)))
    x = cupy.asarray(np.ones(2))
    assert [trainer.train(x) for _ in range(10)] == [1.0] * 10
    assert trainer.captured.launches == 7
    trainer.factor = 2.0
    assert [trainer.train(x) for _ in range(10)] == [2.0] * 10
    trainer.w = cupy.asarray(np.full(2, 3.0))
    assert [trainer.train(x) for _ in range(10)] == [6.0] * 10
    assert trainer.captured.launches == 7 + 8 + 8


def test_variables_of_modules(cupy, tmp_path, monkeypatch):
    (tmp_path / "user_module.py").write_text("factor = 2.0\ndef scaled(x):\n    return x * factor\n")
    monkeypatch.syspath_prepend(tmp_path)
    user_module = importlib.import_module("user_module")
    captured = bp.capture(lambda x: user_module.scaled(x))
    x = cupy.asarray(np.ones(2))
    for k in range(10):
        user_module.factor = 2.0 if k < 5 else 3.0
        assert float(captured(x)[0]) == user_module.factor
    assert captured.launches == 2 + 3


# -- what cannot be captured


def refuses(captured, x, match, times=8):
    with pytest.warns(RuntimeWarning, match=match) as seen:
        results = [captured(x) for _ in range(times)]
    assert [w.filename for w in seen if "runs as usual" in str(w.message)] == [__file__]
    assert captured.launches == 0
    assert captured.reason is not None
    return results


def test_a_read_by_the_host_ends_it(cupy):
    cell = nn.State(cupy.asarray(np.zeros(1)))

    def step(x):
        cell.value = cell.value + 1
        return x * float(x[0])

    found = refuses(
        bp.capture(step),
        cupy.asarray(np.full(2, 3.0)),
        r"since its recording failed with RuntimeError: .* \(at .*py:\d+\)",
    )
    assert [float(x[0]) for x in found] == [9.0] * 8
    assert float(cell.value[0]) == 8


def test_variables_and_lists_that_a_step_changes_end_it(cupy):
    kept, count, x = [], 0, cupy.asarray(np.ones(2))

    def appends(x):
        kept.append(x + 1)
        return x

    def counts(x):
        nonlocal count
        count += 1
        return x

    refuses(bp.capture(appends), x, r"it changes kept\[2\], which no graph repeats")
    assert [float(v[0]) for v in kept] == [2.0] * 8
    refuses(bp.capture(counts), x, "it changes count, which no graph repeats")
    assert count == 8


def test_attributes_that_a_step_changes_end_it(cupy):
    member = Sum(cupy.xp, 2)

    def step(x):
        member.rate = 1 / (1 + member.steps)
        member.add(x)

    refuses(bp.capture(step), cupy.asarray(np.ones(2)), "it changes member.rate, which no graph repeats")
    np.testing.assert_allclose(cupy.to_numpy(member.total), sum(1 / k for k in range(1, 9)), rtol=1e-6)


def test_a_graph_that_gives_something_else_is_given_up(cupy):
    """The number of the call is no variable that could be seen: the comparison with a usual run finds it."""
    numbers = iter(range(100))
    cell, total = nn.State(cupy.asarray(np.zeros(1))), cupy.asarray(np.zeros(1))

    def step(x):
        k = next(numbers)
        cell.value = cell.value + 1
        total[...] = total + x
        return x + k

    found = refuses(bp.capture(step), cupy.asarray(np.ones(1)), "its graph gives other results")
    assert [float(x[0]) for x in found] == [1.0, 2.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]  # (one was drawn by the recording)
    assert float(cell.value[0]) == float(total[0]) == 8


def test_a_graph_that_changes_arrays_in_another_way_is_given_up(cupy):
    numbers, total = iter(range(100)), cupy.asarray(np.zeros(3))

    def step(x):
        total[...] = total + x * (1 + 0.1 * next(numbers))

    refuses(bp.capture(step), cupy.asarray(np.ones(3)), "its graph changes arrays in another way")
    np.testing.assert_allclose(cupy.to_numpy(total), np.full(3, 8 + 0.1 * sum([0, 1, 3, 4, 5, 6, 7, 8])))


@pytest.mark.parametrize(
    ("dtype", "little", "much"),
    [("float64", 1e-8, 1e-5), ("float32", 1e-5, 1e-2), ("float16", 5e-3, 0.2), ("complex64", 1e-5, 1e-2)],
)
def test_how_far_a_graph_may_be_from_the_usual_run(backend, dtype, little, much):
    """Measured by the change: a step of a thousandth is to be right to a thousandth of that."""
    if backend.name == "array_api_strict" and dtype == "float16":
        pytest.skip("array-api-strict has no float16")
    before = RNG.normal(size=1000).astype(dtype)
    change = RNG.normal(size=1000).astype(dtype)
    if "16" not in dtype:
        change *= 1e-3

    def agree(error):
        arrays = before + change, before + change * (1 + error), before
        return capture_module._agree(*(backend.asarray(x.astype(dtype)) for x in arrays))

    assert agree(0)
    assert agree(little)
    assert not agree(much)


def test_numbers_that_must_be_equal(backend):
    def agree(a, b):
        return capture_module._agree(backend.asarray(a), backend.asarray(b))

    assert agree(np.array([1, 2]), np.array([1, 2]))
    assert not agree(np.array([1, 10**6]), np.array([1, 10**6 + 1]))
    assert not agree(np.array([True]), np.array([False]))
    assert agree(np.array([np.nan, np.inf, 1.0]), np.array([np.nan, np.inf, 1.0]))
    assert not agree(np.array([np.nan, 1.0]), np.array([2.0, 1.0]))
    assert not agree(np.array([np.inf, 1.0]), np.array([-np.inf, 1.0]))
    assert not agree(np.ones(2), np.ones(3))
    assert not agree(np.ones(2), np.ones(2, "float32"))
    assert agree(np.ones(0), np.ones(0))
    huge = np.array([3e38, 1.0], "float32")
    assert agree(huge, huge)
    assert not agree(huge, huge * np.float32(0.9))


def test_a_python_value_that_differs_is_given_up(cupy):
    numbers = iter(range(100))
    found = refuses(bp.capture(lambda x: (x, next(numbers))), cupy.asarray(np.ones(1)), "returns another Python value")
    assert [n for _, n in found] == [0, 1, 3, 4, 5, 6, 7, 8]


def test_arguments_that_are_neither_arrays_nor_hashable(cupy):
    captured = bp.capture(lambda x, s: x + len(s))
    with pytest.warns(RuntimeWarning, match="an argument is a set, neither an array nor hashable"):
        assert float(captured(cupy.asarray(np.ones(1)), {1, 2})[0]) == 3


def test_arrays_on_two_devices(cupy):
    if len(cuda_devices()) < 2:
        pytest.skip("there is one device")
    import cupy as cp

    with cp.cuda.Device(1):
        w = cupy.asarray(np.ones(2))
    captured = bp.capture(lambda x: x + w.shape[0])
    with pytest.warns(RuntimeWarning, match="its arrays are on several devices, .*cuda:1.*cuda:0"):
        assert float(captured(cupy.asarray(np.ones(2)))[0]) == 3


def test_a_cell_with_an_array_of_the_host(cupy):
    cell = nn.State(np.zeros(()))

    def step(x):
        cell.value = cell.value + 1
        return x

    refuses(bp.capture(step), cupy.asarray(np.ones(1)), "a cell that holds an array of numpy: move the net")
    assert float(cell.value) == 8


def test_required(backend):
    def step(x):
        return float(x[0])

    captured = bp.capture(step, required=True)
    x = backend.asarray(np.ones(2))

    def calls():
        for _ in range(3):
            captured(x)

    with pytest.raises(NotCapturable, match=r"capture\(step\) cannot run as one CUDA graph"):
        calls()


def test_options_are_checked():
    with pytest.raises(TypeError, match="capture expects a function, got int"):
        bp.capture(3)
    with pytest.raises(TypeError, match="warmup must be a whole number, got 1.5"):
        bp.capture(len, warmup=1.5)
    with pytest.raises(ValueError, match="warmup must be at least 1, got 0"):
        bp.capture(len, warmup=0)
    with pytest.raises(ValueError, match="cache must be at least 1, got 0"):
        bp.capture(len, cache=0)


# -- the user's own errors


@pytest.mark.parametrize("call", range(7))
def test_errors_of_the_step_are_the_users(backend, call):
    """Whenever it comes, an error is raised as it is, state is as usual, and further calls go on."""
    fails = False
    cell = nn.State(backend.asarray(np.zeros(1)))

    def step(x, y=None):
        cell.value = cell.value + 1
        if y is not None:
            raise KeyError("mine")
        return x + cell.value

    captured = bp.capture(step)
    x, count = backend.asarray(np.ones(1)), 0
    for k in range(8):
        fails = k == call
        count += 1
        if fails:
            with pytest.raises(KeyError, match="mine"):
                captured(x, 1)
        else:
            assert float(captured(x)[0]) == 1 + count
    assert float(cell.value[0]) == count
    assert captured.launches == (4 if graphs(backend) else 0)


@pytest.mark.parametrize("call", [0, 1, 2])
def test_errors_before_the_graph_is_verified(cupy, call):
    calls = 0
    state = {"fails": False}

    def step(x):
        if state["fails"]:
            raise KeyError("mine")
        return x + 1

    captured = bp.capture(step)
    x = cupy.asarray(np.ones(1))
    for k in range(9):
        state["fails"] = k == call
        try:
            assert float(captured(x)[0]) == 2
            calls += 1
        except KeyError:
            assert k == call
    assert calls == 8
    assert captured.launches >= 3


# -- nets in training


def network():
    return nn.Sequential(nn.Dense(6, 16), nn.relu, nn.Dropout(0.3), nn.BatchNorm(16), nn.Dense(16, 3), seed=0)


def elementwise():
    """Without a product, whose rounding is another one in a graph: everything is the same to the bit."""
    return nn.Sequential(nn.LayerNorm(6), nn.PReLU(6), nn.Dropout(0.3), nn.BatchNorm(6), nn.softplus, seed=0)


OPTIMIZERS = {
    "Adam": lambda net: optim.Adam(net, 0.01, clip_norm=1.0),
    "AdamW": lambda net: optim.AdamW(net, 0.01, weight_decay=0.1),
    "SGD": lambda net: optim.SGD(net, 0.05, momentum=0.9, nesterov=True, nonfinite="skip"),
    "scaled": lambda net: optim.Adam(net, 0.01, loss_scale="dynamic"),
}


class Training:
    """A net in training, with a new learning rate at every step."""

    def __init__(self, backend, make, optimizer, capture=True):
        self.backend, self.net = backend, bp.to_device(make(), "cupy").train()
        self.opt, self.rng = OPTIMIZERS[optimizer](self.net), np.random.default_rng(1)
        self.gradient = bp.value_and_grad(self.loss)
        self.call = bp.capture(self.step) if capture else self.step
        self.values = []

    def loss(self, net, x, y):
        return losses.softmax_cross_entropy(net(x), y) * (1.0 if self.opt.scale is None else self.opt.scale)

    def step(self, x, y):
        value, grads = self.gradient(self.net, x, y)
        self.opt.step(grads)
        return value

    def run(self, steps, size=8, scale=1.0):
        for _ in range(steps):
            self.opt.lr = 0.01 / (1 + len(self.values) % 7)
            x, y = self.rng.normal(size=(size, 6)).astype("float32") * scale, self.rng.integers(0, 3, size)
            self.values.append(float(self.call(self.backend.asarray(x), self.backend.asarray(y))))

    def state(self):
        return {path: bp.to_numpy(x) for path, x in (self.net.state() | self.opt.state()).items()}


def both(cupy, make, optimizer):
    return Training(cupy, make, optimizer), Training(cupy, make, optimizer, capture=False)


def assert_same(captured, usual, rtol=0.0):
    np.testing.assert_allclose(captured.values, usual.values, rtol=rtol)
    found, expected = captured.state(), usual.state()
    assert found.keys() == expected.keys()
    for path, x in expected.items():
        np.testing.assert_allclose(found[path], x, rtol=0, atol=rtol * np.max(np.abs(x)), err_msg=path)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_training_is_the_same_to_the_bit(cupy, optimizer):
    captured, usual = both(cupy, elementwise, optimizer)
    for training in (captured, usual):
        training.run(40)
    assert_same(captured, usual)
    assert captured.opt.steps == 40
    assert captured.call.launches == 37


def test_training_with_products(cupy):
    captured, usual = both(cupy, network, "Adam")
    for training in (captured, usual):
        training.run(25)
    assert_same(captured, usual, rtol=1e-4)
    assert captured.call.launches == 22


def test_steps_of_two_sizes_share_what_they_change(cupy):
    """As at the end of every epoch: a usual call of one size is followed by a graph of the other."""
    captured, usual = both(cupy, elementwise, "Adam")
    for training in (captured, usual):
        for _ in range(6):
            training.run(5)
            training.run(1, size=3)
    assert_same(captured, usual)
    assert captured.call.launches == 36 - 3 - 3
    assert len(captured.call._graphs) == 2


def test_parameters_that_are_replaced_are_taken_over(cupy):
    captured, usual = both(cupy, elementwise, "Adam")
    for training in (captured, usual):
        training.run(6)
        saved = {path: bp.to_numpy(x) for path, x in training.net.state().items()}
        training.run(6)
        training.net.layers[0].gain = cupy.asarray(np.full(6, 0.5, "float32"))
        training.run(6)
        training.net.load_state(saved)
        training.run(6)
    assert_same(captured, usual)
    assert captured.call.launches >= 24 - 3 - 2
    assert captured.call.reason is None


def test_a_change_of_the_net_makes_a_new_graph(cupy):
    captured, usual = both(cupy, elementwise, "Adam")
    for training in (captured, usual):
        training.run(6)
        training.net.layers[2].rate = 0.5
        training.run(6)
        training.net.freeze("layers[0]")
        training.run(6)
        training.net.eval()
        training.run(6)
        training.opt.betas = (0.8, 0.9)
        training.run(6)
    assert_same(captured, usual)
    assert captured.call.reason is None
    assert captured.call.launches >= 30 - 3 - 3 * 2


def test_steps_with_gradients_that_are_not_finite_are_skipped(cupy):
    captured, usual = both(cupy, lambda: nn.Sequential(nn.PReLU(6), nn.softplus, seed=0), "scaled")
    for training in (captured, usual):
        training.run(6)
        training.run(2, scale=np.inf)
        training.run(6)
    assert_same(captured, usual)
    assert captured.opt.skipped == usual.opt.skipped == 2
    assert captured.call.launches == 11


def test_an_optimizer_without_a_kernel_makes_new_arrays(cupy):
    tree = {"z": cupy.asarray(np.ones(3, "complex64"))}
    opt = optim.SGD(tree, 0.5)
    captured = bp.capture(lambda g: opt.step({"z": g}))
    refuses(captured, cupy.asarray(np.ones(3, "complex64")), "since its optimizer makes new arrays at every step")
    np.testing.assert_array_equal(cupy.to_numpy(tree["z"]), np.full(3, 1 - 8 * 0.5))
    assert opt.steps == 8


@pytest.mark.parametrize(("precision", "rtol"), [(None, 1e-4), ("float16", 5e-3), ("bfloat16", 3e-2)])
def test_fit(cupy, precision, rtol):
    x = RNG.normal(size=(50, 6)).astype("float32")
    data = x, RNG.integers(0, 3, 50)
    history = []
    for capture in (False, "auto", True):
        net = bp.to_device(network(), "cupy")
        history.append(
            bp.fit(
                net,
                lambda net, x, y: losses.softmax_cross_entropy(net(x), y),
                optim.Adam(net, 0.01),
                *(data,),
                epochs=4,
                batch_size=16,
                progress=False,
                precision=precision,
                capture=capture,
            )
        )
    for others in history[1:]:
        for row, expected in zip(others, history[0], strict=True):
            assert list(row) == list(expected)
            np.testing.assert_allclose(row["loss"], expected["loss"], rtol=rtol)


# -- where it is called


def test_inside_a_recording_and_inside_a_transform_it_is_a_part_of_that(cupy):
    inner = bp.capture(lambda x: x * x)
    outer = bp.capture(lambda x: inner(x) + bp.grad(lambda x: inner(x)[0])(x))
    for k in range(6):
        assert float(outer(cupy.asarray(np.full(1, float(k))))[0]) == k * k + 2 * k
    assert outer.launches == 3
    assert inner.launches == 0
    assert bp.grad(lambda x: inner(x)[0])(cupy.asarray(np.full(1, 3.0)))[0] == 6


def test_threads(cupy):
    """One step may be called from several threads, and several steps at the same time."""
    shared, wrong = bp.capture(lambda x: x + 1), []

    def work(k):
        own = bp.capture(lambda x: x * k)
        for n in range(20):
            x = cupy.asarray(np.full(2, float(n)))
            if float(own(x)[0]) != n * k or float(shared(x)[0]) != n + 1:
                wrong.append((k, n))

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert shared.launches > 0


def test_nothing_grows_in_a_thousand_calls(cupy):
    import cupy as cp

    cell, total = nn.State(cupy.asarray(np.zeros(100))), cupy.asarray(np.zeros(100))

    def step(x):
        cell.value = cell.value + x * x
        total[...] = total + cell.value
        return x.sum()

    captured = bp.capture(step)
    pools = []
    for k in range(1000):
        captured(cupy.asarray(np.ones(100)))
        if k in (4, 999):
            gc.collect()
            pools.append((captured._recorder.pool.total_bytes(), cp.get_default_memory_pool().used_bytes()))
    assert pools[0] == pools[1]
    assert captured.launches == 997
    np.testing.assert_array_equal(cupy.to_numpy(total), np.full(100, 1000 * 1001 / 2))


def test_its_memory_goes_with_it(cupy):
    """Without waiting for the collector of cycles."""
    w = cupy.asarray(np.ones(100))

    def captured():
        step = bp.capture(lambda x: x * w + 1)
        for _ in range(6):
            step(cupy.asarray(np.ones(100)))
        assert step.launches == 3
        return weakref.ref(step), weakref.ref(step._recorder)

    gc.collect()
    gc.disable()
    try:
        assert [ref() for ref in captured()] == [None, None]
    finally:
        gc.enable()
