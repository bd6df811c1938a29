import sys

import numpy as np
import pytest

import gpubp as bp
from gpubp import nn
from gpubp.data.download import find
from gpubp.interop import load_torch_weights, read_torch_file


@pytest.fixture
def mobilenet(example):
    return example("mobilenet")


def test_the_net_is_that_of_the_paper(mobilenet):
    net = mobilenet.mobilenet_v2()
    assert net.count_parameters() == 3_504_872
    shape = (1, 64, 64, 3)
    shapes = []
    x = np.zeros(shape, dtype="float32")
    for layer in net.layers:
        x = layer(x)
        shapes.append(x.shape[1:])
    assert shapes[2] == (32, 32, 32)
    blocks = [s for layer, s in zip(net.layers, shapes, strict=True) if isinstance(layer, nn.Sequential | nn.Residual)]
    assert blocks == [
        (32, 32, 16), *[(16, 16, 24)] * 2, *[(8, 8, 32)] * 3, *[(4, 4, 64)] * 4, *[(4, 4, 96)] * 3,
        *[(2, 2, 160)] * 3, (2, 2, 320),
    ]  # fmt: skip
    assert shapes[-1] == (1000,)
    assert sum(isinstance(layer, nn.Residual) for layer in net.layers) == 10


def test_relu6(mobilenet):
    x = np.array([-1.0, 0.0, 3.0, 6.0, 7.0])
    np.testing.assert_array_equal(mobilenet.relu6(x), [0, 0, 3, 6, 6])
    np.testing.assert_array_equal(bp.grad(lambda x: np.sum(mobilenet.relu6(x)))(x), [0, 1, 1, 1, 0])


def test_a_block_is_the_same_on_a_stand_in_for_a_gpu(mobilenet):
    block = nn.Sequential(mobilenet.inverted_residual(4, 4, 1, 2), mobilenet.inverted_residual(4, 6, 2, 2), seed=0)
    x = np.random.default_rng(0).normal(size=(2, 6, 6, 4)).astype("float32")
    bp.testing.assert_parity(block, x, backends=["numpy", "standin"], steps=2)


def test_gradients_of_a_block(mobilenet):
    block, rng = (
        nn.Sequential(mobilenet.inverted_residual(3, 3, 1, 2), seed=1, dtype="float64"),
        np.random.default_rng(1),
    )
    block = bp.tree.map_leaves(lambda w: w + 0.3 * rng.normal(size=w.shape), block)  # away from the kinks, as at bias 0
    x = rng.normal(size=(2, 4, 4, 3))
    for training in (False, True):
        block.train(training)
        bp.testing.check_grads(lambda net, x: net(x), (block, x))


def test_the_net_trains(mobilenet):
    net = mobilenet.mobilenet_v2(3).train()
    x = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype("float32")
    before = bp.to_numpy(net.layers[1].mean.value).copy()
    grads = bp.grad(lambda net, x: bp.losses.softmax_cross_entropy(net(x), np.array([0, 2])))(net, x)
    assert all(np.all(np.isfinite(g)) for g in bp.tree.leaves(grads))
    assert np.any(net.layers[1].mean.value != before)


def test_pictures(mobilenet, tmp_path, monkeypatch):
    Image = pytest.importorskip("PIL.Image")
    pixels = np.zeros((60, 90, 3), dtype="uint8")
    pixels[:, 45:] = 255
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    x = mobilenet.read_picture(tmp_path / "wide.png", 28)
    assert (x.shape, x.dtype) == ((1, 28, 28, 3), np.float32)
    black, white = (np.float32(v) - mobilenet.MEAN for v in (0, 1))
    np.testing.assert_allclose(x[0, :, 0], np.broadcast_to(black / mobilenet.DEVIATION, (28, 3)), rtol=1e-5)
    np.testing.assert_allclose(x[0, :, 27], np.broadcast_to(white / mobilenet.DEVIATION, (28, 3)), rtol=1e-5)
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match=r"pip install 'gpubp\[images\]'"):
        mobilenet.read_picture(tmp_path / "wide.png")


def test_without_the_weights_it_says_how_to_get_them(mobilenet, monkeypatch, tmp_path):
    monkeypatch.setattr(mobilenet, "FILES", mobilenet.FILES._replace(packages=(), mirrors=("http://127.0.0.1:9/",)))
    monkeypatch.setattr(sys, "argv", ["mobilenet.py", "--device", "cpu", "--data-dir", str(tmp_path)])
    with pytest.raises(SystemExit, match=f"By hand: put these files into {tmp_path}"):
        mobilenet.main()


def test_the_photograph_is_a_palace(mobilenet, fetched, monkeypatch, capsys):
    pytest.importorskip("PIL")
    folder = fetched(find, mobilenet.FILES)
    tensors = read_torch_file(folder / "mobilenet_v2-b0353104.pth")
    assert len(tensors) == 314
    assert sum(x.size for x in tensors.values()) == 3_539_036
    net = load_torch_weights(mobilenet.mobilenet_v2(), tensors)
    (k, p), *_ = mobilenet.classify(net, mobilenet.read_picture(folder / "china.jpg"))
    assert k == 698
    assert p == pytest.approx(0.73, abs=0.01)
    monkeypatch.setattr(sys, "argv", ["mobilenet.py", "--device", "cpu", "--data-dir", str(folder.parent)])
    mobilenet.main()
    assert "73.5%  class 698  palace" in capsys.readouterr().out


@pytest.mark.peers
def test_the_net_is_pytorchs(mobilenet):
    """With random weights and statistics, in float64: every weight is where it belongs."""
    torch = pytest.importorskip("torch")

    def part(n_in, n_out, window, stride=1, groups=1):
        convolution = torch.nn.Conv2d(n_in, n_out, window, stride, window // 2, groups=groups, bias=False)
        return [convolution, torch.nn.BatchNorm2d(n_out)]

    class Block(torch.nn.Module):
        def __init__(self, n_in, n_out, stride, expansion):
            super().__init__()
            n = n_in * expansion
            widen = [*part(n_in, n, 1), torch.nn.ReLU6()] if expansion > 1 else []
            self.conv = torch.nn.Sequential(*widen, *part(n, n, 3, stride, n), torch.nn.ReLU6(), *part(n, n_out, 1))
            self.residual = stride == 1 and n_in == n_out

        def forward(self, x):
            return x + self.conv(x) if self.residual else self.conv(x)

    torch.manual_seed(0)
    layers, n = [*part(3, 32, 3, 2), torch.nn.ReLU6()], 32
    for expansion, n_out, blocks, stride in mobilenet.STAGES:
        for k in range(blocks):
            layers.append(Block(n, n_out, stride if k == 0 else 1, expansion))
            n = n_out
    layers += [*part(n, 1280, 1), torch.nn.ReLU6(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()]
    theirs = torch.nn.Sequential(*layers, torch.nn.Linear(1280, 10)).double()
    for name, x in theirs.state_dict().items():
        if name.endswith("running_var"):
            x.uniform_(0.5, 2)
        elif name.endswith("running_mean"):
            x.normal_(0, 0.1)
    net = mobilenet.mobilenet_v2(10, dtype="float64")
    load_torch_weights(net, {name: x.numpy() for name, x in theirs.state_dict().items()})
    x = np.random.default_rng(0).normal(size=(2, 32, 32, 3))
    expected = theirs.eval()(torch.tensor(np.moveaxis(x, 3, 1).copy())).detach().numpy()
    np.testing.assert_allclose(net(x), expected, rtol=1e-10, atol=1e-10)
    assert np.ptp(expected) > 1e-4
