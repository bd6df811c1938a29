"""The worked examples of the lectures, with their published numbers."""

import numpy as np
import pytest

import gpubp as bp
from gpubp import losses, nn, optim

TOLERANCE = {"rtol": 1e-12, "atol": 1e-12}


def sigma(z):
    return 1 / (1 + np.exp(-z))


def gradients(f, *args):
    return [float(g) for g in bp.grad(f, tuple(range(len(args))))(*map(float, args))]


# -- 1: one neuron


class TestNeuron:
    """W = [2, -3], b = -3, x = [-1, -2], y = 1: forward, backward and a step.

    The published gradient 0.053 on w1 is that of the loss ½ (a - y)²; it equals (a - y) a (1 - a) x1.
    """

    x, y = np.array([[-1.0, -2.0]]), np.array([[1.0]])

    def net(self):
        net = nn.Dense(2, 1, nn.sigmoid, seed=0, dtype="float64")
        net.W, net.b = np.array([[2.0], [-3.0]]), np.array([-3.0])
        return net

    def loss(self, net):
        return losses.half_squared_error(net(self.x), self.y)

    def test_activation_and_gradient(self):
        net = self.net()
        a = net(self.x).item()
        assert round(a, 2) == 0.73
        grads = bp.grad(self.loss)(net)
        assert round(grads.W[0, 0], 3) == 0.053
        delta = (a - 1) * a * (1 - a)
        np.testing.assert_allclose(grads.W, delta * self.x.T, **TOLERANCE)
        np.testing.assert_allclose(grads.b, [delta], **TOLERANCE)

    def test_one_step_with_rate_1(self):
        net = self.net()
        optim.SGD(net, 1.0).step(bp.grad(self.loss)(net))
        np.testing.assert_array_equal(np.round(net.W, 3), [[1.947], [-3.106]])
        np.testing.assert_array_equal(np.round(net.b, 3), [-2.947])
        assert round(net(self.x).item(), 2) == 0.79


# -- 2: circuits


def test_a_product_of_a_sum():
    # f = (x + y) z at (-2, 5, -4): f = -12, gradient (-4, -4, 3)
    assert gradients(lambda x, y, z: (x + y) * z, -2, 5, -4) == [-4, -4, 3]


def test_the_product_xy():
    assert gradients(lambda x, y: x * y, 4, -3) == [-3, 4]


def test_gates():
    assert gradients(lambda x, y: 7 * (x + y), 4, -3) == [7, 7]  # the add gate distributes
    assert gradients(lambda x, y: 7 * (x * y), 4, -3) == [-21, 28]  # the multiply gate switches
    assert gradients(lambda x, y: 7 * np.maximum(x, y), 4, -3) == [7, 0]  # the max gate routes
    assert gradients(lambda x, y: 7 * np.maximum(x, y), -4, -3) == [0, 7]


def test_gradients_add_up_at_forks():
    assert gradients(lambda x: x * x + 3 * x, 5) == [2 * 5 + 3]


@pytest.mark.parametrize("s", [sigma, nn.sigmoid])
def test_the_staged_expression(s):
    # f(x, y) = (x + σ(y)) / (σ(x) + (x + y)²), staged as in the lecture
    x, y = 3.0, -4.0
    sigy, sigx, xpy = sigma(y), sigma(x), x + y
    num, den = x + sigy, sigma(x) + (x + y) ** 2
    dnum, dden = 1 / den, -num / den**2
    dxpy = 2 * xpy * dden
    dx = dnum + dxpy + (1 - sigx) * sigx * dden
    dy = (1 - sigy) * sigy * dnum + dxpy
    found = gradients(lambda x, y: (x + s(y)) / (s(x) + (x + y) ** 2), x, y)
    np.testing.assert_allclose(found, [dx, dy], **TOLERANCE)


# -- 3: exclusive or


