import math
import re

import numpy as np
import pytest

import gpubp as bp
from gpubp import losses, metrics, nn, optim
from gpubp.device import device_of
from gpubp.testing.backends import load
from gpubp.training.metrics import Metric, Totals, resolve

RNG = np.random.default_rng(0)
SCORES = RNG.normal(size=(23, 4)).astype("float32")
LABELS = RNG.integers(0, 4, 23)
LABELS[:3] = SCORES[:3].argmax(-1)
LOGITS, BITS = RNG.normal(size=(23, 1)).astype("float32"), RNG.integers(0, 2, (23, 1))
NUMBERS = RNG.normal(size=(23, 3)).astype("float32")
TARGETS = (NUMBERS + RNG.normal(size=(23, 3)) * [0.1, 0.5, 2.0] + [0, 5, -3]).astype("float32")
CLASSES = ["accuracy", "top2", "confusion", "perplexity"]
CLASSES += [f"{kind}_{average}" for kind in ("f1", "precision", "recall") for average in ("macro", "micro", "weighted")]


def measured(names, output, target, backend=None, sizes=(8, 8, 7)):
    """Measure in batches of several sizes."""
    asarray = np.asarray if backend is None else backend.asarray
    totals, at = Totals(names), 0
    for n in sizes:
        totals.add(asarray(output[at : at + n]), asarray(target[at : at + n]))
        at += n
    return totals.read()


def same(found, expected, rtol=1e-12):
    assert found.keys() == expected.keys()
    for name, value in found.items():
        np.testing.assert_allclose(value, expected[name], rtol=rtol, err_msg=name)


# -- what they are


def test_classes_by_their_definitions():
    said = SCORES.argmax(-1)
    found = measured([*CLASSES, "f1"], SCORES, LABELS)
    counts = np.array([[np.sum((t == LABELS) & (said == s)) for s in range(4)] for t in range(4)])
    np.testing.assert_array_equal(found["confusion"], counts)
    assert found["confusion"].dtype == "int64"
    right, of_true, of_said = np.diag(counts), counts.sum(1), counts.sum(0)
    each = {"precision": right / of_said, "recall": right / of_true, "f1": 2 * right / (of_true + of_said)}
    for kind, values in each.items():
        assert found[f"{kind}_macro"] == pytest.approx(values.mean(), rel=1e-12)
        assert found[f"{kind}_weighted"] == pytest.approx((values * of_true).sum() / 23, rel=1e-12)
        assert found[f"{kind}_micro"] == found["accuracy"] == np.mean(said == LABELS)
        np.testing.assert_allclose(getattr(metrics, kind)(average=None)(SCORES, LABELS), values)
    assert found["f1"] == found["f1_macro"]
    ranks = [np.sum(row > row[label]) for row, label in zip(SCORES, LABELS, strict=True)]
    assert found["top2"] == np.mean(np.array(ranks) < 2)
    z = SCORES.astype("float64")
    losses = np.log(np.exp(z).sum(-1)) - z[np.arange(23), LABELS]
    assert found["perplexity"] == pytest.approx(np.exp(losses.mean()), rel=1e-6)


def test_two_classes_from_one_output():
    said, true = LOGITS > 0, BITS == 1
    hit = np.sum(said & true)
    expected = {
        "accuracy": np.mean(said == true),
        "precision": hit / said.sum(),
        "recall": hit / true.sum(),
        "f1": 2 * hit / (said.sum() + true.sum()),
        "confusion": [[np.sum(~said & ~true), np.sum(said & ~true)], [np.sum(~said & true), hit]],
    }
    for target in (BITS, BITS.astype("float32"), true, 0.8 * BITS + 0.1):
        same(measured(list(expected), LOGITS, target), expected)
        same(measured(list(expected), LOGITS[:, 0], target[:, 0]), expected)
    columns = np.concatenate([-LOGITS, LOGITS], axis=-1)
    same(measured(list(expected), columns, BITS[:, 0]), expected)
    probabilities = 1 / (1 + np.exp(-LOGITS))
    assert metrics.accuracy()(probabilities, BITS) == np.mean(true)
    assert metrics.accuracy(threshold=0.5)(probabilities, BITS) == expected["accuracy"]


