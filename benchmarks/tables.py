"""``gpubp train`` beside scikit-learn's multilayer perceptrons of the same shape, on the same rows, in one run.

    python -m benchmarks.tables [--seeds 10] [--hidden 128 64] [--table diabetes] [options of gpubp train]

Two tables of scikit-learn's (see examples/tables.py): breast cancer, by accuracy, and diabetes, by R². Each seed parts
the rows anew, draws the net anew, and tests both sides with the same fifth of the rows. Both have the other rows to do
with as they like, and their own defaults; gpubp keeps a tenth of them for validation. scikit-learn is given what
`gpubp train` makes for itself, standardised inputs and targets: once with its defaults, once with early stopping.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

from gpubp.cli import main as gpubp
from gpubp.cli.reading import read
from gpubp.cli.settings import Settings
from gpubp.cli.task import split

EXAMPLES = str(Path(__file__).parents[1] / "examples")
sys.path.append(EXAMPLES)

SIDES = ("gpubp train", "scikit-learn", "scikit-learn, early stopping")


def ours(file: Path, seed: int, hidden: list[int], options: list[str]) -> float:
    """Train on the command line, and return the figure of the test."""
    out = io.StringIO()
    argv = ["train", str(file), "--seed", str(seed), "--json", "--device", "cpu", "--out", str(file.with_name("run"))]
    with contextlib.redirect_stdout(out):
        status = gpubp([*argv, "--overwrite", "--hidden", *map(str, hidden), *options])
    assert status == 0
    test = json.loads(out.getvalue().splitlines()[-1])["test"]
    return test["accuracy"] if "accuracy" in test else test["r2"]


def theirs(file: Path, seed: int, hidden: list[int], **options: object) -> float:
    """Train scikit-learn's net on the rows that ``gpubp train`` has for training and validation."""
    from sklearn.compose import TransformedTargetRegressor
    from sklearn.neural_network import MLPClassifier, MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    settings = Settings(data=str(file), seed=seed)
    rows, _ = read(settings.data, settings)
    table = rows.table
    chosen, test = split(rows.known(), rows.labels(), settings.test_fraction, seed)
    x = np.stack([table[name] for name in table.names if name != rows.target], axis=1)
    y = table[rows.target]
    if y.dtype.kind == "f":
        net = MLPRegressor(hidden_layer_sizes=tuple(hidden), random_state=seed, **options)
        model = TransformedTargetRegressor(make_pipeline(StandardScaler(), net), transformer=StandardScaler())
    else:
        model = make_pipeline(
            StandardScaler(), MLPClassifier(hidden_layer_sizes=tuple(hidden), random_state=seed, **options)
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it has not converged after its 200 epochs
        model.fit(x[chosen], y[chosen])
    return float(model.score(x[test], y[test]))


def main() -> None:
    """Print a table of means over the seeds, with standard errors and seconds."""
    from tables import TABLES, write

    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--hidden", type=int, nargs="+", default=[128, 64])
    parser.add_argument("--table", choices=TABLES, help="by default both")
    args, options = parser.parse_known_args()
    print(f"{'':14}{'':30}{'mean':>8}{'± s.e.':>9}{'least':>8}{'seconds':>9}")
    for name in [args.table] if args.table else TABLES:
        with tempfile.TemporaryDirectory() as folder:
            file = write(name, Path(folder))
            ways = (
                lambda seed: ours(file, seed, args.hidden, options),  # noqa: B023
                lambda seed: theirs(file, seed, args.hidden),  # noqa: B023
                lambda seed: theirs(file, seed, args.hidden, early_stopping=True),  # noqa: B023
            )
            found = [[] for _ in ways]
            seconds = [0.0 for _ in ways]
            for seed in range(args.seeds):
                for k, way in enumerate(ways):
                    start = time.perf_counter()
                    found[k].append(way(seed))
                    seconds[k] += (time.perf_counter() - start) / args.seeds
        for side, figures, spent in zip(SIDES, found, seconds, strict=True):
            error = np.std(figures, ddof=1) / np.sqrt(args.seeds)
            print(f"{name:14}{side:30}{np.mean(figures):8.4f}{error:9.4f}{np.min(figures):8.4f}{spent:9.2f}")


if __name__ == "__main__":
    main()
