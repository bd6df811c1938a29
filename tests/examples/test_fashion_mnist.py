import gzip

import numpy as np
import pytest

import gpubp as bp


def write_idx(file, array):
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    with gzip.open(file, "wb") as stream:
        stream.write(header + array.tobytes())


def test_pictures_are_read(example, tmp_path):
    x, y = np.arange(3 * 784, dtype=np.uint8).reshape(3, 28, 28), np.array([2, 0, 1], np.uint8)
    write_idx(tmp_path / "train-images-idx3-ubyte.gz", x)
    write_idx(tmp_path / "train-labels-idx1-ubyte.gz", y)
    pictures, labels = example("fashion_mnist").pictures(tmp_path, "train", 2)
    np.testing.assert_array_equal(pictures[..., 0] * 255, x[:2])
    assert labels.dtype == np.int64
    assert labels.tolist() == [2, 0]


def test_the_net_learns_generated_pictures(example, capsys):
    script = example("fashion_mnist")
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 10
    x = (0.3 * rng.random((60, 28, 28, 1))).astype("float32")
    x[np.arange(60), 2 * labels + 4, :, 0] = 1  # a line whose height is the class
    net, accuracy = script.train((x, labels), (x, labels), epochs=12, batch_size=10, device="cpu", progress=False)
    assert accuracy > 0.9
    assert net.count_parameters() == 120382
    assert "test accuracy" in capsys.readouterr().out


def test_a_step_is_the_same_on_every_library(example):
    net = example("fashion_mnist").lenet()
    x = np.random.default_rng(0).random((2, 28, 28, 1)).astype("float32")
    bp.testing.assert_parity(net.build(x), x, backends=["numpy", "standin", "array_api_strict"], steps=1, lr=0.01)


@pytest.mark.slow
def test_the_net_learns_fashion_mnist(example, data_set):
    script = example("fashion_mnist")
    where = data_set("fashion-mnist")
    train, test = script.pictures(where, "train", 6000), script.pictures(where, "t10k", 2000)
    _, accuracy = script.train(train, test, epochs=2, device="cpu", progress=False)
    assert accuracy > 0.75
