"""The commands and their options; what they do is imported when it is wanted."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, NoReturn

from .problems import FAILED, INTERRUPTED, WRONG, BadInput, Failure
from .settings import add_options, argument, device_name, whole

__all__ = ["main"]

STATUS = "exit status: 0 done; 1 the run failed; 2 wrong options or bad input; 130 stopped by Ctrl-C"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments; by default those the process was started with.

    Returns
    -------
    int
        The exit status: 0 for success; 1 where a run or a check failed; 2 for input that cannot be; 130 after Ctrl-C.

    Raises
    ------
    SystemExit
        For wrong options, with status 2, and after ``--help`` and ``--version``.
    """
    args = _parser().parse_args(argv)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warn
            status: int = args.run(args)
        sys.stdout.flush()
    except (BadInput, Failure) as problem:
        print(f"gpubp {args.command}: {problem}", file=sys.stderr)
        return WRONG if isinstance(problem, BadInput) else FAILED
    except BrokenPipeError:  # whoever reads stdout has enough, as `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except KeyboardInterrupt:
        print(f"gpubp {args.command}: stopped by Ctrl-C", file=sys.stderr)
        return INTERRUPTED
    return status


def _warn(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"gpubp: {message}", file=sys.stderr)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} ({self.prog} --help lists all options)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="gpubp", description=sys.modules[__package__].__doc__, epilog=STATUS)
    parser.add_argument("--version", action="version", version=f"gpubp {metadata.version('gpubp')}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND", dest="command")

    def command(name: str, about: str, where: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=about, description=f"{about[0].upper()}{about[1:]}.", epilog=STATUS)
        made.set_defaults(run=_late(where))
        return made

    train = command("train", "learn from a file, a folder of pictures or a data set", "train.train")
    train.add_argument("data", nargs="?", metavar="FILE|NAME", help="CSV, Parquet, .npz or .npy file, folder, or name")
    train.add_argument("--config", metavar="FILE.toml", help="settings, of which those given here are not taken")
    add_options(train)
    train.add_argument("--overwrite", action="store_true", help="put the run in the place of one that is there")
    _add_voice(train)

    predict = command("predict", "write predictions for the rows of a file, as CSV", "apply.predict")
    _add_run(predict)
    predict.add_argument(
        "file", metavar="FILE", help="of the kind that the run has learned from; targets may be missing"
    )
    predict.add_argument("--out", metavar="FILE.csv", help="where to write them (default: stdout)")
    _add_voice(predict)

    evaluate = command("evaluate", "measure a trained net", "apply.evaluate")
    _add_run(evaluate)
    evaluate.add_argument("file", nargs="?", metavar="FILE", help="rows (default: those the run has kept to test with)")
    evaluate.add_argument("--target", metavar="NAME", help="array or file of the targets (default: as the run)")
    _add_voice(evaluate)

    resume = command("resume", "go on with a run that was interrupted", "train.resume")
    _add_run(resume)
    _add_voice(resume)

    check = command("check", "check the gradients of your own function or layer, and its parity", "parser.check")
    check.add_argument("target", type=_target, metavar="FILE.py:NAME", help="file and name of the function or layer")
    check.add_argument(
        "--shape", type=_shape, action="append", default=[], metavar="N,M",
        help="shape of an argument, drawn from N(0, 1); once for each (default: what NAME_args in the file holds)",
    )  # fmt: skip
    check.add_argument("--backends", type=lambda text: text.split(","), help="numpy,standin,array_api_strict,torch,...")
    check.add_argument("--order", type=argument(whole(1)), default=2, help="highest derivative (default: %(default)s)")
    check.add_argument("--seed", type=argument(whole(0)), default=0, help="of the arguments (default: %(default)s)")

    command("info", "print devices, versions, and what each missing extra would bring", "info.info")
    return parser


def _late(where: str) -> Callable[[argparse.Namespace], int]:
    """Return a function that is imported when it is called."""
    module, _, name = where.partition(".")

    def run(args: argparse.Namespace) -> int:
        status: int = getattr(import_module(f".{module}", __package__), name)(args)
        return status

    return run


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_folder", metavar="RUN", help="run folder of gpubp train")
    parser.add_argument(
        "--device",
        type=argument(device_name),
        metavar=device_name.metavar,
        help="where to compute (default: as the run)",
    )


def _add_voice(parser: argparse.ArgumentParser) -> None:
    voice = parser.add_mutually_exclusive_group()
    voice.add_argument("--quiet", action="store_true", help="print errors and warnings only")
    voice.add_argument("--json", action="store_true", help="print one JSON object a line, and nothing else, on stdout")


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


def check(args: argparse.Namespace) -> int:
    """Check the gradients of a function or layer, and its parity."""
    from ..testing.command import check

    try:
        return check(*args.target, shapes=args.shape, backends=args.backends, order=args.order, seed=args.seed)
    except SystemExit as stop:  # with a message
        raise BadInput(stop.code) from None
