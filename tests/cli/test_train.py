import json
import sys

import numpy as np
import pytest

from gpubp.cli.settings import ACTIVATIONS, OPTIMIZERS, SCHEDULES
from gpubp.cli.task import split
from tests.cli.tables import flowers, lengths


def test_digits_write_their_run_folder_and_two_runs_are_alike(train, tmp_path):
    first, second = (train("digits", "--out", f"run{k}") for k in range(2))
    assert first[0]["rows"] == {"train": 1293, "validation": 144, "test": 360}
    assert first[0]["task"] == "classes"
    assert [e["event"] for e in first] == ["data", "epoch", "epoch", "epoch", "result"]
    assert first[-1]["test"] == second[-1]["test"]
    assert first[-1]["test"]["accuracy"] > 0.9
    rows = [json.loads(line) for line in (tmp_path / "run0" / "metrics.jsonl").read_text().splitlines()]
    assert rows == [{k: x for k, x in e.items() if k != "event"} for e in first[1:4]]
    for name in ("metrics.jsonl", "model.safetensors", "encoding.json"):
        assert (tmp_path / "run0" / name).read_bytes() == (tmp_path / "run1" / name).read_bytes()


@pytest.mark.slow
def test_digits_reach_97_percent_over_five_seeds(train, tmp_path):
    found = [train("digits", "--seed", k, "--out", f"run{k}", epochs=30)[-1]["test"]["accuracy"] for k in range(5)]
    assert np.mean(found) >= 0.97


def test_a_table_of_classes(train, gpubp, tmp_path):
    (tmp_path / "flowers.csv").write_text(flowers(120))
    events = train("flowers.csv", epochs=40)
    assert (events[0]["task"], events[0]["target"], events[0]["classes"]) == ("classes", "kind", ["a", "b", "c"])
    assert events[0]["rows"] == {"train": 86, "validation": 10, "test": 24}
    assert events[-1]["test"]["accuracy"] > 0.9
    assert np.sum(events[-1]["test"]["confusion"]) == 24
    done = gpubp("evaluate", "runs/flowers", "--json")
    found = json.loads(done.out)
    assert {name: found[name] for name in ("accuracy", "f1", "loss")} == pytest.approx(
        {name: events[-1]["test"][name] for name in ("accuracy", "f1", "loss")}
    )
    assert gpubp("evaluate", "runs/flowers", "flowers.csv").out.startswith("120 rows: accuracy ")


def test_regression_is_measured_in_the_targets_unit(train, gpubp, tmp_path):
    (tmp_path / "lengths.csv").write_text(lengths())
    events = train("lengths.csv", epochs=60)
    assert (events[0]["task"], events[0]["target"]) == ("regression", "y")
    test = events[-1]["test"]
    assert test["r2"] > 0.9
    assert 0 < test["mae"] < test["rmse"] < 1.5
    done = gpubp("predict", "runs/lengths", "lengths.csv")
    lines = done.out.splitlines()
    assert lines[0] == "row,prediction"
    truth = [float(line.split(",")[2]) for line in lengths().splitlines()[1:]]
    said = [float(line.split(",")[1]) for line in lines[1:]]
    assert np.mean(np.abs(np.subtract(truth, said))) < 1


def test_what_is_said_to_people(gpubp, tmp_path):
    (tmp_path / "flowers.csv").write_text(flowers())
    done = gpubp("train", "flowers.csv", "--epochs", 2, "--device", "cpu")
    assert done.status == 0
    assert "43 rows to learn from, 5 for validation, 12 to test with" in done.out
    assert "target 'kind', classes: a, b, c; task classes (inferred; --task says otherwise)" in done.out
    assert "Dense(4, 128)" in done.out
    assert "accuracy" in done.out
    assert "confusion: a row for each class that is" in done.out
    assert "epoch 2, step 4/4" in done.err
    quiet = gpubp("train", "flowers.csv", "--epochs", 2, "--quiet", "--out", "other", "--device", "cpu")
    assert quiet.out == ""
    assert "epoch" not in quiet.err


