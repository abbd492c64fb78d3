"""Acting in environments and recording it."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from envs import TaskVectorEnv
from worldmodel.apps.agent import Agent
from worldmodel.data import Episode, EpisodeBuilder


class Collector:
    """Steps a vector environment with an agent, and hands over each episode when it ends.

    `env` has `AutoresetMode.DISABLED`, so that an episode's last observation is seen.
    """

    def __init__(self, env: TaskVectorEnv, seeds: list[int] | None = None) -> None:
        self._env = env
        self._observation, _ = env.reset(seed=seeds)
        self._builders = [self._builder(index) for index in range(env.num_envs)]
        self._is_new: np.ndarray | None = None

    def step(self, agent: Agent, info: dict[str, Any]) -> list[tuple[int, Episode]]:
        """One agent step in every environment; returns (environment, episode) for those that ended.

        `info` becomes that of the episodes.
        """
        agent.reset(self._is_new)
        decision = agent.act(self._observation)
        observation, reward, terminated, truncated, _ = self._env.step(decision.action)
        for index, builder in enumerate(self._builders):
            builder.append(
                decision.action[index],
                float(reward[index]),
                {key: value[index] for key, value in observation.items()},
                **{name: column[index] for name, column in decision.columns().items()},
            )
        self._observation, self._is_new = observation, terminated | truncated
        finished = np.flatnonzero(self._is_new).tolist()
        episodes = [
            (index, self._builders[index].build(terminated[index], truncated[index], info))
            for index in finished
        ]
        if finished:
            self._observation, _ = self._env.reset(options={"reset_mask": self._is_new})
            for index in finished:
                self._builders[index] = self._builder(index)
        return episodes

    def _builder(self, index: int) -> EpisodeBuilder:
        return EpisodeBuilder({key: value[index] for key, value in self._observation.items()})


def rollouts(
    env: TaskVectorEnv,
    agent: Agent,
    num_episodes: int,
    *,
    info: dict[str, Any] | None = None,
    seeds: list[int] | None = None,
) -> Iterator[Episode]:
    """Exactly `num_episodes` episodes, an equal number from each environment where that divides.

    `seeds`, one for each environment, makes them the same episodes every time.

    An environment stops counting once it has given its share: taking whichever episodes end first would
    favour short ones, and short ones are the failures of a task that can terminate.
    """
    share, more = divmod(num_episodes, env.num_envs)
    left = [share + (index < more) for index in range(env.num_envs)]
    collector = Collector(env, seeds)
    agent.reset()
    while any(left):
        for index, episode in collector.step(agent, info or {}):
            if left[index]:
                left[index] -= 1
                yield episode
