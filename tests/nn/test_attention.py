import pickle

import numpy as np
import pytest

import gpubp as bp
from gpubp import functions as F
from gpubp import losses, nn, optim
from gpubp.testing import check_grads

rng = np.random.default_rng(0)
x, memory, dY = (rng.normal(size=(2, time, 8)) for time in (5, 3, 5))


def attend(**options):
    return nn.MultiHeadAttention(8, 2, b_init=nn.normal(0.3), seed=0, dtype="float64", **options)


def block(**options):
    net = nn.TransformerBlock(8, 2, 12, seed=0, dtype="float64", **options)
    for part, scale in ((net.norm1.gain, 0.2), (net.norm2.bias, 0.2), (net.attention.b, 0.3), (net.up.b, 0.3)):
        part += scale * rng.normal(size=part.shape)
    return net


def gradients(net, *args, **options):
    """Return the output for some input, and the gradients of the parameters, by path, and of the inputs."""
    weigh = lambda net, *args: np.sum(net(*args, **options) * dY)  # noqa: E731
    found = bp.grad(weigh, tuple(range(1 + len(args))))(net, *args)
    return net(*args, **options), found[0].parameters(), found[1:]


# -- what it computes


def heads_of(x, W, b):
    return np.moveaxis((x @ W + b).reshape(*x.shape[:-1], 2, 4), -2, -3)


@pytest.mark.parametrize("other", [None, memory])
def test_it_attends_head_by_head(other):
    layer = attend()
    given = x if other is None else other
    q, k, v = (
        heads_of(z, W, b)
        for z, W, b in zip((x, given, given), np.split(layer.W, 3, axis=1), np.split(layer.b, 3), strict=True)
    )
    y = F.softmax(q @ np.swapaxes(k, -1, -2) / 2) @ v
    expected = np.moveaxis(y, -2, -3).reshape(x.shape) @ layer.W_out + layer.b_out
    np.testing.assert_allclose(layer(x) if other is None else layer(x, other), expected, rtol=1e-12)


def test_options():
    assert repr(attend(causal=True, rotary=True)) == "MultiHeadAttention(8, 2, causal=True, rotary=True)"
    bare = nn.MultiHeadAttention(8, 4, bias=False, W_init=nn.constant(0.1), seed=0)
    assert {path: p.shape for path, p in bare.parameters().items()} == {"W": (8, 24), "W_out": (8, 8)}
    assert bare(x.astype("float32"), memory.astype("float32")).dtype == "float32"
    W = nn.MultiHeadAttention(50, 2, seed=0).W
    for part in np.split(W, 3, axis=1):  # each drawn for 50 inputs and 50 outputs
        assert np.abs(part).max() <= np.sqrt(6 / 100)
        assert part.std() == pytest.approx(0.1414, rel=0.05)


@pytest.mark.parametrize("net", [attend(causal=True), attend(causal=True, rotary=True), block(causal=True)])
def test_causal_layers_do_not_look_ahead(net):
    changed = x.copy()
    changed[:, 3:] += 1
    np.testing.assert_allclose(net(changed)[:, :3], net(x)[:, :3], rtol=1e-13)
    assert (np.abs(net(changed) - net(x))[:, 3:].max(axis=-1) > 1e-3).all()


def test_rotary_layers_see_the_distance_alone():
    layer = attend(rotary=True)
    padded = np.concatenate([rng.normal(size=(2, 4, 8)), x], axis=1)
    see = np.arange(9) >= 4
    np.testing.assert_allclose(layer(padded, mask=see)[:, 4:], layer(x), rtol=1e-11, atol=1e-13)
    assert np.abs(layer(x[:, [1, 0, 2, 3, 4]])[:, 2] - layer(x)[:, 2]).max() > 1e-3  # the order of others matters
    other = attend()
    np.testing.assert_allclose(other(x[:, [1, 0, 2, 3, 4]])[:, 2], other(x)[:, 2], rtol=1e-12)


def test_a_block_is_two_layers_behind_norms_each_with_a_way_past():
    net = block(causal=True)
    h = x + net.attention(net.norm1(x))
    expected = h + net.down(F.gelu(net.up(net.norm2(h)), approximate="tanh"))
    np.testing.assert_allclose(net(x), expected, rtol=1e-13)
    assert repr(net) == "TransformerBlock(8, 2, 12, causal=True)"
    assert repr(nn.TransformerBlock(8, 2)) == "TransformerBlock(8, 2, 32)"
    other = nn.TransformerBlock(8, 2, dropout=0.1, bias=False)
    assert repr(other) == "TransformerBlock(8, 2, 32, dropout=0.1, bias=False)"
    assert nn.TransformerBlock(8, 2, activation=nn.relu, bias=False, seed=0).up.b is None
    np.testing.assert_allclose(pickle.loads(pickle.dumps(net))(x), net(x), rtol=1e-12)


