import numpy as np
import pytest

import gpubp as bp
from gpubp import numpy as xp
from gpubp.testing import check_grads

RNG = np.random.default_rng(3)
INF = float("inf")


def random(*shape, imaginary=False):
    x = RNG.normal(size=shape)
    return x + 1j * RNG.normal(size=shape) if imaginary else x


def adjoint(x):
    x = x.mT
    return x.conj() if "complex" in str(x.dtype) else x


def gradient(f, x, g):
    return bp.vjp(f, x)[1](g)[0]


def cofactors(x):
    n = x.shape[-1]
    others = [[k for k in range(n) if k != i] for i in range(n)]
    return np.asarray(
        [[(-1) ** (i + j) * np.linalg.det(x[others[i]][:, others[j]]) for j in range(n)] for i in range(n)]
    )


# -- products


def test_matmul_of_a_stack_and_one_matrix_keeps_no_stack_of_gradients():
    x, w = random(5, 4, 3), random(3, 2)
    g = random(5, 4, 2)
    _, g_w = bp.vjp(xp.matmul, x, w)[1](g)
    np.testing.assert_allclose(g_w, np.einsum("btk,btm->km", x, g))


def test_matmul_of_shapes_that_do_not_fit_is_refused():
    with pytest.raises(ValueError, match="matmul"):
        bp.vjp(xp.matmul, random(2, 3), random(2, 3))


def test_vecdot_conjugates_its_first_argument_and_refuses_to_broadcast_along_the_axis():
    x, y = random(3, imaginary=True), random(3, imaginary=True)
    value, _ = bp.vjp(xp.vecdot, x, y)
    np.testing.assert_allclose(value, np.vdot(x, y))
    with pytest.raises(ValueError, match=r"vecdot along axis -1 of arrays of shapes \(1,\) and \(3,\)"):
        bp.vjp(xp.vecdot, x[:1], y)


def test_vecdot_of_integers_keeps_their_dtype():
    x = np.asarray([1, 2], dtype=np.int16)
    assert xp.vecdot(bp.constant(x), bp.constant(x)).dtype == np.int16


# -- determinants