def test_numbers_by_their_definitions():
    errors = NUMBERS.astype("float64") - TARGETS
    spread = np.sum((TARGETS - TARGETS.mean(0, dtype="float64")) ** 2, axis=0)
    expected = {
        "mae": np.mean(abs(errors)),
        "mse": np.mean(errors**2),
        "rmse": np.sqrt(np.mean(errors**2)),
        "r2": np.mean(1 - np.sum(errors**2, axis=0) / spread),
    }
    same(measured(list(expected), NUMBERS, TARGETS), expected)
    columns = [metrics.r2()(NUMBERS[:, k], TARGETS[:, k]) for k in range(3)]
    assert expected["r2"] == pytest.approx(np.mean(columns), rel=1e-12)
    assert metrics.r2()(NUMBERS[:, :1], TARGETS[:, :1]) == pytest.approx(columns[0], rel=1e-12)


@pytest.mark.peers
def test_scikit_learn_agrees():
    sk = pytest.importorskip("sklearn.metrics")
    said = SCORES.argmax(-1)
    found = measured(CLASSES, SCORES, LABELS)
    assert found["accuracy"] == sk.accuracy_score(LABELS, said)
    assert found["top2"] == sk.top_k_accuracy_score(LABELS, SCORES, k=2)
    np.testing.assert_array_equal(found["confusion"], sk.confusion_matrix(LABELS, said))
    assert found["perplexity"] == pytest.approx(
        math.exp(sk.log_loss(LABELS, np.exp(SCORES) / np.exp(SCORES).sum(-1, keepdims=True))), rel=1e-6
    )
    for labels in (LABELS, np.where(LABELS == 3, 0, LABELS), np.ones_like(LABELS)):  # a class that is said only
        for scores in (SCORES, SCORES - [0, 0, 0, 99], SCORES - [99, 0, 99, 99]):  # never said
            found = measured(CLASSES, scores, labels)
            for kind in ("f1", "precision", "recall"):
                score = getattr(sk, f"{kind}_score")
                for average in ("macro", "micro", "weighted"):
                    expected = score(labels, scores.argmax(-1), average=average, zero_division=0)
                    assert found[f"{kind}_{average}"] == pytest.approx(expected, rel=1e-12), (kind, average)
    two = measured(["f1", "precision", "recall"], LOGITS, BITS)
    for kind, value in two.items():
        assert value == pytest.approx(getattr(sk, f"{kind}_score")(BITS[:, 0], LOGITS[:, 0] > 0), rel=1e-12)
    found = measured(["mae", "mse", "rmse", "r2"], NUMBERS, TARGETS)
    wide = TARGETS.astype("float64"), NUMBERS.astype("float64")
    assert found["mae"] == pytest.approx(sk.mean_absolute_error(*wide), rel=1e-12)
    assert found["mse"] == pytest.approx(sk.mean_squared_error(*wide), rel=1e-12)
    assert found["r2"] == pytest.approx(sk.r2_score(*wide), rel=1e-12)
    for t in (np.full(5, 3.0), np.arange(5.0)):  # no spread
        for y in (t, t + 1):
            assert metrics.r2()(y, t) == pytest.approx(sk.r2_score(t, y), abs=1e-12)


def test_every_library_gives_the_same(backend):
    names = ["mae", "mse", "rmse", "r2"]
    same(measured(names, NUMBERS, TARGETS, backend), measured(names, NUMBERS, TARGETS))
    same(measured(CLASSES, SCORES, LABELS, backend), measured(CLASSES, SCORES, LABELS), rtol=1e-6)
    for target in (BITS, BITS == 1, BITS.astype("float32")):
        found = measured(["accuracy", "f1", "confusion"], LOGITS, target, backend)
        same(found, measured(["accuracy", "f1", "confusion"], LOGITS, BITS))


