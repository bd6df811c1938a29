"""A training step makes the host wait for nothing: the CuPy stand-in raises where CuPy would wait for the GPU."""

import numpy as np
import pytest

import gpubp as bp
from gpubp import losses, nn, optim
from gpubp.device import device_of
from gpubp.testing.backends import load

rng = np.random.default_rng(0)
X, Y = rng.normal(size=(6, 4)).astype("f4"), rng.random((6, 3)).astype("f4")
LABELS, BITS = np.array([0, 2, 1, 1, 0, 2]), rng.integers(0, 2, (6, 3))


@pytest.fixture
def there():
    return load("standin")


def net_of(backend, *activations):
    layers = [part for f in activations for part in (nn.Dense(4, 4), f)]
    return bp.tree.map_leaves(backend.asarray, nn.Sequential(*layers, nn.Dense(4, 3), seed=0))


def wide(x):
    return nn.leaky_relu(x, slope=0.2)


STEPS = {
    "half_squared_error": (losses.half_squared_error, Y),
    "mean_half_squared_error": (losses.mean_half_squared_error, Y),
    "mse": (losses.mse, Y),
    "binary_cross_entropy": (losses.binary_cross_entropy, Y),
    "binary_cross_entropy of integers": (losses.binary_cross_entropy, BITS),
    "softmax_cross_entropy": (losses.softmax_cross_entropy, Y),
    "softmax_cross_entropy of labels": (losses.softmax_cross_entropy, LABELS),
    "softmax_cross_entropy with options": (
        lambda z, t: losses.softmax_cross_entropy(z, t, class_weights=z[0] ** 2, ignore_index=1, label_smoothing=0.1),
        LABELS,
    ),
    "kl_divergence": (losses.kl_divergence, Y),
    "mae": (losses.mae, Y),
    "huber": (losses.huber, Y),
    "hinge": (losses.hinge, 2 * BITS - 1),
    "multiclass_hinge": (losses.multiclass_hinge, LABELS),
    "cosine_embedding": (losses.cosine_embedding, Y),
}
OPTIMIZERS = {
    "SGD": lambda net: optim.SGD(net, 0.1),
    "momentum": lambda net: optim.SGD(net, 0.1, momentum=0.9, weight_decay=0.1),
    "Nesterov": lambda net: optim.SGD(net, 0.1, momentum=0.9, nesterov=True),
    "Adam": lambda net: optim.Adam(net, 0.1, weight_decay=0.1),
    "AdamW": lambda net: optim.AdamW(net, 0.1),
    "Adagrad": lambda net: optim.Adagrad(net, 0.1, lr_decay=0.1, initial=0.1),
    "RMSprop": lambda net: optim.RMSprop(net, 0.1, centered=True, momentum=0.9),
    "AMSGrad": lambda net: optim.Adam(net, 0.1, amsgrad=True, nonfinite="stop"),
    "Lion": lambda net: optim.Lion(net, 0.01, groups={"*.b": {"weight_decay": 0.1, "lr": lambda k: 0.1 / (1 + k)}}),
    "Muon": lambda net: optim.Muon(net, 0.1, clip_value=0.1),
    "AdamW, clipped and scaled": lambda net: optim.AdamW(net, 0.1, clip_norm=1.0, loss_scale="dynamic"),
}


def test_every_loss_and_optimizer_is_here():
    assert {name.partition(" ")[0] for name in STEPS} == set(losses.__all__)
    kinds = {type(make(net_of(load("numpy")))) for make in OPTIMIZERS.values()}
    assert {kind.__name__ for kind in kinds} == set(optim.__all__) - {"Average", "LossScale", "Optimizer", "schedules"}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("step", STEPS)
def test_a_step(there, step, optimizer):
    loss, target = STEPS[step]
    net, x, y = net_of(there, nn.relu, nn.tanh, nn.sigmoid, wide, nn.identity), there.asarray(X), there.asarray(target)
    opt, average = OPTIMIZERS[optimizer](net), optim.Average(net)
    before = there.to_numpy(net.layers[0].W)
    run = bp.value_and_grad(lambda net, x, y: loss(net(x), y))
    with there.xp.no_host_reads():
        for _ in range(2):
            value, grads = run(net, x, y)
            opt.step(grads, value)
            average.update()
    assert not np.array_equal(there.to_numpy(net.layers[0].W), before)


@pytest.mark.parametrize(
    "transform",
    [
        lambda f, net: bp.hvp(f, (net,), (net,)),
        lambda f, net: bp.jvp(f, (net,), (net,)),
        lambda f, net: bp.vjp(f, net)[1](1.0),
        lambda f, net: bp.grad(bp.checkpoint(f))(net),
        lambda f, net: bp.grad(lambda net: bp.grad(lambda x: f(net, x))(bp.stop_gradient(net.layers[0].W))[0, 0])(net),
    ],
    ids=["hvp", "jvp", "vjp", "checkpoint", "nested"],
)
def test_a_transform(there, transform):
    net, x, y = net_of(there, nn.relu, nn.softmax), there.asarray(X[:4]), there.asarray(LABELS[:4])
    with there.xp.no_host_reads():
        transform(lambda net, x=x: losses.softmax_cross_entropy(net(x), y), net)


def test_fit_reads_its_figures_twice_an_epoch(there, monkeypatch):
    """Once the losses of its steps, once what was measured; and losses after a while, which here does not come."""
    monkeypatch.setattr("gpubp.training.run.READ_EVERY", 1e9)

    def reads(batch_size):
        net = net_of(there, nn.relu)
        where = device_of(net.layers[0].W)
        data = X, LABELS
        with there.xp.count_host_reads() as found:
            bp.fit(
                net,
                lambda net, x, y: losses.softmax_cross_entropy(net(x), y),
                optim.Adam(net),
                data,
                epochs=2,
                batch_size=batch_size,
                validation=data,
                device=where,
                progress=False,
                capture=False,  # a graph is compared once, which reads
            )
        return found

    assert reads(6) == reads(1) == 2 * 2 * [".get()"]  # of the epoch's loss, and of all that is measured


def test_predictions(there):
    net, x = net_of(there, nn.relu), there.asarray(X)
    with there.xp.no_host_reads():
        net(x)
