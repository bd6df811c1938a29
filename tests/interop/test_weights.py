import re

import numpy as np
import pytest

import gpubp as bp
from gpubp import nn
from gpubp.interop import load_torch_weights

rng = np.random.default_rng(0)


def tensors_of(**shapes):
    return {name.replace("__", "."): rng.normal(size=shape).astype("float32") for name, shape in shapes.items()}


def net_of_two(**options):
    return nn.Sequential(nn.Dense(3, 4), nn.tanh, nn.Dense(4, 2), seed=0, **options)


TWO = {"a__weight": (4, 3), "a__bias": (4,), "b__weight": (2, 4), "b__bias": (2,)}


def test_in_order():
    net, tensors = net_of_two(), tensors_of(**TWO)
    assert load_torch_weights(net, tensors) is net
    np.testing.assert_array_equal(net.layers[0].W, tensors["a.weight"].T)
    np.testing.assert_array_equal(net.layers[0].b, tensors["a.bias"])
    np.testing.assert_array_equal(net.layers[2].W, tensors["b.weight"].T)
    np.testing.assert_array_equal(net.layers[2].b, tensors["b.bias"])


@pytest.mark.parametrize("kind", ["dict", "function"])
def test_by_name(kind):
    net, tensors = net_of_two(), tensors_of(**TWO)
    tensors = {name: tensors[name] for name in reversed(tensors)}
    names = {"layers[0]": "a", "layers[2]": "b"}
    load_torch_weights(net, tensors, names if kind == "dict" else names.get)
    np.testing.assert_array_equal(net.layers[0].W, tensors["a.weight"].T)


def test_a_net_keeps_its_own_arrays():
    net, tensors = net_of_two(), tensors_of(**TWO)
    load_torch_weights(net, tensors)
    assert not any(np.shares_memory(w, t) for w in net.parameters().values() for t in tensors.values())


@pytest.mark.parametrize(("given", "dtype"), [("float64", "float32"), ("float16", "float32"), ("float32", "float64")])
def test_dtypes_are_those_of_the_net(given, dtype):
    net, tensors = net_of_two(dtype=dtype), {k: x.astype(given) for k, x in tensors_of(**TWO).items()}
    load_torch_weights(net, tensors)
    np.testing.assert_array_equal(net.layers[0].W, tensors["a.weight"].T.astype(dtype), strict=True)


def test_the_backend_stays(backend):
    net, tensors = bp.tree.map_leaves(backend.asarray, net_of_two()), tensors_of(**TWO)
    load_torch_weights(net, tensors)
    for w in net.parameters().values():
        assert type(w) is type(backend.asarray(np.zeros(1)))
    np.testing.assert_array_equal(backend.to_numpy(net.layers[0].W), tensors["a.weight"].T)


def test_running_statistics():
    net = nn.Sequential(nn.Dense(3, 4, bias=False), nn.BatchNorm(4), nn.BatchNorm(4, momentum=None), seed=0)
    norm = {"weight": (4,), "bias": (4,), "running_mean": (4,), "running_var": (4,)}
    tensors = tensors_of(a__weight=(4, 3), **{f"{m}__{k}": s for m in "bc" for k, s in norm.items()})
    tensors["b.num_batches_tracked"], tensors["c.num_batches_tracked"] = np.array(3), np.array(7)
    load_torch_weights(net, tensors)
    for layer, m in zip(net.layers[1:], "bc", strict=True):
        np.testing.assert_array_equal(layer.gain, tensors[f"{m}.weight"])
        np.testing.assert_array_equal(layer.bias, tensors[f"{m}.bias"])
        np.testing.assert_array_equal(layer.mean.value, tensors[f"{m}.running_mean"])
        np.testing.assert_array_equal(layer.variance.value, tensors[f"{m}.running_var"])
    assert net.layers[2].batches.value == 7


class Own(nn.Layer):
    def __init__(self, seed=None):
        self.fc2, self.fc = nn.Dense(2, 2), nn.Dense(2, 2, bias=False)
        self.scale = nn.Parameter((2, 3), nn.zeros)
        if seed is not None:
            self.build(seed)


def test_layers_of_ones_own():
    net, tensors = Own(seed=0), tensors_of(fc__weight=(2, 2), fc2__weight=(2, 2), fc2__bias=(2,), scale=(2, 3))
    load_torch_weights(net, tensors, lambda path: path)
    np.testing.assert_array_equal(net.scale, tensors["scale"])
    np.testing.assert_array_equal(net.fc.W, tensors["fc.weight"].T)
    np.testing.assert_array_equal(net.fc2.W, tensors["fc2.weight"].T)


