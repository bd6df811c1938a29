"""An LSTM and a GRU that tell speakers apart: ``python examples/japanese_vowels.py``.

Nine men say two Japanese vowels; an utterance is a sequence of 7 to 29 vectors of 12 cepstrum coefficients, and whose
voice it is is to be told (Kudo, Toyama, Shimbo, "Multidimensional curve classification using passing-through regions",
1999): 270 utterances to learn from, 370 to test with. The sequences differ in length: a mask says where each ends.
They are fetched when first needed.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np

import gpubp as bp
from gpubp import losses, nn, optim
from gpubp.data.download import File, FileSet, fetch

LONGEST = 29
FILES = FileSet(
    "japanese-vowels",
    "270 + 370 utterances by 9 speakers, 12 coefficients at each time; UCI, CC BY 4.0, Kudo et al. 1999",
    (
        File("JapaneseVowels_TRAIN.ts", "68a430eabd919cc77f40b1f5f3bc0dcafacc1486bca9260785aeb7d262cc78cd"),
        File("JapaneseVowels_TEST.ts", "b3d41d6a0ca3bcad3afb9ca7d4365382aa51341e2e58bae2a574babdda5b9462"),
    ),
    packages=("aeon==1.6.0 --hash=sha256:d05227086706f80111ac5fee8de4d5d3115bb3bcfd1c786c8629393055816409",),
)


def read_ts(file: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read sequences, padded with zeros to shape (n, time, 12), their masks (n, time), and labels from 0 to 8."""
    lines = file.read_text(encoding="utf-8").split("@data\n")[1].splitlines()
    x, mask = np.zeros((len(lines), LONGEST, 12), "float32"), np.zeros((len(lines), LONGEST), bool)
    labels = np.zeros(len(lines), "int64")
    for k, line in enumerate(lines):
        *channels, label = line.split(":")
        values = np.array([channel.split(",") for channel in channels], "float32").T
        x[k, : len(values)], mask[k, : len(values)], labels[k] = values, True, int(label) - 1
    return x, mask, labels


def normalised(train, test):
    """Return both sets with the mean 0 and standard deviation 1 that the first has, where the masks are true."""
    values = train[0][train[1]]
    mean, std = values.mean(axis=0), values.std(axis=0)
    return tuple((((x - mean) / std * mask[..., None]).astype("float32"), mask, y) for x, mask, y in (train, test))


class Speaker(nn.Layer):
    """A recurrent layer that reads a sequence in both directions, and a dense one that names the speaker."""

    def __init__(self, kind: str, n_hidden: int = 64, seed: int = 0) -> None:
        cell = {"lstm": nn.LSTM, "gru": nn.GRU}[kind]
        self.recurrent = cell(12, n_hidden, bidirectional=True, last=True)
        self.drop = nn.Dropout(0.3)
        self.dense = nn.Dense(2 * n_hidden, 9)
        self.build(seed)

    def __call__(self, x, mask):
        """Compute the logits of nine speakers for each sequence."""
        return self.dense(self.drop(self.recurrent(x, mask=mask)))


def loss(net, x, mask, y):
    """Return the mean cross-entropy of a batch."""
    return losses.softmax_cross_entropy(net(x, mask), y)


def train(kind, train_set, test_set, *, epochs=40, batch_size=30, lr=3e-3, seed=0, device="auto"):
    """Train a net and return it with its accuracy on the test set."""
    device = bp.device(device)
    net = Speaker(kind, seed=seed).to(device)
    opt, step = optim.AdamW(net, lr, weight_decay=0.05), bp.value_and_grad(loss)
    began = time.perf_counter()
    for epoch in range(epochs):
        opt.lr = lr * 0.5 * (1 + np.cos(np.pi * epoch / epochs))
        net.train()
        for batch in bp.data.batches(train_set, batch_size, shuffle=True, seed=seed, epoch=epoch, device=device):
            value, grads = step(net, *batch)
            opt.step(grads)
        if (epoch + 1) % 10 == 0 or epoch + 1 == epochs:
            found = accuracy(net, test_set, device)
            print(f"{kind} epoch {epoch + 1}: loss of the last batch {float(bp.to_numpy(value)):.4f}, "
                  f"test accuracy {found:.2%}")  # fmt: skip
    print(f"{kind}: test accuracy {found:.2%} ({net.count_parameters():,} parameters, "
          f"{time.perf_counter() - began:.1f} s)")  # fmt: skip
    return net, found


def accuracy(net, data, device) -> float:
    """Return the share of sequences whose speaker is named."""
    net.eval()
    hits = [bp.to_numpy(net(x, mask)).argmax(axis=-1) == bp.to_numpy(y)
            for x, mask, y in bp.data.batches(data, 128, device=device)]  # fmt: skip
    return float(np.mean(np.concatenate(hits)))


def main() -> None:
    """Train both nets."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--data-dir", help="where the data are, or are to go")
    args = parser.parse_args()
    try:
        where = fetch(FILES, args.data_dir)
    except OSError as error:
        sys.exit(str(error))
    sets = normalised(*(read_ts(where / f"JapaneseVowels_{part}.ts") for part in ("TRAIN", "TEST")))
    for kind in ("lstm", "gru"):
        train(kind, *sets, epochs=args.epochs, seed=args.seed, device=args.device)


if __name__ == "__main__":
    main()
