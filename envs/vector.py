"""Many environments of one task, stepped together by Gymnasium's vector environments."""

from __future__ import annotations

import sys
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv

from envs.simulation import Simulation
from envs.wrappers import Observation, TaskEnv


class TaskVectorEnv(VectorEnv[Observation, Any, Any]):
    """Many environments of one task.

    What a vector environment says of its task, as a `TaskEnv` does.

    Attributes:
        env_seeds: seed of each environment.
        task, action_repeat, control_period_s, episode_length, can_terminate, angles: as in `TaskEnv`.
    """

    env_seeds: tuple[int, ...]
    task: str
    action_repeat: int
    control_period_s: float | None
    episode_length: int | None
    can_terminate: bool
    angles: tuple[int, ...]

    def _describe(self, first: TaskEnv, env_seeds: tuple[int, ...]) -> None:
        self.env_seeds = env_seeds
        self.task = first.task
        self.action_repeat = first.action_repeat
        self.control_period_s = first.control_period_s
        self.episode_length = first.episode_length
        self.can_terminate = first.can_terminate
        self.angles = first.angles
        self.action_space.seed(env_seeds[0])

    @abstractmethod
    def physics_states(self) -> np.ndarray:
        """MuJoCo's full integration state of each environment: float64 (B, S).

        Errors: `EnvError` for a task without MuJoCo.
        """

    @abstractmethod
    def factors(self) -> list[dict[str, float]]:
        """The numbers that vary in each running episode, of those that were asked for."""

    def reset(
        self, *, seed: Any = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Reset all, or those in `options["reset_mask"]`; an int seed means seed + i, as in Gymnasium."""
        # Gymnasium takes the mask out of the caller's own dict.
        return super().reset(seed=seed, options=None if options is None else dict(options))


class SyncTaskVectorEnv(TaskVectorEnv, SyncVectorEnv):
    """Environments stepped in a loop: the faster way for cheap simulations."""

    def __init__(
        self,
        makers: Sequence[Callable[[], TaskEnv]],
        *,
        env_seeds: tuple[int, ...],
        autoreset_mode: AutoresetMode,
    ) -> None:
        SyncVectorEnv.__init__(self, makers, autoreset_mode=autoreset_mode)
        first = self.envs[0]
        assert isinstance(first, TaskEnv)
        self._describe(first, env_seeds)

    def physics_states(self) -> np.ndarray:
        """MuJoCo's full integration state of each environment: float64 (B, S)."""
        return np.stack([simulation.state() for simulation in self.simulations])

    def factors(self) -> list[dict[str, float]]:
        """The numbers that vary in each running episode, of those that were asked for."""
        return [env.factors for env in self.envs]  # type: ignore[attr-defined]

    @property
    def simulations(self) -> list[Simulation]:
        """The MuJoCo simulation of each environment, shared with it. Errors: `EnvError` for one without."""
        return [env.simulation for env in self.envs]  # type: ignore[attr-defined]


class AsyncTaskVectorEnv(TaskVectorEnv, AsyncVectorEnv):
    """Environments in processes of their own."""

    def __init__(
        self,
        makers: Sequence[Callable[[], TaskEnv]],
        *,
        env_seeds: tuple[int, ...],
        autoreset_mode: AutoresetMode,
    ) -> None:
        # Plain fork would copy OpenGL contexts and torch's thread pools, and hang in either.
        context = "spawn" if sys.platform == "win32" else "forkserver"
        AsyncVectorEnv.__init__(self, makers, autoreset_mode=autoreset_mode, context=context)
        first = makers[0]()
        self._describe(first, env_seeds)
        first.close()

    def physics_states(self) -> np.ndarray:
        """MuJoCo's full integration state of each environment: float64 (B, S)."""
        return np.stack(self.call("physics_state"))

    def factors(self) -> list[dict[str, float]]:
        """The numbers that vary in each running episode, of those that were asked for."""
        return list(self.call("factors"))
