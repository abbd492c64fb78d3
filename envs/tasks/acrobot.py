"""acrobot-swingup, also with a sparse reward."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from envs.batch_task import Readings, Sensor, tolerance
from envs.suite import SuiteTask


@dataclass(frozen=True)
class Acrobot(SuiteTask):
    """Bring the tip of two links to the target above, with a motor in the elbow alone."""

    domain = "acrobot"
    added_sensors: ClassVar = {
        "tip_position": Sensor("framepos", "site", "tip"),
    }
    is_sparse: bool

    def observe(self, readings: Readings) -> np.ndarray:
        """Sines, then cosines of both links' angles to the vertical, velocities: O = 6."""
        angles = np.cumsum(readings.qpos, axis=-1)
        return np.concatenate([np.sin(angles), np.cos(angles), readings.qvel], axis=-1)

    def reward(self, readings: Readings) -> np.ndarray:
        """1 where the tip is inside the target, falling with the distance unless sparse."""
        to_target = readings.constant("site", "target", "pos") - readings.sensor("tip_position")
        radius = readings.constant("site", "target", "size")[..., 0]
        outside = np.maximum(np.linalg.norm(to_target, axis=-1) - radius, 0.0)
        return tolerance(outside, margin=0.0 if self.is_sparse else 1.0)
