"""Many MuJoCo states stepped at once, in C++ threads: `BatchPhysics`.

    physics = BatchPhysics(batch_task("cheetah-run").load_spec(), num_substeps=1, num_threads=2)
    readings = physics.rollout([env.simulation], controls)

It plays on copies: the simulations it starts from are left as they are. Its physics states equal those of
dm_control's own steps to the bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from envs.batch_task import Readings, Sensor, constants_of
from envs.errors import EnvError
from envs.model_copy import ModelCopy, compile_with_sensors, sensor_places
from envs.simulation import Simulation

if TYPE_CHECKING:
    import mujoco


class BatchPhysics:
    """Steps the simulations of several environments, many copies of each, with a pool of threads.

    Args:
        spec: the model; sensors are added to it.
        num_substeps: physics steps per control step.
        sensors: what to compute beside the model's own sensors, by name.
        num_threads: how many simulate; the results do not depend on it.
        change_model: called with each environment's copy of its model before each rollout, to change it: then
            that is the physics.
    """

    def __init__(
        self,
        spec: mujoco.MjSpec,
        *,
        num_substeps: int,
        sensors: Mapping[str, Sensor] | None = None,
        num_threads: int = 1,
        change_model: Callable[[mujoco.MjModel], None] | None = None,
    ) -> None:
        from mujoco.rollout import Rollout

        if num_threads < 1:
            raise EnvError(f"num_threads={num_threads}, and at least 1 must simulate")
        self.num_substeps = num_substeps
        self.num_physics_steps = 0
        self._change_model = change_model
        self._template = compile_with_sensors(spec, sensors or {})
        self._places = sensor_places(self._template)
        # Sensors of a state are computed when stepping on from it, so one more step is due at the end.
        self._num_extra_steps = 1 if self._places else 0
        self._copies: list[ModelCopy] = []
        self._data = [_make_data(self._template) for _ in range(num_threads)]
        # One thread is the calling one: a pool of one would only add a switch between them.
        self._pool = Rollout(nthread=num_threads if num_threads > 1 else 0)
        self._buffers: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None

    def close(self) -> None:
        """End the threads."""
        self._pool.close()

    def num_bytes(self, num_control_steps: int) -> int:
        """Memory that one candidate takes in a rollout of this length."""
        model = self._template
        size = _state_size(model) + model.nsensordata + model.nu
        return 8 * size * (num_control_steps * self.num_substeps + self._num_extra_steps)

    def rollout(self, simulations: Sequence[Simulation], controls: np.ndarray) -> Readings:
        """Play controls from where the simulations are now.

        Forces applied by hand (`xfrc_applied`, `qfrc_applied`) and moved mocap bodies are not carried on.

        Args:
            simulations: of B environments; left untouched.
            controls: in the actuators' units, float64 (B, N, T, nu); each is held for `num_substeps`.

        Returns:
            Readings at the end of each control step, with leading axes (B, N, T): views that the next
            rollout overwrites.

        Raises:
            EnvError: a simulation is of another model.
        """
        import mujoco

        num_envs, num_candidates, num_steps = controls.shape[:3]
        models = self._synced_models(simulations)
        k, num_rows = self.num_substeps, num_envs * num_candidates
        num_played = num_steps * k
        control, state, sensordata = self._buffers_for(num_rows, num_played + self._num_extra_steps)
        for substep in range(k):
            control[:, substep:num_played:k] = controls.reshape(num_rows, num_steps, -1)
        control[:, num_played:] = control[:, num_played - 1 : num_played]
        start = np.stack([_full_physics(simulation) for simulation in simulations])
        # The constraint solver starts from the last accelerations: with others, the last bits would differ.
        warmstart = np.stack([simulation.data.qacc_warmstart for simulation in simulations])
        with quiet_divergence():
            self._pool.rollout(
                [model for model in models for _ in range(num_candidates)],
                self._data,
                initial_state=np.repeat(start, num_candidates, axis=0),
                control=control,
                initial_warmstart=np.repeat(warmstart, num_candidates, axis=0),
                nstep=control.shape[1],
                state=state,
                sensordata=sensordata,
                skip_checks=True,
            )
        self.num_physics_steps += control.shape[0] * control.shape[1]
        timestep = np.array([model.opt.timestep for model in models])

        def by_candidate(array: np.ndarray) -> np.ndarray:
            return array.reshape(num_envs, num_candidates, *array.shape[1:])

        diverged = _diverged(
            by_candidate(state), by_candidate(control), start[:, 0], timestep, mujoco.mjMAXVAL
        )

        def at_control_steps(array: np.ndarray, first: int) -> np.ndarray:
            return array[:, :, first : first + num_played - k + 1 : k]

        return self._readings(
            state=at_control_steps(by_candidate(state), k - 1),
            control=at_control_steps(by_candidate(control), k - 1),
            diverged=at_control_steps(diverged, k - 1),
            # state[t] follows step t, but sensordata[t] belongs to the state before it; and dm_control leaves
            # the acceleration-stage sensors at those of the last physics step.
            sensordata=at_control_steps(by_candidate(sensordata), k if self._num_extra_steps else k - 1),
            acceleration_sensordata=at_control_steps(by_candidate(sensordata), k - 1),
            models=models,
        )

    def read(self, simulations: Sequence[Simulation]) -> Readings:
        """What there is to read in the simulations now, with one leading axis (B,)."""
        import mujoco

        spec = mujoco.mjtState.mjSTATE_INTEGRATION.value
        models = self._synced_models(simulations)
        data = self._data[0]
        rows, current, last = [], [], []
        for simulation, model in zip(simulations, models, strict=True):
            mujoco.mj_setState(model, data, simulation.state(), spec)
            mujoco.mj_forward(model, data)
            own = simulation.data.sensordata
            rows.append(_full_physics(simulation))
            current.append(data.sensordata.copy())
            # The model's own sensors come first.
            last.append(np.concatenate([own, data.sensordata[own.size :]]))
        return self._readings(
            state=np.stack(rows),
            control=np.stack([simulation.data.ctrl for simulation in simulations]),
            diverged=np.zeros(len(models), np.bool_),
            sensordata=np.stack(current),
            acceleration_sensordata=np.stack(last),
            models=models,
        )

    def _readings(self, *, state: np.ndarray, models: list[mujoco.MjModel], **arrays: np.ndarray) -> Readings:
        nq, nv = self._template.nq, self._template.nv
        qpos, qvel = state[..., 1 : 1 + nq], state[..., 1 + nq : 1 + nq + nv]
        return Readings(qpos=qpos, qvel=qvel, places=self._places, constants=constants_of(models), **arrays)

    def _synced_models(self, simulations: Sequence[Simulation]) -> list[mujoco.MjModel]:
        while len(self._copies) < len(simulations):
            self._copies.append(ModelCopy(self._template))
        copies = self._copies[: len(simulations)]
        for model_copy, simulation in zip(copies, simulations, strict=True):
            model_copy.sync(simulation.model)
            if self._change_model is not None:
                self._change_model(model_copy.model)
        return [model_copy.model for model_copy in copies]

    def _buffers_for(self, num_rows: int, num_steps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        # Kept from call to call, since fresh memory costs more than it takes to fill.
        if self._buffers is None or self._buffers[0].shape[:2] != (num_rows, num_steps):
            model = self._template
            widths = (model.nu, _state_size(model), model.nsensordata)
            control, state, sensordata = (np.empty((num_rows, num_steps, width)) for width in widths)
            self._buffers = control, state, sensordata
        return self._buffers


def _make_data(model: mujoco.MjModel) -> mujoco.MjData:
    import mujoco

    return mujoco.MjData(model)


def _state_size(model: mujoco.MjModel) -> int:
    import mujoco

    return mujoco.mj_stateSize(model, mujoco.mjtState.mjSTATE_FULLPHYSICS.value)


def _full_physics(simulation: Simulation) -> np.ndarray:
    import mujoco

    state = np.empty(_state_size(simulation.model))
    spec = mujoco.mjtState.mjSTATE_FULLPHYSICS.value
    mujoco.mj_getState(simulation.model, simulation.data, state, spec)
    return state


def _diverged(
    state: np.ndarray, control: np.ndarray, start_s: np.ndarray, timestep_s: np.ndarray, max_value: float
) -> np.ndarray:
    """From which physics step on a rollout means nothing: bool (B, N, steps), as the arrays' leading axes.

    At a bad state or control MuJoCo warns and (mostly) starts again from time 0; the rest of its rollout then
    repeats that step.
    """
    times = state[..., 0]
    expected = start_s[:, None] + timestep_s[:, None] * np.arange(1, times.shape[-1] + 1)
    wrong = np.abs(times - expected[:, None]) > 0.5 * timestep_s[:, None, None]
    # Nearly always all is well, and seen ten times faster in the whole than step by step.
    is_bounded = all(-max_value < array.min() and array.max() < max_value for array in (state, control))
    if is_bounded and not wrong[..., -1].any():
        return wrong
    # The first repetition tells of the step before it, whose time may be right.
    wrong[..., :-1] |= times[..., 1:] == times[..., :-1]
    for array in (state, control):  # a bad last state is not stepped on from; NaN compares false
        wrong |= ~(np.abs(array).max(axis=-1) < max_value)
    return np.logical_or.accumulate(wrong, axis=-1)


@contextmanager
def quiet_divergence() -> Iterator[None]:
    """Say nothing where simulations diverge: `Readings.diverged` tells, and a planner may try thousands."""
    import mujoco

    before = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(lambda message: None)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(before)
