import numpy as np
import pytest

import gpubp as bp


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
def test_the_net_learns_fashion_mnist(example, fetched):
    (x, y), (held_x, held_y) = fetched(bp.data.load, "fashion-mnist", download=False)
    train, test = (x[:6000], y[:6000]), (held_x[:2000], held_y[:2000])
    _, accuracy = example("fashion_mnist").train(train, test, epochs=2, device="cpu", progress=False)
    assert accuracy > 0.75
