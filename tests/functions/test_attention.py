import importlib
import tracemalloc

import numpy as np
import pytest

import gpubp as bp
from gpubp import functions as F
from gpubp.fused import FUSED
from gpubp.testing import CATALOGUE, Record, Sample
from gpubp.testing.backends import load
from tests import test_catalogue as catalogue

module = importlib.import_module("gpubp.functions.attention")
rng = np.random.default_rng(0)
RANDOM = {"dropout": 0.3, "key": (5, 6)}


def sequences(queries=5, keys=7, heads=3, features=4, dtype="float64"):
    shapes = [(2, queries, heads, features), (2, keys, heads, features), (2, keys, heads, 2)]
    return [rng.normal(size=shape).astype(dtype) for shape in shapes]


def gradients(f, *args, argnums=(0, 1, 2), **options):
    """Return the output of an attention and its gradients for a fixed cotangent."""
    out, pullback = bp.vjp(lambda *values: f(*values, *args[len(argnums) :], **options), *(args[k] for k in argnums))
    return out, pullback(np.cos(np.arange(out.size)).reshape(out.shape).astype(out.dtype))


@pytest.fixture
def hand_written(monkeypatch):
    """Take the override away."""
    monkeypatch.setattr(FUSED["attention"], "overrides", {})
    monkeypatch.setattr(FUSED["attention"], "_chosen", {})


# -- what it computes


def test_it_is_the_mean_of_the_values_under_the_softmax_of_the_scores():
    q, k, v = sequences()
    scores = np.einsum("bqhf,bkhf->bhqk", q, k) / 2
    p = F.softmax(scores)
    np.testing.assert_allclose(F.attention(q, k, v), np.einsum("bhqk,bkhf->bqhf", p, v), rtol=1e-13)
    np.testing.assert_allclose(F.attention_weights(q, k), p, rtol=1e-13)
    np.testing.assert_allclose(F.attention(q, k, v, scale=0.5), F.attention(q, k, v), rtol=1e-13)


@pytest.mark.parametrize(("queries", "keys"), [(4, 4), (2, 5), (5, 2)])
def test_causal_attention_ends_with_the_last_query_beside_the_last_key(queries, keys):
    q, k, v = sequences(queries, keys)
    visible = np.tril(np.ones((queries, keys), dtype=bool), keys - queries)
    np.testing.assert_allclose(
        F.attention(q, k, v, causal=True), F.attention.reference(q, k, v, visible), rtol=1e-13, atol=1e-15
    )
    np.testing.assert_array_equal(F.attention_weights(q, k, causal=True)[..., ~visible], 0)


def test_the_last_query_alone_gets_what_it_gets_among_all():
    q, k, v = sequences(6, 6)
    np.testing.assert_allclose(
        F.attention(q[:, -1:], k, v, causal=True), F.attention(q, k, v, causal=True)[:, -1:], rtol=1e-13
    )


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("f", [F.attention, F.attention.reference])
@pytest.mark.parametrize("mask", [np.zeros((5, 7), dtype=bool), np.full((1, 7), -np.inf), None])
def test_a_query_that_may_attend_to_nothing_gets_0_with_derivative_0(f, mask):
    q, k, v = sequences(5, 7 if mask is not None else 4)
    out, (dq, dk, dv) = gradients(f, q, k, v, mask, causal=mask is None)
    blind = slice(None) if mask is not None else slice(1)
    assert not out[:, blind].any()
    assert not dq[:, blind].any()
    if mask is None:  # the first of five queries stands before the first of four keys
        assert all(np.isfinite(d).all() and d.any() for d in (dq, dk, dv))
    else:
        assert not dk.any()
        assert not dv.any()


def test_an_additive_mask_of_minus_infinity_hides_as_a_boolean_one():
    q, k, v = sequences()
    visible = rng.random((2, 1, 5, 7)) > 0.5
    hidden = np.where(visible, 0, -np.inf)
    for f in (F.attention, F.attention.reference):
        for a, e in zip(
            gradients(f, q, k, v, hidden)[1], gradients(F.attention.reference, q, k, v, visible)[1], strict=True
        ):
            np.testing.assert_allclose(a, e, rtol=1e-12, atol=1e-15)
        dmask = gradients(f, q, k, v, hidden, argnums=(0, 1, 2, 3))[1][3]
        assert np.isfinite(dmask).all()
        assert not dmask[~visible].any()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("f", [F.attention, F.attention.reference])
