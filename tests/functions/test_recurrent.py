import numpy as np
import pytest

import gpubp as bp
from gpubp import functions as F
from gpubp.fused import FUSED
from gpubp.tree import leaves

rng = np.random.default_rng(0)
GATES = {"rnn": 1, "lstm": 4, "gru": 3}
MASK = np.array([[True] * 5, [True] * 3 + [False] * 2, [True] + [False] * 4, [True] * 4 + [False]])
LENGTHS = [5, 3, 1, 4]
names = pytest.mark.parametrize("name", GATES)
directions = pytest.mark.parametrize("reverse", [False, True])


def arguments(name, batch=4, time=5, n_in=3, n=2, dtype="float64"):
    """Return x, W, U, the biases and the states."""
    g = GATES[name] * n
    shapes = [(batch, time, n_in), (n_in, g), (n, g), (g,), *[(n,)] * (name == "gru"), (batch, n)]
    return [rng.normal(size=s).astype(dtype) for s in [*shapes, *[(batch, n)] * (name == "lstm")]]


def every(args):
    return tuple(range(len(args)))


def unrolled(name, mask=None, reverse=False):
    """Return the network written out in NumPy."""

    def sigmoid(z):
        return 1 / (1 + np.exp(-z))

    def step(x, h, c, W, U, b, b_hn):
        if name == "rnn":
            return np.tanh(x @ W + h @ U + b), c
        if name == "lstm":
            i, f, g, o = np.split(x @ W + h @ U + b, 4, axis=1)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            return sigmoid(o) * np.tanh(c), c
        W_r, W_z, W_n = np.split(W, 3, axis=1)
        U_r, U_z, U_n = np.split(U, 3, axis=1)
        b_r, b_z, b_n = np.split(b, 3)
        r, z = sigmoid(x @ W_r + h @ U_r + b_r), sigmoid(x @ W_z + h @ U_z + b_z)
        return (1 - z) * np.tanh(x @ W_n + b_n + r * (h @ U_n + b_hn)) + z * h, c

    def f(x, W, U, b, *rest):
        b_hn, (h, *c) = (rest[0], rest[1:]) if name == "gru" else (None, rest)
        c = c[0] if c else h
        outputs = [None] * x.shape[1]
        for t in range(x.shape[1])[:: -1 if reverse else 1]:
            new_h, new_c = step(x[:, t], h, c, W, U, b, b_hn)
            there = np.ones((len(x), 1)) if mask is None else mask[:, t, None] * 1.0
            h, c = there * new_h + (1 - there) * h, there * new_c + (1 - there) * c
            outputs[t] = there * new_h
        return np.stack(outputs, axis=1), h, *((c,) if name == "lstm" else ())

    return f


def compare(found, expected, tolerance=1e-12):
    for a, e in zip(leaves(found), leaves(expected), strict=True):
        np.testing.assert_allclose(a, e, rtol=tolerance, atol=tolerance)


# -- what they compute, and every gradient


@names
@directions
@pytest.mark.parametrize("mask", [None, MASK, MASK[:, ::-1]], ids=["whole", "padded behind", "padded before"])
@pytest.mark.parametrize("run", [lambda f: f, lambda f: f.reference], ids=["fused", "reference"])
def test_backpropagation_through_time_is_that_of_the_network_written_out(name, reverse, mask, run):
    args = arguments(name)
    masks = [] if mask is None else [mask]
    found, pullback = bp.vjp(lambda *args: run(FUSED[name])(*args, *masks, reverse=reverse), *args)
    expected, definition = bp.vjp(unrolled(name, mask, reverse), *args)
    compare(found, expected)
    cotangents = tuple(rng.normal(size=y.shape) for y in found)
    compare(pullback(cotangents), definition(cotangents))
    compare(pullback(cotangents), definition(cotangents))  # and once more


@names
@pytest.mark.parametrize("which", [0, 1, 2])
def test_outputs_that_nobody_uses(name, which):
    """The loss may depend on the outputs alone, or on one of the last states."""
    args = arguments(name)
    which %= 3 if name == "lstm" else 2
    found = bp.grad(lambda *a: np.sum(FUSED[name](*a, MASK)[which] ** 2), every(args))(*args)
    expected = bp.grad(lambda *a: np.sum(unrolled(name, MASK)(*a)[which] ** 2), every(args))(*args)
    compare(found, expected)


