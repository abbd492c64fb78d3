"""Acting for experience while a model learns: here, between two updates, or beside the learner."""

from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np

import envs
from worldmodel.apps.agent import Agent, PlanningAgent
from worldmodel.apps.build import action_dim
from worldmodel.apps.rollout import Collector
from worldmodel.apps.simple_agents import ColoredNoiseAgent, RandomAgent
from worldmodel.data import Episode


@dataclass(frozen=True, kw_only=True)
class Exploration:
    """How to act next.

    - `policy`: `random` is even noise; `wander` is noise that lingers, and so gets further.
    - `std`: of the noise on the planner's actions.
    - `env_steps`: that the run has come to before.
    """

    policy: Literal["random", "wander", "planner"]
    std: float
    env_steps: int


@dataclass(frozen=True, kw_only=True)
class Explored:
    """What came of it: env steps in all environments together, and the episodes that ended."""

    env_steps: int
    episodes: list[Episode]


@runtime_checkable
class Experience(Protocol):
    """Where a training run's episodes come from."""

    def explored(self, how: Exploration, num_due: int) -> list[Explored]:
        """What is new; `how` to go on, while `num_due` updates are still to be made.

        Where none is due, there is nothing else to do than to wait for more.
        """

    def metrics(self) -> dict[str, int | float]:
        """Numbers about it."""

    def close(self) -> list[Explored]:
        """Act no more; what was still on its way."""


class Explorer:
    """Environments, and what acts in them; `chance` draws noise, `start_seeds` the first starts."""

    def __init__(
        self,
        env: envs.TaskVectorEnv,
        agent: PlanningAgent,
        chance: np.random.Generator,
        start_seeds: list[int] | None,
    ) -> None:
        self._env, self._agent, self._chance, self._start_seeds = env, agent, chance, start_seeds
        self._collector: Collector | None = None
        self._wanderer: ColoredNoiseAgent | None = None

    def step(self, how: Exploration) -> Explored:
        """One agent step in every environment."""
        if self._collector is None:
            self._collector = Collector(self._env, self._start_seeds)
        self._agent.exploration_std = how.std
        env_steps = self._env.num_envs * self._env.action_repeat
        policy = "planner" if how.policy == "planner" else "random"
        info = {"policy": policy, "env_steps": how.env_steps + env_steps}
        ended = self._collector.step(self._acting(how), info)
        return Explored(env_steps=env_steps, episodes=[episode for _, episode in ended])

    def _acting(self, how: Exploration) -> Agent:
        if how.policy == "planner":
            return self._agent
        dim = action_dim(self._env)
        if how.policy == "random":
            return RandomAgent(dim, self._chance)
        if self._wanderer is None:
            self._wanderer = ColoredNoiseAgent(dim, self._chance, exponent=2.0, std=1.0)
        return self._wanderer


class OwnExperience:
    """Acts in this process whenever no update is due, with the weights as they are."""

    def __init__(self, explorer: Explorer) -> None:
        self._explorer = explorer

    def explored(self, how: Exploration, num_due: int) -> list[Explored]:
        """One agent step in every environment, unless updates come first."""
        return [] if num_due else [self._explorer.step(how)]

    def metrics(self) -> dict[str, int | float]:
        """Nothing that is not told anyway."""
        return {}

    def close(self) -> list[Explored]:
        """Nothing is on its way."""
        return []
