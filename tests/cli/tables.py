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
    rows = zip(a, b, 10 + 3 * a - 2 * b + 0.1 * e, strict=True)
    return "a,b,y\n" + "".join(f"{x:.4f},{z:.4f},{y:.4f}\n" for x, z, y in rows)
