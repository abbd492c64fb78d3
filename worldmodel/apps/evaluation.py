"""How good an agent is: whole episodes, no exploration, starts of their own."""

from typing import Any

from worldmodel.apps.agent import Agent
from worldmodel.apps.build import build_env
from worldmodel.apps.rollout import rollouts

EVALUATION_SEED = 1_000_003  # far from the seeds that people train with
MAX_NUM_ENVS = 10


class Evaluation:
    """`num_episodes` episodes of a task, the same starts every time it is asked."""

    def __init__(self, task: str, env_config: dict[str, Any], *, num_episodes: int, seed: int) -> None:
        self._num_episodes = num_episodes
        num_envs = min(num_episodes, MAX_NUM_ENVS)
        self._env = build_env(task, env_config, num_envs=num_envs, seed=EVALUATION_SEED + seed)

    def returns(self, agent: Agent) -> list[float]:
        """Return of each episode."""
        return [
            episode.total_reward
            for episode in rollouts(self._env, agent, self._num_episodes, seeds=list(self._env.env_seeds))
        ]

    def close(self) -> None:
        """Free the environments."""
        self._env.close()
