"""The goal of a running episode: observed, asked for, replaced, rewarded."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from envs.batch_task import Readings
from envs.pose_goals import PoseGoalEnv, pose_reward
from envs.wrappers import Observation, TaskEnv


def goal_observation(env: TaskEnv) -> Observation:
    """What would be observed where the goal is reached. Errors: `EnvError` for a task without goals."""
    return env.observation_at(env.goal.goal_state())


def is_solved(env: TaskEnv) -> bool:
    """Whether the goal is reached now. Errors: `EnvError` for a task without goals."""
    return env.goal.is_solved()


def set_goal(env: TaskEnv, goal: np.ndarray) -> None:
    """Let another goal (G,) stand until the episode ends. Errors: `EnvError` for one that cannot be."""
    env.goal.set_goal(goal)


def set_goal_state(env: TaskEnv, state: np.ndarray) -> None:
    """Let what a physics state has reached be the goal until the episode ends. Errors: as `set_goal`."""
    now = env.physics_state()
    try:
        env.set_physics_state(state)
        reached = env.goal.achieved_goal()
    finally:
        env.set_physics_state(now)
    env.goal.set_goal(reached)


def goal_reward(envs: Sequence[TaskEnv]) -> Callable[[Readings], np.ndarray] | None:
    """What rewards a planner in the simulator for the goals that stand now; None: the task's own reward.

    Readings [B, ...] of environments of one task -> [B, ...].
    """
    goals = [env.goal for env in envs]
    poses = [goal for goal in goals if isinstance(goal, PoseGoalEnv)]
    return pose_reward(poses) if poses else None
