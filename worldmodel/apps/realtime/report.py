"""What the clock saw: numbers, and a picture of an episode's every command."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from worldmodel.apps.plots import IMAGINED, MUTED, REAL
from worldmodel.apps.realtime.loop import KINDS, Log
from worldmodel.apps.realtime.run import RealtimeEpisode
from worldmodel.apps.statistics import latency


def summary(episodes: list[RealtimeEpisode], period_s: float) -> dict[str, Any]:
    """What the clock saw, over all episodes, for `control.json`.

    - `latency`: from what was seen to the command made of it, of fresh plans.
    - `share`: of the steps, by where their command came from (see `Told`).
    - `interval_std_ms`: jitter: std of the time between two commands.
    - `tick_lateness_ms`: how late the robot's own ticks were: the machine's fault.
    """
    logs = [episode.log for episode in episodes]
    told = [each for log in logs for each in log.told]
    late = np.array([late for episode in episodes for late in episode.lived.lateness_s] or [0.0])
    intervals = np.concatenate([np.diff([each.time_s for each in log.told]) for log in logs])
    seconds = [each.latency_s for each in told if each.latency_s is not None]
    plans = [plan for log in logs for plan in log.plans]
    counts = {kind: sum(each.kind == kind for each in told) for kind in KINDS}
    return {
        "period_ms": period_s * 1e3,
        "num_steps": len(told),
        "latency": latency(seconds, period_s).percentiles() if seconds else None,
        "num_missed": counts["missed"],
        "share": {kind: count / len(told) for kind, count in counts.items()},
        "longest_miss_steps": max((_longest_miss(log) for log in logs), default=0),
        "num_stalls": sum(log.num_stalls for log in logs),
        "num_stopped": sum(log.was_stopped for log in logs),
        "interval_std_ms": float(intervals.std() * 1e3) if len(intervals) else None,
        "tick_lateness_ms": {
            "p50": float(np.percentile(late, 50) * 1e3),
            "p99": float(np.percentile(late, 99) * 1e3),
            "max": float(late.max() * 1e3),
        },
        "mean_iterations": float(np.mean([plan.num_iterations for plan in plans])) if plans else None,
        "observations_seen": sum(log.num_seen for log in logs),
    }


def _longest_miss(log: Log) -> int:
    """Of the steps that were missed one after the other."""
    longest = now = 0
    for each in log.told:
        now = now + 1 if each.kind == "missed" else 0
        longest = max(longest, now)
    return longest


def timeline(log: Log, period_s: float, title: str) -> Figure:
    """When each command left after what it was made from was seen, and where plans were late."""
    began_s = log.told[0].time_s
    figure, axes = plt.subplots(figsize=(9, 3.2), layout="constrained")
    fresh = [each for each in log.told if each.latency_s is not None]
    axes.scatter(
        [each.time_s - began_s for each in fresh],
        [1e3 * (each.latency_s or 0.0) for each in fresh],
        s=6,
        color=REAL,
        label="command of a plan made for its step",
    )
    axes.axhline(period_s * 1e3, color=MUTED, linestyle="--", label="control period")
    for kind, color, label in (
        ("missed", IMAGINED, "plan late"),
        ("blind", "#f2a541", "nothing new seen"),
    ):
        times = [each.time_s - began_s for each in log.told if each.kind == kind]
        if times:
            axes.vlines(times, 0, 0.12, color=color, transform=axes.get_xaxis_transform(), label=label)
    axes.set(xlabel="seconds", ylabel="latency, ms", title=title)
    highest = max([period_s * 1e3] + [1e3 * (each.latency_s or 0.0) for each in fresh])
    axes.set_ylim(0, 1.25 * highest)  # room for the legend
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="upper right", ncols=4)
    return figure
