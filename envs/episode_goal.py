"""What knows the goal of a running episode."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np

from envs.errors import EnvError


@runtime_checkable
class EpisodeGoal(Protocol):
    """The goal of the running episode, drawn with its start.

    Attributes:
        goal: the goal (G,).
        num_goal_steps: env steps in which it must be reached.
        is_rewarded: whether the task's own reward is for reaching it.
    """

    goal: np.ndarray

    @property
    def num_goal_steps(self) -> int:
        """See above."""

    @property
    def is_rewarded(self) -> bool:
        """See above."""

    def is_solved(self) -> bool:
        """Whether the goal is reached now."""

    def set_goal(self, goal: np.ndarray) -> None:
        """Let another goal (G,) stand, from now until the next episode. Errors: `EnvError`."""

    def achieved_goal(self) -> np.ndarray:
        """The goal (G,) that the present state has reached."""

    def goal_state(self) -> np.ndarray:
        """A physics state in which the goal is reached, at rest."""


def checked_goal(goal: np.ndarray, size: int, task: str) -> np.ndarray:
    """A goal as float64 (G,). Errors: `EnvError` for another shape, or numbers that are not finite."""
    vector = np.asarray(goal, np.float64)
    if vector.shape != (size,) or not np.isfinite(vector).all():
        raise EnvError(f"{task}: a goal has {size} finite numbers, got {vector.tolist()}")
    return vector
