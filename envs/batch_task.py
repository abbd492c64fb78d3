"""What a task means, for many states at once: `Readings` in, observations and rewards out.

    readings = physics.rollout(simulations, controls)   # envs/physics.py
    rewards = batch_task("cheetah-run").reward(readings)

dm_control computes observations and rewards of one state at a time, from Python. The tasks in `envs/tasks/`
compute the same numbers for a whole batch of states.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, TypeAlias

import numpy as np

from envs.errors import EnvError

if TYPE_CHECKING:
    import mujoco


@dataclass(frozen=True)
class Sensor:
    """A quantity that MuJoCo shall compute in each physics step.

    Attributes:
        kind: MuJoCo's name of the sensor: `framepos`, `subtreelinvel`, ... (mjSENS_...).
        object_kind: `xbody`, `body` (its centre of mass), `geom`, `site`, ... (mjOBJ_...).
        name: of the object.
        seen_from: body whose frame a position or an orientation is given in; None is the world's.
    """

    kind: str
    object_kind: str
    name: str
    seen_from: str | None = None


@dataclass(frozen=True)
class SensorPlace:
    """Where a sensor stands in `sensordata`, and whether MuJoCo computes it with the accelerations."""

    entries: slice
    is_acceleration_stage: bool


Constants: TypeAlias = Callable[[str, str, str], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Readings:
    """What was read from the simulations at the end of control steps.

    The leading axes are the same everywhere: environment first, then (of a rollout) candidate and control
    step, B x N x T.

    Attributes:
        qpos: float64 [..., nq].
        qvel: float64 [..., nv].
        control: float64 [..., nu], the control in force, in the actuators' own units.
        diverged: bool [...], whether the simulation has broken down by then: the other entries mean nothing.
        sensordata: float64 [..., S], of the state itself.
        acceleration_sensordata: float64 [..., S], of the physics step that led to the state. That is what
            dm_control shows of touch, force and acceleration sensors.
        places: sensor name -> where it stands.
        constants: of the environments' models: (kind, name, attribute) -> float64 (B, dim), or (1, dim) where
            all have the same.
    """

    qpos: np.ndarray
    qvel: np.ndarray
    control: np.ndarray
    diverged: np.ndarray
    sensordata: np.ndarray
    acceleration_sensordata: np.ndarray
    places: Mapping[str, SensorPlace]
    constants: Constants

    def sensor(self, name: str) -> np.ndarray:
        """Values of one sensor, float64 [..., dim]."""
        place = self.places[name]
        values = self.acceleration_sensordata if place.is_acceleration_stage else self.sensordata
        return values[..., place.entries]

    def sensors(self, *names: str) -> np.ndarray:
        """Values of several sensors side by side, float64 [..., sum of dims]."""
        return np.concatenate([self.sensor(name) for name in names], axis=-1)

    def constant(self, kind: str, name: str, attribute: str) -> np.ndarray:
        """A constant of each environment's model: `constant("geom", "target", "size")`.

        Float64 [B, 1, ..., dim], which broadcasts against the other arrays.
        """
        rows = self.constants(kind, name, attribute)
        return rows.reshape(len(rows), *(1,) * (self.qpos.ndim - 2), -1)

    def steps(self, chosen: slice) -> Readings:
        """The same of some control steps (the last leading axis), as views."""
        arrays = ("qpos", "qvel", "control", "sensordata", "acceleration_sensordata")
        changed = {name: getattr(self, name)[..., chosen, :] for name in arrays}
        return replace(self, diverged=self.diverged[..., chosen], **changed)


def model_constant(model: mujoco.MjModel, kind: str, name: str, attribute: str) -> np.ndarray:
    """An attribute of one named thing in a model, as a float64 vector. Errors: `EnvError` for none."""
    try:
        named = getattr(model, kind)(name)
    except KeyError as error:
        raise EnvError(f"the task's MJCF has no {kind} {name!r}, which the task needs") from error
    return np.ravel(np.asarray(getattr(named, attribute), np.float64))


def constants_of(models: Sequence[mujoco.MjModel]) -> Constants:
    """The constants of environments with a model each."""
    return lambda *path: np.stack([model_constant(model, *path) for model in models])


class BatchTask(ABC):
    """Observation and reward of one task for any number of states; holds the task's numbers, no state.

    Attributes:
        added_sensors: what is to be computed beside the model's own sensors, by a name of its own.
        drawn_fields: arrays of the model (`geom_pos`) into which each new episode draws.
    """

    added_sensors: ClassVar[Mapping[str, Sensor]] = {}
    drawn_fields: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def load_spec(self) -> mujoco.MjSpec:
        """The task's model, still open to changes: `compile()` makes it an MjModel."""

    @abstractmethod
    def observe(self, readings: Readings) -> np.ndarray:
        """The `state` observation, in the order that `envs.make` gives: float64 [..., O]."""

    @abstractmethod
    def reward(self, readings: Readings) -> np.ndarray:
        """Reward of the control step that ended in these states: float64 [...]."""


def tolerance(
    x: np.ndarray,
    bounds: tuple[float, float] = (0.0, 0.0),
    *,
    margin: float = 0.0,
    value_at_margin: float = 0.1,
    sigmoid: str = "gaussian",
) -> np.ndarray:
    """dm_control's soft indicator of `x` within `bounds`, elementwise: 1 inside, falling outside.

    Source: Tassa et al. 2018, "DeepMind Control Suite", arXiv 1801.00690, section 2.
    """
    from dm_control.utils import rewards

    return rewards.tolerance(
        x, bounds=bounds, margin=margin, value_at_margin=value_at_margin, sigmoid=sigmoid
    )


def small_control(readings: Readings) -> np.ndarray:
    """The suite's reward for little effort: 1 without control, 0.8 with all of it; [...]."""
    effort = tolerance(readings.control, margin=1.0, value_at_margin=0.0, sigmoid="quadratic")
    return (4.0 + effort.mean(axis=-1)) / 5.0
