"""A LeNet-style convolutional net on Fashion-MNIST: ``python examples/fashion_mnist.py``.

60000 pictures of clothes of 28 x 28 grey pixels to learn from, 10000 others to test with, ten classes (Xiao, Rasul,
Vollgraf, "Fashion-MNIST: a novel image dataset for benchmarking machine learning algorithms", 2017). The net is
like that of LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document recognition", 1998, with more
channels, rectifiers and max-pooling. The pictures are fetched when first needed.
"""

from __future__ import annotations

import argparse
import math
import sys
import time

import gpubp as bp
from gpubp import losses, nn, optim


def lenet(seed: int = 0) -> nn.Sequential:
    """Return the net; the lengths of its dense layers' inputs follow from the first batch."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 5, padding="same"),
        nn.relu,
        nn.MaxPool(2),
        nn.Conv2d(16, 32, 5),
        nn.relu,
        nn.MaxPool(2),
        nn.Flatten(),
        nn.Dense(None, 120, W_init=nn.he_uniform),
        nn.relu,
        nn.Dense(120, 84, W_init=nn.he_uniform),
        nn.relu,
        nn.Dense(84, 10),
        seed=seed,
    )


def loss(net, x, y):
    """Return the mean cross-entropy of a batch."""
    return losses.softmax_cross_entropy(net(x), y)


def train(train_set, test_set, *, epochs=5, batch_size=64, lr=2e-3, seed=0, device="auto", progress=True):
    """Train a net, and return it with its accuracy on the test set."""
    net = lenet(seed).to(bp.device(device)).build(train_set[0][:1])
    print(nn.summary(net, train_set[0][:1]))
    steps = epochs * math.ceil(len(train_set[0]) / batch_size)
    opt = optim.Adam(net, optim.schedules.cosine(lr, steps=steps))
    start = time.perf_counter()
    history = bp.fit(net, loss, opt, train_set, epochs=epochs, batch_size=batch_size, validation=test_set, seed=seed,
                     progress=progress)  # fmt: skip
    accuracy = history[-1]["val_accuracy"]
    print(f"test accuracy {accuracy:.2%} after {epochs} epochs, {time.perf_counter() - start:.0f} s")
    return net, accuracy


def main() -> None:
    """Train on all pictures, or on as many as the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--examples", type=int, help="how many pictures to learn from; by default all 60000")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--data-dir", help="where the data are, or are to go")
    args = parser.parse_args()
    try:
        (x, y), test_set = bp.data.load("fashion-mnist", args.data_dir)
    except OSError as error:
        sys.exit(str(error))
    train_set = x[: args.examples], y[: args.examples]
    train(train_set, test_set, epochs=args.epochs, seed=args.seed, device=args.device)


if __name__ == "__main__":
    main()
