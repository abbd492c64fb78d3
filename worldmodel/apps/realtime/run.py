"""A simulated robot and a background planner, joined for some episodes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

import envs
from worldmodel.apps.config import closest
from worldmodel.apps.realtime.body import Lived
from worldmodel.apps.realtime.faults import Faults
from worldmodel.apps.realtime.limits import ActionLimits
from worldmodel.apps.realtime.loop import Log, LoopSettings, OnMiss, RealtimeLoop
from worldmodel.apps.realtime.planning import BackgroundPlanner, Where
from worldmodel.apps.realtime.simulated import SimulatedRobot
from worldmodel.apps.realtime.source import ControlSource
from worldmodel.apps.subject import Subject
from worldmodel.errors import ConfigError


@dataclass(frozen=True)
class RealtimeEpisode:
    """One episode: what the robot lived through, and what the loop did."""

    lived: Lived
    log: Log


class RealtimeControl:
    """A simulated robot and a background planner, kept for several episodes; a context.

    - `subject`: what acts, and in what.
    - `env`: one like the robot's, which says its control period (`loop.period_s` may say otherwise) and its
      actuators' range.

    Errors: `ConfigError`, `EnvError` or `RunError` for a user's mistake; of `loop` and `faults` before a
    process starts.
    """

    def __init__(
        self,
        subject: Subject,
        env: envs.SyncTaskVectorEnv,
        *,
        seeds: list[int],
        loop: dict[str, Any],
        faults: dict[str, Any],
    ) -> None:
        _check(loop)
        period_s = loop["period_s"] or env.control_period_s
        if period_s is None:
            raise ConfigError(
                f"{subject.task} does not say how fast its robot is: give loop.period_s=, in seconds"
            )
        self.period_s, self._seeds = float(period_s), seeds
        what_fails = Faults(**faults)
        settings = LoopSettings(
            limits=ActionLimits(
                *env.task_envs[0].action_bounds,
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
        self._robot = SimulatedRobot(
            subject.task,
            subject.env_config,
            control_period_s=self.period_s,
            seeds=seeds,
            faults=what_fails,
            watchdog_s=loop["watchdog_s"],
            camera=subject.config["camera"],
        )
        try:
            self._planner = BackgroundPlanner(ControlSource(subject.config), loop["background"])
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


def episode_seeds(seed: int, num_episodes: int) -> list[int]:
    """A seed for each episode."""
    return [int(word) for word in np.random.SeedSequence([seed]).generate_state(num_episodes)]


def _check(loop: dict[str, Any]) -> None:
    for key, known in (("on_miss", get_args(OnMiss)), ("background", get_args(Where))):
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
