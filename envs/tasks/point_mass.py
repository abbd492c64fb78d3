"""point-mass-easy and point-mass-hard."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from envs.batch_task import Readings, Sensor, small_control, tolerance
from envs.suite import SuiteTask


@dataclass(frozen=True)
class PointMass(SuiteTask):
    """Push a ball to the middle; in the hard task each episode's model mixes the two motors."""

    domain = "point_mass"
    added_sensors: ClassVar = {
        "mass_position": Sensor("framepos", "geom", "pointmass"),
    }
    drawn_fields: ClassVar = ("wrap_prm",)

    def observe(self, readings: Readings) -> np.ndarray:
        """Position and velocity: O = 4."""
        return np.concatenate([readings.qpos, readings.qvel], axis=-1)

    def reward(self, readings: Readings) -> np.ndarray:
        """Near the target, with little force."""
        to_target = readings.constant("geom", "target", "pos") - readings.sensor("mass_position")
        radius = readings.constant("geom", "target", "size")[..., 0]
        outside = np.maximum(np.linalg.norm(to_target, axis=-1) - radius, 0.0)
        return tolerance(outside / radius, margin=1.0) * small_control(readings)
