"""The command ``gpubp``: train a built-in example, check your own function or layer, say what this machine has."""

from __future__ import annotations

import argparse
import os
import platform
import re
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from .device import Device, cuda_devices, device

__all__ = ["main"]

_PURPOSES = {
    "cuda12": "computing on NVIDIA GPUs with CuPy, driver for CUDA 12",
    "cuda13": "computing on NVIDIA GPUs with CuPy, driver for CUDA 13",
    "bf16": "bfloat16 on NumPy and CuPy",
    "nvmath": "dense layers with bias and ReLU in one call",
    "cudnn": "convolutions, and attention in 16 bits, by cuDNN",
    "plot": "pictures of training and of networks",
    "images": "reading pictures with Pillow",
    "parquet": "reading Parquet tables with PyArrow",
    "docs": "building the documentation",
    "test": "running the tests; checks against array-api-strict",
    "peers": "comparing gradients with PyTorch, JAX and autograd",
    "gpu-compile": "compiling the CUDA kernels where there is no GPU",
    "dev": "linting, typing and building, as continuous integration does",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments; by default those the process was started with.

    Returns
    -------
    int
        The exit status: 0 for success, 1 where a check failed.
    """
    args = _parser().parse_args(argv)
    status: int = args.run(args)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="gpubp", description=__doc__)
    parser.add_argument("--version", action="version", version=f"gpubp {metadata.version('gpubp')}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    train = commands.add_parser("train", help="train a built-in example and save the network")
    train.add_argument("example", choices=["digits"], help="what to train")
    train.add_argument("--out", type=Path, default=Path("runs/digits"), help="run folder (default: %(default)s)")
    train.add_argument("--seed", type=_natural, default=0, help="seed of everything random (default: %(default)s)")
    train.add_argument("--epochs", type=_positive, default=30, help="passes over the data (default: %(default)s)")
    train.add_argument("--batch-size", type=_positive, default=32, help="examples a step (default: %(default)s)")
    train.add_argument("--lr", type=float, default=2e-3, help="learning rate (default: %(default)s)")
    train.add_argument("--device", type=_device, default="auto", help="auto, cpu, cuda, cuda:1 ... (default: auto)")
    train.set_defaults(run=_train)

    check = commands.add_parser("check", help="check the gradients of your own function or layer, and its parity")
    check.add_argument("target", type=_target, metavar="FILE.py:NAME", help="file and name of the function or layer")
    check.add_argument(
        "--shape", type=_shape, action="append", default=[], metavar="N,M",
        help="shape of an argument, drawn from N(0, 1); once for each (default: what NAME_args in the file holds)",
    )  # fmt: skip
    check.add_argument("--backends", type=lambda text: text.split(","), help="numpy,standin,array_api_strict,torch,...")
    check.add_argument("--order", type=_positive, default=2, help="highest derivative checked (default: %(default)s)")
    check.add_argument("--seed", type=_natural, default=0, help="of the arguments (default: %(default)s)")
    check.set_defaults(run=_check)

    info = commands.add_parser("info", help="print devices, versions, and what each missing extra would bring")
    info.set_defaults(run=_info)
    return parser


def _natural(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number from 0, got {text!r}")
    return int(text)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1, got {text!r}")
    return int(text)


def _device(text: str) -> Device:
    try:
        return device(text)
    except (RuntimeError, ValueError) as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _target(text: str) -> tuple[Path, str]:
    file, colon, name = text.rpartition(":")
    if not (colon and name.isidentifier()):
        raise argparse.ArgumentTypeError(f"expected FILE.py:NAME, got {text!r}")
    if not Path(file).is_file():
        raise argparse.ArgumentTypeError(f"there is no file {file!r}")
    return Path(file), name


def _shape(text: str) -> tuple[int, ...]:
    sizes = [size for size in text.strip("()").split(",") if size.strip()]
    if not all(size.strip().isdecimal() for size in sizes):
        raise argparse.ArgumentTypeError(f"expected sizes separated by commas, as in 4,3, got {text!r}")
    return tuple(map(int, sizes))


def _train(args: argparse.Namespace) -> int:
    from .training.digits import train_digits

    try:
        train_digits(
            args.out, seed=args.seed, epochs=args.epochs, batch_size=args.batch_size, lr=args.lr, device=args.device
        )
    except (FloatingPointError, OSError, ValueError) as problem:
        raise SystemExit(f"gpubp train: {problem}") from None
    return 0


def _check(args: argparse.Namespace) -> int:
    from .testing.command import check

    return check(*args.target, shapes=args.shape, backends=args.backends, order=args.order, seed=args.seed)


def _info(args: argparse.Namespace) -> int:
    cores = os.cpu_count()
    print(
        f"gpubp {metadata.version('gpubp')}, Python {platform.python_version()}, {platform.platform()}, {cores} cores"
    )
    print("\nDevices")
    print(f"  cpu      NumPy {metadata.version('numpy')}")
    try:
        for index, name in enumerate(cuda_devices()):
            print(f"  {f'cuda:{index}':8} {name}")
    except RuntimeError as problem:
        print(f"  no CUDA: {problem}")
    print("\nWhat gpubp needs")
    print("  " + _versions(_requirements(None)))
    print("\nExtras")
    extras = metadata.metadata("gpubp").get_all("Provides-Extra") or ()
    width = max(map(len, extras), default=0)
    for extra in extras:
        names = _requirements(extra)
        print(f"  {extra:{width}} {_PURPOSES[extra]}")
        print(f"  {'':{width}} {_versions(names)}")
        if not all(map(_version, names)):
            print(f"  {'':{width}} to add it: pip install 'gpubp[{extra}]'")
    return 0


def _requirements(extra: str | None) -> list[str]:
    """Return the names of the packages that an extra brings, or (None) that gpubp itself needs."""
    names = []
    for requirement in metadata.requires("gpubp") or ():
        marker = re.search(r"""extra\s*==\s*['"]([^'"]+)""", requirement)
        name = re.match(r"[\w.-]+", requirement)
        if name and (marker[1] if marker else None) == extra:
            names.append(name[0])
    return names


def _versions(names: list[str]) -> str:
    return ", ".join(f"{name} {_version(name) or '(missing)'}" for name in names)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
