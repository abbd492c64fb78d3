"""push: a T-shaped block, pushed to a place and an angle."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from envs.batch_task import Readings, tolerance
from envs.factors import camera_height, friction, gravity, hue, mass, size
from envs.mjcf_task import GOAL_BODY, MjcfTask
from envs.violations import freeze, pass_through, recolor, teleport, vanish

if TYPE_CHECKING:
    import mujoco

REACHED_M = 0.04
REACHED_RAD = 0.2
_PUSHER = slice(0, 2)  # x, y, in qpos and qvel
_BLOCK = slice(2, 6)  # x, y, z, angle
_BLOCK_PLANAR = [2, 3, 5]  # x, y, angle
_PUSHER_REACH_M = 0.465  # how far from the middle its own can be, in x and y: as its joints' range
_GOAL_REACH_M = 0.2  # and the middle of a goal
_GAP_M = 0.01  # between pusher and block, at start and goal
_FAR_M, _FAR_RAD = 0.3, 1.5  # from the goal: a tenth of the reward each
_NEARNESS_SHARE = 0.1  # of what the goal leaves to earn, for a pusher that is at the block
_SLIDES = {"block": ("block_x", "block_y")}
_PUSHED_M_S = 0.1  # a block that is faster is being pushed


def _is_pushed(model: mujoco.MjModel, data: mujoco.MjData) -> bool:
    return bool(np.hypot(data.joint("block_x").qvel[0], data.joint("block_y").qvel[0]) > _PUSHED_M_S)


class Push(MjcfTask):
    """Push a T to a pose; the action is the pusher's velocity, 0.5 m/s at most in x and y.

    The block rubs on the table and stays flat. Where it needs to turn, or to come back from the rim, the
    pusher has to go around it first.
    """

    name = "push"
    control_period_s = 0.1
    num_env_steps = 150

    def observe(self, readings: Readings) -> np.ndarray:
        """Places of pusher and block, the block's angle, velocities of both, goal: O = 15."""
        block = _achieved(readings)
        goal = self.goal(readings)
        return np.concatenate(
            [
                readings.qpos[..., _PUSHER],
                block[..., :2],
                _sine_and_cosine(block[..., 2:]),
                readings.qvel[..., _PUSHER],
                readings.qvel[..., _BLOCK_PLANAR],
                goal[..., :2],
                _sine_and_cosine(goal[..., 2:]),
            ],
            axis=-1,
        )

    def to_play(self, state: np.ndarray) -> np.ndarray:
        """From the pusher to the block's middle."""
        way = state[..., 2:4] - state[..., _PUSHER]  # never 0: the pusher has a width
        return np.asarray(way / np.linalg.norm(way, axis=-1, keepdims=True))

    def reward(self, readings: Readings) -> np.ndarray:
        """1 at the goal, falling with distance and angle; a little for being at the block."""
        distance_m, angle_rad = self._errors(readings)
        place = tolerance(distance_m, (0.0, REACHED_M), margin=_FAR_M, sigmoid="long_tail")
        turn = tolerance(angle_rad, (0.0, REACHED_RAD), margin=_FAR_RAD, sigmoid="long_tail")
        reached = place * turn
        way_m = np.linalg.norm(readings.qpos[..., _PUSHER] - readings.qpos[..., 2:4], axis=-1)
        nearness = tolerance(way_m, margin=_FAR_M, sigmoid="long_tail")
        return reached + _NEARNESS_SHARE * (1.0 - reached) * nearness

    def draw_start(self, model: mujoco.MjModel, data: mujoco.MjData, rng: np.random.Generator) -> None:
        """Block where it can be pushed from every side, pusher beside it."""
        pose = _draw_pose(rng, _block_reach_m(model))
        data.qpos[_BLOCK] = _resting(pose)
        place = rng.uniform(-_PUSHER_REACH_M, _PUSHER_REACH_M, 2)
        while _overlaps(model, place, pose):
            place = rng.uniform(-_PUSHER_REACH_M, _PUSHER_REACH_M, 2)
        data.qpos[_PUSHER] = place

    def draw_goal(self, model: mujoco.MjModel, data: mujoco.MjData, rng: np.random.Generator) -> np.ndarray:
        """In the middle part, at any angle: x, y, angle."""
        return _draw_pose(rng, min(_GOAL_REACH_M, _block_reach_m(model)))

    def reach_goal(self, model: mujoco.MjModel, data: mujoco.MjData, goal: np.ndarray) -> None:
        """Put the block there, and the pusher straight out from its middle where it would be in the way."""
        data.qpos[_BLOCK] = _resting(goal)
        way = data.qpos[_PUSHER] - goal[:2]
        length_m = float(np.linalg.norm(way))
        direction = way / length_m if length_m > 0.0 else np.array([1.0, 0.0])
        while _overlaps(model, goal[:2] + length_m * direction, goal):
            length_m += _GAP_M
        data.qpos[_PUSHER] = goal[:2] + length_m * direction

    def achieved(self, readings: Readings) -> np.ndarray:
        """Where the block is: x, y, angle in [-pi, pi)."""
        return _achieved(readings)

    def is_solved(self, readings: Readings) -> np.ndarray:
        """Whether the block is within 0.04 m and 0.2 rad."""
        distance_m, angle_rad = self._errors(readings)
        return (distance_m <= REACHED_M) & (angle_rad <= REACHED_RAD)

    def goal(self, readings: Readings) -> np.ndarray:
        """x, y, angle in [-pi, pi)."""
        place = super().goal(readings)[..., :2]
        quat = readings.constant("body", GOAL_BODY, "quat")
        angle = _wrapped(2.0 * np.arctan2(quat[..., 3:], quat[..., :1]))
        return np.concatenate([place, np.broadcast_to(angle, (*place.shape[:-1], 1))], axis=-1)

    def write_goal(self, model: mujoco.MjModel, goal: np.ndarray) -> None:
        """Let the goal x, y, angle stand in the model."""
        super().write_goal(model, goal[:2])
        model.body(GOAL_BODY).quat[:] = np.cos(goal[2] / 2), 0.0, 0.0, np.sin(goal[2] / 2)

    def _errors(self, readings: Readings) -> tuple[np.ndarray, np.ndarray]:
        """Metres and radians from the block to its goal, [...] each."""
        error = _achieved(readings) - self.goal(readings)
        return np.linalg.norm(error[..., :2], axis=-1), np.abs(_wrapped(error[..., 2]))

    factors: ClassVar = {
        "mass": mass("block"),
        "friction": friction("foot_left", "foot_right", "foot_stem"),
        "size": size("block", "goal"),
        "hue": hue("bar", "stem"),
        "gravity": gravity(),
        "camera_height": camera_height("top"),
    }
    violations: ClassVar = {
        "teleport": teleport(_SLIDES, far_m=0.2, low=(-0.25, -0.25), high=(0.25, 0.25)),
        "vanish": vanish(_SLIDES),
        "freeze": freeze({"block": (*_SLIDES["block"], "block_angle")}, moving=_is_pushed),
        "pass_through": pass_through(
            {"pusher": ("pusher_x", "pusher_y")},
            meaning="the pusher goes through the block",
            is_due=_is_pushed,
        ),
        "recolor": recolor(["bar", "stem"]),
    }


