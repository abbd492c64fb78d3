"""Gravity, mass and friction of a running simulation, turned while it is played.

    live = LiveFactors(env.simulation)
    live.set("gravity", 2.0)

Any MuJoCo task has these three. What an episode itself draws into the model stays as it is drawn.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import TypeVar

from envs.errors import EnvError
from envs.factors import PHYSICS, Factor, Variation
from envs.simulation import Simulation

Result = TypeVar("Result")


class LiveFactors:
    """Factors of a whole simulation; 1 is as it was.

    Attributes:
        factors: by name: `gravity`, `mass` of all that moves, `friction` of all surfaces.
        values: what they are now.
    """

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._usual = copy.copy(simulation.model)
        self._variation = Variation(PHYSICS, {}, {})
        self.factors: Mapping[str, Factor] = PHYSICS
        self.values = {name: factor.default for name, factor in self.factors.items()}
        self._applied = dict(self.values)

    def set(self, name: str, value: int | float) -> None:
        """Turn one of them. Errors: `EnvError` for one that there is not, or beyond its bounds."""
        if name not in self.factors:
            raise EnvError(f"there is no factor {name!r} to turn; there are {', '.join(self.factors)}")
        factor = self.factors[name]
        if not factor.low <= value <= factor.high:
            raise EnvError(
                f"{name}={value:g}: must be from {factor.low:g} to {factor.high:g} ({factor.meaning})"
            )
        self.values[name] = float(value)
        self._apply(self.values)

    def as_usual_during(self, reset: Callable[[], Result]) -> Result:
        """Start an episode by `reset` as it always starts, then turn the factors again.

        What the episode draws into the model is what the factors change then.
        """
        self._apply({name: factor.default for name, factor in self.factors.items()})
        result = reset()
        self._usual = copy.copy(self._simulation.model)
        self._apply(self.values)
        return result

    def _apply(self, values: Mapping[str, float]) -> None:
        import mujoco

        if values == self._applied:  # who never turns anything has the very model that was compiled
            return
        model = self._simulation.model
        self._variation.apply(model, self._usual, values)
        mujoco.mj_forward(model, self._simulation.data)  # what the next step starts from
        self._applied = dict(values)