def test_tied_parameters():
    net, tensors = Own(seed=0).share("fc.W", "fc2.W"), tensors_of(scale=(2, 3), fc2__weight=(2, 2), fc2__bias=(2,))
    tensors["fc.weight"] = tensors["fc2.weight"]
    for names in (None, lambda path: path):
        load_torch_weights(net, tensors, names)
        assert net.fc.W is net.fc2.W
        np.testing.assert_array_equal(net.fc.W, tensors["fc.weight"].T)


FAULTS = {
    "missing": ({"b__bias": None}, "b.bias is missing, for layers[2].b"),
    "left over": ({"b__more": (2,)}, "b.more is left over"),
    "shape": ({"a__weight": (3, 4)}, "module 'a' has shape (4, 3), expected (3, 4), for layers[0].W"),
    "two": ({"a__bias": None, "b__bias": (3,)}, "a.bias is missing, for layers[0].b; module 'b' has shape (3,)"),
    "too few": ({"b__weight": None, "b__bias": None}, "2 layers with parameters (layers[0], layers[2]), the file 1"),
    "too many": ({"c__weight": (3,)}, "the file 3 modules (a, b, c): say in names which belongs to which"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "message"), FAULTS.values(), ids=FAULTS)
def test_faults(change, message):
    net = net_of_two()
    before = {path: w.copy() for path, w in net.parameters().items()}
    with pytest.raises(ValueError, match=re.escape(message)):
        load_torch_weights(net, tensors_of(**{k: s for k, s in (TWO | change).items() if s is not None}))
    for path, w in net.parameters().items():
        np.testing.assert_array_equal(w, before[path])


def test_kinds_of_dtype():
    tensors = tensors_of(**TWO)
    tensors["a.bias"] = tensors["a.bias"] + 1j
    with pytest.raises(ValueError, match=r"module 'a' has dtype complex64, expected float32, for layers\[0\]\.b"):
        load_torch_weights(net_of_two(), tensors)


def test_faults_of_names():
    net, tensors = net_of_two(), tensors_of(**TWO)
    with pytest.raises(ValueError, match=r"names has layers\[1\], expected paths of layers.*layers\[0\], layers\[2\]"):
        load_torch_weights(net, tensors, {"layers[1]": "a"})
    with pytest.raises(ValueError, match=r"names has no module for layers\[2\]"):
        load_torch_weights(net, tensors, {"layers[0]": "a"})
    with pytest.raises(ValueError, match=r"c\.weight is missing.*c\.bias is missing.*b\.weight is left over"):
        load_torch_weights(net, tensors, {"layers[0]": "a", "layers[2]": "c"})


def test_other_values_than_tensors():
    with pytest.raises(TypeError, match="got list"):
        load_torch_weights(net_of_two(), [])
    with pytest.raises(TypeError, match="holds dict at 'state_dict': if an item of it is the state_dict, pass that"):
        load_torch_weights(net_of_two(), {"state_dict": {}, "epoch": 1})


def test_an_unbuilt_net():
    with pytest.raises(RuntimeError, match="no parameters yet"):
        load_torch_weights(nn.Dense(3, 2), tensors_of(weight=(2, 3), bias=(2,)))


@pytest.mark.peers
def test_the_same_output_as_pytorch():
    torch = pytest.importorskip("torch")
    theirs = torch.nn.Sequential(
        torch.nn.Linear(5, 6), torch.nn.BatchNorm1d(6), torch.nn.Tanh(), torch.nn.LayerNorm(6), torch.nn.Linear(6, 3)
    ).double()
    for _ in range(3):
        theirs(torch.randn(8, 5, dtype=torch.float64))
    theirs.eval()
    net = nn.Sequential(
        nn.Dense(5, 6), nn.BatchNorm(6), nn.tanh, nn.LayerNorm(6), nn.Dense(6, 3), seed=0, dtype="float64"
    )
    load_torch_weights(net, {name: x.numpy() for name, x in theirs.state_dict().items()})
    x = rng.normal(size=(4, 5))
    np.testing.assert_allclose(net(x), theirs(torch.tensor(x)).detach().numpy(), rtol=1e-12, atol=1e-13)