@names
@directions
def test_what_stands_in_the_padding_does_not_matter(name, reverse):
    x, *others = arguments(name)
    other = np.where(MASK[..., None], x, rng.normal(size=x.shape))
    f = FUSED[name]
    compare(f(other, *others, MASK, reverse=reverse), f(x, *others, MASK, reverse=reverse), 0)
    y, h, *_ = f(x, *others, MASK, reverse=reverse)
    assert not y[~MASK].any()
    for k, length in enumerate(LENGTHS):  # as if each sequence came alone
        states = [s[k : k + 1] for s in others[3 if name != "gru" else 4 :]]
        alone = f(x[k : k + 1, :length], *others[: len(others) - len(states)], *states, reverse=reverse)
        compare((y[k, :length], h[k]), (alone[0][0], alone[1][0]))
    dx = bp.grad(lambda x: np.sum(f(x, *others, MASK, reverse=reverse)[1] ** 2))(x)
    assert not dx[~MASK].any()
    assert dx[MASK].all()


@names
def test_a_sequence_without_steps_keeps_its_state(name):
    args = arguments(name)
    y, *states = FUSED[name](*args, np.zeros((4, 5), dtype=bool))
    assert not y.any()
    compare(states, args[-len(states) :], 0)
    gradient = bp.grad(lambda h: np.sum(FUSED[name](*args[:-1], h, np.zeros((4, 5), dtype=bool))[-1] ** 2))(args[-1])
    compare(gradient, 2 * args[-1], 0)


@names
def test_backwards_is_forwards_in_a_mirror(name):
    x, *others = arguments(name)
    y, *states = FUSED[name](x, *others, reverse=True)
    mirrored, *mirrored_states = FUSED[name](x[:, ::-1], *others)
    compare((y, *states), (mirrored[:, ::-1], *mirrored_states))
    compare(y[:, 0], states[0], 0)


@names
def test_a_sequence_is_its_steps(name):
    x, W, U, *others = arguments(name)
    biases, states = others[: 2 if name == "gru" else 1], others[2 if name == "gru" else 1 :]
    y, *last = FUSED[name](x, W, U, *others)
    for t in range(5):
        states = FUSED[f"{name}_cell"](x[:, t], *states, W, U, *biases)
        states = states if type(states) is tuple else (states,)
        compare(y[:, t], states[0])
    compare(last, states)


@names
def test_states_start_at_zero_and_biases_may_be_missing(name):
    x, W, U, *others = arguments(name)
    compare(FUSED[name](x, W, U), FUSED[name](x, W, U, *map(np.zeros_like, others)))


def test_gates_at_their_ends():
    x, h, c, W = np.zeros((1, 1)), np.array([[0.3]]), np.array([[0.7]]), np.zeros((1, 4))
    keep = np.array([-50.0, 50.0, 0.0, 50.0])  # i, f, g, o
    compare(F.lstm_cell(x, h, c, W, W, keep), (np.tanh(c), c))
    assert bp.grad(lambda c: np.sum(F.lstm(x[None], W, W, keep, h, c)[2]))(c) == pytest.approx(1)  # the carousel
    write = np.array([50.0, -50.0, 0.5, 50.0])
    compare(F.lstm_cell(x, h, c, W, W, write), (np.tanh(np.tanh([[0.5]])), np.tanh([[0.5]])))
    W = np.zeros((1, 3))
    compare(F.gru_cell(x, h, W, W, np.array([0.0, 50.0, 0.5])), h)  # r, z, n
    compare(F.gru_cell(x, h, W, W, np.array([-50.0, -50.0, 0.5]), np.array([9.0])), np.tanh([[0.5]]))
    compare(F.gru_cell(x, h, W, W, np.array([50.0, -50.0, 0.5]), np.array([0.25])), np.tanh([[0.75]]))