def test_one_hot_targets_are_labels():
    hot = np.eye(4, dtype="float32")[LABELS]
    for target in (hot, hot.astype("int64"), hot * 0.9 + 0.025):
        names = [name for name in CLASSES if name != "perplexity"]
        same(measured(names, SCORES, target), measured(names, SCORES, LABELS))
    assert metrics.perplexity()(SCORES, hot) == pytest.approx(metrics.perplexity()(SCORES, LABELS), rel=1e-6)


def test_steps_of_sequences_count_each():
    scores, labels = SCORES[:20].reshape(4, 5, 4), LABELS[:20].reshape(4, 5)
    same(measured(CLASSES, scores, labels, sizes=(3, 1)), measured(CLASSES, SCORES[:20], LABELS[:20], sizes=(20,)))
    logits, bits = LOGITS[:20].reshape(4, 5, 1), BITS[:20].reshape(4, 5, 1)
    assert metrics.f1()(logits, bits) == metrics.f1()(LOGITS[:20], BITS[:20])
    numbers, targets = (x[:20].reshape(4, 5, 3) for x in (NUMBERS, TARGETS))
    assert metrics.r2()(numbers, targets) == pytest.approx(metrics.r2()(NUMBERS[:20], TARGETS[:20]), rel=1e-12)


@pytest.mark.parametrize("ignored", [-100, 2, 255])
@pytest.mark.parametrize(
    "make",
    [
        *(metrics.accuracy, metrics.f1, metrics.precision, metrics.recall, metrics.confusion, metrics.perplexity),
        lambda **options: metrics.top_k(2, **options),
    ],
)
def test_ignored_labels_do_not_count(backend, make, ignored):
    left = np.arange(23) % 3 == 0
    labels = np.where(left, ignored, np.where(LABELS == 2, 1, LABELS))
    labels = labels.astype("uint8") if ignored == 255 else labels
    found = make(ignore_index=ignored)(backend.asarray(SCORES), backend.asarray(labels))
    np.testing.assert_allclose(found, make()(SCORES[~left], labels[~left]), rtol=1e-6)


def test_ignored_labels_of_two_classes():
    bits = np.where(np.arange(23)[:, None] % 3 == 0, -1, BITS)
    kept = bits[:, 0] != -1
    for make in (metrics.accuracy, metrics.f1, metrics.confusion):
        for dtype in ("int64", "float32"):
            found = make(ignore_index=-1)(LOGITS, bits.astype(dtype))
            np.testing.assert_array_equal(found, make()(LOGITS[kept], BITS[kept]))


def test_nothing_counted_is_nan():
    for name in ("accuracy", "top2", "perplexity", "f1", "precision_weighted", "recall_micro", "mse", "r2"):
        target = SCORES[:0] if name in ("mse", "r2") else LABELS[:0]
        assert math.isnan(resolve(name)(SCORES[:0], target)), name
    ignored = np.full(23, -100)
    assert math.isnan(metrics.accuracy(ignore_index=-100)(SCORES, ignored))
    assert math.isnan(metrics.perplexity(ignore_index=-100)(SCORES, ignored))


def test_ties_go_to_the_first_class():
    scores = np.zeros((4, 4))
    assert [metrics.top_k(k)(scores, np.arange(4)) for k in (1, 2, 3, 4)] == [0.25, 0.5, 0.75, 1.0]
    assert metrics.accuracy()(scores, np.arange(4)) == 0.25
    assert metrics.top_k(2)(np.full((1, 4), np.nan), np.array([0])) == 0.0


def test_16_bits(backend):
    if backend.name == "array_api_strict":
        pytest.skip("has no dtype of 16 bits")
    scores = SCORES.astype("float16")
    found = measured(CLASSES, scores, LABELS, backend)
    same(found, measured(CLASSES, scores.astype("float32"), LABELS), rtol=1e-6)


