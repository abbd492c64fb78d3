"""Who plans in a session: a planner whose knobs are turned while it plans, over a foresight that stays."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from planners import Plan
from worldmodel.apps.agent import Decision
from worldmodel.apps.build import build_planning_agent
from worldmodel.apps.cockpit.knobs import named_planner, turned
from worldmodel.apps.foresight import Foresight, ImaginingForesight
from worldmodel.apps.memory import Memory, Observation, Past
from worldmodel.apps.subject import Subject


class Pilot:
    """Decides at one observation after another, or again at the same one.

    Attributes:
        agent: that decides.
        decision: the latest; None before the first.

    Errors: `ConfigError`, `PlannerError` for a planner that cannot be.
    """

    def __init__(self, subject: Subject, foresight: Foresight) -> None:
        self._subject, self._foresight = subject, foresight
        self._planner, self._knobs = subject.planner_config, dict[str, int | float]()
        self._take(self._planner, self._knobs)
        self.decision: Decision | None = None
        self._before: tuple[Past | None, Plan | None] = (None, None)

    @property
    def config(self) -> dict[str, Any]:
        """The planner as it plans now."""
        return turned(self._planner, self._knobs)

    @property
    def plan(self) -> Plan:
        """The latest plan."""
        assert self.agent.plan is not None, "nothing was decided yet"
        return self.agent.plan

    def reset(self) -> None:
        """A new episode."""
        self.agent.reset()
        self.decision = None

    def turn(self, name: str, value: int | float) -> None:
        """Turn a knob (see `knobs.KNOBS`). An error leaves all as it was."""
        self._take(self._planner, self._knobs | {name: value})

    def choose(self, name: str) -> None:
        """Another planner, with the knobs as they were turned. An error leaves all as it was."""
        is_bare = self._subject.is_oracle and self._subject.run is None
        self._take(named_planner(name, is_oracle=is_bare), self._knobs)

    def decide(self, observation: Observation) -> float:
        """Decide at what is observed now {key: (1, ...)}; returns the seconds that it took."""
        memory = self._memory
        is_first = self.decision is None
        past = None if is_first or memory is None else memory.past
        self._before = past, None if is_first else self.agent.plan
        return self._act(observation)

    def decide_again(self, observation: Observation) -> float:
        """Decide at the same observation as if nothing had been decided there yet."""
        past, plan = self._before
        if self._memory is not None:
            self._memory.reset()
            if past is not None:
                self._memory.resume(past, np.zeros(1, np.bool_))
        self.agent.plan = plan if plan is not None and self._fits(plan) else None
        return self._act(observation)

    def _act(self, observation: Observation) -> float:
        began = time.perf_counter()
        self.decision = self.agent.act(observation)
        return time.perf_counter() - began

    def _take(self, planner: dict[str, Any], knobs: dict[str, int | float]) -> None:
        config = turned(planner, knobs)
        self.agent = build_planning_agent(self._foresight, config, seed=self._subject.config["seed"])
        self._planner, self._knobs = planner, knobs

    def _fits(self, plan: Plan) -> bool:
        planner = self.agent.planner
        return plan.elites.shape[1:] == (planner.num_elites, planner.num_parameters, planner.action_dim)

    @property
    def _memory(self) -> Memory | None:
        """What the foresight remembers from one decision to the next."""
        if isinstance(self._foresight, ImaginingForesight):
            return self._foresight.memory
        return None if self._subject.run is None else self._subject.run.foresight.memory
