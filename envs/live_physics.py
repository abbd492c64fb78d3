"""Many MuJoCo simulations of one task that live on from step to step, in C++ threads: `LivePhysics`.

    physics = LivePhysics(batch_task("cheetah-run"), simulation, num_simulations=64, num_substeps=1)
    physics.place(3, simulation)
    readings = physics.step(controls)

Steps are those of the task's own environment, to the bit. (`BatchPhysics` plays sequences on copies and
forgets them.)
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec

import numpy as np

from envs.batch_task import BatchTask, Readings, constants_of, model_constant
from envs.errors import EnvError
from envs.model_copy import ModelCopy, compile_with_sensors, sensor_places
from envs.physics import quiet_divergence
from envs.simulation import Simulation


@cache
def has_live_physics() -> bool:
    """Whether the installed MuJoCo can step many simulations at once (since 3.17)."""
    return find_spec("mujoco") is not None and find_spec("mujoco.batch") is not None


class LivePhysics:
    """The simulations of many environments of one task, stepped together.

    Args:
        task: what is read from them.
        simulation: of the task's own environment, after a reset: its constants are everybody's, except the
            task's `drawn_fields`.
        num_simulations: how many; each must be `place`d before it is stepped.
        num_substeps: physics steps per control step.
        num_threads: how many simulate; the results do not depend on it.
        varies_model: whether each has all constants of its own, taken over when it is placed.
    """

    def __init__(
        self,
        task: BatchTask,
        simulation: Simulation,
        *,
        num_simulations: int,
        num_substeps: int,
        num_threads: int = 1,
        varies_model: bool = False,
    ) -> None:
        if num_threads < 1:
            raise EnvError(f"num_threads={num_threads}, and at least 1 must simulate")
        import mujoco
        from mujoco.batch import Batch

        template = compile_with_sensors(task.load_spec(), task.added_sensors)
        self._copies = [ModelCopy(template) for _ in range(num_simulations if varies_model else 1)]
        for model_copy in self._copies:
            model_copy.sync(simulation.model)
        self._model = self._copies[0].model
        self._varies_model = varies_model
        self._num_substeps = num_substeps
        # One MjData for each: a step then goes on from what the step before has computed at its end.
        try:
            self._batch = Batch(self._model, num_simulations, num_threads, persistent=True)
        except (ValueError, MemoryError) as error:
            raise EnvError(f"num_envs={num_simulations}: {error}; take fewer") from error
        self._stage = mujoco.mjtStage.mjSTAGE_VEL.value
        self._drawn: dict[str, np.ndarray] = {}
        if varies_model:
            self._batch.set_models([model_copy.model for model_copy in self._copies])
        else:
            self._drawn = {field: self._batch.expand(field) for field in task.drawn_fields}
        self._places = sensor_places(self._model)
        self._control, self._sensordata = self._batch.bind("ctrl"), self._batch.bind("sensordata")
        kinds = mujoco.mjtWarning
        bad = (kinds.mjWARN_BADQPOS, kinds.mjWARN_BADQVEL, kinds.mjWARN_BADQACC, kinds.mjWARN_BADCTRL)
        self._bad = [kind.value for kind in bad]
        self._warning_counts = self._batch.warning[..., 1]
        self._seen_counts = self._warning_counts.copy()
        self._shared_constants: dict[tuple[str, str, str], np.ndarray] = {}

    def place(self, index: int, simulation: Simulation) -> None:
        """Let one of them go on from where `simulation` is, in the episode that was drawn there."""
        self.set_state(index, simulation.state())
        if self._varies_model:
            self._copies[index].sync(simulation.model)
        for field, values in self._drawn.items():
            values[index] = getattr(simulation.model, field)

    def show(self, index: int, simulation: Simulation) -> None:
        """Bring `simulation` to where one of them is."""
        if self._varies_model:
            self._copies[index].copy_to(simulation.model)
        for field, values in self._drawn.items():
            getattr(simulation.model, field)[...] = values[index]
        simulation.set_state(self._batch.state[index])

    def states(self) -> np.ndarray:
        """Copies of the full integration states: float64 (B, S), as `Simulation.state` gives them."""
        return self._batch.state.copy()

    def set_state(self, index: int, state: np.ndarray) -> None:
        """Let one of them go on from a state that `states` gave."""
        self._batch.state[index] = state
        # MuJoCo counts anew after a bad state: a second one would look like the first.
        self._warning_counts[index] = self._seen_counts[index] = 0

    def step(self, controls: np.ndarray, indices: np.ndarray | None = None) -> Readings:
        """One control step of all of them, or of those at `indices`; readings of all, leading axis (B,).

        Args:
            controls: in the actuators' units, (B, nu).
            indices: int (n,), rising.

        Returns:
            Views that the next step overwrites.
        """
        self._control[...] = controls
        with quiet_divergence():
            self._batch.step(indices, self._num_substeps, self._stage)
        nq, nv = self._model.nq, self._model.nv
        state = self._batch.state
        return Readings(
            qpos=state[:, 1 : 1 + nq],
            qvel=state[:, 1 + nq : 1 + nq + nv],
            control=self._control,
            diverged=self._newly_diverged(),
            # Position and velocity sensors are of the state itself, the others of the last physics step.
            sensordata=self._sensordata,
            acceleration_sensordata=self._sensordata,
            places=self._places,
            constants=self._constants,
        )

    def _newly_diverged(self) -> np.ndarray:
        """Where MuJoCo has found a bad state since the last time this was asked."""
        counts = self._warning_counts.copy()
        newly = (counts != self._seen_counts)[:, self._bad].any(axis=1)
        self._seen_counts = counts
        return newly

    def _constants(self, kind: str, name: str, attribute: str) -> np.ndarray:
        field, path = f"{kind}_{attribute}", (kind, name, attribute)
        if self._varies_model:
            return constants_of([model_copy.model for model_copy in self._copies])(*path)
        if field in self._drawn:
            values = self._drawn[field]
            return values[:, getattr(self._model, kind)(name).id].reshape(len(values), -1)
        if path not in self._shared_constants:
            self._shared_constants[path] = model_constant(self._model, *path)[None]
        return self._shared_constants[path]