def test_scores_of_any_size_give_finite_gradients(f):
    q, k, v = (100 * x for x in sequences(dtype="float32"))
    out, found = gradients(f, q, k, v, causal=True)
    assert all(np.isfinite(x).all() and x.dtype == "float32" for x in (out, *found))


def test_not_a_number_stays_in_its_row():
    q, k, v = sequences()
    q[0, 2, 1, 0] = np.nan
    bad = np.isnan(F.attention(q, k, v))
    assert bad[0, 2, 1].all()
    assert bad.sum() == 2


# -- blocks of queries


def in_blocks(rng):
    """Return samples of three queries, for blocks of two."""
    args = [rng.normal(size=shape) for shape in [(3, 1, 2), (4, 1, 2), (4, 1, 1)]]
    see = np.array([[True, False, True, True]] * 2 + [[False] * 4])
    more = [args[1], args[0], args[2][:3]]  # queries than keys
    return [
        *(Sample(*args), Sample(*args, see), Sample(*args, see[:, :1], causal=True), Sample(*args, causal=True)),
        *(Sample(*args, rng.normal(size=shape), causal=True) for shape in [(1, 3, 4), (4,), (3, 1), (1, 1, 1), ()]),
        *(Sample(*args, None, 2, causal=causal, **RANDOM) for causal in (False, True)),
        Sample(*more, causal=True),
    ]


def test_blocks_agree_with_the_reference(monkeypatch, backend):
    monkeypatch.setattr(module, "ROWS", 2)
    monkeypatch.setitem(CATALOGUE, "attention", Record("attention", in_blocks))
    catalogue.test_hand_written_passes_agree_with_the_reference("attention", backend)


@pytest.mark.parametrize("options", [{}, {"causal": True}])
@pytest.mark.parametrize("implementation", ["override", "hand-written"])
def test_memory_grows_with_the_length_not_with_its_square(implementation, options, request):
    if implementation == "hand-written":
        request.getfixturevalue("hand_written")

    def peak(f, time):
        q, k, v = (rng.normal(size=(1, time, 1, 4)) for _ in range(3))
        tracemalloc.start()
        try:
            gradients(f, q, k, v, **options)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    F.attention(*(np.ones((1, 2, 1, 1)) for _ in range(3)))
    short, long = peak(F.attention, 1024), peak(F.attention, 2048)
    assert long < 2.2 * short
    assert peak(F.attention.reference, 1024) > 3.5 * peak(F.attention.reference, 512)
    assert peak(F.attention.reference, 1024) > 5 * short


# -- dropout


def test_dropout_zeroes_the_stated_share_of_the_weights(monkeypatch):
    q, k = sequences(40, 50, 3)[:2]
    v = np.broadcast_to(np.eye(50)[:, None], (2, 50, 3, 50))  # so that the output is the weights
    p = np.moveaxis(F.attention_weights(q, k), 1, 2)
    for rows in (128, 16):
        monkeypatch.setattr(module, "ROWS", rows)
        found = F.attention(q, k, v, None, 0, **RANDOM)
        kept = found != 0
        assert kept.mean() == pytest.approx(0.7, abs=0.02)  # of 12000: four standard deviations
        np.testing.assert_allclose(found[kept], p[kept] / 0.7, rtol=1e-12)
        assert not np.array_equal(kept, F.attention(q, k, v, None, 1, **RANDOM) != 0)
        assert not np.array_equal(kept, F.attention(q, k, v, None, 0, dropout=0.3, key=(5, 7)) != 0)
        np.testing.assert_array_equal(found, F.attention(q, k, v, None, np.asarray(0), **RANDOM))


def test_dropout_is_the_same_in_every_library(backend):
    args = sequences(6, 6)
    expected = F.attention(*args, None, 3, causal=True, **RANDOM)
    found = F.attention(*map(backend.asarray, args), None, 3, causal=True, **RANDOM)
    np.testing.assert_allclose(backend.to_numpy(found), expected, rtol=1e-12)


