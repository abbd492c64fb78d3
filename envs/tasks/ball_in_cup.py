"""ball-in-cup-catch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from envs.batch_task import Readings, Sensor
from envs.suite import SuiteTask


@dataclass(frozen=True)
class BallInCup(SuiteTask):
    """Swing a ball on a string into the cup."""

    domain = "ball_in_cup"
    added_sensors: ClassVar = {
        "ball_position": Sensor("framepos", "xbody", "ball"),
        "target_position": Sensor("framepos", "site", "target"),
    }

    def observe(self, readings: Readings) -> np.ndarray:
        """Positions and velocities of cup and ball: O = 8."""
        return np.concatenate([readings.qpos, readings.qvel], axis=-1)

    def reward(self, readings: Readings) -> np.ndarray:
        """1 where the whole ball is in the cup, else 0."""
        to_target = readings.sensor("target_position") - readings.sensor("ball_position")
        room = (
            readings.constant("site", "target", "size") - readings.constant("geom", "ball", "size")[..., :1]
        )
        return (np.abs(to_target) < room)[..., [0, 2]].all(axis=-1).astype(np.float64)
