"""walker-stand, walker-walk and walker-run."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from envs.batch_task import Readings, tolerance
from envs.suite import SuiteTask

_STAND_HEIGHT_M = 1.2


@dataclass(frozen=True)
class Walker(SuiteTask):
    """A planar biped that stands (speed 0) or moves forward; all its joints turn in one plane."""

    domain = "walker"
    speed_m_s: float

    def observe(self, readings: Readings) -> np.ndarray:
        """Cosine and sine of each body's angle, torso height, velocities: O = 24."""
        torso, joints = readings.qpos[..., 2:3], readings.qpos[..., 3:]
        # Thigh, leg, foot: each turns against the one above it, in the opposite sense of the torso's hinge.
        right = torso - np.cumsum(joints[..., :3], axis=-1)
        left = torso - np.cumsum(joints[..., 3:], axis=-1)
        angles = np.concatenate([torso, right, left], axis=-1)
        pairs = np.stack([np.cos(angles), np.sin(angles)], axis=-1).reshape(*angles.shape[:-1], -1)
        return np.concatenate([pairs, _height(readings)[..., None], readings.qvel], axis=-1)

    def reward(self, readings: Readings) -> np.ndarray:
        """Torso high and upright; times the forward speed unless it shall stand."""
        high = tolerance(_height(readings), (_STAND_HEIGHT_M, np.inf), margin=_STAND_HEIGHT_M / 2)
        upright = (1.0 + np.cos(readings.qpos[..., 2])) / 2.0
        standing = (3.0 * high + upright) / 4.0
        if self.speed_m_s == 0.0:
            return standing
        moving = tolerance(
            readings.sensor("torso_subtreelinvel")[..., 0],
            (self.speed_m_s, np.inf),
            margin=self.speed_m_s / 2,
            value_at_margin=0.5,
            sigmoid="linear",
        )
        return standing * (5.0 * moving + 1.0) / 6.0


def _height(readings: Readings) -> np.ndarray:
    return readings.constant("body", "torso", "pos")[..., 2] + readings.qpos[..., 0]
