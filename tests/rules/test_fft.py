import numpy as np
import pytest

import gpubp as bp
from gpubp import numpy as xp
from gpubp.testing import check_grads

RNG = np.random.default_rng(5)
NORMS = ("backward", "ortho", "forward")


def random(*shape, imaginary=False):
    x = RNG.normal(size=shape)
    return x + 1j * RNG.normal(size=shape) if imaginary else x


def inner(a, b):
    return np.sum(np.real(np.conj(a) * b))


def takes_complex(name):
    return name not in ("rfft", "rfftn", "ihfft")


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("n", [None, 1, 2, 3, 4, 5, 8, 9])
@pytest.mark.parametrize("name", ["fft", "ifft", "rfft", "irfft", "hfft", "ihfft"])
def test_the_derivative_is_the_adjoint_for_every_length(name, n, norm):
    x = random(4, 3, imaginary=takes_complex(name))
    f = getattr(xp.fft, name)
    out, pullback = bp.vjp(lambda x: f(x, n=n, axis=0, norm=norm), x)
    g = random(*out.shape, imaginary=np.iscomplexobj(out))
    v = random(4, 3, imaginary=takes_complex(name))
    assert inner(g, f(v, n=n, axis=0, norm=norm)) == pytest.approx(inner(pullback(g)[0], v), rel=1e-12)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(
    ("s", "axes"), [(None, None), (None, (2, 0)), ((3, 5), (-1, 0)), ((2, 2, 2), (0, 1, 2)), ((-1, 6), (1, 2))]
)
@pytest.mark.parametrize("name", ["fftn", "ifftn", "rfftn", "irfftn"])
def test_the_derivative_is_the_adjoint_for_every_set_of_axes(name, s, axes, norm):
    x = random(2, 3, 4, imaginary=takes_complex(name))
    f = getattr(xp.fft, name)
    if s is not None and -1 in s and name == "irfftn":
        s = (3, 6)
    out, pullback = bp.vjp(lambda x: f(x, s=s, axes=axes, norm=norm), x)
    g = random(*out.shape, imaginary=np.iscomplexobj(out))
    v = random(*x.shape, imaginary=takes_complex(name))
    assert inner(g, f(v, s=s, axes=axes, norm=norm)) == pytest.approx(inner(pullback(g)[0], v), rel=1e-12)


def test_a_real_argument_of_a_complex_transform_has_a_real_gradient():
    x = random(5)
    (g,) = bp.vjp(xp.fft.fft, x)[1](random(5, imaginary=True))
    assert g.dtype == np.float64
    check_grads(xp.fft.fft, [x])
    check_grads(xp.fft.ifftn, [random(2, 3)])


@pytest.mark.parametrize("name", ["fft", "ifft", "irfft", "hfft", "rfft", "ihfft"])
def test_an_empty_stack_has_an_empty_gradient(name):
    x = random(0, 4, imaginary=takes_complex(name))
    out, pullback = bp.vjp(getattr(xp.fft, name), x)
    assert pullback(np.zeros_like(out))[0].shape == (0, 4)


def test_parseval():
    x = random(6)
    found = bp.grad(lambda x: xp.sum(xp.abs(xp.fft.fft(x, norm="ortho")) ** 2))(x)
    np.testing.assert_allclose(found, 2 * x)


def test_the_gradient_of_a_convolution_by_spectra():
    x, kernel = random(8), random(3)

    def convolve(x, kernel):
        return xp.fft.irfft(xp.fft.rfft(x, n=10) * xp.fft.rfft(kernel, n=10), n=10)

    np.testing.assert_allclose(convolve(x, kernel), np.convolve(x, kernel))
    g = random(10)
    g_x, g_kernel = bp.vjp(convolve, x, kernel)[1](g)
    np.testing.assert_allclose(g_x, np.correlate(g, kernel, "valid"))
    np.testing.assert_allclose(g_kernel, np.correlate(g, x, "valid"))


def test_an_unknown_norm_is_refused():
    with pytest.raises(ValueError, match="norm"):
        bp.vjp(lambda x: xp.fft.fft(x, norm="twice"), random(3))


# -- PyTorch


@pytest.mark.peers
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("n", [None, 3, 4, 7, 8])
@pytest.mark.parametrize("name", ["fft", "ifft", "rfft", "irfft", "hfft", "ihfft"])
def test_values_and_gradients_are_pytorchs(name, n, norm):
    torch = pytest.importorskip("torch")
    x = random(2, 5, imaginary=takes_complex(name))
    out, pullback = bp.vjp(lambda x: getattr(xp.fft, name)(x, n=n, norm=norm), x)
    g = random(*out.shape, imaginary=np.iscomplexobj(out))
    tensor = torch.tensor(x, requires_grad=True)
    expected = getattr(torch.fft, name)(tensor, n=n, norm=norm)
    np.testing.assert_allclose(out, expected.detach().numpy(force=True), atol=1e-12)
    expected.backward(torch.tensor(g))
    np.testing.assert_allclose(pullback(g)[0], tensor.grad.numpy(force=True), atol=1e-12)


@pytest.mark.peers
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(("s", "axes"), [(None, None), (None, (2, 0)), ((3, 5), (-1, 0)), ((7,), (1,))])
@pytest.mark.parametrize("name", ["fftn", "ifftn", "rfftn", "irfftn"])
def test_values_and_gradients_of_several_axes_are_pytorchs(name, s, axes, norm):
    torch = pytest.importorskip("torch")
    x = random(2, 3, 4, imaginary=takes_complex(name))
    out, pullback = bp.vjp(lambda x: getattr(xp.fft, name)(x, s=s, axes=axes, norm=norm), x)
    g = random(*out.shape, imaginary=np.iscomplexobj(out))
    tensor = torch.tensor(x, requires_grad=True)
    expected = getattr(torch.fft, name)(tensor, s=s, dim=axes, norm=norm)
    np.testing.assert_allclose(out, expected.detach().numpy(force=True), atol=1e-12)
    expected.backward(torch.tensor(g))
    np.testing.assert_allclose(pullback(g)[0], tensor.grad.numpy(force=True), atol=1e-12)