# -- another implementation


@pytest.mark.peers
@pytest.mark.parametrize("kind", [None, "boolean", "additive", "causal"])
def test_pytorch_has_the_same_value_and_gradients(kind):
    torch = pytest.importorskip("torch")
    q, k, v = sequences(7, 7)
    mask = {"boolean": rng.random((2, 1, 7, 7)) > 0.3, "additive": rng.normal(size=(1, 3, 7, 7))}.get(kind)
    argnums = (0, 1, 2, 3) if kind == "additive" else (0, 1, 2)
    out, found = gradients(F.attention, q, k, v, mask, causal=kind == "causal", argnums=argnums)
    values = [torch.tensor(x).requires_grad_() for x in (q, k, v)]
    if mask is not None:
        mask = torch.tensor(mask).requires_grad_(kind == "additive")
    expected = torch.nn.functional.scaled_dot_product_attention(
        *(x.transpose(1, 2) for x in values), attn_mask=mask, is_causal=kind == "causal"
    ).transpose(1, 2)
    np.testing.assert_allclose(out, expected.detach().numpy(), rtol=1e-10, atol=1e-12)
    cotangent = torch.cos(torch.arange(out.size, dtype=torch.float64)).reshape(out.shape)
    wanted = torch.autograd.grad(expected, [*values, mask][: len(argnums)], cotangent)
    for a, e in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, e.numpy(), rtol=1e-10, atol=1e-12)


# -- errors


@pytest.mark.parametrize("f", [F.attention, F.attention.reference])
def test_what_does_not_fit_is_named(f):
    q, k, v = sequences()
    with pytest.raises(ValueError, match=r"q of shape \(\.\.\., queries.*\(5, 4\), \(2, 7, 3, 4\) and \(2, 7, 3, 2\)"):
        f(q[0, :, 0], k, v)
    for bad in [(q, k[..., :3], v), (q, k, v[:, :6]), (q[:, :, :2], k, v), (q[0], k, v), (q, k, v[0])]:
        with pytest.raises(ValueError, match="attention expects q of shape"):
            f(*bad)
    with pytest.raises(ValueError, match=r"at least one key, got k of shape \(2, 0, 3, 4\)"):
        f(q, k[:, :0], v[:, :0])
    for bad in [np.ones((5, 6), dtype=bool), np.ones((2, 5, 7)), np.ones((1, 2, 3, 5, 7))]:
        with pytest.raises(ValueError, match=r"broadcasts to \(\.\.\., heads, queries, keys\) = \(2, 3, 5, 7\), got"):
            f(q, k, v, bad)
    with pytest.raises(TypeError, match="boolean mask, or real numbers added to the scores, got int64"):
        f(q, k, v, np.ones((5, 7), dtype="int64"))
    with pytest.raises(TypeError, match="q of float64, k of float64, v of float64, mask of float32"):
        f(q, k, v, np.ones((5, 7), dtype="float32"))
    with pytest.raises(TypeError, match="q of float64, k of float32, v of float64"):
        f(q, k.astype("float32"), v)
    with pytest.raises(TypeError, match="real arrays, got complex128"):
        f(q + 0j, k + 0j, v + 0j)
    with pytest.raises(TypeError, match="q of array_api_strict"):
        f(load("array_api_strict").asarray(q), k, v)


@pytest.mark.parametrize("f", [F.attention, F.attention.reference])
def test_dropout_needs_a_probability_a_key_and_a_step(f):
    for p in (-0.1, 1.0):
        with pytest.raises(ValueError, match=f"from 0 to below 1, got {p}"):
            f(*sequences(), None, 0, dropout=p, key=(0, 0))
    with pytest.raises(ValueError, match=r"expects a key and a step, got \(1, 2\) and None"):
        f(*sequences(), dropout=0.1, key=(1, 2))
    with pytest.raises(ValueError, match=r"expects a key and a step, got None and 0"):
        f(*sequences(), None, 0, dropout=0.1)
