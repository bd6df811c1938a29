"""Whole nets against other engines of differentiation: the same figures, forward, backward and through training."""

import numpy as np
import pytest

import gpubp as bp
from gpubp import losses, nn, optim

pytestmark = pytest.mark.peers

rng = np.random.default_rng(0)
X, LABELS = rng.normal(size=(7, 5)), rng.integers(0, 3, 7)
ACTIVATIONS = {"relu": nn.relu, "tanh": nn.tanh, "sigmoid": nn.sigmoid, "leaky_relu": nn.leaky_relu}


def net_of(activation):
    return nn.Sequential(
        nn.Dense(5, 6), ACTIVATIONS[activation], nn.Dense(6, 4), nn.tanh, nn.Dense(4, 3), seed=0, dtype="float64"
    )


def loss(net, x, y):
    return losses.softmax_cross_entropy(net(x), y)


def weights_of(net):
    return list(net.parameters().values())


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_pytorch_trains_the_same_net(activation):
    torch = pytest.importorskip("torch")
    net = net_of(activation)
    opt, step = optim.Adam(net, 0.01), bp.value_and_grad(loss)
    theirs = [torch.tensor(w, requires_grad=True) for w in weights_of(net)]
    their_opt = torch.optim.Adam(theirs, lr=0.01)
    for _ in range(10):
        value, grads = step(net, X, LABELS)
        W1, b1, W2, b2, W3, b3 = theirs
        hidden = getattr(torch.nn.functional, activation)(torch.tensor(X) @ W1 + b1)
        logits = torch.tanh(hidden @ W2 + b2) @ W3 + b3
        their_value = torch.nn.functional.cross_entropy(logits, torch.tensor(LABELS))
        their_opt.zero_grad()
        their_value.backward()
        np.testing.assert_allclose(value, their_value.item(), rtol=1e-11)
        for ours, w in zip(weights_of(grads), theirs, strict=True):
            np.testing.assert_allclose(ours, w.grad.numpy(), rtol=1e-9, atol=1e-13)
        opt.step(grads)
        their_opt.step()


@pytest.mark.parametrize("activation", ["tanh", "sigmoid"])
@pytest.mark.parametrize("peer", ["jax", "autograd"])
def test_derivatives_of_a_net_are_the_peers(peer, activation):
    pytest.importorskip(peer)
    if peer == "jax":
        import jax
        import jax.numpy as xp

        context, peers_grad = jax.enable_x64(True), jax.grad
    else:
        from contextlib import nullcontext

        import autograd
        import autograd.numpy as xp

        context, peers_grad = nullcontext(), autograd.grad
    f = {"tanh": xp.tanh, "sigmoid": lambda x: 1 / (1 + xp.exp(-x))}[activation]

    def their_loss(weights):
        W1, b1, W2, b2, W3, b3 = weights
        z = xp.dot(xp.tanh(xp.dot(f(xp.dot(X, W1) + b1), W2) + b2), W3) + b3
        return xp.mean(xp.log(xp.sum(xp.exp(z), axis=1)) - z[np.arange(7), LABELS])

    def along(weights):  # the gradient along a direction, whose gradient is a Hessian-vector product
        return sum(xp.sum(g * v) for g, v in zip(peers_grad(their_loss)(weights), direction, strict=True))

    net = net_of(activation)
    v = bp.tree.map_leaves(lambda w: rng.normal(size=w.shape), net)
    direction = weights_of(v)
    with context:
        first, second = peers_grad(their_loss)(weights_of(net)), peers_grad(along)(weights_of(net))
    for ours, theirs in (
        (bp.grad(loss)(net, X, LABELS), first),
        (bp.hvp(lambda net: loss(net, X, LABELS), (net,), (v,))[0], second),
    ):
        for a, b in zip(weights_of(ours), theirs, strict=True):
            np.testing.assert_allclose(a, np.asarray(b), rtol=1e-9, atol=1e-13)
