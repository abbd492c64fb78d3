"""What a benchmark leaves behind: a tidy table as CSV, a page in Markdown, and where numbers come from."""

from __future__ import annotations

import csv
import os
import platform
import shlex
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from worldmodel.apps.config import closest
from worldmodel.apps.plots import save
from worldmodel.apps.progress import console
from worldmodel.apps.provenance import commit, num_cores, processor
from worldmodel.errors import ConfigError, RunError
from worldmodel.files import committed_file, reason_of, write_json, write_text

Row = dict[str, Any]


def check_names(key: str, names: Sequence[Any], known: Sequence[str]) -> None:
    """Each must be known, and named once. Errors: `ConfigError` with the closest match."""
    if not names:
        raise ConfigError(f"{key}=[]: must name at least one of {', '.join(known)}")
    for name in names:
        if name not in known:
            singular = {"libraries": "library"}.get(key, key.removesuffix("s"))
            raise ConfigError(
                f"{key}: there is no {singular} {name!r}{closest(str(name), known)}. "
                f"Known: {', '.join(known)}"
            )
        if names.count(name) > 1:
            raise ConfigError(f"{key}: {name} must be named once")


def check_counts(key: str, values: Sequence[Any], least: int = 1) -> None:
    """Whole numbers, each once. Errors: `ConfigError`."""
    if not values:
        raise ConfigError(f"{key}=[]: must name at least one number")
    for value in values:
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ConfigError(f"{key}: {value!r} must be a whole number, at least {least}")
    if len(set(values)) < len(values):
        raise ConfigError(f"{key}={list(values)}: each must be named once")


def make_folder(path: str) -> Path:
    """The output folder. Errors: `RunError` if it cannot be made; told before anything is measured."""
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return folder
    except OSError as error:
        raise RunError(f"cannot write output={path}: {reason_of(error)}") from error


def write_table(path: Path, rows: Sequence[Row]) -> None:
    """CSV with one line per row; all rows have the keys of the first."""
    with committed_file(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        for row in rows:
            writer.writerow({key: f"{v:.6g}" if isinstance(v, float) else v for key, v in row.items()})


def write_all(
    folder: Path,
    name: str,
    *,
    rows: Sequence[Row],
    record: Mapping[str, Any],
    page: str,
    figure: Figure | None = None,
) -> Path:
    """Table, provenance, picture if there is one, and page, all called `name`; returns the page's path."""
    write_table(folder / f"{name}.csv", rows)
    write_json(folder / f"{name}.json", record)
    if figure is not None:
        save(figure, folder / f"{name}.png")
    write_text(folder / f"{name}.md", page)
    return folder / f"{name}.md"


def tell_who_failed(rows: Sequence[Row]) -> None:
    """One line on the console for each contender and reason; the page has them too."""
    failed: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row["status"] != "ok":
            where = str(row["kind"] if "kind" in row else row["task"])
            failed.setdefault((row["contender"], row["status"]), []).append(where)
    for (contender, status), places in failed.items():
        console.print(f"{contender} ({', '.join(dict.fromkeys(places))}) {status}")


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """Lines of a table; cells as text."""
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    cells = ([str(cell).replace("|", "\\|") for cell in row] for row in rows)
    return lines + [f"| {' | '.join(row)} |" for row in cells]


def provenance(
    verb: str, config: Mapping[str, Any], given: set[str], device: torch.device, packages: Sequence[str]
) -> dict[str, Any]:
    """Command, commit, machine and versions."""
    versions = {name: _version(name) for name in packages}
    return {
        "command": command_line(verb, config, given),
        "commit": commit(),
        "processor": processor(),
        "cores": num_cores(),
        "accelerator": None if device.type == "cpu" else torch.cuda.get_device_name(device),
        "num_threads": torch.get_num_threads(),
        "load_average_1_min": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "packages": {name: number for name, number in versions.items() if number is not None},
        "config": dict(config),
    }


def provenance_lines(record: Mapping[str, Any]) -> list[str]:
    """The same for people."""
    versions = ", ".join(f"{name} {number}" for name, number in record["packages"].items())
    accelerator = f", {record['accelerator']}" if record["accelerator"] else ""
    threads = record["num_threads"]
    return [
        f"Command: `{record['command']}`. Commit: {record['commit']}.",
        f"Hardware: {record['processor']}, {record['cores']} cores{accelerator}; {threads} "
        f"thread{'s'[: threads > 1]}; load average at the start {record['load_average_1_min']}. "
        f"Python {record['python']}, {versions}.",
    ]


def measured_line(rows: Sequence[Mapping[str, str]]) -> str:
    """Where the cells of a sweep come from, which may be older than the page."""
    commits, machines = (", ".join(sorted({row[name] for row in rows})) for name in ("commit", "machine"))
    return f"Measured at commit {commits} on {machines}."


def command_line(verb: str, config: Mapping[str, Any], given: set[str]) -> str:
    """The command that gives this configuration again."""
    words = []
    for key, value in _flat(config):
        if key in given or key.partition(".")[0] in given:
            text = f"[{','.join(map(str, value))}]" if isinstance(value, list) else str(value)
            words.append(f"{key}={text.lower() if isinstance(value, bool) else text}")
    return " ".join(["worldmodel", verb, *(shlex.quote(word) if " " in word else word for word in words)])


def _flat(config: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    pairs = []
    for key, value in config.items():
        pairs += (
            _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [(f"{prefix}{key}", value)]
        )
    return pairs


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
