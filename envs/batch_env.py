"""`BatchTaskVectorEnv`: many environments of one task, whose physics and rewards are computed together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from gymnasium.wrappers.utils import rescale_box

from envs.arguments import LARGEST
from envs.batch_task import BatchTask
from envs.errors import EnvError, InvalidActionError, SimulationError
from envs.live_physics import LivePhysics
from envs.mjcf_env import MjcfEnv
from envs.suite import SuiteEnv
from envs.vector import TaskVectorEnv
from envs.wrappers import Observation, TaskEnv


class BatchTaskVectorEnv(TaskVectorEnv):
    """Environments of one of the `batch_task_names()`; made by `envs.make_vec`.

    What it gives is what `SyncTaskVectorEnv` gives, in a fraction of the time. Episodes are drawn by one
    environment (`task_env`), which also draws the images; of dm_control's tasks nothing else asks its Python.

    Args:
        task_env: the task's own environment.
        batch_task: its observation and reward for many states.
        env_seeds: of the first episode of each environment.
        autoreset_mode: what follows an episode's end.
        num_threads: how many simulate; the results do not depend on it.
    """

    def __init__(
        self,
        task_env: TaskEnv,
        batch_task: BatchTask,
        *,
        env_seeds: tuple[int, ...],
        autoreset_mode: AutoresetMode,
        num_threads: int = 1,
    ) -> None:
        simulated_env = task_env.unwrapped
        assert isinstance(simulated_env, SuiteEnv | MjcfEnv)
        self.num_envs = len(env_seeds)
        self.single_observation_space = task_env.observation_space
        self.single_action_space = task_env.action_space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self.metadata = {**task_env.metadata, "autoreset_mode": autoreset_mode}
        self.render_mode = task_env.render_mode
        self.autoreset_mode = autoreset_mode
        self._describe(task_env, env_seeds)
        self._task_env, self._simulated_env, self._batch_task = task_env, simulated_env, batch_task
        own_actions = simulated_env.action_space
        assert isinstance(own_actions, spaces.Box)
        # The very function with which RescaleAction maps actions to the motors.
        self._to_motors = rescale_box(own_actions, np.float32(-1.0), np.float32(1.0))[2]
        # What an episode's start sets in the model stands there from now on.
        task_env.reset(seed=env_seeds[0])
        self._physics = LivePhysics(
            batch_task,
            task_env.simulation,
            num_simulations=self.num_envs,
            num_substeps=simulated_env.num_substeps,
            num_threads=num_threads,
            varies_model=simulated_env.varies_model,
        )
        self._factors: list[dict[str, float]] = [{}] * self.num_envs
        self._chances: list[dict[str, Any] | None] = [None] * self.num_envs
        self._num_env_steps = np.zeros(self.num_envs, np.int64)
        self._is_running = np.zeros(self.num_envs, np.bool_)  # else a reset is due
        self._has_diverged = np.zeros(self.num_envs, np.bool_)  # then it must be asked for
        self._observation: Observation = {
            key: np.zeros(space.shape, space.dtype)
            for key, space in self.observation_space.items()  # type: ignore[attr-defined]
        }

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Reset all, or those in `options["reset_mask"]`; an int seed means seed + i, as in Gymnasium."""
        seeds = [seed + index for index in range(self.num_envs)] if isinstance(seed, int) else seed
        if seeds is not None and len(seeds) != self.num_envs:
            raise EnvError(f"seed has {len(seeds)} entries, and there are {self.num_envs} environments")
        for index in np.flatnonzero(self._reset_mask(options)).tolist():
            self._start(index, None if seeds is None else seeds[index])
        return self._copied_observation(), {}

    def step(
        self, actions: np.ndarray
    ) -> tuple[Observation, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """One agent step of each environment: up to `action_repeat` env steps; rewards are summed.

        Raises:
            InvalidActionError: wrong shape, NaN or inf. Outside [-1, 1] is clipped.
            SimulationError: simulations diverged; they must be reset, and the others have stepped.
            gymnasium.error.ResetNeeded: an episode is over, or none was started.
        """
        actions = self._checked_actions(actions)
        starts = ~self._is_running
        is_automatic = self.autoreset_mode == AutoresetMode.NEXT_STEP and None not in self._chances
        due = self._has_diverged if is_automatic else starts
        if due.any():
            raise gymnasium.error.ResetNeeded(
                f"{self.task}: environments {np.flatnonzero(due).tolist()} have no running episode: "
                "call reset()"
            )
        rewards = self._advance(actions)
        truncated = ~starts & self._is_over() & ~self._has_diverged
        info: dict[str, Any] = {}
        if "pixels" in self._observation:
            self._draw(np.flatnonzero(~starts & ~self._has_diverged))
        ended = starts  # of the last step: now they start again
        if self.autoreset_mode == AutoresetMode.SAME_STEP:
            ended = truncated
            for index in np.flatnonzero(ended).tolist():
                final = {key: values[index].copy() for key, values in self._observation.items()}
                info = self._add_info(info, {"final_obs": final, "final_info": {}}, index)
        for index in np.flatnonzero(ended).tolist():
            self._start(index, None)
        terminated = np.zeros(self.num_envs, np.bool_)
        result = self._copied_observation(), rewards, terminated, truncated, info
        if self._has_diverged.any():
            where, others = np.flatnonzero(self._has_diverged).tolist(), self._and_for(truncated)
            what = (
                f"{self.task} diverged in environments {where}. Call reset() for these{others} to go on; "
                "actions that change less from step to step, or a smaller action_repeat, make this rarer"
            )
            raise SimulationError(what, environments=tuple(where), result=result)
        return result

    def render(self) -> tuple[np.ndarray, ...]:
        """An image of each environment for people."""
        images = []
        for index in range(self.num_envs):
            self._physics.show(index, self._task_env.simulation)
            images.append(self._task_env.render())
        return tuple(images)

    def physics_states(self) -> np.ndarray:
        """MuJoCo's full integration state of each environment: float64 (B, S)."""
        return self._physics.states()

    def factors(self) -> list[dict[str, float]]:
        """The numbers that vary in each running episode, of those that were asked for."""
        return [dict(factors) for factors in self._factors]

    def close_extras(self, **kwargs: Any) -> None:
        """Free the renderers and the environment."""
        self._task_env.close()

    def _is_over(self) -> np.ndarray:
        """Where an episode has had all its env steps."""
        steps = self._task_env.num_env_steps
        over: np.ndarray = self._num_env_steps >= (math.inf if steps is None else steps)
        return over

    def _start(self, index: int, seed: int | None) -> None:
        """Start an episode: the task's environment draws it, with the chance of this one."""
        chance = self._chances[index]
        if seed is None and chance is not None:
            self._simulated_env.chance = chance
        elif seed is None:
            seed = self.env_seeds[index]
        observation, _ = self._task_env.reset(seed=seed)
        self._chances[index] = self._simulated_env.chance
        self._factors[index] = self._task_env.factors
        self._physics.place(index, self._task_env.simulation)
        self._num_env_steps[index] = 0
        self._is_running[index], self._has_diverged[index] = True, False
        for key, value in observation.items():
            self._observation[key][index] = value

    def _advance(self, actions: np.ndarray) -> np.ndarray:
        """Play an action in every running environment; returns rewards (B,), and notes what is observed."""
        played = self._is_running
        controls = self._to_motors(actions)
        rewards = np.zeros(self.num_envs)
        active = self._is_running.copy()
        has_diverged = np.zeros(self.num_envs, np.bool_)
        readings = None
        for _ in range(self.action_repeat):
            if not active.any():
                break
            indices = None if active.all() else np.flatnonzero(active)
            readings = self._physics.step(controls, indices)
            with np.errstate(all="ignore"):  # a diverged simulation may hold any numbers
                reward = self._batch_task.reward(readings)
            has_diverged |= active & readings.diverged
            np.add(rewards, reward, out=rewards, where=active)
            self._num_env_steps += active
            active &= ~self._is_over()
        has_diverged |= ~(np.abs(rewards) <= LARGEST)  # also NaN
        if readings is not None and "state" in self._observation:
            with np.errstate(all="ignore"):
                states = self._batch_task.observe(readings).astype(np.float32)
            self._observation["state"][played] = states[played]
            has_diverged |= played & ~np.isfinite(states).all(axis=1)
        self._is_running = played & ~has_diverged & ~self._is_over()
        self._has_diverged = has_diverged
        return rewards

    def _draw(self, indices: np.ndarray) -> None:
        for index in indices.tolist():
            self._physics.show(index, self._task_env.simulation)
            self._observation["pixels"][index] = self._task_env.pixels()

    def _copied_observation(self) -> Observation:
        return {key: value.copy() for key, value in self._observation.items()}

    def _checked_actions(self, actions: Any) -> np.ndarray:
        vector = np.asarray(actions, np.float32)
        if vector.shape != self.action_space.shape:
            raise InvalidActionError(
                f"{self.task}: actions of {self.num_envs} environments have shape {self.action_space.shape}, "
                f"got {vector.shape}"
            )
        if not np.isfinite(vector).all():
            raise InvalidActionError(
                f"{self.task}: actions must be finite numbers in [-1, 1]: look for a diverged policy or "
                "planner"
            )
        return np.minimum(np.maximum(vector, -1.0), 1.0)

    def _reset_mask(self, options: dict[str, Any] | None) -> np.ndarray:
        everything = np.ones(self.num_envs, np.bool_)
        if options is None or "reset_mask" not in options:
            return everything
        mask = options["reset_mask"]
        if not isinstance(mask, np.ndarray) or mask.shape != everything.shape or mask.dtype != np.bool_:
            raise EnvError(
                f"reset_mask is {mask!r}, and it is a bool array with an entry for each of the "
                f"{self.num_envs} environments"
            )
        if not mask.any():
            raise EnvError("reset_mask is False everywhere, and one environment at least must be reset")
        return mask
