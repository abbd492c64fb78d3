"""humanoid-stand, humanoid-walk and humanoid-run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from envs.batch_task import Readings, Sensor, small_control, tolerance
from envs.suite import SuiteTask

_STAND_HEIGHT_M = 1.4
_EXTREMITIES = ("left_hand", "left_foot", "right_hand", "right_foot")


@dataclass(frozen=True)
class Humanoid(SuiteTask):
    """A humanoid of 21 joints that stands (speed 0) or moves in any direction."""

    domain = "humanoid"
    added_sensors: ClassVar = {
        "head_position": Sensor("framepos", "xbody", "head"),
        **{name: Sensor("framepos", "xbody", name, seen_from="torso") for name in _EXTREMITIES},
    }
    speed_m_s: float

    def observe(self, readings: Readings) -> np.ndarray:
        """Joint angles, head height, hands and feet seen from the torso, vertical, velocities: O = 67."""
        parts = (
            readings.qpos[..., 7:],
            readings.sensor("head_position")[..., 2:],
            readings.sensors(*_EXTREMITIES),
            _vertical(readings),
            readings.sensor("torso_subtreelinvel"),
            readings.qvel,
        )
        return np.concatenate(parts, axis=-1)

    def reward(self, readings: Readings) -> np.ndarray:
        """Head high, torso upright, little effort; times the speed, or else times standing still."""
        height = readings.sensor("head_position")[..., 2]
        standing = tolerance(height, (_STAND_HEIGHT_M, np.inf), margin=_STAND_HEIGHT_M / 4)
        upright = tolerance(
            _vertical(readings)[..., 2], (0.9, np.inf), margin=1.9, value_at_margin=0.0, sigmoid="linear"
        )
        quiet = standing * upright * small_control(readings)
        velocity = readings.sensor("torso_subtreelinvel")[..., :2]
        if self.speed_m_s == 0.0:
            return quiet * tolerance(velocity, margin=2.0).mean(axis=-1)
        moving = tolerance(
            np.linalg.norm(velocity, axis=-1),
            (self.speed_m_s, np.inf),
            margin=self.speed_m_s,
            value_at_margin=0.0,
            sigmoid="linear",
        )
        return quiet * (5.0 * moving + 1.0) / 6.0


def _vertical(readings: Readings) -> np.ndarray:
    """The world's vertical in the torso's frame: the last row of its rotation matrix, [..., 3]."""
    quaternion = readings.qpos[..., 3:7]
    w, x, y, z = np.moveaxis(quaternion / np.linalg.norm(quaternion, axis=-1, keepdims=True), -1, 0)
    return np.stack([2 * (x * z - w * y), 2 * (y * z + w * x), w * w - x * x - y * y + z * z], axis=-1)
