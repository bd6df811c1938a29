import copy
import pickle

import numpy as np
import pytest

import gpubp as bp
from gpubp import losses, nn, optim
from gpubp.tree import leaves, map_leaves

rng = np.random.default_rng(0)
X = rng.normal(size=(4, 5, 3))
LENGTHS = [5, 3, 1, 4]
MASK = np.arange(5) < np.array(LENGTHS)[:, None]
KINDS = {"RNN": nn.RNN, "LSTM": nn.LSTM, "GRU": nn.GRU}
CELLS = {"RNN": nn.RNNCell, "LSTM": nn.LSTMCell, "GRU": nn.GRUCell}
GATES = {"RNN": 1, "LSTM": 4, "GRU": 3}
kinds = pytest.mark.parametrize("kind", KINDS)


def layer(kind, n_in=3, n=2, **options):
    """Return a layer in float64 whose biases are not zero."""
    net = KINDS[kind](n_in, n, seed=0, dtype="float64", **options)
    draw = np.random.default_rng(1)
    return map_leaves(lambda p: p + draw.normal(size=p.shape) * (p.ndim == 1), net)


def close(found, expected, tolerance=1e-12):
    for a, e in zip(leaves(found), leaves(expected), strict=True):
        np.testing.assert_allclose(a, e, rtol=tolerance, atol=tolerance)


def drawn_states(net, batch=4):
    return map_leaves(lambda s: rng.normal(size=s.shape), net.run(X)[1])


# -- what they compute


@kinds
def test_a_layer_is_its_cell_step_by_step(kind):
    net = layer(kind)
    y, (state,) = net.run(X)
    assert y.shape == net(X).shape == (4, 5, 2)
    s = None
    for t in range(5):
        s = net.cells[0](X[:, t], s)
        close(y[:, t], s[0] if kind == "LSTM" else s)
    close(state, s)


@kinds
def test_layers_and_directions(kind):
    net = layer(kind, layers=2, bidirectional=True)
    assert [type(c) for c in net.cells + net.reverse_cells] == [CELLS[kind]] * 4
    x = X
    for k in range(2):
        one, other = (layer(kind, x.shape[2]) for _ in range(2))
        one.cells, other.cells = (net.cells[k],), (net.reverse_cells[k],)
        x = np.concatenate([one(x), other(x[:, ::-1])[:, ::-1]], axis=2)
    close(net(X), x)


@kinds
@pytest.mark.parametrize("bidirectional", [False, True])
def test_the_last_output_is_that_of_each_sequences_last_step(kind, bidirectional):
    net = layer(kind, layers=2, bidirectional=bidirectional)
    whole = net(X, lengths=LENGTHS)
    net.last = True
    last = net(X, lengths=LENGTHS)
    assert last.shape == (4, 4 if bidirectional else 2)
    for k, length in enumerate(LENGTHS):
        close(last[k, :2], whole[k, length - 1, :2])
        close(last[k, 2:], whole[k, 0, 2:])


@kinds
def test_sequences_of_several_lengths(kind):
    net = layer(kind, layers=2, bidirectional=True)
    y, state = net.run(X, lengths=LENGTHS)
    assert not y[~MASK].any()
    for other in (
        net.run(X, mask=MASK),
        net.run(X, lengths=np.array(LENGTHS, dtype="uint8")),
        net.run(np.where(MASK[..., None], X, 9.0), lengths=tuple(LENGTHS)),
    ):
        close((y, state), other, 0)
    for k, length in enumerate(LENGTHS):
        alone, last = net.run(X[k : k + 1, :length])
        close(y[k, :length], alone[0])
        close([s[k] for s in leaves(state)], [s[0] for s in leaves(last)])


@kinds
def test_a_state_is_carried_on(kind):
    net = layer(kind, layers=2)
    y, state = net.run(X)
    first, between = net.run(X[:, :2])
    second, last = net.run(X[:, 2:], between)
    close((np.concatenate([first, second], axis=1), last), (y, state))
    close(net(X[:, 2:], between), second, 0)


