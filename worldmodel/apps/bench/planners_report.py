"""The report of `worldmodel bench planners`: tables, and plots of return against what it costs."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from worldmodel.apps import plots
from worldmodel.apps.bench import planners_plots
from worldmodel.apps.bench.cells import KEY, PROBLEMS
from worldmodel.apps.bench.output import markdown_table
from worldmodel.apps.statistics import Mean, iqm_interval
from worldmodel.errors import RunError
from worldmodel.files import write_text

TITLES = {
    "lqr": "Linear plant: cost over that of the exact controller (1 is perfect)",
    "learned": "Learned model: return of an episode",
    "oracle": "Oracle (the simulator itself): return of an episode",
}


@dataclass(frozen=True, kw_only=True)
class Point:
    """One planner with one budget on one task, over its seeds.

    `quality` is the return, or for the linear plant the cost ratio (lower is better).
    """

    problem: str
    task: str
    planner: str
    budget: str
    values: tuple[float, ...]
    quality: Mean
    evaluations: float
    cpu_ms: float
    effective_sample_size: float

    @property
    def lower_is_better(self) -> bool:
        """Costs are, returns are not."""
        return self.problem == "lqr"


def write_report(output: Path, rows: Sequence[dict[str, str]], config: dict[str, Any]) -> Path:
    """Write `planners.md` and one picture for each problem into `output`; returns the page's path."""
    if not rows:
        raise RunError(f"output={output} holds no finished cell: run without report=true first")
    points = summarize(rows, config["planners"])
    planners = list(dict.fromkeys(point.planner for point in points))  # one colour for each in all pictures
    lines = []
    for problem in (p for p in PROBLEMS if any(point.problem == p for point in points)):
        chosen = [point for point in points if point.problem == problem]
        plots.save(planners_plots.quality_against_cost(chosen, planners), output / f"{problem}.png")
        lines += [f"## {TITLES[problem]}", "", f"![{TITLES[problem]}]({problem}.png)", ""]
        lines += [*_table(chosen), ""]
        if problem == "learned":
            lines += [*_gap_table(points), ""]
    path = output / "planners.md"
    write_text(path, "\n".join([*lines, *_provenance(rows), ""]))
    return path


def summarize(rows: Sequence[dict[str, str]], planners: Sequence[str] = ()) -> list[Point]:
    """One point for each planner, budget and task; planners in this order, then the others.

    Where a cell was measured again with other settings, the newest counts.
    """
    newest = {tuple(row[name] for name in KEY[:5]): row for row in rows}
    groups: dict[tuple[str, ...], list[dict[str, str]]] = defaultdict(list)
    for row in newest.values():
        groups[row["problem"], row["task"], row["planner"], row["budget"]].append(row)
    points = []
    for (problem, task, planner, budget), group in groups.items():
        column = "cost_ratio" if problem == "lqr" else "return"
        values = tuple(float(row[column]) for row in group)
        points.append(
            Point(
                problem=problem,
                task=task,
                planner=planner,
                budget=budget,
                values=values,
                quality=iqm_interval([values]),
                evaluations=_median(group, "evaluations"),
                cpu_ms=_median(group, "cpu_ms"),
                effective_sample_size=_median(group, "effective_sample_size"),
            )
        )
    order = {planner: index for index, planner in enumerate(planners)}
    points.sort(key=lambda p: (order.get(p.planner, len(order)), p.planner, p.evaluations, p.budget, p.task))
    return points


def pareto_front(points: Sequence[Point]) -> list[Point]:
    """The points of one task that no other beats in quality at the same or a lower cost, cheapest first."""
    front: list[Point] = []
    for point in sorted(points, key=lambda point: point.cpu_ms):
        sign = -1 if point.lower_is_better else 1
        if not front or sign * point.quality.mean > sign * front[-1].quality.mean:
            front.append(point)
    return front