@pytest.mark.parametrize("net", [attend(causal=True, rotary=True), block()])
def test_second_derivatives(net):
    small = x[:1, :3]
    values = list(net.parameters().values())

    def f(x, *values):
        return bp.tree.rebuild(net, values)(x)

    check_grads(f, [small, *values], order=2, directions=1)


def test_every_library_computes_the_same(backend):
    net = block(causal=True, rotary=True)
    there = bp.tree.map_leaves(backend.asarray, net)
    np.testing.assert_allclose(backend.to_numpy(there(backend.asarray(x))), net(x), rtol=1e-10)
    found = bp.grad(lambda net, x, dY: bp.array_namespace(x).sum(net(x) * dY))(
        there, backend.asarray(x), backend.asarray(dY)
    )
    for path, e in gradients(net, x)[1].items():
        np.testing.assert_allclose(backend.to_numpy(found.parameters()[path]), e, rtol=1e-9, atol=1e-12)


# -- dropout


def test_dropout_is_for_training_and_differs_from_call_to_call():
    for net in (attend(dropout=0.5), block(dropout=0.5)):
        first = net(x)
        np.testing.assert_array_equal(net(x), first)
        net.train()
        one, two = net(x), net(x)
        assert np.abs(one - two).max() > 1e-3
        again = net.copy()
        np.testing.assert_array_equal(net(x), again(x))
        net.eval()
        np.testing.assert_array_equal(net(x), first)


def test_checkpoint_repeats_the_dropout():
    net = block(dropout=0.4).train()
    twin = net.copy()
    found = bp.grad(lambda net: np.sum(bp.checkpoint(net)(x) * dY))(net)
    expected = bp.grad(lambda net: np.sum(net(x) * dY))(twin)
    for a, e in zip(found.parameters().values(), expected.parameters().values(), strict=True):
        np.testing.assert_allclose(a, e, rtol=1e-11, atol=1e-14)


def test_a_causal_net_learns_to_repeat_what_stood_two_places_before():
    net = nn.Sequential(
        nn.Embedding(4, 16), nn.TransformerBlock(16, 2, causal=True, rotary=True), nn.Dense(16, 4), seed=0
    )
    opt = optim.Adam(net, 0.01)
    step = bp.value_and_grad(lambda net, x: losses.softmax_cross_entropy(net(x)[:, 2:], x[:, :-2]))
    words = np.random.default_rng(1).integers(0, 4, (16, 10))
    for _ in range(60):
        value, grads = step(net, words)
        opt.step(grads)
    assert value < 0.1  # chance: 1.39


# -- PyTorch


def copy_weights(torch, layer, theirs):
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.tensor(layer.W.T))
        theirs.in_proj_bias.copy_(torch.tensor(layer.b))
        theirs.out_proj.weight.copy_(torch.tensor(layer.W_out.T))
        theirs.out_proj.bias.copy_(torch.tensor(layer.b_out))


def agree(found, expected):
    for path, e in expected.items():
        e = e.grad.numpy()
        np.testing.assert_allclose(found[path], e.T if e.ndim == 2 else e, rtol=1e-10, atol=1e-12, err_msg=path)


@pytest.mark.peers
@pytest.mark.parametrize("kind", ["self", "padded", "causal", "cross"])
def test_pytorchs_multihead_attention(kind):
    torch = pytest.importorskip("torch")
    layer = attend(causal=kind == "causal")
    theirs = torch.nn.MultiheadAttention(8, 2, batch_first=True, dtype=torch.float64)
    copy_weights(torch, layer, theirs)
    see = np.array([[True] * 4 + [False], [True] * 3 + [False] * 2])
    options = {"mask": see[:, None, None]} if kind == "padded" else {}
    inputs = [x, memory] if kind == "cross" else [x]
    out, found, dx = gradients(layer, *inputs, **options)

    tensors = [torch.tensor(z, requires_grad=True) for z in inputs]
    y, _ = theirs(
        tensors[0],
        tensors[-1],
        tensors[-1],
        key_padding_mask=torch.tensor(~see) if kind == "padded" else None,
        attn_mask=torch.triu(torch.ones(5, 5, dtype=torch.bool), 1) if kind == "causal" else None,
    )
    y.backward(torch.tensor(dY))
    np.testing.assert_allclose(out, y.detach().numpy(), rtol=1e-10, atol=1e-12)
    for a, t in zip(dx, tensors, strict=True):
        np.testing.assert_allclose(a, t.grad.numpy(), rtol=1e-10, atol=1e-12)
    out_proj = theirs.out_proj
    agree(
        found,
        {"W": theirs.in_proj_weight, "b": theirs.in_proj_bias, "W_out": out_proj.weight, "b_out": out_proj.bias},
    )


