"""Many environments of one task, stepped together by Gymnasium's vector environments."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

from envs.wrappers import Observation, TaskEnv

_DESCRIPTION = ("task", "action_repeat", "control_period_s", "episode_length", "can_terminate")


class _TaskDescription:
    """What a vector environment says of its task, as a `TaskEnv` does.

    Attributes:
        env_seeds: seed of each environment.
        task, action_repeat, control_period_s, episode_length, can_terminate: as in `TaskEnv`.
    """

    env_seeds: tuple[int, ...]
    task: str
    action_repeat: int
    control_period_s: float | None
    episode_length: int | None
    can_terminate: bool


class SyncTaskVectorEnv(_TaskDescription, SyncVectorEnv):
    """Environments stepped in a loop: the faster way for cheap simulations."""

    def __init__(
        self,
        makers: Sequence[Callable[[], TaskEnv]],
        *,
        env_seeds: tuple[int, ...],
        autoreset_mode: AutoresetMode,
    ) -> None:
        super().__init__(makers, autoreset_mode=autoreset_mode)
        self.env_seeds = env_seeds
        for name in _DESCRIPTION:
            setattr(self, name, self.get_attr(name)[0])
        self.action_space.seed(env_seeds[0])

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Reset all, or those in `options["reset_mask"]`; an int seed means seed + i, as in Gymnasium."""
        # Gymnasium takes the mask out of the caller's own dict.
        return super().reset(seed=seed, options=None if options is None else dict(options))


class AsyncTaskVectorEnv(_TaskDescription, AsyncVectorEnv):
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
        super().__init__(makers, autoreset_mode=autoreset_mode, context=context)
        self.env_seeds = env_seeds
        for name in _DESCRIPTION:
            setattr(self, name, self.get_attr(name)[0])
        self.action_space.seed(env_seeds[0])

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Reset all, or those in `options["reset_mask"]`; an int seed means seed + i, as in Gymnasium."""
        # Gymnasium takes the mask out of the caller's own dict.
        return super().reset(seed=seed, options=None if options is None else dict(options))
