"""cheetah-run."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from envs.batch_task import Readings, tolerance
from envs.suite import SuiteTask

_RUN_SPEED_M_S = 10.0


@dataclass(frozen=True)
class Cheetah(SuiteTask):
    """Run forward, as fast as possible up to 10 m/s."""

    domain = "cheetah"

    def observe(self, readings: Readings) -> np.ndarray:
        """Positions without the horizontal one, velocities: O = 17."""
        return np.concatenate([readings.qpos[..., 1:], readings.qvel], axis=-1)

    def reward(self, readings: Readings) -> np.ndarray:
        """Proportional to the speed of the centre of mass, up to 1."""
        return tolerance(
            readings.sensor("torso_subtreelinvel")[..., 0],
            (_RUN_SPEED_M_S, np.inf),
            margin=_RUN_SPEED_M_S,
            value_at_margin=0.0,
            sigmoid="linear",
        )