# -- precision


def test_counts_beyond_float32_are_exact(backend):
    hit = Metric("hits", lambda output, _: (output,), lambda hits: hits)
    totals = Totals([hit])
    for n in (2**24, 1, 1, 1):
        totals.add(backend.asarray(np.float32(n)), backend.asarray(0))
    assert totals.read()["hits"] == 2**24 + 3


def test_r2_does_not_cancel():
    numbers = RNG.normal(size=(300, 1))
    targets = (1e6 + numbers).astype("float32")
    outputs = (targets + 0.25 * RNG.normal(size=(300, 1))).astype("float32")
    wide = targets.astype("float64")
    expected = 1 - np.sum((outputs.astype("float64") - wide) ** 2) / np.sum((wide - wide.mean()) ** 2)
    found = measured(["r2"], outputs, targets, sizes=(1, 99, 100, 100))["r2"]
    assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("constant", [0.1, 1 / 3, 1e8 + 0.1])
def test_r2_of_equal_targets_that_rounding_would_tell_apart(constant):
    targets = np.full((100, 1), constant)
    for outputs, expected in ((targets, 1.0), (targets + RNG.normal(size=(100, 1)), 0.0)):
        assert metrics.r2()(outputs, targets) == expected
        assert measured(["r2"], outputs, targets, sizes=(3, 30, 67))["r2"] == expected
    assert math.isnan(metrics.r2()(targets[:1], targets[:1]))


# -- totals


def test_nothing_is_read_before_the_report_and_then_once():
    standin = load("standin")
    names = [*CLASSES, "mae[1]", "r2[1]"]
    names[: len(CLASSES)] = [f"{name}[0]" for name in CLASSES]
    totals = Totals(names)
    outputs, targets = (tuple(map(standin.asarray, x)) for x in ((SCORES, NUMBERS), (LABELS, TARGETS)))
    with standin.xp.no_host_reads():
        for _ in range(2):
            totals.add(outputs, targets)
            totals.mean("loss", standin.asarray(np.float32(3)), 23)
    with standin.xp.count_host_reads() as reads:
        found = totals.read()
    assert len(reads) == 1
    assert list(found) == [*names, "loss"]
    assert found["loss"] == 3.0
    assert found["accuracy[0]"] == metrics.accuracy()(SCORES, LABELS)


def test_means_weigh_batches_by_their_examples():
    totals = Totals()
    assert totals.read() == {}
    totals.mean("loss", np.float32(0.1), 3)
    totals.mean("loss", np.array(0.5), 1)
    assert totals.read() == {"loss": pytest.approx(0.2, rel=1e-7)}
    totals.clear()
    totals.mean("loss", np.float32(2.0), 5)
    assert totals.read() == {"loss": 2.0}
    with pytest.raises(ValueError, match="there is a metric 'accuracy', so no mean"):
        Totals(["accuracy"]).mean("accuracy", np.float32(1.0), 1)


def test_totals_in_a_captured_step(backend):
    totals = Totals(["accuracy", "f1"])

    def step(scores, labels):
        totals.add(scores, labels)
        totals.mean("loss", backend.xp.mean(scores), scores.shape[0])

    captured = bp.capture(step)
    for _ in range(2):
        for k in range(6):
            captured(*map(backend.asarray, (SCORES[k : k + 9], LABELS[k : k + 9])))
        found = totals.read()
        expected = Totals(["accuracy", "f1"])
        for k in range(6):
            expected.add(SCORES[k : k + 9], LABELS[k : k + 9])
            expected.mean("loss", SCORES[k : k + 9].mean(), 9)
        same(found, expected.read(), rtol=1e-6)
        totals.clear()
    if backend.name == "cupy":
        assert captured.reason is None
        assert captured.launches == 12 - 3


