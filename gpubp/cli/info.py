"""``gpubp info``: what this machine has."""

from __future__ import annotations

import argparse
import os
import platform
import re
from importlib import metadata

from ..device import cuda_devices

__all__ = ["info"]

PURPOSES = {
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
    "peers": "comparing with PyTorch, JAX, autograd and scikit-learn",
    "gpu-compile": "compiling the CUDA kernels where there is no GPU",
    "dev": "linting, typing and building, as continuous integration does",
}


def info(args: argparse.Namespace) -> int:
    """Print devices, versions, and what each missing extra would bring."""
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
        print(f"  {extra:{width}} {PURPOSES[extra]}")
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
