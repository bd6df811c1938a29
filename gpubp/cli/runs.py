"""The run folder: what a run was told and what it has found."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from ..data import NAMES
from ..training.files import write_atomically
from .problems import BadInput, told
from .reading import is_array_file
from .rows import encoding_of
from .settings import Settings, made

__all__ = ["RunFolder"]


class RunFolder:
    """A run folder.

    Parameters
    ----------
    path
        Where it is, or will be.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config, self.encoding = self.path / "config.json", self.path / "encoding.json"
        self.metrics, self.checkpoints = self.path / "metrics.jsonl", self.path / "checkpoints"
        self.model, self.net, self.result = (self.path / n for n in ("model.safetensors", "model.py", "result.json"))
        self.curves = self.path / "curves.png"

    def check_free(self, overwrite: bool) -> None:
        """Refuse a folder that holds something, but for a run that may be overwritten."""
        if not self.path.exists() or (self.path.is_dir() and not any(self.path.iterdir())):
            return
        if not self.path.is_dir():
            raise BadInput(f"{self.path} is no folder: give another one with --out")
        if not self.config.is_file():
            raise BadInput(f"{self.path} exists and holds no run: give another folder with --out")
        if not overwrite:
            raise BadInput(f"{self.path} holds a run already: go on with it by `gpubp resume {self.path}`, give "
                           "another folder with --out, or --overwrite it")  # fmt: skip

    def create(self, settings: Settings, encoding: Any) -> None:
        """Make the folder, without what an earlier run has left, and write what the run was told."""
        self.path.mkdir(parents=True, exist_ok=True)
        for file in (self.metrics, self.model, self.net, self.result, self.curves):
            file.unlink(missing_ok=True)
        if self.checkpoints.is_dir():
            shutil.rmtree(self.checkpoints)
        if settings.model is not None:
            write_atomically(self.net, Path(settings.model.rpartition(":")[0]).read_bytes())
        self.write(self.encoding, encoding.to_dict())
        told = asdict(settings)
        if settings.data not in NAMES:  # paths that hold in other folders too
            told["data"] = str(Path(settings.data).absolute())
        if settings.target is not None and is_array_file(settings.data):
            told["target"] = str(Path(settings.target).absolute())
        self.write(self.config, {"gpubp": metadata.version("gpubp"), "settings": told})

    def write(self, file: Path, content: Mapping[str, Any]) -> None:
        """Write a JSON file of the folder."""
        write_atomically(file, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())

    def read(self) -> tuple[Settings, Any]:
        """Return settings and encoding of the run that is there; a net of the user's own is the folder's copy."""
        if not self.config.is_file():
            raise BadInput(
                f"{self.path} is no run folder" + ("" if self.path.is_dir() else ": there is no such folder")
            )
        try:
            found = json.loads(self.config.read_bytes())["settings"]
            settings = made(found)
            encoding = encoding_of(json.loads(self.encoding.read_bytes()))
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError, RecursionError) as error:
            raise BadInput(f"{self.path} is no whole run folder: {type(error).__name__}: {error}") from None
        except OSError as error:
            raise BadInput(told(error)) from None
        if settings.model is not None:
            settings = replace(settings, model=f"{self.net.resolve()}:{settings.model.rpartition(':')[2]}")
        return settings, encoding
