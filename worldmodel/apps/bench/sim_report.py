"""What `bench sim` found, as a page and a picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from worldmodel.apps.bench.output import Row, markdown_table, provenance_lines
from worldmodel.apps.bench.sim_contenders import CONTENDERS

COLORS = {
    "batch": "#e4572e",
    "sync": "#f2a541",
    "async": "#b23a78",
    "dm_control": "#1f3b57",
    "rollout": "#9aa5b1",
    "envpool": "#4c956c",
}
WHAT = {
    "batch": '`envs.make_vec(how="batch")`: physics in C++ threads, observations and rewards for all at once',
    "sync": '`envs.make_vec(how="sync")`: a loop over dm_control',
    "async": '`envs.make_vec(how="async")`: Gymnasium\'s AsyncVectorEnv, a process for each environment; '
    "its CPU time is spent in other processes, so only its wall time is known",
    "dm_control": "dm_control's own `env.step`, one environment",
    "rollout": "`mujoco.rollout`, one control step per call: physics only, no observation, reward or reset "
    "(nor the contact solver's warm start, which it cannot hand on): the floor",
    "envpool": "EnvPool's own version of the task, with the MuJoCo that it brings",
}
_MAX_COLUMNS = 3


def page(rows: Sequence[Row], config: Mapping[str, Any], record: Mapping[str, Any]) -> str:
    """Markdown."""
    kinds = [kind for kind in CONTENDERS if kind in config["contenders"]]
    threads = config["num_threads"]
    lines = ["# How fast environments step", "", *provenance_lines(record), ""]
    lines += [
        f"Control steps per second of CPU time (all threads of the process, {threads} of which "
        f"simulate{'s'[: threads == 1]}): so many per core. Observation and reward are included. Median of "
        f"{config['repeats']} timings of about {config['seconds']:g} s, contenders taking turns in one "
        "process, with the quartiles in brackets; wall: steps per second on the wall, of all threads "
        "together. Random actions, drawn beforehand. Each environment first makes "
        f"{config['warmup_steps']} steps that do not count; then the simulators' own clocks are compared "
        "with the steps that were counted. Resets are part of the work: each environment starts a new "
        "episode whenever its time limit has passed, evenly spread, so that each timing has its share.",
        "",
        *(f"- {CONTENDERS[kind]}: {WHAT[kind]}." for kind in kinds),
        "",
        "![control steps per second and core](sim.png)",
        "",
    ]
    for task in dict.fromkeys(row["task"] for row in rows):
        lines += [f"## {task}", "", *_table([row for row in rows if row["task"] == task]), ""]
    return "\n".join(lines).rstrip() + "\n"


def _table(rows: Sequence[Row]) -> list[str]:
    body = []
    for row in rows:
        rate = "-"
        if row["steps_per_core_s"] is not None:
            low, high = row["steps_per_core_s_q25"], row["steps_per_core_s_q75"]
            rate = f"{row['steps_per_core_s']:,.0f} [{low:,.0f}, {high:,.0f}]"
        wall, ratio, share = (
            row[key] for key in ("steps_per_wall_s", "ratio_to_dm_control", "share_of_rollout")
        )
        body.append(
            [
                CONTENDERS[row["contender"]],
                row["num_envs"],
                rate,
                "-" if wall is None else f"{wall:,.0f}",
                "-" if ratio is None else f"{ratio:.2f} x",
                "-" if share is None else f"{share:.0%}",
                row["status"],
            ]
        )
    header = [
        "contender",
        "environments",
        "steps/s per core",
        "wall",
        "to dm_control",
        "of rollout",
        "status",
    ]
    return markdown_table(header, body)


def figure(rows: Sequence[Row], config: Mapping[str, Any]) -> Figure:
    """One panel for each task: a bar for each contender, with quartiles."""
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    columns = min(_MAX_COLUMNS, len(tasks))
    lines = math.ceil(len(tasks) / columns)
    height = 1.3 + 0.27 * len([row for row in rows if row["task"] == tasks[0]])
    result, grid = plt.subplots(lines, columns, figsize=(5.4 * columns, height * lines), squeeze=False)
    places = list(grid.flatten())
    for axes, task in zip(places, tasks, strict=False):
        _panel(axes, task, [row for row in rows if row["task"] == task])
    for axes in places[len(tasks) :]:
        axes.set_axis_off()
    threads = config["num_threads"]
    result.suptitle(
        f"Control steps per second and core, observation and reward included ({threads} "
        f"thread{'s'[: threads > 1]}; % of the bare physics of as many environments)",
        fontsize=11,
    )
    result.tight_layout()
    return result


def _panel(axes: Any, task: str, rows: Sequence[Row]) -> None:
    known = [row for row in rows if row["steps_per_core_s"] is not None]
    most = max((row["steps_per_core_s_q75"] for row in known), default=1.0)
    for place, row in enumerate(rows):
        rate = row["steps_per_core_s"]
        if rate is None:
            text = "wall time only" if row["status"] == "ok" else row["status"].partition(":")[0]
            axes.text(most * 0.01, place, text, va="center", fontsize=8, color="#777777")
            continue
        low, high = row["steps_per_core_s_q25"], row["steps_per_core_s_q75"]
        axes.barh(place, rate, height=0.75, color=COLORS[row["contender"]])
        axes.plot([low, high], [place, place], color="#222222", linewidth=1.2)
        share = row["share_of_rollout"]
        text = f"{rate:,.0f}"
        if share is not None and row["contender"] != "rollout":
            text += f" ({share:.0%})"
        axes.text(max(rate, high) + most * 0.015, place, text, va="center", fontsize=8)
    labels = [f"{CONTENDERS[row['contender']]}, {row['num_envs']}" for row in rows]
    axes.set_yticks(range(len(rows)), labels, fontsize=8.5)
    axes.set_ylim(len(rows) - 0.4, -0.6)  # downwards; a row without a bar is whole too
    axes.set_xlim(0, most * 1.3)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.tick_params(axis="x", labelsize=8.5)
    axes.set_title(task, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, axis="x")
