"""reacher-easy and reacher-hard."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from envs.batch_task import Readings, Sensor
from envs.suite import SuiteTask


@dataclass(frozen=True)
class Reacher(SuiteTask):
    """Hold the tip of a two-link arm on a target, whose place and size stand in the model."""

    domain = "reacher"
    added_sensors: ClassVar = {
        "finger_position": Sensor("framepos", "geom", "finger"),
    }
    drawn_fields: ClassVar = ("geom_pos",)

    def observe(self, readings: Readings) -> np.ndarray:
        """Joint angles, vector from the finger to the target, joint velocities: O = 6."""
        return np.concatenate([readings.qpos, _to_target(readings), readings.qvel], axis=-1)

    def reward(self, readings: Readings) -> np.ndarray:
        """1 where finger and target touch, else 0."""
        target, finger = (readings.constant("geom", name, "size")[..., 0] for name in ("target", "finger"))
        return (np.linalg.norm(_to_target(readings), axis=-1) <= target + finger).astype(np.float64)


def _to_target(readings: Readings) -> np.ndarray:
    return (readings.constant("geom", "target", "pos") - readings.sensor("finger_position"))[..., :2]