def test_it_works_in_a_sequential():
    net = nn.Sequential(nn.LSTM(3, 8, bidirectional=True), nn.GRU(16, 4, last=True), nn.Dense(4, 2), seed=0)
    opt, x, labels = optim.Adam(net, 0.02), X.astype("f4"), np.array([0, 1, 1, 0])
    step = bp.value_and_grad(lambda net: losses.softmax_cross_entropy(net(x), labels))
    values = []
    for _ in range(60):
        value, grads = step(net)
        opt.step(grads)
        values.append(value)
    assert values[-1] < 0.1 * values[0]
    assert repr(net) == "Sequential(LSTM(3, 8, bidirectional=True), GRU(16, 4, last=True), Dense(4, 2))"
    assert [line.split()[-4:-1] for line in nn.summary(net, (2, 5, 3)).splitlines()[3:5]] == [
        ["(2,", "5,", "16)"],
        ["last=True)", "(2,", "4)"],
    ]


@kinds
def test_another_library_computes_the_same(kind, backend):
    net = layer(kind, layers=2, bidirectional=True)
    there = map_leaves(backend.asarray, net)
    lengths = backend.asarray(np.array(LENGTHS))

    def loss(net, x, lengths):
        xp = bp.array_namespace(x)
        y, state = net.run(x, lengths=lengths)
        return xp.sum(y * y) + xp.sum(leaves(state)[0])

    value, grads = bp.value_and_grad(loss)(net, X, np.array(LENGTHS))
    found, found_grads = bp.value_and_grad(loss)(there, backend.asarray(X), lengths)
    close(backend.to_numpy(found), value, 1e-12)
    close([backend.to_numpy(g) for g in leaves(found_grads)], leaves(grads), 1e-11)


def test_lengths_of_8_bits_for_more_steps_than_they_can_count():
    net, x = nn.RNN(1, 1, seed=0), np.ones((1, 300, 1), dtype="float32")
    y = net(x, lengths=np.array([200], dtype="uint8"))
    np.testing.assert_array_equal(y, net(x, lengths=[200]))
    assert y[:, :200].all()
    assert not y[:, 200:].any()


def test_masks_from_lengths_read_nothing_on_the_host():
    backend = bp.testing.backends.load("standin")
    net = map_leaves(backend.asarray, nn.LSTM(3, 2, bidirectional=True, last=True, seed=0, dtype="float64"))
    x, lengths, target = map(backend.asarray, (X, np.array(LENGTHS), np.ones((4, 4))))
    with backend.xp.no_host_reads():
        bp.grad(lambda net: losses.mse(net(x, lengths=lengths), target))(net)


# -- truncated backpropagation through time


@kinds
def test_a_stopped_state_carries_values_and_no_gradient(kind):
    net, head, tail = layer(kind), X[:, :2], X[:, 2:]

    def loss(net, head, through):
        state = net.run(head)[1]
        return np.sum(net(tail, through(state)) ** 2)

    (value, flows), (stopped_value, stopped) = (
        bp.value_and_grad(loss, (0, 1))(net, head, through) for through in (lambda state: state, bp.stop_gradient)
    )
    assert stopped_value == value == loss(net, head, lambda state: state)
    assert flows[1].all()
    assert not stopped[1].any()
    between = net.run(head)[1]
    close(stopped[0], bp.grad(lambda net: np.sum(net(tail, between) ** 2))(net))
    assert np.abs(flows[0].cells[0].W - stopped[0].cells[0].W).max() > 1e-3


@kinds
def test_a_state_beside_the_loss_is_plain_and_starts_the_next_piece(kind):
    net, state = layer(kind), None
    step = bp.value_and_grad(lambda net, x, state: (lambda y, s: (np.sum(y**2), s))(*net.run(x, state)), has_aux=True)
    pieces, total = [X[:, :2], X[:, 2:4], X[:, 4:]], 0.0
    for piece in pieces:
        before = state
        (value, state), grads = step(net, piece, before)
        assert all(type(s) is np.ndarray for s in leaves(state))
        total += value
        close(grads, bp.grad(lambda net, piece=piece, before=before: np.sum(net(piece, before) ** 2))(net), 0)
    assert total == pytest.approx(np.sum(net(X) ** 2), rel=1e-12)


# -- dropout


def test_dropout_stands_between_layers_in_training_alone():
    net = layer("LSTM", layers=3, dropout=0.5)
    plain = layer("LSTM", layers=3)
    plain.cells = net.cells
    close(net(X), plain(X), 0)
    net.train()
    first, second = net(X), net(X)
    assert np.abs(first - plain(X)).max() > 1e-3
    assert np.abs(first - second).max() > 1e-3
    assert int(net.dropout.calls.value) == 4
    single = layer("LSTM", layers=2, dropout=0.5).train()
    below = single.cells[0].over(X, None, None, False)[0]
    again = copy.deepcopy(single)
    close(single(X), again.cells[1].over(again.dropout(below), None, None, False)[0], 0)


