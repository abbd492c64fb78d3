"""What goes wrong on robots, asked for: late and lost observations, slow actuators, a planner that hangs."""

from dataclasses import dataclass, fields

from worldmodel.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Faults:
    """Each is off at 0.

    - `observation_delay_s`: between a tick and the moment at which its observation can be read.
    - `late_share`: of the observations come a control period later still, after the next one has been seen.
    - `dropped_share`: of the observations never come.
    - `action_delay_s`: before a command has an effect.
    - `stall_s`, `stall_every_s`: the planner hangs for so long, once in so many seconds of control.
    """

    observation_delay_s: float = 0.0
    late_share: float = 0.0
    dropped_share: float = 0.0
    action_delay_s: float = 0.0
    stall_s: float = 0.0
    stall_every_s: float = 1.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name.endswith("_share") and not 0 <= value < 1:
                raise ConfigError(f"faults.{field.name}={value}: must be at least 0 and below 1")
            if not 0 <= value < float("inf"):
                raise ConfigError(f"faults.{field.name}={value}: must be at least 0 seconds")
        if self.stall_s and not self.stall_every_s > self.stall_s:
            raise ConfigError(
                f"faults.stall_every_s={self.stall_every_s}: must be longer than a stall, "
                f"stall_s={self.stall_s}"
            )
