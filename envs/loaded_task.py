"""What a family of tasks hands over: an environment, and what Gymnasium has no place for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np

if TYPE_CHECKING:
    import mujoco

    from envs.episode_goal import EpisodeGoal
    from envs.simulation import Simulation


@dataclass(frozen=True, kw_only=True)
class LoadedTask:
    """One task, ready to be wrapped in a `TaskEnv`.

    Attributes:
        name: canonical name.
        env: vector observations (O,), actions in [-1, 1] (A,).
        env_step_s: seconds of one env step; None if the env does not say.
        num_env_steps: env steps until truncation; None if there is no limit.
        can_terminate: whether the task may end by itself.
        angles: entries of the observation that are angles without limits (`envs.angles`).
        simulation: its MuJoCo simulation; None if it has none.
        default_camera: from where images are taken, of a MuJoCo task.
        observe: the vector (O,) that the env observes in the state that its simulation is in; None if only a
            step can tell.
        goal: the goal of each episode; None for a task without goals.
        goal_group: of the geoms that mark the goal of an episode; None if nothing does.
        frame: makes an image (H, W, 3) of a task without MuJoCo; None if it cannot.
        divergence_errors: what `env.step` raises when the simulation diverges.
    """

    name: str
    env: gymnasium.Env[Any, Any]
    env_step_s: float | None
    num_env_steps: int | None
    can_terminate: bool
    angles: tuple[int, ...] = ()
    simulation: Simulation | None = None
    default_camera: mujoco.MjvCamera | None = None
    observe: Callable[[], np.ndarray] | None = None
    goal: EpisodeGoal | None = None
    goal_group: int | None = None
    frame: Callable[[], np.ndarray] | None = None
    divergence_errors: tuple[type[Exception], ...] = ()
