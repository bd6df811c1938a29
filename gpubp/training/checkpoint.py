"""Checkpoints of a run: all that it needs to go on as if it had never stopped.

A checkpoint is two files: ``step-00001234.safetensors`` holds the arrays, ``step-00001234.json`` all else and the
checksums. The second is written last: without it there is none. So at every moment, also after a crash, there is
the new one or the one before.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import struct
import warnings
from collections.abc import Mapping
from contextlib import suppress
from numbers import Integral
from pathlib import Path
from typing import Any, NamedTuple, cast

from ..data.checks import check_at_least
from ..device import is_array, to_numpy
from ..nn.surgery import load_state, state_of
from ..tree import Node
from .callbacks import is_score
from .files import read_arrays, remove_leftovers, serialized, write_atomically

__all__ = ["Broken", "Checkpoints"]

FORMAT = "gpubp checkpoint 1"
_DICTS = ("settings", "row", "parts")
AVERAGES = "average/average "  #: how names of arrays begin that `gpubp.optim.Average` keeps
_STEP = "step-([0-9]{8}|[1-9][0-9]{8,17})"
MOST_JSON = 1 << 28  #: bytes


class Broken(ValueError):
    """A checkpoint is not whole, or is none."""


class _Found(NamedTuple):
    """A checkpoint, read and verified."""

    step: int
    arrays: dict[str, Any]
    about: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run, in a folder of their own.

    Parameters
    ----------
    folder
        Its name; it is made when it is needed.
    every
        Steps from one checkpoint to the next, or ``"epoch"`` for one at the end of each. There is one at the end of the
        run, too, and after Ctrl-C.
    keep
        How many of the newest ones are kept. With 1, nothing is left if it gets damaged.
    best
        Name of a figure of the history, such as ``"val_loss"``: there is a checkpoint at each new row, and the best of
        them is kept too.
    maximize
        Whether the best is the largest; by default of accuracies and other scores.

    Examples
    --------
    >>> kept = bp.training.Checkpoints("runs/x", every=500, keep=2, best="val_loss")
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        every: int | str = "epoch",
        keep: int = 3,
        best: str | None = None,
        maximize: bool | None = None,
    ) -> None:
        if not isinstance(folder, str | os.PathLike):
            raise TypeError(f"Checkpoints expects the name of a folder, got {type(folder).__name__}")
        if isinstance(every, str) and every != "epoch":
            raise ValueError(f"every must be a number of steps or 'epoch', got {every!r}")
        if not isinstance(every, str):
            check_at_least(1, "every", every)
        check_at_least(1, "keep", keep)
        if not isinstance(best, str | None):
            raise TypeError(f"best must be the name of a figure, as 'val_loss', got {best!r}")
        self.folder, self.every, self.keep, self.best = Path(folder), every, keep, best
        self._sign = -1 if best and (is_score(best) if maximize is None else maximize) else 1
        self._figures: dict[int, float] = {}  # by step, what was read or written

    # -- writing

    def is_due(self, step: int, *, at_row: bool, at_epoch: bool, at_end: bool) -> bool:
        """Whether there is to be a checkpoint after this step."""
        due = at_epoch if isinstance(self.every, str) else step % self.every == 0
        return due or at_end or (at_row and self.best is not None)

    def save(self, step: int, parts: Mapping[str, Any], *, settings: Mapping[str, Any], row: Mapping[str, Any]) -> None:
        """Write a checkpoint, and then remove those that are no longer wanted.

        Parameters
        ----------
        step
            The number of steps made.
        parts
            What the run is made of, by name: nets and other trees of arrays, and objects with ``state()`` and
            ``load_state()``, whose states are dicts of arrays and of what JSON can hold.
        settings
            What must be the same when the run is resumed, as JSON can hold it.
        row
            The last row of the history, if it is of this step, else an empty one.

        Raises
        ------
        TypeError, ValueError
            If a state is not of arrays and of what JSON can hold; if `best` is no figure of the row.
        OSError
            If it cannot be written; the older ones are still there.
        """
        if self.best is not None and row and not isinstance(row.get(self.best), float):
            known = ", ".join(name for name, x in row.items() if isinstance(x, float))
            raise ValueError(f"best={self.best!r} is no figure of the history: there are {known}")
        arrays, others = _gathered(parts)
        content = serialized(arrays, FORMAT)
        about = {
            "format": FORMAT,
            "step": step,
            "arrays": hashlib.sha256(content).hexdigest(),
            "settings": _encoded(settings, "settings"),
            "row": _encoded(row, "row"),
            "parts": others,
        }
        text = _signed(about)
        if len(text) > MOST_JSON:
            raise ValueError(
                f"the history may have {MOST_JSON} bytes in a checkpoint, and has {len(text)}: report less"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(self.folder, r"step-[0-9]+\.(?:json|safetensors)")
        write_atomically(self._arrays(step), content)
        write_atomically(self._json(step), text)
        self._figures[step] = row.get(self.best or "", math.nan)
        self._remove_old(step)

    def _remove_old(self, newest: int) -> None:
        """Remove all but the newest and the best; what is newer than the one just written was broken."""
        steps = self.steps()
        known = [step for step in steps if step <= newest]
        wanted = {*known[-self.keep :], self._best_of(known)}
        for step in {*steps, *self._steps("safetensors")} - wanted:
            self._json(step).unlink(missing_ok=True)
            self._arrays(step).unlink(missing_ok=True)

    def _best_of(self, steps: list[int]) -> int | None:
        known = [step for step in steps if math.isfinite(self._figure(step))]
        return min(known, key=lambda step: (self._sign * self._figure(step), step), default=None)

    def _figure(self, step: int) -> float:
        """The figure by which a checkpoint is the best; NaN if it has none."""
        if step not in self._figures:
            found: Any = math.nan
            with suppress(Broken):
                found = self._read_json(step)["row"].get(self.best)
            self._figures[step] = found if isinstance(found, float) else math.nan
        return self._figures[step]

    # -- reading

    def steps(self) -> list[int]:
        """Return the steps of which there are checkpoints, whole or not, in order."""
        return self._steps("json")

    def resume(self, parts: Mapping[str, Any], *, settings: Mapping[str, Any]) -> int | None:
        """Put the parts of a run in the state of its newest whole checkpoint.

        Checkpoints that are not whole are named in a warning and passed over.

        Parameters
        ----------
        parts, settings
            As for `save`.

        Returns
        -------
        int or None
            The number of its steps; None if there is no checkpoint.

        Raises
        ------
        Broken
            If there are some, but none is whole.
        ValueError
            If the checkpoint is of other settings, or does not fit the parts: nothing has changed then.
        """
        found = self._newest()
        if found is None:
            return None
        name = str(self._json(found.step))
        _check_settings(found.about["settings"], _decoded(_encoded(settings, "settings")), name)
        _restore(parts, _parted(found.arrays, found.about["parts"]), name)
        return found.step

    def load_best(self, net: Any) -> int:
        """Put the best net, or its averages if the run has them, into a net of that form, and return its step.

        Without `best`, or if no row was saved, it is the newest.
        """
        best = self._best_of(self.steps())
        found = self._newest() if best is None else self._read(best)
        if found is None:
            raise FileNotFoundError(f"there is no checkpoint in {self.folder}")
        start = AVERAGES if any(name.startswith(AVERAGES) for name in found.arrays) else "net/"
        arrays = {name.removeprefix(start): x for name, x in found.arrays.items() if name.startswith(start)}
        load_state(net, arrays, str(self._arrays(found.step)), "checkpoint")
        return found.step

    def _newest(self) -> _Found | None:
        faults: list[str] = []
        for step in reversed(self.steps()):
            try:
                found = self._read(step)
            except Broken as fault:
                faults.append(str(fault))
                continue
            if faults:
                warnings.warn(
                    f"{'; '.join(faults)}: taken is the one before, of step {step}", RuntimeWarning, stacklevel=4
                )
            return found
        if faults:
            raise Broken(f"no checkpoint in {self.folder} is whole: {'; '.join(faults)}")
        return None

    def _read(self, step: int) -> _Found:
        about, file = self._read_json(step), self._arrays(step)
        try:
            arrays, digest = read_arrays(file)
        except FileNotFoundError:
            raise Broken(f"{self._json(step)} is there, but its arrays in {file.name} are not") from None
        except (OSError, ValueError) as error:
            raise Broken(str(error)) from None
        if digest != about["arrays"]:
            raise Broken(f"{file} is damaged: it has another checksum than it was written with")
        return _Found(step, arrays, about)

    def _read_json(self, step: int) -> dict[str, Any]:
        file = self._json(step)
        try:
            if file.stat().st_size > MOST_JSON:
                raise Broken(f"{file} is no checkpoint: it has {file.stat().st_size} bytes")
            content = file.read_bytes()
            about = json.loads(content)
            about.pop("sha256")
            is_whole, about = _signed(about) == content, _decoded(about)
        except OSError as error:
            raise Broken(str(error)) from None
        except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
            raise Broken(f"{file} is damaged: {error}") from None
        if about.get("format") != FORMAT:
            raise Broken(f"{file} is no checkpoint that this version of gpubp knows")
        if not is_whole or about.get("step") != step:
            raise Broken(f"{file} is damaged: it has another checksum than it was written with")
        found = [about.get(name) for name in _DICTS]
        if not all(type(x) is dict for x in found) or not all(type(x) is dict for x in found[-1].values()):
            raise Broken(f"{file} is no checkpoint: {', '.join(_DICTS)} are not there, or no objects")
        return cast(dict[str, Any], about)

    def _steps(self, suffix: str) -> list[int]:
        try:
            names = os.listdir(self.folder)
        except FileNotFoundError:
            return []
        return sorted(int(found[1]) for name in names if (found := re.fullmatch(rf"{_STEP}\.{suffix}", name)))

    def _json(self, step: int) -> Path:
        return self.folder / f"step-{step:08}.json"

    def _arrays(self, step: int) -> Path:
        return self.folder / f"step-{step:08}.safetensors"

    def __repr__(self) -> str:
        return f"Checkpoints({str(self.folder)!r}, every={self.every!r}, keep={self.keep}, best={self.best!r})"


# -- the parts of a run


def _state_of(part: Any) -> dict[str, Any]:
    found = part.state() if hasattr(part, "state") else state_of(part)
    if not isinstance(found, Mapping):
        raise TypeError(f"state() of {type(part).__name__} must return a dict, got {type(found).__name__}")
    return dict(found)


def _load(part: Any, state: dict[str, Any], name: str) -> None:
    if isinstance(part, Node) or not hasattr(part, "state"):
        load_state(part, state, name, "checkpoint")
    else:
        part.load_state(state)


def _gathered(parts: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The arrays of all parts, on the host, under part and name, and for each part all else."""
    arrays: dict[str, Any] = {}
    others: dict[str, dict[str, Any]] = {}
    for part, x in parts.items():
        state = _state_of(x)
        arrays |= {f"{part}/{name}": to_numpy(value) for name, value in state.items() if is_array(value)}
        others[part] = _encoded({name: value for name, value in state.items() if not is_array(value)}, part)
    return arrays, others


