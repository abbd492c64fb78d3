"""The MuJoCo simulation inside an environment: its physics state, and whether it diverged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from envs.errors import EnvError

if TYPE_CHECKING:
    import mujoco


@dataclass(frozen=True)
class Simulation:
    """Native MuJoCo structs of one environment, shared with it (not copies).

    Attributes:
        model: mujoco.MjModel
        data: mujoco.MjData
    """

    model: mujoco.MjModel
    data: mujoco.MjData

    def state(self) -> np.ndarray:
        """Full integration state: float64 vector, mjSTATE_INTEGRATION (time, qpos, qvel, act, ...)."""
        import mujoco

        spec = mujoco.mjtState.mjSTATE_INTEGRATION.value
        state = np.empty(mujoco.mj_stateSize(self.model, spec))
        mujoco.mj_getState(self.model, self.data, state, spec)
        return state

    def set_state(self, state: np.ndarray) -> None:
        """Put the simulation into a state that `state` returned, and bring derived quantities up to date.

        Raises:
            EnvError: wrong size, or not finite.
        """
        import mujoco

        spec = mujoco.mjtState.mjSTATE_INTEGRATION.value
        vector = np.ascontiguousarray(state, dtype=np.float64)
        size = mujoco.mj_stateSize(self.model, spec)
        if vector.shape != (size,) or not np.isfinite(vector).all():
            raise EnvError(
                f"A physics state of this task is a finite vector of {size} numbers, got shape "
                f"{vector.shape}{'' if np.isfinite(vector).all() else ' with NaN or inf'}: "
                "pass what physics_state() of the same task returned"
            )
        mujoco.mj_setState(self.model, self.data, vector, spec)
        # For what steps and images read. It leaves the state itself alone, the solver's warm start included.
        mujoco.mj_forward(self.model, self.data)

    def state_at_rest(self, change: Callable[[mujoco.MjData], None]) -> np.ndarray:
        """The state that `change` makes of a copy of this one, with all velocities 0."""
        import mujoco

        changed = Simulation(self.model, mujoco.MjData(self.model))
        changed.set_state(self.state())
        change(changed.data)
        changed.data.qvel[:] = 0.0
        mujoco.mj_forward(self.model, changed.data)
        return changed.state()

    def num_divergences(self) -> int:
        """How often MuJoCo found a bad state since its data were reset (it then resets them silently)."""
        import mujoco

        count = self.data.warning.number
        kinds = mujoco.mjtWarning
        return int(
            count[kinds.mjWARN_BADQPOS.value]
            + count[kinds.mjWARN_BADQVEL.value]
            + count[kinds.mjWARN_BADQACC.value]
        )
