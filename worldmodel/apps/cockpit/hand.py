"""A hand that disturbs the robot: pushes of so many newtons for so long, or a pull towards a point."""

from __future__ import annotations

import math

import numpy as np

import envs
from worldmodel.apps.cockpit.kinematics import body_names, moving_bodies
from worldmodel.errors import ConfigError

_GRAVITY_M_S2 = 9.81
_PULL_STRETCH_M = 0.25  # at which a pull is as strong as the robot is heavy
_MAX_PULL = 5.0  # times the robot's weight


class Hand:
    """Forces from outside, which no planner knows of.

    Attributes:
        body: the name of the body that is pushed or pulled; at first the root of all that moves.
        weight_n: what all that moves weighs on Earth.
    """

    def __init__(self, simulation: envs.Simulation) -> None:
        self._simulation = simulation
        model = simulation.model
        self._bodies = body_names(model)
        self.weight_n = float(model.body_mass[moving_bodies(model)].sum()) * _GRAVITY_M_S2
        self.body = next(iter(self._bodies))
        self._force, self._num_steps = np.zeros(3), 0
        self._target: np.ndarray | None = None

    @property
    def bodies(self) -> list[str]:
        """The names of what can be pushed."""
        return list(self._bodies)

    @property
    def body_index(self) -> int:
        """Of the body that is pushed, in the model."""
        return self._bodies[self.body]

    @property
    def place(self) -> np.ndarray:
        """The centre of mass (3,) of the body that is pushed."""
        return self._simulation.data.xipos[self.body_index].copy()

    @property
    def force(self) -> np.ndarray:
        """What acts in the coming step (3,), in N."""
        force = self._force if self._num_steps else np.zeros(3)
        if self._target is not None:
            force = force + self._pull(self._target)
        return force

    def choose(self, body: str) -> None:
        """Another body. Errors: `ConfigError` for one that is not there."""
        if body not in self._bodies:
            raise ConfigError(f"there is no body {body!r} that moves. Known: {', '.join(self._bodies)}")
        self.release()
        self.body = body

    def push(self, force: np.ndarray, duration_s: float, period_s: float) -> None:
        """Push with a force (3,) in N, in world coordinates, for so many seconds of the robot's time.

        At least for one step of `period_s`. Errors: `ConfigError` for what is no force or duration.
        """
        vector = np.asarray(force, np.float64)
        if vector.shape != (3,) or not np.isfinite(vector).all():
            raise ConfigError(f"a push is a force of 3 finite numbers in N, got {vector.tolist()}")
        if not (math.isfinite(duration_s) and duration_s > 0):
            raise ConfigError(f"a push takes more than 0 seconds, got {duration_s}")
        self._force, self._num_steps = vector, max(1, round(duration_s / period_s))

    def pull(self, target: np.ndarray) -> None:
        """Pull towards a point (3,), the harder the farther, until `release`."""
        self._target = np.asarray(target, np.float64)

    def release(self) -> None:
        """No force any more."""
        self._target, self._num_steps = None, 0

    def hold(self) -> np.ndarray:
        """Let the force act in the step that follows; returns it (3,)."""
        force = self.force
        self._simulation.data.xfrc_applied[:] = 0.0
        self._simulation.data.xfrc_applied[self.body_index, :3] = force
        self._num_steps = max(0, self._num_steps - 1)
        return force

    def let_go(self) -> None:
        """After the step: nothing stays on the simulation."""
        self._simulation.data.xfrc_applied[:] = 0.0

    def _pull(self, target: np.ndarray) -> np.ndarray:
        force = (target - self.place) * self.weight_n / _PULL_STRETCH_M
        size = float(np.linalg.norm(force))
        return force * min(1.0, _MAX_PULL * self.weight_n / max(size, 1e-9))