def _achieved(readings: Readings) -> np.ndarray:
    x_y, angle = readings.qpos[..., 2:4], readings.qpos[..., 5:6]
    return np.concatenate([x_y, _wrapped(angle)], axis=-1)


def _sine_and_cosine(angle: np.ndarray) -> np.ndarray:
    return np.concatenate([np.sin(angle), np.cos(angle)], axis=-1)


def _wrapped(angle: np.ndarray) -> np.ndarray:
    """The same angle in [-pi, pi)."""
    return (angle + np.pi) % (2 * np.pi) - np.pi


def _draw_pose(rng: np.random.Generator, reach_m: float) -> np.ndarray:
    return np.array([*rng.uniform(-reach_m, reach_m, 2), rng.uniform(-np.pi, np.pi)])


def _resting(pose: np.ndarray) -> np.ndarray:
    """The block's x, y, z, angle on the table: its underside is where z = 0, whatever its size."""
    return np.array([pose[0], pose[1], 0.0, pose[2]])


def _boxes(model: mujoco.MjModel) -> tuple[np.ndarray, np.ndarray]:
    """Middles and half sizes of the block's two boxes from above, in its own frame: (2, 2) each."""
    boxes = [model.geom(name) for name in ("bar", "stem")]
    return np.array([box.pos[:2] for box in boxes]), np.array([box.size[:2] for box in boxes])


def _block_reach_m(model: mujoco.MjModel) -> float:
    """How far from the table's middle the block's own can be, for the pusher to fit beside it anyway."""
    middles, halves = _boxes(model)
    radius_m = float(np.linalg.norm(np.abs(middles) + halves, axis=-1).max())
    return _PUSHER_REACH_M - radius_m - float(model.geom("pusher").size[0]) - _GAP_M


def _overlaps(model: mujoco.MjModel, place: np.ndarray, pose: np.ndarray) -> bool:
    """Whether a pusher at `place` is less than a gap from a block at `pose`."""
    middles, halves = _boxes(model)
    cosine, sine = np.cos(pose[2]), np.sin(pose[2])
    seen = np.array([[cosine, sine], [-sine, cosine]]) @ (place - pose[:2])  # from the block's frame
    outside = np.maximum(np.abs(seen - middles) - halves, 0.0)
    away_m = float(np.linalg.norm(outside, axis=-1).min())
    return away_m < float(model.geom("pusher").size[0]) + _GAP_M
