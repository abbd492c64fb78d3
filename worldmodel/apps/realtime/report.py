"""What the clock saw: numbers, and a picture of an episode's every command."""

from __future__ import annotations

from array import array
from itertools import pairwise
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from worldmodel.apps.plots import IMAGINED, MUTED, REAL
from worldmodel.apps.realtime.loop import KINDS, Log
from worldmodel.apps.realtime.run import RealtimeEpisode
from worldmodel.apps.statistics import latency


class Clock:
    """Adds up what the clock saw, episode by episode; of a step it keeps three numbers, not the step.

    So a robot may live for days.
    """

    def __init__(self, period_s: float) -> None:
        self._period_s = period_s
        self._latencies_s, self._intervals_s, self._lateness_s = array("d"), array("d"), array("d")
        self._counts: dict[str, int] = dict.fromkeys(KINDS, 0)
        self._num_plans = self._num_iterations = 0
        self._longest_miss = self._num_stalls = self._num_stopped = self._num_seen = 0

    def add(self, episode: RealtimeEpisode) -> None:
        """Take an episode in."""
        log = episode.log
        self._latencies_s.extend(each.latency_s for each in log.told if each.latency_s is not None)
        self._intervals_s.extend(after.time_s - before.time_s for before, after in pairwise(log.told))
        self._lateness_s.extend(episode.lived.lateness_s)
        for each in log.told:
            self._counts[each.kind] += 1
        self._num_plans += len(log.plans)
        self._num_iterations += sum(plan.num_iterations for plan in log.plans)
        self._longest_miss = max(self._longest_miss, _longest_miss(log))
        self._num_stalls += log.num_stalls
        self._num_stopped += log.was_stopped
        self._num_seen += log.num_seen

    def summary(self) -> dict[str, Any]:
        """What the clock saw, over all episodes, for `control.json`.

        - `latency`: from what was seen to the command made of it, of fresh plans.
        - `share`: of the steps, by where their command came from (see `Told`).
        - `interval_std_ms`: jitter: std of the time between two commands.
        - `tick_lateness_ms`: how late the robot's own ticks were: the machine's fault.
        """
        late, num_steps = np.array(self._lateness_s or [0.0]), sum(self._counts.values())
        timing = latency(self._latencies_s, self._period_s).percentiles() if self._latencies_s else None
        return {
            "period_ms": self._period_s * 1e3,
            "num_steps": num_steps,
            "latency": timing,
            "num_missed": self._counts["missed"],
            "share": {kind: count / num_steps for kind, count in self._counts.items()},
            "longest_miss_steps": self._longest_miss,
            "num_stalls": self._num_stalls,
            "num_stopped": self._num_stopped,
            "interval_std_ms": float(np.std(self._intervals_s) * 1e3) if self._intervals_s else None,
            "tick_lateness_ms": {
                "p50": float(np.percentile(late, 50) * 1e3),
                "p99": float(np.percentile(late, 99) * 1e3),
                "max": float(late.max() * 1e3),
            },
            "mean_iterations": self._num_iterations / self._num_plans if self._num_plans else None,
            "observations_seen": self._num_seen,
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
