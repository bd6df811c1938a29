"""Real tables, beside scikit-learn's nets of the same shape on the same rows."""

import numpy as np
import pytest

pytestmark = [pytest.mark.peers, pytest.mark.slow]
SEEDS = 5


@pytest.fixture
def sides(tmp_path, monkeypatch):
    pytest.importorskip("sklearn")
    from benchmarks import tables

    monkeypatch.syspath_prepend(tables.EXAMPLES)
    from tables import write

    def run(name, **options):
        file = write(name, tmp_path)
        return tuple(
            np.mean([side(seed) for seed in range(SEEDS)])
            for side in (
                lambda seed: tables.ours(file, seed, [128, 64], []),
                lambda seed: tables.theirs(file, seed, [128, 64], **options),
            )
        )

    return run


def test_breast_cancer_to_96_percent(sides):
    ours, theirs = sides("breast-cancer")
    assert ours >= 0.96
    assert ours >= theirs - 0.01


@pytest.mark.parametrize("options", [{}, {"early_stopping": True}], ids=["defaults", "early stopping"])
def test_diabetes_no_worse_than_scikit_learn(sides, options):
    ours, theirs = sides("diabetes", **options)
    assert ours >= theirs