def test_options_make_the_net(gpubp, tmp_path):
    (tmp_path / "flowers.csv").write_text(flowers())
    done = gpubp("train", "flowers.csv", "--epochs", 1, "--hidden", 7, 5, "--activation", "tanh", "--dropout", 0.5,
                 "--batch-norm", "--optimizer", "sgd", "--batch-size", 10, "--ignore", "colour",
                 "--device", "cpu")  # fmt: skip
    assert done.status == 0, done.err
    for part in ("Dense(2, 7)", "BatchNorm(7)", "tanh", "Dropout(0.5)", "Dense(7, 5)", "Dense(5, 3)"):
        assert part in done.out


def test_no_hidden_layer(gpubp, tmp_path):
    (tmp_path / "flowers.csv").write_text(flowers())
    done = gpubp("train", "flowers.csv", "--epochs", 1, "--hidden", "--device", "cpu")
    assert "Dense(4, 3)" in done.out


def test_the_split_holds_every_class_alike_and_hangs_on_the_seed():
    labels = np.repeat([0, 1], [150, 50])
    first, second = split(np.arange(200), labels, 0.2, 0)
    assert sorted([*first, *second]) == [*range(200)]
    assert np.bincount(labels[second]).tolist() == [30, 10]
    assert not np.array_equal(split(np.arange(200), labels, 0.2, 1)[1], second)
    assert np.array_equal(split(np.arange(200), labels, 0.2, 0)[1], second)
    assert len(split(np.arange(100, 200), None, 0.25, 0)[1]) == 25


def test_a_last_batch_of_one_row_is_left_out_with_batch_normalization(gpubp, tmp_path):
    (tmp_path / "flowers.csv").write_text(flowers(41))
    options = ["--epochs", 2, "--device", "cpu", "--test-fraction", 0, "--validation-fraction", 0, "--batch-size", 8]
    assert "epoch 2, step 12/12" in gpubp("train", "flowers.csv", *options).err
    done = gpubp("train", "flowers.csv", *options, "--batch-norm", "--overwrite")
    assert done.status == 0, done.err
    assert "epoch 2, step 10/10" in done.err


def test_balanced_classes(gpubp, tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "a.npz", x=rng.normal(size=(50, 2)), y=np.repeat([0, 1], [40, 10]))
    options = ["--epochs", 2, "--device", "cpu", "--test-fraction", 0, "--validation-fraction", 0, "--batch-size", 8]
    done = gpubp("train", "a.npz", *options, "--balance")
    assert "epoch 2, step 20/20" in done.err
    np.savez(tmp_path / "b.npz", x=rng.normal(size=(50, 2)), y=rng.normal(size=50))
    done = gpubp("train", "b.npz", *options, "--balance")
    assert (done.status, "--balance is for classes, but the task is regression" in done.err) == (2, True)


def test_arrays_learn_their_scale_from_the_training_rows(train, gpubp, tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 3)) * [1, 100, 1e-3] + [5, -7, 0]
    y = (x[:, 0] > 5).astype(np.int64)
    np.savez(tmp_path / "a.npz", x=x, y=y)
    events = train("a.npz", epochs=30)
    assert (events[0]["task"], events[0]["classes"]) == ("binary", ["0", "1"])
    assert events[-1]["test"]["accuracy"] >= 0.9
    encoding = json.loads((tmp_path / "runs" / "a" / "encoding.json").read_text())
    np.testing.assert_allclose(encoding["mean"], x.mean(0), rtol=0.3, atol=1)
    np.savez(tmp_path / "new.npz", x=x[:5])
    lines = gpubp("predict", "runs/a", "new.npz").out.splitlines()
    assert lines[0] == "row,prediction,p(0),p(1)"
    assert len(lines) == 6
    assert gpubp("evaluate", "runs/a", "new.npz").err.endswith("new.npz holds no targets\n")


def test_arrays_of_two_files(train, gpubp, tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 3))
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", x @ [1.0, 2.0, 3.0])
    events = train("x.npy", "--target", "y.npy", epochs=60)
    assert events[0]["task"] == "regression"
    assert events[-1]["test"]["r2"] > 0.8
    np.save(tmp_path / "new.npy", x[:9])
    assert gpubp("predict", "runs/x", "new.npy").out.count("\n") == 10
    assert gpubp("evaluate", "runs/x", "new.npy").err.endswith("new.npy has 9 inputs, but 60 targets\n")
    np.save(tmp_path / "truth.npy", x[:9] @ [1.0, 2.0, 3.0])
    assert gpubp("evaluate", "runs/x", "new.npy", "--target", "truth.npy").out.startswith("9 rows: R² ")
    assert gpubp("evaluate", "runs/x", "x.npy").out.startswith("60 rows: R² ")