# -- parameters


@kinds
def test_parameters_and_their_defaults(kind):
    net = KINDS[kind](6, 4, layers=2, bidirectional=True, seed=0)
    g = GATES[kind]
    extra = {f"{c}[{k}].b_hn": (4,) for c in ("cells", "reverse_cells") for k in range(2)} if kind == "GRU" else {}
    assert {path: p.shape for path, p in net.parameters().items()} == {
        f"{c}[{k}].{name}": shape
        for c in ("cells", "reverse_cells")
        for k, n_in in enumerate((6, 8))
        for name, shape in {"W": (n_in, 4 * g), "U": (4, 4 * g), "b": (4 * g,)}.items()
    } | extra
    cell = net.cells[0]
    for gate in np.split(cell.U, g, axis=1):
        np.testing.assert_allclose(gate @ gate.T, np.eye(4), atol=1e-6)
    assert np.abs(cell.W).max() <= np.sqrt(6 / (6 + 4))  # of one gate, not of all
    assert np.abs(cell.W).max() > 0.9 * np.sqrt(6 / (6 + 4)) * (g > 1)
    expected = np.zeros(4 * g)
    if kind == "LSTM":
        expected[4:8] = 1
    np.testing.assert_array_equal(cell.b, expected)
    assert len({p.tobytes() for p in net.parameters().values() if p.ndim == 2}) == 8


@kinds
def test_options_of_the_parameters(kind):
    options = {"W_init": nn.constant(2.0), "U_init": nn.constant(3.0), "b_init": nn.constant(4.0)}
    for made in (KINDS[kind](3, 2, seed=0, **options).cells[0], CELLS[kind](3, 2, seed=0, **options)):
        assert [(p == v).all() for p, v in zip((made.W, made.U, made.b), (2, 3, 4), strict=True)] == [True] * 3
    net = KINDS[kind](3, 2, bias=False, layers=2, seed=0, dtype="float64")
    assert {path.rpartition(".")[2] for path in net.parameters()} == {"W", "U"}
    assert net(X).shape == (4, 5, 2)
    assert repr(net) == f"{kind}(3, 2, layers=2, bias=False)"
    assert repr(net.cells[0]) == f"{kind}Cell(3, 2, bias=False)"


def test_the_rectifier():
    net = nn.RNN(3, 2, nn.relu, layers=2, dropout=0.25, seed=0, dtype="float64")
    assert (net(X) >= 0).all()
    assert repr(net) == "RNN(3, 2, relu, layers=2, dropout=0.25)"
    assert repr(net.cells[0]) == "RNNCell(3, 2, relu)"
    close(net.cells[0](X[:, 0]), np.maximum(X[:, 0] @ net.cells[0].W, 0))


@kinds
def test_the_first_batch_gives_a_missing_length(kind):
    net = nn.Sequential(KINDS[kind](None, 2, layers=2, bidirectional=True), nn.Dense(None, 1), seed=0)
    assert net.build(X.astype("f4")).layers[0].cells[0].W.shape == (3, 2 * GATES[kind])
    told = nn.Sequential(KINDS[kind](3, 2, layers=2, bidirectional=True), nn.Dense(4, 1), seed=0)
    close(net.parameters(), told.parameters(), 0)
    cell = CELLS[kind](None, 2, seed=0)
    assert repr(cell) == f"{kind}Cell(None, 2)"
    cell(X[:, 0].astype("f4"))
    assert repr(cell) == f"{kind}Cell(3, 2)"


@kinds
def test_copies_pickles_and_files(kind, tmp_path):
    net = layer(kind, layers=2, bidirectional=True, dropout=0.5)
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net)), net.copy()):
        close(other(X), net(X), 0)
    bp.save(net, tmp_path / "net.safetensors")
    fresh = KINDS[kind](3, 2, layers=2, bidirectional=True, dropout=0.5, seed=7, dtype="float64")
    bp.load(tmp_path / "net.safetensors", fresh)
    close(fresh(X), net(X), 0)


# -- PyTorch


