"""Two tables of scikit-learn's as CSV files for ``gpubp train``: ``python examples/tables.py breast-cancer``.

``breast-cancer``: 569 tumours, 30 measurements of cell nuclei each, malignant or benign (Wolberg, Mangasarian, Street,
"Breast Cancer Wisconsin (Diagnostic)", UCI Machine Learning Repository, 1995, CC BY 4.0). ``diabetes``: 442 patients,
ten measurements each, and the disease's progression a year later (Efron, Hastie, Johnstone, Tibshirani, "Least angle
regression", Annals of Statistics, 2004). Both come with scikit-learn (extra ``peers``): nothing is downloaded.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

TABLES = {"breast-cancer": "diagnosis", "diabetes": "progression"}  #: names of the targets


def write(name: str, folder: Path = Path()) -> Path:
    """Write a table, with the names of its columns, the target last, and return the file."""
    from sklearn.datasets import load_breast_cancer, load_diabetes

    if name == "breast-cancer":
        found = load_breast_cancer()
        targets = found.target_names[found.target]
    else:
        found = load_diabetes(scaled=False)
        targets = found.target
    file = folder / f"{name}.csv"
    folder.mkdir(parents=True, exist_ok=True)
    with open(file, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow([*found.feature_names, TABLES[name]])
        writer.writerows([*map(repr, row), target] for row, target in zip(found.data.tolist(), targets, strict=True))
    return file


def main() -> None:
    """Write the tables named on the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="+", choices=TABLES, metavar="NAME", help=", ".join(TABLES))
    parser.add_argument("--folder", type=Path, default=Path(), help="where to put them (default: here)")
    args = parser.parse_args()
    for name in args.names:
        print(write(name, args.folder))


if __name__ == "__main__":
    main()