def test_metrics_of_outputs_inside_a_transform():
    totals = Totals(["accuracy"])

    def loss(W):
        scores = SCORES @ W
        totals.add(scores, LABELS)
        return bp.losses.softmax_cross_entropy(scores, LABELS)

    bp.grad(loss)(np.eye(4, dtype="float32"))
    assert totals.read()["accuracy"] == metrics.accuracy()(SCORES, LABELS)


def test_totals_go_on_from_a_state(backend):
    names = ["accuracy", "f1_macro"]
    whole, first, second = Totals(names), Totals(names), Totals(names)
    for totals, rows in ((whole, slice(0, 9)), (first, slice(0, 9)), (whole, slice(9, 23))):
        totals.add(SCORES[rows], LABELS[rows])
        totals.mean("loss", SCORES[rows].mean(), SCORES[rows].shape[0])
    state = first.state()
    assert list(state)[:2] == ["accuracy 0", "accuracy 1"]
    like = backend.asarray(SCORES)
    second.load_state(state, device_of(like))
    second.add(backend.asarray(SCORES[9:]), backend.asarray(LABELS[9:]))
    second.mean("loss", backend.asarray(SCORES[9:].mean()), 14)
    same(second.read(), whole.read())


# -- names and errors


def test_names():
    assert resolve("top5").name == "top5"
    assert resolve("f1_weighted").name == "f1_weighted"
    assert resolve("confusion[12]").name == "confusion[12]"
    assert resolve(metric := metrics.f1(average="micro")) is metric


