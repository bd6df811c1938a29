"""Pytrees: what is a leaf, what is carried along, and how a difference in structure is reported."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest

import gpubp as bp
from gpubp.tree import Node, leaves, leaves_against, leaves_with_paths, map_leaves, rebuild

A, B, C = np.zeros(1), np.ones(2), np.arange(3)


class Pair(NamedTuple):
    first: object
    second: object


class Layer(Node):
    def __init__(self, w, children=()):
        self.w, self.children, self.rate, self.call = w, list(children), 0.5, np.tanh


TREE = {"a": [A, (B, None, "text", 3)], "p": Pair(C, 1.5), "net": Layer(A, [Layer(B)])}


def test_leaves_in_order_and_back():
    found = leaves(TREE)
    assert [id(x) for x in found] == [id(x) for x in (A, B, C, A, B)]
    new = rebuild(TREE, [x + 1 for x in found])
    assert new["a"][1][1:] == (None, "text", 3)
    assert isinstance(new["p"], Pair)
    assert new["p"].second == 1.5
    assert isinstance(new["net"].children[0], Layer)
    assert new["net"].rate == 0.5
    assert new["net"].call is np.tanh
    np.testing.assert_array_equal(new["net"].children[0].w, B + 1)
    assert TREE["net"].w is A  # the tree itself is as it was


def test_paths_read_as_one_would_write_them():
    paths = [path for path, _ in leaves_with_paths(TREE)]
    assert paths == ["['a'][0]", "['a'][1][0]", "['p'][0]", "['net'].w", "['net'].children[0].w"]
    assert leaves_with_paths(TREE["net"])[1][0] == "children[0].w"
    assert leaves_with_paths(A) == [("", A)]


def test_scalars_of_numpy_are_leaves_and_python_numbers_are_not():
    assert leaves([np.float64(1.0), 1.0, 2, 1j, True]) == [np.float64(1.0)]


def test_an_ordinary_object_is_carried_along():
    class Thing:
        def __init__(self):
            self.w = A

    thing = Thing()
    assert map_leaves(lambda x: None, {"t": thing})["t"] is thing


def test_leaves_against():
    assert leaves_against(TREE["a"], [B, None]) == [B, None]
    assert leaves_against(A, None) == [None]
    assert leaves_against(3.0, None) == []
    with pytest.raises(TypeError, match=r"the gradient is no list of the same structure as the value at \['a'\]"):
        leaves_against(TREE, {"a": (A, B), "p": None, "net": None}, "gradient")
    with pytest.raises(TypeError, match="no dict of the same structure"):
        leaves_against({"a": A}, {"b": A})
    with pytest.raises(TypeError, match=r"has str where an array is expected at w"):
        leaves_against(Layer(A), Layer("x"))


def test_to_device_moves_whole_trees():
    strict = pytest.importorskip("array_api_strict")
    net = Layer(A, [Layer(A), Layer(B)])
    moved = bp.to_device({"net": net, "n": 3}, "array_api_strict")["net"]
    assert isinstance(moved.w, type(strict.ones(1)))
    assert moved.children[0].w is moved.w
    back = bp.to_device(moved, "cpu")
    np.testing.assert_array_equal(back.children[1].w, B)
    assert bp.to_device(net, "cpu").w is A
    with pytest.raises(TypeError, match="to_device of a traced array; move the data before"):
        bp.grad(lambda x: bp.to_device(x, "array_api_strict"))(1.0)