def _parted(arrays: Mapping[str, Any], others: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Undo `_gathered`."""
    found = {part: dict(state) for part, state in others.items()}
    for path, x in arrays.items():
        part, _, name = path.partition("/")
        found.setdefault(part, {})[name] = x
    return found


def _restore(parts: Mapping[str, Any], states: Mapping[str, dict[str, Any]], name: str) -> None:
    """Load every part, or, where one does not fit, none."""
    if parts.keys() != states.keys():
        raise ValueError(f"{name} holds {', '.join(states)}, but this run has {', '.join(parts)}")
    done: list[tuple[Any, dict[str, Any]]] = []
    try:
        for part, x in parts.items():
            done.append((x, _state_of(x)))
            try:
                _load(x, states[part], name)
            except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
                raise ValueError(f"{name} does not fit this run: {part}: {error}") from error
    except BaseException:
        for x, before in reversed(done):
            _load(x, before, "the state before")
        raise


def _check_settings(there: Mapping[str, Any], here: Mapping[str, Any], name: str) -> None:
    faults = [
        f"{key} is {here.get(key)!r}, and was {there.get(key)!r}"
        for key in {**there, **here}
        if here.get(key) != there.get(key)
    ]
    if faults:
        raise ValueError(f"the run of {name} cannot go on with other settings: {'; '.join(faults)}")


# -- JSON


def _signed(about: dict[str, Any]) -> bytes:
    """The content of a file, with a checksum of its own: for the same values, the same bytes."""
    text = ",\n".join(f"{json.dumps(name)}: {json.dumps(x, allow_nan=False)}" for name, x in about.items())
    return f'{{{text},\n"sha256": "{hashlib.sha256(text.encode()).hexdigest()}"}}\n'.encode()


def _encoded(x: Any, name: str) -> Any:
    """What JSON can hold: numbers that it lacks as {"float64": "7ff0000000000000"}, by their bits."""
    if isinstance(x, Mapping):
        if not all(isinstance(key, str) for key in x):
            raise TypeError(f"{name} has names that are no text, which a checkpoint cannot hold: {list(x)}")
        return {key: _encoded(value, f"{name} {key}") for key, value in x.items()}
    if isinstance(x, list | tuple):
        return [_encoded(value, name) for value in x]
    if isinstance(x, float):
        return float(x) if math.isfinite(x) else {"float64": struct.pack(">d", x).hex()}
    if isinstance(x, Integral) and not isinstance(x, bool):
        return int(x)
    if not isinstance(x, str | bool | None):
        raise TypeError(f"{name} is of {type(x).__name__}, but a checkpoint holds arrays and what JSON can hold")
    return x


def _decoded(x: Any) -> Any:
    """Undo `_encoded`."""
    if isinstance(x, list):
        return [_decoded(value) for value in x]
    if not isinstance(x, dict):
        return x
    if x.keys() == {"float64"} and re.fullmatch("[0-9a-f]{16}", str(x["float64"])):
        return struct.unpack(">d", bytes.fromhex(x["float64"]))[0]
    return {key: _decoded(value) for key, value in x.items()}