class TestXor:
    """Two layers without biases, W1 of shape 2x3 and W2 of shape 3x1, the loss 1/(2N) Σ ‖a - y‖²."""

    x, y = bp.data.xor("float64")

    def net(self):
        return nn.Sequential(
            nn.Dense(2, 3, bias=False), nn.sigmoid, nn.Dense(3, 1, bias=False), nn.sigmoid, seed=0, dtype="float64"
        )

    def element_by_element(self, W1, W2):
        dW1, dW2, total, n = np.zeros_like(W1), np.zeros_like(W2), 0.0, len(self.x)
        for x, (y,) in zip(self.x, self.y, strict=True):
            h = [sigma(sum(x[i] * W1[i, j] for i in range(2))) for j in range(3)]
            a = sigma(sum(h[j] * W2[j, 0] for j in range(3)))
            total += (a - y) ** 2 / (2 * n)
            delta = (a - y) / n * a * (1 - a)
            for j in range(3):
                dW2[j, 0] += delta * h[j]
                for i in range(2):
                    dW1[i, j] += delta * W2[j, 0] * h[j] * (1 - h[j]) * x[i]
        return total, dW1, dW2

    def vectorised(self, W1, W2):
        n = len(self.x)
        h = sigma(self.x @ W1)
        a = sigma(h @ W2)
        delta2 = (a - self.y) / n * a * (1 - a)
        delta1 = delta2 @ W2.T * h * (1 - h)
        return np.sum((a - self.y) ** 2) / (2 * n), self.x.T @ delta1, h.T @ delta2

    def loss(self, net):
        return losses.mean_half_squared_error(net(self.x), self.y)

    def test_three_ways_to_one_gradient(self):
        net = self.net()
        W1, W2 = net.layers[0].W, net.layers[2].W
        value, grads = bp.value_and_grad(self.loss)(net)
        engine = value, grads.layers[0].W, grads.layers[2].W
        for a, b, c in zip(self.element_by_element(W1, W2), self.vectorised(W1, W2), engine, strict=True):
            np.testing.assert_allclose(a, b, **TOLERANCE)
            np.testing.assert_allclose(c, b, **TOLERANCE)

    def test_plain_numpy_code_has_the_same_gradient(self):
        def loss(W1, W2):
            a = sigma(sigma(self.x @ W1) @ W2)
            return np.sum((a - self.y) ** 2) / (2 * len(self.x))

        W1, W2 = self.net().layers[0].W, self.net().layers[2].W
        for a, b in zip(bp.grad(loss, (0, 1))(W1, W2), self.vectorised(W1, W2)[1:], strict=True):
            np.testing.assert_allclose(a, b, **TOLERANCE)

    def test_a_thousand_steps_agree(self):
        net = self.net()
        W1, W2 = net.layers[0].W.copy(), net.layers[2].W.copy()
        opt, step = optim.SGD(net, 1.0), bp.value_and_grad(self.loss)
        for _ in range(1000):
            _, dW1, dW2 = self.vectorised(W1, W2)
            W1, W2 = W1 - dW1, W2 - dW2
            opt.step(step(net)[1])
        np.testing.assert_allclose(net.layers[0].W, W1, rtol=1e-9)
        np.testing.assert_allclose(net.layers[2].W, W2, rtol=1e-9)


# -- 4: the 8-3-8 autoencoder


class TestAutoencoder:
    """The 8-3-8 autoencoder, and the four equations of backpropagation written out for columns of one example."""

    x, y = bp.data.autoencoder8("float64")

    def net(self):
        return nn.Sequential(
            nn.Dense(8, 3, b_init=nn.normal(1.0)),
            nn.sigmoid,
            nn.Dense(3, 8, b_init=nn.normal(1.0)),
            nn.sigmoid,
            seed=0,
            dtype="float64",
        )

    def test_it_has_59_parameters(self):
        assert self.net().count_parameters() == 59

    def test_the_four_equations(self):
        net = self.net()
        weights = [layer.W.T for layer in net.layers[::2]]  # w_jk: from neuron k to neuron j, as in the lecture
        biases = [layer.b for layer in net.layers[::2]]
        nabla_w, nabla_b = [np.zeros_like(w) for w in weights], [np.zeros_like(b) for b in biases]
        for x, y in zip(self.x, self.y, strict=True):
            activations = [x]
            for w, b in zip(weights, biases, strict=True):
                activations.append(sigma(w @ activations[-1] + b))
            a = activations[-1]
            delta = (a - y) * a * (1 - a)  # BP1: δᴸ = ∇ₐC ⊙ σ'(zᴸ)
            for layer in (1, 0):
                nabla_b[layer] += delta  # BP3: ∂C/∂bⱼ = δⱼ
                nabla_w[layer] += np.outer(delta, activations[layer])  # BP4: ∂C/∂wⱼₖ = aₖ δⱼ
                a = activations[layer]
                delta = weights[layer].T @ delta * a * (1 - a)  # BP2: δˡ = (wˡ⁺¹)ᵀ δˡ⁺¹ ⊙ σ'(zˡ)
        grads = bp.grad(lambda net: losses.half_squared_error(net(self.x), self.y))(net)
        for layer, w, b in zip(grads.layers[::2], nabla_w, nabla_b, strict=True):
            np.testing.assert_allclose(layer.W, w.T, **TOLERANCE)
            np.testing.assert_allclose(layer.b, b, **TOLERANCE)

    def test_it_learns_a_code_of_three_units(self):
        net = self.net()
        opt = optim.Adam(net, 0.05)
        step = bp.value_and_grad(lambda net: losses.half_squared_error(net(self.x), self.y))
        for _ in range(1500):
            opt.step(step(net)[1])
        np.testing.assert_array_equal(net(self.x).argmax(axis=1), np.arange(8))
        assert (np.abs(net(self.x) - self.y) < 0.5).all()
