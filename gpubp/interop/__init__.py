"""Weights from other libraries' files."""

from __future__ import annotations

from .torch_file import read_torch_file

__all__ = ["read_torch_file"]