@pytest.mark.parametrize("side", [1, 3, 8, 10, 28, 33])
def test_pictures_get_a_convolutional_net(gpubp, tmp_path, side):
    rng = np.random.default_rng(0)
    y = np.arange(20) % 2
    np.savez(tmp_path / "a.npz", x=(rng.integers(0, 99, (20, side, side)) + 100 * y[:, None, None]).astype("u1"), y=y)
    done = gpubp("train", "a.npz", "--epochs", 1, "--device", "cpu")
    assert done.status == 0, done.err
    assert f"Conv2d(1, 16, {5 if side > 8 else 3}, padding='same')" in done.out
    done = gpubp("train", "a.npz", "--epochs", 1, "--device", "cpu", "--hidden", 3, "--out", "other")
    assert f"Dense({side * side}, 3)" in done.out


def test_rows_that_are_not_held_in_memory_give_the_same(train, gpubp, tmp_path, monkeypatch):
    (tmp_path / "flowers.csv").write_text(flowers())
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "a.npz", x=rng.normal(size=(60, 8, 8)), y=np.arange(60) % 3)
    for data in ("flowers.csv", "a.npz"):
        first = train(data, "--out", f"{data}.held")
        predicted = gpubp("predict", f"{data}.held", data).out
        with monkeypatch.context() as patch:
            patch.setattr("gpubp.cli.rows.HELD", 0)
            second = train(data, "--out", f"{data}.read")
            assert gpubp("predict", f"{data}.read", data).out == predicted
        assert first[1:-1] == second[1:-1]
        assert first[-1]["test"] == second[-1]["test"]


def test_a_file_to_test_with(train, tmp_path):
    (tmp_path / "flowers.csv").write_text(flowers())
    (tmp_path / "more.csv").write_text(flowers(30, seed=1))
    events = train("flowers.csv", "--test", "more.csv", "--validation-fraction", 0)
    assert events[0]["rows"] == {"train": 60, "validation": 0, "test": 30}
    assert "loss" in events[1]
    assert "val_loss" not in events[1]


def test_without_rows_to_test_with_the_training_rows_are_measured(train, gpubp, tmp_path):
    (tmp_path / "flowers.csv").write_text(flowers())
    events = train("flowers.csv", "--test-fraction", 0)
    assert "training" in events[-1]
    done = gpubp("evaluate", "runs/flowers")
    assert (done.status, "kept no rows to test with" in done.err) == (2, True)


def test_early_stopping(train, tmp_path):
    (tmp_path / "lengths.csv").write_text(lengths(40))
    events = train("lengths.csv", "--early-stopping", 2, "--lr", 0.05, epochs=200)
    assert len(events) < 150


def test_predictions_name_rows_and_unknown_categories(train, gpubp, tmp_path):
    table = flowers().splitlines()
    text = "\n".join([f"id,{table[0]}", *(f"f{k},{line}" for k, line in enumerate(table[1:]))])
    (tmp_path / "flowers.csv").write_text(text)
    train("flowers.csv", "--ignore", "id")
    (tmp_path / "new.csv").write_text("id,length,width,colour\nz1,1.0,2.0,green\nz2,1.0,,red\n")
    done = gpubp("predict", "runs/flowers", "new.csv")
    assert done.status == 0, done.err
    lines = done.out.splitlines()
    assert lines[0] == "row,id,prediction,p(a),p(b),p(c)"
    assert [line.split(",")[:2] for line in lines[1:]] == [["1", "z1"], ["2", "z2"]]
    assert sum(map(float, lines[1].split(",")[3:])) == pytest.approx(1)
    assert "column 'colour': 1 cells hold values that the net has not learned from" in done.err
    assert gpubp("predict", "runs/flowers", "new.csv", "--out", "p.csv").out == "2 predictions in p.csv\n"
    assert (tmp_path / "p.csv").read_text() == done.out


def test_targets_beyond_all_measure_are_none(gpubp, tmp_path):
    lines = [f"{k % 7},{k * 1.5 if k % 20 else 1e200}" for k in range(100)]
    (tmp_path / "far.csv").write_text("x,y\n" + "\n".join(lines))
    done = gpubp("train", "far.csv", "--epochs", 1, "--device", "cpu")
    assert done.status == 0, done.err
    assert "note: 5 rows have no target, and no part in this" in done.out + done.err


