"""A task whose model is ours: an MJCF file, what an episode draws, what its goal is, what may vary.

    class Push(MjcfTask): ...           # envs/tasks/push.py, beside push.xml
    env = envs.make("push", factors={"mass": 2.0, "friction": [0.5, 1.5]})

A goal is a vector (G,) that stands in the model, as the place of a body `goal`: it is drawn apart from the
start, and never reached by it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from envs.batch_task import BatchTask, Readings
from envs.factors import Factor
from envs.mjcf_file import load_spec
from envs.violations import Violation

if TYPE_CHECKING:
    import mujoco

GOAL_BODY = "goal"
GOAL_GROUP = 4  # of the geoms that mark a goal: people see them in videos, agents do not


class MjcfTask(BatchTask):
    """A task of our own; holds its numbers, no state.

    Attributes:
        name: what `envs.make` finds it by, and its MJCF file in `envs/tasks`.
        control_period_s: seconds of one env step.
        num_env_steps: until truncation; such a task never ends by itself.
        factors: what may vary, by name.
        violations: what physics forbids, by name.
    """

    name: ClassVar[str]
    control_period_s: ClassVar[float]
    num_env_steps: ClassVar[int]
    factors: ClassVar[Mapping[str, Factor]] = {}
    violations: ClassVar[Mapping[str, Violation]] = {}
    drawn_fields: ClassVar = ("body_pos", "body_quat")  # where the goal's body is

    @property
    def path(self) -> Path:
        """The MJCF file."""
        return Path(__file__).parent / "tasks" / f"{self.name}.xml"

    def load_spec(self) -> mujoco.MjSpec:
        """The model of the MJCF file. Errors: `EnvError`, as `load_spec`."""
        return load_spec(self.path)

    @abstractmethod
    def draw_start(self, model: mujoco.MjModel, data: mujoco.MjData, rng: np.random.Generator) -> None:
        """Put data that were just reset where an episode starts."""

    @abstractmethod
    def draw_goal(self, model: mujoco.MjModel, data: mujoco.MjData, rng: np.random.Generator) -> np.ndarray:
        """A goal (G,), for the episode that starts at `data`; drawn again where the start has reached it."""

    @abstractmethod
    def reach_goal(self, model: mujoco.MjModel, data: mujoco.MjData, goal: np.ndarray) -> None:
        """Put `data` where the goal is reached, at rest, as little changed as that allows."""

    @abstractmethod
    def achieved(self, readings: Readings) -> np.ndarray:
        """What a state has reached, as a goal: [..., G]."""

    @abstractmethod
    def is_solved(self, readings: Readings) -> np.ndarray:
        """Whether a state has reached the goal that stands in the model: bool [...]."""

    def to_play(self, state: np.ndarray) -> np.ndarray:
        """Of observations (..., O), the actions (..., A) of length 1 that go at what can be moved.

        For tasks in which noise alone would hardly touch anything.
        """
        raise NotImplementedError

    def goal(self, readings: Readings) -> np.ndarray:
        """The goal that stands in the model, [..., G]: by default the place of the goal's body, G = 3."""
        place = readings.constant("body", GOAL_BODY, "pos")
        return np.broadcast_to(place, (*readings.qpos.shape[:-1], place.shape[-1]))

    def write_goal(self, model: mujoco.MjModel, goal: np.ndarray) -> None:
        """Let the goal (G,) stand in the model."""
        model.body(GOAL_BODY).pos[: len(goal)] = goal
