"""`control realtime=true`: episodes with a robot that does not wait, and what came of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from worldmodel.apps.config import closest
from worldmodel.apps.realtime.faults import Faults
from worldmodel.apps.realtime.limits import ActionLimits
from worldmodel.apps.realtime.loop import Log, LoopSettings, RealtimeLoop
from worldmodel.apps.realtime.planning import BackgroundPlanner
from worldmodel.apps.realtime.simulated import Lived, SimulatedRobot
from worldmodel.apps.realtime.source import ControlSource
from worldmodel.apps.statistics import latency
from worldmodel.errors import ConfigError

ON_MISS = ("play_on", "hold", "zero", "stop")
BACKGROUNDS = ("process", "thread")


@dataclass(frozen=True)
class RealtimeEpisode:
    """One episode: what the robot lived through, and what the loop did."""

    lived: Lived
    log: Log


class RealtimeControl:
    """A simulated robot and a background planner, kept for several episodes; a context.

    - `config`: that of `configs/control.yaml`.
    - `control_period_s`: the task's own; `loop.period_s` may say otherwise.

    Errors: `ConfigError`, `EnvError` or `RunError` for a user's mistake.
    """

    def __init__(
        self,
        source: ControlSource,
        *,
        control_period_s: float | None,
        seeds: list[int],
        loop: dict[str, Any],
        faults: dict[str, Any],
        camera: str | int | None = None,
    ) -> None:
        _check(loop)
        period_s = loop["period_s"] or control_period_s
        if period_s is None:
            raise ConfigError(
                f"{source.task} does not say how fast its robot is: give loop.period_s=, in seconds"
            )
        self.period_s, self._seeds = float(period_s), seeds
        what_fails = Faults(**faults)
        self._robot = SimulatedRobot(
            source.task,
            source.env_config,
            control_period_s=self.period_s,
            seeds=seeds,
            faults=what_fails,
            watchdog_s=loop["watchdog_s"],
            camera=camera,
        )
        try:
            settings = LoopSettings(
                limits=ActionLimits(
                    self._robot.low,
                    self._robot.high,
                    reach=loop["reach"],
                    max_rate=np.asarray(loop["max_rate"], np.float64) if loop["max_rate"] else None,
                ),
                lead_steps=loop["lead_steps"],
                margin_s=loop["margin_s"],
                has_deadline=loop["deadline"],
                on_miss=loop["on_miss"],
                action_delay_s=loop["action_delay_s"],
                stall_s=what_fails.stall_s,
                stall_every_s=what_fails.stall_every_s,
            )
            self._planner = BackgroundPlanner(source, loop["background"])
        except BaseException:
            self._robot.close()
            raise
        self._loop = RealtimeLoop(self._robot, self._planner, settings)

    def __enter__(self) -> RealtimeControl:
        return self

    def __exit__(self, *error: object) -> None:
        self._planner.close()
        self._robot.close()

    def live(self, episode: int) -> RealtimeEpisode:
        """The episode of that number; they come in order."""
        log = self._loop.live(self._seeds[episode])
        assert self._robot.lived is not None
        return RealtimeEpisode(self._robot.lived, log)


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
    kinds = ("fresh", "earlier", "blind", "missed")
    counts = {kind: sum(each.kind == kind for each in told) for kind in kinds}
    timing = latency(seconds, period_s) if seconds else None
    return {
        "period_ms": period_s * 1e3,
        "num_steps": len(told),
        "latency": None
        if timing is None
        else {
            "p50_ms": timing.p50_ms,
            "p95_ms": timing.p95_ms,
            "p99_ms": timing.p99_ms,
            "max_ms": timing.max_ms,
        },
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


def _check(loop: dict[str, Any]) -> None:
    for key, known in (("on_miss", ON_MISS), ("background", BACKGROUNDS)):
        if loop[key] not in known:
            raise ConfigError(
                f"loop.{key}={loop[key]}: there is no such way{closest(str(loop[key]), list(known))}. "
                f"Known: {', '.join(known)}"
            )
    if loop["lead_steps"] < 1:
        raise ConfigError(
            f"loop.lead_steps={loop['lead_steps']}: must be at least 1: what is seen at a tick cannot have "
            "an effect before the next one"
        )
    for key in ("period_s", "margin_s", "action_delay_s"):
        if not loop[key] >= 0:
            raise ConfigError(f"loop.{key}={loop[key]}: must be at least 0 seconds")
    if not loop["watchdog_s"] > 0:
        raise ConfigError(f"loop.watchdog_s={loop['watchdog_s']}: must be above 0 seconds")
