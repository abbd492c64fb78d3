"""cartpole-balance, cartpole-swingup, and both with sparse rewards."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from envs.batch_task import Readings, small_control, tolerance
from envs.suite import SuiteTask

_CART_RANGE_M = (-0.25, 0.25)
_ANGLE_COSINE_RANGE = (0.995, 1.0)


@dataclass(frozen=True)
class Cartpole(SuiteTask):
    """Keep the pole up and the cart in the middle; how it starts makes the difference between the tasks."""

    domain = "cartpole"
    is_sparse: bool

    def observe(self, readings: Readings) -> np.ndarray:
        """Cart position, cosine and sine of the pole's angle, velocities: O = 5."""
        cart, angle = readings.qpos[..., :1], readings.qpos[..., 1:]
        return np.concatenate([cart, np.cos(angle), np.sin(angle), readings.qvel], axis=-1)

    def reward(self, readings: Readings) -> np.ndarray:
        """Upright, centred, slow and with little force; sparse: 1 within narrow bounds."""
        cart, upright = readings.qpos[..., 0], np.cos(readings.qpos[..., 1])
        if self.is_sparse:
            return tolerance(cart, _CART_RANGE_M) * tolerance(upright, _ANGLE_COSINE_RANGE)
        centred = (1.0 + tolerance(cart, margin=2.0)) / 2.0
        slow = (1.0 + tolerance(readings.qvel[..., 1], margin=5.0)) / 2.0
        return (upright + 1.0) / 2.0 * small_control(readings) * slow * centred
