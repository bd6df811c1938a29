"""What can be set for a run: on the command line, in a TOML file, and in the run folder's config.json alike."""

from __future__ import annotations

import argparse
import math
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

from .problems import BadInput, told

__all__ = ["Settings", "add_options", "argument", "device_name", "made", "read_toml", "settings_of", "whole"]

LARGEST = 2**20  #: bytes of a TOML file
ACTIVATIONS = ("relu", "leaky_relu", "elu", "selu", "gelu", "silu", "tanh", "sigmoid", "softplus")
OPTIMIZERS = ("sgd", "adagrad", "rmsprop", "adam", "adamw", "lion", "muon")
SCHEDULES = ("constant", "cosine", "one-cycle", "linear", "exponential", "step", "plateau")
TASKS = ("regression", "binary", "classes")


class Kind(NamedTuple):
    """What a value may be: read from a word of the command line; in TOML it is of one of these types."""

    read: Callable[[str], Any]
    types: tuple[type, ...]
    metavar: str | None = None


def whole(low: int, high: int = 2**31) -> Kind:
    """Whole numbers from `low` to below `high`."""

    def read(text: str) -> int:
        if not (text.isascii() and text.isdecimal() and len(text) < 40 and low <= int(text) < high):
            limit = "" if high == 2**31 else f" to {high - 1}"
            raise ValueError(f"expected a whole number from {low}{limit}, got {text!r}")
        return int(text)

    return Kind(read, (int,), "N")


def number(low: float, below: float = math.inf, *, above: bool = False) -> Kind:
    """Finite numbers from `low`, or above it, and below another."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (low < value < below if above else low <= value < below):
            limit = "" if below == math.inf else f" to below {below:g}"
            raise ValueError(f"expected a number {'above' if above else 'from'} {low:g}{limit}, got {text!r}")
        return value

    return Kind(read, (int, float), "X")


def words(*choices: str, metavar: str | None = None) -> Kind:
    """Text, or one of some words."""

    def read(text: str) -> str:
        if choices and text not in choices:
            from ..data.tables import near

            raise ValueError(f"it cannot be {text!r}{near(text, choices)}")
        if "\0" in text:
            raise ValueError(f"expected a text without the character 0, got {text!r}")
        return text

    return Kind(read, (str,), metavar or f"{{{','.join(choices)}}}")


def _device(text: str) -> str:
    from ..device import device

    try:
        device(text, verbose=False)
    except RuntimeError as error:
        raise ValueError(str(error)) from None
    return text


def _model(text: str) -> str:
    file, colon, name = text.rpartition(":")
    if not (colon and name.isidentifier() and file.endswith(".py")):
        raise ValueError(f"expected FILE.py:FUNCTION, got {text!r}")
    if not Path(file).is_file():
        raise ValueError(f"there is no file {file!r}")
    return f"{Path(file).resolve()}:{name}"


device_name = Kind(_device, (str,), "auto|cpu|cuda|cuda:1")
_flag = Kind(bool, (bool,))
_file = Kind(lambda text: str(Path(words().read(text)).absolute()), (str,), "PATH")


def _option(kind: Kind, about: str, default: Any = None, *, group: str, several: bool = False) -> Any:
    about = f"{about} (default: %(const)s)" if default is not None and kind is not _flag else about
    return field(
        default=default, metadata={"kind": kind, "help": about, "group": group, "several": several}
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All that determines a run. None: chosen by what the data are, and printed."""

    data: str
    target: str | None = _option(
        words(metavar="NAME"),
        "column to predict; in an .npz file the array, of an .npy file another such file (default: the column called "
        "target, label, class or y, else the last one; in .npz y)",
        group="data",
    )
    inputs: str = _option(words(metavar="NAME"), "array of an .npz file to predict from", "x", group="data")
    ignore: tuple[str, ...] = _option(words(metavar="NAME"), "columns to leave out", (), group="data", several=True)
    category: tuple[str, ...] = _option(
        words(metavar="NAME"), "columns whose numbers are names, such as zip codes", (), group="data", several=True
    )
    task: str | None = _option(words(*TASKS), "what the target is (default: inferred, and said)", group="data")
    test: str | None = _option(_file, "file to test with, in place of a part of FILE", group="data")
    test_fraction: float = _option(number(0, 1), "part of the rows kept to test with", 0.2, group="data")
    validation_fraction: float = _option(
        number(0, 1), "part of the other rows kept to watch the training with", 0.1, group="data"
    )
    image_size: int | None = _option(
        whole(1, 4096), "pictures of a folder are scaled to N x N (default: all have one size)", group="data"
    )
    data_dir: str | None = _option(
        _file, "where data sets are kept by name (default: GPUBP_DATA, or a cache folder)", group="data"
    )

    model: str | None = _option(
        Kind(_model, (str,), "FILE.py:FUNCTION"), "a net of your own: a function that returns it", group="net"
    )
    hidden: tuple[int, ...] | None = _option(
        whole(1, 2**20), "units of the hidden layers (default: 128 64; for pictures a convolutional net)",
        group="net", several=True,
    )  # fmt: skip
    activation: str = _option(words(*ACTIVATIONS), "of the hidden layers", "relu", group="net")
    dropout: float = _option(number(0, 1), "share of the hidden units dropped in a step", 0.0, group="net")
    batch_norm: bool = _option(_flag, "batch normalization in the hidden layers", False, group="net")

    optimizer: str = _option(words(*OPTIMIZERS), "how steps are made", "adamw", group="training")
    lr: float | None = _option(number(0, above=True), "learning rate (default: the optimizer's)", group="training")
    schedule: str = _option(words(*SCHEDULES), "of the learning rate", "cosine", group="training")
    warmup: int = _option(whole(0), "steps in which the learning rate rises from 0", 0, group="training")
    weight_decay: float | None = _option(
        number(0), "weight decay (default: of AdamW, Lion and Muon by the number of rows, else 0)", group="training"
    )
    epochs: int | None = _option(
        whole(1), "passes over the training rows (default: 30, of 10000 rows and more 10)", group="training"
    )
    batch_size: int | None = _option(
        whole(1), "rows in a step (default: 32, of 10000 rows and more 128)", group="training"
    )
    balance: bool = _option(_flag, "draw all classes equally often", False, group="training")
    clip_norm: float | None = _option(number(0, above=True), "bound on the gradients' norm", group="training")
    early_stopping: int | None = _option(
        whole(1), "stop when the validation loss has not got better for N epochs, and keep the best weights",
        group="training",
    )  # fmt: skip
    nonfinite: str = _option(
        words("stop", "skip", "scale"), "what to do where a loss or gradient is not finite", "stop", group="training"
    )
    precision: str | None = _option(
        words("float32", "bfloat16", "float16"), "of the arithmetic (default: float32)", group="training"
    )
    seed: int = _option(whole(0, 2**63), "of everything random", 0, group="training")
    device: str = _option(device_name, "where to compute", "auto", group="training")

    out: str | None = _option(_file, "run folder (default: runs/ and the name of the data)", group="run")
    checkpoint_every: int | None = _option(
        whole(1), "epochs between checkpoints (default: 10, of 10000 rows and more 1)", group="run"
    )


