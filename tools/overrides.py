"""Write which fused function has a kernel of its own for which library: the table in docs/kernels.md.

    python -m tools.overrides [--check]

It is read from the override tables themselves. CuPy's are loaded with the stand-in of the tests (the extra `test`)
where there is no CuPy.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[1] / "docs" / "kernels.md"
LIBRARIES = {"numpy": "NumPy", "cupy": "CuPy"}
HEAD = """# What runs where

Every fused function runs on every array library: by its hand-written passes, in Array API code. A kernel takes their
place for one library, named here by its file in `gpubp/kernels/`; what it declines (other dtypes, rare options) is
left to the hand-written passes. Without `gpubp/kernels/` everything still runs, and gives the same.

This page is made by `python -m tools.overrides`, from the override tables.

"""


def page() -> str:
    """Return the page."""
    if find_spec("cupy") is None:
        try:
            import tests.fake_cupy  # noqa: F401  (in CuPy's place)
        except ModuleNotFoundError as missing:
            sys.exit(f"{missing.name} is not installed: pip install -e '.[test]'")
    import gpubp.functions  # noqa: F401  (which fills the tables)
    from gpubp.functions import update
    from gpubp.fused import FUSED, load_kernels

    for library in LIBRARIES:
        load_kernels(library)
    rows = {name: {k: _module(*passes) for k, passes in f.overrides.items()} for name, f in FUSED.items()}
    stores = update.Store.of_library
    steps = {name: u for name, u in vars(update).items() if isinstance(u, update.Update)}
    rows |= {f"{name} (optimizer)": {k: stores[k].__module__ for k in u.kernels} for name, u in steps.items()}
    lines = [f"| function | {' | '.join(LIBRARIES.values())} |", "| --- | --- | --- |"]
    lines += [f"| `{name}` | {' | '.join(_file(rows[name], k) for k in LIBRARIES)} |" for name in sorted(rows)]
    return HEAD + "\n".join(lines) + "\n"


def _module(*passes: Any) -> str:
    """The module of an override, one pass of which may be the hand-written one."""
    names: list[str] = [p.__module__ for p in passes]
    return next((name for name in names if name.startswith("gpubp.kernels.")), names[0])


def _file(modules: dict[str, str], library: str) -> str:
    module = modules.get(library)
    return "" if module is None else module.removeprefix("gpubp.kernels.").replace(".", "/") + ".py"


def main() -> int:
    """Write the page, or check that it is up to date."""
    text = page()
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(text, encoding="utf-8")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != text:
        print(f"{PAGE.name} is out of date: run python -m tools.overrides", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