@pytest.mark.parametrize("run", [F.rnn, F.rnn.reference, FUSED["rnn"].written])
def test_the_rectifier_has_slope_0_at_0(run):
    x, W, U = np.zeros((1, 3, 1)), np.ones((1, 1)), np.ones((1, 1))
    if run is FUSED["rnn"].written:
        y, residuals = run.forward(np, (True,), x, W, U, activation="relu")
        dx = run.backward(np, (True,), y, residuals, activation="relu")[0]
    else:
        dx = bp.grad(lambda x: np.sum(run(x, W, U, activation="relu")[0]))(x)
    assert not dx.any()


@pytest.mark.filterwarnings("error")
@names
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("run", [lambda f: f, lambda f: f.reference], ids=["fused", "reference"])
def test_huge_inputs_saturate(name, dtype, run):
    x, *others = arguments(name, dtype=dtype)
    args = [1e4 * x, *others]
    value, grads = bp.value_and_grad(lambda *a: np.sum(run(FUSED[name])(*a)[0]), every(args))(*args)
    assert np.isfinite(value)
    assert all(np.isfinite(g).all() and g.dtype == dtype for g in grads)


@names
def test_only_what_is_needed_is_computed_and_kept(name):
    implementation, args = FUSED[name].written, arguments(name)
    for wanted in range(len(args)):
        needs = tuple(k == wanted for k in range(len(args)))
        out, residuals = implementation.forward(np, needs, *args)
        found = implementation.backward(np, needs, out, residuals)
        weights = range(5 if name == "gru" else 4)
        assert [k for k in weights if found[k] is not None] == [k for k in weights if k == wanted]
    _, (_, _, steps, _) = implementation.forward(np, (False,) * len(args), *args)
    assert steps == []


@names
def test_the_input_is_left_alone(name):
    args = arguments(name)
    before = [x.copy() for x in args]
    for x in args:
        x.flags.writeable = False
    out, pullback = bp.vjp(lambda *a: FUSED[name](*a, MASK), *args)
    cotangents = tuple(rng.normal(size=y.shape) for y in out)
    copies = [c.copy() for c in cotangents]
    pullback(cotangents)
    compare((args, cotangents), (before, copies), 0)


# -- PyTorch


@pytest.mark.peers
@pytest.mark.parametrize("name", ["rnn", "relu", "lstm", "gru"])
@pytest.mark.parametrize("packed", [False, True])
def test_values_and_gradients_are_pytorchs(name, packed):
    torch = pytest.importorskip("torch")
    static = {"activation": "relu"} if name == "relu" else {}
    kind, options = (name, {}) if name != "relu" else ("rnn", {"nonlinearity": "relu"})
    x, W, U, *others = arguments(kind)
    net = getattr(torch.nn, kind.upper())(3, 2, batch_first=True, dtype=torch.float64, **options)
    b, *b_hn = others[: 2 if kind == "gru" else 1]
    recurrent_bias = np.concatenate([np.zeros(4), *b_hn]) if b_hn else np.zeros_like(b)
    for p, value in zip(net.parameters(), (W.T, U.T, b, recurrent_bias), strict=True):
        p.data = torch.tensor(value)
    x_t = torch.tensor(x, requires_grad=True)
    states_t = [torch.tensor(s, requires_grad=True) for s in others[1 + len(b_hn) :]]
    given = [s[None] for s in states_t]
    pack, pad = torch.nn.utils.rnn.pack_padded_sequence, torch.nn.utils.rnn.pad_packed_sequence
    inner = pack(x_t, LENGTHS, batch_first=True, enforce_sorted=False) if packed else x_t
    y_t, last = net(inner, tuple(given) if len(given) > 1 else given[0])
    y_t = pad(y_t, batch_first=True, total_length=5)[0] if packed else y_t
    expected = [y_t, *(s[0] for s in (last if type(last) is tuple else (last,)))]

    masks = [MASK] if packed else []
    out, pullback = bp.vjp(lambda *args: FUSED[kind](*args, *masks, **static), x, W, U, *others)
    cotangents = tuple(rng.normal(size=y.shape) for y in out)
    compare(out, [y.detach().numpy() for y in expected], 1e-10)
    inputs = [x_t, *net.parameters(), *states_t]
    dx, dW, dU, db, db_h, *dstates = (
        g.numpy() for g in torch.autograd.grad(expected, inputs, [torch.tensor(c) for c in cotangents])
    )
    compare(pullback(cotangents), (dx, dW.T, dU.T, db, *[db_h[4:] for _ in b_hn], *dstates), 1e-10)


