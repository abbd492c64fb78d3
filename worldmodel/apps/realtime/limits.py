"""What an actuator may be told: the last thing that is enforced before an action leaves."""

from dataclasses import dataclass

import numpy as np

from worldmodel.errors import ConfigError


@dataclass(frozen=True)
class ActionLimits:
    """Limits of actions and of how fast they change, in the actuators' own units.

    - `low`, `high` (A,): what -1 and 1 stand for.
    - `reach`: share of that range which may be used, around its middle; 1: all.
    - `max_rate` (A,): change in a second, at most; None: any.

    Errors: `ConfigError` for limits that leave nothing.
    """

    low: np.ndarray
    high: np.ndarray
    reach: float = 1.0
    max_rate: np.ndarray | None = None

    def __post_init__(self) -> None:
        if not 0 < self.reach <= 1:
            raise ConfigError(f"loop.reach={self.reach}: must be above 0 and at most 1, a share of the range")
        if self.max_rate is None:
            return
        if self.max_rate.shape not in ((), (1,), self.low.shape):
            raise ConfigError(
                f"loop.max_rate has {self.max_rate.size} numbers: give one for all actuators, or one for "
                f"each of the {self.low.size}"
            )
        if not (self.max_rate > 0).all():
            raise ConfigError(f"loop.max_rate={self.max_rate.tolist()}: must be above 0, in units per second")

    def to_units(self, action: np.ndarray) -> np.ndarray:
        """An action in [-1, 1] in the actuators' units."""
        return self.low + (np.asarray(action, np.float64) + 1) / 2 * (self.high - self.low)

    def from_units(self, command: np.ndarray) -> np.ndarray:
        """A command as an action in [-1, 1]."""
        return ((command - self.low) / (self.high - self.low) * 2 - 1).astype(np.float32)

    def apply(self, action: np.ndarray, previous: np.ndarray, period_s: float) -> np.ndarray:
        """The command for an action in [-1, 1], as near as may be after the `previous` command.

        An action that is not finite becomes the previous command.
        """
        wanted = self.to_units(action)
        wanted = np.where(np.isfinite(wanted), wanted, previous)
        middle, half = (self.low + self.high) / 2, (self.high - self.low) / 2 * self.reach
        command = np.clip(wanted, middle - half, middle + half)
        if self.max_rate is None:
            return command
        step = self.max_rate * period_s
        return np.clip(command, previous - step, previous + step)
