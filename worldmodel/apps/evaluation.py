"""How good an agent is: whole episodes, no exploration, starts of their own."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from worldmodel.apps.agent import Agent
from worldmodel.apps.build import build_env
from worldmodel.apps.rollout import rollouts
from worldmodel.apps.statistics import Mean

EVALUATION_SEED = 1_000_003  # far from the seeds that people train with
MAX_NUM_ENVS = 10


class Evaluation(ABC):
    """A number for each of some episodes of a task, the same starts every time it is asked."""

    measure: ClassVar[str]

    @abstractmethod
    def values(self, agent: Agent) -> list[float]:
        """Play the episodes."""

    def told(self, summary: Mean) -> str:
        """The mean of such numbers, for people."""
        return str(summary)

    @abstractmethod
    def close(self) -> None:
        """Free the environments."""


class ReturnEvaluation(Evaluation):
    """The return of each of `num_episodes` episodes."""

    measure = "return"

    def __init__(self, task: str, env_config: dict[str, Any], *, num_episodes: int, seed: int) -> None:
        self._num_episodes = num_episodes
        num_envs = min(num_episodes, MAX_NUM_ENVS)
        self._env = build_env(task, env_config, num_envs=num_envs, seed=EVALUATION_SEED + seed)

    def values(self, agent: Agent) -> list[float]:
        """Play the episodes."""
        return [
            episode.total_reward
            for episode in rollouts(self._env, agent, self._num_episodes, seeds=list(self._env.env_seeds))
        ]

    def close(self) -> None:
        """Free the environments."""
        self._env.close()
