"""tworoom: through the door to a place in the other room, or in this one."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from envs.batch_task import Readings, tolerance
from envs.factors import Factor, camera_height, damping, hue, mass, size
from envs.mjcf_task import MjcfTask
from envs.violations import freeze, recolor, teleport, vanish

if TYPE_CHECKING:
    import mujoco

REACHED_M = 0.1
_REACH_M = 0.88  # how far from the middle the disc's own can be, in x and y
_WALL_M = 0.15  # and how far it is from the wall between the rooms at least, at start and goal
_DOOR_M = 0.175  # half its width


_SLIDES = {"agent": ("x", "y")}
_MOVING_M_S = 0.3


def _slides(model: mujoco.MjModel, data: mujoco.MjData) -> bool:
    return bool(np.hypot(data.joint("x").qvel[0], data.joint("y").qvel[0]) > _MOVING_M_S)


class TwoRoom(MjcfTask):
    """Slide a disc to a place; the way to the other room leads through the door.

    The straight way is often barred: who plans by distance alone gets stuck at the wall.
    """

    name = "tworoom"
    control_period_s = 0.1
    num_env_steps = 100

    def observe(self, readings: Readings) -> np.ndarray:
        """Position, velocity, goal: O = 6."""
        return np.concatenate([readings.qpos, readings.qvel, self.goal(readings)], axis=-1)

    def reward(self, readings: Readings) -> np.ndarray:
        """1 at the goal, falling with the length of the way there, which leads through the door."""
        return tolerance(
            _way_m(readings, self.goal(readings)), (0.0, REACHED_M), margin=1.0, sigmoid="long_tail"
        )

    def draw_start(self, model: mujoco.MjModel, data: mujoco.MjData, rng: np.random.Generator) -> None:
        """Anywhere."""
        data.qpos[:] = _draw_place(rng)

    def draw_goal(self, model: mujoco.MjModel, data: mujoco.MjData, rng: np.random.Generator) -> np.ndarray:
        """Anywhere: x, y."""
        return _draw_place(rng)

    def reach_goal(self, model: mujoco.MjModel, data: mujoco.MjData, goal: np.ndarray) -> None:
        """Put the disc there."""
        data.qpos[:] = goal

    def achieved(self, readings: Readings) -> np.ndarray:
        """Where the disc is."""
        return readings.qpos

    def is_solved(self, readings: Readings) -> np.ndarray:
        """Whether the disc is within 0.1 m."""
        return np.linalg.norm(readings.qpos - self.goal(readings), axis=-1) <= REACHED_M

    def goal(self, readings: Readings) -> np.ndarray:
        """x, y."""
        return super().goal(readings)[..., :2]

    @staticmethod
    def _move_door(model: mujoco.MjModel, compiled: mujoco.MjModel, value: float) -> None:
        for name, low, high in (("below_door", -1.0, value - _DOOR_M), ("above_door", value + _DOOR_M, 1.0)):
            model.geom(name).pos[1], model.geom(name).size[1] = (low + high) / 2, (high - low) / 2
            half = model.geom(name).size
            model.geom_rbound[model.geom(name).id] = np.linalg.norm(half)
            model.geom_aabb[model.geom(name).id, 3:] = half

    factors: ClassVar = {
        "door": Factor(
            meaning="m, the middle of the door", default=0.3, low=-0.7, high=0.7, apply=_move_door
        ),
        "mass": mass("agent"),
        # All that slows the disc, for nothing rubs; at 2, it goes 0.5 m/s at most.
        "damping": replace(damping("x", "y"), low=0.25, high=2.0),
        "size": replace(size("agent"), high=1.2),  # a larger disc would start in walls
        "hue": hue("agent"),
        "camera_height": camera_height("top"),
    }
    violations: ClassVar = {
        "teleport": teleport(_SLIDES, far_m=0.5, low=(_WALL_M, -_REACH_M), high=(_REACH_M, _REACH_M)),
        "vanish": vanish(_SLIDES),
        "freeze": freeze(_SLIDES, moving=_slides),
        "recolor": recolor(["agent"]),
    }


def _draw_place(rng: np.random.Generator) -> np.ndarray:
    x, y = rng.uniform(_WALL_M, _REACH_M), rng.uniform(-_REACH_M, _REACH_M)
    return np.array([x if rng.random() < 0.5 else -x, y])


def _way_m(readings: Readings, goal: np.ndarray) -> np.ndarray:
    """Length of the way to the goal, through the middle of the door where it is in the other room."""
    place = readings.qpos
    door = (
        readings.constant("geom", "below_door", "pos")[..., 1]
        + readings.constant("geom", "below_door", "size")[..., 1]
    ) + _DOOR_M
    middle = np.stack([np.zeros_like(place[..., 0]), np.broadcast_to(door, place.shape[:-1])], axis=-1)
    is_barred = place[..., 0] * goal[..., 0] < 0
    through = np.linalg.norm(place - middle, axis=-1) + np.linalg.norm(goal - middle, axis=-1)
    return np.where(is_barred, through, np.linalg.norm(place - goal, axis=-1))
