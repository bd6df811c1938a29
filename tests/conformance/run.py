"""Run the Array API standard's official test suite on gpubp's namespaces: see README.md beside this file.

A test that fails on the module under test fails this script too, unless it fails on the baseline
(array_api_compat.numpy) as well or stands in ``skips-<module>.txt`` with a reason.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BASELINE = "array_api_compat.numpy"
PASSED, FAILED = {"passed", "xpassed"}, {"failed", "error"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", type=Path, help="a checkout of data-apis/array-api-tests")
    parser.add_argument("modules", nargs="+", help="the namespaces to test, e.g. gpubp.numpy gpubp.testing.standin")
    parser.add_argument("--spec", type=Path, help="a checkout of data-apis/array-api (default: the suite's submodule)")
    parser.add_argument("--max-examples", type=int, default=20, help="Hypothesis examples a test (default: 20)")
    parser.add_argument("--baseline", default=BASELINE, help=f"whose failures are excused (default: {BASELINE})")
    parser.add_argument("--select", nargs="+", default=["array_api_tests"], help="tests of the suite to run, as paths")
    parser.add_argument("--workers", default="0", help="processes, for pytest-xdist (default: 0, none)")
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as scratch:
        suite = assemble(options.suite, options.spec, Path(scratch))

        def run(module: str, select: list[str], max_examples: int = options.max_examples) -> dict[str, str]:
            return outcomes(suite, module, select, max_examples, options.workers)

        excused = failures(run(options.baseline, options.select))
        print(f"{options.baseline}: {len(excused)} tests fail", flush=True)
        code = 0
        for module in options.modules:
            results = run(module, options.select)
            # The examples a test draws differ from module to module: look longer before calling a failure new.
            if suspects := sorted(failures(results) - excused - skips(module).keys()):
                excused |= failures(run(options.baseline, suspects, 25 * options.max_examples))
            code = max(code, report(module, results, excused))
        return code


def assemble(suite: Path, spec: Path | None, scratch: Path) -> Path:
    """Lay out the suite with the specification in its place, as links: neither checkout is changed."""
    spec = spec or suite / "array-api"
    for needed in (suite / "array_api_tests", spec / "src" / "array_api_stubs"):
        if not needed.is_dir():
            sys.exit(f"{needed} is missing: give the checkouts of array-api-tests and, by --spec, of array-api")
    for entry in suite.resolve().iterdir():
        if entry.name not in ("array-api", ".git", "__pycache__"):
            (scratch / entry.name).symlink_to(entry)
    (scratch / "array-api").symlink_to(spec.resolve())
    return scratch


def outcomes(suite: Path, module: str, select: list[str], max_examples: int, workers: str) -> dict[str, str]:
    """Run the suite on `module`; return each test's outcome by its id."""
    results = suite / "results.json"
    results.unlink(missing_ok=True)
    command = [
        *(sys.executable, "-m", "pytest", "-q", "--no-header", "--tb=short", "-p", "no:cacheprovider"),
        *("--max-examples", str(max_examples), "--disable-deadline", "--derandomize", "-n", workers),
        *("--json-report", f"--json-report-file={results}", "--json-report-indent=1", *select),
    ]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = os.environ | {"ARRAY_API_TESTS_MODULE": module, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=suite, env=environment, capture_output=True, text=True, check=False)
    found = json.loads(results.read_text()) if results.exists() else {}
    # A test file that cannot be imported (a requirement of the suite is not installed) would be left out silently.
    uncollected = [entry for entry in found.get("collectors", ()) if entry["outcome"] != "passed"]
    if done.returncode not in (0, 1) or not found.get("tests") or uncollected:
        sys.exit(f"the suite did not run whole on {module}:\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
    log = Path(tempfile.gettempdir()) / f"conformance-{module}.log"
    log.write_text(done.stdout)
    print(f"{module}: {done.stdout.splitlines()[-1]}; details in {log}", flush=True)
    return {test["nodeid"]: test["outcome"] for test in found["tests"]}


def failures(run: dict[str, str]) -> set[str]:
    return {test for test, outcome in run.items() if outcome in FAILED}


def skips(module: str) -> dict[str, str]:
    """Read the committed list for `module`: test ids and, after `` # ``, the reasons."""
    file = HERE / f"skips-{module}.txt"
    listed: dict[str, str] = {}
    for line in file.read_text().splitlines() if file.exists() else ():
        if line.strip() and not line.startswith("#"):
            test, _, reason = line.rpartition(" # ")
            if not test or not reason.strip():
                sys.exit(f"{file.name}: no reason (after ' # ') in the line {line!r}")
            listed[test.strip()] = reason.strip()
    return listed


def report(module: str, run: dict[str, str], excused: set[str]) -> int:
    listed = skips(module)
    failed = failures(run)
    new = sorted(failed - excused - listed.keys())
    known = failed & listed.keys()
    stale = sorted(test for test in listed if run.get(test) in PASSED)
    print(f"{module}: {len(failed)} tests fail, {len(failed & excused)} of them on the baseline too,")
    print(f"  {len(known - excused)} listed in skips-{module}.txt, {len(new)} new" + (":" if new else ""))
    for test in new:
        print(f"    {test}")
    for test in stale:
        print(f"  listed, but passed: {test}")
    return 1 if new else 0


if __name__ == "__main__":
    sys.exit(main())
