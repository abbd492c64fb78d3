"""A goal that can be moved while the robot seeks it: numbers, and a place in the scene where they are one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, cast, runtime_checkable

import numpy as np

import envs
from envs.pose_goals import PoseGoalEnv
from worldmodel.errors import ConfigError

if TYPE_CHECKING:
    import mujoco

_TARGET = "target"  # the geom that dm_control's tasks call so
_GOAL_BODY = "goal"  # the body that marks the goal of our own tasks
_SMALLEST_RADIUS_M = 0.01


@runtime_checkable
class MovableGoal(Protocol):
    """What the robot seeks.

    Attributes:
        labels: of its numbers.
        bounds: lowest and highest of each, for sliders.
        radius_m: of the mark.
        is_place: whether the numbers are a place, which can be dragged.
    """

    labels: Sequence[str]
    bounds: Sequence[tuple[float, float]]
    radius_m: float
    is_place: bool

    def numbers(self) -> np.ndarray:
        """The goal that stands now (G,)."""

    def set_numbers(self, numbers: np.ndarray) -> None:
        """Another goal, until the episode ends. Errors: `EnvError` for one that cannot be."""

    def place(self) -> np.ndarray:
        """Where it is (3,), if it is a place."""

    def set_place(self, place: np.ndarray) -> None:
        """The nearest goal to a place (3,)."""

    def pose(self) -> np.ndarray | None:
        """Joint positions (nq,) that reach it; None where nobody can tell."""


class DrawnGoal:
    """A goal that an episode has drawn: what all such have in common."""

    def __init__(self, env: envs.TaskEnv) -> None:
        self._env = env

    def numbers(self) -> np.ndarray:
        """See `MovableGoal`."""
        return np.array(self._env.goal.goal)

    def set_numbers(self, numbers: np.ndarray) -> None:
        """See `MovableGoal`."""
        envs.set_goal(self._env, np.asarray(numbers, np.float64))

    def pose(self) -> np.ndarray | None:
        """See `MovableGoal`."""
        return np.array(self._env.goal.goal_state()[1 : 1 + self._env.simulation.model.nq])


class EpisodeGoal(DrawnGoal):
    """The goal of an episode of our own tasks: a place, marked by a body, and what else they ask for."""

    def __init__(self, env: envs.TaskEnv) -> None:
        super().__init__(env)
        model, goal = env.simulation.model, env.goal.goal
        self._body = model.body(_GOAL_BODY).id
        self.is_place, self.radius_m = True, _radius_of_body(model, self._body)
        # The first numbers are where the body is; others (an angle) are turned by sliders alone.
        at = env.simulation.data.xpos[self._body]
        self._num_axes = 3 if len(goal) >= 3 and np.isclose(goal[2], at[2]) else 2
        reach = round(1.5 * float(np.abs(goal[: self._num_axes]).max()) + 0.2, 1)
        others = len(goal) - self._num_axes
        self.labels: Sequence[str] = [
            *(f"goal {axis} (m)" for axis in "xyz"[: self._num_axes]),
            *(f"goal turn (rad){'' if others == 1 else f' {index + 1}'}" for index in range(others)),
        ]
        self.bounds: Sequence[tuple[float, float]] = [
            *[(-reach, reach)] * self._num_axes,
            *[(-math.pi, math.pi)] * others,
        ]

    def place(self) -> np.ndarray:
        """See `MovableGoal`."""
        return np.array(self._env.simulation.data.xpos[self._body])

    def set_place(self, place: np.ndarray) -> None:
        """See `MovableGoal`."""
        numbers = self.numbers()
        numbers[: self._num_axes] = place[: self._num_axes]
        self.set_numbers(numbers)


class PoseGoal(DrawnGoal):
    """The pose that an episode of a dm_control task draws as its goal (`envs.pose_goals`)."""

    is_place, radius_m = False, _SMALLEST_RADIUS_M

    def __init__(self, env: envs.TaskEnv) -> None:
        super().__init__(env)
        joints = cast(PoseGoalEnv, env.goal).joints
        model = env.simulation.model
        names = [model.joint(int(np.flatnonzero(model.jnt_qposadr == at)[0])).name for at in joints.places]
        self.labels: Sequence[str] = [
            f"goal {name} ({'rad' if turns else 'm'})"
            for name, turns in zip(names, joints.is_hinge, strict=True)
        ]
        self.bounds: Sequence[tuple[float, float]] = list(
            zip(joints.low.tolist(), joints.high.tolist(), strict=True)
        )

    def place(self) -> np.ndarray:
        """See `MovableGoal`: a pose is no place."""
        raise ConfigError("the goal of this task is a pose, and no place: turn its numbers")

    def set_place(self, place: np.ndarray) -> None:
        """See `place`."""
        self.place()


class TargetGoal:
    """The target of a dm_control task (reacher's), a geom of the model: its x and y in m."""

    def __init__(self, env: envs.TaskEnv) -> None:
        self._simulation = env.simulation
        model = self._simulation.model
        self._geom = model.geom(_TARGET).id
        self.is_place = True
        self.radius_m = max(_SMALLEST_RADIUS_M, float(model.geom_size[self._geom, 0]))
        reach = round(1.2 * float(np.abs(model.geom_pos[self._geom, :2]).max()) + 0.15, 1)
        self.labels: Sequence[str] = ["target x (m)", "target y (m)"]
        self.bounds: Sequence[tuple[float, float]] = [(-reach, reach)] * 2

    def numbers(self) -> np.ndarray:
        """See `MovableGoal`."""
        return np.array(self._simulation.model.geom_pos[self._geom, :2])

    def set_numbers(self, numbers: np.ndarray) -> None:
        """See `MovableGoal`."""
        import mujoco

        vector = np.asarray(numbers, np.float64)
        if vector.shape != (2,) or not np.isfinite(vector).all():
            raise ConfigError(f"a target has 2 finite numbers, got {vector.tolist()}")
        self._simulation.model.geom_pos[self._geom, :2] = vector
        mujoco.mj_kinematics(self._simulation.model, self._simulation.data)

    def place(self) -> np.ndarray:
        """See `MovableGoal`."""
        return np.array(self._simulation.data.geom_xpos[self._geom])

    def set_place(self, place: np.ndarray) -> None:
        """See `MovableGoal`."""
        self.set_numbers(np.asarray(place, np.float64)[:2])

    def pose(self) -> np.ndarray | None:
        """See `MovableGoal`."""
        return None


def movable_goal(env: envs.TaskEnv, *, is_sought: bool, sees_all: bool) -> MovableGoal | None:
    """The goal of a task that can be moved; None where there is none, or where who plans would not know.

    `is_sought`: whether the goal of the episode is what is planned to. `sees_all`: whether the planner looks
    into the simulator itself.
    """
    if is_sought:
        return PoseGoal(env) if isinstance(env.goal, PoseGoalEnv) else EpisodeGoal(env)
    if _has_target(env) and (sees_all or _is_observed(env)):
        return TargetGoal(env)
    return None


def _has_target(env: envs.TaskEnv) -> bool:
    """Whether a geom `target` stands still in the world."""
    model = env.simulation.model
    names = [model.geom(index).name for index in range(model.ngeom)]
    return _TARGET in names and int(model.geom_bodyid[names.index(_TARGET)]) == 0


def _is_observed(env: envs.TaskEnv) -> bool:
    """Whether observations tell where the target is."""
    goal, state = TargetGoal(env), env.physics_state()
    here = goal.numbers()
    try:
        before = env.observation_at(state)["state"]
        goal.set_numbers(here + 0.05)
        return not np.array_equal(before, env.observation_at(state)["state"])
    except envs.EnvError:
        return False
    finally:
        goal.set_numbers(here)


def _radius_of_body(model: mujoco.MjModel, body: int) -> float:
    geoms = np.flatnonzero(model.geom_bodyid == body)
    sizes = [float(model.geom_size[geom, 0]) for geom in geoms]
    return max(_SMALLEST_RADIUS_M, max(sizes, default=0.0))
