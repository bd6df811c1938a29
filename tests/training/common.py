"""A small net and small data, and what is the same of two nets."""

import numpy as np

import gpubp as bp
from gpubp import losses, nn, optim
from gpubp.tree import map_distinct

train = tuple(x[:200] for x in bp.data.digits().train)


def net_of(classes=10, seed=0):
    return nn.Sequential(nn.Dense(64, 16), nn.relu, nn.Dense(16, classes), seed=seed)


def loss(net, x, y):
    return losses.softmax_cross_entropy(net(x), y)


def fit(objective=loss, *, net=None, data=train, opt=lambda net: optim.Adam(net, 0.01), backend=None, **options):
    """Return a net and its history."""
    net = net_of() if net is None else net
    net = net if backend is None else map_distinct(backend.asarray, net)
    return net, bp.fit(net, objective, opt, data, **{"progress": False, **options})


def batches_of(epoch, batch_size=32, data=train):
    return list(bp.data.batches(data, batch_size, shuffle=True, seed=0, epoch=epoch))


def parameters(net):
    """Return the arrays of a net, cells among them, on the host."""
    return {path: bp.to_numpy(x).copy() for path, x in net.state().items()}


def same(net, other):
    """Assert that two nets are, bit for bit."""
    found, expected = parameters(net), parameters(other)
    assert found.keys() == expected.keys()
    for path, x in expected.items():
        np.testing.assert_array_equal(found[path], x, err_msg=path)
