"""The loop between a robot that does not wait and a planner that takes its time."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from typing import Literal, get_args

import numpy as np

from worldmodel.apps.realtime.limits import ActionLimits
from worldmodel.apps.realtime.planning import BackgroundPlanner, Job, Planned
from worldmodel.apps.realtime.robot import RobotInterface, Sighting

OnMiss = Literal["play_on", "hold", "zero", "stop"]
Kind = Literal["fresh", "earlier", "blind", "missed"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_FIRST_PLAN_S = 600.0  # compiling included


@dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """How the loop lives with a planner that takes time.

    - `lead_steps`: a plan acts so many steps after what it was made from; 1 for a planner that is faster than
      the control period.
    - `margin_s`: before its tick, a command leaves so early.
    - `has_deadline`: the planner hands over the best that it has when it must; else it takes its time.
    - `on_miss`: what to do in a step whose plan is late: `play_on` the last plan (at its end: rest), `hold`
      the last command, `zero` (rest), or `stop` the robot.
    - `action_delay_s`: what the actuators are known to take; a command is planned for when it has an effect.
    - `stall_s`, `stall_every_s`: let the planner hang so long, so often (see `Faults`).
    """

    limits: ActionLimits
    lead_steps: int = 1
    margin_s: float = 0.001
    has_deadline: bool = True
    on_miss: OnMiss = "play_on"
    action_delay_s: float = 0.0
    stall_s: float = 0.0
    stall_every_s: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Told:
    """One command: for which step, when it left, and where it came from.

    - `kind`: `fresh`: of a plan made for this step; `earlier`: of a plan for a step before, as none was
      expected now; `blind`: the same, since nothing new was seen; `missed`: the plan was late.
    - `latency_s`: from the moment that the plan saw to the command; None where it was not made from one.
    """

    step: int
    time_s: float
    kind: Kind
    action: np.ndarray
    latency_s: float | None = None


@dataclass
class Log:
    """An episode of the loop: every command, every plan, and how many observations came."""

    told: list[Told] = field(default_factory=list)
    plans: list[Planned] = field(default_factory=list)
    num_seen: int = 0
    num_stalls: int = 0
    was_stopped: bool = False


class _Clock:
    """When the robot's ticks are, from when its sightings were taken."""

    def __init__(self, began_s: float, period_s: float) -> None:
        self.period_s = period_s
        self._began_s: deque[float] = deque([began_s], maxlen=50)

    def note(self, sighting: Sighting) -> None:
        """A tick may be late, never early: of the last ones, the earliest tells the time."""
        self._began_s.append(sighting.time_s - sighting.step * self.period_s)

    def tick_s(self, step: int) -> float:
        """When that step begins."""
        return min(self._began_s) + step * self.period_s


