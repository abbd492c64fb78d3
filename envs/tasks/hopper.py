"""hopper-stand and hopper-hop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from envs.batch_task import Readings, Sensor, small_control, tolerance
from envs.suite import SuiteTask

_STAND_HEIGHT_M = (0.6, 2.0)
_HOP_SPEED_M_S = 2.0


@dataclass(frozen=True)
class Hopper(SuiteTask):
    """A planar robot with one leg that stands or hops forward."""

    domain = "hopper"
    added_sensors: ClassVar = {
        "torso_centre": Sensor("framepos", "body", "torso"),
        "foot_centre": Sensor("framepos", "body", "foot"),
    }
    is_hopping: bool

    def observe(self, readings: Readings) -> np.ndarray:
        """Positions without the horizontal one, velocities, logarithm of the touch forces: O = 15."""
        touch = np.log1p(readings.sensors("touch_toe", "touch_heel"))
        return np.concatenate([readings.qpos[..., 1:], readings.qvel, touch], axis=-1)

    def reward(self, readings: Readings) -> np.ndarray:
        """Torso well above the foot; times the forward speed, or else times little effort."""
        height = readings.sensor("torso_centre")[..., 2] - readings.sensor("foot_centre")[..., 2]
        standing = tolerance(height, _STAND_HEIGHT_M)
        if not self.is_hopping:
            return standing * small_control(readings)
        hopping = tolerance(
            readings.sensor("torso_subtreelinvel")[..., 0],
            (_HOP_SPEED_M_S, np.inf),
            margin=_HOP_SPEED_M_S / 2,
            value_at_margin=0.5,
            sigmoid="linear",
        )
        return standing * hopping