def test_curves_are_drawn_or_it_is_said_why_not(gpubp, tmp_path, monkeypatch):
    (tmp_path / "flowers.csv").write_text(flowers())
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    done = gpubp("train", "flowers.csv", "--epochs", 1, "--device", "cpu")
    assert "no curves.png: matplotlib is not installed (pip install 'gpubp[plot]')" in done.out


def test_curves(train, tmp_path):
    pytest.importorskip("matplotlib")
    (tmp_path / "flowers.csv").write_text(flowers())
    train("flowers.csv")
    assert (tmp_path / "runs" / "flowers" / "curves.png").read_bytes()[1:4] == b"PNG"


@pytest.mark.parametrize(
    "options",
    [
        *(["--optimizer", name] for name in OPTIMIZERS),
        *(["--schedule", name] for name in SCHEDULES),
        ["--schedule", "one-cycle", "--warmup", 3, "--clip-norm", 1],
        *(["--nonfinite", name] for name in ("skip", "scale")),
        *(["--activation", name] for name in ACTIVATIONS),
    ],
    ids=lambda options: " ".join(map(str, options)),
)
def test_every_choice(train, tmp_path, options):
    (tmp_path / "flowers.csv").write_text(flowers())
    events = train("flowers.csv", *options, "--hidden", 8)
    assert events[-2]["loss"] < events[1]["loss"]


def test_mixed_precision(train, tmp_path):
    pytest.importorskip("ml_dtypes")
    (tmp_path / "flowers.csv").write_text(flowers())
    events = train("flowers.csv", "--precision", "bfloat16", "--hidden", 8)
    assert events[-2]["loss"] < events[1]["loss"]


@pytest.mark.parametrize("name", ["moons", "circles", "spirals", "xor"])
def test_data_sets_that_are_drawn(train, name):
    train(name)


def pictures(folder, size=(8, 8)):
    from PIL import Image

    rng = np.random.default_rng(0)
    for name, grey in (("dark", 40), ("light", 200)):
        (folder / name).mkdir(parents=True)
        for k in range(15):
            pixels = rng.integers(0, 40, (size[1], size[0])) + grey
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{k}.png")


def test_a_folder_of_pictures(train, gpubp, tmp_path):
    pytest.importorskip("PIL")
    pictures(tmp_path / "pictures")
    events = train("pictures", epochs=10)
    assert (events[0]["classes"], events[0]["inputs"]) == (["dark", "light"], [8, 8, 1])
    assert events[-1]["test"]["accuracy"] == 1
    lines = gpubp("predict", "runs/pictures", "pictures/dark").out.splitlines()
    assert lines[0] == "row,file,prediction,p(dark),p(light)"
    assert [line.split(",")[1:3] for line in lines[1:3]] == [["0.png", "dark"], ["1.png", "dark"]]
    assert gpubp("evaluate", "runs/pictures", "pictures").out.startswith("30 rows: accuracy 100.00%")


def test_pictures_of_other_sizes(gpubp, tmp_path):
    pytest.importorskip("PIL")
    pictures(tmp_path / "pictures")
    pictures(tmp_path / "pictures" / "light" / "more", size=(12, 10))
    done = gpubp("train", "pictures", "--device", "cpu")
    assert done.status == 2
    assert "; --image-size N brings all to one" in done.err
    options = ["--image-size", 6, "--epochs", 1, "--device", "cpu"]
    assert "6 x 6 x 1 inputs" in gpubp("train", "pictures", *options).out
    done = gpubp("train", "pictures/dark", *options)
    assert (done.status, "holds no folders of pictures, one for each class" in done.err) == (2, True)
    pictures(tmp_path / "large", size=(12, 12))
    assert gpubp("predict", "runs/pictures", "large/dark").status == 0


def test_a_parquet_table(train, gpubp, tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import csv, parquet

    (tmp_path / "flowers.csv").write_text(flowers())
    parquet.write_table(csv.read_csv(tmp_path / "flowers.csv"), tmp_path / "flowers.parquet")
    assert pa.__version__
    events = [train(f"flowers.{suffix}", "--out", suffix) for suffix in ("csv", "parquet")]
    assert events[0][1:-1] == events[1][1:-1]
    assert gpubp("predict", "csv", "flowers.parquet").out == gpubp("predict", "parquet", "flowers.csv").out
