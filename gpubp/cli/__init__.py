"""The command ``gpubp``: train a net on your own data, apply it, check your own layers, say what this machine has."""

from __future__ import annotations

from .parser import main

__all__ = ["main"]