# -- errors


def check(error, message, f, *args, **kwargs):
    for run in (f, f.reference):
        with pytest.raises(error, match=message):
            run(*args, **kwargs)


@names
def test_shapes_that_do_not_fit(name):
    f, cell, gates = FUSED[name], FUSED[f"{name}_cell"], GATES[name]
    times = rf"{gates} n" if gates > 1 else "n"
    x, W, U = arguments(name)[:3]
    check(ValueError, rf"{name} expects x of shape \(batch, time, n_in\), got \(5, 3\)", f, x[0], W, U)
    check(ValueError, rf"{name} expects at least one time step, got x of shape \(4, 0, 3\)", f, x[:, :0], W, U)
    message = (
        rf"{name} expects x of shape \(batch, time, n_in\), W of shape \(n_in, {times}\) and U of shape \(n, {times}\)"
    )
    check(ValueError, rf"{message}, got \(4, 5, 2\), \(3, {2 * gates}\)", f, x[..., :2], W, U)
    check(ValueError, rf"{message}, got .* and \(1, {2 * gates}\)", f, x, W, U[:1])
    check(ValueError, rf"{message}, got .* and \({2 * gates},\)", f, x, W, U[0])
    check(ValueError, rf"expects b of shape \({2 * gates},\) with .*, got \(1,\)", f, x, W, U, np.ones(1))
    biases = [None] * (2 if name == "gru" else 1)
    state = np.ones((4, 3))
    check(ValueError, r"expects h0 of shape \(4, 2\) with x of .*, got \(4, 3\)", f, x, W, U, *biases, state)
    states = [x[:, 0]] * (2 if name == "lstm" else 1)
    check(ValueError, rf"{name}_cell expects x of shape \(batch, n_in\), got \(4, 5, 3\)", cell, x, *states, W, U)


def test_further_states_and_biases_that_do_not_fit():
    x, W, U, b, h, c = arguments("lstm")
    check(ValueError, r"lstm expects c0 of shape \(4, 2\) .*, got \(1, 2\)", F.lstm, x, W, U, b, h, c[:1])
    check(ValueError, r"lstm_cell expects c of shape \(4, 2\) .*, got \(1, 2\)", F.lstm_cell, x[:, 0], h, c[:1], W, U)
    x, W, U, b, _, h = arguments("gru")
    check(ValueError, r"gru expects b_hn of shape \(2,\) .*, got \(6,\)", F.gru, x, W, U, b, b)
    check(ValueError, r"gru_cell expects b_hn of shape \(2,\) .*, got \(6,\)", F.gru_cell, x[:, 0], h, W, U, b, b)


@names
def test_masks_that_do_not_fit(name):
    args, f = arguments(name), FUSED[name]
    check(TypeError, rf"{name} expects a boolean mask, got int64", f, *args, MASK.astype("int64"))
    check(ValueError, r"mask of shape \(batch, time\) = \(4, 5\), got \(5, 4\)", f, *args, MASK.T)
    strict = pytest.importorskip("array_api_strict")
    check(TypeError, "x of numpy, mask of array_api_strict", f, *args, strict.asarray(MASK))


@names
def test_dtypes_that_differ_are_named(name):
    x, W, U = arguments(name)[:3]
    check(TypeError, f"{name} expects arrays of one .* x of float32, W of float64", FUSED[name], x.astype("f4"), W, U)
    check(
        TypeError, "h0 of float32", FUSED[name], x, W, U, *[None] * (2 if name == "gru" else 1), np.ones((4, 2), "f4")
    )
    check(TypeError, "real arrays, got complex128", FUSED[name], x + 0j, W + 0j, U + 0j)


def test_an_unknown_activation():
    x, W, U, _, h = arguments("rnn")
    message = "expects an activation among tanh, relu, got 'sigmoid'"
    check(ValueError, f"rnn {message}", F.rnn, x, W, U, activation="sigmoid")
    check(ValueError, f"rnn_cell {message}", F.rnn_cell, x[:, 0], h, W, U, activation="sigmoid")
