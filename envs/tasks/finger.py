"""finger-spin, finger-turn-easy and finger-turn-hard."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from envs.batch_task import Readings
from envs.suite import SuiteTask

_MAX_SPIN_VELOCITY_RAD_S = -15.0
_VELOCITIES = ("proximal_velocity", "distal_velocity", "hinge_velocity")


@dataclass(frozen=True)
class FingerSpin(SuiteTask):
    """Spin a hinged body with a finger of two links."""

    domain = "finger"

    def observe(self, readings: Readings) -> np.ndarray:
        """Joint angles, tip position, velocities, logarithm of the touch forces: O = 9."""
        position = [readings.sensors("proximal", "distal"), _from_hinge(readings, "tip")]
        touch = np.log1p(readings.sensors("touchtop", "touchbottom"))
        return np.concatenate([*position, readings.sensors(*_VELOCITIES), touch], axis=-1)

    def reward(self, readings: Readings) -> np.ndarray:
        """1 where the body spins fast enough in the wanted sense, else 0."""
        velocity = readings.sensor("hinge_velocity")[..., 0]
        return (velocity <= _MAX_SPIN_VELOCITY_RAD_S).astype(np.float64)


@dataclass(frozen=True)
class FingerTurn(FingerSpin):
    """Turn the body until its tip is in the target, whose place and size stand in the model."""

    drawn_fields: ClassVar = ("site_pos",)

    def observe(self, readings: Readings) -> np.ndarray:
        """As spin, then the target's position and the distance to its surface: O = 12."""
        parts = [super().observe(readings), _from_hinge(readings, "target"), _distance(readings)[..., None]]
        return np.concatenate(parts, axis=-1)

    def reward(self, readings: Readings) -> np.ndarray:
        """1 where the tip is inside the target, else 0."""
        return (_distance(readings) <= 0.0).astype(np.float64)


def _from_hinge(readings: Readings, name: str) -> np.ndarray:
    """Where a site is, seen from the hinge, in the plane of motion (x, z)."""
    return (readings.sensor(name) - readings.sensor("spinner"))[..., [0, 2]]


def _distance(readings: Readings) -> np.ndarray:
    to_target = _from_hinge(readings, "target") - _from_hinge(readings, "tip")
    return np.linalg.norm(to_target, axis=-1) - readings.constant("site", "target", "size")[..., 0]
