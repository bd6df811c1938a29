import numpy as np
import pytest

import gpubp as bp
from gpubp.data.download import find


def generated(rng, n):
    """Sequences of 7 to 29 steps in which a channel, the class, is high."""
    labels, lengths = np.arange(n) % 9, rng.integers(7, 30, n)
    mask = np.arange(29) < lengths[:, None]
    x = rng.normal(size=(n, 29, 12)).astype("float32")
    x[np.arange(n), :, labels] += 1
    return x * mask[..., None], mask, labels


def test_ts_files_are_read(example, tmp_path):
    rows = [
        ":".join(",".join(f"{t + 10 * c}" for t in range(7)) for c in range(12)) + ":3",
        ":".join(["1,2"] * 12) + ":9",
    ]
    (tmp_path / "a.ts").write_text("#about\n@data\n" + "\n".join(rows) + "\n")
    x, mask, labels = example("japanese_vowels").read_ts(tmp_path / "a.ts")
    assert x.shape == (2, 29, 12)
    np.testing.assert_array_equal(mask.sum(axis=1), [7, 2])
    np.testing.assert_array_equal(labels, [2, 8])
    np.testing.assert_array_equal(x[0, 6], 6 + 10 * np.arange(12))
    assert not x[1, 2:].any()


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_the_net_learns_generated_sequences(example, kind):
    script, rng = example("japanese_vowels"), np.random.default_rng(0)
    _, accuracy = script.train(kind, generated(rng, 90), generated(rng, 90), epochs=15, device="cpu")
    assert accuracy > 0.8


def test_padding_does_not_matter(example):
    script, rng = example("japanese_vowels"), np.random.default_rng(0)
    net = script.Speaker("lstm", 8)
    x, mask, _ = generated(rng, 6)
    other = np.where(mask[..., None], x, np.float32(7))
    np.testing.assert_array_equal(net(other, mask), net(x, mask))
    bp.testing.assert_parity(net, (x, mask), backends=["numpy", "standin"], steps=1)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_the_net_tells_the_speakers(example, fetched, kind):
    script = example("japanese_vowels")
    where = fetched(find, script.FILES)
    sets = script.normalised(*(script.read_ts(where / f"JapaneseVowels_{part}.ts") for part in ("TRAIN", "TEST")))
    _, accuracy = script.train(kind, *sets, epochs=15, device="cpu")
    assert accuracy > 0.9
