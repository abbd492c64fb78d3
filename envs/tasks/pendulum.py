"""pendulum-swingup."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from envs.batch_task import Readings, tolerance
from envs.suite import SuiteTask

_MIN_COSINE = float(np.cos(np.deg2rad(8.0)))


@dataclass(frozen=True)
class Pendulum(SuiteTask):
    """Swing the pole up with a motor that is too weak to lift it."""

    domain = "pendulum"

    def observe(self, readings: Readings) -> np.ndarray:
        """Cosine and sine of the angle, velocity: O = 3."""
        return np.concatenate([np.cos(readings.qpos), np.sin(readings.qpos), readings.qvel], axis=-1)

    def reward(self, readings: Readings) -> np.ndarray:
        """1 within 8 degrees of upright, else 0."""
        return tolerance(np.cos(readings.qpos[..., 0]), (_MIN_COSINE, 1.0))
