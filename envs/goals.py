"""The goal of a running episode: observed, asked for, replaced. Our own tasks have goals."""

from __future__ import annotations

import numpy as np

from envs.errors import EnvError
from envs.mjcf_env import MjcfEnv
from envs.registry import goal_task_names
from envs.wrappers import Observation, TaskEnv


def goal_observation(env: TaskEnv) -> Observation:
    """What would be observed where the goal is reached. Errors: `EnvError` for a task without goals."""
    own = goal_env(env)
    now = env.physics_state()
    try:
        env.set_physics_state(own.goal_state())
        return env.observation_now(own.observe())
    finally:
        env.set_physics_state(now)


def is_solved(env: TaskEnv) -> bool:
    """Whether the goal is reached now. Errors: `EnvError` for a task without goals."""
    return goal_env(env).is_solved()


def set_goal(env: TaskEnv, goal: np.ndarray) -> None:
    """Let another goal (G,) stand until the episode ends. Errors: `EnvError` for one that cannot be."""
    goal_env(env).set_goal(goal)


def goal_env(env: TaskEnv) -> MjcfEnv:
    """The part of an environment that knows its goal. Errors: `EnvError` for a task without goals."""
    own = env.unwrapped
    if not isinstance(own, MjcfEnv):
        raise EnvError(f"{env.task} has no goals; those that have are {', '.join(goal_task_names())}")
    return own
