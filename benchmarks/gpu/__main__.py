"""How fast training steps are on a GPU, beside PyTorch and JAX.

    python -m benchmarks.gpu [--rows xor,gpt] [--contenders gpubp,PyTorch] [--seconds 2] [--out FILE]

Every contender starts from the same values with the same batch, in a process of its own, and is first checked to learn
the same; then they take turns. What fails is told and the rest goes on; the files are written after each row.
``--device cpu --small`` rehearses it all without a GPU, in float64 and at toy size, where agreement is exact.
"""

from __future__ import annotations

import argparse
import datetime
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu.contenders import CONTENDERS, GPU_ONLY, Apart, Failed, Job, machine
from benchmarks.gpu.rows import ROWS, Row
from benchmarks.gpu.table import goal, markdown, ratios, write

ROOT = Path(__file__).parents[2]
TURNS = 5  #: how often each contender has its turn
#: By precision, how far losses may be apart, and what parameters moved by in all the steps, relative to their norm.
#: On a GPU these find what is broken, not what is a little different: that is what the rehearsal in float64 is for,
#: where JAX's softmax and the steps that a compiled optimizer counts are still of float32.
#: Adam divides by the gradient's size, and turns noise in what is almost 0 into whole steps: three times as much.
TOLERANCES = {"float64": (1e-8, 1e-5), "float32": (1e-4, 1e-3), "tf32": (1e-2, 0.1), "bfloat16": (5e-2, 0.2)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 1 where something failed or disagrees."""
    args = _parser().parse_args(arguments)
    if args.device.startswith("cuda"):
        from gpubp.device import cuda_devices

        try:
            cuda_devices()
        except RuntimeError as problem:
            print(f"no GPU to measure: {problem}. Rehearse with: python -m benchmarks.gpu --device cpu --small")
            return 2
    else:
        args.contenders = [name for name in args.contenders if name not in GPU_ONLY]
    figures = run(
        args.rows, args.contenders, args.device, small=args.small, seconds=args.seconds, out=args.out,
        timeout=args.timeout, minutes=args.minutes,
    )  # fmt: skip
    print(f"\n{markdown(figures)}\nwrote {args.out}.json and {args.out}.md")
    return int(any(row["goal"] == "DISAGREES" or "skipped" in row or _failed(row) for row in figures["rows"].values()))


def _failed(row: dict[str, Any]) -> bool:
    """Whether a contender failed that is installed."""
    told = [result.get("failed", "") for result in row["contenders"].values()]
    return any(problem and not problem.startswith("ModuleNotFoundError") for problem in told)


def _parser() -> argparse.ArgumentParser:
    def among(known: Any) -> Callable[[str], list[str]]:
        def parse(text: str) -> list[str]:
            names = [name.strip() for name in text.split(",")]
            if unknown := [name for name in names if name not in known]:
                raise argparse.ArgumentTypeError(f"there is no {unknown[0]!r}, but {', '.join(known)}")
            return names

        return parse

    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=(__doc__ or "").partition("\n")[0])

    def device(text: str) -> str:
        if not re.fullmatch(r"cpu|cuda(:\d+)?", text):
            raise argparse.ArgumentTypeError(f"expected cuda, cuda:1 ... or cpu, got {text!r}")
        return text

    parser.add_argument("--rows", type=among(ROWS), default=list(ROWS), help=", ".join(ROWS))
    parser.add_argument("--contenders", type=among(CONTENDERS), default=list(CONTENDERS), help=", ".join(CONTENDERS))
    parser.add_argument("--device", type=device, default="cuda", help="cuda, cuda:1, or cpu (default: cuda)")
    parser.add_argument("--small", action="store_true", help="toy sizes")
    parser.add_argument("--seconds", type=float, default=2.0, help="for each contender of a row (default: %(default)s)")
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds to get ready in (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=9.0, help="after which no row begins (default: %(default)s)")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "benchmarks" / "results" / "gpu", help="files without .json and .md"
    )
    return parser


def run(
    rows: Sequence[str], contenders: Sequence[str], device: str, *, small: bool, seconds: float, out: Path,
    timeout: float = 120.0, minutes: float = 9.0, start: Callable[[Job], Any] = Apart,
) -> dict[str, Any]:  # fmt: skip
    """Measure rows, write the files after each, and return the figures."""
    end = time.monotonic() + 60 * minutes
    figures: dict[str, Any] = {
        "machine": machine(device),
        "commit": commit(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "contenders": list(contenders),
        "small": small,
        "rows": {},
    }
    for name in rows:
        if (left := end - time.monotonic()) < 5:
            figures["rows"][name] = {"contenders": {}, "ratios": {}, "goal": "not all ran", "skipped": "no time left"}
        else:
            jobs = [Job(name, contender, device, small) for contender in contenders]
            figures["rows"][name] = measure(jobs, seconds, min(timeout, left), start)
        write(figures, out)
    return figures


def commit() -> str:
    """Return the commit that is measured, with a plus if files have been changed."""

    def git(*command: str) -> str:
        return subprocess.run(["git", "-C", ROOT, *command], capture_output=True, text=True).stdout.strip()

    try:
        return (git("rev-parse", "--short", "HEAD") or "unknown") + "+" * bool(git("status", "--porcelain", "-uno"))
    except OSError:
        return "unknown"


class _Race:
    """The contenders of a row, and what is known of each; one that fails is left out from there on."""

    def __init__(self, jobs: list[Job], start: Callable[[Job], Any]) -> None:
        self.results: dict[str, dict[str, Any]] = {job.contender: {} for job in jobs}
        self.running = {job.contender: start(job) for job in jobs}

    def ask(self, name: str, request: str, *args: Any, timeout: float) -> Any:
        """Ask one contender and wait; None if it fails."""
        self.running[name].ask(request, *args)
        return self.answer(name, timeout)

    def answer(self, name: str, timeout: float) -> Any:
        try:
            return self.running[name].answer(timeout)
        except Failed as problem:
            print(f"  {name}: {problem}", file=sys.stderr)
            self.results[name]["failed"] = str(problem)
            self.running.pop(name).end()
            return None

    def end(self) -> None:
        for contender in self.running.values():
            contender.end()


def measure(jobs: list[Job], seconds: float, timeout: float, start: Callable[[Job], Any]) -> dict[str, Any]:
    """Measure one row."""
    job, row = jobs[0], ROWS[jobs[0].row]
    print(f"{row.title} ({job.precision})", flush=True)
    race = _Race(jobs, start)
    try:
        found = _measured(race, job, row, seconds, timeout)
    finally:
        race.end()
    found["goal"] = goal(found)
    for name, result in found["contenders"].items():
        if "ms" in result:
            print(f"  {name:16} {result['ms']:10.4f} ms   {result.get('disagrees') or ''}", flush=True)
    return found


def _measured(race: _Race, job: Job, row: Row, seconds: float, timeout: float) -> dict[str, Any]:
    deadline = time.monotonic() + timeout
    for contender in race.running.values():
        contender.ask("prepare")  # all at once: compilers take their time
    prepared = {name: race.answer(name, deadline - time.monotonic()) for name in list(race.running)}
    ready = {name: answer for name, answer in prepared.items() if answer is not None}
    versions = {name: v for answer in ready.values() for name, v in answer["versions"].items()}
    adam = row.rule.kind.startswith("Adam")
    for name, answer in ready.items():
        race.results[name] |= {"losses": answer["losses"], "prepared_s": answer["prepared_s"]}
        told = compare(answer, ready[next(iter(ready))], job.precision, adam)
        race.results[name] |= told
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in ready}
    for _ in range(TURNS):
        for name in list(race.running):
            times[name] += race.ask(name, "times", seconds / TURNS, timeout=30 + 10 * seconds) or []
    for name in list(race.running):
        peak = race.ask(name, "peak", timeout=30)
        devices, hosts = zip(*times[name], strict=True)
        race.results[name] |= {
            "ms": statistics.median(devices),
            "quartiles": np.percentile(devices, [25, 75]).tolist(),
            "samples": len(devices),
            "host_us": 1e3 * statistics.median(hosts),
            "peak_mb": None if peak is None else peak / 1e6,
        }
    found = {"contenders": race.results, "ratios": ratios(race.results), "versions": versions}
    if work := row.work(**(row.toy if job.small else row.full)):
        found |= _shares(race, work)
    return found


def _shares(race: _Race, work: dict[str, float]) -> dict[str, Any]:
    """Measure what the device can do, by the contenders that can tell, and set their steps against it."""
    kind = "flops" if "flops" in work else "bytes"
    size = work["n"] if kind == "flops" else 2.0**30 if work["bytes"] > 2.0**30 else work["bytes"] // 4 * 4
    rates = {name: race.ask(name, "rate", kind, size, timeout=60) for name in list(race.running)}
    known = {name: rate for name, rate in rates.items() if rate}
    if not known:
        return {}
    peak = max(known.values())
    for result in race.results.values():
        if "ms" in result:
            result["share"] = work[kind] / (1e-3 * result["ms"]) / peak
    return {"peak": {"of": kind, "a second": peak, "by": known}}


def compare(found: dict[str, Any], expected: dict[str, Any], precision: str, adam: bool) -> dict[str, Any]:
    """Return how far a contender's first steps are from those of the first, and what disagrees, if anything does."""
    for_losses, for_moves = TOLERANCES[precision]
    for_moves *= 3 if adam and precision != "float64" else 1
    losses, wanted = np.array(found["losses"]), np.array(expected["losses"])
    if losses.shape != wanted.shape:
        return {"disagrees": f"{len(losses)} losses, not {len(wanted)}"}
    apart = float(np.max(np.abs(losses - wanted) / np.abs(wanted), initial=0.0))
    moves = {path: _apart(m, expected["moved"][path], expected["start"][path], precision)
             for path, m in found["moved"].items()}  # fmt: skip
    worst = max(moves, key=lambda path: moves[path] if moves[path] == moves[path] else np.inf)
    told = {"apart": {"losses": apart, "moved": moves[worst], "worst": worst}}
    if not (apart <= for_losses and moves[worst] <= for_moves):
        told["disagrees"] = f"losses differ by {apart:.1e}, {worst} moved otherwise by {moves[worst]:.1e}"
    return told


def _apart(found: np.ndarray, expected: np.ndarray, start: np.ndarray, precision: str) -> float:
    """Return the distance of two moves relative to their length, but for what rounding the parameters makes of it."""
    rounding = 0.0 if precision == "float64" else 2.0**-23 * float(np.linalg.norm(start))
    length = max(float(np.linalg.norm(expected)), 1e-30)
    return max(float(np.linalg.norm(found - expected)) - 4 * rounding, 0.0) / length


if __name__ == "__main__":
    sys.exit(main())
