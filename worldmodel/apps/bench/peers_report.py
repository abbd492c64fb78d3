"""What `bench peers` found, as a page and a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, ScalarFormatter

from worldmodel.apps.bench.output import Row, markdown_table, provenance_lines

OURS, HAND, THEIRS = "#e4572e", "#1f3b57", "#9aa5b1"
TITLES = {
    ("overhead", "linear"): "One decision, linear plant: the planner's own time",
    ("overhead", "latent"): "One decision, latent model: mostly the model",
    ("batch", "linear"): "Many environments, linear plant",
    ("quality", "linear"): "How good: closed-loop cost on the linear plant",
}
# What ours is held to.
TARGETS = {("overhead", "linear"): 1.1, ("overhead", "latent"): 1.0, ("batch", "linear"): 1.1}
QUALITY_TARGET = 1.02


def page(rows: Sequence[Row], config: Mapping[str, Any], record: Mapping[str, Any]) -> str:
    """Markdown."""
    time_used = "CPU time (all threads of the process)" if config["device"] == "cpu" else "wall time"
    lines = ["# Other libraries' planners beside ours", "", *provenance_lines(record), ""]
    lines += [
        "All in one process on the same problems. Times: median, with the quartiles in brackets; they take "
        "turns in a random order, so that a slow moment of the machine meets all of them. Ratios: "
        f"{time_used} over that of the faster hand-written loop (`worldmodel/apps/bench/loops.py`), "
        "quartiles over its median. Model steps are counted, not claimed. Each planner has its own "
        "library's defaults (some of ours were chosen on a plant like this one); what had to be chosen "
        "stands in the last table. All were given the value of the last state, where the problem has one.",
        "",
        "With the libraries: `pip install worldmodel[peers]`; and, as what these two ask for does not "
        "resolve with our versions, `pip install --no-deps mbrl stable-worldmodel`. Of "
        "stable-worldmodel only the solvers are loaded.",
        "",
        "![ratios](peers.png)",
        "",
    ]
    for key, title in TITLES.items():
        found = [row for row in rows if (row["measure"], row["problem"]) == key]
        if found:
            lines += [f"## {title}", "", *_section(key, found, config), ""]
    failed = {f"- {row['planner']}: {row['status']}." for row in rows if row["status"] != "ok"}
    if failed:
        lines += ["## Who failed, and why", "", *sorted(failed), ""]
    return "\n".join(lines).rstrip() + "\n"


def _section(key: tuple[str, str], rows: Sequence[Row], config: Mapping[str, Any]) -> list[str]:
    size = rows[0]
    budget = (
        f"{size['num_candidates']} candidates x {size['horizon']} steps x {size['num_iterations']} iterations"
    )
    ordered = sorted(rows, key=lambda row: (row["ratio"] is None, row["ratio"] or 0))
    if key[0] == "quality":
        quality = config["quality"]
        lines = [
            f"{budget} for each decision; {quality['num_steps']} steps from {quality['num_starts']} states. "
            "Cost over that of the exact controller (LQR): 1 is the optimum. Mean over seeds "
            f"{', '.join(map(str, config['seeds']))} (own states and noise) and its 95 % interval (Student's "
            "t). What leaves the bounds is clamped before it acts.",
            "",
        ]
        body = [
            [
                row["planner"],
                _interval(row),
                _count(row["model_steps"], row["num_envs"]),
                row["settings"],
                row["status"],
            ]
            for row in ordered
        ]
        header = ["planner", "cost / exact", "model steps per decision", "settings", "status"]
    else:
        lines = [
            f"{budget}{', ' + str(size['num_envs']) + ' environments' if key[0] == 'batch' else ''}.",
            "",
        ]
        body = []
        for row in ordered:
            times = "-"
            if row["cpu_ms"] is not None:
                times = f"{row['cpu_ms']:.2f} [{row['cpu_ms_q25']:.2f}, {row['cpu_ms_q75']:.2f}]"
            cells = [row["planner"], times, _interval(row), _count(row["model_steps"], 1)]
            if key[0] == "batch":
                cells.append("one call" if row["one_call"] else f"cannot: {row['num_envs']} calls")
            body.append([*cells, row["status"]])
        header = ["planner", "CPU ms", "ratio", "model steps"]
        header += [*(["batched"] if key[0] == "batch" else []), "status"]
    return lines + _verdict(key, rows) + markdown_table(header, body)


def _verdict(key: tuple[str, str], rows: Sequence[Row]) -> list[str]:
    """Whether ours meet their target; in time only those that do all of the work."""
    most = max(row["model_steps"] or 0 for row in rows)
    judged = [
        row
        for row in rows
        if row["library"] == "worldmodel"
        and row["ratio"] is not None
        and (key[0] == "quality" or row["model_steps"] == most)
    ]
    if not judged:
        return []
    target = QUALITY_TARGET if key[0] == "quality" else TARGETS[key]
    met = [row["planner"].removeprefix("worldmodel ") for row in judged if row["ratio"] <= target]
    who = "" if key[0] == "quality" else " that do all model steps"
    return [f"Target for ours{who}: at most {target:g}. Met by: {', '.join(met) or 'none'}.", ""]


def _interval(row: Row) -> str:
    if row["ratio"] is None:
        return "-"
    return f"{row['ratio']:.3f} [{row['ratio_low']:.3f}, {row['ratio_high']:.3f}]"


def _count(steps: int | None, num_envs: int) -> str:
    return "-" if steps is None else f"{steps // num_envs:,}"


def figure(rows: Sequence[Row]) -> Figure:
    """One panel for each comparison; the best on top."""
    panels = {
        key: [row for row in rows if (row["measure"], row["problem"]) == key and row["ratio"] is not None]
        for key in TITLES
    }
    panels = {key: found for key, found in panels.items() if found}
    num_columns = min(2, len(panels))
    num_rows = (len(panels) + 1) // 2
    most = max(len(found) for found in panels.values())
    result, grid = plt.subplots(
        num_rows, num_columns, figsize=(7.2 * num_columns, num_rows * (1.3 + 0.21 * most)), squeeze=False
    )
    places = list(grid.flatten())
    for axes, (key, found) in zip(places, panels.items(), strict=False):
        _panel(axes, key, sorted(found, key=lambda row: row["ratio"], reverse=True))
    for axes in places[len(panels) :]:
        axes.set_axis_off()
    handles = [
        plt.Line2D([], [], color=color, marker="o", linestyle="", label=label)
        for color, label in ((OURS, "worldmodel"), (HAND, "hand-written loop"), (THEIRS, "other libraries"))
    ]
    handles.append(plt.Line2D([], [], color=OURS, linestyle="--", linewidth=1, label="target for ours"))
    result.legend(handles=handles, loc="lower center", ncols=4, frameon=False)
    result.tight_layout(rect=(0, 0.03, 1, 1))
    return result


def _panel(axes: Any, key: tuple[str, str], rows: Sequence[Row]) -> None:
    is_quality = key[0] == "quality"
    colors = [{"worldmodel": OURS, "hand-written": HAND}.get(row["library"], THEIRS) for row in rows]
    for place, (row, color) in enumerate(zip(rows, colors, strict=True)):
        low, high = max(row["ratio_low"], 0.3), row["ratio_high"]
        axes.plot([low, high], [place, place], color=color, linewidth=3, alpha=0.35, solid_capstyle="butt")
        axes.plot(row["ratio"], place, "o", color=color, markersize=6)
        text = f"{row['ratio']:.3f}" if is_quality else f"{row['ratio']:.2f}"
        if row["status"] != "ok":
            text += " *"
        if not is_quality and row["model_steps"] < max(other["model_steps"] for other in rows):
            text += f" ({row['model_steps'] / max(other['model_steps'] for other in rows):.0%} of the steps)"
        axes.annotate(
            text,
            (max(row["ratio"], high), place),
            (5, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    labels = [
        row["planner"] + ("" if row["one_call"] or key[0] != "batch" else f" ({row['num_envs']} calls)")
        for row in rows
    ]
    axes.set_yticks(range(len(rows)), labels, fontsize=8.5)
    target = QUALITY_TARGET if is_quality else TARGETS[key]
    axes.axvline(target, color=OURS, linestyle="--", linewidth=1, zorder=0)
    axes.set_xscale("log")
    highest = max(max(row["ratio_high"], row["ratio"]) for row in rows)
    lowest = max(min(min(row["ratio_low"], target) for row in rows), 0.3)
    axes.set_xlim(lowest * 0.93, highest * (highest / lowest) ** 0.14)
    ticks = [
        t for t in (0.5, 0.7, 0.8, 1, 1.2, 1.5, 2, 3, 5, 7, 10, 15, 20, 50) if lowest * 0.93 <= t <= highest
    ]
    axes.set_xticks(ticks)
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(
        "cost / cost of the exact controller, mean and 95 % interval (* see table)"
        if is_quality
        else "time / time of the faster hand-written loop, median and quartiles (* see table)"
    )
    size = rows[0]
    budget = f"{size['num_candidates']} x {size['horizon']} x {size['num_iterations']}"
    if key[0] == "batch":
        budget += f" each, {size['num_envs']} environments"
    axes.set_title(f"{TITLES[key]} ({budget})", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, axis="x")
