"""What was found, as JSON and as a table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.gpu.rows import ROWS

#: Whose time is divided by whose: the first should be no longer.
RATIOS = (("gpubp captured", "torch.compile"), ("gpubp", "PyTorch"))
#: The share of the device's peak that captured gpubp should reach.
SHARE = 0.85


def ratios(found: dict[str, Any]) -> dict[str, float]:
    """Return how long gpubp's step takes as a share of its peer's, for a row's contenders."""
    return {
        f"{ours} / {theirs}": found[ours]["ms"] / found[theirs]["ms"]
        for ours, theirs in RATIOS
        if "ms" in found.get(ours, {}) and "ms" in found.get(theirs, {})
    }


def goal(row: dict[str, Any]) -> str:
    """Return whether a row's goal is met: yes, no, or what is missing to tell."""
    if any(result.get("disagrees") for result in row["contenders"].values()):
        return "DISAGREES"
    found = row["ratios"]
    if len(found) < len(RATIOS) or ("peak" in row and "share" not in row["contenders"].get("gpubp captured", {})):
        return "not all ran"
    share = row["contenders"]["gpubp captured"].get("share", 1.0)
    return "yes" if max(found.values()) <= 1.0 and share >= SHARE else "no"


def markdown(figures: dict[str, Any]) -> str:
    """Return the figures as a page."""
    names = figures["contenders"]
    small = ["Toy sizes, to see that all compute the same: the times say nothing about the rows' names.", ""]
    lines = ["# Training steps", "", _where(figures), "", *(small if figures["small"] else [])]
    lines += ["Milliseconds a step: median (quartiles)", ""]
    head = [*names, *(f"{a} / {b}" for a, b in RATIOS), "share of peak", "goal met"]
    lines += _table(["", *head], [_times(name, row, figures) for name, row in figures["rows"].items()])
    lines += ["", "Microseconds of the host for a step it asks for, and the most memory held in a step in MB", ""]
    lines += _table(["", *names], [_costs(name, row, names) for name, row in figures["rows"].items()])
    notes = [
        f"- {name}, {contender}: {result[key]}"
        for name, row in figures["rows"].items()
        for contender, result in row["contenders"].items()
        for key in ("failed", "disagrees")
        if result.get(key)
    ]
    notes += [f"- {name}: not run: {row['skipped']}" for name, row in figures["rows"].items() if "skipped" in row]
    lines += ["", *(["What failed", "", *notes] if notes else ["All ran and agree."]), ""]
    return "\n".join(lines)


def _where(figures: dict[str, Any]) -> str:
    shown = {k: v for k, v in figures["machine"].items() if k != "gpu"}
    versions = {name: v for row in figures["rows"].values() for name, v in row.get("versions", {}).items()}
    told = ", ".join(f"{k} {v}" for k, v in {**shown, **versions}.items())
    return f"{figures['machine']['gpu']}; {told}; commit {figures['commit']}; {figures['date']}"


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]


def _times(name: str, row: dict[str, Any], figures: dict[str, Any]) -> list[str]:
    names, toy = figures["contenders"], figures["small"] and row["goal"] != "DISAGREES"
    found = row["contenders"]
    share = max((r["share"] for k, r in found.items() if "share" in r and k.startswith("gpubp")), default=None)
    return [
        ROWS[name].title,
        *(_time(found.get(k, {})) for k in names),
        *(f"{row['ratios'][k]:.2f}" if (k := f"{a} / {b}") in row["ratios"] else "" for a, b in RATIOS),
        "" if share is None else f"{share:.0%}",
        "toy" if toy else row["goal"],
    ]


def _time(result: dict[str, Any]) -> str:
    if "ms" not in result:
        return "failed" if "failed" in result else ""
    low, high = result["quartiles"]
    figure = f"{result['ms']:.4g} ({low:.4g}–{high:.4g})"
    return f"{figure} DISAGREES" if result.get("disagrees") else figure


def _costs(name: str, row: dict[str, Any], names: list[str]) -> list[str]:
    def cell(result: dict[str, Any]) -> str:
        if "host_us" not in result:
            return ""
        peak = result.get("peak_mb")
        return f"{result['host_us']:.0f} µs, {'?' if peak is None else f'{peak:.1f}'} MB"

    return [ROWS[name].title, *(cell(row["contenders"].get(k, {})) for k in names)]


def write(figures: dict[str, Any], out: Path) -> None:
    """Write both files, ``OUT.json`` and ``OUT.md``."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_name(f"{out.name}.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    out.with_name(f"{out.name}.md").write_text(markdown(figures), encoding="utf-8")
