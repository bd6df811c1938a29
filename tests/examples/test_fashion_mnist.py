import gzip

import numpy as np
import pytest

import gpubp as bp


def write_idx(file, array):
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    with gzip.open(file, "wb") as stream:
        stream.write(header + array.tobytes())


def test_idx_files_are_read(example, tmp_path):
    script = example("fashion_mnist")
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    write_idx(tmp_path / "a.gz", array)
    np.testing.assert_array_equal(script.read_idx(tmp_path / "a.gz"), array)
    with gzip.open(tmp_path / "b.gz", "wb") as stream:
        stream.write(b"\0\0\x0d\1")
    with pytest.raises(ValueError, match="b.gz is no IDX file of bytes"):
        script.read_idx(tmp_path / "b.gz")


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