@pytest.mark.peers
@kinds
@pytest.mark.parametrize("packed", [False, True])
def test_values_and_gradients_are_pytorchs(kind, packed):
    torch = pytest.importorskip("torch")
    net = layer(kind, layers=2, bidirectional=True)
    peer = getattr(torch.nn, kind)(3, 2, 2, batch_first=True, bidirectional=True, dtype=torch.float64)
    for k in range(2):
        for cell, suffix in ((net.cells[k], f"l{k}"), (net.reverse_cells[k], f"l{k}_reverse")):
            recurrent_bias = np.zeros_like(cell.b)
            if kind == "GRU":
                recurrent_bias[4:] = cell.b_hn
            for name, value in (
                *(("weight_ih", cell.W.T), ("weight_hh", cell.U.T)),
                *(("bias_ih", cell.b), ("bias_hh", recurrent_bias)),
            ):
                getattr(peer, f"{name}_{suffix}").data = torch.tensor(value)
    state = drawn_states(net)
    parts = list(zip(*state, strict=True)) if kind == "LSTM" else [state]
    states_t = [torch.tensor(np.stack(part), requires_grad=True) for part in parts]
    x_t = torch.tensor(X, requires_grad=True)
    pack, pad = torch.nn.utils.rnn.pack_padded_sequence, torch.nn.utils.rnn.pad_packed_sequence
    inner = pack(x_t, LENGTHS, batch_first=True, enforce_sorted=False) if packed else x_t
    y_t, last = peer(inner, tuple(states_t) if kind == "LSTM" else states_t[0])
    y_t = pad(y_t, batch_first=True, total_length=5)[0] if packed else y_t
    expected = [y_t, *(last if type(last) is tuple else (last,))]

    lengths = LENGTHS if packed else None
    (y, after), pullback = bp.vjp(lambda net, x, state: net.run(x, state, lengths=lengths), net, X, state)
    close(y, y_t.detach().numpy(), 1e-10)
    stacked = [np.stack(part) for part in (zip(*after, strict=True) if kind == "LSTM" else [after])]
    close(stacked, [s.detach().numpy() for s in expected[1:]], 1e-10)

    cotangents = y_bar, after_bar = map_leaves(lambda a: rng.normal(size=a.shape), (y, after))
    bars = [y_bar, *(np.stack(part) for part in (zip(*after_bar, strict=True) if kind == "LSTM" else [after_bar]))]
    grads = torch.autograd.grad(expected, [x_t, *states_t, *peer.parameters()], [torch.tensor(b) for b in bars])
    dnet, dx, dstate = pullback(cotangents)
    close(dx, grads[0].numpy(), 1e-10)
    dparts = [np.stack(part) for part in (zip(*dstate, strict=True) if kind == "LSTM" else [dstate])]
    close(dparts, [g.numpy() for g in grads[1 : 1 + len(parts)]], 1e-10)
    theirs = dict(zip([n for n, _ in peer.named_parameters()], grads[1 + len(parts) :], strict=True))
    for k in range(2):
        for cell, suffix in ((dnet.cells[k], f"l{k}"), (dnet.reverse_cells[k], f"l{k}_reverse")):
            close(cell.W, theirs[f"weight_ih_{suffix}"].numpy().T, 1e-10)
            close(cell.U, theirs[f"weight_hh_{suffix}"].numpy().T, 1e-10)
            close(cell.b, theirs[f"bias_ih_{suffix}"].numpy(), 1e-10)
            if kind == "GRU":
                close(cell.b_hn, theirs[f"bias_hh_{suffix}"].numpy()[4:], 1e-10)


# -- second derivatives


@kinds
def test_a_gradient_penalty(kind):
    """The derivative by the parameters of the norm of the gradient by the input, against finite differences."""
    net = layer(kind, layers=2, bidirectional=True, last=True)
    bp.testing.check_grads(
        lambda net: np.sum(bp.grad(lambda x: np.sum(net(x, lengths=LENGTHS) ** 2))(X) ** 2), (net,), order=1
    )


@kinds
def test_a_checkpoint_computes_the_same(kind):
    net = layer(kind, layers=2, dropout=0.5).train()
    again = copy.deepcopy(net)
    found = bp.grad(lambda net: np.sum(bp.checkpoint(lambda net: net(X))(net) ** 2))(net)
    close(found, bp.grad(lambda net: np.sum(net(X) ** 2))(again))


# -- errors