def _table(points: Sequence[Point]) -> list[str]:
    """One row for each planner and budget; its quality on each task, and over all of them."""
    tasks = list(dict.fromkeys(point.task for point in points))
    cells = {(point.planner, point.budget, point.task): point for point in points}
    fronts = {task: pareto_front([point for point in points if point.task == task]) for task in tasks}
    over_all = ["all tasks"] if len(tasks) > 1 else []
    head = [*over_all, *("cost ratio" if task == "lqr" else task for task in tasks)]
    rows = []
    for planner, budget in dict.fromkeys((point.planner, point.budget) for point in points):
        row = [cells.get((planner, budget, task)) for task in tasks]
        there = [point for point in row if point is not None]
        texts = [_quality(point, fronts) for point in row]
        if over_all:
            complete = len(there) == len(tasks)
            total = str(iqm_interval([point.values for point in there])) if complete else "-"
            texts.insert(0, total)
        measured = (
            f"{np.median([point.evaluations for point in there]):.0f}",
            f"{np.median([point.cpu_ms for point in there]):.3g}",
            f"{np.median([point.effective_sample_size for point in there]):.1f}",
        )
        rows.append((planner, budget, *measured, *texts))
    header = ("planner", "budget", "evaluations", "CPU ms", "elites that count", *head)
    return [
        *markdown_table(header, rows),
        "",
        "Bold: on the Pareto front of that task (no other is better at the same or less CPU time).",
    ]


def _gap_table(points: Sequence[Point]) -> list[str]:
    """How far the best planner in a learned model is from the best in the simulator itself."""
    rows = []
    for task in dict.fromkeys(point.task for point in points if point.problem == "learned"):
        best = {}
        for problem in ("learned", "oracle"):
            there = [point for point in points if (point.problem, point.task) == (problem, task)]
            if there:
                best[problem] = max(there, key=lambda point: point.quality.mean)
        if len(best) == 2:
            gap = best["oracle"].quality.mean - best["learned"].quality.mean
            told = [f"{p.quality} ({p.planner}, {p.budget})" for p in (best["learned"], best["oracle"])]
            rows.append((task, *told, f"{gap:+.0f}"))
    if not rows:
        return []
    head = ["task", "best in the learned model", "best oracle at its budget", "gap to the oracle"]
    return ["### Gap to the oracle", "", *markdown_table(head, rows), "", _GAP_NOTE]


_GAP_NOTE = (
    "The oracle knows the physics, but no value of what follows its horizon: with a small budget it is not "
    "an upper bound, and a negative gap says so."
)


def _quality(point: Point | None, fronts: dict[str, list[Point]]) -> str:
    if point is None:
        return "-"
    mean = point.quality
    text = f"{mean.mean:.3f} [{mean.low:.3f}, {mean.high:.3f}]" if point.lower_is_better else str(mean)
    return f"**{text}**" if point in fronts[point.task] else text


def _provenance(rows: Sequence[dict[str, str]]) -> list[str]:
    seeds = sorted({int(row["seed"]) for row in rows})
    commits, machines = (", ".join(sorted({row[name] for row in rows})) for name in ("commit", "machine"))
    episodes = ", ".join(sorted({row["episodes"] for row in rows}))
    return [
        "## Where the numbers come from",
        "",
        f"Interquartile mean over seeds {seeds} and 95 % bootstrap interval; {episodes} episode(s) for each "
        "seed (with 3 values that mean is the plain one; over all tasks it is of returns as they are). A "
        "budget is candidates x iterations x horizon; evaluations are action sequences scored in one "
        "decision, as the planner counted them (one whose gradient is taken counts once, and costs about "
        "three). CPU ms: of one decision, on one thread; on the linear plant of 16 in one batch.",
        "",
        f"Commit: {commits}. Hardware: {machines}.",
    ]


def _median(rows: Sequence[dict[str, str]], column: str) -> float:
    return float(np.median([float(row[column]) for row in rows]))
