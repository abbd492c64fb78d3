"""`Oracle`: scores candidates by playing them in MuJoCo itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeAlias

import gymnasium
import numpy as np
from gymnasium.wrappers.utils import rescale_box

from envs.batch_task import Readings
from envs.errors import EnvError
from envs.physics import BatchPhysics
from envs.registry import batch_task, canonical_task, load_task
from envs.simulation import Simulation
from envs.wrappers import Observation

if TYPE_CHECKING:
    import mujoco

TerminalValue: TypeAlias = Callable[[Observation], np.ndarray]
Reward: TypeAlias = Callable[[Readings], np.ndarray]
Violation: TypeAlias = Callable[[Readings], np.ndarray]

# Of one chunk of candidates.
_MAX_NUM_BYTES = 150_000_000


class Oracle:
    """Scores candidates by playing them in MuJoCo itself: a planner's world model without any error.

        oracle = Oracle("cheetah-run", action_repeat=2)
        returns = oracle.returns([env.simulation], candidates)

    What a learned model could give this planner and budget if it made no error. The environments stay as
    they are; a predicted reward is the one that the environment will give. Episodes have no end here: rewards
    are counted beyond the step at which the environment will truncate.

    Args:
        task: one of `batch_task_names()`.
        action_repeat: control steps per action, as in `envs.make`.
        num_threads: how many simulate; the results do not depend on it.
        discount: of rewards and the terminal value, per agent step.
        change_model: changes a copy of each environment's model in place before its candidates are played
            (domain randomisation); the copy is fresh each time.

    Raises:
        UnsupportedEnvError: the task has no batched observation and reward.
        EnvError: other wrong arguments.
    """

    def __init__(
        self,
        task: str,
        *,
        action_repeat: int = 1,
        num_threads: int = 1,
        discount: float = 1.0,
        change_model: Callable[[mujoco.MjModel], None] | None = None,
    ) -> None:
        if action_repeat < 1:
            raise EnvError(f"action_repeat={action_repeat}, and an action is applied at least once")
        if not 0.0 <= discount <= 1.0:
            raise EnvError(f"discount={discount}, and it lies in [0, 1]")
        self.task = canonical_task(task)
        self.action_repeat = action_repeat
        self.discount = discount
        self._batch_task = batch_task(task)
        env_step_s, timestep_s, self._action_space = _timing_and_actions(self.task)
        self._physics = BatchPhysics(
            self._batch_task.load_spec(),
            num_substeps=round(env_step_s / timestep_s),
            sensors=self._batch_task.added_sensors,
            num_threads=num_threads,
            change_model=change_model,
        )
        # The very function with which the environment's RescaleAction maps actions to the motors.
        self._to_motors = rescale_box(self._action_space, np.float32(-1.0), np.float32(1.0))[2]

    @property
    def num_physics_steps(self) -> int:
        """Physics steps played so far, over all candidates."""
        return self._physics.num_physics_steps

    def close(self) -> None:
        """End the threads."""
        self._physics.close()

    def returns(
        self,
        simulations: Sequence[Simulation],
        candidates: np.ndarray,
        *,
        terminal_value: TerminalValue | None = None,
        reward: Reward | None = None,
        violation: Violation | None = None,
        weight: float = 1.0,
    ) -> np.ndarray:
        """Discounted return of each candidate; NaN where the simulation diverges.

        Args:
            simulations: `TaskEnv.simulation` of B environments.
            candidates: actions, clipped to [-1, 1]: (B, N, H, A).
            terminal_value: value of the last observations, {"state": float32 (B*N, O)} -> (B*N,), those of
                one environment side by side. After a divergence they are NaN.
            reward: of each control step, in place of the task's own: readings [...] -> [...].
            violation: how badly states break a constraint, readings [...] -> [...]: each control step's
                reward is lowered by `weight` times it.
            weight: of the violation, at least 0; infinite makes it a hard rule.

        Returns:
            float64 (B, N).

        Raises:
            EnvError: wrong shapes, or simulations of another task.
        """
        if not weight >= 0:
            raise EnvError(f"weight={weight}, and a violation is taken off: give 0 or more")
        rewards, last = [], []
        for readings in self._play(simulations, candidates):
            rewards.append(self._rewards(readings, reward, violation, weight))
            if terminal_value is not None:
                last.append(self._observations(readings.steps(slice(-1, None)))[:, :, 0])
        horizon = candidates.shape[2]
        returns = np.concatenate(rewards, axis=1) @ self.discount ** np.arange(horizon)
        if terminal_value is not None:
            states = np.concatenate(last, axis=1)
            values = np.asarray(terminal_value({"state": states.reshape(-1, states.shape[-1])}), np.float64)
            if values.shape != (returns.size,):
                raise EnvError(
                    f"terminal_value returned shape {values.shape}, and it gives one value for each of "
                    f"{returns.size} candidates: ({returns.size},)"
                )
            returns += self.discount**horizon * values.reshape(returns.shape)
        return returns

    def play(
        self, simulations: Sequence[Simulation], candidates: np.ndarray
    ) -> tuple[np.ndarray, Observation]:
        """Predicted rewards and observations after each agent step; NaN from a divergence on.

        Args:
            simulations: as in `returns`.
            candidates: as in `returns`.

        Returns:
            Rewards float64 (B, N, H), summed over the action repeat, and observations
            {"state": float32 (B, N, H, O)}.

        Raises:
            EnvError: as `returns`.
        """
        rewards, states = [], []
        for readings in self._play(simulations, candidates):
            rewards.append(self._rewards(readings))
            states.append(
                self._observations(readings.steps(slice(self.action_repeat - 1, None, self.action_repeat)))
            )
        return np.concatenate(rewards, axis=1), {"state": np.concatenate(states, axis=1)}

    def positions(self, simulations: Sequence[Simulation], candidates: np.ndarray) -> np.ndarray:
        """Where each candidate leads: qpos after each agent step, (B, N, H, nq); NaN from a divergence on.

        Arguments and errors as of `returns`.
        """
        parts = []
        for readings in self._play(simulations, candidates):
            kept = readings.steps(slice(self.action_repeat - 1, None, self.action_repeat))
            parts.append(np.where(kept.diverged[..., None], np.nan, kept.qpos))
        return np.concatenate(parts, axis=1)

    def controls(self, candidates: np.ndarray) -> np.ndarray:
        """What the motors get in each control step, as from `step`: (B, N, H * action_repeat, nu)."""
        # As TaskEnv and RescaleAction: float32, clipped, then mapped to the motors' range.
        actions = np.clip(candidates.astype(np.float32), -1.0, 1.0)
        return np.repeat(self._to_motors(actions), self.action_repeat, axis=2)

    def _play(self, simulations: Sequence[Simulation], candidates: np.ndarray) -> Iterator[Readings]:
        """Readings (B, n, H * action_repeat) of one chunk of candidates after the other."""
        self._check(simulations, candidates)
        num_envs, num_candidates, horizon, _ = candidates.shape
        num_bytes = num_envs * self._physics.num_bytes(horizon * self.action_repeat)
        chunk = min(num_candidates, max(1, _MAX_NUM_BYTES // num_bytes))
        for start in range(0, num_candidates, chunk):
            yield self._physics.rollout(simulations, self.controls(candidates[:, start : start + chunk]))

    def _rewards(
        self,
        readings: Readings,
        reward: Reward | None = None,
        violation: Violation | None = None,
        weight: float = 1.0,
    ) -> np.ndarray:
        """Rewards (B, n, H), summed over the action repeat."""
        with np.errstate(all="ignore"):  # a diverged simulation may hold any numbers
            rewards = (reward or self._batch_task.reward)(readings)
            penalty = np.zeros_like(rewards) if violation is None else np.asarray(violation(readings))
        if penalty.shape != rewards.shape:
            raise EnvError(
                f"violation returned shape {penalty.shape}, and it gives one number for each environment, "
                f"candidate and control step: {rewards.shape}"
            )
        keeps = penalty <= 0  # NaN keeps no rule; infinity times 0 would be NaN
        rewards = np.where(keeps, rewards, -np.inf) if np.isinf(weight) else rewards - weight * penalty
        rewards = np.where(readings.diverged, np.nan, rewards)
        return rewards.reshape(*rewards.shape[:2], -1, self.action_repeat).sum(axis=-1)

    def _observations(self, readings: Readings) -> np.ndarray:
        with np.errstate(all="ignore"):
            states = self._batch_task.observe(readings).astype(np.float32)
        states[readings.diverged] = np.nan
        return states

    def _check(self, simulations: Sequence[Simulation], candidates: np.ndarray) -> None:
        shape, action_dim = candidates.shape, self._action_space.shape[0]
        expected = f"({len(simulations)}, candidates, horizon, {action_dim})"
        fits = len(shape) == 4 and shape[0] == len(simulations) and shape[-1] == action_dim and min(shape) > 0
        if not fits:
            raise EnvError(
                f"{self.task}: candidates for {len(simulations)} simulations have shape {expected}, got "
                f"{tuple(shape)}"
            )


def _timing_and_actions(task: str) -> tuple[float, float, gymnasium.spaces.Box]:
    """Seconds of a control step and of a physics step, and the motors' own bounds."""
    loaded = load_task(task)
    try:
        space = loaded.env.unwrapped.action_space
        assert isinstance(space, gymnasium.spaces.Box)
        assert loaded.env_step_s is not None
        assert loaded.simulation is not None
        return loaded.env_step_s, loaded.simulation.model.opt.timestep, space
    finally:
        loaded.env.close()
