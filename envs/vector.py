"""Many environments of one task, stepped together by Gymnasium's vector environments."""

from __future__ import annotations

import sys
from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv

from envs.errors import EnvError, SimulationError
from envs.simulation import Simulation
from envs.wrappers import Observation, TaskEnv

TaskWrapper: TypeAlias = gymnasium.Env[Observation, Any]  # a `TaskEnv`, or wrappers around one


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

    def _and_for(self, ended: np.ndarray) -> str:
        """What a `SimulationError` says of the other environments that wait for a reset."""
        where = np.flatnonzero(ended).tolist()
        is_asked_for = where and self.metadata["autoreset_mode"] == AutoresetMode.DISABLED
        return f", and for {where}, whose episodes are over," if is_asked_for else ""

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
    """Environments stepped in a loop: the faster way for cheap simulations.

    Attributes:
        task_envs: the environments, without what is wrapped around them.
    """

    def __init__(
        self,
        makers: Sequence[Callable[[], TaskWrapper]],
        *,
        env_seeds: tuple[int, ...],
        autoreset_mode: AutoresetMode,
    ) -> None:
        made = [make() for make in makers]
        self.task_envs = [task_env_of(env) for env in made]
        guarded = [partial(_Guarded, env) for env in made]
        SyncVectorEnv.__init__(self, guarded, autoreset_mode=autoreset_mode)
        self._describe(self.task_envs[0], env_seeds)

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """One agent step of each environment.

        Raises:
            SimulationError: simulations diverged; they must be reset, and the others have stepped.
        """
        result = super().step(actions)
        errors = {index: env.error for index, env in enumerate(self.envs) if env.error}  # type: ignore[attr-defined]
        if errors:
            first, others = next(iter(errors.values())), self._and_for(result[2] | result[3])
            what = f"environments {list(errors)}{others}: {first}"
            raise SimulationError(what, environments=tuple(errors), result=result) from first
        return result

    def physics_states(self) -> np.ndarray:
        """MuJoCo's full integration state of each environment: float64 (B, S)."""
        return np.stack([simulation.state() for simulation in self.simulations])

    def factors(self) -> list[dict[str, float]]:
        """The numbers that vary in each running episode, of those that were asked for."""
        return [env.factors for env in self.task_envs]

    @property
    def simulations(self) -> list[Simulation]:
        """The MuJoCo simulation of each environment, shared with it. Errors: `EnvError` for one without."""
        return [env.simulation for env in self.task_envs]


class _Guarded(gymnasium.Wrapper[Observation, Any, Observation, Any]):
    """Keeps the error of a simulation that diverged, so that those after it are stepped too."""

    error: SimulationError | None = None

    def step(self, action: Any) -> tuple[Observation, Any, bool, bool, dict[str, Any]]:
        """As the task's."""
        self.error = None
        try:
            return super().step(action)
        except SimulationError as error:
            self.error = error
            assert isinstance(self.observation_space, spaces.Dict)
            nothing = {key: np.zeros(s.shape, s.dtype) for key, s in self.observation_space.items()}
            return nothing, 0.0, False, False, {}


class AsyncTaskVectorEnv(TaskVectorEnv, AsyncVectorEnv):
    """Environments in processes of their own."""

    def __init__(
        self,
        makers: Sequence[Callable[[], TaskWrapper]],
        *,
        env_seeds: tuple[int, ...],
        autoreset_mode: AutoresetMode,
    ) -> None:
        # Plain fork would copy OpenGL contexts and torch's thread pools, and hang in either.
        context = "spawn" if sys.platform == "win32" else "forkserver"
        AsyncVectorEnv.__init__(self, makers, autoreset_mode=autoreset_mode, context=context)
        first = makers[0]()
        self._describe(task_env_of(first), env_seeds)
        first.close()

    def physics_states(self) -> np.ndarray:
        """MuJoCo's full integration state of each environment: float64 (B, S)."""
        return np.stack(self.call("physics_state"))

    def factors(self) -> list[dict[str, float]]:
        """The numbers that vary in each running episode, of those that were asked for."""
        return list(self.call("factors"))


def task_env_of(env: gymnasium.Env[Any, Any]) -> TaskEnv:
    """The `TaskEnv` in a wrapper of one. Errors: `EnvError` if there is none."""
    while not isinstance(env, TaskEnv):
        if not isinstance(env, gymnasium.Wrapper):
            raise EnvError(f"{env} holds no TaskEnv: make one with envs.make")
        env = env.env
    return env
