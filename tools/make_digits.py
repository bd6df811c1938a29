"""Make gpubp/data/digits.npz from scikit-learn's copy of the digits (run once; needs scikit-learn).

The test rows are drawn once, with seed 0: of each class a fifth, rounded so that there are 360 in all.
"""

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

SEED, TEST_ROWS = 0, 360


def main() -> None:
    """Write the file beside the module that reads it."""
    images, labels = load_digits(return_X_y=True)
    rng = np.random.Generator(np.random.Philox(SEED))
    shares = np.bincount(labels) * TEST_ROWS / len(labels)
    counts = np.floor(shares).astype(int)
    counts[np.argsort(counts - shares, kind="stable")[: TEST_ROWS - counts.sum()]] += 1  # largest remainders
    test = np.concatenate([rng.permutation(np.flatnonzero(labels == c))[:n] for c, n in enumerate(counts)])
    np.savez_compressed(
        Path(__file__).parents[1] / "gpubp" / "data" / "digits.npz",
        images=images.reshape(-1, 8, 8).astype(np.uint8),
        labels=labels.astype(np.uint8),
        test=np.sort(test).astype(np.uint16),
    )


if __name__ == "__main__":
    main()
