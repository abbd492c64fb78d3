"""Acting in environments and recording it."""

from collections.abc import Callable, Container, Iterator, Mapping
from typing import Any

import numpy as np

from envs import SimulationError, TaskVectorEnv
from worldmodel.apps.agent import Agent
from worldmodel.data import Episode
from worldmodel.data.recorder import BatchRecorder

Info = Mapping[str, Any]


class Collector:
    """Steps a vector environment with an agent, and hands over each episode when it ends.

    `env` has `AutoresetMode.DISABLED`, so that an episode's last observation is seen.
    `records_physics`: the physics state before each action becomes the column `physics_state`.
    `max_steps`: agent steps after which episodes are cut short; 0: only the task ends them.
    `leaves_out_diverged`: go on where simulations diverged, without their episodes; else it is an error.

    Attributes:
        diverged: environments whose episode the last step has lost.
    """

    def __init__(
        self,
        env: TaskVectorEnv,
        seeds: list[int] | None = None,
        *,
        records_physics: bool = False,
        max_steps: int = 0,
        leaves_out_diverged: bool = False,
    ) -> None:
        self._env, self._records_physics, self._max_steps = env, records_physics, max_steps
        self._leaves_out_diverged = leaves_out_diverged
        self.diverged: tuple[int, ...] = ()
        self._observation, _ = env.reset(seed=seeds)
        self._recorder = BatchRecorder(self._observation)
        self._is_new: np.ndarray | None = None

    def step(
        self, agent: Agent, info: Info | Callable[[int], Info], wanted: Container[int] | None = None
    ) -> list[tuple[int, Episode]]:
        """One agent step in every environment; returns (environment, episode) for those that ended.

        `info` becomes that of the episodes, or tells it of the one of an environment; the factors that vary
        are added to it. `wanted`: the environments whose episodes are handed over, else all.
        """
        if self._is_new is not None and self._is_new.any():  # only now: it may be the last step
            self._observation, _ = self._env.reset(options={"reset_mask": self._is_new})
            self._recorder.start(self._is_new, self._observation)
        agent.reset(self._is_new)
        decision = agent.act(self._observation)
        extra = decision.columns()
        if self._records_physics:
            extra["physics_state"] = self._env.physics_states()
        observation, reward, terminated, truncated = self._play(decision.action)
        self._recorder.append(decision.action, reward, observation, extra)
        if self._max_steps:
            truncated = truncated | (self._recorder.num_steps >= self._max_steps) & ~terminated
        has_ended = terminated | truncated
        self._observation, self._is_new = observation, has_ended.copy()
        self._is_new[list(self.diverged)] = True
        factors = self._env.factors() if has_ended.any() else []
        return [
            (
                index,
                self._recorder.build(
                    index,
                    terminated=bool(terminated[index]),
                    truncated=bool(truncated[index]),
                    info={
                        **(info(index) if callable(info) else info),
                        **{f"factors.{name}": value for name, value in factors[index].items()},
                    },
                ),
            )
            for index in np.flatnonzero(has_ended).tolist()
            if wanted is None or index in wanted
        ]

    def _play(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray]:
        """Observations, rewards, terminated and truncated after an action; notes what diverged."""
        try:
            result, self.diverged = self._env.step(action), ()
        except SimulationError as error:
            if not self._leaves_out_diverged or error.result is None:
                raise
            result, self.diverged = error.result, error.environments
        observation, reward, terminated, truncated, _ = result
        return observation, reward, terminated, truncated


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