NAMES = {option.name: option for option in fields(Settings)}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give a parser an option for each setting; those that are not given are not in its result."""
    groups: dict[str, Any] = {}
    for option in fields(Settings):
        if option.name == "data":
            continue
        about = option.metadata
        group = groups.get(about["group"]) or groups.setdefault(
            about["group"], parser.add_argument_group(about["group"])
        )
        kind: Kind = about["kind"]
        spelled = f"--{option.name.replace('_', '-')}"
        common = {"dest": option.name, "default": argparse.SUPPRESS}
        if kind is _flag:
            group.add_argument(spelled, action=argparse.BooleanOptionalAction, help=about["help"], **common)
            continue
        shown = about["help"].replace("%(const)s", str(option.default))
        group.add_argument(
            spelled, type=argument(kind), metavar=kind.metavar, help=shown, **common,
            **({"nargs": "*"} if about["several"] else {}),
        )  # fmt: skip


def argument(kind: Kind) -> Callable[[str], Any]:
    """Return a kind as the type of an argument of the command line."""

    def read(text: str) -> Any:
        try:
            return kind.read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read


def settings_of(given: Mapping[str, Any], file: str | None) -> Settings:
    """Return the settings of the command line, and where it is silent those of a TOML file."""
    told = {name: value for name, value in given.items() if name in NAMES and value is not None}
    values = ({} if file is None else read_toml(file)) | told
    if "data" not in values:
        raise BadInput("expected a file, a folder, or the name of a data set to learn from")
    return made(values)


def made(values: Mapping[str, Any]) -> Settings:
    """Make settings of their values, lists of which become tuples; a ValueError says which one cannot be."""
    for name, x in values.items():
        about = NAMES[name].metadata if name in NAMES else {}
        types, several = about.get("kind", words()).types, about.get("several", False)
        parts = x if several and isinstance(x, list | tuple) else [x]
        if x is not None and not (all(type(part) in types for part in parts) and (not several or parts is x)):
            raise ValueError(f"{name} cannot be {str(x)[:80]!r}")
    return Settings(**{name: tuple(x) if isinstance(x, list) else x for name, x in values.items()})  # type: ignore[arg-type]


def read_toml(file: str) -> dict[str, Any]:
    """Read settings from a TOML file.

    Raises
    ------
    BadInput
        If it cannot be read, is no TOML, or has a key or a value that is none of the settings.
    """
    try:
        with open(file, "rb") as stream:
            content = stream.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise ValueError(f"it is larger than {LARGEST} bytes")
        found = tomllib.loads(content.decode().replace("\r\n", "\n"))
    except RecursionError:
        raise BadInput(f"{file}: it is nested too deeply") from None
    except OSError as error:
        raise BadInput(told(error)) from None
    except ValueError as error:
        raise BadInput(f"{file} is no TOML file of settings: {error}") from None
    return {name: _value(file, name, value) for name, value in found.items()}


def _value(file: str, name: str, value: Any) -> Any:
    if name not in NAMES:
        from ..data.tables import near

        raise BadInput(f"{file}: there is no setting {name!r}{near(name, list(NAMES))}")
    if name == "data":
        kind, several = words(), False
    else:
        kind, several = NAMES[name].metadata["kind"], NAMES[name].metadata["several"]
    if several and not isinstance(value, list):
        raise BadInput(f"{file}: {name}: expected a list, as in [128, 64], got {value!r}")
    try:
        return [_typed(kind, x) for x in value] if several else _typed(kind, value)
    except ValueError as error:
        raise BadInput(f"{file}: {name}: {error}") from None


def _typed(kind: Kind, value: Any) -> Any:
    if type(value) not in kind.types:
        wanted = " or ".join({int: "a whole number", float: "a number", str: "a text", bool: "true or false"}[t]
                             for t in kind.types)  # fmt: skip
        raise ValueError(f"expected {wanted}, got {str(value)[:80]!r}")
    return value if kind is _flag else kind.read(str(value))
