"""What a background planner is made from, in whatever process it works."""

from dataclasses import dataclass
from typing import Any

import numpy as np

import envs
from worldmodel.apps.agent import PlanningAgent
from worldmodel.apps.build import build_env, build_planning_agent
from worldmodel.apps.foresight import OracleForesight
from worldmodel.apps.goals import GoalForesight
from worldmodel.apps.memory import Observation
from worldmodel.apps.realtime.planning import Belief, LatentBelief, PhysicsBelief
from worldmodel.apps.trained import open_accelerated
from worldmodel.model import WorldModel


@dataclass(frozen=True)
class ControlSource:
    """The planner that `control` would have, of the same configuration.

    - `task`, `env_config`, `planner_config`: as found for it.
    - `is_oracle`: plan in a simulator of its own.
    """

    config: dict[str, Any]
    task: str
    env_config: dict[str, Any]
    planner_config: dict[str, Any]
    is_oracle: bool

    def build(self) -> tuple[PlanningAgent, Belief]:
        """The planner, and where it looks from. Errors: as `control`."""
        seed = self.config["seed"]
        if self.is_oracle:
            env = self._env()
            oracle = OracleForesight(env, num_threads=self.config["num_threads"])
            return build_planning_agent(oracle, self.planner_config, seed=seed), PhysicsBelief(env, oracle)
        run = open_accelerated(self.config)
        assert run is not None
        if isinstance(run.model, WorldModel):
            agent = build_planning_agent(run.foresight, self.planner_config, seed=seed)
            return agent, LatentBelief(run.foresight)
        goals = SeededGoals(self._env())
        foresight = GoalForesight(run.model, goals, acceleration=run.acceleration)
        agent = build_planning_agent(foresight, self.planner_config, seed=seed)
        return agent, LatentBelief(foresight, on_reset=goals.reset)

    def _env(self) -> envs.SyncTaskVectorEnv:
        env = build_env(self.task, self.env_config, num_envs=1, seed=self.config["seed"], how="sync")
        assert isinstance(env, envs.SyncTaskVectorEnv)
        return env


class SeededGoals:
    """The goal that an episode of a seed has drawn, seen in an environment of one's own."""

    def __init__(self, env: envs.SyncTaskVectorEnv) -> None:
        self._env = env

    def reset(self, seed: int) -> None:
        """Another episode."""
        self._env.reset(seed=[seed])

    def __call__(self) -> Observation:
        """The goal {key: (1, ...)}."""
        goal = envs.goal_observation(self._env.task_envs[0])
        return {key: np.asarray(value)[None] for key, value in goal.items()}
