"""The benchmark of the loop: its loops learn the same, and its table has a line for each."""

import sys

import numpy as np

from benchmarks import loop


def test_it_prints_a_line_for_each_loop(monkeypatch, capsys):
    monkeypatch.setattr(loop, "EPOCHS", 2)
    monkeypatch.setattr(loop, "STEPS", 3)
    monkeypatch.setattr(sys, "argv", ["loop", "--seconds", "0"])
    loop.main()
    shown = capsys.readouterr().out
    for name in loop.SIZES:
        assert f"{name}, batches of 32" in shown
    assert shown.count("fit ") == len(loop.SIZES)
    assert "us a step    1.00" in shown


def test_the_loops_are_the_same(monkeypatch):
    nets, make = [], loop.net_of
    monkeypatch.setattr(loop, "net_of", lambda sizes: nets.append(make(sizes)) or nets[-1])
    sizes = (8, 16, 4)
    data = loop.data_of(sizes)
    loop.fitted(sizes, data)()
    loop.bare(sizes, data)()
    for a, b in zip(nets[0].parameters().values(), nets[1].parameters().values(), strict=True):
        np.testing.assert_array_equal(a, b)
