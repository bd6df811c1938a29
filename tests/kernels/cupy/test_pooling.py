"""Pooling on CuPy, a part at a time."""

from importlib import import_module

from gpubp.fused import FUSED

from ..agreement import assert_agrees
from ..test_pooling import distinct


def test_more_than_can_be_counted_in_one_launch(backend, monkeypatch):
    window = import_module("gpubp.kernels.cupy.window")
    monkeypatch.setattr(window, "LIMIT", 9 * 8 * 8 * 2)
    x = distinct(5, 9, 8, 8)
    for name in ("max_pool", "avg_pool"):
        assert_agrees(backend, name, x, dtype="float32", window=2)
    assert len(list(window.parts(5, 9 * 8 * 8))) == 3
    monkeypatch.setattr(window, "LIMIT", 9 * 8 * 8 - 1)
    assert FUSED["max_pool"].overrides["cupy"].forward(None, (True,), backend.asarray(x), window=2) is NotImplemented
