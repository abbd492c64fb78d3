"""What a clock costs: the same planner with a robot that waits for it, and with one that does not."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure

import envs
from worldmodel.apps.bench.output import (
    Row,
    check_counts,
    check_names,
    make_folder,
    markdown_table,
    provenance,
    provenance_lines,
    write_all,
)
from worldmodel.apps.build import build_env
from worldmodel.apps.config import compose_config, not_negative, positive, quoted, to_dict
from worldmodel.apps.control import play
from worldmodel.apps.progress import ProgressDisplay
from worldmodel.apps.provenance import PACKAGES
from worldmodel.apps.realtime.report import Clock
from worldmodel.apps.realtime.run import RealtimeControl, episode_seeds
from worldmodel.apps.statistics import Mean, latency, mean_interval
from worldmodel.apps.subject import Subject

LOOPS = {
    "synchronous": "the robot waits for each plan, as in most benchmarks; no real one does",
    "deadline": "the robot does not wait; the planner hands over the best it has when it must",
    "no_deadline": "the robot does not wait; the planner takes its time",
}
_COLORS = {"synchronous": "#9aa5b1", "deadline": "#1f3b57", "no_deadline": "#e4572e"}


def bench_realtime(config: dict[str, Any], given: set[str]) -> Path:
    """Live episodes, then write `realtime.csv`, `.md`, `.png` and `.json`; returns the path of the page.

    `config` is that of `configs/bench_realtime.yaml`.
    Errors: `ConfigError`, `CheckpointError` or `RunError` for a user's mistake, before anything moves.
    """
    check_names("loops", config["loops"], list(LOOPS))
    check_counts("periods_ms", config["periods_ms"])
    positive(config, "episodes")
    not_negative(config, "seed", "stall_ms")
    # As `control` would be asked.
    asked = [quoted("checkpoint", config["checkpoint"]), "seed=0"]
    if config["task"] is not None:
        asked.append(quoted("task", config["task"]))
    control = to_dict(compose_config("control", asked))
    subject = Subject.of(control)
    folder = make_folder(config["output"])
    torch.set_num_threads(1)
    record = provenance("bench realtime", config, given, torch.device("cpu"), PACKAGES)
    seeds = episode_seeds(config["seed"], config["episodes"])
    clocked = [name for name in config["loops"] if name != "synchronous"]
    rows: list[Row] = []
    with (
        closing(build_env(subject.task, subject.env_config, num_envs=1, seed=0, how="sync")) as env,
        ProgressDisplay("bench realtime", len(clocked) * len(config["periods_ms"]) + 1, "loops") as display,
    ):
        assert isinstance(env, envs.SyncTaskVectorEnv)
        if "synchronous" in config["loops"]:
            rows.append(_synchronous(subject, env, seeds))
            display.update(len(rows), {"return": f"{rows[-1]['return']:.0f}"})
        for name in clocked:
            for period_ms in config["periods_ms"]:
                rows.append(_clocked(subject, env, seeds, name, period_ms, config))
                display.update(len(rows), {"return": f"{rows[-1]['return']:.0f}"})
    page = _page(rows, subject, config, record)
    return write_all(
        folder, "realtime", rows=rows, record=record, figure=_figure(rows, subject.task), page=page
    )


def _synchronous(subject: Subject, env: envs.SyncTaskVectorEnv, seeds: list[int]) -> Row:
    agent = subject.agent(env, None)
    episodes = [play(env, agent, seeds=[seed]) for seed in seeds]
    seconds = [each for played in episodes for each in played.seconds]
    timing = latency(seconds, None).percentiles()
    row = _row("synchronous", None, [played.episode_return for played in episodes], None)
    return row | {f"latency_{name}": value for name, value in timing.items()}


def _clocked(
    subject: Subject,
    env: envs.SyncTaskVectorEnv,
    seeds: list[int],
    name: str,
    period_ms: int,
    config: dict[str, Any],
) -> Row:
    loop = subject.config["loop"] | {
        "period_s": period_ms / 1e3,
        "lead_steps": config["lead_steps"],
        "deadline": name == "deadline",
        "background": config["background"],
    }
    faults = subject.config["faults"] | {"stall_s": config["stall_ms"] / 1e3}
    with RealtimeControl(subject, env, seeds=seeds, loop=loop, faults=faults) as control:
        clock, returns = Clock(control.period_s), []
        for number in range(len(seeds)):
            episode = control.live(number)
            clock.add(episode)
            returns.append(episode.lived.episode_return)
    return _row(name, period_ms, returns, clock.summary())


def _row(name: str, period_ms: int | None, returns: list[float], clock: dict[str, Any] | None) -> Row:
    interval = mean_interval(returns)
    timing = {} if clock is None or clock["latency"] is None else clock["latency"]
    return {
        "loop": name,
        "period_ms": period_ms,
        "episodes": len(returns),
        "return": interval.mean,
        "return_low": interval.low,
        "return_high": interval.high,
        **{f"latency_{key}_ms": timing.get(f"{key}_ms") for key in ("p50", "p95", "p99", "max")},
        "jitter_ms": None if clock is None else clock["interval_std_ms"],
        "missed": None if clock is None else clock["share"]["missed"],
        "longest_miss_steps": None if clock is None else clock["longest_miss_steps"],
        "iterations": None if clock is None else clock["mean_iterations"],
        "tick_lateness_p99_ms": None if clock is None else clock["tick_lateness_ms"]["p99"],
    }


def _page(rows: list[Row], subject: Subject, config: dict[str, Any], record: dict[str, Any]) -> str:
    lines = [f"# {subject.task} on the clock", "", *provenance_lines(record), ""]
    lines += [f"- {name.replace('_', ' ')}: {LOOPS[name]}." for name in config["loops"]]
    lines += [
        "",
        f"{config['episodes']} episodes of the same starts each; in brackets the 95 % interval. Latency: "
        "from the tick seen to the command made of it. Missed: steps whose plan was late. Jitter: std of the "
        "time between two commands. Ticks: how late the simulated robot's own were (p99), which the machine "
        "is to blame for.",
        "",
    ]
    cells = [
        [
            row["loop"].replace("_", " "),
            "-" if row["period_ms"] is None else f"{row['period_ms']} ms",
            str(_return(row)),
            *(_shown(row[f"latency_{key}_ms"]) for key in ("p50", "p95", "p99", "max")),
            _shown(row["jitter_ms"]),
            "-" if row["missed"] is None else f"{row['missed']:.1%}",
            _shown(row["iterations"]),
            _shown(row["tick_lateness_p99_ms"]),
        ]
        for row in rows
    ]
    header = [
        "loop",
        "period",
        "return",
        "p50",
        "p95",
        "p99",
        "max, ms",
        "jitter",
        "missed",
        "iterations",
        "ticks",
    ]
    lines += markdown_table(header, cells)
    return "\n".join([*lines, "", "![return against the control period](realtime.png)", ""])


def _return(row: Row) -> Mean:
    return Mean(mean=row["return"], low=row["return_low"], high=row["return_high"], count=row["episodes"])


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _figure(rows: list[Row], task: str) -> Figure:
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    for name in dict.fromkeys(row["loop"] for row in rows):
        mine = [row for row in rows if row["loop"] == name]
        label, color = name.replace("_", " "), _COLORS[name]
        if name == "synchronous":
            left.axhline(mine[0]["return"], color=color, linestyle="--", label="the robot waits")
            continue
        periods = [row["period_ms"] for row in mine]
        errors = [
            [row["return"] - row["return_low"] for row in mine],
            [row["return_high"] - row["return"] for row in mine],
        ]
        left.errorbar(periods, [row["return"] for row in mine], errors, marker="o", color=color, label=label)
        right.plot(periods, [100 * row["missed"] for row in mine], marker="o", color=color, label=label)
    for axes, ylabel in ((left, "return"), (right, "steps whose plan was late, %")):
        axes.set(xscale="log", xlabel="control period, ms", ylabel=ylabel)
        axes.set_xticks(sorted({row["period_ms"] for row in rows if row["period_ms"]}))
        axes.xaxis.set_major_formatter("{x:.0f}")
        axes.minorticks_off()
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_ylim(0, 1.05 * axes.get_ylim()[1])
    left.set_title(task)
    left.legend(frameon=False)
    return figure
