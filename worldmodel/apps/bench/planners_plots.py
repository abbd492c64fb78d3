"""Pictures of the planner benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

if TYPE_CHECKING:
    from worldmodel.apps.bench.planners_report import Point

MARKERS = "osD^vP*X<>hp"


def _percent(value: float, position: int) -> str:
    """1, 2 and 5 of each decade."""
    return f"{value:g} %" if f"{value:.0e}"[0] in "125" else ""


def quality_against_cost(points: Sequence[Point], planners: Sequence[str]) -> Figure:
    """A row for each task: quality against evaluations, and against CPU time with the Pareto front.

    `planners`: all there are, in any picture: the place in it chooses colour and marker.
    """
    from worldmodel.apps.bench.planners_report import pareto_front

    tasks = list(dict.fromkeys(point.task for point in points))
    figure, grid = plt.subplots(len(tasks), 2, figsize=(11, 3.6 * len(tasks)), squeeze=False)
    for (left, right), task in zip(grid, tasks, strict=True):
        there = [point for point in points if point.task == task]
        for index, planner in enumerate(planners):
            line = sorted((p for p in there if p.planner == planner), key=lambda point: point.evaluations)
            for axes, cost in ((left, "evaluations"), (right, "cpu_ms")):
                _draw(axes, line, cost, index)
        front = pareto_front(there)
        right.plot(
            [p.cpu_ms for p in front], [_shown(p, p.quality.mean) for p in front], color="0.75", linewidth=6,
            zorder=0, solid_capstyle="round", label="Pareto front",
        )  # fmt: skip
        is_cost = there[0].lower_is_better
        for axes, label in ((left, "evaluations in a decision"), (right, "CPU ms of a decision")):
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(LogFormatter(minor_thresholds=(2, 0.7)))
            axes.xaxis.set_minor_formatter(LogFormatter(minor_thresholds=(2, 0.7)))
            axes.set(xlabel=label, title="linear plant" if is_cost else task)
            axes.spines[["top", "right"]].set_visible(False)
            if is_cost:
                axes.set_yscale("log")
                axes.yaxis.set_major_formatter(_percent)
                axes.yaxis.set_minor_formatter(_percent)
        left.set_ylabel("cost above the exact controller's" if is_cost else "return")
    handles, labels = grid[0][1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    figure.tight_layout()
    return figure


def _shown(point: Point, quality: float) -> float:
    """A return as it is; a cost ratio as percent above the exact controller's cost."""
    return 100 * (quality - 1) if point.lower_is_better else quality


def _draw(axes: Axes, line: Sequence[Point], cost: str, index: int) -> None:
    if not line:
        return
    color = plt.get_cmap("tab10")(index % 10)
    means = [_shown(point, point.quality.mean) for point in line]
    errors = (
        [max(0.0, mean - _shown(point, point.quality.low)) for mean, point in zip(means, line, strict=True)],
        [max(0.0, _shown(point, point.quality.high) - mean) for mean, point in zip(means, line, strict=True)],
    )
    axes.errorbar(
        [getattr(point, cost) for point in line],
        means,
        yerr=errors,
        color=color,
        marker=MARKERS[index % len(MARKERS)],
        markersize=5,
        linewidth=1.2,
        elinewidth=0.8,
        capsize=2,
        label=line[0].planner,
    )
