"""Acting in environments and recording it."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from envs import TaskVectorEnv
from worldmodel.apps.agent import Agent
from worldmodel.data import Episode
from worldmodel.data.recorder import BatchRecorder


class Collector:
    """Steps a vector environment with an agent, and hands over each episode when it ends.

    `env` has `AutoresetMode.DISABLED`, so that an episode's last observation is seen.
    `records_physics`: the physics state before each action becomes the column `physics_state`.
    """

    def __init__(
        self, env: TaskVectorEnv, seeds: list[int] | None = None, *, records_physics: bool = False
    ) -> None:
        self._env, self._records_physics = env, records_physics
        self._observation, _ = env.reset(seed=seeds)
        self._recorder = BatchRecorder(self._observation)
        self._is_new: np.ndarray | None = None

    def step(self, agent: Agent, info: dict[str, Any]) -> list[tuple[int, Episode]]:
        """One agent step in every environment; returns (environment, episode) for those that ended.

        `info` becomes that of the episodes.
        """
        if self._is_new is not None and self._is_new.any():  # only now: it may be the last step
            self._observation, _ = self._env.reset(options={"reset_mask": self._is_new})
            self._recorder.start(self._is_new, self._observation)
        agent.reset(self._is_new)
        decision = agent.act(self._observation)
        extra = decision.columns()
        if self._records_physics:
            extra["physics_state"] = self._env.physics_states()
        observation, reward, terminated, truncated, _ = self._env.step(decision.action)
        self._recorder.append(decision.action, reward, observation, extra)
        self._observation, self._is_new = observation, terminated | truncated
        return [
            (
                index,
                self._recorder.build(
                    index,
                    terminated=bool(terminated[index]),
                    truncated=bool(truncated[index]),
                    info=info,
                ),
            )
            for index in np.flatnonzero(self._is_new).tolist()
        ]


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