CONVOLUTIONS = {
    "1d": ("Conv1d", (4, 6, 3), {}, (2, 8)),
    "2d": ("Conv2d", (4, 6, (3, 2)), {"stride": 2}, (2, 7, 8)),
    "3d": ("Conv3d", (2, 3, 2), {"dilation": 2}, (2, 5, 4, 6)),
    "grouped": ("Conv2d", (4, 6, 3), {"groups": 2, "bias": False}, (2, 5, 5)),
    "depthwise": ("Conv2d", (4, 8, 3), {"groups": 4}, (2, 5, 5)),
    "transposed 1d": ("ConvTranspose1d", (4, 6, 3), {"stride": 2}, (2, 5)),
    "transposed 2d": ("ConvTranspose2d", (4, 6, (3, 2)), {"stride": (2, 1)}, (2, 5, 4)),
    "transposed grouped": ("ConvTranspose2d", (4, 6, 3), {"groups": 2}, (2, 4, 5)),
    "transposed depthwise": ("ConvTranspose2d", (4, 8, 2), {"groups": 4, "bias": False}, (2, 4, 5)),
}


@pytest.mark.peers
@pytest.mark.parametrize(("name", "sizes", "options", "shape"), CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_convolutions_give_pytorchs_output(name, sizes, options, shape):
    torch = pytest.importorskip("torch")
    theirs = getattr(torch.nn, name)(*sizes, **options).double()
    net = getattr(nn, name)(*sizes, **options, seed=0, dtype="float64")
    load_torch_weights(net, {f"conv.{key}": x.numpy() for key, x in theirs.state_dict().items()})
    x = rng.normal(size=(*shape, sizes[0]))
    expected = theirs(torch.tensor(np.moveaxis(x, -1, 1).copy())).detach().numpy()
    np.testing.assert_allclose(net(x), np.moveaxis(expected, 1, -1), rtol=1e-12, atol=1e-13)


def test_axes_of_convolutions():
    net = nn.Sequential(nn.Conv2d(4, 6, (3, 2), groups=2), nn.ConvTranspose2d(6, 4, (3, 2), groups=2), seed=0)
    tensors = tensors_of(a__weight=(6, 2, 3, 2), a__bias=(6,), b__weight=(6, 2, 3, 2), b__bias=(4,))
    load_torch_weights(net, tensors)
    a, b = net.layers
    for out, n_in, i, j in np.ndindex(6, 2, 3, 2):
        assert a.W[i, j, n_in, out] == tensors["a.weight"][out, n_in, i, j]
    for n_in, out, i, j in np.ndindex(6, 2, 3, 2):
        group = n_in // 3
        assert b.W[i, j, n_in % 3, group * 2 + out] == tensors["b.weight"][n_in, out, i, j]


def test_a_transposed_convolution_of_another_size():
    net, tensors = nn.ConvTranspose1d(4, 2, 3, groups=2, seed=0), tensors_of(conv__weight=(5, 1, 3), conv__bias=(2,))
    with pytest.raises(ValueError, match=r"module 'conv' has shape \(5, 1, 3\), expected \(3, 2, 2\), for W"):
        load_torch_weights(net, tensors)


def test_layers_that_hold_a_count_alone_are_passed_over():
    net = nn.Sequential(nn.Dense(3, 4), nn.Dropout(0.5), nn.Dense(4, 2), seed=0)
    load_torch_weights(net, tensors_of(**TWO))
    assert net.layers[1].calls.value == 0


def state_of(module):
    return {name: x.numpy() for name, x in module.state_dict().items()}


@pytest.mark.peers
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU"])
def test_recurrent_layers_give_pytorchs_output(name, bias):
    torch = pytest.importorskip("torch")
    options = {"bidirectional": True, "bias": bias}
    theirs = getattr(torch.nn, name)(3, 4, 2, batch_first=True, **options).double()
    net = getattr(nn, name)(3, 4, layers=2, dropout=0.1, **options, seed=0, dtype="float64")
    load_torch_weights(net, {f"rnn.{key}": x for key, x in state_of(theirs).items()})
    x = rng.normal(size=(2, 5, 3))
    np.testing.assert_allclose(net(x), theirs(torch.tensor(x))[0].detach().numpy(), rtol=1e-12, atol=1e-13)


@pytest.mark.peers
@pytest.mark.parametrize("name", ["RNNCell", "LSTMCell", "GRUCell"])
def test_cells_give_pytorchs_state(name):
    torch = pytest.importorskip("torch")
    theirs = getattr(torch.nn, name)(3, 4).double()
    net = load_torch_weights(getattr(nn, name)(3, 4, seed=0, dtype="float64"), state_of(theirs))
    x = rng.normal(size=(2, 3))
    found, expected = net(x), theirs(torch.tensor(x))
    for ours, h in zip(found, expected, strict=True) if name == "LSTMCell" else [(found, expected)]:
        np.testing.assert_allclose(ours, h.detach().numpy(), rtol=1e-12, atol=1e-13)


@pytest.mark.peers
@pytest.mark.parametrize("bias", [True, False])
def test_attention_gives_pytorchs_output(bias):
    torch = pytest.importorskip("torch")
    theirs = torch.nn.MultiheadAttention(6, 3, bias=bias, batch_first=True).double()
    for p in theirs.parameters():
        torch.nn.init.normal_(p)
    net = nn.MultiHeadAttention(6, 3, bias=bias, seed=0, dtype="float64")
    for prefix in ("", "attention."):
        load_torch_weights(net, {prefix + key: x for key, x in state_of(theirs).items()})
    x = rng.normal(size=(2, 5, 6))
    expected = theirs(*[torch.tensor(x)] * 3)[0].detach().numpy()
    np.testing.assert_allclose(net(x), expected, rtol=1e-11, atol=1e-12)


@pytest.mark.peers
def test_a_transformer_by_name():
    torch = pytest.importorskip("torch")

    class Theirs(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.table = torch.nn.Embedding(7, 6)
            block = torch.nn.TransformerEncoderLayer(6, 3, 24, 0.0, "gelu", batch_first=True, norm_first=True)
            self.blocks = torch.nn.TransformerEncoder(block, 2, enable_nested_tensor=False)
            self.slope = torch.nn.PReLU(6)

        def forward(self, indices):
            return self.slope(self.blocks(self.table(indices)).mT).mT  # which has channels second

    theirs = Theirs().double()
    blocks = [nn.TransformerBlock(6, 3, activation=nn.gelu) for _ in range(2)]
    net = nn.Sequential(nn.Embedding(7, 6), *blocks, nn.PReLU(6), seed=0, dtype="float64")
    parts = {
        "attention": "self_attn", "up": "linear1", "down": "linear2", "norm1": "norm1", "norm2": "norm2",
    }  # fmt: skip
    names = {"layers[0]": "table", "layers[3]": "slope"}
    names |= {f"layers[{k + 1}].{a}": f"blocks.layers.{k}.{b}" for k in range(2) for a, b in parts.items()}
    load_torch_weights(net, state_of(theirs), names)
    indices = rng.integers(0, 7, (2, 5))
    expected = theirs(torch.tensor(indices)).detach().numpy()
    np.testing.assert_allclose(net(indices), expected, rtol=1e-11, atol=1e-12)


def test_arrays_of_recurrent_layers():
    shapes = {"weight_ih": (12, 3), "weight_hh": (12, 4), "bias_ih": (12,), "bias_hh": (12,)}
    tensors = tensors_of(**{f"a__{name}_l0{way}": s for way in ("", "_reverse") for name, s in shapes.items()})
    net = load_torch_weights(nn.GRU(3, 4, bidirectional=True, seed=0), tensors)
    for cell, way in zip((*net.cells, *net.reverse_cells), ("", "_reverse"), strict=True):
        of = {name: tensors[f"a.{name}_l0{way}"] for name in shapes}
        np.testing.assert_array_equal(cell.W, of["weight_ih"].T)
        np.testing.assert_array_equal(cell.U, of["weight_hh"].T)
        np.testing.assert_array_equal(cell.b[:8], (of["bias_ih"] + of["bias_hh"])[:8])
        np.testing.assert_array_equal(cell.b[8:], of["bias_ih"][8:])
        np.testing.assert_array_equal(cell.b_hn, of["bias_hh"][8:])


def test_a_missing_part_of_a_recurrent_layer():
    tensors = tensors_of(a__weight_ih_l0=(4, 3), a__weight_hh_l0=(4, 4), a__bias_ih_l0=(4,), a__weight_hr_l0=(2, 2))
    with pytest.raises(ValueError, match=r"a\.bias_hh_l0 is missing, for cells\[0\]\.b; a\.weight_hr_l0 is left over"):
        load_torch_weights(nn.RNN(3, 4, seed=0), tensors)
