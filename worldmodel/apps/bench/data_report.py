"""What `bench data` found, as a page and a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from worldmodel.apps.bench.data_contenders import CONTENDERS
from worldmodel.apps.bench.output import Row, markdown_table, provenance_lines

_OURS, _REFERENCE, _THEIRS = "#e4572e", "#1f3b57", "#9aa5b1"
_PANELS = {
    "windows_per_cpu_s": "windows read per second and core",
    "write_steps_per_s": "steps written per second (wall)",
    "num_bytes": "size on disk, MB",
}


def page(rows: Sequence[Row], config: Mapping[str, Any], record: Mapping[str, Any]) -> str:
    """Markdown."""
    names = [name for name in CONTENDERS if name in config["contenders"]]
    lines = ["# How fast datasets are written and read", "", *provenance_lines(record), ""]
    lines += [
        f"Reading: windows of {config['horizon']} steps ({config['horizon'] + 1} observations, actions, "
        f"rewards), {config['batch_size']} per batch, from random places, warm from the page cache. Windows "
        f"per second of CPU time (all threads), median of {config['repeats']} timings of about "
        f"{config['seconds']:g} s (one batch at least), with the quartiles in brackets. Contenders take "
        "turns in one process, and all must give the numbers that were written, to the bit. Writing: "
        "episode after episode, steps per second on the wall, since disks are waited for; median of "
        f"{config['write_repeats']} (of one, where a write takes more than {config['slow_s']:g} s). Only "
        "ours wait for each episode (and each merged shard) to be on the disk (fsync); the others would "
        "lose the last ones in a power cut. Size: all files. Opening: seconds on the wall, once.",
        "",
        *(f"- {CONTENDERS[name].name}: {CONTENDERS[name].what}." for name in names),
        "",
        "![windows read, steps written, size](data.png)",
        "",
    ]
    for kind in dict.fromkeys(row["kind"] for row in rows):
        found = [row for row in rows if row["kind"] == kind]
        lines += [f"## {_title(found[0])}", "", *_table(found), ""]
    return "\n".join(lines).rstrip() + "\n"


def _title(row: Row) -> str:
    return (
        f"{row['kind'].capitalize()}: {row['num_episodes']} episodes x "
        f"{row['num_steps'] // row['num_episodes']} steps, {row['raw_bytes'] / 1e6:.3g} MB of numbers"
    )


def _table(rows: Sequence[Row]) -> list[str]:
    body = []
    for row in rows:
        share, size, opening = row["share_of_numpy"], row["num_bytes"], row["open_s"]
        episodes = row["write_episodes_per_s"]
        body.append(
            [
                CONTENDERS[row["contender"]].name,
                _spread(row, "windows_per_cpu_s"),
                _number(row["windows_per_wall_s"]),
                "-" if share is None else f"{share:.2%}" if share < 0.1 else f"{share:.0%}",
                _spread(row, "write_steps_per_s"),
                _number(episodes),
                "-" if size is None else f"{size / 1e6:.3g}",
                "-" if opening is None else f"{opening:.3f}",
                row["status"],
            ]
        )
    header = ["contender", "windows/s per core", "wall", "of numpy", "steps written/s", "episodes/s", "MB"]
    return markdown_table([*header, "opening, s", "status"], body)


def _spread(row: Row, key: str) -> str:
    if row[key] is None:
        return "-"
    return f"{_number(row[key])} [{_number(row[f'{key}_q25'])}, {_number(row[f'{key}_q75'])}]"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def figure(rows: Sequence[Row], config: Mapping[str, Any]) -> Figure:
    """For each kind of steps: reading, writing and size; a bar for each contender."""
    kinds = list(dict.fromkeys(row["kind"] for row in rows))
    height = 1.1 + 0.32 * len(config["contenders"])
    result, grid = plt.subplots(
        len(kinds), len(_PANELS), figsize=(16, height * len(kinds) + 0.5), squeeze=False, sharey="row"
    )
    for line, kind in zip(grid, kinds, strict=True):
        found = [row for row in rows if row["kind"] == kind]
        for axes, (key, title) in zip(line, _PANELS.items(), strict=True):
            _panel(axes, key, title, found)
        labels = [CONTENDERS[row["contender"]].name for row in found]
        line[0].set_yticks(range(len(found)), labels, fontsize=9)
        line[0].set_ylim(len(found) - 0.4, -0.6)  # downwards; a row without a bar is whole too
        line[1].set_title(_title(found[0]), fontsize=10.5)
    result.suptitle(
        f"Datasets: windows of {config['horizon']} steps, {config['batch_size']} per batch, page cache warm "
        f"(medians; lines: quartiles)",
        fontsize=11,
    )
    result.tight_layout()
    return result


def _panel(axes: Any, key: str, title: str, rows: Sequence[Row]) -> None:
    scale = 1e6 if key == "num_bytes" else 1.0
    values = [row[key] / scale for row in rows if row[key] is not None]
    is_logarithmic = key != "num_bytes"
    left = min(values, default=1.0) / 3 if is_logarithmic else 0.0
    right = max(values, default=1.0)
    for place, row in enumerate(rows):
        if row[key] is None:
            reason = row["status"].partition(":")[0]
            axes.text(0.01, place, reason, transform=axes.get_yaxis_transform(), va="center", fontsize=8)
            continue
        value = row[key] / scale
        color = {"numpy": _REFERENCE}.get(row["contender"], _THEIRS)
        if CONTENDERS[row["contender"]].name.startswith("worldmodel"):
            color = _OURS
        axes.barh(place, value - left, left=left, height=0.72, color=color)
        end = value
        if row.get(f"{key}_q25") is not None:
            end = row[f"{key}_q75"]
            axes.plot([row[f"{key}_q25"], end], [place, place], color="#222222", linewidth=1.2)
        text = _number(value)
        axes.annotate(
            text, (max(value, end), place), (4, 0), textcoords="offset points", va="center", fontsize=8
        )
    if is_logarithmic:
        axes.set_xscale("log")
        axes.set_xlim(left, right * (right / left) ** 0.16)
        axes.xaxis.set_major_locator(LogLocator(base=10, numticks=10))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_xlim(0, right * 1.16)
    axes.tick_params(axis="x", labelsize=8.5)
    axes.set_xlabel(title, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, axis="x")
