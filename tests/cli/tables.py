"""Small tables to learn from."""

import numpy as np


def flowers(n=60, seed=0):
    """A table of three kinds: two numbers, a category, and the kind."""
    rng = np.random.default_rng(seed)
    kind = np.arange(n) % 3
    rows = ["length,width,colour,kind"]
    for k, (a, b) in zip(kind, rng.normal(size=(n, 2)), strict=True):
        rows.append(f"{a + 4 * k:.3f},{b:.3f},{'red' if (b > 0) == (k > 0) else 'blue'},{'abc'[k]}")
    return "\n".join(rows) + "\n"


def lengths(n=80, seed=0):
    """A table to predict a number from: y = 10 + 3 a - 2 b, with a little noise."""
    rng = np.random.default_rng(seed)
    a, b, e = rng.normal(size=(3, n))
    return "a,b,y\n" + "".join(f"{p:.4f},{q:.4f},{10 + 3 * p - 2 * q + 0.1 * r:.4f}\n" for p, q, r in zip(a, b, e))
