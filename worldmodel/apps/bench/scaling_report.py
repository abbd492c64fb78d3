"""The report of `worldmodel bench scaling`: what each number of workers brought, and what it cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from worldmodel.apps.bench.output import markdown_table, measured_line, provenance_lines
from worldmodel.files import write_json, write_text

HEADERS = {
    "env_steps_per_s": "env steps/s",
    "updates_per_s": "updates/s",
    "received_bytes": "bytes received / env step",
    "fetched_bytes": "bytes of weights / env step",
    "staleness": "versions behind",
    "waiting": "learner waits",
    "acting_cpu_ms": "CPU ms to act / env step",
    "update_cpu_ms": "CPU ms / update",
}


def write_report(folder: Path, rows: Sequence[Mapping[str, str]], record: Mapping[str, Any]) -> Path:
    """Write `scaling.md` and `.json` of these rows of the table; returns the path of the page."""
    write_json(folder / "scaling.json", record)
    write_text(folder / "scaling.md", _page(rows, record))
    return folder / "scaling.md"


def _page(rows: Sequence[Mapping[str, str]], record: Mapping[str, Any]) -> str:
    lines = ["# Workers on a cluster", "", *provenance_lines(record), measured_line(rows), ""]
    lines += [
        "Median of the repeats, and the lowest and the highest. 0 workers: this process, without Ray.",
        "",
    ]
    for kind in dict.fromkeys(row["kind"] for row in rows):
        mine = [row for row in rows if row["kind"] == kind]
        shown = [name for name in HEADERS if any(row[name] for row in mine)]
        cells = []
        for workers in dict.fromkeys(row["workers"] for row in mine):
            repeats = [row for row in mine if row["workers"] == workers]
            cells.append([workers, *(_spread([row[name] for row in repeats]) for name in shown)])
        lines += [
            f"## {kind}",
            "",
            *markdown_table(["workers", *(HEADERS[name] for name in shown)], cells),
            "",
        ]
    return "\n".join(lines)


def _spread(values: Sequence[str]) -> str:
    numbers = [float(value) for value in values if value]
    if not numbers:
        return "-"
    return f"{median(numbers):.3g} [{min(numbers):.3g}, {max(numbers):.3g}]"