@pytest.mark.peers
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_pytorchs_transformer_layer(activation, causal):
    torch = pytest.importorskip("torch")
    if activation == "gelu":
        ours, function = {}, lambda z: torch.nn.functional.gelu(z, approximate="tanh")
    else:
        ours, function = {"activation": nn.relu}, "relu"
    net = block(causal=causal, **ours)
    theirs = torch.nn.TransformerEncoderLayer(
        8, 2, 12, 0.0, function, batch_first=True, norm_first=True, dtype=torch.float64
    )
    copy_weights(torch, net.attention, theirs.self_attn)
    pairs = {
        **{
            f"norm{k}.{a}": getattr(getattr(theirs, f"norm{k}"), b)
            for k in (1, 2)
            for a, b in [("gain", "weight"), ("bias", "bias")]
        },
        **{"up.W": theirs.linear1.weight, "up.b": theirs.linear1.bias},
        **{"down.W": theirs.linear2.weight, "down.b": theirs.linear2.bias},
    }
    with torch.no_grad():
        for path, theirs_ in pairs.items():
            ours_ = net.parameters()[path]
            theirs_.copy_(torch.tensor(ours_.T if ours_.ndim == 2 else ours_))
    out, found, (dx,) = gradients(net, x)
    tensor = torch.tensor(x, requires_grad=True)
    mask = torch.triu(torch.ones(5, 5, dtype=torch.bool), 1) if causal else None
    y = theirs(tensor, src_mask=mask)
    y.backward(torch.tensor(dY))
    np.testing.assert_allclose(out, y.detach().numpy(), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(dx, tensor.grad.numpy(), rtol=1e-10, atol=1e-12)
    attention = theirs.self_attn
    agree(
        found,
        {
            **pairs,
            **{"attention.W": attention.in_proj_weight, "attention.b": attention.in_proj_bias},
            **{"attention.W_out": attention.out_proj.weight, "attention.b_out": attention.out_proj.bias},
        },
    )


# -- errors


def test_sizes_that_do_not_fit():
    for options in ({"n": 8, "heads": 3}, {"n": 8, "heads": 0}, {"n": 0, "heads": 2}):
        with pytest.raises(
            ValueError, match=f"n / heads to be whole, got n={options['n']} and heads={options['heads']}"
        ):
            nn.MultiHeadAttention(**options)
    with pytest.raises(ValueError, match="n / heads to be whole, an even number, got n=6 and heads=2"):
        nn.TransformerBlock(6, 2, rotary=True)
    with pytest.raises(ValueError, match="Dropout expects a rate"):
        nn.MultiHeadAttention(8, 2, dropout=1.0)


def test_inputs_that_do_not_fit_name_the_layer():
    layer = attend()
    wanted = r"MultiHeadAttention\(8, 2\) expects an input of shape \(\.\.\., time, 8\), got "
    for bad in (x[..., :6], x[0, 0]):
        with pytest.raises(ValueError, match=wanted):
            layer(bad)
    with pytest.raises(ValueError, match=r"expects an input memory of shape \(\.\.\., time, 8\), got \(2, 3, 6\)"):
        layer(x, memory[..., :6])
    with pytest.raises(TypeError, match=r"MultiHeadAttention\(8, 2\).*input of float32, W of float64"):
        layer(x.astype("float32"))
    with pytest.raises(ValueError, match=r"got shape \(2, 5\); of \(batch, keys\) make mask\[:, None, None, :\]"):
        nn.MultiHeadAttention(8, 2, seed=0)(np.ones((2, 5, 8), "float32"), mask=np.ones((2, 5), bool))
    with pytest.raises(ValueError, match=r"mask that broadcasts to .* = \(2, 2, 5, 5\), got shape \(5, 4\)$"):
        layer(x, mask=np.ones((5, 4), dtype=bool))
    with pytest.raises(ValueError, match="positions, which are those of one sequence, but was given a memory"):
        attend(rotary=True)(x, memory)
    with pytest.raises(RuntimeError, match=r"MultiHeadAttention\(8, 2\) has no parameters yet"):
        nn.MultiHeadAttention(8, 2)(x)
    with pytest.raises(ValueError, match=r"LayerNorm\(8.*\) expects an input of shape") as caught:
        block()(x[..., :6])
    assert caught.value.__notes__ == ["in TransformerBlock(8, 2, 12)"]
