"""Weights from other libraries' files."""

from __future__ import annotations

from .torch_file import read_torch_file
from .weights import load_torch_weights

__all__ = ["load_torch_weights", "read_torch_file"]
