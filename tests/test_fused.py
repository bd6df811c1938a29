"""Fused functions: which of the three tiers runs when, and what is kept."""

from __future__ import annotations

import numpy as np
import pytest

import gpubp as bp
from gpubp.fused import FUSED, Fused

X = np.array([1.0, 2.0, 3.0])
Y = np.array([0.5, -1.0, 2.0])


def total(x):
    return bp.array_namespace(x).sum(x)


@pytest.fixture
def product():
    """A product with all three tiers, each of which notes that it ran."""
    calls = []

    def reference(x, y, *, power=1):
        calls.append("reference")
        return x**power * y

    @bp.fused(reference)
    def product(xp, needs, x, y, *, power=1):
        calls.append(("forward", needs))
        return x**power * y, (x, y)

    @product.backward
    def _(xp, needs, g, residuals, *, power):
        calls.append(("backward", needs))
        x, y = residuals
        return g * power * x ** (power - 1) * y if needs[0] else None, g * x**power if needs[1] else None

    product.calls = calls
    yield product
    del FUSED["product"]


def test_plain_arrays_only_compute(product):
    np.testing.assert_array_equal(product(X, Y, power=2), X * X * Y)
    assert product.calls == [("forward", (False, False))]
    assert type(product(X, Y)) is np.ndarray


def test_one_level_takes_the_hand_written_passes_and_says_what_is_needed(product):
    gradient = bp.grad(lambda x: total(product(x, Y, power=2)))(X)
    np.testing.assert_array_equal(gradient, 2 * X * Y)
    assert product.calls == [("forward", (True, False)), ("backward", (True, False))]


def test_two_levels_take_the_reference(product):
    np.testing.assert_array_equal(bp.hessian(lambda x: total(product(x, Y, power=2)))(X), np.diag(2 * Y))
    assert "reference" in product.calls
    assert not any(call[0] == "backward" for call in product.calls if call != "reference")


def test_a_traced_cotangent_takes_the_reference_backward(product):
    tangent = bp.jvp(lambda x, y: product(x, y, power=2), (X, Y), (X, Y))[1]
    np.testing.assert_allclose(tangent, 3 * X * X * Y)
    assert [c if c == "reference" else c[0] for c in product.calls] == ["forward", "reference"]


def test_an_inner_transform_of_plain_values_is_fused_within_an_outer_one(product):
    def outer(z):
        inner = bp.grad(lambda x: total(product(x, Y, power=2) * z))
        return total(inner(X) * X)

    np.testing.assert_allclose(bp.grad(outer)(X), 2 * X * X * Y)


def test_overrides_replace_both_passes_and_may_decline(product):
    def forward(xp, needs, x, y, *, power=1):
        if power != 1:
            return NotImplemented
        product.calls.append("override")
        return x * y, "residual of the override"

    def backward(xp, needs, g, residuals, *, power=1):
        assert residuals == "residual of the override"
        return g * 100, None

    product.override("numpy", forward, backward)
    np.testing.assert_array_equal(bp.grad(lambda x: total(product(x, Y)))(X), np.full(3, 100.0))
    assert product.calls == ["override"]
    np.testing.assert_array_equal(bp.grad(lambda x: total(product(x, Y, power=2)))(X), 2 * X * Y)
    assert product.calls[1:] == [("forward", (True, False)), ("backward", (True, False))]


def test_several_results():
    def reference(x):
        return x * x, x * 3

    @bp.fused(reference)
    def two(xp, needs, x):
        return (x * x, x * 3), x

    @two.backward
    def _(xp, needs, g, x):
        first, second = g
        return ((0 if first is None else 2 * first * x) + (0 if second is None else 3 * second),)

    try:
        np.testing.assert_array_equal(bp.grad(lambda x: total(two(x)[0] * two(x)[1]))(X), 9 * X * X)
        np.testing.assert_array_equal(bp.grad(lambda x: total(two(x)[0]))(X), 2 * X)
        np.testing.assert_allclose(bp.hessian(lambda x: total(two(x)[0] * two(x)[1]))(X), np.diag(18 * X))
        np.testing.assert_allclose(bp.jvp(lambda x: two(x)[1], (X,), (X,))[1], 3 * X)
        assert all(type(v) is np.ndarray for v in two(X))
    finally:
        del FUSED["two"]


def test_no_arrays_is_an_error(product):
    with pytest.raises(TypeError, match="product expects arrays, got float, float"):
        product(1.0, 2.0)


def test_a_traced_array_by_keyword_is_an_error(product):
    with pytest.raises(TypeError, match="product takes traced arrays by position, not by keyword"):
        bp.grad(lambda x: total(product(X, Y, power=x)))(2.0)


def test_a_fused_function_is_known_by_name_and_documented_by_its_reference(product):
    assert FUSED["product"] is product
    assert isinstance(product, Fused)
    assert product.__name__ == "product"
