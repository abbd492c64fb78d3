"""What a background planner is made from, in whatever process it works."""

from dataclasses import dataclass
from typing import Any

import envs
from worldmodel.apps.agent import PlanningAgent
from worldmodel.apps.build import build_env, build_planning_agent
from worldmodel.apps.foresight import ImaginingForesight, OracleForesight
from worldmodel.apps.goals import Goal
from worldmodel.apps.realtime.belief import Belief, LatentBelief, PhysicsBelief
from worldmodel.apps.subject import Subject


@dataclass(frozen=True)
class ControlSource:
    """The planner that `control` would have, of the same configuration (`configs/control.yaml`)."""

    config: dict[str, Any]

    def build(self) -> tuple[PlanningAgent, Belief]:
        """The planner, and where it looks from. Errors: as `control`."""
        subject, seed = Subject.of(self.config), self.config["seed"]
        # Its own, to see goals in and, for the oracle, to play futures in; not where the robot lives.
        env = build_env(
            subject.task,
            subject.env_config,
            num_envs=1,
            seed=seed,
            camera=self.config["camera"],
            how="sync",
        )
        assert isinstance(env, envs.SyncTaskVectorEnv)
        goal = subject.goal(env)
        foresight = subject.foresight(env, goal)
        assert foresight is not None
        agent = build_planning_agent(foresight, subject.planner_config, seed=seed)
        if isinstance(foresight, OracleForesight):
            return agent, PhysicsBelief(env, foresight)
        assert isinstance(foresight, ImaginingForesight)
        return agent, LatentBelief(foresight, on_reset=_Episodes(env, goal).reset)


@dataclass(frozen=True)
class _Episodes:
    """The robot's episodes, begun again elsewhere: they draw the same goals."""

    env: envs.SyncTaskVectorEnv
    goal: Goal | None

    def reset(self, seed: int) -> None:
        """The next one."""
        if self.goal is not None:
            self.env.reset(seed=[seed])
            self.goal.start()