@pytest.mark.parametrize("name", ["f2", "top0", "top", "accuracy_macro", "f1_mean", "[1]", "", "mse[-1]", "a\nb"])
def test_no_metric_of_that_name(name):
    with pytest.raises(ValueError, match=f"^there is no metric {re.escape(repr(name))}: there are accuracy, confusion"):
        resolve(name)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: resolve(3), TypeError, "a metric is a name or a metrics.Metric, got int"),
        (lambda: Totals("accuracy"), TypeError, r"a list or tuple, got 'accuracy' alone: write \['accuracy'\]"),
        (lambda: Totals(["mse", metrics.mse()]), ValueError, "two metrics have one name: mse, mse"),
        (lambda: metrics.top_k(0), ValueError, "k of top_k must be at least 1, got 0"),
        (lambda: metrics.f1(average="mean"), ValueError, "f1 expects average='binary', 'macro', .* got 'mean'"),
        (
            lambda: metrics.accuracy()(LOGITS, BITS[:, 0]),
            ValueError,
            r"accuracy expects .* an output of shape \(23, 1\) and a target of shape \(23,\) and dtype int64",
        ),
        (lambda: metrics.accuracy()(LOGITS[:, 0], BITS), ValueError, r"shape \(23,\) and a target of shape \(23, 1\)"),
        (lambda: metrics.f1()(SCORES, LABELS[:5]), ValueError, r"f1 expects .* \(23, 4\) and .* \(5,\)"),
        (lambda: metrics.f1()(SCORES, LABELS + 0.0), ValueError, r"integer labels .* dtype float64"),
        (lambda: metrics.f1()(SCORES, LABELS[:, None]), ValueError, r"f1 expects .* \(23, 4\) and .* \(23, 1\)"),
        (lambda: metrics.recall()(np.float32(1), np.float32(1)), ValueError, r"recall expects .* shape \(\) and"),
        (lambda: resolve("f1_binary")(SCORES, LABELS), ValueError, "f1_binary is of two classes, .*: f1_macro"),
        (lambda: metrics.top_k(5)(SCORES, LABELS), ValueError, r"top5 expects .* of at least 5, got \(23, 4\)"),
        (lambda: metrics.top_k(1)(LOGITS, BITS), ValueError, r"top1 expects an output \(..., classes\)"),
        (lambda: metrics.perplexity()(LOGITS, BITS), ValueError, r"logits of shape \(..., classes\), got \(23, 1\)"),
        (lambda: metrics.confusion()(SCORES, LABELS + 1), ValueError, "confusion expects labels from 0 to 3 .* 1 to 4"),
        (lambda: metrics.mae()(LOGITS, BITS[:, 0]), ValueError, r"mae expects .* \(23, 1\) and \(23,\); .* broadcast"),
        (lambda: metrics.r2()(LOGITS[:, 0], BITS), ValueError, r"r2 expects .* \(23,\) and \(23, 1\)"),
        (lambda: metrics.mse()(np.float32(1), np.float32(1)), ValueError, r"an axis of examples, got \(\) and \(\)"),
        (lambda: metrics.mse()(SCORES * 1j, SCORES), TypeError, "mse is defined for real arrays"),
        (lambda: metrics.mse()([1.0], SCORES), ValueError, r"mse is of one .*, got a tuple of 1 and one .*'mse\[0\]'"),
        (lambda: metrics.mse().of(1)(SCORES, SCORES), ValueError, r"mse\[1\] is of output 1 .* got one array and one"),
        (
            lambda: metrics.mse().of(2)((SCORES, SCORES), (SCORES,) * 3),
            ValueError,
            r"mse\[2\] is of output 2 and target 2, counted from 0; got a tuple of 2 and a tuple of 3",
        ),
        (lambda: Metric("m", lambda *_: (1, 2), min)(SCORES, LABELS), TypeError, r"'m' must give .* got \(1, 2\)"),
    ],
)
def test_bad_arguments(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_the_note_names_metric_and_shapes():
    broken = Metric("broken", lambda output, target: (output @ target,), float)
    with pytest.raises(ValueError, match="matmul") as caught:
        broken(SCORES, LABELS)
    assert (
        "in the metric 'broken' of an output of shape (23, 4) and a target of shape (23,)" in caught.value.__notes__[0]
    )


def test_sums_that_change_their_shape():
    rows = Metric("rows", lambda output, _: (output,), lambda x: x)
    with pytest.raises(ValueError, match=r"metric 'rows' had the shapes \[\(8, 4\)\], and now \[\(7, 4\)\]"):
        measured([rows], SCORES, LABELS)


def test_fit_and_evaluate_take_them():
    net = nn.Sequential(nn.Dense(4, 8), nn.tanh, nn.Dense(8, 4), seed=0)

    def loss(net, x, y):
        return losses.softmax_cross_entropy(net(x), y)

    wanted = ["top2", metrics.confusion(), "f1"]
    history = bp.fit(net, loss, optim.Adam(net, 0.01), (SCORES, LABELS), epochs=1, metrics=wanted, batch_size=5)
    assert list(history[0]) == ["epoch", "step", "loss", "top2", "confusion", "f1"]
    found = bp.evaluate(net, loss, (SCORES, LABELS), metrics=wanted, batch_size=5)
    np.testing.assert_array_equal(found["confusion"], metrics.confusion()(net(SCORES), LABELS))
    assert found["f1"] == history[0]["f1"] == metrics.f1()(net(SCORES), LABELS)


@pytest.mark.parametrize("kind", ["accuracy", "f1", "confusion"])
def test_numbers_are_no_two_classes(kind):
    """A regression whose metrics nobody has chosen is not given figures that mean nothing."""
    metric = bp.metrics.resolve(kind)
    for target in ([[3.0], [0.0]], [[-1.0], [1.0]]):
        with pytest.raises(ValueError, match=f"{kind} expects targets from 0 to 1 .* of numbers there are mae, rmse"):
            metric(np.ones((2, 1)), np.asarray(target))
    metric(np.ones((2, 1)), np.asarray([[0.1], [0.9]]))  # of smoothed labels
    ignoring = bp.metrics.accuracy(ignore_index=-100)
    assert ignoring(np.ones((2, 1)), np.asarray([[-100], [1]])) == 1
