"""The report of `worldmodel bench robustness`: a table and a picture for each checkpoint."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import envs
from worldmodel.apps import plots
from worldmodel.apps.bench.disturbed import DISTURBANCES, UNDISTURBED, level_text, reaches, same_as
from worldmodel.apps.bench.output import markdown_table, measured_line, provenance_lines
from worldmodel.apps.statistics import Mean
from worldmodel.files import write_json, write_text

WHO = {
    "planner": "plans in the learned model",
    "oracle": "plans in the simulator itself, as it usually is: nobody told it of other physics",
    "informed_oracle": "plans in the simulator as it has become",
    "policy": "the policy prior alone, without planning",
}
COLORS = {"planner": "#e4572e", "oracle": "#1f3b57", "informed_oracle": "#8d6a9f", "policy": "#4c956c"}
_NUM_COLUMNS = 4


@dataclass(frozen=True)
class Played:
    """What a cell gave: the mean return of all episodes but those that diverged (None: all did)."""

    mean: Mean | None
    num_diverged: int

    @classmethod
    def of(cls, row: Mapping[str, str]) -> Played:
        """Of a row of the table."""
        num_episodes, num_diverged = int(row["episodes"]), int(row["diverged"])
        if num_episodes == 0:
            return cls(None, num_diverged)
        mean, low, high = (float(row[name]) for name in ("return", "return_low", "return_high"))
        return cls(Mean(mean=mean, low=low, high=high, count=num_episodes), num_diverged)

    def text(self, share: float | None = None) -> str:
        """For people."""
        if self.mean is None:
            return "diverged"
        shown = str(self.mean) if share is None else f"{self.mean}, {share:.0%}"
        return shown + _and_diverged(self.num_diverged)


@dataclass(frozen=True)
class Results:
    """What was measured of one checkpoint: returns by agent, disturbance and level."""

    checkpoint: str
    task: str
    cells: Mapping[tuple[str, str, float], Played]

    @classmethod
    def of(cls, rows: Sequence[dict[str, str]], checkpoint: str) -> Results | None:
        """Those of one checkpoint; None if there are none."""
        mine = [row for row in rows if row["checkpoint"] == checkpoint]
        if not mine:
            return None
        cells = {(row["agent"], row["disturbance"], float(row["level"])): Played.of(row) for row in mine}
        return cls(checkpoint, mine[0]["task"], cells)

    def at(self, agent: str, disturbance: str, level: float) -> Played | None:
        """Of an agent at a level: where the disturbance does not reach it, what it was without."""
        if level == DISTURBANCES[disturbance].neutral or not reaches(disturbance, agent):
            return self.undisturbed(agent)
        return self._cell(agent, disturbance, level)

    def undisturbed(self, agent: str) -> Played | None:
        """What nothing disturbed."""
        return self._cell(agent, UNDISTURBED, 0.0)

    def share(self, agent: str, played: Played | None) -> float | None:
        """Of the undisturbed return; None where that is not above 0, or one of both diverged."""
        whole = self.undisturbed(agent)
        if played is None or played.mean is None or whole is None or whole.mean is None:
            return None
        return played.mean.mean / whole.mean.mean if whole.mean.mean > 0 else None

    def _cell(self, agent: str, disturbance: str, level: float) -> Played | None:
        own = self.cells.get((agent, disturbance, level))
        return own or self.cells.get((same_as(agent, disturbance), disturbance, level))


def write_report(
    folder: Path, rows: Sequence[dict[str, str]], config: dict[str, Any], record: dict[str, Any]
) -> Path:
    """Write the page, its pictures and `robustness.json`; returns the path of the page."""
    found = [Results.of(rows, checkpoint) for checkpoint in config["checkpoints"]]
    lines = ["# What is left under disturbances", "", *provenance_lines(record), measured_line(rows), ""]
    lines += _explanation(config)
    told = []
    names: list[str] = []
    for results in found:
        if results is None:
            continue
        name = _free_name(re.sub(r"[^\w.-]+", "-", envs.canonical_task(results.task)), names)
        names.append(name)
        plots.save(_figure(results, config), folder / f"{name}.png")
        lines += [f"## {results.task}", "", f"Checkpoint: `{results.checkpoint}`.", ""]
        lines += [f"![return under each disturbance]({name}.png)", "", *_worst(results, config), ""]
        lines += [*_table(results, config), ""]
        told += _told(results)
    write_json(folder / "robustness.json", record | {"results": told})
    path = folder / "robustness.md"
    write_text(path, "\n".join(lines))
    return path


def _free_name(name: str, taken: Collection[str]) -> str:
    numbered = (f"{name}-{number}" for number in count(2))
    return name if name not in taken else next(each for each in numbered if each not in taken)


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
        "simulator's state: noise and delay of what is observed do not reach it. A simulation that diverged "
        'has no return: means are of the others, with "(n diverged)" beside them. A dash: not measured.',
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
            levels = (results.at(agent, name, float(level)) for level in config["levels"][name])
            cells.append(_least(results, agent, [played for played in levels if played is not None]))
        whole = results.undisturbed(agent)
        rows.append([agent.replace("_", " "), "-" if whole is None else whole.text(), *cells])
    names = [name.replace("_", " ") for name in config["disturbances"]]
    return markdown_table(["share left at the worst level", "undisturbed", *names], rows)


def _least(results: Results, agent: str, levels: Sequence[Played]) -> str:
    """The least share of some levels, and the most episodes that diverged at one of them."""
    if any(played.mean is None for played in levels):
        return "diverged"
    shares = [share for played in levels if (share := results.share(agent, played)) is not None]
    diverged = _and_diverged(max((played.num_diverged for played in levels), default=0))
    return (f"{min(shares):.0%}" if shares else "-") + diverged


def _and_diverged(num_diverged: int) -> str:
    return f" ({num_diverged} diverged)" if num_diverged else ""


def _levels(name: str, config: dict[str, Any]) -> list[float]:
    """From small to large, with the one that disturbs nothing."""
    return sorted({float(level) for level in config["levels"][name]} | {DISTURBANCES[name].neutral})


def _table(results: Results, config: dict[str, Any]) -> list[str]:
    rows = []
    for name in config["disturbances"]:
        for level in _levels(name, config):
            is_neutral = level == DISTURBANCES[name].neutral
            cells = [_text(results, agent, results.at(agent, name, level)) for agent in config["agents"]]
            rows.append([name.replace("_", " "), f"{level_text(level)}{' (none)' * is_neutral}", *cells])
    return markdown_table(["disturbance", "level", *(a.replace("_", " ") for a in config["agents"])], rows)


def _text(results: Results, agent: str, played: Played | None) -> str:
    return "-" if played is None else played.text(results.share(agent, played))


def _told(results: Results) -> list[dict[str, Any]]:
    return [
        {
            "checkpoint": results.checkpoint,
            "task": results.task,
            "agent": agent,
            "disturbance": disturbance,
            "level": level,
            "return": None if played.mean is None else played.mean.to_json(),
            "diverged": played.num_diverged,
            "share": results.share(agent, played),
        }
        for (agent, disturbance, level), played in results.cells.items()
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
        played = {level: results.at(agent, name, level) for level in levels}
        line = {level: one.mean for level, one in played.items() if one is not None and one.mean is not None}
        plots.band(axes, line, color=COLORS[agent], label=agent.replace("_", " "))
    axes.axvline(kind.neutral, color=plots.MUTED, linestyle=":", linewidth=1)
    if kind.is_physics and min(levels) > 0:
        axes.set_xscale("log")
        axes.minorticks_off()
    axes.set_xticks(levels, [level_text(level) for level in levels])
    axes.set_xlabel(kind.axis)
    axes.set_title(name.replace("_", " "), fontsize=10)
    means = [played.mean.mean for played in results.cells.values() if played.mean is not None]
    if means and min(means) >= 0:  # the intervals of few episodes may reach far beyond what returns can be
        axes.set_ylim(0, 1.15 * max(max(means), 1e-9))
    plots.plain(axes)
