"""What the loop knows of a robot: it is seen, it is told what to do, and it can be stopped."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Sighting:
    """What a robot's sensors saw at one tick of its clock.

    - `step`: which tick, from 0; a robot that cannot count may divide its time by the control period.
    - `time_s`: when, by `time.monotonic()` of this machine.
    - `observation`: {`state`: float32 (O,), `pixels`: uint8 (C, H, W)}, or one of them.
    - `physics_state`: the simulator's own state, where there is one.
    """

    step: int
    time_s: float
    observation: Mapping[str, np.ndarray]
    physics_state: np.ndarray | None = None


@runtime_checkable
class RobotInterface(Protocol):
    """A robot that moves on its own clock, whether or not it is told what to do.

    At each tick, `control_period_s` apart, it is seen, and does until the next tick what it was told last.
    Wrap your own robot's driver in a class like this (docs/realtime.md has an example).

    - `low`, `high`: the limits of its actuators (A,), in their own units.
    - `readable`: what `multiprocessing.connection.wait` can wait for until `read` has something: a
      connection, a socket or a file descriptor.
    """

    control_period_s: float
    low: np.ndarray
    high: np.ndarray

    @property
    def readable(self) -> Any:
        """What can be waited for."""

    @property
    def is_over(self) -> bool:
        """Whether it stands still for good: the episode is over, or it was stopped."""

    def start(self) -> Sighting:
        """Get ready, and be seen for the first time; the clock starts with the first `send`."""

    def read(self) -> Sighting | None:
        """The next sighting that has come in and was not read yet; None if there is none. Never waits."""

    def send(self, action: np.ndarray) -> None:
        """What to do from the next tick on: (A,), in the actuators' units. Never waits."""

    def stop(self) -> None:
        """Emergency stop: come to rest, and listen to no action until it is started again. Never waits."""

    def close(self) -> None:
        """Let go of it; it stops."""