@kinds
def test_inputs_that_do_not_fit(kind):
    net, cell = KINDS[kind](3, 2, layers=2, seed=0), CELLS[kind](3, 2, seed=0)
    x = X.astype("f4")
    for bad, shape in ((x[:, 0], r"\(4, 3\)"), (x[..., :2], r"\(4, 5, 2\)")):
        with pytest.raises(
            ValueError, match=rf"{kind}Cell\(3, 2\) expects an input of shape \(batch, time, 3\), got {shape}"
        ) as caught:
            net(bad, lengths=LENGTHS)
        assert caught.value.__notes__ == [f"in layer 0 of {kind}(3, 2, layers=2)"]
    with pytest.raises(ValueError, match=r"one time step, got x of shape \(4, 0, 3\)"):
        net(x[:, :0])
    with pytest.raises(
        ValueError, match=rf"{kind}Cell\(3, 2\) expects an input of shape \(batch, 3\), got \(4, 5, 3\)"
    ):
        cell(x)
    for f in (net, cell):
        with pytest.raises(TypeError, match=rf"{kind}Cell\(3, 2\) expects .* input of float64, W of float32"):
            f(X if f is net else X[:, 0])
        with pytest.raises(TypeError, match=rf"{kind}Cell\(3, 2\) expects arrays, got None as input"):
            f(None)
    for unbuilt in (KINDS[kind](3, 2), CELLS[kind](3, 2)):
        with pytest.raises(RuntimeError, match=rf"{kind}Cell\(3, 2\) has no parameters yet"):
            unbuilt(x)


@kinds
def test_states_that_do_not_fit(kind):
    net, cell = KINDS[kind](3, 2, seed=0), CELLS[kind](3, 2, seed=0)
    x, h = X.astype("f4"), np.zeros((4, 2), "f4")
    message = rf"{kind}\(3, 2\) expects a state as run returns it, a tuple of 1, got"
    with pytest.raises(TypeError, match=f"{message} ndarray"):
        net(x, h)
    with pytest.raises(TypeError, match=f"{message} 2"):
        net(x, (h, h))
    wrong = (h[:1], h) if kind == "LSTM" else h[:1]
    with pytest.raises(ValueError, match=r"expects h0 of shape \(4, 2\) .* got \(1, 2\)"):
        net(x, (wrong,))
    with pytest.raises(ValueError, match=r"expects h of shape \(4, 2\) .* got \(1, 2\)"):
        cell(x[:, 0], wrong)
    if kind == "LSTM":
        for f, state in ((net, (h,)), (cell, h)):
            with pytest.raises(TypeError, match=r"LSTMCell\(3, 2\) expects a state \(h, c\), got ndarray"):
                f(x if f is net else x[:, 0], state)


def test_lengths_and_masks_that_do_not_fit():
    net, x = nn.GRU(3, 2, seed=0), X.astype("f4")
    with pytest.raises(TypeError, match=r"GRU\(3, 2\) takes lengths or a mask, got both"):
        net(x, lengths=LENGTHS, mask=MASK)
    with pytest.raises(ValueError, match=r"GRU\(3, 2\) expects lengths of shape \(4,\), integers, got \(3,\) of int64"):
        net(x, lengths=LENGTHS[:3])
    with pytest.raises(ValueError, match=r"lengths of shape \(4,\), integers, got \(4,\) of float64"):
        net(x, lengths=np.ones(4))
    for wrong in ([1, 2, 6, 0], [-1, 2, 5, 0]):
        with pytest.raises(ValueError, match=rf"lengths from 0 to 5, got from {min(wrong)} to {max(wrong)}"):
            net(x, lengths=wrong)
    with pytest.raises(TypeError, match="gru expects a boolean mask, got int64"):
        net(x, mask=MASK.astype("int64"))
    of_another = bp.testing.backends.load("array_api_strict").asarray(np.array(LENGTHS))
    with pytest.raises(
        TypeError, match=r"GRU\(3, 2\) .* several libraries: input of numpy, lengths of array_api_strict"
    ):
        net(x, lengths=of_another)


def test_options_that_do_not_fit():
    for layers in (0, 1.5):
        with pytest.raises(ValueError, match=f"LSTM expects a whole number of layers from 1, got {layers}"):
            nn.LSTM(3, 2, layers=layers)
    with pytest.raises(ValueError, match="GRU drops out between layers, and there is one; put nn.Dropout behind it"):
        nn.GRU(3, 2, dropout=0.5)
    for make in (nn.RNN, nn.RNNCell):
        with pytest.raises(ValueError, match="expects an activation among tanh, relu, got 'sigmoid'"):
            make(3, 2, "sigmoid")
    with pytest.raises(NotImplementedError):
        nn.recurrent._Cell(3, 2, True, nn.zeros, nn.zeros, nn.zeros).step(X, ())
