"""The report of `worldmodel bench robustness`: a table and a picture for each checkpoint."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import envs
from worldmodel.apps import plots
from worldmodel.apps.bench.disturbed import DISTURBANCES, UNDISTURBED, reaches
from worldmodel.apps.bench.output import markdown_table, provenance_lines
from worldmodel.apps.statistics import Mean
from worldmodel.files import write_json

WHO = {
    "planner": "plans in the learned model",
    "oracle": "plans in the simulator itself, as it usually is: nobody told it of other physics",
    "informed_oracle": "plans in the simulator as it has become",
    "policy": "the policy prior alone, without planning",
}
COLORS = {"planner": "#e4572e", "oracle": "#1f3b57", "informed_oracle": "#8d6a9f", "policy": "#4c956c"}
_NUM_COLUMNS = 4


@dataclass(frozen=True)
class Results:
    """What was measured of one checkpoint: returns by agent, disturbance and level."""

    checkpoint: str
    task: str
    cells: Mapping[tuple[str, str, float], Mean]

    @classmethod
    def of(cls, rows: Sequence[dict[str, str]], checkpoint: str) -> Results | None:
        """Those of one checkpoint; None if there are none."""
        mine = [row for row in rows if row["checkpoint"] == checkpoint]
        if not mine:
            return None
        cells = {
            (row["agent"], row["disturbance"], float(row["level"])): Mean(
                mean=float(row["return"]),
                low=float(row["return_low"]),
                high=float(row["return_high"]),
                count=int(row["episodes"]),
            )
            for row in mine
        }
        return cls(checkpoint, mine[0]["task"], cells)

    def at(self, agent: str, disturbance: str, level: float) -> Mean | None:
        """Of an agent at a level: where the disturbance does not reach it, what it was without."""
        if level == DISTURBANCES[disturbance].neutral or (
            agent == "oracle" and not reaches(disturbance, agent)
        ):
            return self.undisturbed(agent)
        return self.cells.get((agent, disturbance, level))

    def undisturbed(self, agent: str) -> Mean | None:
        """What nothing disturbed."""
        return self.cells.get((agent, UNDISTURBED, 0.0))

    def share(self, agent: str, mean: Mean | None) -> float | None:
        """Of the undisturbed return; None where that is not above 0."""
        whole = self.undisturbed(agent)
        return None if mean is None or whole is None or whole.mean <= 0 else mean.mean / whole.mean


def write_report(
    folder: Path, rows: Sequence[dict[str, str]], config: dict[str, Any], record: dict[str, Any]
) -> Path:
    """Write the page, its pictures and `robustness.json`; returns the path of the page."""
    found = [Results.of(rows, checkpoint) for checkpoint in config["checkpoints"]]
    lines = ["# What is left under disturbances", "", *provenance_lines(record), *_measured(rows), ""]
    lines += _explanation(config)
    told = []
    names: list[str] = []
    for results in found:
        if results is None:
            continue
        name = re.sub(r"[^\w.-]+", "-", envs.canonical_task(results.task))
        name = f"{name}-{names.count(name) + 1}" if name in names else name
        names.append(name)
        plots.save(_figure(results, config), folder / f"{name}.png")
        lines += [f"## {results.task}", "", f"Checkpoint: `{results.checkpoint}`.", ""]
        lines += [f"![return under each disturbance]({name}.png)", "", *_worst(results, config), ""]
        lines += [*_table(results, config), ""]
        told += _told(results)
    write_json(folder / "robustness.json", record | {"results": told})
    path = folder / "robustness.md"
    path.write_text("\n".join(lines))
    return path


def _measured(rows: Sequence[dict[str, str]]) -> list[str]:
    """Where the cells come from, which may be older than this page."""
    commits, machines = (", ".join(sorted({row[name] for row in rows})) for name in ("commit", "machine"))
    return [f"Measured at commit {commits} on {machines}."]


def _explanation(config: dict[str, Any]) -> list[str]:
    oracle = (
        f" (the oracles: the first {config['oracle_episodes']}, budget {config['oracle_budget']})"
        if any(name.endswith("oracle") for name in config["agents"])
        else ""
    )
    return [
        *(f"- {name.replace('_', ' ')}: {WHO[name]}." for name in config["agents"]),
        "",
        f"Mean return of {config['episodes']} episodes{oracle} with the 95 % interval in brackets, and the "
        "share of the same agent's undisturbed return. Every agent and level plays the same starts (seed "
        f"{config['seed']}) under the same chance. Nobody is told what disturbs. The oracle reads the "
        "simulator's state: noise and delay of what is observed do not reach it. A dash: not "
        "measured.",
        "",
        f"A push acts for one control period on the heaviest body, every {config['push_interval_s']:g} s on "
        "average; 1 N s per kg would give the whole robot 1 m/s. Noise is Gaussian; a std of 1 is how much "
        "an entry of what is observed varies in the policy's undisturbed episodes.",
        "",
    ]


def _worst(results: Results, config: dict[str, Any]) -> list[str]:
    """The least that any level of a disturbance leaves."""
    rows = []
    for agent in config["agents"]:
        cells = []
        for name in config["disturbances"]:
            means = (results.at(agent, name, float(level)) for level in config["levels"][name])
            shares = [share for mean in means if (share := results.share(agent, mean)) is not None]
            cells.append(f"{min(shares):.0%}" if shares else "-")
        whole = results.undisturbed(agent)
        rows.append([agent.replace("_", " "), "-" if whole is None else whole, *cells])
    names = [name.replace("_", " ") for name in config["disturbances"]]
    return markdown_table(["share left at the worst level", "undisturbed", *names], rows)


def _levels(name: str, config: dict[str, Any]) -> list[float]:
    """From small to large, with the one that disturbs nothing."""
    return sorted({float(level) for level in config["levels"][name]} | {DISTURBANCES[name].neutral})


def _table(results: Results, config: dict[str, Any]) -> list[str]:
    rows = []
    for name in config["disturbances"]:
        for level in _levels(name, config):
            is_neutral = level == DISTURBANCES[name].neutral
            cells = [_text(results, agent, results.at(agent, name, level)) for agent in config["agents"]]
            rows.append([name.replace("_", " "), f"{level:g}{' (none)' * is_neutral}", *cells])
    return markdown_table(["disturbance", "level", *(a.replace("_", " ") for a in config["agents"])], rows)


def _text(results: Results, agent: str, mean: Mean | None) -> str:
    if mean is None:
        return "-"
    share = results.share(agent, mean)
    return str(mean) if share is None else f"{mean}, {share:.0%}"


def _told(results: Results) -> list[dict[str, Any]]:
    return [
        {
            "checkpoint": results.checkpoint,
            "task": results.task,
            "agent": agent,
            "disturbance": disturbance,
            "level": level,
            "return": mean.to_json(),
            "share": results.share(agent, mean),
        }
        for (agent, disturbance, level), mean in results.cells.items()
    ]


def _figure(results: Results, config: dict[str, Any]) -> Figure:
    """One panel for each disturbance, one line with its band for each agent."""
    names = config["disturbances"]
    num_columns = min(len(names), _NUM_COLUMNS)
    num_rows = -(-len(names) // num_columns)
    figure, grid = plt.subplots(
        num_rows, num_columns, figsize=(3.4 * num_columns, 3.0 * num_rows + 0.5), squeeze=False, sharey=True
    )
    for axes, name in zip(grid.flat, names, strict=False):
        _panel(axes, results, name, config)
    for axes in grid.flat[len(names) :]:
        axes.set_axis_off()
    for row in grid:
        row[0].set_ylabel("return")
    # One legend for all: the lines mean the same everywhere.
    entries = {
        label: line
        for axes in grid.flat
        for line, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.suptitle(results.task, x=0.02, ha="left", fontweight="bold")
    figure.legend(entries.values(), entries.keys(), loc="upper right", ncols=len(entries), frameon=False)
    figure.tight_layout(rect=(0, 0, 1, 1 - 0.15 / figure.get_figheight()))
    return figure


def _panel(axes: Axes, results: Results, name: str, config: dict[str, Any]) -> None:
    kind, levels = DISTURBANCES[name], _levels(name, config)
    for agent in config["agents"]:
        line = {level: mean for level in levels if (mean := results.at(agent, name, level)) is not None}
        plots.band(axes, line, color=COLORS[agent], label=agent.replace("_", " "))
    axes.axvline(kind.neutral, color=plots.MUTED, linestyle=":", linewidth=1)
    if kind.is_physics and min(levels) > 0:
        axes.set_xscale("log")
        axes.minorticks_off()
    axes.set_xticks(levels, [f"{level:g}" for level in levels])
    axes.set_xlabel(kind.axis)
    axes.set_title(name.replace("_", " "), fontsize=10)
    means = [mean.mean for mean in results.cells.values()]
    if min(means) >= 0:  # the intervals of few episodes may reach far beyond what returns can be
        axes.set_ylim(0, 1.15 * max(max(means), 1e-9))
    plots.plain(axes)
