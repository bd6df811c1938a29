"""Run the kernels under NVIDIA's compute-sanitizer, on a GPU.

    python -m tools.sanitize [--tool memcheck racecheck synccheck initcheck] [PYTEST ARGUMENTS ...]

The samples of the op catalogue and the optimizers' steps go through every kernel, with every array in an allocation of
its own. The exit status is that of the last tool that found something, 0 if none did. compute-sanitizer comes with the
CUDA toolkit; it is looked for on the path and in /usr/local/cuda/bin.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
TOOLS = ("memcheck", "racecheck", "synccheck", "initcheck")
ABSENT = "compute-sanitizer is not installed: it comes with the CUDA toolkit"
FOUND = 99  # the exit status when a tool found something
#: What is run: each kernel with samples of its function, and the steps of the optimizers.
SELECTED = (
    *("tests/test_catalogue.py", "tests/optim", "tests/kernels"),
    *("-k", "(hand_written_passes or every_library or kernels) and not captured"),
)


def sanitizer() -> str | None:
    """Return the path of compute-sanitizer, if it is installed."""
    return shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path="/usr/local/cuda/bin")


def command(program: str, tool: str, arguments: Sequence[str]) -> list[str]:
    """Return the command that runs tests under a tool."""
    options = ["--tool", tool, "--error-exitcode", str(FOUND)]
    if tool == "memcheck":
        options += ["--report-api-errors", "no"]  # CuPy asks for what may not be there
    tests = ["-m", "pytest", "-q", "-p", "tests.unpooled", "--backends", "cupy", *(arguments or SELECTED)]
    return [program, *options, sys.executable, *tests]


def run(tool: str, arguments: Sequence[str] = (), *, timeout: float | None = None) -> tuple[int, str]:
    """Run tests under a tool and return the exit status and what it printed."""
    program = sanitizer()
    if program is None:
        return 127, ABSENT
    done = subprocess.run(
        command(program, tool, arguments), cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout,
    )  # fmt: skip
    return done.returncode, done.stdout


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.sanitize", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tool", nargs="+", choices=TOOLS, default=list(TOOLS[:3]), help="default: all but initcheck")
    args, arguments = parser.parse_known_args()
    status = 0
    for tool in args.tool:
        found, output = run(tool, arguments)
        if output == ABSENT:
            print(ABSENT, file=sys.stderr)
            return found
        print(f"=== {tool}\n{output}")
        status = found or status
    return status


if __name__ == "__main__":
    sys.exit(main())
