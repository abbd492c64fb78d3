"""What `bench speed` found, as a page and a picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator, NullFormatter, NullLocator, ScalarFormatter

from worldmodel.apps.bench.output import Row, markdown_table, provenance_lines

COLORS = {"linear": "#1f3b57", "latent": "#e4572e", "model": "#4c956c", "simulator": "#8d6a9f"}
TITLES = {
    "num_candidates": "candidates per iteration",
    "horizon": "horizon, steps",
    "num_iterations": "iterations",
    "num_envs": "environments in one call",
}
WHAT = {
    "linear": "`linear`: a linear plant (8 states, 2 actions), hardly any work: the planner's own time",
    "latent": "`latent`: dynamics and reward MLPs (latent 64, 2 x 256 SiLU)",
    "model": "`model`: a fresh `WorldModel` through `estimate_return`",
    "simulator": "`simulator`: the task's oracle, physics in MuJoCo",
}


def page(rows: Sequence[Row], config: Mapping[str, Any], record: Mapping[str, Any]) -> str:
    """Markdown."""
    device, names = config["device"], list(dict.fromkeys(row["problem"] for row in rows))
    lines = ["# How fast planning is", "", *provenance_lines(record), ""]
    time_used = "CPU" if device == "cpu" else "wall (the simulator's: CPU)"
    lines += [
        f"Median of {config['repeats']} timings, planners taking turns, with the quartiles in brackets. "
        f"CPU ms: processor time of all threads of the process. Rates are per second of {time_used} time. "
        "Evaluations: candidates scored; model steps: evaluations x horizon (iCEM scores fewer from "
        "iteration to iteration). An eighth of the candidates are elites. "
        "Floor: the matrix products of the decision alone, timed in the same run; of the simulator, "
        "`mujoco.rollout` of the same batch alone. Share: floor / decision.",
        "",
        *(f"- {WHAT[name]}." for name in names),
        "",
        "![time of a decision](speed.png)",
        "",
    ]
    base = [row for row in rows if row["varied"] == "base"]
    lines += [f"## One decision: {_size(base[0])}", ""]
    for name in names:
        lines += _base_table(name, [row for row in base if row["problem"] == name])
    lines += [f"## One size varied at a time ({rows[0]['planner']})", ""]
    for varied, title in TITLES.items():
        lines += [f"### {title[0].upper()}{title[1:]}", "", *_scaling_table(rows, varied, names), ""]
    return "\n".join(lines).rstrip() + "\n"


def _base_table(name: str, rows: Sequence[Row]) -> list[str]:
    is_simulated = name == "simulator"
    header = ["planner", "CPU ms", "wall ms", "evaluations", "evaluations/s"]
    header += (
        ["physics steps/s", "`mujoco.rollout` alone"] if is_simulated else ["model steps/s", "floor, ms"]
    )
    body = []
    for row in rows:
        planner = row["planner"] + (" (scorer compiled)" if row["scorer"] == "compiled" else "")
        cells = [
            planner,
            f"{row['cpu_ms']:.2f} [{row['cpu_ms_q25']:.2f}, {row['cpu_ms_q75']:.2f}]",
            f"{row['wall_ms']:.2f}",
            f"{row['evaluations']:,}",
            f"{row['evaluations_per_s']:,.0f}",
        ]
        if is_simulated:
            cells += [f"{row['physics_steps_per_s']:,.0f}", f"{row['bare_physics_steps_per_s']:,.0f}"]
        else:
            cells += [f"{row['model_steps_per_s']:,.0f}", f"{row['floor_ms']:.2f} ({row['gflop']:.3g} GFLOP)"]
        body.append([*cells, f"{row['floor_fraction']:.0%}"])
    lines = [f"`{name}`", "", *markdown_table([*header, "share"], body), ""]
    compiled = [f"{row['planner']} {row['compile_s']:.1f} s" for row in rows if row["compile_s"] is not None]
    if compiled:
        lines += [
            f"Compiling the scorer took, on the wall: {', '.join(compiled)} (later ones find caches).",
            "",
        ]
    return lines


def _scaling_table(rows: Sequence[Row], varied: str, names: Sequence[str]) -> list[str]:
    per_env = varied == "num_envs"
    unit = "ms for each environment" if per_env else "ms"
    found = {(row["problem"], row[varied]): row for row in rows if row["varied"] == varied}
    values = sorted({value for _, value in found})
    body = []
    for value in values:
        cells = [found[name, value] for name in names]
        shares = [row["num_envs"] if per_env else 1 for row in cells]
        body.append([value] + [f"{ms_of(row) / n:.2f}" for row, n in zip(cells, shares, strict=True)])
    return markdown_table([TITLES[varied], *(f"{name}, {unit}" for name in names)], body)


def figure(rows: Sequence[Row], config: Mapping[str, Any]) -> Figure:
    """Planners beside each other, and the time of a decision over each size, on logarithmic axes."""
    plt_figure, grid = plt.subplots(2, 3, figsize=(13, 7.6))
    base = [row for row in rows if row["varied"] == "base" and row["scorer"] == "eager"]
    names = list(dict.fromkeys(row["problem"] for row in rows))
    _bars(grid[0][0], base, names)
    places = [grid[0][1], grid[0][2], grid[1][0], grid[1][1]]
    for axes, (varied, title) in zip(places, TITLES.items(), strict=True):
        for name in names:
            points = [row for row in rows if row["varied"] == varied and row["problem"] == name]
            points.sort(key=lambda row: row[varied])
            x = [row[varied] for row in points]
            color = COLORS[name]
            axes.plot(x, [ms_of(row) for row in points], color=color, marker="o", label=name)
            axes.plot(x, [row["floor_ms"] for row in points], color=color, linestyle=":", linewidth=1.3)
        _logarithmic(axes, x)
        axes.set(xlabel=title, ylabel="ms per decision")
    per_env = grid[1][2]
    for name in names:
        points = [row for row in rows if row["varied"] == "num_envs" and row["problem"] == name]
        points.sort(key=lambda row: row["num_envs"])
        rates = [row["evaluations_per_s"] for row in points]
        per_env.plot([row["num_envs"] for row in points], rates, color=COLORS[name], marker="o", label=name)
    _logarithmic(per_env, [row["num_envs"] for row in points])
    per_env.set(xlabel=TITLES["num_envs"], ylabel="candidate evaluations per second")
    handles = [plt.Line2D([], [], color=COLORS[name], marker="o", label=name) for name in names]
    handles.append(
        plt.Line2D([], [], color="#555555", linestyle=":", label="floor: its products (physics) alone")
    )
    plt_figure.legend(handles=handles, loc="lower center", ncols=len(handles), frameon=False)
    time_used = "CPU time" if config["device"] == "cpu" else "wall time"
    plt_figure.suptitle(
        f"Time of one decision ({config['device']}, {config['num_threads']} thread, {time_used}); base: "
        f"{_size(base[0])}; curves: {rows[0]['planner']}",
        fontsize=11,
    )
    plt_figure.tight_layout(rect=(0, 0.04, 1, 1))
    return plt_figure


def _bars(axes: Any, base: Sequence[Row], names: Sequence[str]) -> None:
    planners = list(dict.fromkeys(row["planner"] for row in base))
    height = 0.8 / len(names)
    for index, name in enumerate(names):
        found = {row["planner"]: ms_of(row) for row in base if row["problem"] == name}
        places = [planners.index(planner) + (index - (len(names) - 1) / 2) * height for planner in found]
        bars = axes.barh(places, list(found.values()), height=height * 0.9, color=COLORS[name])
        axes.bar_label(bars, [f"{ms:.3g}" for ms in found.values()], padding=2, fontsize=7)
    axes.set_yticks(range(len(planners)), [planner.replace("_", "\n") for planner in planners], fontsize=9)
    axes.set_ylim(len(planners) - 0.4, -0.6)  # downwards
    axes.set_xscale("log")
    axes.set_xlim(
        left=10 ** math.floor(math.log10(min(ms_of(row) for row in base) / 1.5)),
        right=max(ms_of(row) for row in base) * 2,
    )
    axes.set_xlabel("ms per decision")
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())
    _plain(axes)


def ms_of(row: Row) -> float:
    """The time that the rates are counted in."""
    return float(row["evaluations"] / row["evaluations_per_s"] * 1e3)


def _logarithmic(axes: Any, x: Sequence[int]) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.xaxis.set_major_locator(FixedLocator(list(x)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.yaxis.set_major_locator(LogLocator(base=10, numticks=10))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}" if value < 1e4 else f"{value:,.0f}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    _plain(axes)


def _plain(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, which="major")


def _size(row: Row) -> str:
    envs = "" if row["num_envs"] == 1 else f", {row['num_envs']} environments"
    return (
        f"{row['num_candidates']} candidates x {row['horizon']} steps x {row['num_iterations']} "
        f"iterations{envs}"
    )
