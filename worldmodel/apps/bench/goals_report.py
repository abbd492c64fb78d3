"""The report of `worldmodel bench goals`: who solved how many, after how many steps, at what cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from worldmodel.apps.bench.goal_baselines import BASELINES
from worldmodel.apps.bench.output import markdown_table, provenance_lines
from worldmodel.apps.plots import save
from worldmodel.files import write_json, write_text

AGENTS = {
    "planner": "plans in the learned model at every step",
    "open_loop": "plans in the learned model, and plays the whole plan before the next",
    **BASELINES,
    "random": "even noise",
    "zero": "no action",
    "oracle": "plans at every step in the simulator itself, rewarded for coming near",
}
COLORS = {
    "planner": "#e4572e",
    "open_loop": "#f2a541",
    "inverse_dynamics": "#3a9d6e",
    "behaviour_cloning": "#7fb7be",
    "random": "#9aa5b1",
    "zero": "#8d6a9f",
    "oracle": "#1f3b57",
}


def write_report(
    folder: Path, rows: Sequence[Mapping[str, str]], task: str, seed: int, record: Mapping[str, Any]
) -> Path:
    """Write `goals.md`, `.png` and `.json` of these rows of the table; returns the path of the page."""
    write_json(folder / "goals.json", record)
    save(_figure(rows, task), folder / "goals.png")
    write_text(folder / "goals.md", _page(rows, task, seed, record))
    return folder / "goals.md"


def _page(rows: Sequence[Mapping[str, str]], task: str, seed: int, record: Mapping[str, Any]) -> str:
    lines = [f"# Who reaches the goals of {task}", "", *provenance_lines(record), ""]
    lines += [
        f"Every agent plays the same starts and goals (seed {seed}; none by which a training judges "
        "itself, whatever its seed); no start has reached its goal. Solved: the goal was reached at one of "
        f"the first {rows[0]['max_steps']} steps. In brackets the 95 % interval (Wilson). Steps: the median "
        "of those that were solved. Decision: of one environment, CPU time. Training: CPU time; the inverse "
        "dynamics needs the model besides.",
        "",
    ]
    header = ["agent", "which", "episodes", "solved", "steps", "decision", "training"]
    lines += markdown_table(header, [_cells(row) for row in rows])
    return "\n".join([*lines, "", "![solved after so many steps](goals.png)", ""])


def _cells(row: Mapping[str, str]) -> list[str]:
    solved, low, high = (float(row[name]) for name in ("success", "success_low", "success_high"))
    return [
        _name(row),
        AGENTS[row["agent"]],
        row["episodes"],
        f"{solved:.1%} [{low:.1%}, {high:.1%}]",
        f"{float(row['median_steps']):.0f}" if row["median_steps"] else "-",
        f"{float(row['cpu_ms_per_decision']):.1f} ms",
        f"{float(row['training_cpu_s']):.0f} s" if row["training_cpu_s"] else "-",
    ]


def _name(row: Mapping[str, str]) -> str:
    return row["agent"].replace("_", " ")


def _figure(rows: Sequence[Mapping[str, str]], task: str) -> Figure:
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for row in rows:
        counts = [0, *map(int, row["num_solved_by_step"].split())]
        share = np.array(counts) / int(row["episodes"])
        axes.step(range(len(share)), share, where="post", label=_name(row), color=COLORS[row["agent"]])
    axes.set(xlabel="agent steps", ylabel="solved by then", title=task, ylim=(-0.02, 1.02))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return figure