@pytest.mark.parametrize("n", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("missing", [0, 1, 2])
def test_the_gradient_of_a_determinant_is_the_matrix_of_cofactors_whatever_the_rank(n, missing):
    x = random(n, max(n - missing, 0)) @ random(max(n - missing, 0), n)
    np.testing.assert_allclose(bp.grad(xp.linalg.det)(x), cofactors(x), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_the_determinant_of_a_singular_matrix_has_its_gradient_at_every_scale(scale):
    laplacian = np.asarray([[2.0, -1, 0, -1], [-1, 2, -1, 0], [0, -1, 2, -1], [-1, 0, -1, 2]])
    found = bp.grad(xp.linalg.det)(scale * laplacian)
    np.testing.assert_allclose(found, scale**3 * cofactors(laplacian), rtol=1e-10)


def test_singular_and_regular_matrices_stand_in_one_stack():
    singular = np.ones((4, 4)) + np.diag([0.0, 0, 1, 2])
    check_grads(xp.linalg.det, [np.stack([singular, random(4, 4)])])
    check_grads(xp.linalg.det, [np.stack([singular, random(4, 4)]) + 0j])


def test_second_derivatives_of_small_determinants_are_exact_at_zero():
    for n in (2, 3):
        check_grads(xp.linalg.det, [np.zeros((n, n))])


# -- kinks and ties


@pytest.mark.parametrize("order", [2, 1, 3, 1.5, 0.5, 0])
def test_the_norm_has_gradient_zero_at_the_zero_vector(order):
    for x in (np.zeros(3), np.zeros(3, dtype=complex)):
        np.testing.assert_array_equal(bp.grad(lambda x: xp.linalg.vector_norm(x, ord=order))(x), 0)


def test_the_norms_of_rows_of_which_one_is_zero():
    x = np.asarray([[3.0, 4.0], [0.0, 0.0]])
    found = bp.grad(lambda x: xp.sum(xp.linalg.vector_norm(x, axis=-1)))(x)
    np.testing.assert_allclose(found, [[0.6, 0.8], [0, 0]])


@pytest.mark.parametrize(("order", "expected"), [(INF, [0, 0.5, 0, -0.5]), (-INF, [0.5, 0, -0.5, 0])])
def test_ties_of_the_largest_or_smallest_magnitude_share_the_gradient(order, expected):
    x = np.asarray([1.0, 2.0, -1.0, -2.0])
    np.testing.assert_allclose(bp.grad(lambda x: xp.linalg.vector_norm(x, ord=order))(x), expected)


def test_a_norm_of_an_unknown_order_is_refused():
    with pytest.raises(ValueError, match="matrix_norm got ord=3, expected 'fro', 'nuc'"):
        bp.grad(lambda x: xp.linalg.matrix_norm(x, ord=3))(np.eye(2))


# -- Hermitian matrices


@pytest.mark.parametrize("imaginary", [False, True])
@pytest.mark.parametrize("upper", [False, True])
def test_the_gradient_of_a_cholesky_factor_is_hermitian(imaginary, upper):
    x = random(3, 4, imaginary=imaginary)
    x = x @ adjoint(x)
    found = gradient(lambda x: xp.linalg.cholesky(x, upper=upper), x, random(3, 3, imaginary=imaginary))
    np.testing.assert_allclose(found, adjoint(found))


@pytest.mark.parametrize("imaginary", [False, True])
def test_the_gradient_of_eigenvalues_and_vectors_is_hermitian(imaginary):
    x = random(3, 3, imaginary=imaginary)
    w, v = random(3), random(3, 3, imaginary=imaginary)
    found = gradient(lambda x: tuple(xp.linalg.eigh(x)), x + adjoint(x), (w, v))
    np.testing.assert_allclose(found, adjoint(found))


# -- eigenvalues and singular values that coincide


def test_functions_of_equal_eigenvalues_have_finite_gradients():
    x = np.eye(3)
    np.testing.assert_allclose(bp.grad(lambda x: xp.sum(xp.linalg.eigvalsh(x) ** 2))(x), 2 * x)
    np.testing.assert_allclose(bp.grad(lambda x: xp.sum(xp.linalg.svdvals(x) ** 2))(x), 2 * x)
    np.testing.assert_allclose(bp.grad(lambda x: xp.linalg.matrix_norm(x, ord="nuc"))(x), x)
    found = bp.grad(lambda x: xp.sum(xp.real(xp.linalg.eigvals(x))))(x)
    np.testing.assert_allclose(found, x)


def test_unused_vectors_of_equal_eigenvalues_do_no_harm():
    def f(x):
        w, v = xp.linalg.eigh(x)
        return xp.sum(w) + 0.0 * xp.sum(v)

    np.testing.assert_allclose(bp.grad(f)(np.eye(3)), np.eye(3))


def test_the_trace_as_a_sum_of_equal_eigenvalues_has_no_second_derivative():
    hessian = bp.hessian(lambda x: xp.sum(xp.linalg.eigvalsh(x)))(np.eye(2))
    np.testing.assert_array_equal(hessian, 0)


# -- what has no derivative says so


def test_vectors_that_only_fill_up_a_basis_have_no_derivative():
    for shape, k, name in [((3, 2), 0, "U"), ((2, 3), 2, "Vh")]:
        with pytest.raises(NotImplementedError, match=rf"full_matrices=True has no derivative of {name}, .*=False"):
            bp.grad(lambda x, k=k: xp.sum(xp.linalg.svd(x)[k]))(random(*shape))
    with pytest.raises(NotImplementedError, match=r"qr of 3×2 matrices with mode='complete' .* mode='reduced'"):
        bp.grad(lambda x: xp.sum(xp.linalg.qr(x, mode="complete")[0]))(random(3, 2))


def test_what_is_unique_beside_them_has_one():
    for shape, k in [((3, 2), 2), ((2, 3), 0)]:
        x = random(*shape)
        full, reduced = (
            bp.grad(lambda x, m=m, k=k: xp.sum(xp.abs(xp.linalg.svd(x, full_matrices=m)[k]) ** 3))(x)
            for m in (True, False)
        )
        np.testing.assert_allclose(full, reduced, atol=1e-12)
    check_grads(lambda x: xp.linalg.qr(x, mode="complete")[1], [random(3, 2)], order=1)
    check_grads(lambda x: xp.linalg.svd(x)[1], [random(3, 2)], order=1)


def test_the_rank_is_constant():
    rank = xp.linalg.matrix_rank(bp.constant(np.ones((2, 2))))
    assert int(rank) == 1


# -- PyTorch


def lines(v):
    """Return the projections on the lines that the columns span, which have no sign or phase."""
    rows = v.mT
    return rows[..., :, None] * (rows.conj() if "complex" in str(rows.dtype) else rows)[..., None, :]


def in_both(name, post=lambda out: out, hermitian=False, **static):
    """Return a function of the twin and the same of PyTorch, whose argument may first be made Hermitian."""
    import torch

    torch_names = {"axis": "dim", "keepdims": "keepdim"}
    theirs = {torch_names.get(k, k): v for k, v in static.items()}

    def run(function, kwargs):
        return lambda *args: post(function(*[(x + adjoint(x)) / 2 for x in args] if hermitian else args, **kwargs))

    return run(getattr(xp.linalg, name), static), run(getattr(torch.linalg, name), theirs)


def of_svd(out):
    u, s, vh = out
    return lines(u), s, u.mT[..., :, None] * vh[..., None, :]


CASES = {
    "matmul, broadcast": (lambda: in_both("matmul"), [(2, 1, 2, 3), (3, 3, 2)]),
    "vecdot": (lambda: in_both("vecdot", axis=-2), [(2, 3, 2), (3, 2)]),
    "cross": (lambda: in_both("cross"), [(2, 3), (1, 3)]),
    "det": (lambda: in_both("det"), [(2, 4, 4)]),
    "slogdet": (lambda: in_both("slogdet", tuple), [(2, 4, 4)]),
    "inv": (lambda: in_both("inv"), [(2, 3, 3)]),
    "matrix_power": (lambda: (lambda x: xp.linalg.matrix_power(x, -3), lambda x: x.matrix_power(-3)), [(3, 3)]),
    "solve": (lambda: in_both("solve"), [(2, 3, 3), (3, 2)]),
    "pinv, tall": (lambda: in_both("pinv"), [(4, 2)]),
    "pinv, wide": (lambda: in_both("pinv"), [(2, 4)]),
    "qr, tall": (lambda: in_both("qr", tuple), [(2, 4, 3)]),
    "qr, wide": (lambda: in_both("qr", tuple), [(2, 2, 4)]),
    "qr, R": (lambda: in_both("qr", lambda out: out[1]), [(2, 4)]),
    "qr, Q": (lambda: in_both("qr", lambda out: out[0]), [(2, 4)]),
    "cholesky": (lambda: in_both("cholesky", upper=True, post=abs), [(2, 3, 3)]),
    "eigh": (lambda: in_both("eigh", lambda out: (out[0], lines(out[1])), hermitian=True), [(2, 3, 3)]),
    "eigvalsh": (lambda: in_both("eigvalsh", hermitian=True), [(2, 3, 3)]),
    "eig": (lambda: in_both("eig", lambda out: (out[0], lines(out[1]))), [(2, 3, 3)]),
    "eigvals": (lambda: in_both("eigvals"), [(2, 3, 3)]),
    "svd, square": (lambda: in_both("svd", of_svd), [(3, 3)]),
    "svd, tall": (lambda: in_both("svd", of_svd, full_matrices=False), [(2, 4, 3)]),
    "svd, wide": (lambda: in_both("svd", of_svd, full_matrices=False), [(2, 2, 4)]),
    "svdvals": (lambda: in_both("svdvals"), [(2, 4)]),
    **{f"vector_norm {p}": (lambda p=p: in_both("vector_norm", ord=p, axis=(0, 2)), [(2, 3, 2)]) for p in (2, 2.5, -1)},
    **{f"matrix_norm {p}": (lambda p=p: in_both("matrix_norm", ord=p), [(2, 3, 4)]) for p in ("nuc", 2, -2, 1, INF)},
}  # fmt: skip


@pytest.mark.peers
@pytest.mark.parametrize("imaginary", [False, True], ids=["real", "complex"])
@pytest.mark.parametrize("case", CASES)
def test_first_and_second_derivatives_are_pytorchs(case, imaginary):
    torch = pytest.importorskip("torch")
    make, shapes = CASES[case]
    ours, theirs = make()
    args = [random(*shape, imaginary=imaginary) for shape in shapes]
    if case == "cholesky":
        args = [x @ adjoint(x) + np.eye(3) for x in args]

    def of_list(f):
        return lambda *args: list(out) if isinstance(out := f(*args), tuple) else [out]

    values, pullback = bp.vjp(of_list(ours), *args)
    tensors = [torch.tensor(x, requires_grad=True) for x in args]
    outputs = of_list(theirs)(*tensors)
    g = [random(*x.shape, imaginary=np.iscomplexobj(x)) for x in values]
    expected = torch.autograd.grad(outputs, tensors, [torch.tensor(x) for x in g], create_graph=True)
    for a, e in zip([*values, *pullback(g)], [*outputs, *expected], strict=True):
        np.testing.assert_allclose(a, e.detach().numpy(force=True), rtol=1e-8, atol=1e-8)

    constants = [bp.constant(x) for x in g]
    _, second = bp.vjp(lambda *args: list(bp.vjp(of_list(ours), *args)[1](constants)), *args)
    h = [random(*x.shape, imaginary=imaginary) for x in args]
    traced = [(e, torch.tensor(x)) for e, x in zip(expected, h, strict=True) if e.requires_grad]
    seconds = torch.autograd.grad([e for e, _ in traced], tensors, [x for _, x in traced], allow_unused=True)
    for a, e in zip(second(h), seconds, strict=True):
        np.testing.assert_allclose(a, 0 if e is None else e.detach().numpy(force=True), rtol=1e-6, atol=1e-6)


def test_the_threshold_of_the_pseudoinverse_may_be_traced():
    x = np.array([[2.0, 1.0], [0.0, 3.0]])
    dx, drtol = bp.grad(
        lambda x, rtol: bp.array_namespace(x).sum(bp.array_namespace(x).linalg.pinv(x, rtol=rtol)), (0, 1)
    )(x, np.array(1e-10))
    np.testing.assert_allclose(dx, bp.grad(lambda x: bp.array_namespace(x).sum(bp.array_namespace(x).linalg.inv(x)))(x))
    assert drtol == 0