class RealtimeLoop:
    """Lives episodes with a robot; its state is that of the episode under way."""

    def __init__(self, robot: RobotInterface, planner: BackgroundPlanner, settings: LoopSettings) -> None:
        self._robot, self._planner, self._settings = robot, planner, settings
        limits = settings.limits
        self._rest = np.clip(np.zeros_like(limits.low), limits.low, limits.high)

    def live(self, seed: int) -> Log:
        """One episode, from start to end; `seed` is that of the simulated robot's, if it is one.

        Before the clock starts there is time: the first plan is made from the first sighting, for its moment.
        """
        self._log = Log()
        self._command = self._rest  # the last one
        self._untold: dict[int, np.ndarray] = {}  # actions that the planner has not heard of
        self._seen: list[Sighting] = []
        self._planner.reset(seed)
        sighting = self._robot.start()
        # With a deadline like those after it, if a far one: what a deadline may cut is compiled in pieces.
        deadline_s = time.monotonic() + _FIRST_PLAN_S if self._settings.has_deadline else None
        self._planner.ask(Job(start_step=0, sightings=(sighting,), actions={}, deadline_s=deadline_s))
        self._plan = self._planner.wait()
        self._next_stall_s = self._settings.stall_every_s
        self._send(0, self._plan.actions[0], "fresh")
        self._clock = _Clock(self._log.told[0].time_s, self._robot.control_period_s)
        self._last_seen = self._asked_step = 0
        self._asked_s = self._log.told[0].time_s
        self._next_step = 1
        while not self._robot.is_over and not self._log.was_stopped:
            self._turn()
        while not self._robot.is_over:  # stopped: it comes to rest
            wait([self._robot.readable], 1.0)
            self._robot.read()
        return self._log

    def _turn(self) -> None:
        """Wait for what comes first: a sighting, a plan, or the moment when the next command must leave."""
        leave_s = self._leave_s(self._next_step)
        wait([self._robot.readable, self._planner.readable], max(0.0, leave_s - time.monotonic()))
        while (sighting := self._robot.read()) is not None:
            self._take_in(sighting)
        if self._robot.is_over:
            return
        if (planned := self._planner.read()) is not None:
            self._plan = planned
            self._log.plans.append(planned)
            if planned.start_step == self._next_step:
                self._send(self._next_step, planned.actions[0], "fresh", time.monotonic() - self._asked_s)
                self._next_step += 1
        # Where the loop itself was late, the robot is seen in a step that nothing was told for yet.
        is_behind = bool(self._seen) and self._seen[-1].step > self._next_step
        if self._seen and not self._planner.is_busy and not is_behind:
            self._ask()
        if time.monotonic() >= self._leave_s(self._next_step):
            self._do_without()
            self._next_step += 1

    def _leave_s(self, step: int) -> float:
        """When the command for a step must leave."""
        return self._clock.tick_s(step) - self._settings.action_delay_s - self._settings.margin_s

    def _take_in(self, sighting: Sighting) -> None:
        self._log.num_seen += 1
        self._clock.note(sighting)
        if sighting.step > self._last_seen:  # else a newer one has come before it
            self._last_seen = sighting.step
            self._seen.append(sighting)

    def _ask(self) -> None:
        """Have it planned from the latest sighting."""
        settings = self._settings
        start = self._next_step + settings.lead_steps - 1
        stall_s, now_s = 0.0, self._seen[-1].step * self._clock.period_s
        if settings.stall_s and now_s >= self._next_stall_s:
            stall_s, self._next_stall_s = settings.stall_s, now_s + settings.stall_every_s
            self._log.num_stalls += 1
        for step in range(self._next_step, start):  # what will be done until then, as far as one knows
            self._untold[step] = self._limited(self._planned_for(step))
        self._asked_step, self._asked_s = start, self._seen[-1].time_s
        self._planner.ask(
            Job(
                start_step=start,
                sightings=tuple(self._seen),
                actions=self._untold,
                deadline_s=self._leave_s(start) if settings.has_deadline else None,
                stall_s=stall_s,
            )
        )
        self._seen, self._untold = [], {}

    def _do_without(self) -> None:
        """The moment has come, and there is no plan that was made for it."""
        step, settings = self._next_step, self._settings
        is_late = self._planner.is_busy and self._asked_step <= step
        if not is_late:
            kind: Literal["earlier", "blind", "missed"] = "earlier" if self._planner.is_busy else "blind"
            self._send(step, self._planned_for(step), kind)
        elif settings.on_miss == "stop":
            self._robot.stop()
            self._log.was_stopped = True
        elif settings.on_miss == "hold":
            self._send(step, settings.limits.from_units(self._command), "missed")
        else:
            planned = self._planned_for(step) if settings.on_miss == "play_on" else self._resting()
            self._send(step, planned, "missed")

    def _planned_for(self, step: int) -> np.ndarray:
        """What the latest plan has for a step; rest where it has ended."""
        index = step - self._plan.start_step
        return self._plan.actions[index] if 0 <= index < len(self._plan.actions) else self._resting()

    def _resting(self) -> np.ndarray:
        return self._settings.limits.from_units(self._rest)

    def _limited(self, action: np.ndarray) -> np.ndarray:
        """What will be left of an action."""
        limits = self._settings.limits
        return limits.from_units(limits.apply(action, self._command, self._robot.control_period_s))

    def _send(self, step: int, action: np.ndarray, kind: Kind, latency_s: float | None = None) -> None:
        limits = self._settings.limits
        self._command = limits.apply(action, self._command, self._robot.control_period_s)
        self._robot.send(self._command)
        done = self._untold[step] = limits.from_units(self._command)
        self._log.told.append(
            Told(step=step, time_s=time.monotonic(), kind=kind, action=done, latency_s=latency_s)
        )
